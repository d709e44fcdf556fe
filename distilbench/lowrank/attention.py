"""Attention whose cache holds latents: keys are rebuilt and rotated when they are needed, values need not be.

Rotary position embeddings forbid to merge a key's second factor with the query. So latents are cached before the
rotation, with the position of each token, and keys are rebuilt from them at each step (PaLU). A sum over
values commutes with their second factor: in a step of decoding the latents are summed and the sum alone is rebuilt,
per head. The output projection stays as it was; merging it with the second factor, as PaLU does, makes it r / d times
as large.

Latents are kept as (B, 1, T, sum of ranks) in the library's own `DynamicCache`, which needs to know nothing of them:
masks, cropping, reordering of beams and offloading work on them. Positions are one layer more of that cache.

Keys may stay whole: then they are cached rotated, as ever, nothing is rebuilt, and no positions are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward, rotate_half

from distilbench.errors import ModelError
from distilbench.lowrank.projection import LowRankProjection
from distilbench.lowrank.shapes import Shapes


class Rotation:
    """Rotations of all cached tokens, computed by the first layer of a forward and used by the others.

    Attributes:
        cos, sin: (B or 1, 1, T, d), of the forward that is under way.
    """

    def __init__(self, rotary: nn.Module, layers: int) -> None:
        self._rotary, self._layers = rotary, layers
        self.cos = self.sin = None

    def advance(self, x: torch.Tensor, positions: torch.Tensor, cache: Cache | None) -> None:
        """Adds the positions of new tokens to the cache, and computes the rotations of all that are there.

        Args:
            x: hidden states, for their dtype and device.
            positions: int64 (B or 1, S), of the new tokens.
            cache: of the forward; None: the new tokens are all there are.

        Raises:
            ModelError: the cache is of a class that does not grow.
        """
        if cache is not None:
            if not isinstance(cache, DynamicCache):
                raise ModelError(
                    f"a latent cache grows with its tokens; {type(cache).__name__} cannot hold it, DynamicCache can"
                )
            while len(cache.layers) <= self._layers:  # the one that is not of the model: positions
                cache.layers.append(DynamicLayer())
            # a row of positions per sequence, so that beams can be reordered; nothing as values
            new = positions.to(torch.int32).expand(x.shape[0], -1)[:, None, :, None]  # (B, 1, S, 1)
            known, _ = cache.update(new, new[..., :0], self._layers)
            positions = known[:, 0, :, 0]
        cos, sin = self._rotary(x, positions)  # (B or 1, T, d)
        self.cos, self.sin = cos[:, None], sin[:, None]

    def rotate(self, keys: torch.Tensor, tokens: slice = slice(None)) -> torch.Tensor:
        """Keys (B, n_kv, T, d) of these tokens, each rotated by its own position."""
        return keys * self.cos[:, :, tokens] + rotate_half(keys) * self.sin[:, :, tokens]


class LatentAttention(nn.Module):
    """In place of a decoder's attention (`LlamaAttention`, `Qwen2Attention`).

    Args:
        original: the attention that it replaces.
        keys, values: its projections in two factors; keys None: they stay whole.
        shapes: of the model.
        rotation: shared by all layers; not used where keys are whole.

    Attributes:
        late_up_to: new tokens up to which values are summed as latents (decoding); with more (prefill), keys and
            values are rebuilt once and handed to the model's own attention function.
        chunk: cached tokens whose keys are rebuilt at a time in decoding, which bounds the memory they take.
    """

    def __init__(
        self,
        original: nn.Module,
        keys: LowRankProjection | None,
        values: LowRankProjection,
        shapes: Shapes,
        rotation: Rotation,
    ) -> None:
        super().__init__()
        self.config, self.layer_idx, self.shapes = original.config, original.layer_idx, shapes
        self.head_dim, self.scaling, self.is_causal = shapes.head_dim, original.scaling, True
        self.num_key_value_groups = shapes.query_heads // shapes.kv_heads  # the attention functions read this name
        self.q_proj, self.o_proj = original.q_proj, original.o_proj
        self.k_proj, self.v_proj = keys or original.k_proj, values
        self.whole_keys, self.rotation = keys is None, rotation
        self.late_up_to, self.chunk = 1, 2048

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """Hidden states (B, S, h) -> (B, S, h), as the attention that it replaces.

        Args:
            hidden_states: of the new tokens.
            position_embeddings: cosines and sines of the new tokens, each (B or 1, S, d).
            attention_mask: (B, 1, S, T), boolean or added; None: causal.
            past_key_values: the cache, which gets the latents of the new tokens.
            position_ids: (B or 1, S), of the new tokens.
        """
        batch, new, _ = hidden_states.shape
        if self.layer_idx == 0 and not self.whole_keys:
            self.rotation.advance(hidden_states, position_ids, past_key_values)
        cos, sin = (table[:, None] for table in position_embeddings)
        queries = self.q_proj(hidden_states).view(batch, new, -1, self.head_dim).transpose(1, 2)
        queries = queries * cos + rotate_half(queries) * sin  # (B, n_q, S, d)
        if self.whole_keys:
            keys = self._heads(self.k_proj(hidden_states))
            keys = keys * cos + rotate_half(keys) * sin  # (B, n_kv, S, d)
        else:
            keys = self.k_proj.latents(hidden_states)[:, None]  # (B, 1, S, sum of ranks)
        values = self.v_proj.latents(hidden_states)[:, None]
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)  # of all T tokens
        values = values[:, 0]
        if new > self.late_up_to:
            mixed = self._rebuilt(queries, keys, values, attention_mask, kwargs)
        else:
            mixed = self._late(queries, keys, values, attention_mask)
        return self.o_proj(mixed.reshape(batch, new, -1)), None

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, T, n_kv x d) -> (B, n_kv, T, d)."""
        return rows.unflatten(-1, (self.shapes.kv_heads, self.head_dim)).transpose(1, 2)

    def _rebuilt(self, queries, keys, values, mask, kwargs: dict) -> torch.Tensor:
        """All keys and values at full width, and the attention function that the model is set to: (B, S, n_q, d)."""
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        full = self._keys_of(keys, slice(None))
        values = self._heads(self.v_proj.rebuild(values))
        return function(self, queries, full, values, mask, dropout=0.0, scaling=self.scaling, **kwargs)[0]

    def _late(self, queries, keys, values, mask) -> torch.Tensor:
        """Keys rebuilt in chunks, values as latents until they are summed: (B, S, n_q, d)."""
        batch, _, new, _ = queries.shape
        tokens, sharing = values.shape[1], self.num_key_value_groups
        # query heads that share a key head stand together: (B, n_kv, sharing x S, d)
        queries = queries.reshape(batch, self.shapes.kv_heads, sharing * new, self.head_dim) * self.scaling
        scores = [
            queries @ self._keys_of(keys, slice(start, start + self.chunk)).transpose(-1, -2)
            for start in range(0, tokens, self.chunk)
        ]
        scores = _joined(scores, dim=-1).unflatten(2, (sharing, new))
        weights = torch.softmax(_masked(scores, mask), dim=-1, dtype=torch.float32).to(queries.dtype)
        weights = weights.reshape(batch, self.shapes.kv_heads, sharing * new, tokens)
        mixed = _joined(list(self._summed(weights, values)), dim=1)  # (B, n_kv, sharing x S, d)
        return mixed.reshape(batch, -1, new, self.head_dim).transpose(1, 2)

    def _keys_of(self, cached: torch.Tensor, tokens: slice) -> torch.Tensor:
        """Rotated keys (B, n_kv, chunk, d) of some tokens, rebuilt where latents are cached."""
        if self.whole_keys:
            return cached[:, :, tokens]
        return self.rotation.rotate(self._heads(self.k_proj.rebuild(cached[:, 0, tokens])), tokens)

    def _summed(self, weights: torch.Tensor, values: torch.Tensor):
        """Per group, (B, s, sharing x S, d): latents summed over tokens, then rebuilt for each head by its own rows."""
        size = self.shapes.group_size
        for group, latents in enumerate(values.split(self.v_proj.ranks, dim=-1)):
            heads = weights[:, group * size : (group + 1) * size]  # (B, s, sharing x S, T)
            sums = (heads.flatten(1, 2) @ latents).unflatten(1, heads.shape[1:3])  # (B, s, sharing x S, r)
            up = self.v_proj.U[group]
            rows = up.weight.view(size, self.head_dim, -1)  # (s, d, r)
            mixed = sums @ rows.transpose(-1, -2)  # (B, s, sharing x S, d)
            if up.bias is not None:  # weights of a query sum to 1
                mixed = mixed + up.bias.view(size, 1, self.head_dim)
            yield mixed


def _joined(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    """All parts in one; a single one as it is, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _masked(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Scores (B, n_kv, sharing, S, T) with what may not be seen taken out.

    Args:
        scores: of queries and keys.
        mask: (B or 1, 1, S, T): True or 0 where a query may look; None: causal, with the last query at the last token.
    """
    new, tokens = scores.shape[-2:]
    if mask is None:
        if new == 1:
            return scores
        mask = torch.ones(new, tokens, dtype=torch.bool, device=scores.device).tril(tokens - new)[None, None]
    mask = mask[:, :, None, :, :tokens]
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def cache_bytes(cache: Cache) -> int:
    """Bytes of all tensors in a cache: latents or keys and values, and the positions of latents."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def expected_bytes(config: Any, batch: int, tokens: int, itemsize: int, ranks: Any = None) -> int:
    """Bytes of a cache by formula, to be compared with those counted.

    Args:
        config: of the model.
        batch, tokens: sequences, and tokens of each.
        itemsize: bytes of a number.
        ranks: projection -> ranks of its groups; projections that are not in it are cached in full.
    """
    ranks = ranks or {}
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    whole = (2 * config.num_hidden_layers - len(ranks)) * config.num_key_value_heads * head_dim
    positions = 4 if any(name.endswith("k_proj") for name in ranks) else 0  # an int32, to rotate rebuilt keys by
    return batch * tokens * ((sum(map(sum, ranks.values())) + whole) * itemsize + positions)
