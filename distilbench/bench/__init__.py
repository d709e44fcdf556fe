"""The benchmark: variants, the worker that measures one repetition, the sweep that runs them all."""
