"""The parameters of the palu study: a decoder with its keys and values whole, and compressed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distilbench.lowrank.params import DecoderParams
from distilbench.measurements.perplexity.params import FORMS, TEXTS, Form, Ratio
from distilbench.runs.parameters import Count, list_of


class PaluParams(DecoderParams):
    """Prefill and decoding of a decoder, by variant, batch size and length."""

    SECTIONS = ("perplexity",)
    study: str = "palu"
    variants: list_of(Literal["baseline", "palu"]) = Field(
        ["baseline", "palu"], description="baseline: keys and values whole; palu: low-rank, cached as latents"
    )
    ratio: float = Field(0.7, gt=0, le=1, description="fraction of keys and values that palu keeps")
    rank_search: Literal["fisher", "uniform"] = Field(
        "fisher", description="fisher: more rank where the loss depends more on a projection; uniform: the same for all"
    )
    ratio_dir: str = Field(
        "",
        description="folder to search for rank files (config.json with head_wise_ranks); empty: ranks are found here",
    )
    prefill_batch_sizes: list_of(Count) = Field([1, 4, 8], description="sequences that are read together")
    prefill_lengths: list_of(Count) = Field([256, 512, 1024, 2048, 4096], description="tokens of each")
    decode_batch_sizes: list_of(Count) = Field([1, 4], description="sequences that are written together")
    decode_contexts: list_of(Count) = Field([512, 1024, 2048], description="tokens of a prompt")
    decode_new_tokens: list_of(Count) = Field([64, 128], description="tokens that are generated after it, greedily")
    warmup_prefill: Count = Field(10, description="first forwards of a repetition, which do not count")
    warmup_decode: Count = Field(5, description="first generations of a repetition, which do not count")
    measured: Count = Field(30, description="timed forwards or generations of a repetition")
    repetitions: Count = Field(3, description="trials: fresh processes per cell")
    perplexity_ratios: list_of(Ratio) = Field(
        [0.3, 0.5, 0.7, 0.9, 1.0], description="fractions of keys and values of which perplexities are measured"
    )
    perplexity_forms: list_of(Form) = Field(["fisher", "uniform", "plain"], description=FORMS)
    perplexity_texts: list_of(Literal["held-out", "other"]) = Field(["held-out", "other"], description=TEXTS)
    perplexity_length: Count = Field(512, description="tokens of a window of perplexity")
    perplexity_stride: Count = Field(256, description="tokens by which windows move on, where they overlap")
    perplexity_windows: Count = Field(32, description="windows of each definition, evenly spaced, at most")

    @model_validator(mode="after")
    def _check_tokens(self) -> PaluParams:
        if min(self.decode_new_tokens) < 2:
            raise ValueError(
                "decode_new_tokens must be at least 2: the first token is the prompt's, the others are timed"
            )
        return self
