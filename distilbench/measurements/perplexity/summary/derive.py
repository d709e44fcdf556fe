"""What a record derives from its chunks; `verify` computes it again."""

from __future__ import annotations

import math
from typing import Any

from distilbench.errors import ImplausibleError
from distilbench.measurements.perplexity.records import DEFINITIONS, DISJOINT, ROLLING

Row = dict[str, Any]


def fields_of(rows: list[Row]) -> Row:
    """The perplexities by definition.

    Raises:
        ImplausibleError: a definition has no chunk.
    """
    found = [_of(definition, [row for row in rows if row["definition"] == definition]) for definition in DEFINITIONS]
    disjoint = found[DEFINITIONS.index(DISJOINT)]["perplexity"]
    return {"perplexities": found, "perplexity": disjoint, "nll_nat_per_token": math.log(disjoint)}


def _of(definition: str, rows: list[Row]) -> Row:
    if not rows:
        raise ImplausibleError(f"no chunk was scored by the definition {definition!r}: the text is too short")
    weights = math.fsum(row["weight"] for row in rows)
    mean = math.fsum(row["nll"] / row["scored"] * row["weight"] for row in rows) / weights
    found: Row = {
        "definition": definition, "perplexity": math.exp(mean), "tokens": sum(row["scored"] for row in rows),
        "chunks": len(rows), "bits_per_byte": None, "word_perplexity": None, "byte_perplexity": None,
    }  # fmt: skip
    counted = [row for row in rows if row["utf8_bytes"]]  # whole lines, of which bytes and words are known
    size, words = sum(row["utf8_bytes"] for row in counted), sum(row["words"] for row in counted)
    if definition == ROLLING and size and words:
        total = math.fsum(row["nll"] for row in counted)
        found |= {
            "bits_per_byte": total / size / math.log(2),
            "byte_perplexity": math.exp(total / size),
            "word_perplexity": math.exp(total / words),
        }
    return found
