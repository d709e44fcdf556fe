"""The packed variant: no padding is computed. Sequences stand end to end, and each attends to itself alone.

Everything but attention treats tokens one by one, so a batch is as good as one long sequence of its tokens; attention
is computed sequence by sequence. Exact: the same sums, and nothing left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AttentionInterface

from distilbench.errors import ModelError
from distilbench.sources.models import LoadedModel, load_model

ATTENTION = "distilbench_packed"  # the name under which transformers finds it
FAMILIES = ("DistilBERT",)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    lengths: list[int],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each sequence to itself, in the form that transformers calls: (1, H, T, d) each -> (1, T, H, d)."""
    mixed = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        for q, k, v in zip(*(one.split(lengths, dim=2) for one in (query, key, value)), strict=True)
    ]
    return (mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend)


@dataclass(frozen=True)
class PackedModel(LoadedModel):
    """A classifier that computes tokens alone, whatever fills up its batches."""

    def cost(self, input_ids: torch.Tensor) -> tuple[float, float]:
        """FLOPs of the tokens alone, and the bytes that a forward must move at least."""
        lengths = (input_ids != self.module.config.pad_token_id).sum(dim=1).tolist()
        flops = sum(self.family.forward_flops(self.module.config, 1, length) for length in lengths)
        return flops, self.family.forward_bytes(self.module, input_ids)


@dataclass(frozen=True)
class Packed:
    """Tokens end to end, attention within each sequence."""

    def load(self, **model: Any) -> PackedModel:
        """Loads the model so that it executes in this way.

        Raises:
            ModelError: its architecture is none whose parts are known here.
        """
        loaded = load_model(**model, attention="sdpa")
        if loaded.family.name not in FAMILIES:
            raise ModelError(
                f"variant 'packed' runs {', '.join(FAMILIES)}; {loaded.info.name} is a {loaded.family.name}: take sdpa"
            )
        loaded.module.config._attn_implementation = ATTENTION
        return PackedModel(
            loaded.module, _forward(loaded.module), replace(loaded.info, attention=ATTENTION), loaded.family
        )

    @contextmanager
    def watch(self, loaded: LoadedModel) -> Iterator[dict[str, Any]]:
        """Watches the first forward inside, and counts the rows that its products have.

        Yields:
            A dict that holds, after the forward: `attention`, `matmul_dtype`, `rows` that the first linear layer had,
            and `tokens` that the batch has.

        Raises:
            ModelError: padding was computed, or in another type.
        """
        proof: dict[str, Any] = {"attention": loaded.info.attention}
        linear = next(module for module in loaded.module.modules() if isinstance(module, torch.nn.Linear))
        embeddings = loaded.module.distilbert.embeddings

        def rows(_: Any, given: tuple[Any, ...], out: torch.Tensor) -> None:
            proof.update(matmul_dtype=str(out.dtype)[6:], rows=given[0].shape[:-1].numel())

        def tokens(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            ids = named["input_ids"] if "input_ids" in named else given[0]
            proof["tokens"] = int((ids != loaded.module.config.pad_token_id).sum())

        handles = [
            linear.register_forward_hook(rows),
            embeddings.register_forward_pre_hook(tokens, with_kwargs=True),
        ]
        try:
            yield proof
        finally:
            for handle in handles:
                handle.remove()
        _check(proof, loaded.info.dtype)


def _check(proof: dict[str, Any], dtype: str) -> None:
    if proof["attention"] != ATTENTION:
        raise ModelError(f"packed attention was asked for, {proof['attention']!r} was used")
    if proof.get("rows") is None or proof["rows"] != proof.get("tokens"):
        raise ModelError(
            f"padding was computed: the linear layers had {proof.get('rows')} rows for {proof.get('tokens')} tokens"
        )
    if proof["matmul_dtype"] != dtype:
        raise ModelError(f"{dtype} arithmetic was asked for, the linear layers gave {proof['matmul_dtype']}")


def _forward(module: torch.nn.Module) -> Any:
    encoder = module.distilbert

    @torch.inference_mode()
    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        there = attention_mask.bool()
        lengths = there.sum(dim=1)
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = encoder.embeddings(input_ids=input_ids[there][None], position_ids=places[there][None])  # (1, T, h)
        each = lengths.tolist()
        for layer in encoder.transformer.layer:
            hidden = layer(hidden, None, lengths=each)
        first = hidden[0, lengths.cumsum(0) - lengths]  # (B, h), of the first token of each
        return module.classifier(torch.relu(module.pre_classifier(first)))  # (B, labels)

    return forward


VARIANTS = {"packed": Packed()}
