"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): its classes, and what a forward costs, counted from its shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distilbench.sources.families import Family

if TYPE_CHECKING:  # a tokenizer's family is looked up without it
    import torch


def forward_flops(config: Any, batch_size: int, length: int) -> float:
    """FLOPs of the matrix products of one DistilBERT forward (a multiplication and an addition are two).

    Per layer: four projections of (tokens, d) by (d, d), two of the feed-forward block, and two attention products per
    pair of positions; padding counts, since it is computed.
    """
    tokens, d, hidden = batch_size * length, config.dim, config.hidden_dim
    layer = 2 * tokens * (4 * d * d + 2 * d * hidden) + 4 * batch_size * length * length * d
    return float(config.n_layers * layer + 2 * batch_size * (d * d + d * config.num_labels))


def forward_bytes(module: torch.nn.Module, input_ids: torch.Tensor) -> float:
    """Bytes that one forward must move at least: every weight once, of both tables only the rows used, and the ids.

    Activations are left out, since they may stay in a cache: this is a lower bound.

    Args:
        module: the model.
        input_ids: int64 (batch, length).
    """
    embeddings = module.distilbert.embeddings
    words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
    whole = {id(words), id(positions)}
    layers = sum(t.numel() * t.element_size() for t in module.parameters() if id(t) not in whole)
    rows = input_ids.unique().numel() + input_ids.shape[1]
    return float(layers + rows * words.shape[1] * words.element_size() + 2 * input_ids.numel() * 8)


FAMILY = Family(
    name="DistilBERT",
    config="DistilBertConfig",
    model="DistilBertForSequenceClassification",
    tokenizer="DistilBertTokenizerFast",
    sizes={"base": {}, "tiny": {"n_layers": 2, "n_heads": 2, "dim": 64, "hidden_dim": 128}},  # base: the class's own
    pads_left=False,
    forward_flops=forward_flops,
    forward_bytes=forward_bytes,
)
