"""Doubts by cause: a line each for a terminal, a row each for a page, and no cell lost."""

from __future__ import annotations

from types import SimpleNamespace

from distilbench.report import defaults, doubts
from distilbench.report.doubts import Doubt

CELLS = tuple(f"{length} b{size}" for length in ("fixed-32", "longest") for size in (1, 2, 4, 8))


def test_a_line_counts_the_cells_and_names_a_few():
    doubt = Doubt("unstable", "the median may be wrong", CELLS[:6], 24)
    assert str(doubt) == "6 of 24 cells: unstable: fixed-32 b1, b2, b4, b8 and 2 more"
    assert doubt.named() == "fixed-32 b1, b2, b4, b8; longest b1, b2", "on a page all of them"


def test_cells_without_a_curve_are_named_as_they_are():
    assert str(Doubt("slow", "", ("1MiB", "4MiB"), 3)) == "2 of 3 cells: slow: 1MiB, 4MiB"
    assert str(Doubt("slow", "", ("1MiB",), 3)) == "1 of 3 cells: slow: 1MiB"


def test_what_all_cells_have_needs_no_names():
    assert str(Doubt("no interval", "", CELLS, 8)) == "all 8 cells: no interval"
    assert str(Doubt("no interval", "", CELLS[:1], 1)) == "the only cell: no interval"


def test_texts_that_differ_in_numbers_only_are_one():
    said = [f"took {times} times 1,0{n}0 ms at fixed-32: 5%" for times, n in (("1.39", 1), ("1.19", 2), ("1.2", 0))]
    assert doubts.in_one(said) == "took 1.19 to 1.39 times 1,000 to 1,020 ms at fixed-32: 5%"
    assert doubts.in_one(["no number"]) == "no number"


def test_what_holds_of_the_whole_run_says_what_it_means():
    assert str(Doubt("control", "equal things cannot be called the same")) == (
        "control: equal things cannot be called the same"
    )
    assert str(Doubt("measured on 2 nodes")) == "measured on 2 nodes"


def test_a_terminal_gets_one_screen_at_most():
    many = [Doubt(f"cause {n}", "", CELLS[:1], 8) for n in range(30)]
    said = doubts.lines(many, "distilbench show RUN --doubts")
    assert len(said) <= 20
    assert said[0] == "- 1 of 8 cells: cause 0: fixed-32 b1", "the worst first"
    assert said[-2:] == ["- 14 more causes", "Each cell by itself: distilbench show RUN --doubts"]
    assert doubts.lines([], "") == ["- no doubts were recorded"]


def test_a_page_gets_a_row_for_each_cause_and_all_cells():
    found = [Doubt("unstable", "the median may be wrong", CELLS[:6], 24), Doubt("no interval", "", CELLS, 8)]
    table = doubts.table({"here": found})
    assert table.to_dict("records") == [
        {
            "cause": "unstable",
            "cells": "6 of 24 cells: fixed-32 b1, b2, b4, b8; longest b1, b2",
            "what it means": "the median may be wrong",
        },
        {"cause": "no interval", "cells": "all 8 cells", "what it means": "–"},
    ]


def test_several_runs_are_named_and_one_without_doubts_says_so():
    table = doubts.table({"here": [Doubt("control", "SAME")], "there": []})
    assert table["run"].tolist() == ["here", "there"]
    assert table["cells"].tolist() == ["the whole run", "the whole run"]
    assert table["cause"].tolist() == ["control", "no doubts were recorded"]


def test_a_kind_that_says_no_causes_has_them_from_its_doubts():
    summary = {"cells": [{"cell": name, "state": state} for name, state in (("a", "oom"), ("b", "ok"), ("c", "oom"))]}
    showing = SimpleNamespace(doubts=lambda told: [*defaults.doubts(told), "the clock: stood still"])
    found = defaults.causes(SimpleNamespace(kind=SimpleNamespace(showing=showing)), summary)
    assert found == [Doubt("not measured (oom)", "", ("a", "c"), 3), Doubt("the clock: stood still", "", (), 3)]
