"""Verdicts whose truth is known."""

from __future__ import annotations

import math

import pytest
from claimed import claim_of, per_sentence, timed_run

from distilbench import paths
from distilbench.publication.claims import trial
from distilbench.publication.claims.model import Expected
from distilbench.publication.claims.rules import judged
from distilbench.runs.folder import Run

pytestmark = pytest.mark.usefixtures("this_machine")
LITTLE = [1.005, 0.996, 1.002, 0.999, 1.004, 0.995, 1.001, 0.998, 1.003, 0.997]
MUCH = [1.4, 0.7, 1.25, 0.8, 1.3, 0.75, 1.2, 0.85, 1.35, 0.72]
AUTOCAST = {
    "rule": "ratio",
    "of": {"number": "throughput_samples_per_s", "where": {"variant": "autocast"}, "proof": {"matmul_dtype": "bf*"}},
    "to": {"number": "throughput_samples_per_s", "where": {"variant": "sdpa"}, "proof": {"matmul_dtype": "float32"}},
    "expected": {"at_least": 1.02},
}
HUB = {"model": "somebody/their-model", "text": "somebody/their-text"}


def alter(run: Run, file: str, **changed: object) -> None:
    paths.write_json(run.folder / file, paths.read_json(run.folder / file) | changed)


@pytest.mark.parametrize(
    ("factor", "noise", "verdict", "notes"),
    [
        (1.39, [1.0] * 10, "REPRODUCED", ()),
        (1.39, LITTLE, "REPRODUCED", ()),
        (1.20, LITTLE, "NOT REPRODUCED", ("less than claimed",)),
        (1.80, LITTLE, "NOT REPRODUCED", ("more than claimed",)),
        (1.39, MUCH, "AMBIGUOUS", ()),
        (1.20, MUCH, "AMBIGUOUS", ()),
        (1.46, LITTLE, "AMBIGUOUS", ()),  # at the edge of what the claim says
    ],
)
def test_a_ratio_whose_truth_is_known(factor, noise, verdict, notes):
    run = timed_run(per_sentence(factor, noise.__getitem__))
    outcome = trial.try_claim(claim_of(), [run])
    (test,) = outcome.tests
    assert (outcome.verdict, test.verdict, test.notes, test.n) == (verdict, verdict, notes, 10)
    assert test.low <= test.value <= test.high
    assert test.value == pytest.approx(factor, rel=0.05)


def test_rounds_that_are_slow_for_both_cells_cost_no_width():
    """The rounds of `per_sentence` differ by 18 %; pairs of one round do not."""
    (test,) = trial.try_claim(claim_of(), [timed_run(per_sentence(1.39))]).tests
    assert test.high / test.low < 1.001


def test_two_processes_decide_nothing():
    (test,) = (outcome := trial.try_claim(claim_of(), [timed_run(per_sentence(1.39), repetitions=2)])).tests
    assert (outcome.verdict, test.low, test.notes) == ("AMBIGUOUS", None, ("too few for an interval",))


@pytest.mark.parametrize(("factor", "verdict"), [(1.15, "REPRODUCED"), (1.0, "NOT REPRODUCED")])
def test_a_batch_size_that_stands_out_of_a_line(factor, verdict):
    def batch_ms(cell, number):
        line = 10 + 2 * cell.batch_size
        return line / (factor if cell.batch_size == 4 else 1) * LITTLE[number]

    rule = {"rule": "against-line", "of": {"number": "latency_ms", "where": {"batch_size": 4}}, "along": "batch_size",
            "through": [1, 2, 8], "expected": {"about": 1.15, "within": 0.05}}  # fmt: skip
    whole = timed_run(batch_ms, batch_sizes=[1, 2, 4, 8], samples_per_cycle=64)
    (test,) = (outcome := trial.try_claim(claim_of(test=rule), [whole])).tests
    assert outcome.verdict == verdict
    assert test.value == pytest.approx(factor)
    short = timed_run(batch_ms, batch_sizes=[1, 2, 4])
    assert trial.try_claim(claim_of(test=rule), [short]).verdict == "CANNOT BE TESTED HERE"


def test_a_value_in_a_range():
    """A sentence takes 5.45 ms at a batch size of 2 (the mean over rounds that get slower)."""
    run = timed_run(per_sentence(1.0))
    rule = {"rule": "value", "of": {"number": "latency_per_sample_ms", "where": {"batch_size": 2}}}
    for expected, verdict in (
        ({"at_least": 4, "at_most": 7}, "REPRODUCED"),
        ({"at_most": 4}, "NOT REPRODUCED"),
        ({"at_least": 5.45}, "AMBIGUOUS"),
    ):
        outcome = trial.try_claim(claim_of(test=rule | {"expected": expected}), [run])
        assert outcome.verdict == verdict
        assert outcome.tests[0].cells == "batch size 2, fixed-32, sdpa"


def test_an_accuracy_has_the_interval_of_wilson_and_needs_the_model_itself():
    run = timed_run(per_sentence(1.0))
    rule = {"rule": "value", "of": {"number": "accuracy", "where": {"batch_size": 2}}, "expected": {"at_least": 0.5}}
    (test,) = (outcome := trial.try_claim(claim_of(test=rule), [run])).tests
    assert (outcome.verdict, test.n, test.value) == ("REPRODUCED", 32, 0.75)
    assert (test.low, test.high) == pytest.approx((0.5789, 0.8675), abs=1e-4)
    other = trial.try_claim(claim_of(test=rule, hardware={"device": "any"}, **HUB), [run])
    assert other.verdict == "CANNOT BE TESTED HERE"
    assert next(iter(other.reasons)).startswith("accuracy says nothing of another model or text (model: imagined")
    assert "with somebody/their-model itself" in other.takes
    alter(run, "model.json", source="hub", name="somebody/their-model")
    alter(run, "data.json", source="hub", name="somebody/their-text default, test split")
    assert trial.try_claim(claim_of(test=rule, **HUB), [run]).verdict == "REPRODUCED"


@pytest.mark.parametrize("hardware", [{"device": "cuda"}, {"device": "cuda", "gpu": "A100"}])
def test_other_hardware_never_refutes_a_claim(hardware):
    outcome = trial.try_claim(claim_of(hardware=hardware), [timed_run(per_sentence(0.5))])
    assert (outcome.verdict, outcome.tests) == ("CANNOT BE TESTED HERE", [])
    assert next(iter(outcome.reasons)).startswith("it was measured on ")
    assert "--device cuda:0 -p batch_sizes 2,4`, then `distilbench publish`" in outcome.takes


@pytest.mark.parametrize(("gpu", "tested"), [("A100", True), ("H100", False)])
def test_a_gpu_is_known_by_the_name_that_the_workers_found(gpu, tested):
    run = timed_run(per_sentence(1.39), proof=lambda *_: {"gpu": "NVIDIA A100-SXM4-80GB"})
    alter(run, "config.json", parameters=run.config["parameters"] | {"device": "cuda:0"})
    outcome = trial.try_claim(claim_of(hardware={"device": "cuda", "gpu": gpu}), [run])
    assert bool(outcome.tests) is tested


def half_time(cell, number):
    return 5.0 * cell.batch_size * LITTLE[number] / (2 if cell.variant == "autocast" else 1)


def proved(*rounds):
    """Autocast was on in these rounds only."""
    return lambda cell, number: {
        "matmul_dtype": "bfloat16" if cell.variant == "autocast" and number in rounds else "float32"
    }


@pytest.mark.parametrize(("rounds", "verdict", "n"), [(range(10), "REPRODUCED", 10), (range(6), "REPRODUCED", 6)])
def test_a_variant_counts_where_its_proof_says_that_it_was_on(rounds, verdict, n):
    run = timed_run(half_time, proved(*rounds), variants=["sdpa", "autocast"], batch_sizes=[2])
    (test,) = (outcome := trial.try_claim(claim_of(test=AUTOCAST), [run])).tests
    assert (outcome.verdict, test.n) == (verdict, n)
    assert test.cells == "batch size 2, fixed-32"


def test_a_variant_whose_proof_says_off_is_not_counted():
    run = timed_run(half_time, proved(), variants=["sdpa", "autocast"], batch_sizes=[2])
    outcome = trial.try_claim(claim_of(test=AUTOCAST), [run])
    assert outcome.verdict == "CANNOT BE TESTED HERE"
    said = "none of its 10 processes with variant autocast has the proof matmul dtype bf*"
    assert outcome.reasons == {said: [run.run_id]}


def test_cells_that_no_round_has_both_of_are_not_compared():
    def in_turn(cell, number):
        late = number >= 5
        return {"matmul_dtype": "bfloat16" if late else "float32"}  # autocast was on late, and then sdpa was narrow too

    run = timed_run(half_time, in_turn, variants=["sdpa", "autocast"], batch_sizes=[2])
    (why,) = trial.try_claim(claim_of(test=AUTOCAST), [run]).reasons
    assert why == "it has no cells that differ in variant alone, measured side by side"


def test_tests_that_disagree_are_ambiguous_and_hold_together():
    def batch_ms(cell, number):
        return half_time(cell, number) * (3 if cell.variant == "autocast" and cell.batch_size == 4 else 1)

    run = timed_run(batch_ms, proved(*range(10)), variants=["sdpa", "autocast"])
    both = trial.try_claim(claim_of(test=AUTOCAST), [run])
    assert (both.verdict, [test.verdict for test in both.tests]) == ("AMBIGUOUS", ["REPRODUCED", "NOT REPRODUCED"])
    one = trial.try_claim(claim_of(test=AUTOCAST | {"cells": {"batch_size": 2}}), [run])
    assert one.verdict == "REPRODUCED"
    assert one.tests[0].high <= both.tests[0].high, "an interval of two is wider, so that both hold at 95 %"


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        (["REPRODUCED", "AMBIGUOUS"], "AMBIGUOUS"),
        (["NOT REPRODUCED", "AMBIGUOUS"], "NOT REPRODUCED"),
        ([], "CANNOT BE TESTED HERE"),
    ],
)
def test_what_several_tests_say_together(verdicts, together):
    tests = [trial.Test(None, "", 5, 1.0, 1.0, 1.0, verdict) for verdict in verdicts]
    assert trial._together(tests) == together


def test_what_is_not_the_claims_stands_beside_the_verdict_until_a_run_of_its_own_decides():
    other, own = timed_run(per_sentence(1.0)), timed_run(per_sentence(1.39))
    claim = claim_of(**HUB)
    outcome = trial.try_claim(claim, [other])
    assert (outcome.verdict, outcome.of_others) == ("NOT REPRODUCED", True)
    assert outcome.beside[other.run_id][0] == "model: imagined (source embedded), not somebody/their-model"
    alter(own, "model.json", source="hub", name="somebody/their-model")
    alter(own, "data.json", source="hub", name="somebody/their-text default, test split")
    outcome = trial.try_claim(claim, [other, own])
    assert (outcome.verdict, outcome.of_others, list(outcome.beside)) == ("REPRODUCED", False, [own.run_id])


def test_runs_that_are_not_for_citation_decide_nothing_and_say_so():
    run = timed_run(per_sentence(1.39))
    assert trial.before([claim_of()], [run])[0].verdict == "CANNOT BE TESTED HERE"
    assert next(iter(trial.before([claim_of()], [run])[0].reasons)) == "no full run of study distilbert is published"
    shown = trial.try_claim(claim_of(), [run])
    assert shown.verdict == "REPRODUCED"
    assert shown.beside[run.run_id][0].startswith("profile ci: ")
    assert shown.beside[run.run_id][0].endswith("it decides nothing")
    alter(run, "config.json", parameters=run.config["parameters"] | {"profile": "full"})
    assert trial.before([claim_of()], [run])[0].verdict == "REPRODUCED"


def test_why_a_run_cannot_test_a_claim():
    run = timed_run(per_sentence(1.39), batch_sizes=[2])
    assert "it has no throughput_samples_per_s of cells with batch size 4" in trial.try_claim(claim_of(), [run]).reasons
    (run.folder / "summary.json").unlink()
    assert "it is unfinished" in trial.try_claim(claim_of(), [run]).reasons
    other = claim_of(study="profile")
    assert "it is of study distilbert, the claim of profile" in trial.try_claim(other, [run]).reasons


def test_a_cell_that_had_not_settled_is_marked():
    run = timed_run(per_sentence(1.39))
    states = run.status["cells"]
    run.set_status("ok", cells={name: "unstable" for name in states if name.endswith("b002")})
    assert trial.try_claim(claim_of(), [run]).tests[0].notes == ("unstable",)


def test_a_number_that_may_be_zero_is_refused():
    run = timed_run(per_sentence(1.0))
    rule = {"rule": "value", "of": {"number": "padding_share", "where": {"batch_size": 2}}, "expected": {"at_most": 1}}
    lines = [record.model_copy(update={"padding_share": 0.0}).to_line() for record in run.repetitions()]
    run.raw.write_text("\n".join(lines) + "\n")
    (why,) = trial.try_claim(claim_of(test=rule), [run]).reasons
    assert why == "its padding_share of batch size 2, fixed-32, sdpa is 0: a claim needs numbers above 0"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.0, 2.0), ("REPRODUCED", "")),
        ((0.9, 1.5), ("AMBIGUOUS", "")),
        ((0.5, 0.9), ("NOT REPRODUCED", "less than claimed")),
        ((2.1, 3.0), ("NOT REPRODUCED", "more than claimed")),
        ((0.5, 3.0), ("AMBIGUOUS", "")),
        (None, ("AMBIGUOUS", "")),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(interval, verdict):
    assert judged(interval, Expected(at_least=1, at_most=2)) == verdict


def test_what_is_expected():
    assert Expected(about=1.5, within=0.5).bounds == (1.0, 2.25)
    assert Expected(at_least=2).bounds == (2, math.inf)
    assert Expected(at_most=2).bounds == (0, 2)
    ranges = [Expected(at_least=8, at_most=15), Expected(at_least=2), Expected(at_most=3)]
    assert list(map(str, ranges)) == ["8 to 15", "at least 2", "at most 3"]
    assert str(Expected(about=1.39, within=0.05)) == "1.39, 5 % either way"
