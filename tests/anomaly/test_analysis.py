"""Which sizes deviate, on files whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from batch_profiles import FIXED_MS, PER_SAMPLE_MS, SIZES, invented, truth

from distilbench.anomaly.analysis import DEVIATES, FORKED, SEEMS, analyse
from distilbench.anomaly.records import BatchProfile


def named(analysis, kinds) -> dict[int, str]:
    return {size.batch_size: size.found for _, size in analysis.sizes(kinds)}


def test_without_a_deviation_none_is_named():
    analysis = analyse(invented())
    assert named(analysis, DEVIATES) == {}
    assert {size.found for _, size in analysis.sizes(["linear", "undecided", *SEEMS])} == {"linear"}
    (curve,) = analysis.curves
    assert (curve.fixed_ms, curve.per_sample_ms) == pytest.approx((FIXED_MS, PER_SAMPLE_MS), rel=0.01)
    assert (analysis.rounds, analysis.compared, analysis.no_verdict) == (10, len(SIZES), "")


@pytest.mark.parametrize("size", [1, 4, 16, 128])
@pytest.mark.parametrize(("factor", "found"), [(1.3, "slower than linear"), (0.7, "faster than linear")])
def test_one_size_that_deviates_is_named_and_no_other(size, factor, found):
    analysis = analyse(invented({size: factor}))
    assert named(analysis, [*DEVIATES, *SEEMS]) == {size: found}
    ((_, one),) = analysis.sizes(DEVIATES)
    low, high = one.efficiency.together
    assert low < 1 / factor < high
    assert one.efficiency.alone[0] > low, "all at once is said with less precision"
    assert one.predicted_ms == pytest.approx(truth(size), rel=0.02)
    assert one.extrapolated == (size in (1, 128))


def test_several_are_all_named():
    factors = {2: 1.3, 3: 1.3, 8: 0.7, 64: 0.8}
    assert set(named(analyse(invented(factors)), DEVIATES)) == set(factors)


def test_under_noise_a_size_only_seems_to():
    """A true 4 % under noise of 2 %: alone its interval is beyond the threshold, among 19 it may be chance."""
    found = [named(analyse(invented({4: 1.04}, noise=0.02, seed=seed, rounds=6)), SEEMS) for seed in range(12)]
    assert "only seems slower" in {sizes.get(4) for sizes in found}
    everything = [analyse(invented(noise=0.05, seed=seed, rounds=5)) for seed in range(12)]
    assert sum(bool(analysis.sizes(SEEMS)) for analysis in everything) >= 1, "chance alone makes sizes seem to"
    assert sum(bool(analysis.sizes(DEVIATES)) for analysis in everything) <= 1
    assert {size.found for one in everything for _, size in one.sizes(["undecided"])} == {"undecided"}


def test_less_than_what_matters_is_linear():
    assert named(analyse(invented({5: 1.01}, noise=0.001)), ["linear"])[5] == "linear"


def test_speed_up_per_sample_is_against_the_smallest_size():
    (curve,) = analyse(invented({4: 0.85}, noise=1e-6)).curves
    four = next(size for size in curve.sizes if size.batch_size == 4)
    assert curve.base_size == 1
    assert four.speed_up_per_sample.value == pytest.approx(truth(1) / (0.85 * truth(4) / 4), rel=1e-4)
    assert four.speed_up_per_sample.alone == pytest.approx((four.speed_up_per_sample.value,) * 2, rel=1e-4)
    assert four.latency_per_sample_ms == pytest.approx(0.85 * truth(4) / 4, rel=1e-4)
    assert curve.sizes[0].speed_up_per_sample.value == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"profile": "smoke"}, "profile smoke"),
        ({"profile": "ci"}, "profile ci"),
        ({"start": "forked"}, FORKED),
        ({"rounds": 4}, "4 rounds have every size"),
        ({"sizes": (1, 2, 4)}, "4 measured batch sizes or more"),
    ],
)
def test_a_run_that_cannot_judge_says_why_and_gives_no_interval(given, why):
    analysis = analyse(invented(**given))
    assert why in analysis.no_verdict
    for curve in analysis.curves:
        for size in curve.sizes:
            ratios = (size.measured_over_predicted, size.efficiency, size.speed_up_per_sample)
            assert {(one.alone, one.together) for one in ratios} == {(None, None)}
            assert (size.found, size.diagnosis) == (None, None)


def test_too_few_sizes_have_no_line():
    (curve,) = analyse(invented(sizes=(1, 2, 4))).curves
    assert (curve.sizes, curve.fixed_ms, curve.per_sample_ms) == ([], None, None)
    assert set(curve.left_out) == {1, 2, 4}


def test_only_rounds_that_have_every_size_count():
    content = invented()
    content.sizes[3].processes = content.sizes[3].processes[:-3]
    content.sizes[5].processes = content.sizes[5].processes[1:]
    assert analyse(content).rounds == 6


def test_a_size_without_a_process_is_left_out_by_name():
    content = invented()
    content.sizes[-1].processes, content.sizes[-1].state = [], "oom"
    (curve,) = analyse(content).curves
    assert curve.left_out == {128: "not measured (oom)"}
    assert len(curve.sizes) == len(SIZES) - 1


def test_a_file_keeps_its_sizes_in_any_order():
    content = invented({4: 0.8})
    turned = content.model_copy(update={"sizes": content.sizes[::-1]})
    assert analyse(turned) == analyse(content)


def test_nothing_measured_says_so():
    content = invented()
    for size in content.sizes:
        size.processes = []
    assert "needs 4 measured" in analyse(content).no_verdict


def test_curves_are_judged_apart_and_controlled_for_together():
    one, two = invented({4: 0.8}), invented({8: 1.3}, seed=8)
    other = [size.model_copy(update={"length_policy": "longest"}) for size in two.sizes]
    both = BatchProfile.model_validate(one.model_dump() | {"sizes": [s.model_dump() for s in [*one.sizes, *other]]})
    analysis = analyse(both)
    assert analysis.compared == 2 * len(SIZES)
    assert {(curve.name, size.batch_size) for curve, size in analysis.sizes(DEVIATES)} == {
        ("sdpa, float32, fixed-32", 4),
        ("sdpa, float32, longest", 8),
    }
    alone = analyse(one).sizes(DEVIATES)[0][1].measured_over_predicted.together
    wider = analysis.sizes(DEVIATES)[0][1].measured_over_predicted.together
    assert np.diff(wider) > np.diff(alone)
