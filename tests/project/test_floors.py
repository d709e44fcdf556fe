"""The floors of the house: what may be imported where."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import distilbench
from distilbench import paths

#: Floors 0 and 3: the analysis, the book and most tests need no machine-learning stack.
WITHOUT_TORCH = (
    "errors", "paths", "stats", "progress", "machine.environment", "collectors.energy", "runs.parameters",
    "runs.find", "runs.verify", "sources.revisions", "sources.batches", "harness.processes", "harness.shards",
    "report.tables", "report.insights", "measurements.sweep.params", "measurements.sweep.records",
    "measurements.sweep.summary.join", "measurements.sweep.measure.design", "measurements.sweep.measure.run", "studies",
    "publication.slides.build", "execution.notebooks", "execution.submission", "cli.main",
)  # fmt: skip


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_floor_needs_no_torch(module):
    loaded = "[m for m in ('torch', 'transformers') if m in sys.modules]"
    code = f"import sys, distilbench.{module}; assert not {loaded}, {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_loads_neither_torch_nor_pandas():
    code = (
        "import sys, distilbench.cli.main as c\n"
        "try:\n    c.app(args=['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'pandas'} & set(sys.modules), 'slow help'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_is_called_after_nothing():
    names = {name.rpartition(".")[2] for _, name, _ in pkgutil.walk_packages(distilbench.__path__, "distilbench.")}
    assert not names & {"utils", "helpers", "misc", "common"}


def test_import_linter_holds_the_contracts():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        cwd=paths.repo_root(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
