"""distilbench: what transformer inference costs, measured so that it survives a second look."""

import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook without ipywidgets
