"""The diagnosis in words: what operators account for, with their inputs, kernels and threads, and what nothing does."""

from __future__ import annotations

from typing import Any

from distilbench.anomaly.analysis import DEVIATES, Analysis, Curve, SizeFound
from distilbench.anomaly.diagnosis import Cause, Look


def text(analysis: Analysis) -> str:
    """Per size that deviates, what its operators account for, in Markdown."""
    one, parts = len(analysis.curves) == 1, []
    for curve, size in analysis.sizes(DEVIATES):
        first, *rest = _diagnosis(size)
        parts.append(f"**B{named(curve, size, one)[1:]}.** {first}")
        parts += ["\n".join(line if line.startswith("  ") else f"- {line}" for line in rest)] if rest else []
    none = "Without a verdict" if analysis.no_verdict else "No size deviates for sure, so"
    return "\n\n".join(parts) or f"{none} there is nothing to explain."


def named(curve: Curve, size: SizeFound, one: bool) -> str:
    """What a size is called; by its curve too, where there are several."""
    return f"batch size {size.batch_size}" + ("" if one else f" ({curve.name})")


def _diagnosis(size: SizeFound) -> list[str]:
    found = size.diagnosis
    which = "less" if found.deviation_ms < 0 else "more"
    whole = f"A batch takes {abs(found.deviation_ms):.4g} ms {which} than predicted"
    if found.none:
        return [f"{whole}. No diagnosis: {found.none}."]
    explained = 1 - found.unexplained_share
    left = f"{percent(found.unexplained_share)} is unexplained" if explained < 1 else "nothing is unexplained"
    said = [f"{whole}. Operators that differ for sure account for {percent(explained)} of that; {left}."]
    return said + [line for cause in found.causes for line in _cause(cause)]


def _cause(cause: Cause) -> list[str]:
    low, high = cause.share_ends
    which = "less" if cause.deviation_ms < 0 else "more"
    threads = f"; threads that shared work: {cause.here.threads_used:g}" if cause.here.threads_used is not None else ""
    lines = [
        f"`{cause.operator}` takes {abs(cause.deviation_ms):.4g} ms {which}: {percent(cause.share)} of the deviation "
        f"({percent(low)} to {percent(high)}); per sample {cause.per_sample_ms:.4g} ms, predicted "
        f"{cause.predicted_per_sample_ms:.4g} ms (profiled){threads}."
    ]
    looks = [look for look in (cause.here, cause.smaller, cause.larger) if look]
    lines += [f"  - {_look(look)}" for look in looks]
    changed = "; ".join(cause.changes)
    return [*lines, f"  - otherwise than at the sizes next to it: {changed or 'its time alone'}"]


def percent(share: float) -> str:
    """Without a sign before nothing."""
    return f"{round(100 * share)}%"


def _look(look: Look) -> str:
    if not look.calls:
        return f"batch size {look.batch_size}: not called"
    shapes = "inputs not recorded"
    if look.shapes is not None:
        each = (f"{_dims(one.dims)} {one.calls:.4g}× in {one.ms:.4g} ms" for one in look.shapes)
        shapes = "; ".join(each) or "no tensors"
    kernels = ", ".join(f"`{one.kernel}` {one.calls:.4g}× in {one.ms:.4g} ms" for one in look.kernels or [])
    return f"batch size {look.batch_size}: {look.calls:.4g} calls; {shapes}" + (
        f"; kernels {kernels}" if kernels else ""
    )


def _dims(dims: list[Any]) -> str:
    return " · ".join("×".join(map(str, one)) for one in dims if one and not isinstance(one[0], list)) or "scalars"
