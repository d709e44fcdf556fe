"""Parameters that say what is measured on: model, text and device; kinds of measurement add their own to them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from distilbench.errors import ParameterError
from distilbench.runs.parameters import Device, Source, StudyParams


class SourceParams(StudyParams):
    """A model from somewhere, on a device, and labelled sentences from somewhere."""

    IS_TRAINED: ClassVar[bool] = True  # whether the model classifies before anything is measured
    device: Device = Field("cpu", description="torch device: cpu, cuda or cuda:N")
    source: Source = Field("hub", description="where model and text come from: hub, local, embedded, or random weights")
    model_source: Source | None = Field(None, description="the model's source; empty: as `source`")
    data_source: Literal["hub", "local", "embedded"] | None = Field(
        None, description="the text's source; empty: as `source` (embedded text for random weights)"
    )
    embedded_task: Literal["movies", "intents"] = Field(
        "movies",
        description="the embedded text, and the embedded classifier of it: film reviews, or generated commands",
    )
    model_name: str = Field(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english", description="model on the hub"
    )
    model_revision: str = Field(
        "714eb0f",
        description="the revision that transformers itself pins (transformers/pipelines/__init__.py, v5.23)",
    )
    model_path: str = Field("", description="checkpoint folder for model_source local")
    model_family: Literal["distilbert", "qwen2"] = Field(
        "distilbert", description="architecture of random weights; a checkpoint names its own"
    )
    model_size: Literal["base", "0.5b", "tiny"] = Field(
        "base", description="their shape: base (distilbert), 0.5b (qwen2), or tiny, for tests"
    )
    dataset_name: str = Field("nyu-mll/glue", description="data set on the hub")
    dataset_config: str = Field("sst2", description="its configuration; default: also the only one")
    dataset_split: str = Field("validation", description="its split; only: whichever it has, where there is one")
    dataset_revision: str = Field("main", description="resolved to a commit at the first fetch, then enforced")
    data_path: str = Field("", description="csv, tsv or jsonl file with text and label for data_source local")
    tokenizer_path: str = Field("", description="tokenizer folder; empty: the tokenizer that belongs to the model")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")

    @model_validator(mode="after")
    def _fill_sources(self) -> SourceParams:
        self.model_source = self.model_source or self.source
        if self.data_source is None:
            self.data_source = "embedded" if self.source == "random" else self.source
        for what, source, path in (
            ("model", self.model_source, self.model_path), ("data", self.data_source, self.data_path)
        ):  # fmt: skip
            if source == "local" and not path:
                raise ValueError(f"{what}_source is 'local', so {what}_path must name a file or folder")
        return self

    @property
    def splits(self) -> list[str]:
        """The splits of the data set that are read."""
        return [self.dataset_split]

    def model_arguments(self, **fits: int) -> dict[str, Any]:
        """Arguments of `models.load_model`, but for the variant's.

        Args:
            fits: what tokenizer and text ask of a model (`tokenizers.fits`).
        """
        return {
            "device": self.device, "source": self.model_source, "path": self.model_path, "name": self.model_name,
            "revision": self.model_revision, "dtype": self.dtype, "family": self.model_family, "size": self.model_size,
            "task": self.embedded_task, "seed": self.seed,
        } | fits  # fmt: skip


def with_sources(params: StudyParams) -> SourceParams:
    """The parameters of a study that measures on a model and a text.

    Raises:
        ParameterError: it measures on neither.
    """
    if not isinstance(params, SourceParams):
        raise ParameterError(f"study {params.study!r} measures on no model and no text")
    return params
