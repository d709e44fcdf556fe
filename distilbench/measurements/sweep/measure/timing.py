"""The timing pass of a model: the loop over its forwards, requests from text to label, cycles without fences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from distilbench.collectors import latency
from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import RunError
from distilbench.harness.loop import Loop
from distilbench.machine.device import synchronize
from distilbench.variants.registry import Executable

REQUEST, STEADY = "request", "steady"


class Timing(Loop):
    """Times one cell in this process.

    Args:
        protocol: the bounds of warm-up and of timing (`params.SweepParams`).
        loaded: the model.
        tensors: per batch (input_ids, attention_mask), int64 (batch, length), on the device.
        device: of both.
        telemetry: reads the machine between cycles.
    """

    def __init__(
        self,
        protocol: dict[str, Any],
        loaded: Executable,
        tensors: list[tuple[torch.Tensor, torch.Tensor]],
        device: torch.device,
        telemetry: Telemetry,
    ) -> None:
        steps, samples = [partial(loaded.forward, *pair) for pair in tensors], [len(ids) for ids, _ in tensors]
        super().__init__(protocol, steps, samples, latency.clock_for(device), telemetry)
        self.loaded, self.tensors, self.device = loaded, tensors, device

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """On a GPU: a cycle is queued and not waited for, since clocks and throttling of a GPU at rest say nothing."""
        if self.device.type == "cuda":
            self._queue()
        yield
        synchronize(self.device)

    def steady(self, seconds: float) -> None:
        """On a GPU: whole cycles queued without a fence, until `seconds` are over; one row per cycle."""
        if self.device.type != "cuda":
            return
        samples, spent_s, cycle = sum(len(ids) for ids, _ in self.tensors), 0.0, self.rows[-1]["cycle"]
        self._queue()  # untimed: the requests before it left the device at rest
        while spent_s < seconds or self.rows[-1]["kind"] != STEADY:
            cycle += 1
            host_ms, device_ms, _ = self.clock.time(self._queue)
            spent_s += host_ms / 1e3
            self.rows.append(
                {
                    "kind": STEADY, "cycle": cycle, "batch": 0, "warmup": False, "samples": samples,
                    "latency_ms": host_ms, "latency_device_ms": device_ms,
                }
            )  # fmt: skip

    def _queue(self) -> None:
        for input_ids, mask in self.tensors:
            self.loaded.forward(input_ids, mask)

    def requests(self, texts: list[list[str]], encode: Callable[[list[str]], Any]) -> None:
        """One cycle of requests: sentences to token ids, to the device, forward, logits back, label.

        Fences stand between the parts, so that each has its own time and their sum is the request's.

        Args:
            texts: sentences per batch.
            encode: sentences -> {input_ids, attention_mask}, int64 (batch, length), on the host.

        Raises:
            RunError: the token ids are not those that the forwards were timed with.
        """
        cycle = self.rows[-1]["cycle"] + 1
        self._request(texts[0], encode)  # untimed: a tokenizer, too, is slow at first
        for batch, (sentences, (input_ids, _)) in enumerate(zip(texts, self.tensors, strict=True)):
            marks, seen = self._request(sentences, encode)
            if not torch.equal(seen, input_ids):
                raise RunError(f"batch {batch}: the tokenizer gives other ids in a request than it gave for the sweep")
            names = ("tokenise_ms", "transfer_ms", "latency_ms", "postprocess_ms")
            spans = [(after - before) / 1e6 for before, after in pairwise(marks)]
            self.rows.append(
                {"kind": REQUEST, "cycle": cycle, "batch": batch, "warmup": False, "samples": len(sentences)}
                | dict(zip(names, spans, strict=True))
            )

    def _request(self, sentences: list[str], encode: Callable[[list[str]], Any]) -> tuple[list[int], torch.Tensor]:
        """(five readings of the clock in ns, the token ids on the device)."""
        synchronize(self.device)
        marks = [time.perf_counter_ns()]
        encoded = encode(sentences)
        marks.append(time.perf_counter_ns())
        ids, mask = (encoded[name].to(self.device) for name in ("input_ids", "attention_mask"))
        synchronize(self.device)
        marks.append(time.perf_counter_ns())
        logits = self.loaded.forward(ids, mask)
        synchronize(self.device)
        marks.append(time.perf_counter_ns())
        names = self.loaded.info.label_names
        _ = [names[i] for i in logits.float().softmax(-1).argmax(-1).tolist()]
        marks.append(time.perf_counter_ns())
        return marks, ids
