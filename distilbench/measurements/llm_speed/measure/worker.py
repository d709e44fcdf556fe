"""The process that measures one cell: forwards over prompts, or generations after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilbench import paths
from distilbench.collectors import memory
from distilbench.collectors import threads as collectors_threads
from distilbench.collectors.latency import clock_for
from distilbench.errors import ImplausibleError
from distilbench.harness.handover import CellSpec
from distilbench.harness.outcome import leave_record
from distilbench.lowrank import prepared
from distilbench.lowrank.attention import cache_bytes, expected_bytes
from distilbench.lowrank.generation import TokenClock, generate
from distilbench.machine.device import gpu_identity, select, synchronize
from distilbench.measurements.llm_speed.records import ITERATIONS, PREFILL, TOKENS, LlmRecord, file_name
from distilbench.measurements.llm_speed.summary import derive
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.runs.rawfiles import write_parquet
from distilbench.sources.decoders import load_decoder

Row = dict[str, Any]


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    return leave_record(file, CellSpec.load(file), LlmRecord, measure)


def measure(job: CellSpec) -> dict[str, Any]:
    """The fields of the record."""
    identity, protocol = job.identity, job.protocol
    cores = sweep.take_cores(protocol)
    device = select(job.model["device"])
    threads = collectors_threads.proof(torch, protocol["num_threads"], len(cores), device.type == "cpu")
    loaded = load_decoder(**job.model)
    ranks, ratio = prepared.install(identity["variant"], protocol["group_size"], Path(job.prepared), loaded)
    memory.touch(loaded.module)
    loaded_MiB = memory.rss_MiB()
    phases = memory.Phases(device)
    ids = prompts(Path(job.prepared), identity["batch_size"], identity["context"]).to(device)
    iterate = (_prefill if identity["phase"] == PREFILL else _decode)(loaded.module, ids, identity["new_tokens"])
    rows, said = _repeat(iterate, protocol, device)
    phases.mark("steady")
    _require_bytes(loaded.module, ids.shape[0], rows[-1], ranks)
    name = file_name(identity["cell"], identity["repetition"])
    sha256 = write_parquet(Path(job.run) / name, rows, ITERATIONS)
    allocated, reserved = phases.highest_cuda_MiB or (None, None)
    return derive.fields_of(rows, identity) | {
        "device": device.type,
        "dtype": loaded.info.dtype,
        "attention": loaded.info.attention,
        "model_source": loaded.info.source,
        "warmup": protocol["warmup"],
        "load_s": loaded.info.load_s,
        "loaded_rss_MiB": loaded_MiB,
        "peak_rss_MiB": phases.highest_rss_MiB,
        "peak_cuda_allocated_MiB": allocated,
        "peak_cuda_reserved_MiB": reserved,
        "tokens_sha256": paths.sha256_bytes(said),
        "effective_ratio": ratio,
        "unaligned_share": unaligned(ranks) if ranks else None,
        "files_sha256": {name: sha256},
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": gpu_identity(device) | ({"ranks": ranks} if ranks else {}),
        **threads,
    }


def unaligned(ranks: dict[str, Any]) -> float:
    """Share of the groups whose rank is no multiple of 8, the width that tensor cores and vector units like."""
    every = [rank % 8 != 0 for given in ranks.values() for rank in given]
    return sum(every) / len(every)


def prompts(folder: Path, batch_size: int, length: int) -> torch.Tensor:
    """Prompts, int64 (B, length): pieces of the text that begin at evenly spaced places.

    Those of a small batch are among those of a large one where their number divides it.
    """
    tokens = np.load(folder / TOKENS)
    starts = [row * (len(tokens) - length) // batch_size for row in range(batch_size)]
    return torch.from_numpy(np.stack([tokens[start : start + length] for start in starts]).astype(np.int64))


Iterate = tuple[Callable[[], Any], Callable[[Any], tuple[bytes, Row]]]  # what is timed, and what it says afterwards


def _prefill(model: torch.nn.Module, ids: torch.Tensor, _: int) -> Iterate:
    """A forward over the prompts; logits of the last token alone, as a generation asks for them."""

    @torch.inference_mode()
    def work() -> Any:
        return model(ids, use_cache=True, logits_to_keep=1)

    def once(out: Any) -> tuple[bytes, Row]:
        first = out.logits[:, -1].argmax(-1).cpu().numpy()
        return first.tobytes(), {"token_ms": [], "new_tokens": 0} | _of_cache(out.past_key_values)

    return work, once


def _decode(model: torch.nn.Module, ids: torch.Tensor, new_tokens: int) -> Iterate:
    """A generation after the prompts."""
    mask = torch.ones_like(ids)

    def work() -> Any:
        clock = TokenClock(lambda: synchronize(ids.device))
        return generate(model, ids, mask, new_tokens, clock), clock

    def once(out: Any) -> tuple[bytes, Row]:
        done, clock = out
        made = done.sequences[:, ids.shape[1] :]
        row = {"token_ms": clock.intervals_ms(), "new_tokens": made.shape[1]} | _of_cache(done.past_key_values)
        return made.cpu().numpy().tobytes(), row

    return work, once


def _of_cache(cache: Any) -> Row:
    return {"cached_tokens": cache.get_seq_length(), "cache_bytes": cache_bytes(cache)}


def _repeat(iterate: Iterate, protocol: dict[str, Any], device: torch.device) -> tuple[list[Row], bytes]:
    """All iterations, warm-up first: (rows, the tokens that the first timed one gave).

    Raises:
        ImplausibleError: two iterations gave different tokens.
    """
    (work, once), clock = iterate, clock_for(device)
    rows: list[Row] = []
    texts: list[bytes] = []
    for number in range(protocol["warmup"] + protocol["measured"]):
        host_ms, device_ms, out = clock.time(work)
        said, row = once(out)
        del out  # its cache: the next iteration needs the room
        warmup = number < protocol["warmup"]
        texts += [] if warmup else [said]
        times = {"latency_ms": host_ms, "latency_device_ms": device_ms}
        rows.append({"iteration": number, "warmup": warmup} | times | row)
    if len(set(texts)) > 1:
        raise ImplausibleError("greedy decoding of the same prompts gave different tokens")
    return rows, texts[0]


def _require_bytes(model: torch.nn.Module, batch_size: int, row: Row, ranks: dict[str, Any] | None) -> None:
    """The cache must have the bytes that its shapes give it: what is compressed is, and nothing else is kept.

    Raises:
        ImplausibleError: it has not.
    """
    itemsize = next(model.parameters()).element_size()
    expected = expected_bytes(model.config, batch_size, row["cached_tokens"], itemsize, ranks)
    if row["cache_bytes"] != expected:
        raise ImplausibleError(f"the cache holds {row['cache_bytes']} bytes, its shapes give {expected}")
