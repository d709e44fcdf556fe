"""Which rows each process trains on, in which order: a pure function of seed, epoch and the processes' number.

A step's rows are the same whatever the number of processes, as long as the global batch is: N processes with b rows
each take what one process takes with N times b.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import DistributedSampler

POOL = 50  # global batches whose rows are sorted together: little padding, and batches still differ each epoch


@dataclass(frozen=True)
class Sizes:
    """How many rows a step takes.

    Attributes:
        batch: rows per forward of a process.
        accumulation: forwards per step of a process.
        world: processes.
    """

    batch: int
    accumulation: int
    world: int

    @property
    def step(self) -> int:
        """Rows of an optimizer step, over all processes."""
        return self.batch * self.accumulation * self.world


class Sampler(DistributedSampler):
    """One process's rows of an epoch, as torch's sampler shares them out: every world-th row, from its rank on.

    Unlike torch's, it counts no row twice: where the rows cannot be shared out evenly, the rows that fill up are
    negative (`~row`), which `corpus.Rows` gives no weight. Rows of similar length stand together, in chunks of `group`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        rank: int,
        world: int,
        seed: int,
        group: int,
        by_length: bool = True,
        start: int = 0,
    ) -> None:
        """
        Args:
            lengths: tokens of each row.
            group: rows of a step when the training began; the order hangs on it, and no resumption may change it.
            start: rows of this epoch that were seen before.
        """
        super().__init__(lengths, num_replicas=world, rank=rank, shuffle=True, seed=seed)
        self.lengths, self.group, self.by_length, self.start = lengths, group, by_length, start

    def order(self) -> list[int]:
        """All rows of this epoch, of all processes."""
        draw = random.Random(f"{self.seed} {self.epoch}")
        rows = list(range(len(self.lengths)))
        draw.shuffle(rows)
        if not self.by_length:
            return rows
        chunks: list[list[int]] = []
        for first in range(0, len(rows), POOL * self.group):
            pool = sorted(rows[first : first + POOL * self.group], key=self.lengths.__getitem__)
            chunks += [pool[i : i + self.group] for i in range(0, len(pool), self.group)]
        last = [chunks.pop()] if chunks and len(chunks[-1]) < self.group else []  # else a short step would stand inside
        draw.shuffle(chunks)
        return [row for chunk in chunks + last for row in chunk]

    def __iter__(self) -> Iterator[int]:
        rows = self.order()[self.start :]
        # the last one, wherever this begins: a row of another length would draw other numbers for dropout, and a
        # resumed training would go another way from the next step on
        rows += [~row for row in rows[-1:]] * (-len(rows) % self.num_replicas)
        return iter(rows[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return math.ceil((len(self.lengths) - self.start) / self.num_replicas)


def steps_of(rows: int, start: int, sizes: Sizes) -> list[tuple[int, int]]:
    """The steps of an epoch from a row on: (rows of all processes, forwards of each process)."""
    counts = [min(sizes.step, rows - first) for first in range(start, rows, sizes.step)]
    return [(count, math.ceil(math.ceil(count / sizes.world) / sizes.batch)) for count in counts]
