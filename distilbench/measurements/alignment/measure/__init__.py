"""How dimension alignment is measured."""
