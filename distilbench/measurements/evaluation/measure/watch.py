"""Progress of an evaluation while its process runs: the chunks that it commits, and an estimate of what is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilbench.progress import Progress, watched

EVERY_S = 2.0  # a look is one read of what was appended: nothing to a process that is being measured


@contextmanager
def progress(file: Path, total: int, rows_per_chunk: int, rows: int, what: str) -> Iterator[None]:
    """Says while inside how many chunks the file has, out of `total`.

    Args:
        rows_per_chunk, rows: to say it in rows.
    """
    lines = Lines(file)
    shown = Progress(total, done=lines.new())

    def look() -> None:
        if new := lines.new():
            done = min((shown.done + new) * rows_per_chunk, rows)
            shown.step(f"{what}: {done:,} of {rows:,} rows", new)

    with watched(look, EVERY_S):
        yield


class Lines:
    """Counts the lines of a file that grows."""

    def __init__(self, file: Path) -> None:
        self.file, self.at = file, 0

    def new(self) -> int:
        """How many came since the last time."""
        if not self.file.exists():
            return 0
        count = 0
        with self.file.open("rb") as opened:
            opened.seek(self.at)
            for line in opened:
                if line.endswith(b"\n"):  # else a kill left half of it, or it is being written
                    count, self.at = count + 1, self.at + len(line)
        return count
