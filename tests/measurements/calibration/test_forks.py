"""Forked repetitions against fresh ones: what made-up readings of known truth say, and how real ones are taken."""

from __future__ import annotations

import json
import math
import os

import measuring
import numpy as np
import pytest
import synthetic

from distilbench import paths
from distilbench.errors import RunError
from distilbench.harness import fork_server, processes
from distilbench.measurements.calibration import forks, measure, show
from distilbench.measurements.calibration import summary as calibration_summary
from distilbench.measurements.calibration.kind import MEASUREMENT as CALIBRATION
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.publication import provenance, publish
from distilbench.report import glue
from distilbench.runs import find, verify
from distilbench.runs.folder import Run

MEDIANS, SPREAD, BETWEEN = (
    f"forked against fresh, {what}" for what in ("medians", "spread", "medians from block to block")
)


def readings(ratio: float, spread: float, between: float = 0.0, blocks: int = 10, seed: int = 5) -> list[dict]:
    """Fresh processes that spread by 1 %; forked ones by `spread`, `ratio` times as long, each block by its own."""
    generator = np.random.default_rng(seed)
    found = []
    for block in range(blocks):
        own = between * generator.standard_normal()
        for number in range(block * forks.EACH, (block + 1) * forks.EACH):
            forked = 100 * ratio * math.exp(own + spread * generator.standard_normal())
            fresh = 100 * math.exp(0.01 * generator.standard_normal())
            found += [
                {"start": "forked", "block": block, "round": number, "latency_ms": forked},
                {"start": "fresh", "block": block, "round": number, "latency_ms": fresh},
            ]
    return found


def said(*arguments, **named) -> dict[str, dict]:
    return {check["check"]: check for check in forks.compared(readings(*arguments, **named))}


# ------------------------------------------------------------------ known truths


@pytest.mark.parametrize(
    ("ratio", "spread", "medians", "spreads"),
    [(1.0, 0.01, "SAME", "AMBIGUOUS"), (0.9, 0.003, "FASTER", "LESS"), (1.1, 0.03, "SLOWER", "MORE")],
)
def test_medians_and_spread_are_compared(ratio, spread, medians, spreads):
    checks = said(ratio, spread)
    found = checks[MEDIANS]
    assert (found["verdict"], found["low"] <= ratio <= found["high"]) == (medians, True)
    assert found["low"] < found["ratio"] < found["high"]
    found = checks[SPREAD]
    assert (found["verdict"], found["low"] <= spread / 0.01 <= found["high"]) == (spreads, True)
    assert found["ratio"] == pytest.approx(found["forked"] / found["fresh"])
    assert (found["forked"], found["fresh"]) == (pytest.approx(spread, rel=0.3), pytest.approx(0.01, rel=0.3))
    assert {(check["ok"], check["bound"], check["blocks"], check["processes"]) for check in checks.values()} == {
        (None, "reported", 10, 60)
    }


def test_layouts_that_differ_show_from_block_to_block_and_widen_the_interval_of_medians():
    """Sixty forks of ten processes tell of ten layouts, not of sixty."""
    differing, alike = said(1.0, 0.003, between=0.05), said(1.0, 0.003)
    assert differing[BETWEEN]["forked"] == pytest.approx(0.05, rel=0.5)
    assert differing[BETWEEN]["fresh"] < 0.01
    assert differing[SPREAD]["forked"] == pytest.approx(alike[SPREAD]["forked"])
    widths = [checks[MEDIANS]["high"] - checks[MEDIANS]["low"] for checks in (differing, alike)]
    assert widths[0] > 4 * widths[1]


def test_intervals_hold_the_truth_as_often_as_they_claim():
    held = {MEDIANS: 0, SPREAD: 0}
    for seed in range(200):
        checks = said(1.05, 0.005, between=0.01, seed=seed)
        held[MEDIANS] += checks[MEDIANS]["low"] <= 1.05 <= checks[MEDIANS]["high"]
        held[SPREAD] += checks[SPREAD]["low"] <= 0.5 <= checks[SPREAD]["high"]
    assert {name for name, count in held.items() if 0.9 <= count / 200 <= 0.99} == {MEDIANS, SPREAD}


def test_few_blocks_say_nothing():
    assert said(1.0, 0.01, blocks=4) == {}
    constant = [reading | {"latency_ms": 1.0} for reading in readings(1.0, 0.01)]
    assert list(forks.compared(constant)) == [], "nothing varies: no spread to compare"
    alone = [reading for reading in readings(1.0, 0.01) if reading["start"] == "fresh"]
    assert list(forks.compared(alone)) == []


# ------------------------------------------------------------------ real sweeps, made-up repetitions


@pytest.fixture
def small(monkeypatch, this_machine, tmp_path):
    """Two blocks of two, whose repetitions the stand-in makes; each process that forks is noted as it starts."""
    started = []
    monkeypatch.setattr(forks, "SERVERS", 2)
    monkeypatch.setattr(forks, "EACH", 2)
    monkeypatch.setattr(measure, "CELL", measuring.SMALL | {"passes": ["timing"]})
    monkeypatch.setattr(sweep, "WORKER", measuring.STAND_IN)
    monkeypatch.setattr(sweep, "prepare", lambda params, run: _prepared(run))
    monkeypatch.setattr(processes, "_spawn", measuring.stand_in_here)
    real = fork_server.ForkServer.__init__
    monkeypatch.setattr(
        fork_server.ForkServer, "__init__", lambda server, *given: started.append(1) or real(server, *given)
    )
    return started


def _prepared(run: Run) -> object:
    known = {"name": "made up", "source": "random", "parameters": 1, "rows": 40, "tokens": {"max": 20}}
    for name in ("model.json", "data.json"):
        paths.write_json(run.folder / name, known)
    return measuring.prepared_by_hand(run)


def test_both_ways_are_measured_in_blocks_and_each_block_has_a_process_to_fork_from(small, monkeypatch):
    order, commit = [], Run.commit
    monkeypatch.setattr(Run, "commit", lambda run, record: order.append(record) or commit(run, record))
    forked, fresh = measure.both_ways()
    assert [record.start for record in forked.measured()] == ["forked"] * 4
    assert [record.start for record in fresh.measured()] == ["fresh"] * 4
    assert len(small) == 2
    assert [record.repetition for record in order] == [0, 1, 0, 1, 2, 3, 2, 3]
    assert [a.start == b.start for a, b in zip(order[::2], order[1::2], strict=True)] == [True] * 4
    assert {forked.status["state"], fresh.status["state"]} == {"ok"}
    differing = {
        name for name, value in forked.config["parameters"].items() if fresh.config["parameters"][name] != value
    }
    assert differing == {"fresh_processes", "run_id"}
    assert verify.problems(forked.folder) == verify.problems(fresh.folder) == []
    assert find.own_runs() == [], "they are no runs of a study"


def test_repetitions_that_cannot_be_forked_are_no_comparison(small, monkeypatch):
    monkeypatch.setattr(fork_server, "ready", lambda *_: None)
    folders = set()
    for _ in range(2):
        with pytest.raises(
            RunError, match=r"4 repetitions of .* not measured forked; the first: it was fresh"
        ) as failed:
            measure.both_ways()
        folders.add(str(failed.value).split()[3])
    assert len(folders) == 2, "what was begun at another time is not resumed: a block stays together"


def test_a_repetition_that_fails_is_no_comparison(small, monkeypatch):
    monkeypatch.setattr(fork_server, "ready", lambda *_: None)
    monkeypatch.setitem(os.environ, "STAND_IN_ENDS", "sdpa-float32-fixed-16-b002-timing-0=crash")
    with pytest.raises(RunError, match=r"the first: ValueError: a crash was asked for"):
        measure.both_ways()


# ------------------------------------------------------------------ the calibration


@pytest.fixture
def calibration(monkeypatch, this_machine, tmp_path):
    """A calibration of made-up sweeps: five blocks of two, forked ones 1 % longer per block."""
    monkeypatch.setattr(forks, "SERVERS", 5)
    monkeypatch.setattr(forks, "EACH", 2)
    monkeypatch.setattr(paths, "published_root", lambda: tmp_path / "published")

    def both_ways(results_root):
        given = {"batch_sizes": [2], "passes": ["timing"], "repetitions": 10}
        runs = [synthetic.finished_run(f"made-up-{way}", **given) for way in forks.WAYS]
        for run, way in zip(runs, forks.WAYS, strict=True):
            records = [record.model_copy(update={"start": way}) for record in run.repetitions()]
            run.raw.write_text("".join(record.to_line() + "\n" for record in records))
        return runs

    monkeypatch.setattr(measure, "both_ways", both_ways)
    return measure.calibrate("forks")


def test_it_holds_this_check_alone_and_can_be_computed_again(calibration):
    assert {file.name for file in calibration.iterdir()} == {
        "config.json", "env.json", "checks.jsonl", "summary.json", "sweep.raw.jsonl",
    }  # fmt: skip
    summary = Run(calibration).summary
    assert [check["check"] for check in summary["checks"]] == [MEDIANS, SPREAD, BETWEEN]
    assert Run(calibration).config["sweep"] == "made-up-forked, made-up-fresh"
    lines = [json.loads(line) for line in (calibration / "checks.jsonl").read_text().splitlines()]
    assert [(line["start"], line["block"]) for line in lines[::2]] == [(w, b) for w in forks.WAYS for b in range(5)]
    assert verify.problems(calibration) == []
    lines[3]["latency_ms"] *= 1.01
    (calibration / "checks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths.write_json(calibration / "summary.json", calibration_summary.summarise(calibration))
    (problem,) = verify.problems(calibration)
    assert problem.startswith("checks.jsonl: starts[3]: latency_ms says")


def test_it_is_published_beside_the_others_and_chapters_take_its_numbers(calibration):
    env = paths.read_json(calibration / "env.json")
    paths.write_json(calibration / "env.json", env | {"git": {"sha": "abc", "dirty": False}})
    with pytest.raises(RunError, match="no calibration of depth 'forks' is published"):
        provenance.certify("calibration/forks", "machine")
    publish.publish_instrument(calibration)
    assert find.published_instrument(CALIBRATION, "forks").name == calibration.name
    named = glue.values(Run(calibration))
    of_medians = {name.rpartition("-")[2] for name in named if name.startswith("forked-against-fresh-medians-")}
    assert {"ratio", "low", "high", "verdict", "blocks", "processes"} <= of_medians
    field = "forked-against-fresh-medians-ratio"
    certificate = provenance.certify("calibration/forks", field, ".3f")
    assert (certificate.text, certificate.raw) == (f"{named[field]:.3f}", "checks.jsonl")
    assert provenance.values_from_raw(provenance.run_of("calibration/forks")) == named
    with pytest.raises(RunError, match="carries no number 'none'"):
        provenance.certify("calibration/forks", "none")
    published = find.published_instrument(CALIBRATION, "forks") / "summary.json"
    summary = paths.read_json(published)
    summary["checks"][0]["ratio"] *= 1.1
    paths.write_json(published, summary)
    with pytest.raises(RunError, match=r"disagrees with its readings: .*ratio"):
        provenance.certify("calibration/forks", field)


def test_its_table_and_caption_say_how_it_was_made(calibration):
    table = show.cells(Run(calibration), Run(calibration).summary)
    assert set(table["verdict"]) == {"reported"}
    assert show.caption(calibration).startswith("Forked against fresh processes on ")
    assert show.caption(calibration).endswith("; 5 times 2 forks of a process and 2 fresh processes, all of one thread")


@pytest.mark.slow
def test_two_blocks_of_real_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(forks, "SERVERS", 2)
    monkeypatch.setattr(forks, "EACH", 2)
    monkeypatch.setattr(measure, "CELL", measure.CELL | {"warmup_max_seconds": 0.0, "max_seconds": 1.0})
    forked, fresh = measure.both_ways()
    assert [record.status for run in (forked, fresh) for record in run.repetitions()] == ["ok"] * 8
    assert {record.logits_sha256 for run in (forked, fresh) for record in run.measured()} == {
        forked.measured()[0].logits_sha256
    }
