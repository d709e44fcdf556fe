"""The process that scores one text with one form of the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.collectors import memory
from distilbench.errors import ImplausibleError
from distilbench.harness.handover import CellSpec
from distilbench.harness.outcome import leave_record
from distilbench.lowrank import calibration, compress, prepared, shapes
from distilbench.lowrank.projection import plain, principal
from distilbench.machine.device import gpu_identity, select
from distilbench.measurements.perplexity.measure import windows
from distilbench.measurements.perplexity.measure.prepare import read_calibration, read_text
from distilbench.measurements.perplexity.measure.windows import Window
from distilbench.measurements.perplexity.records import (
    CHUNKS,
    DISJOINT,
    ROLLING,
    STRIDED,
    WEIGHTED,
    PerplexityRecord,
    file_name,
)
from distilbench.measurements.perplexity.summary import derive
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.runs.rawfiles import write_parquet
from distilbench.sources.decoders import LoadedDecoder, load_decoder

Row = dict[str, Any]


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    return leave_record(file, CellSpec.load(file), PerplexityRecord, measure)


def measure(job: CellSpec) -> dict[str, Any]:
    """The fields of the record."""
    cores = sweep.take_cores(job.protocol)
    device = select(job.model["device"])
    loaded, text = load_decoder(**job.model), read_text(Path(job.prepared), job.identity["text"])
    kept = form_of(job, loaded)
    rows = chunks(loaded.module, text, job.protocol)
    name = file_name(job.identity["cell"])
    sha256 = write_parquet(Path(job.run) / name, rows, CHUNKS)
    return derive.fields_of(rows) | {
        "device": device.type,
        "dtype": loaded.info.dtype,
        "model_source": loaded.info.source,
        "text_sha256": text["sha256"],
        "tokens_sha256": paths.sha256_bytes(paths.canonical_json(text["ids"])),
        "length": job.protocol["length"],
        "stride": job.protocol["stride"],
        "peak_rss_MiB": memory.peak_rss_MiB(),
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": gpu_identity(device),
        "files_sha256": {name: sha256},
        **kept,
    }


def form_of(job: CellSpec, loaded: LoadedDecoder) -> dict[str, float]:
    """Compresses the model as the cell asks; what of keys and values is kept."""
    form, ratio = job.identity["form"], job.identity["ratio"]
    if form == "baseline":
        return {"effective_ratio": 1.0}
    of = shapes.of_config(loaded.module.config, job.protocol["group_size"])
    moments, scores = read_calibration(Path(job.prepared))
    allocation = prepared.allocated(of, ratio, form, job.protocol["rank_block"], scores)
    made = compress.compress(loaded.module, of, allocation, moments, plain if form == "plain" else principal)
    kept = calibration.retained(made.energy)
    return {"effective_ratio": allocation.effective, "retained_k": kept["k_proj"], "retained_v": kept["v_proj"]}


def chunks(model: torch.nn.Module, text: Row, protocol: dict[str, Any]) -> list[Row]:
    """The windows of all definitions, scored."""
    ids, lines = torch.tensor(text["ids"]), text["lines"]
    length, most = protocol["length"], protocol["windows"]
    spans = [(start, end) for start, end, _, _ in lines]
    every = {
        DISJOINT: windows.disjoint(len(ids), length),
        STRIDED: windows.strided(len(ids), length, protocol["stride"]),
        ROLLING: windows.rolling(spans, length),
        WEIGHTED: windows.weighted(len(ids), length),
    }
    # bytes and words are those of whole lines, and a long line is cut into windows
    sizes = {(start, end): (size, words) for start, end, size, words in lines}
    start_token = next((one for one in _start_tokens(model.config) if one is not None), 0)
    rows: list[Row] = []
    for definition, found in every.items():
        for number, window in enumerate(windows.chosen(found, most)):
            size, words = sizes.get((window.first, window.end), (0, 0)) if definition == ROLLING else (0, 0)
            rows.append(
                {
                    "definition": definition, "chunk": number, "first_token": window.first, "scored": window.scored,
                    "weight": window.weight, "nll": score(model, ids, window, start_token), "utf8_bytes": size,
                    "words": words,
                }
            )  # fmt: skip
    return rows


def _start_tokens(config: Any) -> tuple[int | None, ...]:
    end = config.eos_token_id
    return config.bos_token_id, end[0] if isinstance(end, list) else end


@torch.inference_mode()
def score(model: torch.nn.Module, ids: torch.Tensor, window: Window, start_token: int) -> float:
    """The sum of negative logarithms of the probabilities of a window's scored tokens, in nats.

    Args:
        model: decoder.
        ids: int64 (tokens,), of the whole text.
        window: what is read and what is scored.
        start_token: read before the window where it asks for that.

    Raises:
        ImplausibleError: it is no number.
    """
    read = ids[window.start : window.end]
    if window.start_token:
        read = torch.cat([torch.tensor([start_token]), read])
    keep = window.scored + 1  # a token is predicted at the place before it
    logits = model(read[None].to(model.device), use_cache=False, logits_to_keep=keep).logits[0, :-1]
    targets = ids[window.first : window.end].to(logits.device)
    nll = float(torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))
    if not nll >= 0 or nll == float("inf"):
        raise ImplausibleError(f"tokens {window.first} to {window.end} have a probability that is no number")
    return nll
