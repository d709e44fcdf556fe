"""Low-rank compression of keys and values (Chang et al. 2024, PaLU, arXiv:2407.21118), in our own code."""
