"""The floors of the house: what may be imported where."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distilbench
from distilbench import paths, studies

#: Floors 0 and 3: the analysis, the book and most tests need no machine-learning stack.
WITHOUT_TORCH = (
    "errors", "paths", "stats", "progress", "machine.environment", "collectors.energy", "runs.parameters",
    "runs.find", "runs.verify", "sources.revisions", "sources.batches", "harness.processes", "harness.shards",
    "report.tables", "report.insights", "measurements.sweep.params", "measurements.sweep.records",
    "measurements.sweep.summary.join", "measurements.sweep.measure.design", "measurements.sweep.measure.run", "studies",
    "measurements.profiling.kind", "measurements.profiling.measure.run", "measurements.evaluation.kind",
    "measurements.evaluation.measure.run", "measurements.training.kind", "measurements.training.measure.run",
    "measurements.training.show.entry", "measurements.llm_speed.kind", "measurements.llm_speed.measure.run",
    "measurements.llm_speed.show.entry", "measurements.perplexity.kind", "measurements.perplexity.measure.run",
    "measurements.perplexity.show.entry", "publication.slides.build", "publication.claims.page",
    "execution.notebooks", "execution.submission", "cli.main",
)  # fmt: skip


#: Imports each module that it is given in a fork, which has imported nothing else of the package.
FORKS = """import importlib, os, sys
import numpy, pandas, pyarrow, pydantic, scipy.stats, yaml
for name in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(f"distilbench.{name}")
        print(name, *(one for one in ("torch", "transformers") if one in sys.modules), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Which of the machine-learning stack each module loads."""
    command = [sys.executable, "-c", FORKS, *WITHOUT_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {name: rest for name, *rest in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_floor_needs_no_torch(loaded, module):
    assert loaded[module] == []


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


ROOT = paths.repo_root()
#: Where no kind of measurement is named: all code and scripts but its own folder, and the registry.
GENERAL = [
    file
    for file in sorted([*(ROOT / "distilbench").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
    if "measurements" not in file.relative_to(ROOT).parts and file.name != "studies.py"
]


def names_of_kinds(code: str) -> list[str]:
    """Imports of a kind, its name as a text, and texts with its place; prose in docstrings and messages may have it."""
    named = re.compile(rf"({'|'.join(studies.KINDS)})|.*measurements[./]({'|'.join(studies.KINDS)})\b.*", re.DOTALL)
    found = []
    for node in ast.walk(ast.parse(code)):
        texts = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
        texts += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            texts += [f"{node.module}.{alias.name}" for alias in node.names]
        found += [text for text in texts if named.fullmatch(text)]
    return found


@pytest.mark.parametrize("file", GENERAL, ids=lambda file: str(file.relative_to(ROOT)))
def test_general_code_names_no_kind_of_measurement(file):
    assert names_of_kinds(file.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "from distilbench.measurements.sweep import params", "from distilbench.measurements import calibration",
        "import distilbench.measurements.sweep.params", "kind = 'sweep'", "files = ['measurements/sweep/params']",
        "f'{\"calibration\":>12}'",
    ],
)  # fmt: skip
def test_a_named_kind_is_found(code):
    assert names_of_kinds(code)
