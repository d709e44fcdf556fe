"""The verdict: right on models of which the answer is known, on made-up tables, and doubted where it should be."""

from __future__ import annotations

import itertools
import time
from statistics import median

import pytest
import torch

from distilbench.harness import ceilings
from distilbench.measurements.profiling.measure import sessions, trace
from distilbench.measurements.profiling.summary import derive, join, verdict

CPU = torch.device("cpu")
CEILINGS = {"matrix_flops_per_s": {"float32": 100e9}, "memory_bytes_per_s": 10e9}  # ridge: 10 FLOP/B


def operator(name="aten::mm", work_ms=1.0, flops=0.0, moved=0.0):
    return {"operator": name, "work_ms": work_ms, "flops": flops, "bytes": moved}


PRODUCT = operator(work_ms=6.0, flops=300e6, moved=6e6)  # 50 FLOP/B, at half of the ceiling
COPY = operator("aten::copy_", work_ms=3.0, moved=15e6)  # at half of the bandwidth


# ------------------------------------------------------------------ known truths, measured


@pytest.fixture(scope="module")
def one_thread():
    """A second thread on cores that others use is waited for, and the known truth would be the neighbours'."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured_ceilings(one_thread):
    return ceilings.ceilings(CPU, ["float32"], 0.2)


def null():
    """A model that does nothing, in a hundred calls."""
    one, result = torch.ones(1), torch.empty(1)
    return lambda: [torch.add(one, one, out=result) for _ in range(100)]


def without_operators():
    """A model that is Python only."""
    return lambda: sum(range(20_000))


def copying():
    """A model that moves memory, more than caches hold."""
    source = torch.ones(16 * 2**20)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def product():
    """A model that is one large matrix product."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: torch.mm(a, b)


@pytest.mark.parametrize(
    ("model", "truth"),
    [
        (null, verdict.OVERHEAD),
        (without_operators, verdict.OVERHEAD),
        (copying, verdict.MEMORY),
        (product, verdict.COMPUTE),
    ],
)
def test_the_verdict_is_right_where_the_truth_is_known(tmp_path, measured_ceilings, model, truth):
    forward = model()
    for attempt in range(10):
        fields, found = _profiled(forward, tmp_path / f"trace-{attempt}.json")
        if fields["slow_down"] >= join.FASTER:  # else the neighbours had the machine meanwhile: a run says so, too
            break
    operators = derive.operator_fields(found)["operators"]
    judged = verdict.verdict(fields["forward_ms"], operators, measured_ceilings, "float32")
    assert judged["verdict"] == truth, verdict.evidence(judged)
    assert judged[verdict.PARTS[truth]] > 0.5


def _profiled(forward, file):
    rows = []

    def time_it() -> None:
        for _ in range(10):
            start = time.perf_counter()
            forward()
            rows.append({"kind": "plain", "latency_ms": (time.perf_counter() - start) * 1e3})

    time_it()
    sessions.session(file, sessions.Schedule(1, 2, 6), itertools.repeat(forward), CPU, sessions.OPERATORS)
    time_it()  # before and after: a disturbance during one of them must not decide
    found = trace.read(file)
    forward_ms = median(row["latency_ms"] for row in rows)
    return {"forward_ms": forward_ms} | derive.trace_fields(found, forward_ms), found


# ------------------------------------------------------------------ the rule


def test_the_shares_are_of_the_forward_and_the_largest_names_the_bound():
    found = verdict.verdict(12.0, [PRODUCT, COPY], CEILINGS, "float32")
    assert found["verdict"] == verdict.COMPUTE
    shares = [found[name] for name in ("dispatch_share", "memory_share", "compute_share")]
    assert shares == [0.25, 0.25, 0.5]
    assert found["compute_ceiling_share"] == pytest.approx(0.5)
    assert found["memory_ceiling_share"] == pytest.approx(0.5)
    assert found["ridge_FLOP_per_B"] == 10
    assert found["intensity_FLOP_per_B"] == pytest.approx(300 / 21)
    assert verdict.doubts(found) == []
    assert verdict.evidence(found).startswith(
        "dispatch 25%, memory 25%, arithmetic 50% of the forward; arithmetic at 50"
    )


@pytest.mark.parametrize(("moved", "bound"), [(29e6, verdict.COMPUTE), (31e6, verdict.MEMORY)])
def test_a_product_on_the_other_side_of_the_ridge_waits_for_memory(moved, bound):
    found = verdict.verdict(6.0, [operator(work_ms=6.0, flops=300e6, moved=moved)], CEILINGS, "float32")
    assert found["verdict"] == bound


def test_what_takes_longer_than_it_works_is_overhead():
    assert verdict.verdict(30.0, [PRODUCT, COPY], CEILINGS, "float32")["verdict"] == verdict.OVERHEAD


@pytest.mark.parametrize("none", [None, {"reason": "no memory for it"}])
def test_without_ceilings_only_overhead_can_be_told(none):
    assert verdict.verdict(30.0, [PRODUCT], none, "float32")["verdict"] == verdict.OVERHEAD
    found = verdict.verdict(7.0, [PRODUCT], none, "float32")
    assert found["verdict"] is None
    reason = none["reason"] if none else verdict.NO_CEILINGS
    assert verdict.doubts(found) == [f"no verdict: {reason}"]
    assert verdict.evidence(found) == f"no verdict: {reason}"


def test_a_verdict_is_doubted_where_it_is_narrow_slow_or_distorted():
    narrow = verdict.verdict(14.0, [PRODUCT, COPY], CEILINGS, "float32")
    assert verdict.doubts(narrow) == ["compute-bound by the largest of three parts, which is 43% of the forward"]
    slow = verdict.verdict(6.0, [operator(work_ms=6.0, flops=30e6, moved=1e6)], CEILINGS, "float32")
    assert "compute-bound at 5% of the ceiling" in verdict.doubts(slow)[0]
    longer = verdict.verdict(5.0, [PRODUCT], CEILINGS, "float32")
    assert "1.20 times a forward's time: the profiler slowed them" in verdict.doubts(longer)[0]
    assert longer["dispatch_share"] == 0
