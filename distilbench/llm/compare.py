"""Two results in one page, with the pictures of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.llm import layout
from distilbench.runs import measurement


def compare(base: Path, palu: Path, out: Path) -> list[Path]:
    """Writes comparison.md and the plots of both; returns the files.

    Raises:
        RunError: a folder holds no results, or of a kind that is not compared so, or the two are of another model or
            another text.
    """
    cells: list[list[dict[str, Any]]] = []
    known: dict[str, tuple[Any, Path]] = {}
    for folder in (base, palu):
        config, summary = layout.read(folder)
        showing = measurement.of(config).showing
        if not hasattr(showing, "side_by_side"):
            raise RunError(f"{folder} holds results of kind {config['kind']}; times are compared (--suite infer_sweep)")
        for name in ("data.json", "model.json"):
            _require_same(known, name, paths.read_json(folder / name)["sha256"], folder)
        cells.append(summary["cells"])
    paths.write_atomic(out / "comparison.md", showing.side_by_side(*cells))
    return [out / "comparison.md", *showing.save_of([*cells[0], *cells[1]], out / "plots")]


def _require_same(known: dict[str, tuple[Any, Path]], what: str, value: Any, folder: Path) -> None:
    before, where = known.setdefault(what, (value, folder))
    if before != value:
        raise RunError(f"{where} and {folder} cannot be compared: the SHA-256 in {what} is {before} and {value}")
