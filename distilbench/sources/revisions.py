"""What was fetched the first time is what every later run must get: params/revisions.lock.

A hash is written here only after it was seen: the first fetch resolves a revision and writes commit and content hash;
later fetches ask for that commit and compare the content.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from distilbench import paths
from distilbench.errors import DataError, DistilbenchError

HEADER = """\
# Written by distilbench at the first fetch of an artefact, enforced at every later one; commit it.
# To accept changed content: delete its entry, then run `distilbench verify data`.
"""


def shared_lock() -> Path:
    """The lock that is committed: hub and embedded artefacts."""
    return Path(os.environ.get("DISTILBENCH_REVISIONS_LOCK") or paths.repo_root() / "params" / "revisions.lock")


def local_lock() -> Path:
    """The lock of this machine: files that only it has."""
    return paths.cache_root() / "revisions.lock"


def read(file: Path) -> dict[str, dict[str, Any]]:
    """All entries by key; an absent file has none."""
    if not file.is_file():
        return {}
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DistilbenchError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) and "sha256" in e for e in entries.values()):
        raise DistilbenchError(f"{file} is damaged: it must hold names, each with its sha256; restore it from git")
    return entries


def enforce(key: str, found: dict[str, Any], file: Path) -> bool:
    """Compares what was found with the lock; writes it there when the key is new.

    Args:
        key: names the artefact, such as "model distilbert/...@714eb0f".
        found: its `sha256`, and its `commit` where it has one.
        file: the lock.

    Returns:
        True when the entry was new.

    Raises:
        DataError: the content has another hash than the lock says; both are named.
    """
    with paths.hold_lock(paths.cache_root() / "revisions.mutex", "another process writes the lock", wait=True):
        entries = read(file)
        known = entries.get(key)
        if known is None:
            text = yaml.safe_dump(entries | {key: found}, sort_keys=True, width=200)
            paths.write_atomic(file, HEADER + text)
            return True
    if known["sha256"] != found["sha256"]:
        raise DataError(
            f"{key} is not what it was: SHA-256 {known['sha256']} in {file}, {found['sha256']} now. "
            f"If the change is meant, delete the entry {key!r} from {file} and run again."
        )
    return False
