"""Folders of the cache that are built once, and appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from distilbench import paths


def built_once(target: Path, what: str, build: Callable[[Path], None]) -> Path:
    """The folder, which the first process that asks for it builds beside its place and renames; others wait.

    Args:
        what: another process does meanwhile, such as "builds the classifier".
        build: fills an empty folder.
    """
    with paths.hold_lock(target.with_suffix(".lock"), f"another process {what}", wait=True):
        if target.is_dir():
            return target
        with paths.clear_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            build(folder)
            folder.chmod(0o755)
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return target
