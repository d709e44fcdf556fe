"""Variants that torch executes: other attention kernels, mixed precision, compilation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from distilbench.errors import ModelError
from distilbench.harness.loop import slowed
from distilbench.machine.device import synchronize
from distilbench.sources.models import LoadedModel, load_model


@dataclass(frozen=True)
class TorchVariant:
    """How to execute: arguments of `load_model`, and by which share each forward is made longer (for calibration)."""

    attention: str = "sdpa"
    autocast: str | None = None
    compile: bool = False
    slow_down: float = 0.0

    def load(self, **model: Any) -> LoadedModel:
        """Loads the model so that it executes in this way."""
        loaded = load_model(**model, attention=self.attention, autocast=self.autocast, compile=self.compile)
        if not self.slow_down:
            return loaded
        fence = partial(synchronize, torch.device(loaded.info.device))
        return replace(loaded, forward=slowed(loaded.forward, self.slow_down, fence))

    @contextmanager
    def watch(self, loaded: LoadedModel) -> Iterator[dict[str, Any]]:
        """Watches the first forward inside (never a timed one) and collects proof that the variant was on.

        Yields:
            A dict that holds, after the forward: `attention`, `matmul_dtype` of the linear layers' results, and for a
            compiled variant `compiled_graphs`.

        Raises:
            ModelError: the variant was not on: another attention, another type, or nothing compiled.
        """
        proof: dict[str, Any] = {"attention": loaded.info.attention}
        linear = next(module for module in loaded.module.modules() if isinstance(module, torch.nn.Linear))
        graphs_before = _compiled_graphs()
        handle = None
        if not self.compile:  # a hook would be traced into the graph, or break it
            handle = linear.register_forward_hook(lambda _m, _i, out: proof.update(matmul_dtype=str(out.dtype)[6:]))
        try:
            yield proof
        finally:
            if handle:
                handle.remove()
        if self.slow_down:
            proof["slow_down"] = self.slow_down
        if self.compile:
            proof["compiled_graphs"] = _compiled_graphs() - graphs_before
        _check(proof, self, loaded.info.dtype)


def _check(proof: dict[str, Any], variant: TorchVariant, dtype: str) -> None:
    if proof["attention"] != variant.attention:
        raise ModelError(f"attention {variant.attention!r} was asked for, {proof['attention']!r} was used")
    if variant.compile and not proof["compiled_graphs"]:
        raise ModelError("torch.compile was asked for, but no graph was compiled")
    expected = variant.autocast or dtype
    if not variant.compile and proof.get("matmul_dtype") != expected:
        raise ModelError(f"{expected} arithmetic was asked for, the linear layers gave {proof.get('matmul_dtype')}")


def _compiled_graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


VARIANTS = {
    "eager": TorchVariant(attention="eager"),
    "sdpa": TorchVariant(),
    "autocast": TorchVariant(autocast="bfloat16"),
    "compiled": TorchVariant(compile=True),
    # Known truths for `distilbench calibrate`: the instrument must find them.
    "slowed-2": TorchVariant(slow_down=0.02),
    "slowed-5": TorchVariant(slow_down=0.05),
    "slowed-10": TorchVariant(slow_down=0.10),
}
