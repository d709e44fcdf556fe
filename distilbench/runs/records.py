"""What every record of a step has, whatever its kind of measurement: which step it is, how it ended, where it ran."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distilbench.runs.states import CellState

SCHEMA_VERSION = 1
Key = tuple[str, str, int]  # cell, pass, repetition


class Cell(BaseModel):
    """A point of a measurement; each kind adds what tells its points apart."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    cell: str = Field(description="its name within the run, fit for a file name")
    control_of: str | None = Field(None, description="of a control cell: the cell that it repeats under another name")


class Record(Cell):
    """One committed line of a raw file: one process that measured one cell in one pass."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, allow_inf_nan=False)
    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    repetition: int = Field(ge=0)
    attempt: int = Field(1, ge=1, description="1, or more where earlier attempts failed or were interrupted")
    pass_: str = Field(alias="pass")
    status: CellState
    error: str | None = Field(None, description="what went wrong, for people")
    started: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(ge=0, description="wall time of the whole process, start and load included")
    inputs_sha256: str | None = Field(None, description="of all batches of the cycle, ids and masks, in order")
    node: str | None = Field(None, description="the machine it ran on: a node of a cluster, or the host")
    start: Literal["fresh", "forked"] | None = Field(
        None,
        description="fresh: a program of its own; forked: from a process that had imported the libraries, whose layout "
        "of memory all such repetitions share; null: fresh, before this was recorded, or no process",
    )
    num_threads: int | None = Field(None, description="CPU threads, as they were set")
    affinity: list[int] | None = Field(None, description="CPUs that the process could use")
    parent_cores: float | None = Field(None, ge=0, description="use of the cores by the waiting parent, meanwhile")
    foreign_cores: float | None = Field(None, ge=0, description="use of the usable cores by other processes, meanwhile")
    stolen_cores: float | None = Field(None, ge=0, description="time a hypervisor gave to other machines, meanwhile")
    proof: dict[str, Any] = Field(default_factory=dict, description="what shows that the variant was really on")

    @property
    def key(self) -> Key:
        """What must be there once: (cell, pass, repetition)."""
        return self.cell, self.pass_, self.repetition

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 by name of the files that belong to this record alone, relative to the run folder."""
        return {}

    def to_line(self) -> str:
        """One JSON line without its newline."""
        return self.model_dump_json(by_alias=True)

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        return f"{self.cell}, {self.pass_} {self.repetition + 1}: {self.status} {self.error or ''}".rstrip()


class RecordWithFiles(Record):
    """One that has files of its own, whose hashes it holds."""

    files_sha256: dict[str, str] = Field(default_factory=dict, description="by name, relative to the run folder")

    @property
    def files(self) -> dict[str, str]:
        """As it holds them."""
        return self.files_sha256
