"""The instrument: the timed loop, fresh processes, shards of a plan, ceilings, energy windows."""
