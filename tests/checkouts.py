"""Copies of the checkout to work in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from distilbench import paths

ROOT = paths.repo_root()
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "_build", "__pycache__", ".*_cache", ".coverage*", "dist", "slurm_logs", "*.egg-info"
)


def whole(folder: Path) -> Path:
    """All that is needed to work on the project, without what was built and measured here."""
    shutil.copytree(ROOT, folder, symlinks=True, ignore=_left_out)
    return folder


def _left_out(where: str, names: list[str]) -> set[str]:
    return set(names) - {"published"} if Path(where) == ROOT / "results" else LEFT_OUT(where, names)


def of_the_book(folder: Path) -> Path:
    """What the book is built from, without what was built."""
    for name in ("book", "notebooks", "params", "results/published"):
        ignored = shutil.ignore_patterns("_build", "your-run.ipynb", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


def python_path(*folders: Path) -> dict[str, str]:
    """The variable with which processes find modules in these folders first, besides where they look anyway."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))}
