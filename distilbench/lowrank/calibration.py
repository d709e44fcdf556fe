"""What a text says of keys and values: their second moments, and how much the loss depends on each projection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from distilbench.errors import DataError
from distilbench.lowrank.shapes import KINDS, Shapes, projection_name


def projections(model: nn.Module, shapes: Shapes) -> dict[str, nn.Module]:
    """The projections of a decoder that are compressed, by the names that checkpoints give them."""
    return {
        projection_name(layer, kind): getattr(model.model.layers[layer].self_attn, kind)
        for layer in range(shapes.layers)
        for kind in KINDS
    }


@torch.inference_mode()
def moments(model: nn.Module, shapes: Shapes, windows: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """For each projection, float64 (G, g, g): sums of k k^T per group over all tokens of a text.

    Keys are taken before their rotation and without their bias, which the second factor keeps exactly.

    Args:
        model: decoder with all its projections whole.
        shapes: of the model.
        windows: token ids, each int64 (1, L).

    Raises:
        DataError: there is no window.
    """
    width = shapes.group_width
    sums = {name: torch.zeros(shapes.groups, width, width, dtype=torch.float64) for name in shapes.projections}
    with ExitStack() as hooks:
        for name, projection in projections(model, shapes).items():
            hooks.enter_context(_Hook(projection, partial(_add, sums[name])))
        seen = 0
        for window in windows:
            model(window.to(model.device), use_cache=False, logits_to_keep=1)
            seen += 1
    if not seen:
        raise DataError("the text of the calibration is shorter than one window; give a longer text or shorter windows")
    return sums


class _Hook:
    """A forward hook that is taken away again."""

    def __init__(self, module: nn.Module, function: Any) -> None:
        self._module, self._function = module, function

    def __enter__(self) -> None:
        self._handle = self._module.register_forward_hook(self._function)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _add(sums: torch.Tensor, module: nn.Linear, _: Any, output: torch.Tensor) -> None:
    rows = (output if module.bias is None else output - module.bias).flatten(0, -2)  # (tokens, G x g)
    groups = rows.unflatten(-1, sums.shape[:2]).double().transpose(0, 1)  # (G, tokens, g)
    sums += (groups.transpose(1, 2) @ groups).to(sums.device)


def fisher(model: nn.Module, shapes: Shapes, windows: Iterable[torch.Tensor]) -> dict[str, float]:
    """For each projection, the mean over its weights of the root of the mean squared gradient.

    A window's loss is that of the next token, with labels shifted once, by the model. Gradients are taken of the
    projections alone, in the dtype of the model.

    Args:
        model: decoder with all its projections whole.
        shapes: of the model.
        windows: token ids, each int64 (1, L).

    Raises:
        DataError: there is no window.
    """
    weights = {name: module.weight for name, module in projections(model, shapes).items()}
    squares = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    seen = 0
    try:
        model.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        for window in windows:
            ids = window.to(model.device)
            loss = model(ids, labels=ids, use_cache=False).loss
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                squares[name] += gradient.float() ** 2
            seen += 1
    finally:
        for weight, wanted in before:
            weight.requires_grad_(wanted)
    if not seen:
        raise DataError("the text of the calibration is shorter than one window; give a longer text or shorter windows")
    return {name: float((square / seen).sqrt().mean()) for name, square in squares.items()}


def cut(ids: torch.Tensor, length: int, most: int | None = None) -> list[torch.Tensor]:
    """Whole windows of a text, each int64 (1, length), evenly spaced where fewer are wanted than there are.

    Args:
        ids: int64 (tokens,).
        length: tokens of a window.
        most: windows at most.
    """
    count = len(ids) // length
    chosen = range(count) if most is None or most >= count else [i * count // most for i in range(most)]
    return [ids[None, i * length : (i + 1) * length] for i in chosen]


def retained(energy: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Per kind of projection, the smallest share of energy that any group keeps."""
    return {kind: min(min(shares) for name, shares in energy.items() if name.endswith(kind)) for kind in KINDS}
