"""What the page of a run shows of its sections."""

from __future__ import annotations

import batch_runs
import pytest

from distilbench import paths
from distilbench.report import load, sections
from distilbench.report.tables import Table
from distilbench.runs.folder import Run


@pytest.fixture
def run(this_machine) -> Run:
    """It timed four batch sizes, and profiled them in a section."""
    return batch_runs.finished_run()


def test_a_section_has_its_table_what_follows_and_its_details(run):
    shown = list(sections.parts([run]))
    tables = [part for part in shown if isinstance(part, Table)]
    assert [table.name for table in tables] == [
        "tab-profiling",
        "tab-profiling-operators",
        "tab-profiling-layers",
        "tab-profiling-memory",
    ]
    assert len(tables[0].frame) == 4
    assert "another model" not in tables[0].caption
    (said,) = (part for part in shown if not isinstance(part, Table))
    assert said.data.count("\n- ") == 3, "a sentence for each of four sizes"
    assert set(tables[1].frame["batch size"]) == {"1", "4"}, "the operators of the ends suffice"


def test_a_run_without_sections_shows_nothing_more(finished_run):
    assert list(sections.parts([finished_run])) == []
    assert sections.picture(finished_run, "profiling").text == "Section profiling: not measured: this run has none"


def test_another_model_than_the_one_that_was_timed_is_named(run):
    (section,) = run.sections
    assert load.other_model(section) == ""
    paths.write_json(section.folder / "model.json", section.model | {"sha256": "0" * 64, "name": "an encoder"})
    first = next(sections.parts([run]))
    assert first.caption.endswith("; of another model than the one that was timed: an encoder")
    (section.folder / "model.json").unlink()
    assert load.other_model(section) == "", "a kind may measure no model"
