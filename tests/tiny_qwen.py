"""Tiny Qwen2: a byte-level tokenizer and classifiers, saved as anyone would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForSequenceClassification, Qwen2TokenizerFast

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
