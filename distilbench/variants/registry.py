"""The registry of variants: ways of executing the same model, each with proof that it was really on.

A variant may execute by anything: what it loads need be no module of torch.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from distilbench.errors import ModelError
from distilbench.sources.models import ModelInfo


class Executable(Protocol):
    """A model that is ready to run, whatever runs it."""

    info: ModelInfo

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (batch, labels) of ids and mask, each int64 (batch, length) on the device."""

    def touch(self) -> None:
        """Makes all weights resident, so that a first forward does not seem to need their memory."""

    def cost(self, input_ids: torch.Tensor) -> tuple[float, float]:
        """FLOPs of one forward, and the bytes that it must move at least."""


class Variant(Protocol):
    """A way of executing."""

    def load(self, **model: Any) -> Executable:
        """Loads the model so that it executes in this way; arguments as of `models.load_model`."""

    def watch(self, loaded: Any) -> AbstractContextManager[dict[str, Any]]:
        """Around the first forward: yields a dict that holds the proof after it.

        Raises:
            ModelError: on leaving: the variant was not on.
        """


TORCH = "distilbench.variants.torch_variants"
#: The module of each variant, which has it in its `VARIANTS`; imported when it is asked for.
MODULES = dict.fromkeys(("eager", "sdpa", "autocast", "compiled", "slowed-2", "slowed-5", "slowed-10"), TORCH) | {
    "packed": "distilbench.variants.packed",
}


def named(name: str) -> Variant:
    """The variant of that name.

    Raises:
        ModelError: there is none.
    """
    if name not in MODULES:
        raise ModelError(f"there is no variant {name!r}; there are: {', '.join(MODULES)}")
    return importlib.import_module(MODULES[name]).VARIANTS[name]
