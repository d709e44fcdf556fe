"""What the tests of measuring share: a design that takes seconds, jobs for the worker, real processes to kill."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkouts
import nbformat
import psutil
import standin_worker
import yaml
from waiting import alive

from distilbench import paths
from distilbench import studies as studies_
from distilbench.harness.processes import cores
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.measure.run import PROTOCOL, Prepared
from distilbench.measurements.sweep.measure.spec import WorkerSpec
from distilbench.runs import parameters as runs_parameters
from distilbench.runs.folder import Run
from distilbench.runs.states import MEASURED
from distilbench.sources.batches import save_inputs

STAND_IN = (sys.executable, str(Path(__file__).parent / "standin_worker.py"))
LABELS = ["negative", "positive"]
VOCABULARY = 200  # of made-up token ids
SMALL = {
    "profile": "ci",
    "batch_sizes": [2],
    "length_policies": ["fixed-16"],
    "repetitions": 1,
    "memory_repetitions": 1,
    "samples_per_cycle": 16,
    "passes": ["timing", "memory"],
    "warmup_max_seconds": 0.0,  # no proof asked
    "fresh_processes": True,
}


def small_design(results: Path, **given: Any) -> runs_parameters.Resolved:
    """One cell, one repetition in either pass, of the tiny random model on the committed test sentences."""
    return studies_.resolve("distilbert", SMALL | {"results_root": str(results)} | given)


def stand_in_here(command: tuple[str, ...], *_: object) -> tuple[int, str]:
    """In place of `processes._spawn`: the stand-in in this process, where no test kills it; exit code and stderr."""
    try:
        standin_worker.main(Path(command[-1]))
    except SystemExit as ended:
        return ended.code, ""
    except Exception:
        return 1, traceback.format_exc()
    return 0, ""


#: In an interpreter that was started for the real worker; the stand-in takes its place, process and all.
IN_ITS_PLACE = """import os, sys
if "distilbench.measurements.sweep.measure.worker" in sys.orig_argv:
    os.execv(sys.executable, [sys.executable, {script!r}, sys.orig_argv[-1]])
"""


def stand_in_everywhere(folder: Path) -> dict[str, str]:
    """Variables with which each process that a command line starts, kernels and jobs too, gets the stand-in."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_ITS_PLACE.format(script=STAND_IN[-1]))
    return checkouts.python_path(folder)


def made_up_inputs(file: Path, sentences: int = 40) -> Path:
    """Token ids of sentences of 5 to 20 tokens, [CLS] and [SEP] included, with labels in turn."""
    generator = random.Random(7)
    ids = [[2, *(generator.randrange(5, VOCABULARY) for _ in range(generator.randrange(3, 19))), 3]]
    ids += [[2, *(generator.randrange(5, VOCABULARY) for _ in range(3 + i % 16)), 3] for i in range(1, sentences)]
    save_inputs(file, ids, [f"s{i}" for i in range(sentences)], [i % 2 for i in range(sentences)])
    return file


def prepared_by_hand(run: Run) -> Prepared:
    """What `run.prepare` gives, without loading anything."""
    inputs = made_up_inputs(run.folder / "work" / "inputs.npz")
    return Prepared(inputs, {"name": "made up", "rows": 40}, {"name": "stand-in"}, LABELS, {"vocab_size": VOCABULARY})


def job(folder: Path, where: str = "timing", variant: str = "sdpa", **changed: Any) -> WorkerSpec:
    """A job of the small design, as the sweep writes it; `changed` are parameters of the design."""
    resolved = small_design(folder / "results", variants=[variant], **changed)
    (cell,) = design.cells_of(resolved.params)
    (folder / "iterations").mkdir(exist_ok=True)
    return WorkerSpec(
        run=str(folder),
        inputs=str(made_up_inputs(folder / "work" / "inputs.npz")),
        identity=cell.model_dump() | {"study": "distilbert", "pass": where, "repetition": 0, "attempt": 1},
        model=resolved.params.model_arguments(vocab_size=VOCABULARY),
        protocol={name: getattr(resolved.params, name) for name in PROTOCOL} | cores(resolved.params.num_threads),
        label_names=LABELS,
    )


def checkout_with_notebooks(folder: Path, **sources: str | Path) -> Path:
    """A checkout whose distilbert study is a chain of these notebooks; set DISTILBENCH_ROOT to it.

    A source is the code of a notebook's one cell, or a notebook's file.
    """
    shutil.copytree(paths.repo_root() / "params", folder / "params")
    (folder / "tests").symlink_to(paths.repo_root() / "tests")
    (folder / "notebooks").mkdir()
    for name, source in sources.items():
        if isinstance(source, Path):
            shutil.copy(source, folder / "notebooks")
            continue
        parameters = nbformat.v4.new_code_cell('study = "distilbert"\nrun_id = ""\nresults_root = None')
        parameters.metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
        notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    studies = {"distilbert": {"question": "Does the chain hold?", "notebooks": list(sources)}}
    (folder / "params" / "studies.yml").write_text(yaml.safe_dump(studies))
    return folder


@contextlib.contextmanager
def ctrl_c_works() -> Iterator[None]:
    """Processes started inside take SIGINT as from a terminal, even where the tests run in the background.

    A shell starts background jobs with SIGINT ignored, and that is inherited.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def descendants(process: subprocess.Popen | int, word: str = "") -> list[psutil.Process]:
    """The living processes below a process whose command line has the word."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process if isinstance(process, int) else process.pid).children(recursive=True)
        for child in filter(alive, below):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word in part for part in child.cmdline()):
                    found.append(child)
    return found


def is_a_fork(process: psutil.Process) -> bool:
    """Whether it was forked to measure: its input is empty. That of a fork which only ends threads is a pipe."""
    with contextlib.suppress(psutil.NoSuchProcess, OSError):
        reads = Path(f"/proc/{process.pid}/fd/0").readlink()
        return str(reads) == os.devnull and process.parent().cmdline() == process.cmdline()
    return False


def committed(run: Run) -> list[tuple[tuple[str, str, int], int, str]]:
    """Key, attempt and status of every line of raw.jsonl."""
    return [(record.key, record.attempt, record.status) for record in run.repetitions()]


def finished_once(run: Run, resolved: runs_parameters.Resolved) -> bool:
    """Whether every repetition of the design is finished in the run exactly once."""
    planned = sorted((cell.cell, where, repetition) for cell, where, repetition in design.plan(resolved))
    return sorted(key for key, _, status in committed(run) if status in MEASURED) == planned
