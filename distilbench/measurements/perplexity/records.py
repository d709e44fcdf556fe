"""A line of perplexity.jsonl, and the parquet file beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.measurements.perplexity.params import PerplexityParams, Text
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved
from distilbench.runs.records import Cell, RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "chunks"
SCORING = "scoring"
DISJOINT, STRIDED, ROLLING, WEIGHTED = "disjoint", "strided", "rolling", "weighted"
DEFINITIONS = (DISJOINT, STRIDED, ROLLING, WEIGHTED)
CHUNKS = pa.schema(
    [
        ("definition", pa.string()),
        ("chunk", pa.int32()),
        ("first_token", pa.int32()),  # of the text, that is scored
        ("scored", pa.int32()),  # tokens whose probability counts
        ("weight", pa.float64()),  # with which the chunk's mean counts; tokens scored, but where a definition says so
        ("nll", pa.float64()),  # sum of negative logarithms of probabilities, in nats
        ("utf8_bytes", pa.int32()),  # of what was scored; 0 where it is not counted
        ("words", pa.int32()),  # separated by white space; 0 where they are not counted
    ]
)


class PerplexityCell(Cell):
    """A form of the decoder on a text."""

    form: Literal["baseline", "fisher", "uniform", "plain"]
    ratio: float = Field(gt=0, le=1, description="fraction that was asked for; baseline: 1")
    text: Text


class Perplexity(BaseModel):
    """By one definition."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    definition: Literal["disjoint", "strided", "rolling", "weighted"]
    perplexity: float = Field(description="per token")
    tokens: int = Field(description="that were scored")
    chunks: int
    bits_per_byte: float | None = Field(None, description="over the bytes of what was scored")
    word_perplexity: float | None = None
    byte_perplexity: float | None = None


class PerplexityRecord(PerplexityCell, RecordWithFiles):
    """One line of perplexity.jsonl: one process that scored one text with one form of the decoder."""

    pass_: Literal["scoring"] = Field(alias="pass")
    device: str | None = None
    dtype: str | None = None
    model_source: str | None = None
    text_sha256: str | None = Field(None, description="two perplexities are compared on the same text only")
    tokens_sha256: str | None = Field(None, description="of its token ids")
    length: int | None = Field(None, description="tokens of a window")
    stride: int | None = None
    perplexities: list[Perplexity] = Field(default_factory=list, description="by definition")
    perplexity: float | None = Field(None, description="of the disjoint windows, the one that others are held against")
    nll_nat_per_token: float | None = Field(None, description="of the disjoint windows, in nats")
    effective_ratio: float | None = Field(None, description="fraction that the ranks keep; baseline: 1")
    retained_k: float | None = Field(None, description="energy of keys over the calibration: lowest of any group")
    retained_v: float | None = None
    peak_rss_MiB: float | None = None

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> PerplexityRecord:
        if self.status in MEASURED and not (self.perplexities and self.text_sha256 and self.files_sha256):
            raise ValueError("a measured record has its perplexities, its text and its file")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        if self.status not in MEASURED:
            return f"{self.cell}: {self.status.upper()} {self.error}"
        return f"{self.cell}: " + ", ".join(f"{one.definition} {one.perplexity:.3f}" for one in self.perplexities)


def cells(params: PerplexityParams) -> list[PerplexityCell]:
    """The whole decoder, then each form by ratio; on each text."""
    forms = [("baseline", 1.0)] if "baseline" in params.variants else []
    forms += [(form, ratio) for form in params.forms for ratio in params.ratios if "palu" in params.variants]
    return [
        PerplexityCell(cell=cell_name(form, ratio, text), form=form, ratio=ratio, text=text)
        for text in params.texts
        for form, ratio in forms
    ]


def plan(resolved: Resolved) -> list[Step]:
    """Each cell once: a perplexity does not vary."""
    return [(cell, SCORING, 0) for cell in cells(resolved.params)]


def cell_name(form: str, ratio: float, text: str) -> str:
    """What a cell is called."""
    return f"baseline-{text}" if form == "baseline" else f"{form}-{ratio:g}-{text}"


def file_name(cell: str) -> str:
    """The file of a record, below the run folder."""
    return f"{FOLDER}/{cell}.parquet"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of perplexity.jsonl."""
    return PerplexityRecord.model_json_schema(by_alias=True)
