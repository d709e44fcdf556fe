"""What length policies cut: counted by the run, else told by the lengths of its text, else unknown with a reason."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.sources.batches import MOST_TOKENS, most_tokens

OF_A_CYCLE, OF_THE_TEXT = "of a cycle", "of the whole text"
UNKNOWN = "the run did not count them, and its text's lengths do not say it"


def truncation(cell: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`truncated_share` of a cell, of which sentences it is, or why it is not known.

    Runs of an early version did not count it; what data.json says of the whole text stands in for their cycle.

    Args:
        cell: of the summary.
        data: the run's data.json.
    """
    if cell.get("truncated_share") is not None:
        return {"truncated_share": cell["truncated_share"], "truncated_of": OF_A_CYCLE}
    share = _of_the_text(most_tokens(cell["length_policy"]), data.get("tokens") or {}, data.get("rows"))
    if share is None:
        return {"truncated_share": None, "truncated_of": None, "truncated_share_reason": UNKNOWN}
    return {"truncated_share": share, "truncated_of": OF_THE_TEXT}


def _of_the_text(limit: int, tokens: dict[str, Any], rows: int | None) -> float | None:
    """Early versions cut at 512 before they counted: a text that reaches it says nothing of what was longer."""
    if limit == MOST_TOKENS <= tokens.get("max", MOST_TOKENS):
        return None
    if tokens.get("max", MOST_TOKENS) <= limit:
        return 0.0
    share = tokens.get("share_over", {}).get(str(limit))
    return share if share is None or not rows else round(share * rows) / rows  # it was kept to four digits


def in_words(table: pd.DataFrame) -> list[str]:
    """What each length policy of a table cuts, a sentence without its full stop each.

    Args:
        table: as `load.table` gives it.
    """
    if "truncated_share" not in table:
        return []
    return [_of_a_policy(policy, rows) for policy, rows in table.groupby("length_policy", sort=True)]


def _of_a_policy(policy: str, rows: pd.DataFrame) -> str:
    known = rows[rows["truncated_share"].notna()]
    if known.empty:
        return f"how many sentences {policy} cuts is not known: {UNKNOWN}"
    unknown = rows.loc[rows["truncated_share"].isna(), "machine"].unique()
    rest = f"; of {' and '.join(sorted(unknown))} it is not known: {UNKNOWN}" if len(unknown) else ""
    if known["truncated_share"].max() == 0:
        return f"{policy} cuts no sentence{rest}"
    shares = sorted({(f"{row.truncated_share:.1%}", row.truncated_of) for row in known.itertuples()})
    return f"{policy} cuts {' or '.join(f'{share} of the sentences {of}' for share, of in shares)}{rest}"


def warning(table: pd.DataFrame) -> str:
    """What to say where cut and uncut text stand in one picture; "" where nothing is cut.

    Args:
        table: the cells that are shown.
    """
    cut = table.get("truncated_share", pd.Series(dtype=float))
    if not (pd.to_numeric(cut).fillna(1) > 0).any():
        return ""
    return f"{'; '.join(in_words(table))}. "
