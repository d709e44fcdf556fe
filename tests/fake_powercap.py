"""A powercap tree whose counters go up as if the machine drew a given power: for hardware that is not here."""

from __future__ import annotations

import threading
import time
from pathlib import Path


class FakeRapl:
    """Counters under `root` that count as long as the block runs.

    Args:
        root: an empty folder, the one $DISTILBENCH_POWERCAP_ROOT names.
        power_W: by zone, such as {"0": 40.0, "0:0": 3.0}.
        names: by zone, such as {"0": "package-0", "0:0": "dram"}.
        range_uJ: where counters start again; small ones do so often.
        start_J: what they say at first.

    Attributes:
        largest_gap_s: the longest time between two writes: how old a reading may have been.
    """

    def __init__(
        self,
        root: Path,
        power_W: dict[str, float],
        names: dict[str, str],
        range_uJ: int = 10**12,
        start_J: float = 0.0,
    ) -> None:
        self.root, self.power_W, self.range_uJ, self.start_J = root, power_W, range_uJ, start_J
        self.start, self.stopped = time.monotonic(), threading.Event()
        self.written, self.largest_gap_s = self.start, 0.0
        for zone, name in names.items():
            folder = root / f"intel-rapl:{zone}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text(f"{range_uJ}\n")
        self._write()

    def _write(self) -> None:
        spent = time.monotonic() - self.start
        for zone, power in self.power_W.items():
            file = self.root / f"intel-rapl:{zone}" / "energy_uj"
            new = file.with_name("new")
            new.write_text(f"{int((self.start_J + spent * power) * 1e6) % self.range_uJ}\n")
            new.replace(file)
        now = time.monotonic()
        self.written, self.largest_gap_s = now, max(self.largest_gap_s, now - self.written)

    def set_back(self, joules: float) -> None:
        """From the next writing on counters say so much less, as when the driver is loaded again."""
        self.start_J -= joules

    def _count(self) -> None:
        while not self.stopped.wait(0.02):
            self._write()

    def __enter__(self) -> FakeRapl:
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
