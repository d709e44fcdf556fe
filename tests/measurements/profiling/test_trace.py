"""Traces read by hand: own times, stacks, who holds memory, what a call costs, gaps between kernels."""

from __future__ import annotations

import pytest

from distilbench.errors import ImplausibleError, RunError
from distilbench.measurements.profiling.measure import cost, events, trace
from distilbench.measurements.profiling.measure.trace import FORWARD, NULL
from distilbench.measurements.profiling.summary import derive
from distilbench.runs.rawfiles import read_parquet, write_parquet

MiB = 2**20


def span(name, start, end, cat="cpu_op", tid=1, **args):
    return {"ph": "X", "cat": cat, "name": name, "tid": tid, "ts": 1000.0 + start, "dur": end - start, "args": args}


def memory(at, size, address=1, device=0):
    args = {"Addr": address, "Bytes": size, "Device Type": device}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "tid": 1, "ts": 1000.0 + at, "args": args}


def shaped(name, start, end, dims, kind="float", **args):
    return span(name, start, end, **{"Input Dims": dims, "Input type": [kind] * len(dims)} | args)


#: A forward of 100 µs: a linear layer of which 60 µs are the product's own; another thread makes a copy meanwhile.
PRODUCT = [
    span(FORWARD, 0, 100, "user_annotation"),
    span("model.py(1): forward", 5, 95, "python_function"),
    span("aten::linear", 10, 80, **{"External id": 1}),
    shaped("aten::addmm", 15, 78, [[8], [4, 16], [16, 8]], **{"External id": 2}),
    span("aten::empty", 16, 19),
    span("aten::copy_", 20, 90, tid=2),
    span(NULL, 110, 120, "user_annotation"),
    span("aten::add", 111, 113),
    span("aten::add", 114, 116),
]


def test_own_time_is_without_what_is_called_and_other_threads_are_left_out():
    (window,) = trace.parse(PRODUCT).forwards
    own = {call.name: call.self_us for call in window.calls}
    assert own == {"model.py(1): forward": 20, "aten::linear": 7, "aten::addmm": 60, "aten::empty": 3}


def test_stacks_name_the_operators_with_the_longest_first_and_begin_in_the_forward():
    assert trace.folded(trace.parse(PRODUCT)) == [
        ("model.py(1): forward;aten::linear;aten::addmm", 60),
        ("model.py(1): forward;aten::linear", 7),
        ("model.py(1): forward;aten::linear;aten::addmm;aten::empty", 3),
    ]


def test_work_is_own_time_less_that_of_an_operator_that_does_nothing():
    fields = derive.operator_fields(trace.parse(PRODUCT))
    assert fields["null_us"] == 2
    work = {row["operator"]: row["work_ms"] for row in fields["operators"]}
    assert work == {"aten::addmm": pytest.approx(0.058), "aten::linear": 0, "aten::empty": 0}
    assert fields["operators"][0]["flops"] == 2 * 4 * 16 * 8
    assert fields["operators"][0]["bytes"] == 4 * (8 + 4 * 16 + 16 * 8 + 4 * 8)
    assert fields["operator_calls"] == 3
    assert (fields["gpu_busy_ms"], fields["gpu_busy_ms_reason"]) == (None, derive.NO_GPU)


def test_less_than_twice_what_nothing_takes_is_all_dispatch():
    events = [*PRODUCT, shaped("aten::relu", 90, 93.9, [[4, 8]])]
    work = {row["operator"]: row["work_ms"] for row in derive.operator_fields(trace.parse(events))["operators"]}
    assert work["aten::relu"] == 0


@pytest.mark.parametrize(
    ("name", "dims", "flops", "elements"),
    [
        ("aten::mm", [[4, 16], [16, 8]], 2 * 4 * 16 * 8, 4 * 16 + 16 * 8 + 4 * 8),
        ("aten::bmm", [[3, 4, 16], [3, 16, 8]], 2 * 3 * 4 * 16 * 8, 3 * (4 * 16 + 16 * 8 + 4 * 8)),
        ("aten::baddbmm", [[3, 4, 8], [3, 4, 16], [3, 16, 8]], 2 * 3 * 4 * 16 * 8, 3 * (2 * 4 * 8 + 4 * 16 + 16 * 8)),
        ("aten::mkldnn_linear", [[4, 16], [8, 16], [8]], 2 * 4 * 16 * 8, 4 * 16 + 8 * 16 + 8 + 4 * 8),
        (
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            [[1, 2, 5, 8], [1, 2, 7, 8], [1, 2, 7, 8]],
            2 * 2 * 5 * 7 * 16,
            2 * 8 * (5 + 7 + 7 + 5),
        ),
        ("aten::add", [[4, 8], [8]], 0, 4 * 8 + 8 + 4 * 8),
        ("aten::copy_", [[4, 8], [4, 8]], 0, 2 * 4 * 8),
        ("aten::view", [[4, 8]], 0, 0),
        ("aten::index_select", [[1000, 8], [], [5]], 0, 5 * 8 * 2 + 5),  # of the table only the rows that are read
        ("aten::addmm", [], 0, 0),
    ],
)
def test_what_a_call_costs_is_counted_from_its_shapes(name, dims, flops, elements):
    (window,) = trace.parse([span(FORWARD, 0, 9, "user_annotation"), shaped(name, 1, 8, dims)]).forwards
    if name == "aten::index_select":
        window.calls[0].args["Input type"] = ["float", "Scalar", "int"]
    assert cost.of(window.calls[0]) == (flops, 4 * elements)


def test_bytes_count_once_where_an_operator_hands_its_work_on():
    events = [span(FORWARD, 0, 99, "user_annotation"), shaped("aten::softmax", 1, 50, [[4, 8]])]
    events.append(shaped("aten::_softmax", 3, 49, [[4, 8]]))
    (window,) = trace.parse(events).forwards
    assert [cost.of(call)[1] for call in window.calls] == [0, 2 * 4 * 4 * 8]


def test_the_peak_and_whose_results_it_was_made_of():
    events = [
        *PRODUCT,
        memory(-5, 7 * MiB, address=9),  # before the forward
        memory(17, 2 * MiB, address=1),  # `empty` hands it out to the product
        memory(50, 3 * MiB, address=2),
        memory(60, -2 * MiB, address=1),
        memory(70, MiB, address=3),
        memory(90, -7 * MiB, address=9),  # what was there before counts for nothing
    ]
    found = trace.parse(events)
    assert derive.memory_fields(found) == {"peak_MiB": 5, "peak_by": [{"operator": "aten::addmm", "MiB": 5}]}
    assert [row["held_bytes"] / MiB for row in derive.timeline(found)] == [2, 5, 3, 4, 4]
    assert {row["operator"] for row in derive.timeline(found)} == {"aten::addmm", derive.NO_OPERATOR}
    table = {row["operator"]: row["allocated_MiB"] for row in derive.operator_fields(found)["operators"]}
    assert table["aten::empty"] == 2


def on_gpu():
    """Kernels of 30 and 20 µs that overlap by 10, in a forward of 100 µs; memory is the device's."""
    return [
        *PRODUCT,
        span("gemm", 30, 60, "kernel", tid=7, **{"External id": 2}),
        span("copy", 50, 70, "gpu_memcpy", tid=8, **{"External id": 1}),
        span("of another forward", 200, 900, "kernel", tid=7, **{"External id": 99}),
        memory(17, MiB, device=0),
        memory(18, 4 * MiB, address=5, device=1),
    ]


def test_on_a_gpu_work_is_kernels_and_gaps_are_between_them():
    found = trace.parse(on_gpu())
    assert found.on_gpu
    fields = derive.operator_fields(found)
    assert fields["gpu_busy_ms"] == pytest.approx(0.04), "two streams at once are busy once"
    work = {row["operator"]: row["work_ms"] for row in fields["operators"]}
    assert work["aten::addmm"] == pytest.approx(0.03)
    assert derive.memory_fields(found)["peak_MiB"] == 4


def test_on_a_gpu_operators_have_their_kernels_and_shapes_by_what_these_take():
    launched = span("small gemm", 62, 63, "kernel", tid=7, **{"External id": 2})
    rows = {row["operator"]: row for row in derive.operator_fields(trace.parse([*on_gpu(), launched]))["operators"]}
    kernels = [{"kernel": name, "calls": 1, "ms": ms} for name, ms in (("gemm", 0.03), ("small gemm", 0.001))]
    assert rows["aten::addmm"]["kernels"] == [row | {"ms": pytest.approx(row["ms"])} for row in kernels]
    assert rows["aten::addmm"]["shapes"] == [{"dims": [[8], [4, 16], [16, 8]], "calls": 1, "ms": pytest.approx(0.031)}]
    assert rows["aten::empty"]["kernels"] is None, "it launched none"


def test_shapes_are_medians_over_forwards_and_the_longest_are_kept():
    events = [span(FORWARD, start, start + 90, "user_annotation") for start in (0, 100, 200)]
    for start, longer in ((0, 1), (100, 40), (200, 2)):  # an interruption falls into one of them
        events += [shaped("aten::mm", start + 1, start + 9 + longer, [[4, 16], [16, 8]])]
        events += [shaped("aten::mm", start + 60 + n, start + 60.5 + n, [[n, 16], [16, 8]]) for n in range(5, 14)]
    events += PRODUCT[-3:]
    (product,) = (
        row for row in derive.operator_fields(trace.parse(events))["operators"] if row["operator"] == "aten::mm"
    )
    assert product["shapes"][0] == {"dims": [[4, 16], [16, 8]], "calls": 1, "ms": pytest.approx(0.01)}
    assert len(product["shapes"]) == derive.SHOWN


def test_what_does_no_work_has_no_shapes():
    rows = {row["operator"]: row for row in derive.operator_fields(trace.parse(PRODUCT))["operators"]}
    assert rows["aten::empty"]["shapes"] is None
    assert rows["aten::addmm"]["shapes"] == [{"dims": [[8], [4, 16], [16, 8]], "calls": 1, "ms": pytest.approx(0.06)}]
    assert rows["aten::addmm"]["kernels"] is None, "there is no GPU"


def test_layers_are_summed_and_compared_with_a_forward_without_clocks():
    rows = [
        {"forward": n, "layer": layer, "ms": ms + n / 1000}
        for n in range(3)
        for layer, ms in ((derive.OUTSIDE, 1.0), ("embeddings", 2.0), ("layer.0", 7.0))
    ]
    fields = derive.layer_fields(rows, 10.0)
    assert [layer["layer"] for layer in fields["layers"]] == ["embeddings", "layer.0", derive.OUTSIDE]
    assert fields["layers_ratio"] == pytest.approx(1.0003)
    assert fields["outside_share"] == pytest.approx(0.1, rel=1e-3)


def test_a_forward_without_time_is_refused():
    with pytest.raises(ImplausibleError, match="took no time"):
        derive.readings_fields([{"kind": "plain", "latency_ms": 0.0}], [], [])


@pytest.mark.parametrize("content", ["", "{}", '{"traceEvents": []}', '{"traceEvents": [{"cat": "user_annotation"}]}'])
def test_a_file_that_is_no_trace_is_refused_by_name(tmp_path, content):
    (tmp_path / "trace.json").write_text(content)
    with pytest.raises(RunError, match=r"trace\.json is no trace of a profile"):
        trace.read(tmp_path / "trace.json")


def test_events_say_in_few_bytes_what_the_trace_says(tmp_path):
    held = [memory(16.5, 4 * MiB, address=94722806339648), memory(88.25, -4 * MiB, address=94722806339648)]
    for whole in ([*PRODUCT, *held], on_gpu()):
        write_parquet(tmp_path / "events.parquet", events.compact(whole), events.EVENTS)
        again = trace.parse(events.expanded(read_parquet(tmp_path / "events.parquet")))
        assert derive.trace_fields(again, 100.0) == derive.trace_fields(trace.parse(whole), 100.0)
        assert derive.timeline(again) == [pytest.approx(row, abs=1e-3) for row in derive.timeline(trace.parse(whole))]


def test_events_of_no_forward_are_refused():
    with pytest.raises(ValueError, match="no annotation"):
        events.compact([span("aten::add", 1, 2)])
