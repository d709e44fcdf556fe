"""The process in which one variant answers one task's questions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.collectors import memory
from distilbench.errors import ImplausibleError
from distilbench.harness.handover import CellSpec
from distilbench.harness.outcome import leave_record
from distilbench.lowrank import prepared
from distilbench.machine.device import gpu_identity, select
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.measurements.task_scores.measure import scorer, tasks
from distilbench.measurements.task_scores.records import CHOICE, DOCUMENTS, TaskRecord, file_name
from distilbench.measurements.task_scores.summary import derive
from distilbench.runs.rawfiles import write_parquet
from distilbench.sources import tokenizers
from distilbench.sources.decoders import LoadedDecoder, load_decoder

Row = dict[str, Any]
SEED = 1234  # the harness's own, for what it samples


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    return leave_record(file, CellSpec.load(file), TaskRecord, measure)


def measure(job: CellSpec) -> dict[str, Any]:
    """The fields of the record."""
    identity, protocol = job.identity, job.protocol
    cores = sweep.take_cores(protocol)
    device = select(job.model["device"])
    (task,) = tasks.load([identity["task"]]).values()
    loaded = load_decoder(**job.model)
    _, ratio = prepared.install(identity["variant"], protocol["group_size"], Path(job.prepared), loaded)
    tokenizer = tokenizer_of(loaded)
    started = time.perf_counter()
    samples, said = evaluate(loaded, tokenizer, task, identity["shots"], protocol)
    seconds = time.perf_counter() - started
    rows = [_row(sample) for sample in samples]
    for row, sample in zip(rows[: protocol["checked"]], samples, strict=False):
        row |= _by_ourselves(loaded, tokenizer, sample, task)
    fields = derive.fields_of(rows)
    _require_the_same(said, fields)
    name = file_name(identity["cell"])
    sha256 = write_parquet(Path(job.run) / name, rows, DOCUMENTS)
    return fields | {
        "device": device.type,
        "dtype": loaded.info.dtype,
        "model_source": loaded.info.source,
        "harness": tasks.version(),
        "output_type": task.OUTPUT_TYPE,
        "seconds_per_document_s": seconds / len(rows),
        "effective_ratio": ratio,
        "peak_rss_MiB": memory.peak_rss_MiB(),
        "num_threads": torch.get_num_threads(),
        "affinity": cores,
        "proof": gpu_identity(device),
        "files_sha256": {name: sha256},
    }


def tokenizer_of(loaded: LoadedDecoder) -> Any:
    """The decoder's own; of random weights one whose tokens are bytes, so that the way can be tried."""
    return tokenizers.of_bytes() if loaded.folder is None else loaded.tokenizer()


def evaluate(loaded: LoadedDecoder, tokenizer: Any, task: Any, shots: int, protocol: Row) -> tuple[list[Row], Row]:
    """The harness's samples, in the order of the documents, and its own scores."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(
        pretrained=loaded.module, tokenizer=tokenizer, batch_size=protocol["batch_size"], add_bos_token=False,
        max_length=loaded.module.config.max_position_embeddings,
    )  # fmt: skip
    nothing_more = TaskManager(include_defaults=False)  # the index of all tasks takes seconds
    found = simple_evaluate(
        model=model, tasks=[task], task_manager=nothing_more, num_fewshot=shots,
        limit=protocol["limit"], bootstrap_iters=0, log_samples=True,
        random_seed=0, numpy_random_seed=SEED, torch_random_seed=SEED, fewshot_random_seed=SEED,
    )  # fmt: skip
    (samples,), (said,) = found["samples"].values(), found["results"].values()
    return sorted(samples, key=lambda sample: sample["doc_id"]), said


def _row(sample: Row) -> Row:
    hashes = [sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")]
    known: Row = {"document": sample["doc_id"], "document_sha256": paths.sha256_bytes(paths.canonical_json(hashes)),
                  "target": str(sample["target"]), "own_logprobs": None, "own_said": None}  # fmt: skip
    pairs = pairs_of(sample)
    if len(pairs) == 1:
        return known | {"logprobs": [], "characters": [], "said": str(sample["filtered_resps"][0])}
    logprobs = [float(one[0][0]) for one in sample["resps"]]
    # the space before a choice is the task's, not the choice's
    return known | {"logprobs": logprobs, "characters": [len(choice.lstrip()) for _, choice in pairs], "said": None}


def pairs_of(sample: Row) -> list[tuple[Any, Any]]:
    """What the model was asked: context and choice, choice by choice; of a text its prompt and how it ends."""
    found = sample["arguments"]
    every = found.values() if isinstance(found, dict) else found
    return [tuple(one.values()) if isinstance(one, dict) else tuple(one) for one in every]


def _by_ourselves(loaded: LoadedDecoder, tokenizer: Any, sample: Row, task: Any) -> Row:
    pairs, most = pairs_of(sample), loaded.module.config.max_position_embeddings
    if task.OUTPUT_TYPE == CHOICE:
        return {"own_logprobs": [scorer.logprob(loaded.module, tokenizer, *pair, most) for pair in pairs]}
    ((prompt, how),) = pairs
    return {"own_said": scorer.written(loaded.module, tokenizer, prompt, how["until"], how["max_gen_toks"], most)}


def _require_the_same(said: Row, fields: Row) -> None:
    """What follows from the rows must be what the harness says of them.

    Raises:
        ImplausibleError: it is not.
    """
    for theirs, ours in (
        ("acc,none", "accuracy"),
        ("acc_norm,none", "accuracy_norm"),
        ("exact_match,none", "accuracy"),
    ):
        if theirs in said and abs(said[theirs] - fields[ours]) > 1e-9:
            raise ImplausibleError(f"the harness says {theirs} {said[theirs]}, its samples give {fields[ours]}")
