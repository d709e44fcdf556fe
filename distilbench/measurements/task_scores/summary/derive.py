"""What a record derives from its questions; `verify` computes it again."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from distilbench import paths
from distilbench.errors import ImplausibleError

Row = dict[str, Any]


def fields_of(rows: list[Row]) -> Row:
    """Accuracy, margin, and how far our own scorer differs.

    Raises:
        ImplausibleError: no question was answered.
    """
    if not rows:
        raise ImplausibleError("no question was answered")
    texts = rows[0]["said"] is not None
    own = [row for row in rows if row["own_said" if texts else "own_logprobs"] is not None]
    hashes = [row["document_sha256"] for row in rows]
    return {
        "documents": len(rows),
        "documents_sha256": paths.sha256_bytes(paths.canonical_json(hashes)),
        "accuracy": fmean(map(correct, rows)),
        "accuracy_norm": None if texts else fmean(map(correct_norm, rows)),
        "chance": None if texts else fmean(1 / len(row["logprobs"]) for row in rows),
        "margin_nat": None if texts else fmean(map(margin, rows)),
        "checked": len(own),
        "own_difference_nat": None if texts or not own else max(map(_difference, own)),
        "own_disagreed": sum(row["own_said"] != row["said"] for row in own) if texts else None,
    }


def correct(row: Row) -> bool:
    """Whether the most probable choice is the right one, or the text is; of equals the first, as in the harness."""
    if row["said"] is not None:
        return row["said"] == row["target"]
    return _best(row["logprobs"]) == int(row["target"])


def correct_norm(row: Row) -> bool:
    """The same of the log-probability per character of a choice."""
    per_character = [one / count for one, count in zip(row["logprobs"], row["characters"], strict=True)]
    return _best(per_character) == int(row["target"])


def margin(row: Row) -> float:
    """The right choice's log-probability less that of the best wrong one, in nats."""
    right = int(row["target"])
    return row["logprobs"][right] - max(one for place, one in enumerate(row["logprobs"]) if place != right)


def _best(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _difference(row: Row) -> float:
    return max(abs(a - b) for a, b in zip(row["logprobs"], row["own_logprobs"], strict=True))
