"""What follows from the verdicts: which next step can pay, and how much at most (Amdahl 1967), by measured shares."""

from __future__ import annotations

from typing import Any

from distilbench.measurements.profiling.summary.verdict import COMPUTE, MEMORY, OVERHEAD, PARTS

Cell = dict[str, Any]


def advice(summary: dict[str, Any]) -> list[str]:
    """A sentence or two per bound that a cell has; its figures are of the cell in which that bound takes most."""
    known = [cell for cell in summary["cells"] if cell.get("verdict")]
    groups = {bound: [cell for cell in known if cell["verdict"] == bound] for bound in (OVERHEAD, MEMORY, COMPUTE)}
    return [
        f"{bound[0].upper()}{bound[1:]} at {_where(cells)}. {SAYS[bound](_most(cells, bound), summary)}"
        for bound, cells in groups.items()
        if cells
    ]


def _where(cells: list[Cell]) -> str:
    policies = dict.fromkeys(cell["length_policy"] for cell in cells)
    sizes = {policy: [cell["batch_size"] for cell in cells if cell["length_policy"] == policy] for policy in policies}
    return "; ".join(
        f"{policy}, batch size{'s' * (len(of) > 1)} {', '.join(map(str, of))}" for policy, of in sizes.items()
    )


def _most(cells: list[Cell], bound: str) -> Cell:
    return max(cells, key=lambda cell: cell[PARTS[bound]])


def _overhead(cell: Cell, _: dict[str, Any]) -> str:
    share = cell["dispatch_share"]
    return (
        f"Dispatch takes {share:.0%} of a forward at batch size {cell['batch_size']}. A captured graph, a compiled "
        f"model or another runtime (ONNX Runtime, OpenVINO) can save that and no more: {_at_most(share)}. A larger "
        "batch shares it among more sentences. Fewer or narrower weights gain nothing here."
    )


def _memory(cell: Cell, _: dict[str, Any]) -> str:
    share, reached = cell["memory_share"], cell["memory_ceiling_share"]
    return (
        f"Operators that wait for memory take {share:.0%} of a forward at batch size {cell['batch_size']}, at "
        f"{reached:.0%} of the measured bandwidth. Values of half the width (bfloat16, float16) move half the bytes: "
        f"{_at_most(share / 2)}; int8 weights move a quarter: {_at_most(share * 3 / 4)}. Fused operators move fewer."
    )


def _compute(cell: Cell, summary: dict[str, Any]) -> str:
    share, reached = cell["compute_share"], cell["compute_ceiling_share"]
    room = _at_most(share * (1 - reached)) if reached < 1 else "nothing is left there"
    return (
        f"Matrix products take {share:.0%} of a forward at batch size {cell['batch_size']}, at {reached:.0%} of the "
        f"measured ceiling. Another runtime can come nearer to it: {room}. Half of the weights pruned in whole rows "
        f"or heads: {_at_most(share / 2)}. {_narrower(cell, summary['ceilings']['matrix_flops_per_s'])}"
    )


def _narrower(cell: Cell, rates: dict[str, float]) -> str:
    """What a narrower type gains, where this machine was measured in it."""
    own = rates.get(cell["dtype"])
    others = {name: rate / own for name, rate in rates.items() if name != cell["dtype"]} if own else {}
    if not others:
        return "What a narrower type gains depends on the instructions for it; its ceiling was not measured here."
    name, ratio = max(others.items(), key=lambda pair: pair[1])
    if ratio <= 1:
        return f"{name} gains nothing: this machine multiplies {1 / ratio:.2g} times slower in it."
    return f"{name} has a ceiling {ratio:.2g} times as high: {_at_most(cell['compute_share'] * (1 - 1 / ratio))}."


def _at_most(saved: float) -> str:
    """How much faster a forward gets without that share of it."""
    return f"at most {1 / (1 - min(saved, 0.99)):.2g} times as fast"


SAYS = {OVERHEAD: _overhead, MEMORY: _memory, COMPUTE: _compute}
