"""Tiny decoders with random weights: grouped-query attention, as Llama has it and, with biases, Qwen2."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SIZES = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip


def tiny(kind: str = "llama", attention: str = "sdpa", **sizes: Any):
    """A decoder of that kind in float32 and evaluation mode; always the same weights."""
    torch.manual_seed(0)
    classes = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    config, model = classes[kind]
    made = model(config(**(SIZES | sizes), attn_implementation=attention)).eval()
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if name.endswith("bias"):  # transformers begins with zeros, which would hide a bias that is left out
                tensor.normal_(0, 0.5)
    return made


def padded_left(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 (B, longest): sequences of these lengths, padded on the left."""
    longest, generator = max(lengths), torch.Generator().manual_seed(seed)
    ids = torch.randint(3, SIZES["vocab_size"], (len(lengths), longest), generator=generator)
    mask = torch.tensor([[int(i >= longest - length) for i in range(longest)] for length in lengths])
    return ids * mask, mask
