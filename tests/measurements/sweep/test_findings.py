"""Findings against tables whose answers are known by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from distilbench.measurements.sweep.show import findings, lengths


def curve(machine: str = "CPU", policy: str = "fixed-32", variant: str = "sdpa", **columns) -> pd.DataFrame:
    base = {"batch_size": [1, 2, 4, 8], "latency_ms": [10.0, 12.0, 20.0, 40.0]}
    rows = pd.DataFrame(base | columns).assign(machine=machine, variant=variant, length_policy=policy)
    if "throughput_samples_per_s" not in columns:
        rows["throughput_samples_per_s"] = rows["batch_size"] / rows["latency_ms"] * 1e3
    return rows


def test_best_and_where_scaling_stops():
    assert findings.best(curve()) == {
        "throughput_batch_size": 4,  # 100, 166.7, 200, 200: the first of equals
        "throughput_samples_per_s": 200.0,
        "latency_batch_size": 1,
        "latency_ms": 10.0,
        "saturated_batch_size": 4,
        "throughput_mark": "",
        "latency_mark": "",
        "saturated_mark": "",
    }


def test_no_larger_batch_beats_the_one_where_scaling_stops_by_more_than_is_said():
    """95.1 % of the best is 5.15 % less: more than the 5 % that the sentence names."""
    rows = curve(throughput_samples_per_s=[50.0, 95.1, 100.0, 99.0])
    assert findings.best(rows)["saturated_batch_size"] == 4
    assert findings.best(curve(throughput_samples_per_s=[50.0, 95.3, 100.0, 99.0]))["saturated_batch_size"] == 2


def test_what_one_run_does_not_know_to_be_cut_is_not_called_uncut():
    known = curve(policy="longest", truncated_share=0.0).assign(truncated_of="of a cycle")
    other = curve("GPU", policy="longest", truncated_share=None).assign(truncated_of=None)
    assert lengths.in_words(pd.concat([known, other])) == [
        f"longest cuts no sentence; of GPU it is not known: {lengths.UNKNOWN}"
    ]
    cut = known.assign(truncated_share=0.25)
    (said,) = lengths.in_words(pd.concat([cut, other]))
    assert said == f"longest cuts 25.0% of the sentences of a cycle; of GPU it is not known: {lengths.UNKNOWN}"


def test_efficiency_is_one_for_linear_scaling():
    linear = curve(latency_ms=[10.0] * 4)
    assert findings.efficiency(linear)["efficiency"].tolist() == [1, 1, 1, 1]
    assert findings.efficiency(curve())["efficiency"].tolist() == pytest.approx([1, 10 / 12, 0.5, 0.25])


def test_efficiency_is_not_said_where_the_work_per_sentence_changes():
    both = pd.concat([curve(), curve(policy="longest")])
    assert set(findings.efficiencies(both)["length_policy"]) == {"fixed-32"}
    assert not any("linear" in said and "longest" in said for said in findings.sentences(both))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([20.0, 18.0, 15.0, 16.0], (4, "one", "other")),
        ([20.0, 20.0, 30.0, 50.0], (None, "one", "one")),
        ([5.0, 6.0, 7.0, 8.0], (None, "other", "other")),
        ([5.0, 20.0, 15.0, 16.0], (4, "other", "other")),  # a lead that is lost in between counts from where it stays
    ],
)
def test_crossover(other, expected):
    result = findings.crossover(curve(), curve("GPU", latency_ms=other), "latency_ms")
    assert (result["batch_size"], result["winner_first"], result["winner_last"]) == expected


def test_crossover_uses_only_batch_sizes_that_both_have():
    other = curve("GPU", latency_ms=[1.0] * 4).assign(batch_size=[16, 32, 64, 128])
    assert findings.crossover(curve(), other, "latency_ms")["winner_last"] is None


def test_no_crossover_is_said():
    both = pd.concat([curve(), curve("GPU", latency_ms=[1.0, 1.0, 1.0, 1.0])])
    said = findings.sentences(both)
    assert any("latency" in s and "GPU is better throughout: no crossover in the measured range" in s for s in said)


def test_cells_that_were_not_measured_are_left_out():
    broken = curve(latency_ms=[10.0, 12.0, 20.0, None])
    assert len(findings.series(broken)[0][1]) == 3


def test_padding_is_said_where_it_is_known():
    said = findings.sentences(curve(padding_share=[0.0, 0.1, 0.2, 0.25]))
    assert "fixed-32: 25% of the positions computed at batch size 8 are padding." in said


def test_what_is_unstable_is_marked_wherever_it_is_named():
    unstable = curve(state=["unstable", "ok", "unstable", "ok"])
    best = findings.best(unstable)
    assert (best["throughput_mark"], best["latency_mark"]) == (" (unstable)", " (unstable)")
    first, stops, efficiency = findings.sentences(unstable)[:3]
    assert "batch size 4 (unstable) with 200 samples/s" in first
    assert "batch size 1 (unstable) with 10 ms" in first
    assert "stops at batch size 4 (unstable)" in stops
    assert "at batch size 8 throughput" in efficiency
    assert "from batch size 1 (unstable)" in efficiency
    other = curve("GPU", latency_ms=[1.0] * 4).assign(state="ok")
    (said,) = (s for s in findings.sentences(pd.concat([unstable, other])) if s.startswith("latency"))
    assert said.startswith("latency (sdpa, fixed-32; unstable at 1, 4): GPU is better throughout")
    assert not any("unstable" in s for s in findings.sentences(curve()))


def test_what_is_cut_is_said_beside_the_padding():
    cut = curve(truncated_share=0.279).assign(truncated_of="of the whole text")
    uncut = curve(policy="longest", truncated_share=0.0).assign(truncated_of="of a cycle")
    said = findings.sentences(pd.concat([cut, uncut]))
    assert said[-2:] == ["fixed-32 cuts 27.9% of the sentences of the whole text.", "longest cuts no sentence."]


def test_machine_and_variant_are_named_where_they_vary():
    one = findings.sentences(curve())
    assert one[0].startswith("fixed-32: highest throughput")
    two = findings.sentences(pd.concat([curve(), curve(machine="GPU"), curve(variant="eager")]))
    assert two[0].startswith("CPU, eager, fixed-32: highest throughput")
    assert any(said.startswith("GPU, sdpa, fixed-32: ") for said in two)


def test_the_mark_where_scaling_stops_is_that_of_its_own_cell():
    """Not of the fastest one."""
    rows = curve(throughput_samples_per_s=[50.0, 98.0, 100.0, 99.0]).assign(state=["ok", "unstable", "ok", "ok"])
    found = findings.best(rows)
    assert (found["saturated_batch_size"], found["throughput_batch_size"]) == (2, 4)
    assert (found["saturated_mark"], found["throughput_mark"]) == (" (unstable)", "")
