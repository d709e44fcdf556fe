"""A process that trains, alone or with others: it times steps, trains to the end, or runs against a bare loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.collectors import memory
from distilbench.errors import DeviceError
from distilbench.harness.outcome import leave_record
from distilbench.machine.device import gpu_identity
from distilbench.measurements.training.measure import loop, watch
from distilbench.measurements.training.measure.launch import of_rank
from distilbench.measurements.training.measure.spec import TrainingSpec
from distilbench.measurements.training.records import BLOCKS, LOOP, STEPS, TRAIN, TrainingRecord, file_name
from distilbench.measurements.training.summary import derive
from distilbench.progress import set_up_log
from distilbench.runs.rawfiles import parquet_bytes
from distilbench.training import checkpoint, steps
from distilbench.training.corpus import Prepared
from distilbench.training.energy import EpochMeter
from distilbench.training.params import TrainingParams
from distilbench.training.ranks import Ranks, joined
from distilbench.training.trainer import Trainer

LARGE = 10**9  # epochs: more than steps are taken


class Helped:
    """What a process leaves that is not the first one: the record is the first one's."""

    def __init__(self, **_: Any) -> None:
        pass

    def to_line(self) -> str:
        """Nothing."""
        return "{}"


def main(file: Path) -> int:
    """Measures; 0 when a record was written (see `outcome.leave_record`)."""
    job, rank = TrainingSpec.load(file), os.environ.get("RANK")
    if rank is None:
        return leave_record(file, job, TrainingRecord, measure)
    return leave_record(of_rank(file, int(rank)), job, TrainingRecord if rank == "0" else Helped, measure)


def measure(job: TrainingSpec) -> dict[str, Any]:
    """The fields of the record; for all but the first process nothing."""
    params = TrainingParams.model_validate(job.params)
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    count = job.identity["processes"]
    local = int(os.environ.get("LOCAL_RANK", 0))
    cores = take_cores(job.protocol, local, count)
    with joined(params.device, params.collective_timeout_s) as here:
        pass_name = job.identity["pass"]
        if here.is_first and pass_name == TRAIN:  # the others are over in seconds
            set_up_log("text", (work / watch.LOG).open("a", encoding="utf-8"))
        measured = {STEPS: _steps, LOOP: _loop}.get(pass_name, _train)(job, params, here)
        about = here.gather(
            {
                "cores": cores,
                "rss": memory.peak_rss_MiB(),
                "cuda": memory.cuda_peaks_MiB(here.device),
                "gpu": gpu_identity(here.device),
            }
        )
    if not here.is_first:
        return {}
    own = job.identity | {"pass_": pass_name} | measured
    return (
        measured
        | derive.fields_of(Path(job.run), own)
        | {
            "device": here.device.type,
            "backend": here.backend,
            "dtype": params.dtype,
            "precision": params.precision,
            "threads_per_process": torch.get_num_threads(),
            "num_threads": torch.get_num_threads() * count,
            "affinity": sorted({core for one in about for core in one["cores"]}),
            "cores_of_processes": [one["cores"] for one in about],
            "gpus": [f"{one['gpu']['gpu']} {one['gpu']['gpu_uuid']}" for one in about if one["gpu"]],
            "peak_rss_MiB": [one["rss"] for one in about],
            "peak_cuda_allocated_MiB": [one["cuda"][0] for one in about if one["cuda"]],
            "proof": gpu_identity(here.device),
        }
    )


def take_cores(protocol: dict[str, Any], rank: int, count: int) -> list[int]:
    """This process's share of the cores and threads, none of which another one has, where they suffice.

    Raises:
        DeviceError: the system gives others.
    """
    cores = protocol["affinity"][rank::count] or [protocol["affinity"][rank % len(protocol["affinity"])]]
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise DeviceError(f"cores {cores} cannot be used: {error.strerror}") from error
    torch.set_num_threads(max(1, protocol["num_threads"] // count))
    return sorted(os.sched_getaffinity(0))


def _trainer(job: TrainingSpec, params: TrainingParams, here: Ranks, steps: int | None = None) -> Trainer:
    """A trainer in the step's folder.

    Args:
        steps: how many are to be taken; None: those of a whole training.
    """
    if steps:
        params = params.model_copy(update={"epochs": LARGE, "max_steps": steps, "checkpoint_steps": 0})
        os.environ.pop("DISTILBENCH_STOP_FILE", None)  # its end is near, and it would have nothing to go on with
    return Trainer(params, Prepared(**job.prepared), Path(job.work), here)


def _steps(job: TrainingSpec, params: TrainingParams, here: Ranks) -> dict[str, Any]:
    """Times steps of a training: warm-up, then those that count."""
    wanted = job.protocol["warmup_steps"] + job.protocol["timed_steps"]
    trainer = _trainer(job, params, here, wanted)
    rows = trainer.take_steps(wanted)
    if rows is None:
        return {}
    rows.sort(key=lambda row: (row["step"], row["rank"]))
    return {
        "warmup_steps": job.protocol["warmup_steps"],
        "parameters": parameters_of(trainer),
        "files_sha256": _files(job, steps=parquet_bytes(rows, steps.STEPS)),
    }


def _loop(job: TrainingSpec, params: TrainingParams, here: Ranks) -> dict[str, Any]:
    """Blocks of the training's steps, in turn with those of a bare loop."""
    count, size = job.protocol["loop_blocks"], job.protocol["block_steps"]
    trainer = _trainer(job, params, here, 2 * (count + 1) * size)
    rows = loop.blocks(trainer, count, size)
    return {"parameters": parameters_of(trainer), "files_sha256": _files(job, blocks=parquet_bytes(rows, BLOCKS))}


def _train(job: TrainingSpec, params: TrainingParams, here: Ranks) -> dict[str, Any]:
    """A whole training, from where an earlier process was interrupted."""
    trainer, folder = _trainer(job, params, here), Path(job.work)
    trainer.meter = EpochMeter(here)
    trainer.resume()
    trainer.train()
    results = trainer.finish({"run_id": Path(job.run).name})
    if not results:
        return {}
    name = f"distilbert_{results['trained_on']}"
    checkpoint.copy(name, folder, Path(job.run) / "checkpoints" / job.identity["cell"])
    written = {what: (folder / f"{what}.parquet").read_bytes() for what in ("steps", "predictions")}
    return {
        "warmup_steps": 0,
        "parameters": parameters_of(trainer),
        "trained_on": results["trained_on"],
        "label_names": trainer.prepared.label_names,
        "epochs": [{name: entry.get(name) for name in ("epoch", *derive.READ)} for entry in results["epochs"]],
        "interruptions": results["interruptions"],
        "checkpoint_sha256": results["files_sha256"],
        "files_sha256": _files(job, **written),
    }


def parameters_of(trainer: Trainer) -> int:
    """How many weights are trained."""
    return sum(one.numel() for one in trainer.model.parameters())


def _files(job: TrainingSpec, **content: bytes) -> dict[str, str]:
    """Writes the record's files into the run; their hashes by name."""
    found = {}
    for what, written in content.items():
        name = file_name(*(job.identity[key] for key in ("cell", "pass", "repetition")), what)
        paths.write_atomic(Path(job.run) / name, written)
        found[name] = paths.sha256_bytes(written)
    return found
