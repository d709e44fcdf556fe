"""Where the time of a forward goes: operators, layers, memory, and what bounds it."""
