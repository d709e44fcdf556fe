"""The collectors of time and memory: their order of calls on CUDA (a fake one), real time and real memory here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from distilbench.collectors import latency, memory

GPU, CPU = torch.device("cuda:1"), torch.device("cpu")


class FakeCuda:
    """Records the order of all calls; its events are 7.5 ms apart."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def Event(self, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing, "an event without timing cannot tell the time"
        name = "start" if not hasattr(self, "events") else "end"
        event = SimpleNamespace(record=lambda: self.calls.append(f"record {name}"), name=name)
        event.elapsed_time = lambda other: self.calls.append(f"elapsed {name} to {other.name}") or 7.5
        self.events = True
        return event

    def synchronize(self, device: torch.device) -> None:
        assert device == GPU, "another device's work is not this one's"
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        assert device == GPU
        self.calls.append("reset")

    def max_memory_allocated(self, device: torch.device) -> int:
        self.calls.append("allocated")
        return 3 * 2**20

    def max_memory_reserved(self, device: torch.device) -> int:
        self.calls.append("reserved")
        return 8 * 2**20


@pytest.fixture
def cuda():
    return FakeCuda()


def busy(seconds: float) -> str:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return "done"


# ------------------------------------------------------------------ time


def test_cuda_work_stands_between_two_fences_and_two_events(cuda):
    clock = latency.CudaClock(GPU, cuda)
    host_ms, device_ms, result = clock.time(lambda: cuda.calls.append("work") or "logits")
    assert cuda.calls == ["synchronize", "record start", "work", "record end", "synchronize", "elapsed start to end"]
    assert device_ms == 7.5, "what the events say"
    assert result == "logits"
    assert 0 < host_ms < 1000


def test_the_hosts_reading_on_cuda_holds_the_second_fence_but_not_the_first(cuda):
    fences = iter([2.0, 0.05])  # seconds that each fence waits
    cuda.synchronize = lambda device: time.sleep(next(fences))
    host_ms, _, _ = latency.CudaClock(GPU, cuda).time(lambda: busy(0.01))
    assert 60 <= host_ms < 2000


def test_the_events_are_used_again(cuda):
    clock = latency.CudaClock(GPU, cuda)
    for _ in range(3):
        clock.time(lambda: None)
    assert cuda.calls.count("elapsed start to end") == 3


def test_the_host_clock_sees_a_known_time():
    clock = latency.HostClock()
    readings = [clock.time(lambda: busy(0.002)) for _ in range(100)]
    assert 2 <= min(ms for ms, _, _ in readings) < 2.4, "the least disturbed of them"
    assert all(device_ms is None and result == "done" for _, device_ms, result in readings)


def test_the_clocks_do_not_follow_the_time_of_day(cuda, monkeypatch):
    """It may be set while a forward runs."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for clock in (latency.HostClock(), latency.CudaClock(GPU, cuda)):
        assert clock.time(lambda: busy(0.002))[0] >= 2


def test_each_device_gets_the_clock_that_is_true_there(monkeypatch):
    monkeypatch.setattr(latency, "CudaClock", lambda device: f"clock of {device}")
    assert isinstance(latency.clock_for(CPU), latency.HostClock)
    assert latency.clock_for(GPU) == "clock of cuda:1"


# ------------------------------------------------------------------ memory


def in_fresh_process(code: str, *arguments: object) -> dict:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_peak_memory_sees_64_MiB_and_keeps_seeing_them():
    found = in_fresh_process(
        "import json\n"
        "from distilbench.collectors import memory\n"
        "before = memory.rss_MiB()\n"
        "block = bytearray(b'x') * (64 * 2**20)\n"
        "held = memory.rss_MiB()\n"
        "del block\n"
        "print(json.dumps([before, held, memory.rss_MiB(), memory.peak_rss_MiB()]))"
    )
    before, held, after, peak = found
    assert held - before == pytest.approx(64, rel=0.1)
    assert peak - before == pytest.approx(64, rel=0.1)
    assert after < held - 50, "resident memory falls again, the peak does not"


def test_a_big_parent_does_not_show_in_a_small_childs_peak():
    child = "from distilbench.collectors import memory; print(memory.peak_rss_MiB())"
    found = in_fresh_process(
        "import json, subprocess, sys\n"
        "from distilbench.collectors import memory\n"
        "block = bytearray(b'x') * (900 * 2**20)\n"
        "said = subprocess.check_output([sys.executable, '-c', sys.argv[1]], text=True)\n"
        "print(json.dumps({'parent': memory.peak_rss_MiB(), 'child': float(said)}))",
        child,
    )
    assert found["parent"] > 900
    assert found["child"] < 600, "only its own"


def test_the_right_field_of_proc_is_read(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9999999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    assert (memory.peak_rss_MiB(), memory.rss_MiB()) == (2.0, 1.0)


def test_each_phase_has_a_peak_of_its_own():
    found = in_fresh_process(
        "import json, torch\n"
        "from distilbench.collectors import memory\n"
        "phases = memory.Phases(torch.device('cpu'))\n"
        "block = bytearray(b'x') * (64 * 2**20)\n"
        "del block\n"
        "phases.mark('load')\n"
        "phases.mark('first')\n"
        "print(json.dumps([phases.separate, phases.peaks_rss_MiB, phases.highest_rss_MiB]))"
    )
    separate, peaks, highest = found
    assert set(peaks) == ({"load", "first"} if separate else set())
    if separate:
        assert peaks["first"] < peaks["load"] - 50
        assert highest == peaks["load"]


def test_cuda_peaks_are_reset_after_the_fence(cuda):
    memory.reset_cuda_peaks(GPU, cuda)
    assert cuda.calls == ["synchronize", "reset"]


def test_cuda_peaks_are_read_after_the_fence(cuda):
    assert memory.cuda_peaks_MiB(GPU, cuda) == (3.0, 8.0)
    assert cuda.calls == ["synchronize", "allocated", "reserved"]


def test_on_the_cpu_there_are_no_cuda_peaks(cuda):
    memory.reset_cuda_peaks(CPU, cuda)
    assert memory.cuda_peaks_MiB(CPU, cuda) is None
    assert cuda.calls == []
