"""CONTRIBUTING.md is followed to the letter: its toy kind of measurement is added in a copy of the checkout, and used.

The kind has a raw file of its own, and no model, no text and no figure: whatever general code assumes of the first kind
shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import checkouts
import pytest
import studied
import waiting
from toy_kind import COMMANDS, follow

from distilbench import paths

#: Small, but of the full profile: only that is published.
FULL = ["--profile", "full", "-p", "sizes_MiB", "1,4", "-p", "repetitions", "3", "-p", "copies", "5"]
STEPS = sorted((f"{size}MiB", "timing", number) for size in (1, 4) for number in range(3))


class Site:
    """A copy of the checkout with the new kind, committed, and a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.root, self.results = checkouts.whole(folder / "checkout"), folder / "results"
        self.touched = follow(self.root)
        self.env = {name: value for name, value in os.environ.items() if name not in ("DISTILBENCH_ROOT", "CI")}
        self.env |= checkouts.python_path(self.root) | {"DISTILBENCH_RESULTS": str(self.results)}
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        self.call("git", "init", "-q")
        self.call("git", "add", "-A")
        self.call("git", *who, "commit", "-qm", "A new kind")

    def start(self, *words: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=self.root, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def call(self, *words: str, code: int = 0) -> str:
        """What a command says; it must end with that code."""
        process = self.start(*words)
        said = "".join(waiting.ended(process))
        assert process.returncode == code, f"{' '.join(words)}\n{said}"
        return said

    def python(self, code: str) -> str:
        return self.call(sys.executable, "-c", code).strip()

    def runs(self) -> list[Path]:
        return sorted(file.parent for file in self.results.glob("copies/*/status.json"))


def records(run: Path) -> list[dict]:
    """The whole lines of its raw file."""
    file = run / "copies.jsonl"
    return (
        [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")]
        if file.is_file()
        else []
    )


def keys(run: Path) -> list[tuple[str, str, int]]:
    return sorted((record["cell"], record["pass"], record["repetition"]) for record in records(run))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("kind"))


@pytest.fixture(scope="module")
def run(site: Site) -> Path:
    """A run whose process was killed after its first step, and which the same command went on with."""
    process = site.start("distilbench", "run", "copies", *FULL)
    waiting.wait_for(lambda: site.runs() and records(site.runs()[0]), "the first step")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = site.runs()
    waiting.wait_for(lambda: not paths.is_locked(folder / ".lock"), "the kernel ends with its parent")
    before = records(folder)
    assert 1 <= len(before) < len(STEPS), "it was killed on its way"
    site.call("distilbench", "run", "copies", *FULL)
    assert records(folder)[: len(before)] == before, "what was committed stays"
    return folder


@pytest.fixture(scope="module")
def split(site: Site, run: Path) -> Path:
    """A second run of the same design, measured in shards by the commands of the batch jobs."""
    made = site.python(
        "from distilbench import studies; from distilbench.harness import shards; from distilbench.runs import find\n"
        "given = {'profile': 'full', 'sizes_MiB': [1, 4], 'repetitions': 3, 'copies': 5}\n"
        "resolved = studies.resolve('copies', given); kind = studies.kind_of('copies')\n"
        "made = find.create(kind.for_jobs(resolved), kind); shards.divide(made, resolved, 'rounds', 2)\n"
        "print(made.run_id)"
    )
    site.call("distilbench", "job", "ingest", made)
    for part in ("0", "1"):
        site.call("distilbench", "job", "measure", made, "--part", part)
    for job in ("gather", "analyse"):
        site.call("distilbench", "job", job, made)
    return site.results / "copies" / made


@pytest.fixture(scope="module")
def page(site: Site, run: Path) -> Path:
    """Its page in the copy's book; taken away again, with the published run."""
    site.call("distilbench", "publish", run.name)
    return site.root / "book" / "studies" / "copies" / "cpu.ipynb"


# ------------------------------------------------------------------ what comes of them


def test_only_its_folder_its_entry_its_notebooks_and_its_chapter_are_touched(site):
    allowed = (
        r"distilbench/(measurements/copies/\w+|studies)\.py|params/.+|notebooks/.+|book/studies/copies/.+|_toc\.yml"
    )
    assert [name for name in site.touched if not re.fullmatch(allowed, name)] == []
    assert studied.lacking(site.root, "copies") == []
    site.call("ruff", "check", "distilbench")
    site.call("ruff", "format", "--check", "distilbench", "notebooks/04_copy.ipynb", "notebooks/05_copies.ipynb")


def test_the_last_step_finds_nothing_missing(site, tmp_path):
    """All commands of the last step, as they are written there."""
    (commands,) = COMMANDS
    said = site.call(
        "env", f"DISTILBENCH_RESULTS={tmp_path}", "bash", "-euo", "pipefail", "-c", textwrap.dedent(commands)
    )
    assert re.search(r"\b\d+ passed", said)
    assert "4 repetitions computed again from their raw files, no difference" in said


def test_its_notebooks_are_built_like_the_others(site):
    wanted = "structure or annotated or is_there"
    said = site.call(sys.executable, "-m", "pytest", "-v", "tests/whole/test_notebooks.py", "-k", wanted)
    for name in ("04_copy", "05_copies"):
        cells = json.loads((site.root / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        assert f"test_structure[{name}] PASSED" in said
        assert any("nbval-check-output" in cell["metadata"].get("tags", []) for cell in cells), "one is compared"


def test_it_runs_and_resumes_with_nothing_measured_twice(run):
    assert keys(run) == STEPS
    assert paths.read_json(run / "status.json")["state"] == "ok"
    assert paths.read_json(run / "config.json")["kind"] == "copies"
    assert not (run / "raw.jsonl").exists()
    assert sorted(file.name for file in (run / "notebooks").iterdir()) == ["04_copy.ipynb", "05_copies.ipynb"]


def test_it_is_split_and_gathered_as_a_batch_system_does(site, split):
    assert keys(split) == STEPS
    assert paths.read_json(split / "status.json")["state"] == "ok"
    assert {file.parent.parent.name for file in split.glob("parts/*/*/copies.jsonl")} == {"0000", "0001"}
    assert "job measure" in site.call("distilbench", "submit", "copies", *FULL, "--no-book", "--dry-run")


def test_it_is_verified_and_a_changed_record_is_found(site, run, tmp_path):
    assert "6 repetitions computed again" in site.call("distilbench", "verify", "run", run.name)
    shutil.copytree(run, tmp_path / run.name)
    raw = tmp_path / run.name / "copies.jsonl"
    first, *others = raw.read_text().splitlines(True)
    changed = json.loads(first)
    changed["copy_ms"] *= 2
    raw.write_text(json.dumps(changed) + "\n" + "".join(others))
    said = site.call("distilbench", "verify", "run", str(raw.parent), code=1)
    assert f"copies.jsonl, {changed['cell']} timing {changed['repetition']}: copy_ms says" in said


def test_it_is_shown(site, run):
    shown = site.call("distilbench", "show", run.name)
    assert "GB/s" in shown
    assert "cite as: Copying memory: copies of blocks of bytes" in shown
    assert "n = 3 fresh processes per cell" in shown
    assert f"{run.name}," in site.call("distilbench", "show", run.name, "--format", "csv")
    assert "tab:" in site.call("distilbench", "show", run.name, "--format", "latex")
    for words in (["capacity", run.name, "--rate", "1", "--max-latency-ms", "1"], ["fetch", "copies"]):
        assert "error: " in (said := site.call("distilbench", *words, code=1)), "what it has not is said"
        assert "Traceback" not in said


def test_it_is_compared(site, run, split):
    said = site.call("distilbench", "compare", run.name, split.name, "--json")
    assert {cell["cell"] for cell in json.loads(said)["cells"]} == {"1MiB", "4MiB"}


def test_it_is_published(site, run, page):
    header = "".join(json.loads(page.read_text())["cells"][0]["source"])
    assert "# Copying memory on" in header
    assert "The page is `notebooks/05_copies.ipynb`" in header
    assert (site.root / "results" / "published" / "copies" / run.name / "copies.jsonl").is_file()
    code = "from distilbench.publication import generated_tables as g, publish\n"
    assert site.python(f"{code}print([found for page in publish.pages() for found in publish.problems(page)])") == "[]"
    headlines = site.python(f"{code}print(g.headlines(), g.schema())")
    assert f"/studies/copies/{page.name}::1MiB-bandwidth_GB_per_s:.1f" in headlines
    assert "A line of raw.jsonl\n:name: tab-schema\n" in headlines
    assert "A line of copies.jsonl\n:name: tab-schema-copies\n" in headlines


def test_it_is_found_by_nightly(site, run, page):
    said = site.python(
        "import sys; sys.path.insert(0, 'scripts'); import nightly\n"
        "assert 'copies' in nightly.generated_tables.studies()\n"
        "rows = [*nightly.of_study('copies'), *nightly.of_published()]\n"
        "print(*(f'{row.step} | {row.of} | {row.state}' for row in rows), sep='\\n')"
    )
    assert "text unchanged | copies, smoke | not done" in said
    assert "smoke run | copies | ok" in said
    assert re.search(rf"compare \| \S+ with published {run.name} \| ", said)
    assert f"computed again | published {run.name} | ok" in said
    others = [line for line in said.splitlines() if not line.startswith("compare |")]  # those depend on the machine
    assert not any("FAILED" in line for line in others), said


@pytest.mark.slow
def test_the_book_shows_it(site, page):
    site.call("distilbench", "book", "--no-own")
    html = site.root / "book" / "_build" / "html"
    assert "Copying memory" in (html / "studies" / "copies" / "cpu.html").read_text()
    assert 'href="studies/copies/index.html"' in (html / "intro.html").read_text()
    site.call("distilbench", "verify", "book")
