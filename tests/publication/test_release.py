"""A release: the same twice, and checked against its own raw files."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from distilbench import paths
from distilbench.errors import ParameterError, RunError
from distilbench.machine import environment
from distilbench.publication import pdf as printing
from distilbench.publication import publish
from distilbench.publication import release as releasing
from distilbench.runs import find


def made_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """A PDF, slides and pages, as far as a release looks at them; the code is in a commit."""
    monkeypatch.setattr(environment, "git", lambda: {"sha": "a" * 40, "dirty": False})
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    html = folder / "html"
    (html / "_static").mkdir(parents=True)
    (html / "index.html").write_text("<p>hello</p>")
    (html / "_static" / "x.js").write_text("1")
    (html / ".lock").write_text("held")
    for name in ("report.pdf", "slides.pptx"):
        (folder / name).write_bytes(b"made up " + name.encode())
    return folder / "report.pdf", folder / "slides.pptx", html


@pytest.fixture
def parts(tmp_path, monkeypatch) -> tuple[Path, Path, Path]:
    return made_up(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release: every published run is computed again for it, so it is made once."""
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as monkeypatch:
        releasing.release(folder / "dist", *made_up(folder, monkeypatch))
    return folder / "dist"


@pytest.fixture
def dist(released, tmp_path) -> Path:
    """A copy of it, to be read or spoilt."""
    return shutil.copytree(released, tmp_path / "dist")


@pytest.fixture
def runs_hold(monkeypatch) -> None:
    """The runs, which no test but two looks at, are not computed again."""
    monkeypatch.setattr(releasing.verify, "problems", lambda _: [])


def members(file: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(file) as tar:
        return {entry.name: entry for entry in tar.getmembers()}


def test_everything_is_there_and_holds(dist):
    assert {file.name for file in dist.iterdir()} == {*releasing.FILES, "RELEASE_NOTES.md", "SHA256SUMS"}
    assert releasing.problems(dist) == []
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dist, check=True)


def test_twice_is_the_same(tmp_path, parts, dist, runs_hold):
    releasing.release(tmp_path / "again", *parts)
    assert (dist / "SHA256SUMS").read_text() == (tmp_path / "again" / "SHA256SUMS").read_text()


def test_what_an_earlier_release_left_is_gone(tmp_path, parts, dist, runs_hold):
    (dist / "of-the-last-version.pdf").touch()
    releasing.release(dist, *parts)
    assert releasing.problems(dist) == []


def test_archives_hold_what_they_say(dist):
    html = members(dist / "report-html.tar.gz")
    assert set(html) == {"html/index.html", "html/_static/x.js"}, "no locks"
    assert {entry.mtime for entry in html.values()} == {publish.epoch()}
    assert {(entry.uid, entry.uname, entry.mode) for entry in html.values()} == {(0, "", 0o644)}
    runs_in_order = list(members(dist / "runs.tar.gz"))
    assert runs_in_order == sorted(runs_in_order), "a folder lists its files in another order on another disk"
    published = find.published_runs()
    records = members(dist / "records.tar.gz")
    kinds = ("repetition", "profile", "batch_profile", "evaluation", "training", "llm_speed", "perplexity")
    kinds += ("alignment", "task_scores")
    schemas = {f"records/{name}.v1.schema.json" for name in kinds}
    every = [one for run in published for one in (run, *run.sections)]
    assert set(records) == {f"records/{run.run_id}.jsonl" for run in every} | schemas
    notebooks = members(dist / "notebooks.tar.gz")
    assert "sources/02_benchmark.ipynb" in notebooks
    assert any(name.startswith("pages/distilbert/") for name in notebooks)
    assert all(name.endswith(".ipynb") for name in notebooks)
    frame = pd.read_parquet(dist / "results.parquet")
    assert set(frame["run_id"]) == {run.run_id for run in published}
    assert frame["latency_ms"].notna().any()


def test_the_time_is_that_of_the_newest_run(monkeypatch):
    configs = paths.published_root().glob("*/*/config.json")
    newest = max(paths.read_json(config)["created"] for config in configs)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert f"{pd.Timestamp(publish.epoch(), unit='s'):%Y-%m-%dT%H:%M:%SZ}" == newest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert publish.epoch() == 1700000000


@pytest.mark.parametrize("ask", [publish.epoch, printing._environment])
@pytest.mark.parametrize("given", ["yesterday", "-1", "1.5", " 17", "²", "4294967296", "9" * 5000])
def test_a_time_that_is_none_is_refused_alike_by_all_that_read_it(monkeypatch, ask, given):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(
        ParameterError, match=r"SOURCE_DATE_EPOCH is .*: it must be whole seconds since 1970, from 0 to"
    ):
        ask()


@pytest.mark.parametrize("given", ["0", "4294967295"])
def test_the_first_and_the_last_time_are_taken_by_all(monkeypatch, tmp_path, given):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    assert publish.epoch() == int(given)
    assert printing._environment()["SOURCE_DATE_EPOCH"] == given
    (tmp_path / "x").write_text("x")
    releasing._archive(tmp_path / "x.tar.gz", {"x": tmp_path}, publish.epoch())


def test_a_release_with_a_time_that_is_none_leaves_nothing(tmp_path, parts, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(ParameterError, match="SOURCE_DATE_EPOCH is 'tomorrow'"):
        releasing.release(tmp_path / "dist", *parts)
    assert not list((tmp_path / "dist").glob("*"))


def test_notes_name_the_runs_and_the_changes(dist):
    said = (dist / "RELEASE_NOTES.md").read_text()
    for run in find.published_runs():
        assert f"run {run.run_id}." in said
    assert "a" * 40 in said
    assert "SLURM: `distilbench submit`" in said, "the section of the changelog"
    assert "A draft" not in said


def test_the_environment_is_locked(dist):
    assert (dist / "constraints.txt").read_bytes() == (paths.repo_root() / "constraints.txt").read_bytes()


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("git", [{"sha": "a" * 40, "dirty": True}, {"sha": None, "dirty": None}])
def test_uncommitted_code_makes_a_draft_only(tmp_path, parts, runs_hold, monkeypatch, git):
    monkeypatch.setattr(environment, "git", lambda: git)
    with pytest.raises(RunError, match="--draft makes a draft"):
        releasing.release(tmp_path / "dist", *parts)
    releasing.release(tmp_path / "dist", *parts, draft=True)
    assert "**A draft: " in (tmp_path / "dist" / "RELEASE_NOTES.md").read_text()


def test_what_was_not_built_is_named(tmp_path, parts):
    parts[0].unlink()
    with pytest.raises(RunError, match=r"not built yet: .*report\.pdf \(make report\)"):
        releasing.release(tmp_path / "dist", *parts)


def test_ones_own_run_is_not_released(tmp_path, parts):
    (parts[2] / "your-run.html").touch()
    with pytest.raises(RunError, match="--no-own"):
        releasing.release(tmp_path / "dist", *parts)


def test_a_run_that_does_not_hold_is_not_released(tmp_path, parts, monkeypatch):
    monkeypatch.setattr(releasing.verify, "problems", lambda _: ["something differs"])
    with pytest.raises(RunError, match=r"does not hold:\n.*something differs"):
        releasing.release(tmp_path / "dist", *parts)
    assert not (tmp_path / "dist").exists()


# ------------------------------------------------------------------ checking


def test_a_changed_file_is_found(dist, runs_hold):
    (dist / "report.pdf").write_bytes(b"other")
    assert releasing.problems(dist) == ["report.pdf has another checksum"]


def test_a_missing_and_an_added_file_are_found(dist, runs_hold):
    (dist / "slides.pptx").unlink()
    (dist / "extra").touch()
    assert releasing.problems(dist) == ["slides.pptx is missing", "extra is not in SHA256SUMS"]
    (dist / "extra").unlink()
    (dist / "SHA256SUMS").write_text(releasing.sums(dist))
    assert releasing.problems(dist) == ["slides.pptx is missing"], "also where its sum is taken away with it"


def test_changed_raw_files_are_found_even_with_new_sums(dist):
    """Somebody changes a number and makes new checksums."""
    altered = io.BytesIO()
    with tarfile.open(dist / "runs.tar.gz") as old, tarfile.open(fileobj=altered, mode="w") as new:
        for entry in old.getmembers():
            data = old.extractfile(entry).read()
            if entry.name.endswith("summary.json") and b'"latency_ms": ' in data:
                data = data.replace(b'"latency_ms": ', b'"latency_ms": 1', 1)
                entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    (dist / "runs.tar.gz").write_bytes(gzip.compress(altered.getvalue()))
    (dist / "SHA256SUMS").write_text(releasing.sums(dist))
    found = releasing.problems(dist)
    assert found
    assert all("latency_ms says" in problem for problem in found)


def test_changed_results_are_found_even_with_new_sums(dist, runs_hold):
    frame = pd.read_parquet(dist / "results.parquet")
    frame.loc[0, "latency_ms"] *= 2
    frame.to_parquet(dist / "results.parquet", index=False)
    (dist / "SHA256SUMS").write_text(releasing.sums(dist))
    assert releasing.problems(dist) == ["results.parquet is not what the runs give"]


def test_a_folder_without_sums_is_no_release(tmp_path):
    with pytest.raises(RunError, match="is no release"):
        releasing.problems(tmp_path)
