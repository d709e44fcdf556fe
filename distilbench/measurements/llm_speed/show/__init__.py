"""How decoders are shown."""
