"""How fast a decoder reads and writes, with its cache whole and compressed."""
