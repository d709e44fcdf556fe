"""How perplexities are measured."""
