"""The tokenizer without its model; which one belongs to what is tested with the models."""

from __future__ import annotations

import subprocess
import sys

INGEST = """
import sys
from distilbench import studies
from distilbench.report import tables
from distilbench.sources import tokenizers
from distilbench.sources.texts import load_texts, manifest
params = studies.resolve("distilbert", {"profile": "ci"}).params
print(manifest(load_texts(params), tokenizers.load_tokenizer(params))["rows"])
print(*(name for name in ("torch", "transformers") if name in sys.modules))
"""


def test_what_the_text_is_needs_no_torch():
    """The first notebook of the chain does nothing else: torch is imported once, where the model is loaded."""
    done = subprocess.run([sys.executable, "-c", INGEST], capture_output=True, text=True, check=True)
    rows, imported = done.stdout.splitlines()
    assert int(rows) > 0
    assert imported == "transformers"
