"""The instrument on known truths: readings on this machine, and verdicts on readings that are made up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic

from distilbench import paths, simulated_traces, studies
from distilbench.errors import RunError
from distilbench.measurements.calibration import measure, show
from distilbench.measurements.calibration import summary as calibration_summary
from distilbench.measurements.calibration.kind import MEASUREMENT as CALIBRATION
from distilbench.measurements.calibration.workload import PROTOCOL
from distilbench.measurements.sweep.records import Warmup
from distilbench.publication.publish import publish_instrument
from distilbench.runs import find, verify
from distilbench.runs.folder import Run


def says(checks, check: str) -> dict:
    return next(found for found in checks if found["check"].startswith(check))


# ------------------------------------------------------------------ readings


def test_a_forward_that_does_nothing_takes_almost_nothing():
    readings = list(measure.overhead(cycles=50))
    assert len(readings) == 5
    assert all(0 < reading["reading_us"] < reading["loop_us"] < 200 for reading in readings)


def test_sleeps_are_read_as_long_as_they_are(monkeypatch):
    monkeypatch.setattr(measure, "SLEEPS_MS", (1.0, 5.0))
    for reading in measure.sleeps():
        assert reading["wanted_ms"] <= reading["measured_ms"] < 2 * reading["wanted_ms"] + 5


def test_an_allocation_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "ALLOCATIONS_MiB", (64,))
    (reading,) = measure.allocations(tmp_path)
    assert reading["bytes"] == 64 * 2**20
    assert reading["measured_MiB"] == pytest.approx(64, rel=0.02)
    assert list(tmp_path.iterdir()) == [], "nothing of it stays"


def test_the_pool_is_interleaved_and_slowed_where_it_should_be(tmp_path, monkeypatch):
    asked = []

    def process(command, folder, job):
        asked.append(job["slow_down"])
        return {"latency_ms": 1 + job["slow_down"]}

    monkeypatch.setattr(measure, "_in_a_process", process)
    readings = list(measure.pool(tmp_path, 3, ("slowed-2", "slowed-5"), seed=1))
    assert asked == [calibration_summary.SLOWED.get(reading["what"], 0.0) for reading in readings]
    rounds = [[reading["what"] for reading in readings if reading["round"] == number] for number in range(3)]
    assert all(sorted(one) == ["base", "slowed-2", "slowed-5", "twin"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1, "shuffled round by round"


def test_the_workload_in_a_process_of_its_own_can_be_slowed(tmp_path):
    plain, slow = (measure._in_a_process(measure.BUSY, tmp_path, {"slow_down": share}) for share in (0.0, 1.0))
    assert plain["n_iterations"] >= PROTOCOL["min_iterations"]
    assert slow["latency_ms"] > 1.4 * plain["latency_ms"]


def test_a_sweep_is_a_pool(this_machine):
    run = synthetic.finished_run(variants=["sdpa", "slowed-5"], batch_sizes=[2], passes=["timing"], control=True)
    readings = list(calibration_summary.of_sweep(run.measured()))
    assert sorted((r["what"], r["round"]) for r in readings) == [
        (what, number) for what in ("base", "slowed-5", "twin") for number in range(2)
    ]
    assert readings[0]["latency_ms"] == run.measured()[0].latency_ms
    assert Warmup.model_validate({"cycles": 1, "seconds": 1.0, "settled": readings[0]["settled"]}).settled is True


def test_a_deep_calibration_sweeps_a_real_model_and_its_slowed_variants(monkeypatch, this_machine):
    started = []
    monkeypatch.setattr(measure.preflight, "start", lambda resolved, kind: started.append(resolved) or "run")
    monkeypatch.setattr(measure.steps, "measure_run", lambda run, resolved: started.append(run))
    assert measure.sweep() == "run"
    asked = started[0].params
    variants = ["sdpa", *calibration_summary.SLOWED]
    assert (asked.variants, asked.repetitions, asked.source) == (variants, 60, "embedded")
    assert (asked.passes, asked.control) == (["timing"], True)
    assert started[1] == "run"


# ------------------------------------------------------------------ verdicts


def written(folder, *readings, depth="quick"):
    config = {
        "run_id": "made-up",
        "kind": "calibration",
        "depth": depth,
        "seed": 1,
        "rounds": 60,
        "created": "2026-11-22T10:00:00Z",
    }
    paths.write_json(folder / "config.json", config)
    (folder / "checks.jsonl").write_text("".join(json.dumps(reading) + "\n" for reading in readings))
    return folder


@pytest.mark.parametrize(
    ("reading", "ok"),
    [
        ({"check": "overhead", "reading_us": 0.2, "loop_us": 4.9}, True),
        ({"check": "overhead", "reading_us": 5.1, "loop_us": 4.9}, False),
        ({"check": "sleep", "wanted_ms": 10.0, "measured_ms": 10.2}, True),
        ({"check": "sleep", "wanted_ms": 10.0, "measured_ms": 9.9}, False),
        ({"check": "sleep", "wanted_ms": 10.0, "measured_ms": 10.3}, False),
        ({"check": "allocation", "wanted_MiB": 64, "measured_MiB": 65.2}, True),
        ({"check": "allocation", "wanted_MiB": 64, "measured_MiB": 62.0}, False),
        ({"check": "coverage", "kind": "smooth", "repetitions": 10, "share": 0.94}, True),
        ({"check": "coverage", "kind": "spiky", "repetitions": 10, "share": 0.92}, False),
        ({"check": "coverage", "kind": "two-mode", "repetitions": 10, "share": 0.80}, None),
    ],
)
def test_each_reading_is_judged_by_its_bound(tmp_path, reading, ok):
    checks = calibration_summary.summarise(written(tmp_path, reading))["checks"]
    assert [check["ok"] for check in checks if not check["check"].startswith("equal things")] in (
        [ok],
        [True, ok],
        [ok, True],
    )


def pool_of(*names: str, rounds: int = 60, spread: float = 0.005) -> dict[str, dict[int, float]]:
    generator = np.random.default_rng(4)
    medians = {
        name: 100 * (1 + calibration_summary.SLOWED.get(name, 0.0)) * (1 + spread * generator.standard_normal(rounds))
        for name in ("base", *names)
    }
    return {name: dict(enumerate(values)) for name, values in medians.items()}


def test_a_good_instrument_finds_slow_downs_and_nothing_else():
    checks = calibration_summary.judged(pool_of("twin", *calibration_summary.SLOWED), seed=1, cuts=50)
    assert (says(checks, "equal things")["ok"], says(checks, "equal things")["rate"]) == (True, 0)
    assert says(checks, "equal things")["comparisons"] == 6, "60 rounds are six groups"
    assert (says(checks, "slow-down of 5%")["ok"], says(checks, "slow-down of 5%")["comparisons"]) == (True, 6)
    assert says(checks, "slow-down of 10%")["rate"] == 1
    assert says(checks, "slow-down of 2%")["ok"] is None, "as small as what counts as the same"
    assert says(checks, "first rounds against the last")["measured"].startswith("SAME (")


def test_an_instrument_that_sees_nothing_is_off():
    checks = calibration_summary.judged(pool_of("slowed-5", spread=0.2), seed=1, cuts=50)
    assert says(checks, "slow-down of 5%")["ok"] is False


def test_an_instrument_that_sees_differences_everywhere_is_off(monkeypatch):
    monkeypatch.setattr(simulated_traces, "told_apart", lambda *_: {"SLOWER": 0.6, "FASTER": 0.4})
    assert says(calibration_summary.judged(pool_of("twin"), seed=1), "equal things")["ok"] is False


def test_a_small_pool_says_that_it_is_too_small():
    equal, slower = calibration_summary.judged(pool_of("twin", "slowed-5", rounds=9), seed=1)
    assert (equal["ok"], equal["bound"], slower["truth"]) == (None, "needs 10 rounds, the pool has 9", "always")


def test_one_comparison_judges_nothing():
    checks = calibration_summary.judged(pool_of("twin", "slowed-5", rounds=10), seed=1, cuts=50)
    equal, slower = says(checks, "equal things"), says(checks, "slow-down of 5%")
    assert equal["comparisons"] == slower["comparisons"] == 1
    assert equal["ok"] is slower["ok"] is None
    assert equal["bound"] == "reported: fewer than 3 comparisons judge nothing"
    assert len(checks) == 2, "too few rounds for a first and a last group"


def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(RunError, match=r"the process of distilbench\.measurements\.calibration\.workload failed: "):
        measure._in_a_process(measure.BUSY, tmp_path, {})


# ------------------------------------------------------------------ the whole, and the report


@pytest.fixture
def quick(monkeypatch, this_machine, tmp_path):
    """A calibration whose processes are made up."""
    found = {measure.BUSY: {"latency_ms": 1.0, "n_iterations": 40, "settled": True}}
    found[measure.ALLOCATE] = {"measured_MiB": 64.1, "bytes": 1}
    monkeypatch.setattr(measure, "ALLOCATIONS_MiB", (64,))
    monkeypatch.setattr(measure, "SLEEPS_MS", (1.0,))
    monkeypatch.setattr(measure, "_in_a_process", lambda command, folder, job: found[command])
    monkeypatch.setattr(simulated_traces, "coverages", lambda repetitions: dict.fromkeys(simulated_traces.KINDS, 0.95))
    return measure.calibrate("quick")


def test_a_calibration_is_a_folder_that_can_be_computed_again(quick):
    assert {file.name for file in quick.iterdir()} == {"config.json", "env.json", "checks.jsonl", "summary.json"}
    assert verify.problems(quick) == []
    assert find.own_runs() == [], "it is no run of a study"
    summary = paths.read_json(quick / "summary.json")
    summary["checks"][0]["us"] = 0.0
    paths.write_json(quick / "summary.json", summary)
    assert "us says 0.0" in verify.problems(quick)[0]


def test_a_pool_is_compared_with_the_sweep_that_it_is_of(quick):
    run = synthetic.finished_run(variants=["sdpa", "slowed-5"], batch_sizes=[2], passes=["timing"], control=True)
    pool = [{"check": "pool"} | reading for reading in calibration_summary.of_sweep(run.measured())]
    (quick / calibration_summary.SWEPT).write_bytes(run.raw.read_bytes())
    others = [reading for reading in calibration_summary._readings(quick) if reading["check"] != "pool"]
    for altered in (False, True):
        pool[3]["latency_ms"] *= 1.01 if altered else 1
        (quick / "checks.jsonl").write_text("".join(json.dumps(reading) + "\n" for reading in others + pool))
        paths.write_json(quick / "summary.json", calibration_summary.summarise(quick))
        assert bool(verify.problems(quick)) == altered
    assert "checks.jsonl" in verify.problems(quick)[0]


def test_the_table_has_words(quick):
    table = show.cells(Run(quick), paths.read_json(quick / "summary.json"))
    assert list(table.columns) == ["check", "truth", "measured", "bound", "verdict"]
    assert set(table["verdict"]) <= {"ok", "OFF", "reported"}, "one comparison judges nothing"
    assert [line for line in table["check"] if "two-mode" in line] == [
        "intervals of 5 repetitions, two-mode traces", "intervals of 10 repetitions, two-mode traces",
    ]  # fmt: skip
    assert "A quick calibration on " in show.caption(quick)


def test_a_rate_over_a_few_comparisons_is_not_refuted_and_never_ok():
    """83.7 % of six comparisons does not contradict 95 %, and does not show it either."""
    checks = [
        calibration_summary._rate("slow-down of 5% found", "always", 0.837, 6, at_least=0.95),
        calibration_summary._rate("slow-down of 5% found", "always", 0.2, 6, at_least=0.95),
        calibration_summary._rate("slow-down of 5% found", "always", 0.837, 2, at_least=0.95),
        calibration_summary._sleep_says({"wanted_ms": 10.0, "measured_ms": 10.1}),
    ]
    assert list(show.cells(None, {"checks": checks})["verdict"]) == ["not refuted", "OFF", "reported", "ok"]


def test_the_caption_says_when_no_published_run_is_of_that_machine(quick, make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "published_root", lambda: tmp_path / "published")
    assert show.caption(quick).endswith("; pool of 10 rounds, in processes of one thread"), "there are no runs"
    run = make_run(results_root=str(tmp_path / "published"))
    assert "no published run" not in show.caption(quick)
    env = paths.read_json(run.folder / "env.json")
    paths.write_json(run.folder / "env.json", env | {"cpu": env["cpu"] | {"model": "Another"}})
    assert show.caption(quick).endswith("in processes of one thread; no published run is of this machine")


def test_only_committed_code_is_published_and_a_depth_has_one(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "published_root", lambda: tmp_path / "published")
    env = paths.read_json(quick / "env.json")
    paths.write_json(quick / "env.json", env | {"git": {"sha": "abc", "dirty": True}})
    with pytest.raises(RunError, match="its code is in no commit"):
        publish_instrument(quick)
    paths.write_json(quick / "env.json", env | {"git": {"sha": "abc", "dirty": False}})
    assert find.published_instrument(CALIBRATION, "quick") is None
    assert publish_instrument(quick) == find.published_instrument(CALIBRATION, "quick")
    another = quick.with_name("another")
    quick.rename(another)
    assert publish_instrument(another).name == "another"
    assert len(list((tmp_path / "published" / "calibration").iterdir())) == 1
    (another / "checks.jsonl").write_text("")
    with pytest.raises(RunError, match=r"cannot be published: verify: summary\.json"):
        publish_instrument(another)


@pytest.mark.slow
def test_a_quick_calibration_of_this_machine():
    folder = measure.calibrate("quick")
    checks = paths.read_json(folder / "summary.json")["checks"]
    assert says(checks, "overhead added")["ok"]
    assert says(checks, "allocation of 512")["ok"]
    assert verify.problems(folder) == []
    assert studies.resolve("distilbert", {"variants": list(calibration_summary.SLOWED)})
