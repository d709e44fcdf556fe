"""Tiny Qwen2: a byte-level tokenizer and classifiers, saved as anyone would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification, Qwen2TokenizerFast

from distilbench.sources.families import qwen2

WORDS = 300  # rows of the table; the tokenizer has fewer tokens


def save_tokenizer(folder: Path) -> Qwen2TokenizerFast:
    """One token per byte and for "the"; <|endoftext|> pads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet, "th", "the"])}
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=[("t", "h"), ("th", "e")])
    tokenizer.save_pretrained(folder)
    return tokenizer


def classifier(labels: tuple[str, ...], seed: int = 1, **changed: Any) -> Qwen2ForSequenceClassification:
    """Random weights with a head whose logits differ by more than rounding does, and named classes."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(seed)
    model = Qwen2ForSequenceClassification(Qwen2Config(**qwen2.SIZE_TINY | names | {"vocab_size": WORDS} | changed))
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


def save_base(folder: Path) -> Path:
    """A base model as it is published: a causal language model whose config names no padding, and its tokenizer."""
    torch.manual_seed(1)
    shape = {name: value for name, value in qwen2.SIZE_TINY.items() if name != "pad_token_id"}
    Qwen2ForCausalLM(Qwen2Config(**shape, vocab_size=WORDS)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_adapter(folder: Path, base: Path, labels: int, named_base: str = "") -> PeftModel:
    """A trained-looking adapter on a base model, as PEFT saves it; it names no classes."""
    torch.manual_seed(2)
    model = Qwen2ForSequenceClassification.from_pretrained(base, num_labels=labels)
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    adapted = get_peft_model(model, lora)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=1.0 if "score" in name else 0.3)
    adapted.peft_config["default"].base_model_name_or_path = named_base or str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)  # else it asks the hub of the base
    return adapted.eval()
