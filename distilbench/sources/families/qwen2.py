"""Qwen2 and Qwen2.5 (Qwen Team 2024, arXiv:2412.15115), decoders: the classes, and what a forward costs.

A decoder classifies by its last token, since only that one has seen all others: transformers takes the last token that
is not the config's `pad_token_id`, whichever side is padded. Padding goes behind the tokens here, as in training: then
the positions begin at 0, and the causal mask keeps tokens from seeing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distilbench.sources.families import Family

if TYPE_CHECKING:  # a tokenizer's family is looked up without it
    import torch

ROTARY = {"rope_type": "default", "rope_theta": 1_000_000.0}
SIZE_0_5B = {  # config.json of Qwen/Qwen2.5-0.5B-Instruct; the padding is its tokenizer's <|endoftext|>
    "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "rope_parameters": ROTARY, "tie_word_embeddings": True, "bos_token_id": 151643,
    "eos_token_id": 151645, "pad_token_id": 151643,
}  # fmt: skip
SIZE_TINY = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 512, "rope_parameters": ROTARY, "tie_word_embeddings": True,
    "pad_token_id": 0,
}  # fmt: skip


def forward_flops(config: Any, batch_size: int, length: int) -> float:
    """FLOPs of the matrix products of one Qwen2 forward (a multiplication and an addition are two).

    Per layer: queries and output of (tokens, d) by (d, heads x width), keys and values of (tokens, d) by
    (d, key-value heads x width), three products of the feed-forward block (SwiGLU), and two attention products per pair
    of positions, those that the causal mask hides too. The head is applied to every token, as transformers does.
    """
    tokens, d = batch_size * length, config.hidden_size
    width = getattr(config, "head_dim", None) or d // config.num_attention_heads
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    products = 2 * d * queries + 2 * d * keys + 3 * d * config.intermediate_size
    layer = 2 * tokens * products + 4 * batch_size * length * length * queries
    return float(config.num_hidden_layers * layer + 2 * tokens * d * config.num_labels)


def forward_bytes(module: torch.nn.Module, input_ids: torch.Tensor) -> float:
    """Bytes that one forward must move at least: every weight once, of the table only the rows used, and the ids.

    Activations are left out, since they may stay in a cache: this is a lower bound.

    Args:
        module: the model.
        input_ids: int64 (batch, length).
    """
    table = module.model.embed_tokens.weight
    layers = sum(t.numel() * t.element_size() for t in module.parameters() if t is not table)
    rows = input_ids.unique().numel()
    return float(layers + rows * table.shape[1] * table.element_size() + 2 * input_ids.numel() * 8)


FAMILY = Family(
    name="Qwen2.5",
    config="Qwen2Config",
    model="Qwen2ForSequenceClassification",
    tokenizer="Qwen2TokenizerFast",
    sizes={"0.5b": SIZE_0_5B, "tiny": SIZE_TINY},
    pads_left=False,
    forward_flops=forward_flops,
    forward_bytes=forward_bytes,
)
