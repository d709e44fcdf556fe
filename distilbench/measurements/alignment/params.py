"""The parameters of dimension alignment: which operations, of which sizes, and which dimensions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.runs.parameters import Count, Device, Heap, StudyParams, Threads, Timeout, list_of

Operation = Literal["down", "up", "attention"]
Dimension = Annotated[int, Field(ge=2, le=65_536, strict=True)]
OPERATIONS = (
    "down: hidden states (tokens, hidden) to a latent of that rank; up: latents of that rank to a group's keys "
    "(tokens, width); attention: causal attention of heads of that dimension"
)
#: From 64 to 160: all multiples of 8, and between them those one above, in the middle and one below; and 107, of which
#: a claim on trial speaks. Without 65, 68 ... there would be none that differ from a multiple by as little as can be.
DIMENSIONS = sorted({107} | {base + more for base in range(64, 160, 8) for more in (0, 1, 4, 7)} | {160})


class AlignmentParams(StudyParams):
    """Matrix products and attention, by one dimension."""

    study: str = "alignment"
    device: Device = Field("cpu", description="torch device: cpu, cuda or cuda:N")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of all tensors")
    operations: list_of(Operation) = Field(["down", "up", "attention"], description=OPERATIONS)
    dimensions: list_of(Dimension) = Field(DIMENSIONS, description="ranks, or dimensions of a head")
    blocks: list_of(Count) = Field([8, 16, 32], description="multiples that dimensions are rounded up to")
    tokens: Count = Field(1024, description="rows of a product, tokens of an attention")
    hidden: Count = Field(4096, description="columns that a latent is made of")
    width: Count = Field(512, description="columns of a group that are rebuilt from a latent")
    heads: Count = Field(32, description="heads of an attention")
    warmup: Count = Field(3, description="first rounds over all dimensions, which do not count")
    measured: Count = Field(20, description="timed rounds over all dimensions, each in another order")
    repetitions: Count = Field(5, description="fresh processes per operation")
    num_threads: Threads = 0
    heap: Heap = "system"
    repetition_timeout_s: Timeout = 2 * 3600.0

    @model_validator(mode="after")
    def _check_blocks(self) -> AlignmentParams:
        if 1 in self.blocks:
            raise ValueError("blocks: 1 rounds nothing; name multiples above it, such as [8, 16, 32]")
        return self
