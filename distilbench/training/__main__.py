"""Trains a classifier, in one process or, under torchrun, in many.

    python -m distilbench.training --source embedded --epochs 1
    torchrun --standalone --nproc-per-node=2 -m distilbench.training --source embedded --epochs 1

To resume an interrupted training, repeat the command: it goes on after the last state that was saved.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench import paths
from distilbench.errors import DistilbenchError, Stopped, first_line
from distilbench.progress import set_up_log
from distilbench.runs.parameters import from_text, resolve
from distilbench.training.params import TrainingParams

if TYPE_CHECKING:  # the help needs no torch
    from distilbench.training.ranks import Ranks

log = logging.getLogger("distilbench.training")
STOPPED = 75  # exit code of what can be gone on with, as of `distilbench job`
LEFT_OUT = {"study", "profile", "run_id", "run_ids", "results_root"}


def arguments(given: list[str] | None = None) -> tuple[TrainingParams, Path, bool]:
    """The parameters that were given, the folder for results, and whether it was given; errors name what is allowed.

    Raises:
        ParameterError: a value is none that is allowed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m distilbench.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of state, steps and results; default: in checkpoints/, where the checkpoint is then copied to",
    )
    for name, field in TrainingParams.model_fields.items():
        if name not in LEFT_OUT:
            shown = "" if field.default in (None, "") else f" (default: {field.default})"
            text = f"{field.description or ''}{shown}".replace("%", "%%")
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    known = vars(parser.parse_args(given))
    output = known.pop("output")
    values = {name: from_text(TrainingParams, name, text) for name, text in known.items() if text is not None}
    params = resolve(TrainingParams, "agnews", values | {"profile": "full"}, with_file=False).params
    return params, output or paths.checkpoints_root() / f"training-{params.trained_on}", bool(output)


def run(params: TrainingParams, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """A whole training in this process, with those that torchrun started beside it; the results, for the first one.

    Args:
        about: of the run, into the checkpoint.
    """
    from distilbench.training.ranks import joined

    with joined(params.device, params.collective_timeout_s) as here:
        return train(params, folder, about, here)


def train(params: TrainingParams, folder: Path, about: dict[str, Any], here: Ranks) -> dict[str, Any]:
    """The same, among processes that have met."""
    import torch

    from distilbench.machine.environment import usable_cores
    from distilbench.training import corpus
    from distilbench.training.energy import EpochMeter
    from distilbench.training.trainer import Trainer

    torch.set_num_threads(params.num_threads or max(1, usable_cores() // here.local_world))
    prepared = corpus.prepare(params, folder / "rows") if here.is_first else None
    here.wait_for_preparation()
    trainer = Trainer(params, here.told(prepared), folder, here)
    trainer.meter = EpochMeter(here)
    if trainer.resume() and here.is_first:
        log.info("resumed after step %d, in epoch %d", trainer.step, trainer.epoch + 1)
    trainer.train()
    return trainer.finish(about)


def main() -> int:
    """Trains; the exit code."""
    set_up_log("text", sys.stdout)
    rank = int(os.environ.get("RANK", 0))
    try:
        params, folder, given = arguments()
        with paths.hold_lock(folder / ".lock", f"another training works in {folder}") if rank == 0 else nullcontext():
            results = run(params, folder, {"run_id": params.run_id or None})
            if results:
                _say(results, folder if given else _copied(results, folder))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 0 if "RANK" in os.environ else STOPPED  # torchrun would take it for a failure, and start again
    except DistilbenchError as error:
        print(f"{_who(rank)}{error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        from distilbench.training.ranks import says_another_ended

        if "RANK" in os.environ and says_another_ended(str(error)):
            print(f"{_who(rank)}ended, since another process did ({first_line(error)})", file=sys.stderr)
            return 1
        traceback.print_exc()
        return 1
    return 0


def _copied(results: dict[str, Any], folder: Path) -> Path:
    """The checkpoint where it is looked for, beside the folder of its training."""
    from distilbench.training import checkpoint

    return checkpoint.copy(f"distilbert_{results['trained_on']}", folder, folder.parent)


def _say(results: dict[str, Any], place: Path) -> None:
    low, high = results["test_wilson_95"]
    log.info(
        "test accuracy %.4f (%.4f to %.4f, %d rows), of epoch %d; %s",
        results["test_accuracy"], low, high, results["test_rows"], results["best_epoch"], place,
    )  # fmt: skip


def _who(rank: int) -> str:
    return f"rank {rank}: " if "RANK" in os.environ else ""


if __name__ == "__main__":
    sys.exit(main())
