"""Comparisons: verdicts whose answer is known, what is not comparable, and exit codes for automation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import synthetic

from distilbench import paths
from distilbench.errors import RunError
from distilbench.report import compare
from distilbench.runs.folder import Run


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.90, 0.97), "FASTER"),
        ((1.03, 1.05), "SLOWER"),
        ((0.99, 1.01), "SAME"),
        ((0.95, 1.05), "AMBIGUOUS"),
        ((0.97, 0.99), "AMBIGUOUS"),
        ((1.01, 1.03), "AMBIGUOUS"),
        ((1 / 1.02, 1.02), "SAME"),
        (None, "AMBIGUOUS"),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(interval, verdict):
    assert compare.verdict_of(interval) == verdict


def test_the_threshold_is_the_users():
    assert compare.verdict_of((1.03, 1.05), threshold=0.1) == "SAME"
    assert compare.verdict_of((1.001, 1.002), threshold=0) == "SLOWER"


@pytest.fixture
def three(make_run) -> dict[str, Run]:
    """A run, one like it, one ten per cent slower; ten repetitions that differ by up to 9 %."""
    made = {name: make_run(name, repetitions=10) for name in ("base", "like", "slow")}
    synthetic.slowed(made["slow"], 1.5)
    return made


def test_the_same_run_twice_is_not_told_apart(three):
    found = compare.compare(three["base"], three["like"])
    assert [one.ratio for one in found] == [1, 1]
    assert {one.verdict for one in found} <= {"SAME", "AMBIGUOUS"}
    assert all(one.low < 1 < one.high for one in found)


def test_a_slower_run_is_slower_and_the_other_way_round_faster(three):
    found = compare.compare(three["base"], three["slow"])
    assert [one.verdict for one in found] == ["SLOWER", "SLOWER"]
    assert [one.ratio for one in found] == pytest.approx([1.5, 1.5])
    back = compare.compare(three["slow"], three["base"])
    assert [one.verdict for one in back] == ["FASTER", "FASTER"]
    assert back[0].low == pytest.approx(1 / found[0].high)


def test_several_cells_are_judged_together(three):
    """Two cells, so each interval is a 97.5 % one: wider than that of a cell alone."""
    found = compare.compare(three["base"], three["like"])[0]
    latencies = [10.0 * (1 + 0.01 * i) for i in range(10)]
    low, high = compare.ratio_interval(latencies, latencies, 0.975)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert high > compare.ratio_interval(latencies, latencies, 0.95)[1]


def test_too_few_repetitions_are_never_judged(make_run):
    one, two = make_run("one"), make_run("two")
    found = compare.compare(one, synthetic.slowed(two, 3.0))
    assert {one.verdict for one in found} == {"AMBIGUOUS"}
    assert found[0].note == "2 repetitions: no interval (from 5 on)"
    assert found[0].low is None
    assert "no interval" in compare.table(found)["verdict"][0]


def alter(run: Run, name: str, change) -> None:
    content = paths.read_json(run.folder / name)
    change(content)
    paths.write_json(run.folder / name, content)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("env.json", lambda env: env["cpu"].update(model="another"), "- cpu: "),
        ("env.json", lambda env: env["packages"].update(torch="9.9"), "- torch: "),
        ("data.json", lambda data: data.update(content_sha256="0"), "- data.json content_sha256: "),
        ("model.json", lambda model: model.update(sha256="0"), "- model.json sha256: "),
        ("config.json", lambda config: config["parameters"].update(heap="keep"), "- heap: 'system' and 'keep'"),
    ],
)
def test_what_was_made_otherwise_is_compared_by_force_only(three, name, change, said):
    alter(three["like"], name, change)
    with pytest.raises(RunError, match="are not comparable") as refused:
        compare.compare(three["base"], three["like"])
    assert said in str(refused.value)
    assert compare.compare(three["base"], three["like"], force=True)


def test_runs_of_other_batches_are_compared_by_force_only(three):
    base, like = three["base"], three["like"]
    lines = [json.loads(line) for line in like.raw.read_text().splitlines()]
    cell = lines[0]["cell"]
    changed = [line | ({"inputs_sha256": "0" * 64} if line["cell"] == cell else {}) for line in lines]
    like.raw.write_text("".join(json.dumps(line) + "\n" for line in changed))
    with pytest.raises(RunError, match=rf"are not comparable .*\n- inputs: other batches in {cell}$"):
        compare.compare(base, like)
    assert compare.compare(base, like, force=True)


def test_other_code_is_what_may_be_compared(three):
    alter(three["like"], "env.json", lambda env: env.update(measuring_sha256="another"))
    assert compare.compare(three["base"], three["like"])
    (said,) = compare.tolerated_differences(three["base"], three["like"])
    assert said.startswith("code: ")


def test_runs_without_a_common_cell_are_refused(make_run):
    one, two = make_run("one", batch_sizes=[1]), make_run("two", batch_sizes=[2])
    with pytest.raises(RunError, match="no measured cell in common"):
        compare.compare(one, two)


def test_false_verdicts_are_rare_and_real_slow_downs_are_found():
    """Simulated with 1 % between processes, as on a quiet machine: 10 repetitions, 8 cells judged together."""
    generator = np.random.default_rng(11)
    confidence = 1 - 0.05 / 8

    def verdicts(factor: float) -> list[str]:
        draw = lambda: 100 * (1 + 0.01 * generator.standard_normal(10))  # noqa: E731
        return [compare.verdict_of(compare.ratio_interval(draw(), factor * draw(), confidence)) for _ in range(1500)]

    assert np.mean([verdict in ("FASTER", "SLOWER") for verdict in verdicts(1.0)]) <= 0.05
    assert np.mean([verdict == "SLOWER" for verdict in verdicts(1.05)]) >= 0.95
    assert "FASTER" not in verdicts(1.05)


def test_the_unit_is_that_of_the_number_that_the_kind_compares_by(three, monkeypatch):
    cells = compare.compare(three["base"], three["like"])
    assert compare.table(cells).columns[1:3].tolist() == ["base (ms)", "other (ms)"]
    assert {"base_ms", "other_ms"} < cells[0].as_json().keys()
    for run in (three["base"], three["like"]):
        monkeypatch.setattr(run, "_kind", dataclasses.replace(run.kind, comparable={"peak_rss_MiB": "memory"}))
    cells = compare.compare(three["base"], three["like"])
    assert compare.table(cells).columns[1:3].tolist() == ["base (MiB)", "other (MiB)"]
    assert {"base_MiB", "other_MiB"} < cells[0].as_json().keys()
