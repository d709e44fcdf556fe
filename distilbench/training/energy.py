"""The energy of an epoch, over all processes.

Each process counts what is its own: its GPU; or the processor, which the first process of a machine counts for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distilbench.collectors import energy, nvml
from distilbench.collectors.energy_source import Source
from distilbench.errors import DistilbenchError
from distilbench.harness.energy_windows import Windows
from distilbench.machine.device import gpu_identity
from distilbench.training.ranks import Ranks

NO_ENERGY: dict[str, Any] = {"energy_J": None, "energy_source": None, "energy_scope": None, "energy_reason": None}
OF_THE_JOB = "nodes of the job"  # a scope: one process counts for all of them


class EpochMeter:
    """Measures the energy of one epoch after another; all processes call it for each.

    Args:
        ranks: the processes.
        found: sources of energy readings here, the one to report first, and why there is no other; None: looked for.
    """

    def __init__(self, ranks: Ranks, found: tuple[list[Source], str] | None = None) -> None:
        self.ranks = ranks
        used, self.why = found or _sources(ranks)
        mine = [source for source in used[:1] if self._counts(source)]
        self.windows = Windows(mine) if mine else None
        self.is_needed = bool(mine) or not used

    def _counts(self, source: Source) -> bool:
        if source.scope == OF_THE_JOB:
            return self.ranks.is_first
        return source.scope == "gpu" or self.ranks.local_rank == 0

    def poll(self) -> None:
        """To be called now and then while the work is done."""
        if self.windows:
            self.windows.poll()

    def over(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Does the work: `energy_J` of all processes with its source and scope, else why there is none.

        All processes get the same.
        """
        own = self._own(work)
        parts = self.ranks.told(self.ranks.gather((*own, self.why, self.is_needed)))
        counted = [part for part in parts if part[-1]]
        if missing := [why for _, _, joules, why, _ in counted if joules is None]:
            return NO_ENERGY | {"energy_reason": missing[0] or "nothing measures energy here"}
        source, scope = counted[0][:2]
        total = sum(joules for _, _, joules, _, _ in counted)
        return NO_ENERGY | {"energy_J": total, "energy_source": source, "energy_scope": scope}

    def _own(self, work: Callable[[], Any]) -> tuple[str | None, str | None, float | None]:
        """What this process counts while it does the work: (source, scope, J)."""
        if not self.windows:
            work()
            return None, None, None
        done, (source,) = [], self.windows.used
        name, scope = source.name, source.scope
        try:
            _, joules, _ = self.windows.over(lambda: done.append(work()))
        except DistilbenchError as error:
            if not done:  # it is the work that failed
                raise
            self.windows, self.why = None, str(error)
            return name, scope, None
        if name not in joules:
            self.why = self.windows.invalid.get(name, "no reading")
        return name, scope, joules.get(name)


def _sources(ranks: Ranks) -> tuple[list[Source], str]:
    gpu, no_gpu = nvml.gpu_of(gpu_identity(ranks.device))
    return energy.sources(str(ranks.device), gpu, no_gpu=no_gpu)
