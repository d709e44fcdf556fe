"""A decoder and its compressed form from the command line, in a folder of one's own: `python -m distilbench.llm`."""
