"""How perplexities are shown."""
