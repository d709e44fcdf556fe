"""The doubts of a sweep by cause: each has one, the worst comes first, and it names the cells that have it."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from distilbench import paths, studies
from distilbench.measurements.sweep.kind import MEASUREMENT
from distilbench.measurements.sweep.show import causes, cell_tables
from distilbench.measurements.sweep.summary import doubts, join
from distilbench.runs import find


@pytest.fixture
def summary(finished_run) -> dict:
    return join.summarise(finished_run.folder)


def worded(node: ast.expr) -> str | None:
    """A text of the source, with a number in the place of what it takes from a cell."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else number(part) for part in node.values)
    return None


def number(part: ast.FormattedValue) -> str:
    return format(5, part.format_spec.values[0].value if part.format_spec else "")


def every_doubt() -> list[str]:
    """Every text that `summary.doubts` can put beside a number."""
    tree, found = ast.parse(inspect.getsource(doubts)), [said.format(5.0) for _, said in doubts.BUSY.values()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            found.append(worded(node.args[0]))
        if isinstance(node, ast.ListComp):
            found.append(worded(node.elt))
        if isinstance(node, ast.List):
            found += map(worded, node.elts)
    return [doubts.NOT_TESTED, *(text for text in found if text and " " in text)]


def test_every_doubt_has_a_cause():
    """A cause of its own, not only the last resort of what no pattern knows."""
    assert len(every_doubt()) > 25
    unknown = [text for text in every_doubt() if not any(re.match(pattern, text) for pattern, _, _ in causes.CAUSES)]
    assert unknown == []


def test_every_doubt_of_the_published_runs_has_a_cause():
    for run in (run for run in find.published_runs() if run.kind is MEASUREMENT):
        said = {doubt for cell in paths.read_json(run.folder / "summary.json")["cells"] for doubt in cell["doubts"]}
        assert all(any(re.match(pattern, doubt) for pattern, _, _ in causes.CAUSES) for doubt in said)


def test_no_cell_and_no_cause_is_lost(finished_run, summary):
    one, other = summary["cells"]
    one["doubts"] = ["repetitions differ by 12%", "unstable: 1 of 5 processes", "something new"]
    other["doubts"] = ["repetitions differ by 9%", "something new"]
    found = causes.causes(finished_run, summary)
    assert [(doubt.cause, doubt.cells) for doubt in found[:3]] == [
        ("unstable (did not settle)", ("longest b1",)),
        ("equal processes differ by up to 12 %", ("longest b1", "longest b4")),
        ("something new", ("longest b1", "longest b4")),
    ]
    assert [doubt.cause for doubt in found[3:]] == [
        "not measured, latency_device_ms", "not measured, peak_cuda_allocated_MiB", "not measured, energy_J"
    ]  # fmt: skip
    assert all(doubt.meaning for doubt in found if not doubt.cells), "the reason"


def test_a_cell_that_was_not_measured_comes_first(finished_run, summary):
    summary["cells"][1]["state"] = "oom"
    assert str(causes.causes(finished_run, summary)[0]) == "1 of 2 cells: not measured (oom): longest b4"


def test_variants_are_named_where_there_are_several(finished_run, summary):
    summary["cells"][1]["variant"] = "eager"
    assert causes.causes(finished_run, summary)[0].cells == ("sdpa longest b1", "eager longest b4")


def test_a_run_that_did_not_test_whether_it_had_settled_says_so_where_it_is_read(finished_run, summary):
    assert cell_tables.reservation(summary) == (
        "This run cannot say how sure its numbers are: 2 processes per cell give no interval."
    )
    for cell in summary["cells"]:
        cell["doubts"] = [doubts.NOT_TESTED]
    assert cell_tables.reservation(summary).endswith("no interval, and whether the warm-up had settled was not tested.")
    assert "settling was not tested" in [doubt.cause for doubt in causes.causes(finished_run, summary)]
    for cell in summary["cells"]:
        cell["latency_ms_repetitions"] = 5
    assert cell_tables.reservation(summary).endswith("are: whether the warm-up had settled was not tested.")


@pytest.mark.parametrize(("profile", "asked"), [("ci", False), ("smoke", False), ("full", True)])
def test_only_a_full_run_asks_for_proof_of_settling(profile, asked):
    """The other two are too short to prove it: their cells are ok, and it is said that it was not tested."""
    assert bool(studies.resolve("distilbert", {"profile": profile}).params.warmup_max_seconds) is asked
