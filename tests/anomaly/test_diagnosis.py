"""What operators account for: a planted cause is found with its evidence, and what is not explained is said."""

from __future__ import annotations

import pytest
from batch_profiles import invented

from distilbench.anomaly.analysis import DEVIATES, analyse
from distilbench.anomaly.diagnosis import Diagnosis, InputShape, Kernel


def diagnosis(content) -> Diagnosis:
    ((_, size),) = analyse(content).sizes(DEVIATES)
    return size.diagnosis


@pytest.mark.parametrize(("factor", "sign"), [(0.85, -1), (1.3, 1)])
def test_a_planted_operator_is_found_with_its_shapes_kernels_and_threads(factor, sign):
    found = diagnosis(invented({4: factor}))
    (cause,) = found.causes
    assert cause.operator == "aten::addmm"
    assert cause.deviation_ms * sign > 0
    assert cause.share == pytest.approx(1, abs=0.1)
    assert cause.share_ends[0] < cause.share < cause.share_ends[1]
    assert found.unexplained_share == pytest.approx(0, abs=0.1)
    assert found.all_operators_share == pytest.approx(1, abs=0.1)
    assert found.profiled_share == pytest.approx(1, abs=0.1)
    assert cause.per_sample_ms - cause.predicted_per_sample_ms == pytest.approx(cause.deviation_ms / 4)
    (shape,), (kernel,) = cause.here.shapes, cause.here.kernels
    assert shape.dims == [[128, 768], [768, 3072]]
    assert kernel.kernel == "sgemm_large"
    assert (cause.smaller.batch_size, cause.here.batch_size, cause.larger.batch_size) == (3, 4, 5)
    kernels, threads = cause.changes
    assert (
        kernels
        == "kernels: `sgemm_large` at batch size 4, `sgemm_small` at batch size 3, `sgemm_small` at batch size 5"
    )
    assert threads.startswith("threads that shared work: 1 at batch size 4, 2 at")


def test_what_no_operator_accounts_for_is_unexplained():
    found = diagnosis(invented({4: 1.3}, cause=None))
    assert found.causes == []
    assert found.unexplained_share == 1
    assert found.all_operators_share == pytest.approx(0, abs=0.05)


def test_a_constant_cost_of_the_profiler_is_no_cause():
    """Each operator takes 3 ms longer under the profiler, at every size."""
    content = invented({4: 1.3})
    for size in content.sizes:
        for operator in size.profiled.operators:
            operator.ms = [ms + 3 for ms in operator.ms]
    (cause,) = diagnosis(content).causes
    assert cause.share == pytest.approx(1, abs=0.1)


def test_an_operator_that_only_this_size_calls_is_a_cause():
    content = invented({4: 1.3}, cause=None)
    four = content.sizes[3].profiled
    extra = four.operators[0].model_copy(update={"operator": "aten::copy_", "ms": [5.4, 5.3, 5.4, 5.5, 5.4]})
    four.operators.append(extra)
    found = diagnosis(content)
    (cause,) = found.causes
    assert cause.operator == "aten::copy_"
    assert cause.smaller.calls == cause.larger.calls == 0
    assert cause.changes[0] == "calls in a forward: 6 at batch size 4, 0 at batch size 3, 0 at batch size 5"


def test_at_an_end_there_is_one_neighbour():
    (cause,) = diagnosis(invented({128: 1.3})).causes
    assert (cause.smaller.batch_size, cause.larger) == (64, None)


@pytest.mark.parametrize("spoil", ["all", "one", "rounds"])
def test_without_operators_there_is_no_diagnosis_and_the_reason(spoil):
    content = invented({4: 1.3}, cause="" if spoil == "all" else None)
    if spoil == "one":
        content.sizes[7].profiled = None
    if spoil == "rounds":
        few = content.sizes[7].profiled
        few.repetitions, few.forward_ms = few.repetitions[1:], few.forward_ms[1:]
        for operator in few.operators:
            operator.ms = operator.ms[1:]
    found = diagnosis(content)
    assert found.causes == []
    reasons = {"all": "not asked for", "one": "no operators of batch size 8: not profiled", "rounds": "4 rounds have"}
    assert reasons[spoil] in found.none


def test_a_neighbour_that_was_not_profiled_is_left_out_of_the_evidence():
    """Size 5 deviates too, so that no line needs it."""
    content = invented({4: 1.3, 5: 0.6})
    content.sizes[4].profiled = None
    four, five = (size.diagnosis for _, size in analyse(content).sizes(DEVIATES))
    assert four.causes[0].larger is None
    assert five.none == "there are no operators of batch size 5: not profiled"


def test_only_the_longest_shapes_and_kernels_are_kept():
    content = invented({4: 1.3})
    product = content.sizes[3].profiled.operators[0]
    product.shapes = [InputShape(dims=[[n, n]], calls=1, ms=9 - n) for n in range(5)]
    product.kernels = [Kernel(kernel=f"k{n}", calls=1, ms=9 - n) for n in range(5)]
    (cause,) = diagnosis(content).causes
    assert [one.kernel for one in cause.here.kernels] == ["k0", "k1", "k2"]
    assert len(cause.here.shapes) == 3
