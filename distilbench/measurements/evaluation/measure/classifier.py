"""Rows through the model, batch by batch: from text to tensors, one timed forward, the predicted label."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distilbench.collectors import latency
from distilbench.measurements.evaluation.measure.chunks import Batch
from distilbench.measurements.evaluation.measure.spec import EvaluationSpec
from distilbench.measurements.sweep.measure.worker import require_finite
from distilbench.sources import families, texts
from distilbench.sources.batches import most_tokens, pad
from distilbench.sources.labelled_rows import Row
from distilbench.sources.tokenizers import padding_of
from distilbench.variants.registry import Executable


@dataclass(frozen=True)
class Classified:
    """One batch: what is predicted of each row, with which probability, and what it took."""

    predicted: list[int]
    probability: list[float]
    batch: Batch


def utc_now() -> str:
    """The time, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Classifier:
    """A loaded model with its tokenizer, as the job says.

    Batches are made of consecutive rows, so that they are the same wherever an evaluation begins.
    """

    def __init__(self, job: EvaluationSpec, loaded: Executable, device: torch.device) -> None:
        self.loaded, self.device, self.clock = loaded, device, latency.clock_for(device)
        self.batch_size, self.length_policy = job.identity["batch_size"], job.identity["length_policy"]
        family = families.of_tokenizer(Path(job.tokenizer))
        self.tokenizer = family.tokenizer_class.from_pretrained(job.tokenizer, local_files_only=True)
        self.padding = padding_of(self.tokenizer, family)
        self.index = {name.strip().casefold(): i for i, name in enumerate(job.label_names)}
        self.started = utc_now()

    def chunk(self, rows: list[Row]) -> dict[str, Any]:
        """The fields of a chunk of these rows."""
        size = self.batch_size
        done = [self.classify(rows[at : at + size]) for at in range(0, len(rows), size)]
        return {
            "row": [row.number for row in rows],
            "label": [self.index[row.label] for row in rows],
            "predicted": [label for one in done for label in one.predicted],
            "probability": [share for one in done for share in one.probability],
            "batches": [one.batch for one in done],
            "started": self.started,
            "committed": utc_now(),
        }

    def classify(self, rows: list[Row]) -> Classified:
        """One batch.

        Raises:
            ImplausibleError: a logit is NaN or infinite.
        """
        begun = time.perf_counter_ns()
        ids = texts.tokenise(self.tokenizer, [row.text for row in rows])
        padded = pad(ids, list(range(len(rows))), self.length_policy, self.padding)
        tensors = [torch.from_numpy(one).to(self.device) for one in (padded.input_ids, padded.attention_mask)]
        tokenise_ms = (time.perf_counter_ns() - begun) / 1e6
        forward_ms, device_ms, logits = self.clock.time(partial(self.loaded.forward, *tensors))
        require_finite(logits, self.loaded.info.dtype)
        highest = logits.float().softmax(dim=-1).max(dim=-1)  # (rows,) each: probability, index
        batch = Batch(
            rows=len(rows),
            tokens=int(padded.attention_mask.sum()),
            positions=padded.input_ids.size,
            cut=sum(len(one) > most_tokens(self.length_policy) for one in ids),
            tokenise_ms=tokenise_ms,
            forward_ms=forward_ms,
            device_ms=device_ms,
        )
        return Classified(highest.indices.tolist(), [round(share, 4) for share in highest.values.tolist()], batch)
