"""What a call of an operator costs at least, counted from the shapes of its inputs in the trace: FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from distilbench.measurements.profiling.measure.trace import Call

Shape = list[int]
#: Give another view of the same memory, or memory without contents: what they take is dispatch.
NO_WORK = frozenset(
    f"aten::{name}"
    for name in (
        "view", "_unsafe_view", "_reshape_alias", "reshape", "as_strided", "transpose", "t", "permute", "expand",
        "unsqueeze", "squeeze", "slice", "select", "split", "chunk", "unbind", "narrow", "detach", "alias", "flatten",
        "resolve_conj", "resolve_neg", "empty", "empty_like", "empty_strided", "new_empty", "result_type", "is_nonzero",
        "dropout", "item", "_local_scalar_dense", "lift_fresh", "set_", "resize_", "contiguous", "to",
    )
)  # fmt: skip
#: Take memory for others: what they allocate belongs to the operator that called them.
ALLOCATORS = frozenset(f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "resize_"))
BYTES = {
    "float": 4, "double": 8, "c10::BFloat16": 2, "c10::Half": 2, "long": 8, "long int": 8, "int": 4, "bool": 1,
    "unsigned char": 1, "signed char": 1, "short": 2,
}  # fmt: skip


def inputs(call: Call) -> list[tuple[Shape, int]]:
    """(shape, bytes per element) of the tensors among its inputs."""
    dims, types = call.args.get("Input Dims", []), call.args.get("Input type", [])
    return [(dim, BYTES[kind]) for dim, kind in zip(dims, types, strict=False) if kind in BYTES and _is_shape(dim)]


def _is_shape(dim: object) -> bool:
    return isinstance(dim, list) and all(isinstance(size, int) for size in dim)


def _mm(shapes: list[Shape]) -> tuple[float, Shape]:
    a, b = shapes[-2:]  # of addmm and baddbmm the first input is what is added
    return 2.0 * prod(a) * b[-1], [*a[:-1], b[-1]]


def _linear(shapes: list[Shape]) -> tuple[float, Shape]:
    a, weight = shapes[:2]
    return 2.0 * prod(a) * weight[0], [*a[:-1], weight[0]]


def _attention(shapes: list[Shape]) -> tuple[float, Shape]:
    query, key, value = shapes[:3]  # (batch, heads, positions, width)
    pairs = prod(query[:-1]) * key[-2]
    return 2.0 * pairs * (query[-1] + value[-1]), [*query[:-1], value[-1]]


#: Of matrix products: FLOPs (a multiplication and an addition are two), and the shape of the result. Those that call
#: another one of these (linear, matmul) are left out: nothing counts twice.
PRODUCTS: dict[str, Callable[[list[Shape]], tuple[float, Shape]]] = {
    "aten::mm": _mm,
    "aten::addmm": _mm,
    "aten::bmm": _mm,
    "aten::baddbmm": _mm,
    "aten::mkldnn_linear": _linear,
    "mkldnn::_linear_pointwise": _linear,
    **dict.fromkeys(
        (
            "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
}  # fmt: skip
LOOK_UPS = ("aten::embedding", "aten::index_select", "aten::gather")  # read some rows of a table, not all


def of(call: Call, on_gpu: bool = False) -> tuple[float, float]:
    """(FLOPs of matrix products, bytes that are read and written where no cache holds them) of a call.

    Only what does the work counts: products by their formula, all else where it does not hand its work on. An operator
    that hands it on (linear, softmax, clone) has the same inputs as the one that gets it; counted twice, bytes would
    seem to move twice.
    """
    tensors = inputs(call)
    shapes = [shape for shape, _ in tensors]
    read = float(sum(prod(shape) * size for shape, size in tensors))
    if product := PRODUCTS.get(call.name):
        try:
            flops, result = product(shapes)
        except (IndexError, ValueError):  # fewer inputs than it has: the trace tells no shapes
            return 0.0, read
        return flops, read + prod(result) * tensors[0][1]
    if call.name in NO_WORK or not tensors or not _works_itself(call, on_gpu):
        return 0.0, 0.0
    if call.name in LOOK_UPS and len(tensors) > 1:
        (table, size), (indices, index_size) = tensors[:2]
        rows = prod(indices) * (prod(table[1:]) if call.name != "aten::gather" else 1)
        return 0.0, 2.0 * rows * size + prod(indices) * index_size
    if call.name.endswith("_"):  # in place: what is written is among the inputs
        return 0.0, read
    return 0.0, read + max(prod(shape) * size for shape, size in tensors)


def _works_itself(call: Call, on_gpu: bool) -> bool:
    """Whether it launched a kernel; on a CPU whether most of its time is its own."""
    return call.kernels_us > 0 if on_gpu else call.self_us >= call.inner_us
