"""How dimension alignment is shown."""
