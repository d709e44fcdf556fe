"""Reading runs for the report: which are chosen, and what their machines are called."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from distilbench import paths, studies
from distilbench.errors import RunError
from distilbench.measurements.sweep.show import lengths
from distilbench.report import glue, load
from distilbench.runs import find
from distilbench.runs.folder import Run


def chosen(**given) -> list[str]:
    return [run.run_id for run in load.choose(studies.resolve("distilbert", {"profile": "ci"} | given).params)]


@pytest.fixture
def two(make_run):
    """A run, and a copy of it under another name."""
    one = make_run()
    other = one.folder.parent / "another-run"
    shutil.copytree(one.folder, other)
    return one, Run(other)


def test_the_runs_named_come_in_their_order(two):
    one, other = two
    assert chosen(run_ids=[other.run_id, one.run_id]) == [other.run_id, one.run_id]
    assert chosen(run_id=one.run_id) == [one.run_id]


def test_without_a_name_the_newest_finished_run_is_taken(two):
    one, other = two
    config = other.config | {"created": "2099-01-01T00:00:00Z", "sequence": None}
    paths.write_json(other.folder / "config.json", config)
    assert chosen() == [other.run_id]
    (other.folder / "summary.json").unlink()
    assert chosen() == [one.run_id]


def test_an_unfinished_run_is_refused_with_the_way_on(two):
    one, _ = two
    (one.folder / "summary.json").unlink()
    with pytest.raises(RunError, match=f"--resume {one.run_id}"):
        chosen(run_id=one.run_id)


def test_no_finished_run_at_all_is_said(tmp_path):
    with pytest.raises(RunError, match="no finished run of distilbert"):
        chosen(results_root=str(tmp_path / "nothing"))


def test_runs_on_one_machine_are_told_apart(two):
    one, other = two
    assert len(set(load.labels([one, other]).values())) == 2
    plain = load.labels([one])[one.run_id]
    assert "cores" in plain
    config = other.config | {"created": "2099-01-01T00:00:00Z"}
    paths.write_json(other.folder / "config.json", config)
    assert load.labels([one, other])[other.run_id] == f"{plain} (2099-01-01)"


def test_a_run_on_a_gpu_is_called_after_it(two):
    one, _ = two
    config = one.config
    paths.write_json(one.folder / "config.json", config | {"parameters": config["parameters"] | {"device": "cuda:1"}})
    assert load.label(one) == "cuda:1 (unnamed)"
    lines = [json.loads(line) | {"proof": {"gpu": "GPU B"}} for line in one.raw.read_text().splitlines()]
    one.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load.label(one) == "GPU B", "as its workers found: NVML's order is not torch's"


def test_the_table_has_one_row_per_cell_and_run(two):
    table = load.table(list(two))
    assert len(table) == 2 * len(two[0].config["cells"])
    assert table["peak_memory_MiB"].notna().all(), "on a CPU it is the resident memory"
    assert (table["peak_memory_MiB"] == table["peak_rss_MiB"]).all()
    about = load.about(list(two))
    assert [row["run"] for row in about] == [run.run_id for run in two]
    assert all(row["text"] == "invented, 32 sentences" for row in about)


def test_runs_of_two_models_on_one_machine_are_told_apart_by_the_model(two):
    one, other = two
    model = paths.read_json(other.folder / "model.json") | {"name": "another"}
    paths.write_json(other.folder / "model.json", model)
    plain = load.label(one)
    assert load.labels([one, other]) == {one.run_id: f"{plain}: imagined", other.run_id: f"{plain}: another"}


def test_trademark_signs_are_left_out_of_names(two):
    one, _ = two
    env = paths.read_json(one.folder / "env.json")
    env["cpu"] |= {"model": "Intel(R) Core(TM) i9", "affinity": [0]}
    paths.write_json(one.folder / "env.json", env)
    assert load.label(one) == "Intel Core i9, 1 core"
    config = one.config
    paths.write_json(one.folder / "config.json", config | {"parameters": config["parameters"] | {"heap": "keep"}})
    assert load.label(one) == "Intel Core i9, 1 core, heap kept"


def test_what_was_measured_names_the_code(two):
    one, _ = two
    env = paths.read_json(one.folder / "env.json")
    for git, said in (
        ({"sha": "a" * 40, "dirty": False}, "code aaaaaaaaaaaa"),
        ({"sha": "a" * 40, "dirty": True}, "code aaaaaaaaaaaa with uncommitted changes"),
        ({"sha": None, "dirty": None}, "code not under git"),
    ):
        paths.write_json(one.folder / "env.json", env | {"git": git})
        assert load.about([one])[0]["measured"].endswith(said)


def test_what_runs_cannot_say_is_said_of_each(two):
    one, other = two
    said = load.limitations([one])
    assert said.columns.tolist() == ["cause", "cells", "what it means"]
    assert {"no interval", "not measured, energy_J"} <= set(said["cause"])
    both = load.limitations([one, other])
    assert len(both) == 2 * len(said)
    assert set(both["run"]) == set(load.labels([one, other]).values())


def test_only_passes_that_were_made_are_listed(make_run):
    run = make_run("timed", passes=["timing"], repetitions=5, profile="full")
    (row,) = load.about([run])
    assert row["fresh processes per cell"] == "timing: 5; memory: not asked for; energy: not asked for"
    assert "memory_repetitions" not in glue.values(run)
    assert glue.values(run)["repetitions"] == 5
    assert "n = 5 fresh processes per cell" in load.citation(run)
    both = make_run("both", passes=["timing", "memory", "energy"])
    assert load.about([both])[0]["fresh processes per cell"] == "timing: 2; memory: 1; energy: nothing measured"
    only = make_run("memory", passes=["memory"])
    assert load.processes(only) == {"memory": 1}
    assert "not timed" in load.citation(only)


# ------------------------------------------------------------------ what length policies cut

TOKENS = {"max": 73, "share_over": {"32": 0.2785, "64": 0.001, "128": 0.0, "512": 0.0}}


@pytest.mark.parametrize(
    ("policy", "share"),
    [("fixed-32", 0.2785), ("fixed-64", 0.001), ("fixed-73", 0), ("fixed-128", 0), ("longest", 0), ("fixed-48", None)],
)
def test_an_early_run_shows_the_share_of_its_whole_text_or_none(policy, share):
    told = lengths.truncation({"length_policy": policy}, {"tokens": TOKENS})
    assert told["truncated_share"] == share
    assert told["truncated_of"] == (None if share is None else "of the whole text")
    assert ("truncated_share_reason" in told) == (share is None)


@pytest.mark.parametrize("data", [{}, {"tokens": {}}, {"tokens": TOKENS | {"max": 512}}])
def test_where_early_runs_do_not_say_what_was_cut_nothing_is_guessed(data):
    """They counted after they had cut at BERT's positions."""
    told = lengths.truncation({"length_policy": "longest", "truncated_share": None}, data)
    assert told["truncated_share"] is None
    table = pd.DataFrame([{"length_policy": "longest"} | told])
    assert lengths.in_words(table) == [f"how many sentences longest cuts is not known: {lengths.UNKNOWN}"]
    assert "is not known" in lengths.warning(table), "a reader of a plot must know it"


def test_what_a_run_counted_comes_first():
    told = lengths.truncation({"length_policy": "fixed-32", "truncated_share": 0.3}, {"tokens": TOKENS})
    assert told == {"truncated_share": 0.3, "truncated_of": "of a cycle"}


def test_the_table_has_what_is_cut(two):
    one, other = two
    paths.write_json(other.folder / "data.json", paths.read_json(other.folder / "data.json") | {"tokens": TOKENS})
    table = load.table([one, other])
    assert table["truncated_share"].isna().tolist() == [True, True, False, False]
    assert glue.values(other)["longest-truncated_share"] == 0
    assert "longest-truncated_share" not in glue.values(one)


def test_show_has_the_cut_of_published_runs_which_did_not_count_it():
    run = next(run for run in find.published_runs() if "fixed-32" in run.config["parameters"]["length_policies"])
    summary = paths.read_json(run.folder / "summary.json")
    data = paths.read_json(run.folder / "data.json")
    cut = round(data["tokens"]["share_over"]["32"] * data["rows"])  # sentences; the share was kept to four digits
    table = run.kind.showing.cells(run, summary)
    assert set(table.loc[table["length"] == "fixed-32", "cut"]) == {f"{cut / data['rows']:.1%}"}
