"""How decoders are measured."""
