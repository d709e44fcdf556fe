"""The sizes that a compression needs to know of an attention, and the group size that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distilbench.errors import ModelError
from distilbench.sources.decoders import SUPPORTED

KINDS = ("k_proj", "v_proj")  # the two projections that are compressed, in this order


@dataclass(frozen=True)
class Shapes:
    """Sizes of a decoder's attention.

    Attributes:
        layers: decoder layers.
        query_heads, kv_heads: heads of queries, and of keys and values (grouped-query attention).
        head_dim: width of a head, d.
        group_size: key-value heads that share a latent, s.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    group_size: int

    @property
    def groups(self) -> int:
        """Groups of a projection, G = key-value heads / s."""
        return self.kv_heads // self.group_size

    @property
    def group_width(self) -> int:
        """Rows of a group, g = s x d: the rank that loses nothing."""
        return self.group_size * self.head_dim

    @property
    def projections(self) -> list[str]:
        """Names of all compressed projections, as checkpoints have them."""
        return [projection_name(layer, kind) for layer in range(self.layers) for kind in KINDS]


def projection_name(layer: int, kind: str) -> str:
    """`model.layers.3.self_attn.k_proj`: how checkpoints and rank files name a projection."""
    return f"model.layers.{layer}.self_attn.{kind}"


def of_config(config: Any, group_size: int) -> Shapes:
    """The shapes of a model with that config.

    Args:
        config: of transformers.
        group_size: key-value heads that share a latent.

    Raises:
        ModelError: another architecture, layers that see a window only, or a group size that does not fit.
    """
    if config.model_type not in SUPPORTED:
        raise ModelError(
            f"keys and values of a model of type {config.model_type!r} cannot be compressed; "
            f"supported are: {', '.join(SUPPORTED)}"
        )
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ModelError("this model has layers that see a sliding window; only full attention can be compressed")
    kv_heads = config.num_key_value_heads
    check_group_size(group_size, kv_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shapes(config.num_hidden_layers, config.num_attention_heads, kv_heads, head_dim, group_size)


def check_group_size(group_size: int, kv_heads: int) -> None:
    """A group has to hold whole heads, and all groups as many.

    Raises:
        ModelError: it does not divide the key-value heads; those that do are named.
    """
    if group_size < 1 or kv_heads % group_size:
        fitting = [size for size in range(1, kv_heads + 1) if kv_heads % size == 0]
        raise ModelError(
            f"group size {group_size} does not divide the {kv_heads} key-value heads of this model; "
            f"it can be {', '.join(map(str, fitting))}"
        )
