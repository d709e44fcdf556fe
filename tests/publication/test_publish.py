"""Publishing: what is refused, what a page is made of, and whether a page still holds against its run."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import synthetic

from distilbench import paths
from distilbench.errors import ParameterError, RunError, StorageError
from distilbench.execution import notebooks
from distilbench.machine import environment
from distilbench.measurements.sweep import records
from distilbench.measurements.sweep.show import cell_tables
from distilbench.measurements.sweep.show import plots as show_plots
from distilbench.publication import publish
from distilbench.report import glue, load, tables
from distilbench.runs import find, rawfiles
from distilbench.runs.folder import Run

DESIGN = {
    "profile": "full",
    "length_policies": ["fixed-16", "longest"],
    "repetitions": 5,
    "memory_repetitions": 1,
}


@pytest.fixture(scope="session")
def analysed(captured: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the full profile, of committed code, analysed in a real kernel."""
    env = copy.deepcopy(captured) | {"git": {"sha": "a" * 40, "dirty": False}}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(environment, "capture", lambda: env)
        run = synthetic.finished_run(results_root=str(tmp_path_factory.mktemp("analysed")), **DESIGN)
    notebooks.analyse("distilbert", [run.run_id], str(run.folder.parent.parent))
    return run.folder


@pytest.fixture
def run(analysed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """That run in a checkout of its own, in which nothing is published yet."""
    checkout = tmp_path / "checkout"
    for name in ("params", "notebooks"):
        shutil.copytree(paths.repo_root() / name, checkout / name)
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout))
    place = tmp_path / "results" / "distilbert" / analysed.name
    shutil.copytree(analysed, place)
    return Run(place)


def change(file: Path, alter: Callable[[dict], None]) -> None:
    content = paths.read_json(file)
    alter(content)
    paths.write_json(file, content)


def another(run: Run) -> Run:
    """The same run under another name, as if it had been analysed under it."""
    other = Run(run.folder.with_name("another"))
    shutil.copytree(run.folder, other.folder)
    for name in ("config.json", "summary.json"):
        change(other.folder / name, lambda content: content.update(run_id="another"))
    page = publish.analysis_file(other)
    page.write_text(page.read_text().replace(run.run_id, "another"))
    return other


# ------------------------------------------------------------------ refusals


def test_a_good_run_is_published(run):
    page, folder = publish.publish(run)
    assert page == paths.repo_root() / "book" / "studies" / "distilbert" / "cpu-embedded.ipynb"
    assert folder == paths.published_root() / "distilbert" / run.run_id
    assert publish.pages() == [page]
    assert publish.problems(page) == []
    names = {file.relative_to(folder).parts[0] for file in folder.rglob("*")}
    assert names == {
        "config.json", "env.json", "data.json", "model.json", "raw.jsonl", "iterations", "predictions.parquet",
        "summary.json", "status.json", "plots",
    }  # fmt: skip
    assert find.find(run.run_id).folder == run.folder, "one's own comes first"
    shutil.rmtree(run.folder)
    assert find.find(run.run_id).folder == folder


def dirty(run):
    change(run.folder / "env.json", lambda env: env["git"].update(dirty=True))


def no_git(run):
    change(run.folder / "env.json", lambda env: env["git"].update(sha=None, dirty=None))


def smoke(run):
    change(run.folder / "config.json", lambda config: config["parameters"].update(profile="smoke"))


def unverifiable(run):
    change(run.folder / "summary.json", lambda summary: summary["cells"][0].update(latency_ms=1.0))


def failed(run):
    run.set_status("failed", "worker died")


def failed_notebook(run):
    file = publish.analysis_file(run)
    notebook = nbformat.read(file, 4)
    cell = next(cell for cell in notebook.cells if "outputs" in cell)
    cell.outputs = [nbformat.v4.new_output("error", ename="E", evalue="no", traceback=[])]
    nbformat.write(notebook, file)


def stopped_notebook(run):
    """As a kill leaves it: papermill saves after each cell."""
    file = publish.analysis_file(run)
    notebook = nbformat.read(file, 4)
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    last.outputs, last.execution_count = [], None
    nbformat.write(notebook, file)


def stale_notebook(run):
    """Its numbers are not those that the run gives now."""
    file = publish.analysis_file(run)
    file.write_text(file.read_text().replace("'imagined'", "'another'"))


def half_written_notebook(run):
    file = publish.analysis_file(run)
    file.write_text(file.read_text()[:1000])


def failed_for_papermill(run):
    file = publish.analysis_file(run)
    notebook = nbformat.read(file, 4)
    notebook.metadata["papermill"]["exception"] = True
    nbformat.write(notebook, file.with_name("02_benchmark.ipynb"))


def not_analysed(run):
    (publish.analysis_file(run)).unlink()


def too_large(run):
    (run.folder / "plots" / "huge.svg").write_bytes(bytes(3 * 2**20))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (dirty, "its code is in no commit (uncommitted changes)"),
        (no_git, "its code is in no commit (not under git)"),
        (smoke, "its profile is smoke; only full runs are published"),
        (unverifiable, "verify: summary.json"),
        (failed, "it is failed: worker died"),
        (failed_notebook, "it was not analysed, or not to the end, or by other code: `distilbench analyse distilbert"),
        (stopped_notebook, "it was not analysed, or not to the end"),
        (stale_notebook, "it was not analysed, or not to the end"),
        (half_written_notebook, "it was not analysed, or not to the end"),
        (failed_for_papermill, "notebook 02_benchmark failed or was stopped"),
        (not_analysed, "it was not analysed, or not to the end"),
        (too_large, "MiB; at most 2 are published"),
    ],
)
def test_refused_with_the_reason_and_nothing_written(run, spoil, said):
    spoil(run)
    with pytest.raises(RunError) as refused:
        publish.publish(run)
    assert said in str(refused.value)
    assert run.run_id in str(refused.value)
    assert publish.pages() == []
    assert not paths.published_root().exists()


def test_a_page_is_replaced_only_when_told_so(run):
    page, folder = publish.publish(run)
    other = another(run)
    with pytest.raises(RunError, match=rf"shows run {run.run_id} already: choose another --name, or give --replace"):
        publish.publish(other)
    second, _ = publish.publish(other, "second")
    assert sorted(publish.pages()) == sorted([page, second])
    publish.publish(run, "second", replace=True)
    assert publish.problems(second) == []
    assert folder.is_dir()
    assert not folder.with_name("another").exists(), "the run that is no longer shown is gone"


def test_a_run_that_two_pages_show_stays_when_one_of_them_is_replaced(run):
    first, folder = publish.publish(run)
    publish.publish(run, "second")
    other = another(run)
    publish.publish(other, "second", replace=True)
    assert folder.is_dir()
    assert publish.problems(first) == []


def test_what_is_published_already_is_not_published_again(run):
    _, folder = publish.publish(run)
    with pytest.raises(RunError, match="it is published already; `make pages`"):
        publish.publish(Run(folder), "again")
    assert find.find(str(folder)).repetitions()


@pytest.mark.parametrize("name", ["../../x", "index", "two words", "Big", "-"])
def test_a_page_has_a_plain_name(run, name):
    with pytest.raises(ParameterError, match="cannot name a page"):
        publish.publish(run, name)
    assert publish.pages() == []


def test_a_full_disk_loses_nothing(run, small_disk, monkeypatch):
    page, folder = publish.publish(run)
    before = page.read_bytes()
    published = paths.published_root()
    shutil.rmtree(small_disk.folder / "distilbert", ignore_errors=True)
    monkeypatch.setattr(paths, "published_root", lambda: small_disk.folder)
    with small_disk.full(), pytest.raises(StorageError, match="cannot write"):
        publish.publish(run, replace=True)
    monkeypatch.setattr(paths, "published_root", lambda: published)
    assert page.read_bytes() == before
    assert publish.problems(page) == []
    assert folder.is_dir()


def test_what_a_killed_publishing_left_is_no_run_and_is_cleared_away(run):
    part = paths.published_root() / "distilbert" / f".{run.run_id}.part"
    part.mkdir(parents=True)
    (part / "status.json").write_text('{"state": "ok"}')
    assert find.published_runs() == []
    publish.publish(run)
    assert not part.exists()


# ------------------------------------------------------------------ published runs beside one's own


def test_overlaying_a_published_run_leaves_it_as_it_is(run):
    """What is made of both goes to one's own run."""
    _, folder = publish.publish(run)
    own = Run(run.folder.with_name("mine"))
    run.folder.rename(own.folder)
    change(own.folder / "config.json", lambda config: config.update(run_id="mine"))
    before = sorted(folder.rglob("*"))
    chosen = notebooks.analyse("distilbert", [folder.name, "mine"])
    assert [each.run_id for each in chosen] == [folder.name, "mine"]
    assert notebooks.analysis_of(chosen) == own.folder / "notebooks" / f"03_analyse-with-{folder.name[-8:]}.ipynb"
    assert notebooks.analysis_of(chosen).is_file()
    assert len(list((own.folder / "plots" / f"with-{folder.name[-8:]}").glob("*.svg"))) == 3
    assert sorted(folder.rglob("*")) == before
    assert publish.is_analysed(own) is False, "the overlay is not its analysis, and its numbers are another run's"


def test_analysing_a_published_run_leaves_it_as_it_is(run, tmp_path):
    _, folder = publish.publish(run)
    shutil.rmtree(run.folder)
    before = sorted(folder.rglob("*"))
    chosen = notebooks.analyse("distilbert", [folder.name])
    place = tmp_path / "results" / "distilbert" / f"analysis-of-{folder.name}"
    assert notebooks.analysis_of(chosen) == place / "notebooks" / "03_analyse.ipynb"
    assert len(list((place / "plots").glob("*.svg"))) == 3
    assert sorted(folder.rglob("*")) == before
    assert find.own_runs() == [], "it is no run"


# ------------------------------------------------------------------ the page


def test_a_page_says_what_it_shows_and_holds_nothing_of_the_machine(run):
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_USER": "somebody", "SLURM_JOB_ACCOUNT": "a-project"}
    change(run.folder / "env.json", lambda env: env.update(slurm=slurm))
    change(run.folder / "config.json", lambda config: config["parameters"].update(model_path="/home/somebody/model"))
    page, folder = publish.publish(run)
    notebook = nbformat.read(page, 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source == publish.header(run, "distilbert-cpu-embedded")
    assert notebook.cells[0].source.startswith("(page-distilbert-cpu-embedded)=\n# imagined on ")
    text = "".join(file.read_text() for file in (page, folder / "config.json", folder / "env.json"))
    for private in (run.folder.parent.parent, paths.repo_root(), Path.home(), "somebody", "a-project"):
        assert str(private) not in text
    assert paths.read_json(folder / "env.json")["slurm"] == {"SLURM_JOB_ID": "7"}
    tags = [set(cell.metadata.get("tags", [])) for cell in notebook.cells]
    assert not any(publish.UNPUBLISHED_CELL in found for found in tags)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all({"remove-input", "remove-cell"} & set(cell.metadata.tags) for cell in code), (
        "a page is results, not code"
    )


def test_labels_are_those_of_the_page_and_captions_say_hardware_and_n(run):
    page, _ = publish.publish(run, "named")
    cells = nbformat.read(page, 4).cells
    figures = [cell.metadata.mystnb.figure for cell in cells if "mystnb" in cell.metadata]
    wanted = {"latency": "5 fresh processes", "throughput": "5 fresh processes", "memory": "1 fresh process"}
    assert [figure.name for figure in figures] == [f"fig-distilbert-named-{what}" for what in wanted]
    for figure, n in zip(figures, wanted.values(), strict=True):
        assert load.label(run) in figure.caption
        assert f"from the lowest to the highest of {n} per cell" in figure.caption
        assert "imagined (source: embedded)" in figure.caption
    shown = [
        output.data.get("text/html", "") for cell in cells for output in cell.get("outputs", []) if "data" in output
    ]
    (said,) = (html for html in shown if "db-not-measured" in html)
    assert synthetic.NO_ENERGY in said, "in the place of a figure, with the reason"
    text = page.read_text()
    for table in ("runs", "cells", "efficiency"):
        assert f":name: tab-distilbert-named-{table}" in text


def test_your_run_says_what_it_is(run):
    smoke(run)
    said = publish.header(run, "your-run", own_run=True)
    assert "# Your run: imagined on " in said
    assert "not part of the published report" in said
    assert "Profile smoke: shows that it works, not for citation." in said


# ------------------------------------------------------------------ do pages still hold?


def alter_summary(folder):
    change(folder / "summary.json", lambda s: s["cells"][0].update(throughput_samples_per_s=1e6))


def alter_raw(folder):
    lines = (folder / "raw.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["latency_ms" if first["latency_ms"] else "peak_rss_MiB"] = 1.25
    (folder / "raw.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")


def alter_iterations(folder):
    file = sorted((folder / "iterations").glob("*.parquet"))[0]
    rows = rawfiles.read_parquet(file)
    rows[-1]["latency_ms"] *= 2
    rawfiles.write_parquet(file, rows, records.ITERATIONS)


def alter_what_the_header_says(folder):
    change(folder / "model.json", lambda model: model.update(parameters=7))


@pytest.mark.parametrize("alter", [alter_summary, alter_raw, alter_iterations, alter_what_the_header_says])
def test_a_changed_value_in_a_published_run_is_found(run, alter):
    page, folder = publish.publish(run)
    alter(folder)
    assert publish.problems(page)


def test_a_changed_number_in_a_page_is_found(run):
    page, _ = publish.publish(run)
    notebook = nbformat.read(page, 4)
    carried = [o for c in notebook.cells for o in c.get("outputs", []) if "scrapbook" in o.get("metadata", {})]
    one = next(o for o in carried if o.metadata.scrapbook.name.endswith("b4-latency_ms"))
    one.data[f"{glue.HIDDEN}text/plain"] = "18.1"
    nbformat.write(notebook, page)
    (problem,) = publish.problems(page)
    assert "cpu-embedded.ipynb: glued: sdpa-" in problem


def test_a_changed_caption_is_found(run):
    page, _ = publish.publish(run)
    page.write_text(page.read_text().replace("5 fresh processes", "7 fresh processes"))
    found = publish.problems(page)
    assert any("the caption of fig-distilbert-cpu-embedded-latency is not what run" in problem for problem in found)


def passes_of(run: Run) -> dict[str, dict[str, int]]:
    """Finished repetitions by pass and cell, from the raw lines alone."""
    counts: dict[str, dict[str, int]] = {}
    for line in run.raw.read_text().splitlines():
        record = json.loads(line)
        if record["status"] in ("ok", "unstable") and not record.get("control_of"):
            of = counts.setdefault(record["pass"], {})
            of[record["cell"]] = of.get(record["cell"], 0) + 1
    return counts


FIGURES = {"latency": "timing", "throughput": "timing", "memory": "memory", "energy": "energy"}


@pytest.mark.parametrize("page", publish.pages(), ids=lambda page: page.stem)
@pytest.mark.parametrize("figure", FIGURES)
def test_a_caption_says_what_the_raw_file_of_its_run_says(page, figure):
    """A figure is there where its pass was made, claims as many processes as made it, and marks what is unstable."""
    run, slug = publish.run_of(page), publish.page_metadata(page)["slug"]
    counts, states = passes_of(run).get(FIGURES[figure], {}), run.status["cells"].values()
    caption = publish.caption(run, f"fig-{slug}-{figure}")
    assert (caption is not None) == bool(counts)
    if caption is None:
        return
    (claimed,) = re.findall(r"of (\d+) (?:fresh process(?:es)?|windows?)\b", caption)
    assert {int(claimed)} == set(counts.values())
    assert ("too few for an interval" in caption) == (int(claimed) < 5)
    assert ("Hollow points" in caption) == (FIGURES[figure] == "timing" and "unstable" in states)
    for policy in run.config["parameters"]["length_policies"]:
        data = paths.read_json(run.folder / "data.json")
        over = round(data["tokens"]["share_over"].get(policy.removeprefix("fixed-"), 0) * data["rows"]) / data["rows"]
        assert (f"{policy} cuts {over:.1%} of the sentences of the whole text" in caption) == (over > 0)


def test_a_removed_run_is_named(run):
    page, folder = publish.publish(run)
    shutil.rmtree(folder)
    assert publish.problems(page) == [
        f"studies/distilbert/cpu-embedded.ipynb shows run {run.run_id}, which is not in {folder.parent}"
    ]


@pytest.mark.slow  # the same of a page of this repository: test_a_page_executed_again_is_the_same
def test_a_second_execution_gives_the_same_bytes(run):
    before = paths.read_json(publish.analysis_file(run))
    plots = {file.name: file.read_bytes() for file in (run.folder / "plots").iterdir()}
    notebooks.analyse("distilbert", [run.run_id], str(run.folder.parent.parent))
    after = paths.read_json(publish.analysis_file(run))
    outputs = [[c["outputs"] for c in nb["cells"] if c["cell_type"] == "code"] for nb in (before, after)]
    assert outputs[0] == outputs[1]
    assert len(plots) == 6
    assert plots == {file.name: file.read_bytes() for file in (run.folder / "plots").iterdir()}


def test_damaged_files_and_stray_notebooks_are_named(run):
    page, folder = publish.publish(run)
    for name in ("config.json", "model.json", "summary.json", "status.json", "raw.jsonl"):
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        if name != "status.json":
            assert any(name in problem for problem in publish.problems(page)), name
        (folder / name).write_bytes(whole)
    stray = page.with_name("stray.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), stray)
    (problem,) = publish.problems(stray)
    assert "was not written by `distilbench publish`" in problem


# ------------------------------------------------------------------ the pages of this repository


PAGES = publish.pages()


def test_there_are_published_pages():
    assert PAGES
    shown = sorted(publish.run_of(page).run_id for page in PAGES)
    assert shown == sorted(run.run_id for run in find.published_runs()), "each published run has one page"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_of_a_page_is_that_of_its_run(page):
    assert publish.problems(page) == []


ONE_QUICKLY = [*PAGES[:1], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])]


@pytest.mark.parametrize("page", ONE_QUICKLY, ids=lambda page: page.stem)
def test_a_page_executed_again_is_the_same(page, tmp_path):
    """Pictures and tables of the report come from the run and from nothing else."""
    told = paths.read_json(page)["metadata"]["distilbench"]
    folder = tmp_path / "results" / told["study"] / told["run_id"]
    shutil.copytree(paths.published_root() / told["study"] / told["run_id"], folder)
    notebooks.analyse(told["study"], [told["run_id"]], str(tmp_path / "results"))
    again = publish.as_page(paths.read_json(publish.analysis_file(Run(folder))), Run(folder), told["slug"])

    def shown(notebook):
        cells = [c for c in notebook["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
        return [(c["source"], c.get("outputs"), c["metadata"]) for c in cells]

    assert shown(again) == shown(paths.read_json(page))
    published = paths.published_root() / told["study"] / told["run_id"] / "plots"
    for plot in published.glob("*.svg"):
        assert (folder / "plots" / plot.name).read_bytes() == plot.read_bytes()


def test_published_runs_are_small():
    sizes = [sum(f.stat().st_size for f in run.folder.rglob("*") if f.is_file()) for run in find.published_runs()]
    assert all(size <= publish.LARGEST_MiB * 2**20 for size in sizes)
    assert sum(sizes) <= 20 * 2**20


# ------------------------------------------------------------------ tables and charts as the book needs them


def test_a_table_has_a_caption_in_every_form(finished_run):
    table = tables.Table(cell_tables.measured(load.table([finished_run])), "Every cell | all", "tab-cells")
    bundle = table._repr_mimebundle_()
    assert bundle["text/markdown"].startswith(
        ":::{table} Every cell | all\n:name: tab-cells\n:class: db-numbers\n\n| length |"
    )
    assert bundle["text/markdown"].endswith("|\n:::")
    assert "<caption>Every cell | all</caption>" in bundle["text/html"]
    assert bundle["text/plain"].startswith("Every cell | all\n\n")


def test_a_bar_in_a_cell_does_not_break_the_table(finished_run):
    import pandas as pd

    assert tables.markdown(pd.DataFrame({"a": ["x|y"]})).endswith(r"| x\|y |")


def test_the_picture_is_told_in_words(finished_run):
    shown = show_plots.plot(load.table([finished_run]), "throughput_samples_per_s")
    machine = load.label(finished_run)
    assert shown.alt_text == (
        f"Throughput (samples/s) against batch size. {machine}, sdpa, longest: "
        "82.9 at batch size 1 to 221 at batch size 4."
    )


def test_a_report_without_a_run_of_this_machine_says_what_there_is(make_run, tmp_path):
    assert f"{tmp_path}/results has no run. Make one" in publish.why_none()
    make_run()
    assert publish.newest_ok() is None
    assert "has 1 of the ci profile (tests, which are never shown). Make one" in publish.why_none()
