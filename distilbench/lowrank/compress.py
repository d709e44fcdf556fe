"""A decoder with compressed keys and values, and the proof that it is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distilbench.errors import ModelError
from distilbench.lowrank.attention import LatentAttention, Rotation, cache_bytes, expected_bytes
from distilbench.lowrank.calibration import projections
from distilbench.lowrank.generation import generate
from distilbench.lowrank.projection import Factors, LowRankProjection, principal
from distilbench.lowrank.ranks import Allocation
from distilbench.lowrank.shapes import KINDS, Shapes, projection_name

Decomposition = Callable[[torch.Tensor, torch.Tensor, Any], Factors]


@dataclass(frozen=True)
class Compressed:
    """A compressed model, and what is recorded of it.

    Attributes:
        model: the decoder, changed in place.
        shapes: of its attention.
        allocation: its ranks.
        energy: projection -> share of squared keys or values that each group keeps over the calibration; null where
            factors were read from files.
    """

    model: nn.Module
    shapes: Shapes
    allocation: Allocation
    energy: Mapping[str, tuple[float, ...]] | None


def compress(
    model: nn.Module,
    shapes: Shapes,
    allocation: Allocation,
    moments: Mapping[str, torch.Tensor],
    decompose: Decomposition = principal,
) -> Compressed:
    """Replaces the attention of every layer by one with a latent cache; the model is changed in place.

    Args:
        model: decoder with all its projections whole.
        shapes: of the model.
        allocation: ranks of its groups.
        moments: of the calibration (`calibration.moments`).
        decompose: how factors are found.
    """
    energy, made = {}, {}
    for name, original in projections(model, shapes).items():
        ranks = allocation.ranks[name]
        factors = decompose(original.weight.detach(), moments[name].to(original.weight.device), ranks)
        energy[name], made[name] = factors.energy, LowRankProjection.of(original, factors)
    install(model, shapes, made)
    return Compressed(model, shapes, allocation, energy)


def install(model: nn.Module, shapes: Shapes, made: Mapping[str, LowRankProjection]) -> None:
    """Puts compressed projections into a decoder, with the attention that caches their latents.

    Keys that are not among them stay whole.
    """
    rotation = Rotation(model.model.rotary_emb, shapes.layers)
    for layer, block in enumerate(model.model.layers):
        keys, values = (made.get(projection_name(layer, kind)) for kind in KINDS)
        block.self_attn = LatentAttention(block.self_attn, keys, values, shapes, rotation)


@dataclass(frozen=True)
class Proof:
    """What one short generation showed.

    Attributes:
        new_tokens: that were generated, for each sequence.
        cached_tokens: in the cache afterwards: all but the last one, whose keys nobody has asked for.
        cache_bytes: counted from tensors.
        expected_bytes: by formula.
    """

    new_tokens: int
    cached_tokens: int
    cache_bytes: int
    expected_bytes: int


def prove(compressed: Compressed, ids: torch.Tensor, new_tokens: int = 8) -> Proof:
    """A forward and a short generation, with the bytes of its cache.

    Args:
        compressed: the model.
        ids: int64 (B, L), without padding.
        new_tokens: to generate.

    Raises:
        ModelError: logits are not finite, the generation stopped early, or the cache is not of the size that its ranks
            give it.
    """
    model = compressed.model
    with torch.inference_mode():
        if not bool(model(ids, use_cache=False, logits_to_keep=1).logits.isfinite().all()):
            raise ModelError("the compressed model gives logits that are not finite")
    done = generate(model, ids, torch.ones_like(ids), new_tokens)
    batch, tokens = ids.shape[0], done.past_key_values.get_seq_length()
    itemsize = next(model.parameters()).element_size()
    expected = expected_bytes(model.config, batch, tokens, itemsize, compressed.allocation.ranks)
    counted = cache_bytes(done.past_key_values)
    if counted != expected:
        raise ModelError(f"the cache holds {counted} bytes, its ranks give {expected}: keys or values are kept in full")
    return Proof(new_tokens, tokens, counted, expected)
