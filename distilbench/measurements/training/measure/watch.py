"""What a training says while its processes run: the lines that its first process writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilbench.progress import watched

LOG = "log.txt"  # in the folder of a step
EVERY_S = 2.0


@contextmanager
def shown(file: Path) -> Iterator[None]:
    """Prints while inside the whole lines that come into the file."""
    at = file.stat().st_size if file.is_file() else 0

    def look() -> None:
        nonlocal at
        if not file.is_file():
            return
        with file.open("rb") as opened:
            opened.seek(at)
            for line in opened:
                if line.endswith(b"\n"):
                    at += len(line)
                    print(f"  {line.decode('utf-8', 'replace').rstrip()}", flush=True)

    with watched(look, EVERY_S):
        yield
