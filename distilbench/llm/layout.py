"""The folder that a command leaves: config.json, env.json, raw.json, summary.json, run_summary.md and plots/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.runs.folder import Run

COPIED = ("config.json", "env.json", "summary.json", "run_summary.md", "data.json", "model.json", "compression.json")


def leave(run: Run, out: Path) -> Path:
    """Copies what a run says into a folder; the run itself stays where it is, with every iteration.

    Args:
        run: finished.
        out: made if it is not there. What another run left there is not overwritten.

    Raises:
        RunError: it holds another run, or other files.
    """
    known = paths.read_json(out / "config.json")["run_id"] if (out / "config.json").is_file() else None
    if known != run.run_id and out.is_dir() and any(out.iterdir()):
        what = f"run {known}" if known else "other files"
        raise RunError(f"{out} holds {what}; name a folder that is empty or not there (--out)")
    with paths.clear_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            if (run.folder / name).is_file():
                paths.write_atomic(out / name, (run.folder / name).read_bytes())
        lines = run.raw.read_text(encoding="utf-8")
        paths.write_atomic(out / "raw.jsonl", lines)
        paths.write_json(out / "raw.json", [json.loads(line) for line in lines.splitlines()])
        if (run.folder / "plots").is_dir():
            shutil.copytree(run.folder / "plots", out / "plots", dirs_exist_ok=True)
    return out


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and summary of such a folder.

    Raises:
        RunError: it has none.
    """
    if not (folder / "summary.json").is_file() or not (folder / "config.json").is_file():
        raise RunError(
            f"{folder} holds no results (config.json and summary.json): name what `run` or `eval` left (--out)"
        )
    return paths.read_json(folder / "config.json"), paths.read_json(folder / "summary.json")
