"""Derived numbers: computed again by hand for a small case, and a run whose files disagree is found out."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import synthetic

from distilbench import paths
from distilbench.errors import ImplausibleError, RunError
from distilbench.measurements.sweep import records as sweep_records
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.records import Repetition, SweepCell
from distilbench.measurements.sweep.summary import derive, join
from distilbench.runs import measurement, rawfiles, verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet
from distilbench.sources.batches import cycle_samples

RECORDED = sorted((Path(__file__).parents[2] / "data" / "runs").glob("*/*/"))


def rows(latencies_ms: list[float], samples: list[int], warmup_ms: float = 1000.0) -> list[dict]:
    """A slow warm-up iteration, then timed ones."""
    timed = [
        {"cycle": 1, "batch": i, "warmup": False, "samples": n, "latency_ms": ms, "latency_device_ms": None}
        for i, (ms, n) in enumerate(zip(latencies_ms, samples, strict=True))
    ]
    return [timed[0] | {"cycle": 0, "warmup": True, "latency_ms": warmup_ms}, *timed]


def one_cell(**given) -> tuple[Run, SweepCell]:
    run = synthetic.started_run(**{"batch_sizes": [2], "passes": ["timing", "memory"]} | given)
    return run, SweepCell(**run.config["cells"][0])


def cell_of(run: Run, number: int = 0) -> dict:
    return join.summarise(run.folder)["cells"][number]


# ------------------------------------------------------------------ by hand


def test_a_record_says_what_its_iterations_say():
    """Two batches of 2 and a last one of 1: 5 sentences in 70 ms."""
    fields = derive.timing_fields(rows([10, 40, 20], [2, 2, 1]))
    assert fields["n_iterations"] == 3
    assert fields["latency_ms"] == 20, "the median of single iterations, warm-up left out"
    assert fields["latency_per_sample_ms"] == 14
    assert fields["throughput_samples_per_s"] == pytest.approx(5 / 0.070)
    assert fields["latency_device_ms"] is None
    assert "no clock of its own" in fields["latency_device_ms_reason"]


def test_a_device_with_a_clock_has_its_own_median():
    timed = [row | {"latency_device_ms": row["latency_ms"] / 2} for row in rows([10, 40, 20], [2, 2, 1])]
    fields = derive.timing_fields(timed)
    assert fields["latency_device_ms"] == 10
    assert fields["latency_device_ms_reason"] is None


def test_accuracy_is_the_share_of_right_predictions():
    fields = derive.classification_fields(synthetic.predictions("c", right=3, n=4), random_weights=False)
    assert fields["accuracy"] == 0.75
    assert fields["accuracy_reason"] is None


def test_random_weights_have_no_accuracy_but_logits():
    told = synthetic.predictions("c")
    fields = derive.classification_fields(told, random_weights=True)
    assert fields["accuracy"] is None
    assert "random weights" in fields["accuracy_reason"]
    assert fields["logits_sha256"] == derive.classification_fields(told, random_weights=False)["logits_sha256"]


def test_the_logits_hash_changes_with_any_logit_and_with_their_order():
    told = synthetic.predictions("c")
    seen = {derive.classification_fields(told, True)["logits_sha256"]}
    for i in range(len(told)):
        for j in range(2):
            other = copy.deepcopy(told)
            other[i]["logits"][j] += 2**-10
            seen.add(derive.classification_fields(other, True)["logits_sha256"])
    seen.add(derive.classification_fields(told[::-1], True)["logits_sha256"])
    assert len(seen) == 1 + 2 * len(told) + 1


def test_a_cell_by_hand(this_machine):
    """Two repetitions of medians 20 and 22 ms, 5 sentences in 70 and 66 ms; 3 of 4 sentences right."""
    run, cell = one_cell()
    predicted = synthetic.predictions(cell.cell, right=3, n=4)
    synthetic.commit(run, synthetic.timing(run, cell, 0, rows([10, 40, 20], [2, 2, 1]), predicted), predicted)
    synthetic.commit(run, synthetic.timing(run, cell, 1, rows([12, 32, 22], [2, 2, 1]), predicted))
    synthetic.commit(run, synthetic.memory(cell, 0, peak_rss_MiB=400))
    derived = join.summarise(run.folder)
    (got,) = derived["cells"]

    assert got["state"] == "ok"
    assert (got["latency_ms"], got["latency_ms_range"], got["latency_ms_repetitions"]) == (21, [20, 22], 2)
    assert got["latency_per_sample_ms"] == pytest.approx((70 / 5 + 66 / 5) / 2)
    assert got["throughput_samples_per_s"] == pytest.approx((5 / 0.070 + 5 / 0.066) / 2)
    assert got["throughput_samples_per_s_range"] == pytest.approx([5 / 0.070, 5 / 0.066])
    assert (got["peak_rss_MiB"], got["peak_rss_MiB_repetitions"]) == (402, 1)
    assert (got["accuracy"], got["accuracy_n"]) == (0.75, 4)
    # Wilson by hand: z = 1.96, (0.75 + z²/8 ± z sqrt(0.75·0.25/4 + z²/64)) / (1 + z²/4)
    z = 1.959964
    half = z * math.sqrt(0.75 * 0.25 / 4 + z * z / 64)
    by_hand = [(0.75 + z * z / 8 - half) / (1 + z * z / 4), (0.75 + z * z / 8 + half) / (1 + z * z / 4)]
    assert got["accuracy_wilson_95"] == pytest.approx(by_hand, abs=1e-6)
    assert got["accuracy_wilson_95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    iterations = got["iterations_ms"]
    assert (iterations["n"], iterations["median"], iterations["min"], iterations["max"]) == (6, 21, 10, 40)
    assert iterations["mean"] == pytest.approx(136 / 6)
    assert got["energy_J"] is None
    assert got["energy_J_reason"] == "the energy pass was not asked for"
    assert got["peak_cuda_allocated_MiB_reason"] == "the model ran on the CPU"
    assert got["errors"] == []
    assert got["doubts"] == ["2 repetitions: no interval"]
    assert (derived["profile"], derived["run_id"]) == ("ci", run.run_id)
    assert "never published" in derived["note"]
    assert derived["best_throughput"]["cell"] == cell.cell


def test_from_five_repetitions_on_there_is_an_interval(this_machine):
    """Medians 20 to 24 ms: Student's t with 4 degrees of freedom, 22 ± 2.776 · sqrt(2.5 / 5)."""
    for count in (4, 5):
        run, cell = one_cell(repetitions=count)
        predicted = synthetic.predictions(cell.cell)
        for number in range(count):
            took = rows([10, 40, 20 + number], [2, 2, 1])
            synthetic.commit(run, synthetic.timing(run, cell, number, took, predicted), None if number else predicted)
        (got,) = join.summarise(run.folder)["cells"]
        if count == 4:
            assert "latency_ms_interval_95" not in got
            assert "latency_ms_interval_of_median" not in got
            assert "4 repetitions: no interval" in got["doubts"]
    assert got["latency_ms_interval_95"] == pytest.approx([22 - 1.9632, 22 + 1.9632], abs=1e-3)
    assert got["latency_ms_interval_of_median"] == [20, 24], "of five, from the lowest to the highest"
    assert "peak_rss_MiB_interval_95" not in got, "a peak has no mean worth an interval"
    assert not any("no interval" in doubt for doubt in got["doubts"])


def test_iterations_say_where_their_variance_comes_from(this_machine):
    run, cell = one_cell()
    predicted = synthetic.predictions(cell.cell)
    for number, base in enumerate((10, 30)):
        took = rows([base + i % 2 for i in range(40)], [1] * 40)
        synthetic.commit(run, synthetic.timing(run, cell, number, took, predicted), None if number else predicted)
    (got,) = join.summarise(run.folder)["cells"]
    iterations = got["iterations_ms"]
    assert iterations["variance_ms2"]["share_between"] > 0.99
    assert iterations["advice"] == "a narrower interval needs more repetitions (processes differ)"
    assert iterations["autocorrelation"] == pytest.approx(-1, abs=0.05)
    assert iterations["outliers"] == 0
    assert iterations["p90_licensed"]
    assert not iterations["p95_licensed"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"foreign_cores": 0.8}, "other processes used 0.8 cores while it was timed"),
        ({"stolen_cores": 0.31}, "the hypervisor gave 0.31 cores to others while it was timed"),
        ({"parent_cores": 0.9}, "the parent used 0.90 cores while it was timed"),
        ({"foreign_cores": 0.1, "stolen_cores": 0.01, "parent_cores": 0.001}, None),
    ],
)
def test_a_busy_machine_is_said_beside_the_numbers(this_machine, fields, said):
    run, cell = one_cell()
    predicted = synthetic.predictions(cell.cell)
    for number in range(2):
        record = synthetic.timing(run, cell, number, rows([10, 12], [2, 2]), predicted)
        synthetic.commit(run, record.model_copy(update=fields), None if number else predicted)
    (got,) = join.summarise(run.folder)["cells"]
    assert {name: got[name] for name in fields} == fields
    busy = [doubt for doubt in got["doubts"] if "while it was timed" in doubt]
    assert busy == ([said] if said else [])


@pytest.mark.parametrize(
    ("of_processes", "joined", "said"),
    [
        ([(1000, 800, 4.0), (545, 42, 0.5)], (1545, 842, 4.5), "842 of 1,545 periods (4.5 s, each core by itself)"),
        ([(1000, 0, 0.0), (None, None, None)], (1000, 0, 0.0), None),
        ([(None, None, None), (None, None, None)], (None, None, None), None),
    ],
)
def test_a_quota_that_throttled_is_said_beside_the_numbers(this_machine, of_processes, joined, said):
    run, cell = one_cell()
    predicted = synthetic.predictions(cell.cell)
    names = ("quota_periods", "throttled_periods", "throttled_s")
    for number, counted in enumerate(of_processes):
        record = synthetic.timing(run, cell, number, rows([10, 12], [2, 2]), predicted)
        fields = dict(zip(names, counted, strict=True)) | {"quota_reason": "none" if counted[0] is None else None}
        synthetic.commit(run, record.model_copy(update=fields), None if number else predicted)
    got = cell_of(run)
    assert tuple(got[name] for name in names) == joined
    assert got["quota_reason"] == ("none" if joined[0] is None else None)
    doubts = [doubt for doubt in got["doubts"] if "quota" in doubt]
    assert doubts == ([f"throttled by its CPU quota in {said}"] if said else [])


def test_a_summary_of_an_earlier_version_is_still_believed(finished_run):
    """Fields that came later are not missed in it; what it tells must still be true."""

    def as_version_1(told):
        told["schema_version"] = 1
        for cell in told["cells"]:
            for name in ("outliers", "autocorrelation", "variance_ms2", "advice"):
                del cell["iterations_ms"][name]

    change_json(finished_run.folder / "summary.json", as_version_1)
    assert verify.problems(finished_run.folder) == []
    change_json(finished_run.folder / "summary.json", lambda told: told["cells"][0].update(latency_ms=1.0))
    assert "latency_ms says 1.0" in problems_of(finished_run)


def test_the_full_profile_needs_no_note(this_machine):
    run = synthetic.started_run(profile="full", repetitions=1)
    assert join.summarise(run.folder)["note"] is None


def test_a_summary_is_plain_json(finished_run):
    derived = join.summarise(finished_run.folder)
    assert json.loads(json.dumps(derived, allow_nan=False)) == derived


# ------------------------------------------------------------------ what is missing


def test_a_run_that_measured_nothing_says_so_everywhere(this_machine):
    run = synthetic.started_run()
    derived = join.summarise(run.folder)
    assert derived["best_throughput"] is None
    for cell in derived["cells"]:
        assert cell["state"] == "pending"
        assert cell["latency_ms"] is None
        assert cell["latency_ms_reason"] == "no finished repetition of the timing pass"
        assert cell["peak_rss_MiB_reason"] == "no finished repetition of the memory pass"
        assert cell["accuracy_reason"] == "no predictions"
        assert cell["iterations_ms"] is None


@pytest.mark.parametrize(
    "state", ["oom", "unavailable", "timeout", "failed", "invalid", "cancelled", "preempted", "skipped"]
)
def test_a_cell_is_as_bad_as_its_worst_repetition(this_machine, state):
    run = synthetic.finished_run(repetitions=1)
    cell = SweepCell(**run.config["cells"][0])
    assert cell_of(run)["state"] == "ok"
    synthetic.commit(run, synthetic.repetition(cell, "timing", 1, status=state, error="it broke"))
    got = cell_of(run)
    assert got["state"] == state
    assert got["errors"] == [f"timing 1: {state}: it broke"]
    assert got["latency_ms_repetitions"] == 1, "what was measured counts all the same"
    said = [doubt for doubt in got["doubts"] if "it broke" in doubt]
    assert said == (["invalid, timing 1: invalid: it broke"] if state == "invalid" else [])


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_predictions_that_come_of_no_class_are_no_accuracy(this_machine, logit):
    """As an earlier version recorded them: the line says `ok` and an accuracy."""
    run, cell = one_cell(passes=["timing"], repetitions=1)
    predicted = synthetic.predictions(cell.cell)
    record = synthetic.timing(run, cell, 0, synthetic.iterations(2), predicted)
    broken = [row | {"logits": [logit, logit]} for row in predicted[:2]] + predicted[2:]
    digest = derive.classification_fields(broken, random_weights=False)["logits_sha256"]
    synthetic.commit(
        run, record.model_copy(update={"accuracy": 0.5, "accuracy_reason": None, "logits_sha256": digest}), broken
    )
    synthetic.summarised(run)
    why = f"the logits of 2 of {len(predicted)} sentences are NaN or infinite"
    got = cell_of(run)
    assert (got["state"], got["accuracy"], got["accuracy_reason"]) == ("invalid", None, why)
    assert "accuracy_wilson_95" not in got
    assert f"invalid, predictions: invalid: {why}" in got["doubts"]
    assert any("accuracy says 0.5, computed again it is None" in problem for problem in verify.problems(run.folder))


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["latency_ms", "latency_device_ms"])
def test_what_is_no_time_is_no_latency(name, ms):
    one = rows([10, 40, 20], [2, 2, 1])
    one[2] |= {name: ms}
    if (name, ms) == ("latency_device_ms", 0.0):
        one = [row | {"latency_device_ms": 0.0} for row in one]
        assert derive.timing_fields(one)["latency_device_ms"] == 0.0, "shorter than the device's clock can tell"
        return
    with pytest.raises(ImplausibleError, match=r"cycle 1, batch 1: .* is no time of a forward"):
        derive.timing_fields(one)


def test_a_committed_file_with_a_time_that_is_none_is_found(this_machine):
    run, cell = one_cell(passes=["timing"], repetitions=1)
    predicted = synthetic.predictions(cell.cell)
    record = synthetic.timing(run, cell, 0, synthetic.iterations(2), predicted)
    broken = [*synthetic.iterations(2)[:-1], synthetic.iterations(2)[-1] | {"latency_ms": math.nan}]
    digest = rawfiles.write_parquet(run.folder / record.iterations_file, broken, sweep_records.ITERATIONS)
    synthetic.commit(run, record.model_copy(update={"iterations_sha256": digest}), predicted)
    assert any("nan ms" in problem and "is no time of a forward" in problem for problem in verify.problems(run.folder))


def test_states_while_a_cell_is_measured(this_machine):
    run, cell = one_cell()
    predicted = synthetic.predictions(cell.cell)
    states = [cell_of(run)["state"]]
    for where, number in (("timing", 0), ("timing", 1), ("memory", 0)):
        if where == "memory":
            synthetic.commit(run, synthetic.memory(cell))
        else:
            synthetic.commit(run, synthetic.timing(run, cell, number, synthetic.iterations(2), predicted))
        states.append(cell_of(run)["state"])
    assert states == ["pending", "running", "running", "ok"]


def test_a_pass_that_was_not_asked_for_is_not_missing(this_machine):
    run = synthetic.finished_run(passes=["timing"])
    assert cell_of(run)["state"] == "ok"
    assert cell_of(run)["peak_rss_MiB_reason"] == "the memory pass was not asked for"
    assert cell_of(synthetic.started_run())["peak_rss_MiB_reason"] == "no finished repetition of the memory pass"


def test_what_a_length_policy_cuts_is_told_with_a_doubt(this_machine):
    run, cell = one_cell(repetitions=1, length_policies=["fixed-32"])
    record = synthetic.timing(run, cell, 0, rows([10], [2]), predicted := synthetic.predictions(cell.cell))
    shares = {"truncated_share": 0.279, "truncated_tokens_share": 0.081}
    synthetic.commit(run, record.model_copy(update=shares), predicted)
    found = cell_of(run)
    assert {name: found[name] for name in shares} == shares
    assert "27.9% of the sentences are cut to 32 tokens: time and accuracy are those of shorter text" in found["doubts"]
    assert "cut to" not in " ".join(cell_of(synthetic.finished_run("another"))["doubts"]), (
        "unknown is no doubt, nor is 0"
    )


def test_an_early_summary_may_have_said_a_reason_in_other_words(this_machine):
    run = synthetic.finished_run(passes=["timing"])
    told = paths.read_json(run.folder / "summary.json")
    told["cells"][0]["peak_rss_MiB_reason"] = "no finished repetition of the memory pass"
    paths.write_json(run.folder / "summary.json", told)
    assert len(verify.problems(run.folder)) == 1, "its own version must say it as it does"
    paths.write_json(run.folder / "summary.json", told | {"schema_version": 3})
    assert verify.problems(run.folder) == []
    told["cells"][0]["latency_ms"] = 1.0
    paths.write_json(run.folder / "summary.json", told | {"schema_version": 3})
    assert len(verify.problems(run.folder)) == 1, "numbers are numbers"


def test_a_later_attempt_replaces_a_failed_one(this_machine):
    run, cell = one_cell(repetitions=1)
    synthetic.commit(run, synthetic.repetition(cell, status="failed", error="first"))
    assert cell_of(run)["state"] == "failed"
    predicted = synthetic.predictions(cell.cell)
    record = synthetic.timing(run, cell, 0, rows([10], [2]), predicted)
    synthetic.commit(run, record.model_copy(update={"attempt": 2}), predicted)
    synthetic.commit(run, synthetic.memory(cell))
    assert (cell_of(run)["state"], cell_of(run)["errors"]) == ("ok", [])


def test_an_unstable_repetition_counts_and_shows(this_machine):
    run, cell = one_cell(repetitions=1)
    predicted = synthetic.predictions(cell.cell)
    record = synthetic.timing(run, cell, 0, rows([10], [2]), predicted).model_copy(update={"status": "unstable"})
    synthetic.commit(run, record, predicted)
    assert cell_of(run)["state"] == "unstable"
    assert cell_of(run)["latency_ms"] == 10


# ------------------------------------------------------------------ doubts


@pytest.mark.parametrize(
    ("medians", "doubts"),
    [
        ([10.0], ["1 repetition: no interval"]),
        ([10.0, 10.9], ["2 repetitions: no interval"]),
        ([10.0, 12.5], ["2 repetitions: no interval", "repetitions differ by 25%"]),
        ([10.0] * 5, []),
        ([10.0] * 4 + [11.5], ["repetitions differ by 15%"]),
    ],
)
def test_few_or_scattered_repetitions_are_doubted(this_machine, medians, doubts):
    run, cell = one_cell(repetitions=len(medians))
    predicted = synthetic.predictions(cell.cell)
    for number, median in enumerate(medians):
        synthetic.commit(run, synthetic.timing(run, cell, number, rows([median], [2]), predicted))
    assert cell_of(run)["doubts"] == doubts


@pytest.mark.parametrize(("faults", "explained"), [((3000, 31_000), True), ((3000, 5000), False), ((0, 900), False)])
def test_repetitions_that_differ_by_their_heaps_say_so(this_machine, faults, explained):
    run, cell = one_cell(repetitions=5)
    predicted = synthetic.predictions(cell.cell)
    for number, median in enumerate([10.0] * 4 + [11.5]):
        timed = rows([median], [2])
        timed[-1]["page_faults"] = faults[number == 4]
        synthetic.commit(run, synthetic.timing(run, cell, number, timed, predicted))
    assert cell_of(run)["iterations_ms"]["page_faults"] == list(faults)
    differ, *why = cell_of(run)["doubts"]
    assert differ == "repetitions differ by 15%"
    assert [doubt.startswith("so do their page faults, 3,000 to 31,000") for doubt in why] == [True] * explained


def test_logits_that_differ_between_repetitions_are_doubted(this_machine):
    run, cell = one_cell(repetitions=5)
    for number in range(5):
        predicted = synthetic.predictions(cell.cell, right=6 - (number == 4))
        synthetic.commit(run, synthetic.timing(run, cell, number, rows([10], [2]), predicted))
    assert cell_of(run)["doubts"] == ["logits differ between repetitions"]


# ------------------------------------------------------------------ the best cell


@pytest.mark.parametrize(
    ("policies", "policy", "size"),
    [
        (["fixed-128", "fixed-32", "longest"], "fixed-32", 4),
        (["longest"], "longest", 4),
        (["longest", "fixed-256"], "fixed-256", 4),
    ],
)
def test_the_best_cell_is_the_fastest_where_each_sentence_is_the_same_work(this_machine, policies, policy, size):
    """The synthetic batch takes 10 ms and 2 ms per sentence: the larger one has the higher throughput."""
    run = synthetic.finished_run(length_policies=policies)
    best = join.summarise(run.folder)["best_throughput"]
    assert (best["length_policy"], best["batch_size"], best["variant"]) == (policy, size, "sdpa")
    assert best["throughput_samples_per_s"] == pytest.approx(4 / 0.018 * (1 + 1 / 1.01) / 2)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("status", ["ok", "oom"])
def test_a_repetition_that_was_committed_twice_is_refused(this_machine, status):
    run, cell = one_cell()
    fields = synthetic.TIMED if status == "ok" else {}
    for _ in range(2):
        synthetic.commit(run, synthetic.repetition(cell, status=status, **fields))
    with pytest.raises(RunError, match=r"repetition .*'timing', 0\) is in raw\.jsonl twice"):
        join.summarise(run.folder)
    assert any("twice" in problem for problem in verify.problems(run.folder))


def test_a_missing_iterations_file_is_refused(finished_run):
    file = next((finished_run.folder / "iterations").iterdir())
    file.unlink()
    with pytest.raises(RunError, match=f"{file.name} is missing"):
        join.summarise(finished_run.folder)


# ------------------------------------------------------------------ verification


def problems_of(run: Run) -> str:
    problems = verify.problems(run.folder)
    assert problems, "the damage was not noticed"
    assert len(problems) == len(set(problems)), "each problem is said once"
    return "\n".join(problems)


def change_line(run: Run, number: int, **fields) -> dict:
    """Alters a field of a line of raw.jsonl; returns the line as it was."""
    lines = run.raw.read_text().splitlines()
    old = json.loads(lines[number])
    lines[number] = json.dumps(old | fields)
    run.raw.write_text("\n".join(lines) + "\n")
    return old


def change_json(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def first(run: Run, where: str) -> int:
    return next(i for i, record in enumerate(run.repetitions()) if record.pass_ == where and record.repetition == 0)


def test_a_finished_run_can_be_believed(finished_run):
    assert verify.problems(finished_run.folder) == []


def test_a_raw_file_is_read_once_though_records_and_summary_need_it(finished_run, monkeypatch):
    read, of_the_system = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file) or of_the_system(file))
    for _ in range(2):  # again in a second verification: what was kept is not kept for good
        read.clear()
        assert verify.problems(finished_run.folder) == []
        measured = [finished_run.raw, *finished_run.folder.glob("**/*.parquet")]
        assert len(measured) > 5
        assert sorted(read) == sorted(measured)


@pytest.mark.parametrize("run", RECORDED, ids=lambda folder: folder.name)
def test_a_recorded_run_can_be_believed(run):
    """A run of the ci profile as it was written: today's code reads every line and computes the same numbers."""
    assert verify.problems(run) == []
    lines = (run / "raw.jsonl").read_text().splitlines()
    recorded, rest = rawfiles.read_raw(run / "raw.jsonl", Repetition)
    assert rest == ""
    assert len(recorded) == len(lines) == 6
    for line, record in zip(lines, recorded, strict=True):
        assert json.loads(line).items() <= json.loads(record.to_line()).items(), "fields are added, never changed"
    assert {record.pass_ for record in recorded} == {"timing", "memory"}
    assert {record.status for record in recorded} == {"ok"}
    assert Run(run).status["state"] == "ok"


@pytest.mark.parametrize("run", RECORDED, ids=lambda folder: folder.name)
def test_a_recorded_run_holds_no_path_of_a_machine(run):
    """It was recorded with the checkout mounted at /mnt: env.json names the interpreter, data.json the local file."""
    for file in (*run.glob("*.json*"), *run.glob("*.md")):
        absolute = re.findall(r"(?<![\w/:.-])/\w+(?=/)", file.read_text())
        assert set(absolute) <= {"/mnt", "/sys"}, file


def test_there_is_a_recorded_run():
    assert RECORDED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_ms", 1.0),
        ("latency_per_sample_ms", 1.0),
        ("throughput_samples_per_s", 1e6),
        ("n_iterations", 1000),
        ("accuracy", 1.0),
        ("logits_sha256", "0" * 64),
    ],
)
def test_a_number_that_the_files_do_not_give_is_found(finished_run, name, value):
    old = change_line(finished_run, number := first(finished_run, "timing"), **{name: value})
    found = problems_of(finished_run)
    record = finished_run.repetitions()[number]
    assert f"raw.jsonl, {record.cell} timing 0: {name} says {value!r}, computed again it is {old[name]!r}" in found


def test_an_accuracy_of_a_later_repetition_is_computed_again_too(finished_run):
    records = finished_run.repetitions()
    later = next(i for i, record in enumerate(records) if record.pass_ == "timing" and record.repetition > 0)
    cell = records[later].cell
    same = next(r.logits_sha256 for r in records if r.cell == cell and r.pass_ == "timing" and r.repetition == 0)
    change_line(finished_run, later, accuracy=1.0, accuracy_reason=None, logits_sha256=same)
    assert f"{cell} timing {records[later].repetition}: accuracy says 1.0" in problems_of(finished_run)


def test_a_peak_that_was_altered_is_found_in_the_summary(finished_run):
    change_line(finished_run, first(finished_run, "memory"), peak_rss_MiB=1.0)
    assert "summary.json: cells[" in problems_of(finished_run)
    assert "peak_rss_MiB says 40" in problems_of(finished_run)


def test_a_line_that_was_removed_is_found(finished_run):
    lines = finished_run.raw.read_text().splitlines()
    finished_run.raw.write_text("\n".join(lines[:-1]) + "\n")
    assert "summary.json: cells[" in problems_of(finished_run)


def test_a_line_that_is_no_record_is_named(finished_run):
    finished_run.raw.write_text(finished_run.raw.read_text().replace('"pass":"timing"', '"pass":"speed"', 1))
    assert "raw.jsonl, line 1 is damaged" in problems_of(finished_run)


def test_an_altered_iterations_file_is_named(finished_run):
    record = finished_run.repetitions()[first(finished_run, "timing")]
    file = finished_run.folder / record.iterations_file
    faster = [row | {"latency_ms": row["latency_ms"] / 2} for row in read_parquet(file)]
    rawfiles.write_parquet(file, faster, sweep_records.ITERATIONS)
    assert f"{file} is not the committed file" in problems_of(finished_run)


def test_one_altered_byte_of_an_iterations_file_is_named(finished_run):
    file = next((finished_run.folder / "iterations").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert f"{file} is not the committed file" in problems_of(finished_run)


@pytest.mark.parametrize("change", ["label", "predicted", "logits"])
def test_an_altered_prediction_is_found(finished_run, change):
    file = finished_run.folder / "predictions.parquet"
    told = read_parquet(file)
    told[0] = told[0] | ({"logits": [0.0, 0.0]} if change == "logits" else {change: 1 - told[0][change]})
    rawfiles.write_parquet(file, told, sweep_records.PREDICTIONS)
    found = problems_of(finished_run)
    assert f"{told[0]['cell']} timing 0: {'logits_sha256' if change == 'logits' else 'accuracy'} says" in found


def test_missing_and_damaged_predictions_are_named(finished_run):
    file = finished_run.folder / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert "predictions.parquet is damaged" in problems_of(finished_run)
    file.unlink()
    assert "predictions.parquet is missing" in problems_of(finished_run)


def test_predictions_without_a_cell_are_found(finished_run):
    file, cell = finished_run.folder / "predictions.parquet", finished_run.config["cells"][0]["cell"]
    rawfiles.write_parquet(file, [row for row in read_parquet(file) if row["cell"] != cell], sweep_records.PREDICTIONS)
    assert f"{file} holds no predictions of {cell}" in problems_of(finished_run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["cells"][1].update(latency_ms=1.0), "summary.json: cells[1]: latency_ms says 1.0, computed again"),
        (lambda s: s["cells"][0]["doubts"].clear(), "summary.json: cells[0]: doubts says [], computed again"),
        (lambda s: s["cells"][0].pop("accuracy_n"), "summary.json: cells[0]: accuracy_n says None, computed again"),
        (lambda s: s["cells"].pop(), "summary.json: cells says [{"),
        (lambda s: s.update(profile="full"), "summary.json: profile says 'full', computed again it is 'ci'"),
        (lambda s: s.update(extra=1), "summary.json: extra says 1, computed again it is None"),
        (lambda s: s["best_throughput"].update(batch_size=1), "best_throughput: batch_size says 1"),
        (lambda s: s["cells"][0]["latency_ms_range"].reverse(), "summary.json: cells[0]: latency_ms_range[0] says"),
    ],
    ids=["number", "doubt", "missing", "cell", "profile", "extra", "best", "range"],
)
def test_an_altered_summary_is_found_and_the_place_is_named(finished_run, change, said):
    change_json(finished_run.folder / "summary.json", change)
    assert said in problems_of(finished_run)


def test_a_run_without_a_summary_is_unfinished(finished_run):
    (finished_run.folder / "summary.json").unlink()
    assert "summary.json is missing: the run is unfinished" in problems_of(finished_run)


@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_a_damaged_file_is_one_of_the_problems(finished_run, name):
    (finished_run.folder / name).write_text('{"cells": [')
    assert f"{name} is damaged" in problems_of(finished_run)


def test_a_changed_configuration_is_found(finished_run):
    change_json(finished_run.folder / "config.json", lambda c: c["parameters"].update(profile="full"))
    assert "profile says 'ci', computed again it is 'full'" in problems_of(finished_run)


def test_several_problems_are_all_said(finished_run):
    change_line(finished_run, first(finished_run, "timing"), latency_ms=1.0)
    for file in sorted((finished_run.folder / "iterations").glob("*-01.parquet")):
        file.unlink()
    found = problems_of(finished_run)
    assert found.count("is missing") == 2
    assert "latency_ms says 1.0" in found


def test_a_design_of_every_synthetic_cell_is_that_of_the_sweep(finished_run):
    """What these tests spoil is what the sweep would have written."""
    assert finished_run.config["cells"] == [c.model_dump() for c in design.cells_of(synthetic.resolved().params)]


# ------------------------------------------------------------------ energy, roofline, telemetry


def window(rapl: float, pyrapl: float | None = None, seconds: float = 10.0, samples: int = 100) -> dict:
    return {"seconds": seconds, "samples": samples, "joules": {"rapl": rapl} | ({"pyrapl": pyrapl} if pyrapl else {})}


LOST = window(0.0) | {"joules": {}, "invalid": {"rapl": "it was set back"}}


def with_energy(
    *windows: dict, source: str = "rapl", idle_after: float = 20.0, quota: dict | None = None, **changed
) -> dict:
    """The summary of a cell whose energy pass had these windows."""
    run, cell = one_cell(passes=["timing", "energy"], repetitions=1, energy_cells="all")
    predicted = synthetic.predictions(cell.cell)
    synthetic.commit(run, synthetic.timing(run, cell, 0, synthetic.iterations(2), predicted), predicted)
    found = {
        "windows": list(windows), "idle_before_W": {source: 20.0}, "idle_after_W": {source: idle_after}, "idle_s": 10.0,
        "tick_ms": 1.0, "counters": {source: ["package-0"]}, "notes": [],
    } | changed  # fmt: skip
    fields = derive.energy_fields(found, source)
    synthetic.commit(
        run, synthetic.repetition(cell, "energy", energy=found, energy_source=source, **fields, **(quota or {}))
    )
    synthetic.summarised(run)
    assert verify.problems(run.folder) == []
    return cell_of(run)


def test_energy_by_hand(this_machine):
    """500 J in 10 s of which 200 J are idle: 5 J per sample gross, 3 J net."""
    cell = with_energy(*[window(joules) for joules in (498.0, 499.0, 500.0, 501.0, 502.0)])
    assert cell["state"] == "ok"
    assert (cell["energy_J"], cell["energy_per_sample_J"], cell["energy_net_per_sample_J"]) == (500.0, 5.0, 3.0)
    assert (cell["energy_source"], cell["energy_windows"]) == ("rapl", 5)
    low, high = cell["energy_per_sample_J_interval_95"]
    assert (low + high) / 2 == pytest.approx(5)
    assert high - low == pytest.approx(2 * 2.776445 * 0.0158114 / 5**0.5, rel=1e-3)
    assert cell["doubts"][-1].startswith("energy: windows of one process")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (lambda: with_energy(window(500.0)), "energy: one window, no interval"),
        (lambda: with_energy(window(500.0), window(500.0)), "energy: 2 windows, no interval"),
        (lambda: with_energy(window(500.0, 560.0)), "energy by pyrapl is +12.0% against rapl"),
        (
            lambda: with_energy(window(500.0), idle_after=30.0),
            "energy: at rest the machine drew 20.0 W before and 30.0 W",
        ),
        (
            lambda: with_energy(window(500.0), quota={"quota_periods": 1545, "throttled_periods": 842}),
            "energy: throttled by its CPU quota in 842 of 1,545 periods",
        ),
        (lambda: with_energy(window(190.0)), "net energy is not above 0"),
        (lambda: with_energy(window(500.0), tick_ms=None), "how often the counter is renewed could not be seen"),
        (lambda: with_energy(window(500.0), notes=["a note"]), "a note"),
        (
            lambda: with_energy(window(500.0), window(170.0), window(500.0)),
            "energy: a window drew 17.0 W, and the machine at rest 20.0 W",
        ),
        (
            lambda: with_energy(window(500.0), window(2_000.0), limits_W={"rapl": 120.0}),
            "energy: 200 W were drawn, and the power limit is 120 W",
        ),
        (
            lambda: with_energy(window(500.0), idle_after=160.0, limits_W={"rapl": 120.0}),
            "energy: 160 W were drawn, and the power limit is 120 W",
        ),
        (
            lambda: with_energy(*[window(500.0)] * 4, window(9_000.0)),
            "energy: the windows drew between 50 and 900 W, though all hold the same work",
        ),
        (
            lambda: with_energy(*[window(500.0)] * 4, window(300.0)),
            "energy: the windows drew between 30 and 50 W, though all hold the same work",
        ),
        (
            lambda: with_energy(*[window(500.0)] * 2, LOST),
            "energy: 1 of 3 windows are invalid and left out: it was set back",
        ),
        (
            lambda: with_energy(window(500.0), idle_before_W={}, idle_invalid={"rapl": "it was set back"}),
            "energy: none net, since the baseline at rest is invalid: it was set back",
        ),
    ],
)
def test_what_makes_joules_doubtful_is_said(this_machine, cell, said):
    assert any(said in doubt for doubt in cell()["doubts"])


def test_power_that_can_be_is_no_doubt(this_machine):
    windows = [window(joules) for joules in (480.0, 500.0, 500.0, 520.0, 550.0)]
    doubts = with_energy(*windows, limits_W={"rapl": 50.0})["doubts"]
    assert [doubt for doubt in doubts if "drew" in doubt or "drawn" in doubt or "invalid" in doubt] == []


def test_windows_that_are_invalid_count_nowhere(this_machine):
    """Neither among those of the source to report, nor where another source is compared with it."""
    half = window(0.0, 700.0) | {"joules": {"pyrapl": 700.0}, "invalid": {"rapl": "it was set back"}}
    cell = with_energy(window(500.0, 505.0), window(500.0), half)
    assert (cell["energy_J"], cell["energy_per_sample_J"], cell["energy_windows"]) == (500.0, 5.0, 2)
    assert cell["energy_windows_W"] == [50.0, 50.0]
    assert cell["energy_windows_invalid"] == ["it was set back"]
    assert cell["energy_others"] == {"pyrapl": pytest.approx(0.01)}


def test_two_sources_that_agree_are_no_doubt(this_machine):
    cell = with_energy(window(500.0, 505.0))
    assert cell["energy_others"] == {"pyrapl": pytest.approx(0.01)}
    assert not any("against" in doubt for doubt in cell["doubts"])


def test_a_given_power_is_called_modelled(this_machine):
    windows = [{"seconds": 10.0, "samples": 100, "joules": {"modelled": 650.0}}]
    cell = with_energy(*windows, source="modelled")
    assert (cell["energy_net_per_sample_J"], cell["energy_net_per_sample_J_reason"]) == (
        None,
        "a given power knows no idle",
    )
    assert "energy is modelled, not measured" in cell["doubts"]


def with_rows(ceilings: dict | None = None, fields: dict | None = None, **columns) -> dict:
    """The summary of a cell with these columns on its last timed iteration."""
    run, cell = one_cell(passes=["timing"], repetitions=1)
    rows = synthetic.iterations(2)
    rows[0] |= {"cpu_MHz": 1.0, "gpu_throttle_reasons": 0x40}  # in the warm-up: does not count
    rows[-2] |= {name: values[0] for name, values in columns.items()}
    rows[-1] |= {name: values[1] for name, values in columns.items()}
    predicted = synthetic.predictions(cell.cell)
    synthetic.commit(run, synthetic.timing(run, cell, 0, rows, predicted).model_copy(update=fields or {}), predicted)
    if ceilings:
        paths.write_json(run.folder / "ceilings.json", ceilings)
    return cell_of(run)


def test_the_state_of_the_machine_is_kept_and_doubted(this_machine):
    cell = with_rows(cpu_MHz=(2000.0, 3000.0), cpu_throttles=(2, 3), gpu_throttle_reasons=(0x8, 0x104))
    assert cell["telemetry"]["cpu_MHz"] == [2000.0, 3000.0]
    assert cell["telemetry"]["cpu_throttles"] == 5, "they are added up"
    assert cell["telemetry"]["gpu_throttle_reasons"] == 0x10C, "every bit counts"
    said = "; ".join(cell["doubts"])
    assert "the CPU's clock went between 2000 and 3000 MHz" in said
    assert "throttled for heat (5 times" in said
    assert "throttle reasons 0xc" in said, "idle (0x100) slows nothing down"


def test_a_gpu_that_others_use_is_said(this_machine):
    assert "2 other processes computed on the GPU" in with_rows(gpu_foreign_processes=(0, 2))["doubts"]


@pytest.mark.parametrize(
    ("flops", "moved", "bound", "fraction"),
    [(1e9, 1e3, "compute", 0.5), (1.0, 4e8, "memory", 0.4), (3e9, 1.0, "compute", 1.5)],
)
def test_the_roofline_by_hand(this_machine, flops, moved, bound, fraction):
    """A cycle takes 16 batches of 14 ms; the machine does 1e9 products and 1e9 bytes in that time over its ceilings."""
    seconds = 16 * 0.014
    ceilings = {"matrix_flops_per_s": {"float32": 2e9 / seconds}, "memory_bytes_per_s": 1e9 / seconds}
    cell = with_rows(ceilings, {"flops_per_cycle": flops, "bytes_per_cycle": moved})
    assert cell["roofline"]["bound"] == bound
    assert cell["roofline"]["fraction"] == pytest.approx(fraction)
    assert any("ceiling allows" in doubt for doubt in cell["doubts"]) == (fraction > 1)


def test_the_roofline_of_a_cycle_of_so_many_batches_counts_their_sentences():
    assert [cycle_samples(64, 8, size) for size in (1, 4, 8, 16)] == [8, 32, 64, 64]
    ceilings = {"matrix_flops_per_s": {"float32": 1e9}, "memory_bytes_per_s": 1e12}
    timing = [
        synthetic.timing(
            *one_cell(passes=["timing"], repetitions=1), 0, synthetic.iterations(2), synthetic.predictions("x")
        )
    ]
    timing = [one.model_copy(update={"flops_per_cycle": 1e9, "bytes_per_cycle": 1.0}) for one in timing]
    cell = {"variant": "sdpa", "dtype": "float32", "batch_size": 4, "throughput_samples_per_s": 16.0}
    found = join._roofline(cell, timing, {"samples_per_cycle": 64, "batches_per_cycle": 8}, ceilings)
    assert found["fraction"] == 0.5, "32 sentences take two seconds"
    found = join._roofline(cell, timing, {"samples_per_cycle": 64}, ceilings)
    assert found["fraction"] == 0.25


def test_without_ceilings_there_is_no_roofline(this_machine):
    assert with_rows({"reason": "out of memory"}, {"flops_per_cycle": 1.0, "bytes_per_cycle": 1.0})["roofline"] is None


# ------------------------------------------------------------------ another library's rounding


INEXACT = [
    "summary.json: cells[1]: iterations_ms: autocorrelation",
    "summary.json: nodes: ratios: node-1",
    "summary.json: nodes: p_value",
    "summary.json: control: ratio",
    "summary.json: control: ratio_interval_95[1]",
]
EXACT = [
    "summary.json: cells[1]: latency_ms",
    "summary.json: cells[1]: latency_ms_interval_95[0]",
    "summary.json: cells[1]: iterations_ms: mean",
    "summary.json: cells[1]: roofline: fraction",
    "raw.jsonl, a cell timing 0: throughput_samples_per_s",
    "summary.json: nodes: rounds",
]


def nested(where: str, value: float) -> dict:
    """The JSON value in which that path leads to the value."""
    keys = re.findall(r"[^:\[\] ]+", where.partition(": ")[2])
    for key in reversed(keys):
        value = [0.5] * int(key) + [value] if key.isdigit() else {key: value}
    return value


@pytest.mark.parametrize("where", INEXACT + EXACT)
def test_only_what_came_through_blas_may_differ_by_rounding(where):
    root, one = where.partition(": ")[0], 1.25
    kind = measurement.named("calibration" if "checks" in where else "sweep")
    told, rounded, other = (nested(where, value) for value in (one, math.nextafter(one, 2), one * (1 + 1e-6)))
    assert verify.differences(told, told, root) == []
    assert (verify.differences(told, rounded, root, kind.inexact) == []) == (where in INEXACT)
    assert verify.differences(told, other, root, kind.inexact) == [
        f"{where} says 1.25, computed again it is {one * (1 + 1e-6)!r}"
    ]
    assert verify.differences(told, nested(where, None), root), "absent is never nearly a number"


def test_a_run_verifies_where_another_library_rounds_otherwise(this_machine, monkeypatch):
    """Least squares, dot products and logarithms that differ in their last bits, as between two kinds of BLAS."""
    run = synthetic.finished_run(control=True, repetitions=6)
    lstsq, log = np.linalg.lstsq, np.log
    monkeypatch.setattr(np.linalg, "lstsq", lambda *a, **k: (lstsq(*a, **k)[0] * (1 + 1e-15), None, None, None))
    monkeypatch.setattr(np, "log", lambda values: log(values) * (1 + 1e-15))
    correlate = join.autocorrelation
    monkeypatch.setattr(join, "autocorrelation", lambda one: (r := correlate(one)) and r * (1 + 1e-15))
    again = join.summarise(run.folder)
    assert again != paths.read_json(run.folder / "summary.json"), "it does differ"
    assert verify.problems(run.folder) == []


def test_a_warm_up_that_was_altered_is_found(finished_run):
    line, *rest = finished_run.raw.read_text().splitlines()
    assert '"settled":true' in line or '"settled":null' in line
    finished_run.raw.write_text("\n".join([line.replace('"settled":true', '"settled":false'), *rest]) + "\n")
    assert any("warmup: settled says False" in problem for problem in verify.problems(finished_run.folder))
