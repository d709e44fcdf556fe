"""The parameters of the palu study: a decoder with its keys and values whole, and compressed."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from distilbench.lowrank.params import VARIANTS, DecoderParams, Variant
from distilbench.measurements.alignment.params import DIMENSIONS, OPERATIONS, Dimension, Operation
from distilbench.measurements.perplexity.params import FORMS, TEXTS, Form, Ratio, Text
from distilbench.measurements.task_scores.params import TASKS, Shots, Task
from distilbench.runs.parameters import Count, list_of


class PaluParams(DecoderParams):
    """Prefill and decoding of a decoder, by variant, batch size and length."""

    SECTIONS = ("alignment", "perplexity", "task_scores")
    SUITES: ClassVar = {"ppl": "perplexity", "lmeval": "task_scores"}  # of `python -m distilbench.llm eval`: sections
    study: str = "palu"
    variants: list_of(Variant) = Field(["baseline", "palu"], description=VARIANTS)
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
    perplexity_texts: list_of(Text) = Field(["held-out", "other"], description=TEXTS)
    perplexity_length: Count = Field(512, description="tokens of a window of perplexity")
    perplexity_stride: Count = Field(256, description="tokens by which windows move on, where they overlap")
    perplexity_windows: Count = Field(32, description="windows of each definition, evenly spaced, at most")
    task_scores_tasks: list_of(Task) = Field(["piqa", "hellaswag"], description=TASKS)
    task_scores_shots: list_of(Shots) = Field([0, 1], description="answered examples before each question")
    task_scores_limit: Count = Field(200, description="questions of a task: its first ones")
    task_scores_batch_size: Count = Field(8, description="choices that are scored together")
    task_scores_checked: Count = Field(8, description="questions that a scorer of our own answers too")
    alignment_operations: list_of(Operation) = Field(["down", "up", "attention"], description=OPERATIONS)
    alignment_dimensions: list_of(Dimension) = Field(DIMENSIONS, description="ranks, or dimensions of a head")
    alignment_blocks: list_of(Count) = Field([8, 16, 32], description="multiples that dimensions are rounded up to")
    alignment_tokens: Count = Field(1024, description="rows of a product, tokens of an attention")
    alignment_hidden: Count = Field(4096, description="columns that a latent is made of")
    alignment_width: Count = Field(512, description="columns of a group that are rebuilt from a latent")
    alignment_heads: Count = Field(32, description="heads of an attention")
    alignment_warmup: Count = Field(3, description="first rounds over all dimensions, which do not count")
    alignment_measured: Count = Field(20, description="timed rounds over all dimensions")
    alignment_repetitions: Count = Field(5, description="fresh processes per operation")

    @model_validator(mode="after")
    def _check_tokens(self) -> PaluParams:
        if min(self.decode_new_tokens) < 2:
            raise ValueError(
                "decode_new_tokens must be at least 2: the first token is the prompt's, the others are timed"
            )
        return self
