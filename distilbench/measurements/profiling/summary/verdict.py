"""What bounds a forward: arithmetic, memory, or the overhead of dispatch. The rule, with its evidence; no torch.

The time of a forward has three parts. Dispatch is what no operator works in: Python, torch's own calls, on a GPU the
gaps between kernels. What operators work is split by arithmetic intensity, each against the machine's ridge (Williams,
Waterman & Patterson 2009): an operator with fewer FLOPs per byte than the machine can do per byte waits for memory.
The largest part gives the verdict.
"""

from __future__ import annotations

from typing import Any

OVERHEAD, MEMORY, COMPUTE = "overhead-bound", "memory-bound", "compute-bound"
PARTS = {OVERHEAD: "dispatch_share", MEMORY: "memory_share", COMPUTE: "compute_share"}
NO_CEILINGS = "the machine's ceilings were not measured"
CLEAR = 0.5  # a part below it is the largest of three, and not most of the time
SLOW = 0.2  # of its ceiling: work that is slower is bound by something that the ceilings do not show


def verdict(
    forward_ms: float, operators: list[dict[str, Any]], ceilings: dict[str, Any] | None, dtype: str
) -> dict[str, Any]:
    """What bounds a forward, and why.

    Args:
        forward_ms: without a profiler.
        operators: rows of `records.Operator`.
        ceilings: as in ceilings.json.
        dtype: that the matrix products compute in.

    Returns:
        verdict, shares of the forward (dispatch, memory, compute; their sum is 1), intensity and ridge in FLOP/B,
        achieved rates in FLOP/s and B/s and their shares of the ceilings; all but the dispatch is None without
        ceilings, with `verdict_reason`.
    """
    worked_ms = sum(row["work_ms"] for row in operators)
    dispatch_ms = max(0.0, forward_ms - worked_ms)
    whole_ms = dispatch_ms + worked_ms  # work that took longer under the profiler than the forward without it
    found: dict[str, Any] = dict.fromkeys(
        ("verdict", "verdict_reason", "memory_share", "compute_share", "intensity_FLOP_per_B", "ridge_FLOP_per_B",
         "achieved_FLOP_per_s", "achieved_B_per_s", "compute_ceiling_share", "memory_ceiling_share")
    )  # fmt: skip
    found |= {"dispatch_share": dispatch_ms / whole_ms, "work_share": worked_ms / forward_ms}
    flops, moved = (sum(row[name] for row in operators) for name in ("flops", "bytes"))
    found["intensity_FLOP_per_B"] = flops / moved if moved else None
    peak = (ceilings or {}).get("matrix_flops_per_s", {}).get(dtype)
    if not peak:
        return found | _without_ceilings(found["dispatch_share"], (ceilings or {}).get("reason"))
    bandwidth = ceilings["memory_bytes_per_s"]
    arithmetic = [row for row in operators if row["flops"] > row["bytes"] * peak / bandwidth]
    others = [row for row in operators if row not in arithmetic]
    found |= {"ridge_FLOP_per_B": peak / bandwidth}
    found |= _part("compute", arithmetic, "flops", "achieved_FLOP_per_s", whole_ms, peak)
    found |= _part("memory", others, "bytes", "achieved_B_per_s", whole_ms, bandwidth)
    return found | {"verdict": max(PARTS, key=lambda name: found[PARTS[name]])}


def _part(
    name: str, rows: list[dict[str, Any]], counted: str, rate: str, whole_ms: float, ceiling: float
) -> dict[str, Any]:
    """Its share of the time, and how near to the ceiling it comes meanwhile."""
    spent_ms, done = sum(row["work_ms"] for row in rows), sum(row[counted] for row in rows if row["work_ms"])
    achieved = done / (spent_ms / 1e3) if spent_ms else None
    return {
        f"{name}_share": spent_ms / whole_ms,
        rate: achieved,
        f"{name}_ceiling_share": achieved / ceiling if achieved is not None else None,
    }


def _without_ceilings(dispatch_share: float, reason: str | None) -> dict[str, Any]:
    """Most of the time in dispatch needs no ceiling; memory and arithmetic cannot be told apart without one."""
    if dispatch_share > CLEAR:
        return {"verdict": OVERHEAD}
    return {"verdict_reason": reason or NO_CEILINGS}


def evidence(found: dict[str, Any]) -> str:
    """The verdict's reasons, in a sentence."""
    if found["verdict"] is None:
        return f"no verdict: {found['verdict_reason']}"
    if found["ridge_FLOP_per_B"] is None:
        return f"{found['dispatch_share']:.0%} of the forward is dispatch; {NO_CEILINGS}"
    shares = f"dispatch {found['dispatch_share']:.0%}, memory {found['memory_share']:.0%}, "
    said = f"{shares}arithmetic {found['compute_share']:.0%} of the forward"
    if (share := found["compute_ceiling_share"]) is not None:
        said += f"; arithmetic at {found['achieved_FLOP_per_s'] / 1e9:.3g} GFLOP/s, {share:.0%} of the ceiling"
    if (share := found["memory_ceiling_share"]) is not None:
        said += f"; memory at {found['achieved_B_per_s'] / 1e9:.3g} GB/s, {share:.0%} of the ceiling"
    return said


def doubts(found: dict[str, Any]) -> list[str]:
    """What speaks against the verdict."""
    if found["verdict"] is None:
        return [f"no verdict: {found['verdict_reason']}"]
    said = []
    part = found[PARTS[found["verdict"]]]
    if part < CLEAR:
        said.append(f"{found['verdict']} by the largest of three parts, which is {part:.0%} of the forward")
    of = {COMPUTE: "compute_ceiling_share", MEMORY: "memory_ceiling_share"}.get(found["verdict"])
    if of and found[of] is not None and found[of] < SLOW:
        said.append(f"{found['verdict']} at {found[of]:.0%} of the ceiling: something else holds these operators up")
    if found["work_share"] > 1.1:
        said.append(f"operators worked {found['work_share']:.2f} times a forward's time: the profiler slowed them")
    return said
