"""Energy: what can measure it here, window by window. What cannot be measured is said with its reason, never as 0 J."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from distilbench.collectors import rapl
from distilbench.collectors.energy_source import Counting, Source, tick_ms
from distilbench.collectors.nvml import Gpu
from distilbench.errors import DeviceError, DistilbenchError, ImplausibleError
from distilbench.machine import environment, slurm_job

SAMPLE_S = 0.05  # between two readings of a GPU's power: as often as the driver renews it
MOST_GPU_W = 3000.0  # more than any GPU draws: the largest of 2026 have limits of 1,400 W
MOST_NODE_W = 50e3  # more than any node draws: those with eight or sixteen large GPUs have supplies of 10 to 20 kW


class Rapl(Counting):
    """All packages and DRAM of the machine, this package's own reader."""

    name, scope = "rapl", "host"

    def __init__(self) -> None:
        self.meter = rapl.Meter(rapl.rapl_counters())
        self.parts = [counter.name for counter in self.meter.counters]
        self.most_W = rapl.MOST_W * len(self.parts)

    def begin(self) -> None:
        self.meter.restart()  # what a counter did before the window is not the window's fault
        self._before = sum(self.meter.energy_J.values())

    def poll(self) -> None:
        self.meter.update()

    def joules(self) -> float:
        return sum(self.meter.update().values())

    def tick_ms(self) -> float | None:
        first = self.meter.counters[0]  # one counter: several are renewed shortly after each other
        return tick_ms(lambda: rapl.reading_uJ(first))

    def limit_W(self) -> float | None:
        """Of all packages; DRAM often has no limit, and is little beside them."""
        if any(counter.limit_W is None and "/" not in counter.name for counter in self.meter.counters):
            return None
        return sum(counter.limit_W or 0.0 for counter in self.meter.counters)


class PyRapl(Source):
    """The same counters through the pyRAPL package, as a cross-check.

    It never reads the counters' range: a window in which one starts again gives nothing, or less than nothing.
    """

    name, scope = "pyrapl", "host"

    def __init__(self) -> None:
        handlers, disabled = list(logging.root.handlers), logging.root.manager.disable
        logging.disable(logging.WARNING)  # it warns of a database that nobody asked for, by a handler of its own
        try:
            import pyRAPL
        except ImportError:
            raise DistilbenchError("pyRAPL is not installed (extra `rapl`)") from None
        finally:
            logging.disable(disabled)
            logging.root.handlers = handlers
        try:
            pyRAPL.setup()
        except Exception as error:  # a bare PermissionError, or an exception of its own without a message
            raise DistilbenchError(f"pyRAPL: {str(error) or type(error).__name__}") from error
        self.pyRAPL = pyRAPL
        self.parts = ["pyRAPL.Measurement"]
        self.most_W = rapl.MOST_W * max(1, sum(c.readable and c.counted for c in rapl.rapl_counters()))
        self.begin()
        self.measurement.end()
        self._whole = self._parts_seen()

    def begin(self) -> None:
        self.measurement = self.pyRAPL.Measurement("window")
        self.measurement.begin()

    def end(self) -> float:
        self.measurement.end()
        result = self.measurement.result
        values = [*(result.pkg or []), *(result.dram or [])]
        if not values or min(values) < 0 or self._parts_seen() != self._whole:
            raise ImplausibleError("pyRAPL lost the window: a counter started again")
        return sum(values) / 1e6

    def _parts_seen(self) -> tuple[bool, bool]:
        """Whether the last measurement has packages, and DRAM: it drops what started again."""
        result = self.measurement.result
        return bool(result.pkg), bool(result.dram)


class OfGpu(Source):
    """What both of NVML's sources have in common."""

    scope, most_W = "gpu", MOST_GPU_W

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.parts = gpu, [f"GPU {gpu.uuid}"]

    def limit_W(self) -> float | None:
        return self.gpu.power_limit_W()


class NvmlCounter(OfGpu, Counting):
    """The GPU's own energy counter."""

    name = "nvml-counter"
    went_back = "the GPU's energy counter went back during a window (the driver was loaded again)"

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu)
        gpu.energy_J()  # raises where there is none

    def joules(self) -> float:
        return self.gpu.energy_J()

    def tick_ms(self) -> float | None:
        return tick_ms(self.gpu.energy_J)


class NvmlPower(OfGpu):
    """The GPU's power, read all the while and integrated by the trapezoid rule.

    On some GPUs the driver measures only a quarter of the time (Yang et al. 2024, arXiv 2312.02741), hence a flag of
    its own in the record.
    """

    name = "nvml-power"

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu)
        self.parts = [f"GPU {gpu.uuid}, every {SAMPLE_S * 1e3:g} ms"]
        self._thread: threading.Thread | None = None
        gpu.power_W()

    def begin(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._stop, self._problem = threading.Event(), None
        self._sample()  # the window's beginning, which the thread's first sample is SAMPLE_S behind
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        self._samples.append((time.perf_counter(), self.gpu.power_W()))

    def _watch(self) -> None:
        try:
            while not self._stop.wait(SAMPLE_S):  # sleeps: a thread that polled would take the host's core
                self._sample()
        except DeviceError as error:
            self._problem = error  # raised where the window ends: nobody sees what a thread raises

    def abandon(self) -> None:
        if self._thread:
            self._stop.set()
            self._thread.join()

    def end(self) -> float:
        self.abandon()
        if self._problem:
            raise self._problem
        self._sample()  # the window's end, which the thread need not have hit
        return trapezoid(self._samples)


def trapezoid(samples: list[tuple[float, float]]) -> float:
    """Integral over (seconds, watts), in joules."""
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(samples))


PROBE_S = 1.0  # in which a counter that counts must have moved


def moves(source: Source) -> bool:
    """Whether a source counts at all: in some virtual machines a counter can be read and stands still."""
    deadline = time.perf_counter() + PROBE_S
    while True:
        source.begin()
        time.sleep(0.05)
        late = time.perf_counter() >= deadline
        try:
            if (joules := source.end()) > 0 or late:
                return joules > 0
        except ImplausibleError:  # once is no reason to do without it
            if late:
                raise


class Slurm(Counting):
    """What SLURM counts for this job's nodes (ConsumedEnergyRaw); 0 and empty mean that nothing measures."""

    name, scope, least_s = "slurm", "nodes of the job", 60.0
    went_back = "SLURM's ConsumedEnergy went back by {:g} J"

    def __init__(self) -> None:
        self.job = os.environ.get("SLURM_JOB_ID")
        if not self.job or not shutil.which("sstat"):
            raise DistilbenchError("not inside a SLURM job")
        kind = slurm_job.energy_type(slurm_job.answer("scontrol", "show", "config"))
        if not kind:
            why = "SLURM does not say what measures energy (no AcctGatherEnergyType in its configuration)"
            raise DistilbenchError(why)
        if kind == "none":
            raise DistilbenchError("SLURM measures no energy here (AcctGatherEnergyType is none)")
        self.parts = [f"AcctGatherEnergyType {kind}"]
        self.most_W = MOST_NODE_W * int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)
        self.joules()  # raises where nothing is measured

    def joules(self) -> float:
        name, fields = slurm_job.name(self.job), "JobID,ConsumedEnergyRaw"
        text = slurm_job.answer("sstat", "-a", "-n", "-P", "-j", name, "-o", fields)
        if (joules := slurm_job.consumed_energy_J(text, self.job)) is None:
            raise DistilbenchError("SLURM's ConsumedEnergy is 0 or empty: not measured")
        return joules


class Modelled(Counting):
    """A given power times the duration: no measurement, and called `modelled` wherever it shows."""

    name, scope = "modelled", "given"

    def __init__(self, power_W: float) -> None:
        self.power_W, self.parts = power_W, [f"{power_W:g} W as given, times duration"]

    def joules(self) -> float:
        return self.power_W * time.perf_counter()


def sources(
    device: str, gpu: Gpu | None = None, modelled_power_W: float | None = None, no_gpu: str | None = None
) -> tuple[list[Source], str]:
    """Everything that measures the energy of work on `device` here, the one to report first; and why others do not.

    Args:
        modelled_power_W: what to fall back to where nothing measures; None: nothing.
        no_gpu: why there is no `gpu`.
    """
    kinds: list[Callable[[], Source]] = [Rapl, PyRapl, Slurm]
    if device != "cpu":
        kinds = [lambda: NvmlCounter(gpu), lambda: NvmlPower(gpu), Rapl, Slurm] if gpu else [Slurm]
    usable, reasons = [], [no_gpu] if no_gpu and device != "cpu" else []
    for kind in kinds:
        try:
            source = kind()
            if source.least_s or moves(source):  # a slow one shows it in its windows
                usable.append(source)
            else:
                reasons.append(f"{source.name}: the counter can be read, but it stands still")
        except DistilbenchError as error:
            reasons.append(str(error))
    if device != "cpu" and not any(source.scope == "gpu" for source in usable):
        usable = [source for source in usable if source.scope != "host"]  # the host's counters do not hold the GPU
    if not usable and modelled_power_W:
        usable = [Modelled(modelled_power_W)]
    return usable, "; ".join(reasons)


def unavailable_reason(device: str) -> str | None:
    """Why nothing measures the energy of work on `device`, without loading torch; None when something does."""
    if device == "cpu":
        why = rapl.unavailable_reason()
    else:
        gpus, why_none = environment.gpus()
        why = None if gpus else f"no GPU counter: {why_none}"
    with suppress(DistilbenchError):
        if why:
            Slurm()  # it raises where it does not measure
            return None
    return why
