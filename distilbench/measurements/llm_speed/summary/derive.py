"""What a record derives from its iterations; `verify` computes it again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distilbench.errors import ImplausibleError
from distilbench.measurements.llm_speed.records import DECODE

Row = dict[str, Any]


def fields_of(rows: list[Row], cell: Row) -> Row:
    """The numbers of a record.

    Args:
        rows: its iterations, warm-up included.
        cell: the fields of its cell.

    Raises:
        ImplausibleError: nothing was timed, or an iteration gave another number of tokens than was asked for: no time
            per token follows from it.
    """
    timed = [row for row in rows if not row["warmup"]]
    if not timed:
        raise ImplausibleError("no iteration was timed")
    asked = cell["new_tokens"]
    if odd := [row for row in timed if row["new_tokens"] != asked]:
        raise ImplausibleError(
            f"iteration {odd[0]['iteration']} gave {odd[0]['new_tokens']} new tokens, asked for were {asked}"
        )
    latency = np.array([row["latency_ms"] for row in timed])
    device = [row["latency_device_ms"] for row in timed if row["latency_device_ms"] is not None]
    median = float(np.median(latency))
    tokens = cell["batch_size"] * (asked or cell["context"])
    return {
        "latency_ms": median,
        "latency_device_ms": float(np.median(device)) if device else None,
        "statistics_ms": {
            "n": len(timed),
            "mean": float(latency.mean()),
            "std": float(latency.std(ddof=1)) if len(timed) > 1 else 0.0,
            **{f"p{p}": float(np.percentile(latency, p)) for p in (50, 90, 99)},
        },
        "tokens_per_s": tokens / median * 1e3,
        "actual_new_tokens": asked,
        "cached_tokens": timed[-1]["cached_tokens"],
        "cache_bytes": timed[-1]["cache_bytes"],
    } | (_token_times(timed) if cell["phase"] == DECODE else {"ttft_ms": None, "tpot_ms": None})


def _token_times(timed: list[Row]) -> Row:
    """Until the first token, which reads the prompt, and for each one after it."""
    for row in timed:
        if len(row["token_ms"]) != row["new_tokens"]:
            raise ImplausibleError(
                f"iteration {row['iteration']} has the times of {len(row['token_ms'])} tokens, not {row['new_tokens']}"
            )
    later = [math.fsum(row["token_ms"][1:]) / (len(row["token_ms"]) - 1) for row in timed]
    return {"ttft_ms": float(np.median([row["token_ms"][0] for row in timed])), "tpot_ms": float(np.median(later))}
