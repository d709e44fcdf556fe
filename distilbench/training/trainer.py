"""The training itself: the same code in one process and in many.

A step's loss is the sum over its rows divided by their number in all processes, which each knows without asking: so N
processes of b rows take the step that one process of N times b rows takes, also where the last step is short.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from distilbench import paths
from distilbench.errors import ImplausibleError, RunError, Stopped
from distilbench.progress import duration
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.stats import wilson_interval
from distilbench.training import checkpoint, steps
from distilbench.training.clock import StepClock
from distilbench.training.corpus import SPLITS, Prepared
from distilbench.training.energy import NO_ENERGY, EpochMeter
from distilbench.training.evaluation import evaluate
from distilbench.training.model import build, optimizer_of, schedule_of
from distilbench.training.order import Sampler, Sizes, steps_of
from distilbench.training.params import TrainingParams
from distilbench.training.ranks import Ranks

log = logging.getLogger("distilbench.training")
LOOK_EVERY = 20  # steps between two looks at whether somebody asked to stop: all processes must agree, which costs
SAY_EVERY_S = 15.0
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PLACE = ("epoch", "seen", "step", "history", "chunks", "epoch_s", "interruptions")  # how far it is
INTERRUPTED = "the epoch was interrupted: a counter saw a part of it"
#: What may differ when a training is resumed: where it computes and how long it waits, not what it computes.
NOT_DESIGN = {
    "profile",
    "device",
    "num_threads",
    "collective_timeout_s",
    "checkpoint_steps",
    "run_id",
    "run_ids",
    "results_root",
}


class Trainer:
    """One training in a folder; what is there of it is gone on with.

    Args:
        params: of the training.
        prepared: its rows and tokenizer.
        folder: for its state, steps and results; all processes see the same one.
        ranks: this process among those that train.
    """

    def __init__(self, params: TrainingParams, prepared: Prepared, folder: Path, ranks: Ranks) -> None:
        self.params, self.prepared, self.folder, self.ranks = params, prepared, folder, ranks
        torch.use_deterministic_algorithms(params.deterministic)
        self.rows = {split: prepared.rows(split).at_most(params.max_length) for split in SPLITS}
        self.sizes = Sizes(params.batch_size, params.accumulation, ranks.world)
        if self.sizes.batch * ranks.world > len(self.rows["train"]):
            raise RunError(
                f"{ranks.world} x {self.sizes.batch} rows per forward are more than the {len(self.rows['train'])} "
                "rows to train on: give a smaller batch_size, or more rows"
            )
        self.model = build(params, prepared.label_names, prepared.vocab_size).to(ranks.device)
        self.parallel: Callable[..., torch.Tensor] = self.model
        self.clock = StepClock(ranks.device)
        if ranks.world > 1:
            on_gpu = ranks.device.type == "cuda"
            self.parallel = DistributedDataParallel(self.model, device_ids=[ranks.device.index] if on_gpu else None)
            self.clock.watch(self.parallel)
        self.optimizer = optimizer_of(self.model, params)
        # float16 has no small gradients: they are scaled up before they vanish, and back before the step
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=params.precision == "float16")
        self.group, self.epoch, self.seen, self.step = self.sizes.step, 0, 0, 0
        self.history: list[dict[str, Any]] = []
        self.pending: list[dict[str, Any]] = []
        self.chunks: list[str] = []
        self.epoch_s, self.interruptions, self.said = 0.0, 0, time.monotonic()
        self.meter: EpochMeter | None = None  # of energy; None: it is not measured
        torch.manual_seed(params.seed + ranks.rank)  # dropout differs between processes
        per_epoch = len(steps_of(len(self.rows["train"]), 0, self.sizes))
        self.steps_planned = min(per_epoch * params.epochs, params.max_steps or math.inf)
        self.schedule = schedule_of(self.optimizer, int(self.steps_planned), params.warmup_share)

    @property
    def design(self) -> dict[str, Any]:
        """What a resumption must find the same."""
        settings = self.params.model_dump(mode="json", exclude=NOT_DESIGN)
        # more processes may go on with it: then each has fewer rows, and a step as many
        settings = {key: value for key, value in settings.items() if key not in ("batch_size", "accumulation")}
        return settings | {"data": self.prepared.data["content_sha256"]}

    # ------------------------------------------------------------------ state

    def resume(self) -> bool:
        """Takes up the state that is in the folder; whether there was one.

        Raises:
            RunError: it is of another training.
        """
        file = checkpoint.state_file(self.folder)
        if not self.ranks.told(file.is_file()):
            return False
        state = checkpoint.load(file)
        if differs := sorted(key for key, value in self.design.items() if state["design"].get(key) != value):
            raise RunError(
                f"{file} is of another training: {differs[0]} was {state['design'].get(differs[0])!r}, and is "
                f"{self.design[differs[0]]!r}; give the same settings, or another --output"
            )
        if state["step_rows"] != self.sizes.step:
            raise RunError(
                f"{file}: a step had {state['step_rows']} rows, and would have {self.sizes.step} now (batch_size x "
                "accumulation x processes): choose these so that it stays the same"
            )
        self.model.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        for name in PLACE:
            setattr(self, name, state[name])
        self.interruptions += 1
        self._restore_random(state["random"])
        return True

    def save(self) -> None:
        """Writes the state, with the steps since the last one; the first process does, and the others wait for it."""
        random, rows = self.ranks.gather(self._random()), self.ranks.gather(self.pending)
        if self.ranks.is_first:
            if flat := [row for part in rows for row in part]:
                name = f"steps/{self.step:08d}.parquet"
                write_parquet(self.folder / name, sorted(flat, key=lambda r: (r["step"], r["rank"])), steps.STEPS)
                self.chunks = [*(one for one in self.chunks if one != name), name]
            state = {name: getattr(self, name) for name in PLACE}
            state |= {"design": self.design, "step_rows": self.sizes.step, "random": random}
            parts = {"optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
            state |= {name: part.state_dict() for name, part in parts.items()} | {"world": self.ranks.world}
            checkpoint.save(checkpoint.state_file(self.folder), state | {"model": self.model.network.state_dict()})
        self.chunks = self.ranks.told(self.chunks)
        self.pending = []

    def _random(self) -> list[torch.Tensor]:
        """The state of this process's generators: of the CPU, and of its GPU."""
        on_gpu = self.ranks.device.type == "cuda"
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.ranks.device)] if on_gpu else [])]

    def _restore_random(self, states: list[list[torch.Tensor]]) -> None:
        """Takes up this process's own; of another number of processes, new ones."""
        if len(states) != self.ranks.world:
            torch.manual_seed(hash((self.params.seed, self.step, self.ranks.rank)))
            return
        cpu, *gpu = states[self.ranks.rank]
        torch.set_rng_state(cpu)
        if gpu and self.ranks.device.type == "cuda":
            torch.cuda.set_rng_state(gpu[0], self.ranks.device)

    # ------------------------------------------------------------------ training

    def train(self) -> None:
        """All epochs that are left.

        Raises:
            ImplausibleError: the gradients are not finite.
            Stopped: somebody asked to stop; the state is saved.
        """
        # an epoch that was begun must be ended, also where its last step was the last of all and the end was cut off
        while self.epoch < self.params.epochs and (self.seen or not self._is_over()):
            energy = self._timed_epoch()
            self._end_epoch(energy)

    def take_steps(self, count: int) -> list[dict[str, Any]] | None:
        """So many steps and nothing else: no evaluation, no saved state; for the first process what was noted of them.

        Raises:
            ImplausibleError: the gradients are not finite.
        """
        if self.steps_planned < count:
            raise ValueError(f"{count} steps were asked for; {self.steps_planned} are planned")
        while self.step < count:
            self._steps_of_epoch(time.monotonic())
            self.epoch, self.seen = self.epoch + 1, 0
        gathered = self.ranks.gather(self.pending)
        return None if gathered is None else [row for part in gathered for row in part]

    def _timed_epoch(self) -> dict[str, Any]:
        """The steps that are left of an epoch; the energy that it took, for an entry of `history`."""
        begun, is_whole = time.monotonic() - self.epoch_s, not self.seen
        if self.meter is None:
            self._steps_of_epoch(begun)
            energy: dict[str, Any] = {}
        else:
            energy = self.meter.over(lambda: self._steps_of_epoch(begun))
            energy = energy if is_whole else NO_ENERGY | {"energy_reason": INTERRUPTED}
        self.epoch_s = time.monotonic() - begun
        return energy

    def _is_over(self) -> bool:
        """Whether the last step was taken, or nothing got better for too long. The first process decides."""
        best = max(range(len(self.history)), key=lambda i: self.history[i]["validation_accuracy"] or 0, default=0)
        patient = self.params.patience and len(self.history) - 1 - best >= self.params.patience
        return self.ranks.told(bool(self.step >= self.steps_planned or patient))

    def _steps_of_epoch(self, begun: float) -> None:
        self.model.train()
        taken = self.batches()
        for count, forwards in steps_of(len(self.rows["train"]), self.seen, self.sizes):
            if self.step >= self.steps_planned:
                break
            self.one_step(taken, count, forwards)
            self.seen += count
            self.epoch_s = time.monotonic() - begun
            self._say()
            if self.params.checkpoint_steps and self.step % self.params.checkpoint_steps == 0:
                self.save()
            self._stop_if_asked()

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """This process's batches of the epoch from where it is, on the CPU (`Rows.collate`)."""
        rows = self.rows["train"]
        sampler = Sampler(
            rows.lengths, self.ranks.rank, self.ranks.world, self.params.seed, self.group, self.params.group_by_length,
            self.seen,
        )  # fmt: skip
        sampler.set_epoch(self.epoch)
        # its own generator: else the one that dropout draws from would stand elsewhere after a resumption
        own = torch.Generator()
        return iter(DataLoader(rows, self.sizes.batch, sampler=sampler, collate_fn=rows.collate, generator=own))

    def one_step(self, taken: Iterator[dict[str, torch.Tensor]], count: int, forwards: int) -> None:
        """One optimizer step, noted in `pending`.

        Args:
            taken: where its batches come from.
            count: its rows in all processes.
            forwards: of this process.
        """
        params, clock, device = self.params, self.clock, self.ranks.device
        row = dict.fromkeys(("samples", "tokens", "positions", "correct"), 0) | {"loss_sum": 0.0}
        kept = []
        clock.start()
        for number in range(forwards):
            batch = {name: tensor.to(device) for name, tensor in next(taken).items()}
            clock.mark("data")
            # gradients are only summed over processes with the last of a step's forwards
            apart = self.ranks.world > 1 and number < forwards - 1
            with self.parallel.no_sync() if apart else nullcontext():
                autocast = AUTOCAST.get(params.precision)
                with torch.autocast(device.type, autocast) if autocast else nullcontext():
                    logits = self.parallel(batch["input_ids"], batch["attention_mask"])
                logits = logits.float() if autocast else logits
                losses = cross_entropy(logits, batch["labels"], reduction="none") * batch["weights"]
                # the mean over all processes that follows divides by their number, which is multiplied here
                loss = losses.sum() * (self.ranks.world / count)
                clock.mark("forward")
                self.scaler.scale(loss).backward()
            clock.mark("backward")
            kept.append((losses.detach(), logits.detach(), batch))
        norm, skipped = self._update()
        clock.mark("optimizer")
        times = clock.end()
        for losses, logits, batch in kept:  # after the step's end: each of these waits for the device
            counts = batch["weights"] > 0
            row["loss_sum"] += float(losses.sum())
            row["correct"] += int(((logits.argmax(-1) == batch["labels"]) & counts).sum())
            row["samples"] += int(counts.sum())
            row["tokens"] += int(batch["attention_mask"][counts].sum())
            row["positions"] += batch["attention_mask"].numel()
        self.step += 1
        if not math.isfinite(norm) and not skipped:
            raise ImplausibleError(f"the gradients of step {self.step} are not finite: a lower learning_rate may help")
        self.pending.append(
            row
            | times
            | {
                "epoch": self.epoch + 1, "step": self.step, "rank": self.ranks.rank, "learning_rate": self.rate,
                "gradient_norm": norm, "skipped": skipped, "started_ns": clock.started_ns,
            }
        )  # fmt: skip

    def _update(self) -> tuple[float, bool]:
        """Clips and applies the gradients: (their norm before, whether the step was skipped)."""
        self.rate = self.schedule.get_last_lr()[0]
        self.scaler.unscale_(self.optimizer)  # before clipping: else the scale would be clipped, and not the gradients
        norm = clip_grad_norm_(self.model.parameters(), self.params.clip_norm or math.inf)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm), self.scaler.get_scale() < before

    def _end_epoch(self, energy: dict[str, Any]) -> None:
        """Evaluates, notes and saves."""
        self.epoch, self.seen = self.epoch + 1, 0
        last = self.epoch == self.params.epochs or self.step >= self.steps_planned
        entry: dict[str, Any] = {"epoch": self.epoch, "seconds": self.epoch_s} | energy
        entry |= dict.fromkeys(("validation_loss", "validation_accuracy"))
        if last or self.params.evaluate_every == "epoch":
            begun = time.monotonic()
            found, predictions = self.evaluate("validation")
            entry |= {"validation_loss": found["loss"], "validation_accuracy": found["correct"] / found["rows"]}
            entry["evaluation_s"] = time.monotonic() - begun
            if self.ranks.is_first:
                self._note("validation", self.epoch, predictions)
        self.history.append(entry)
        self.epoch_s = 0.0
        best = max((one["validation_accuracy"] or 0) for one in self.history)
        if (entry["validation_accuracy"] or 0) >= best and self.ranks.is_first:
            self.keep("best")
        self.save()
        if self.ranks.is_first:
            self._report(entry)

    def _note(self, split: str, epoch: int, predictions: list[dict[str, Any]]) -> None:
        """Keeps predictions until the end."""
        rows = [{"split": split, "epoch": epoch} | row for row in predictions]
        write_parquet(self.folder / f"predictions/{split}-{epoch:04d}.parquet", rows, steps.PREDICTIONS)

    def evaluate(self, split: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """As `evaluation.evaluate`, of a split."""
        self.model.eval()
        return evaluate(self.model, self.rows[split], self.params.evaluation_batch_size, self.ranks)

    @property
    def evaluated_epochs(self) -> list[dict[str, Any]]:
        """Those after which the validation rows were classified."""
        return [entry for entry in self.history if entry["validation_accuracy"] is not None]

    def keep(self, name: str) -> None:
        """Writes the weights as they are under a name."""
        checkpoint.save(self.folder / f"{name}.pt", {"model": self.model.network.state_dict(), "epoch": self.epoch})

    # ------------------------------------------------------------------ the end

    def finish(self, about: dict[str, Any]) -> dict[str, Any]:
        """The best epoch's weights on the test rows, which are opened here; the checkpoint; results.json.

        Args:
            about: of the run, into the checkpoint.
        """
        self.ranks.wait()
        best = checkpoint.load(self.folder / "best.pt")
        self.model.network.load_state_dict(best["model"])
        found, predictions = self.evaluate("test")
        if not self.ranks.is_first:
            return {}
        files = [self.folder / name for name in self.chunks]
        rows = steps.read(files)
        write_parquet(self.folder / "steps.parquet", rows, steps.STEPS)
        self._note("test", best["epoch"], predictions)
        parts = [self.folder / f"predictions/validation-{one['epoch']:04d}.parquet" for one in self.evaluated_epochs]
        parts.append(self.folder / f"predictions/test-{best['epoch']:04d}.parquet")
        write_parquet(
            self.folder / "predictions.parquet", [r for p in parts for r in read_parquet(p)], steps.PREDICTIONS
        )
        by_epoch = {one["epoch"]: one for one in steps.epochs_of(rows)}
        low, high = wilson_interval(found["correct"], found["rows"])
        results = {
            "trained_on": self.params.trained_on,
            "processes": self.ranks.world,
            "threads": torch.get_num_threads(),
            "device": str(self.ranks.device.type),
            "backend": self.ranks.backend,
            "rows_of_a_step": self.sizes.step,
            "interruptions": self.interruptions,
            "epochs": [entry | by_epoch[entry["epoch"]] for entry in self.history],
            "best_epoch": best["epoch"],
            "test_accuracy": found["correct"] / found["rows"],
            "test_correct": found["correct"],
            "test_rows": found["rows"],
            "test_wilson_95": [low, high],
            "data": self.prepared.data,
        }
        details = {"label_names": self.prepared.label_names, "data_sha256": self.prepared.data["content_sha256"]}
        settings = self.params.model_dump(mode="json")
        name = f"distilbert_{self.params.trained_on}"
        results["files_sha256"] = checkpoint.export(
            self.folder, name, self.model.network, self.prepared.tokenizer, details | about | {"settings": settings}
        )
        paths.write_json(self.folder / "results.json", results)
        return results

    # ------------------------------------------------------------------ words

    def _say(self) -> None:
        """Now and then a line, from the first process alone."""
        now = time.monotonic()
        if self.meter:
            self.meter.poll()
        if not self.ranks.is_first or now - self.said < SAY_EVERY_S:
            return
        self.said, row, rows = now, self.pending[-1], len(self.rows["train"])
        left = self.epoch_s / self.seen * (rows - self.seen)
        log.info(
            "epoch %d of %d: %s of %s rows, loss %.3f, about %s left of this epoch",
            self.epoch + 1, self.params.epochs, f"{self.seen:,}", f"{rows:,}",
            row["loss_sum"] / max(1, row["samples"]), duration(left),
        )  # fmt: skip

    def _report(self, entry: dict[str, Any]) -> None:
        """The line of an epoch."""
        rows = steps.read(self.folder / name for name in self.chunks)
        (trained,) = [one for one in steps.epochs_of(rows) if one["epoch"] == self.epoch]
        validation = entry["validation_accuracy"]
        log.info(
            "epoch %d of %d: training loss %.4f, training accuracy %.4f%s, %s",
            self.epoch, self.params.epochs, trained["training_loss"], trained["training_accuracy"],
            "" if validation is None else f", validation accuracy {validation:.4f}", duration(entry["seconds"]),
        )  # fmt: skip
        if self.params.tensorboard:
            self._to_tensorboard(entry | trained)

    def _to_tensorboard(self, numbers: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            for name, value in numbers.items():
                if name != "epoch" and isinstance(value, int | float):
                    writer.add_scalar(name, value, numbers["epoch"])

    def _stop_if_asked(self) -> None:
        """Saves and ends where the file is that $DISTILBENCH_STOP_FILE names, such as before a job's time is over.

        Raises:
            Stopped: it is.
        """
        file = os.environ.get("DISTILBENCH_STOP_FILE")
        if not file or self.step % LOOK_EVERY or not self.ranks.told(Path(file).exists()):
            return
        self.save()
        raise Stopped(f"asked to stop after step {self.step}; the state is saved")
