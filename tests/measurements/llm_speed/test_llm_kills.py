"""A whole study of a tiny decoder, killed (-9) at random moments: what it goes on with, and that nothing is twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilbench import paths, studies
from distilbench.runs import verify
from distilbench.runs.folder import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 10
WHOLE = """
import sys
from distilbench import studies
from distilbench.harness import steps
design = studies.resolve("palu", {"profile": "ci", "results_root": sys.argv[1], "perplexity_ratios": [0.5, 0.7]})
whole = studies.start(design)
steps.measure_run(whole, design)
for name in ("alignment", "perplexity", "task_scores"):
    steps.measure_run(*studies.section(whole, design, name))
"""


def begin(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WHOLE, str(folder)], stdout=subprocess.DEVNULL)


def kinds(run: Run) -> list[Run]:
    return [run, *run.sections]


def found(run: Run) -> dict[str, object]:
    """What does not depend on the time that was taken: by section and cell."""
    said = {}
    for one in kinds(run):
        for record in one.measured():
            fields = record.model_dump()
            names = ("tokens_sha256", "cache_bytes", "perplexities", "documents_sha256", "margin_nat", "accuracy")
            said[one.kind.name, record.cell, record.repetition] = {name: fields.get(name) for name in names}
    return said


def test_ten_kills(tmp_path):
    started = time.monotonic()
    assert begin(tmp_path / "undisturbed").wait() == 0
    whole_s = time.monotonic() - started
    (undisturbed,) = map(Run, (tmp_path / "undisturbed" / "palu").iterdir())
    moments, killed = random.Random(7), 0
    while killed < KILLS:
        process = begin(tmp_path / "killed")
        try:
            process.wait(timeout=moments.uniform(0.05, 0.5) * whole_s)
            break  # it came to its end between kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            killed += 1
    if process.returncode != 0:
        assert begin(tmp_path / "killed").wait() == 0
    (run,) = map(Run, (tmp_path / "killed" / "palu").iterdir())
    assert found(run) == found(undisturbed)
    for one in kinds(run):
        keys = [record.key for record in one.measured()]
        assert len(keys) == len(set(keys)) == len(one.kind.plan(resolved_of(one, tmp_path))), "each step once"
        assert paths.read_json(one.folder / "summary.json")["cells"]
    assert verify.problems(run.folder) == []
    assert killed >= 3, "there was something to kill"


def resolved_of(one: Run, folder: Path):
    given = {"profile": "ci", "results_root": str(folder / "killed"), "perplexity_ratios": [0.5, 0.7]}
    design = studies.resolve("palu", given)
    return design if one.kind.name == "llm_speed" else studies.sections(design)[one.kind.name][0]
