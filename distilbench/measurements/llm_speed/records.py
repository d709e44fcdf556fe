"""A line of llm_speed.jsonl, and the parquet file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.lowrank.params import Variant
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.runs.records import Cell, RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "iterations"
TOKENS = Path("work", "tokens.npy")  # in a run's folder; int32 (tokens,): what prompts are cut from
TIMING = "timing"
PREFILL, DECODE = "prefill", "decode"
ITERATIONS = pa.schema(
    [
        ("iteration", pa.int32()),
        ("warmup", pa.bool_()),
        ("latency_ms", pa.float64()),  # of the whole forward or generation, on the host's clock
        ("latency_device_ms", pa.float64()),  # between events of the device; null on a CPU
        ("token_ms", pa.list_(pa.float64())),  # of a generation: until the first new token, then each after the other
        ("new_tokens", pa.int32()),  # per sequence, counted in what came back
        ("cached_tokens", pa.int32()),  # in the cache afterwards
        ("cache_bytes", pa.int64()),  # of its tensors
    ]
)


class LlmCell(Cell):
    """What is read or written, by which variant."""

    variant: Variant
    phase: Literal["prefill", "decode"] = Field(description="prefill: a prompt is read; decode: a text is generated")
    batch_size: int = Field(ge=1, description="sequences")
    context: int = Field(ge=1, description="tokens of each prompt")
    new_tokens: int = Field(ge=0, description="tokens generated after it; 0: prefill")


class Statistics(BaseModel):
    """Of all timed iterations of a repetition."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    n: int
    mean: float
    std: float
    p50: float
    p90: float
    p99: float


class LlmRecord(LlmCell, RecordWithFiles):
    """One line of llm_speed.jsonl: one fresh process that measured one cell."""

    pass_: Literal["timing"] = Field(alias="pass")
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    model_source: str | None = None
    warmup: int | None = Field(None, description="first iterations, which do not count")
    latency_ms: float | None = Field(None, description="median of a forward over the prompts, or of a whole generation")
    latency_device_ms: float | None = Field(None, description="the same between events of the device; null on a CPU")
    statistics_ms: Statistics | None = None
    ttft_ms: float | None = Field(None, description="time to first token: median from call to first new token")
    tpot_ms: float | None = Field(
        None, description="time per output token: median over generations of the mean after the first token"
    )
    tokens_per_s: float | None = Field(
        None, description="prefill: tokens read, decode: tokens written, of all sequences over the median latency"
    )
    actual_new_tokens: int | None = Field(None, description="of each sequence, in every timed iteration")
    cached_tokens: int | None = Field(None, description="of each sequence in the cache at the end")
    cache_bytes: int | None = Field(None, description="of all tensors of the cache at the end")
    load_s: float | None = None
    loaded_rss_MiB: float | None = Field(None, description="resident memory once the model is loaded and touched")
    peak_rss_MiB: float | None = Field(None, description="highest resident memory while it was measured")
    peak_cuda_allocated_MiB: float | None = None
    peak_cuda_reserved_MiB: float | None = None
    tokens_sha256: str | None = Field(None, description="of the tokens that the first timed iteration gave")
    effective_ratio: float | None = Field(None, description="fraction of keys and values that is kept; baseline: 1")
    unaligned_share: float | None = Field(
        None, description="of the groups, those whose rank is no multiple of 8; baseline: null"
    )
    threads_used: int | None = None
    threads_used_reason: str | None = None
    product_cores: float | None = None

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> LlmRecord:
        if self.status in MEASURED and not (self.latency_ms and self.cache_bytes and self.files_sha256):
            raise ValueError("a measured record has its latency, its cache and its file")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = f"{self.cell} {self.repetition + 1}: "
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        said = what + f"{self.latency_ms:.1f} ms, {self.tokens_per_s:.1f} tokens/s"
        return said + (f", {self.tpot_ms:.2f} ms a token" if self.tpot_ms else "")


def cells(params: PaluParams) -> list[LlmCell]:
    """Prefills, then generations; of each point the variants side by side."""
    points = [(PREFILL, b, s, 0) for b in params.prefill_batch_sizes for s in params.prefill_lengths]
    points += [
        (DECODE, b, context, new)
        for b in params.decode_batch_sizes
        for context in params.decode_contexts
        for new in params.decode_new_tokens
    ]
    return [_cell(variant, *point) for point in points for variant in params.variants]


def _cell(variant: str, phase: str, batch_size: int, context: int, new_tokens: int) -> LlmCell:
    name = f"{variant}-{point_name(phase, batch_size, context, new_tokens)}"
    return LlmCell(
        cell=name, variant=variant, phase=phase, batch_size=batch_size, context=context, new_tokens=new_tokens
    )


def point_name(phase: str, batch_size: int, context: int, new_tokens: int) -> str:
    """What the cells of all variants at a point are called, after their variant."""
    return (
        f"{phase}-b{batch_size}-s{context}" if phase == PREFILL else f"{phase}-b{batch_size}-c{context}-g{new_tokens}"
    )


def file_name(cell: str, repetition: int) -> str:
    """The file of a record, below the run folder."""
    return f"{FOLDER}/{cell}-{repetition:02d}.parquet"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of llm_speed.jsonl."""
    return LlmRecord.model_json_schema(by_alias=True)
