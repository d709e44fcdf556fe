"""Telemetry: clocks, throttles and temperatures from a made-up machine, and what stands in a block of them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from distilbench.collectors import cpu_use, telemetry
from distilbench.collectors.cpu_use import CpuCounters
from distilbench.collectors.telemetry import Telemetry, cpu_MHz, cpu_temperature_C, cpu_throttles
from distilbench.measurements.sweep.records import ITERATIONS
from distilbench.measurements.sweep.summary.join import TELEMETRY

CLOCK, THROTTLES = "cpufreq/scaling_cur_freq", "thermal_throttle/core_throttle_count"
GARBAGE = [b"", b"\n", b"<unknown>\n", b"1.5\n", b"\xff\xfe"]


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a file of a core; this process may use cores 0 and 3."""
    monkeypatch.setattr(telemetry, "SYS_CPU", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3})

    def put(core: int, name: str, content: object) -> None:
        file = tmp_path / f"cpu{core}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())

    return put


@pytest.fixture
def sensors(monkeypatch):
    """What psutil says of temperatures: readings by name of the sensor; none at first."""
    readings: dict[str, list[float]] = {}
    shown = lambda: {name: [SimpleNamespace(current=c) for c in all_] for name, all_ in readings.items()}  # noqa: E731
    monkeypatch.setattr(psutil, "sensors_temperatures", shown)
    return readings


# ------------------------------------------------------------------ clock


def test_the_clock_is_the_mean_of_the_usable_cores(put):
    for core, kHz in ((0, 2_000_000), (1, 9_000_000), (3, 3_000_500)):
        put(core, CLOCK, kHz)
    assert cpu_MHz() == 2500.25


def test_without_cpufreq_there_is_no_clock(put):
    assert cpu_MHz() is None
    put(1, CLOCK, 9_000_000)
    assert cpu_MHz() is None, "that core is not ours"


@pytest.mark.parametrize("said", [*GARBAGE, b"0\n"])
def test_a_core_that_shows_no_clock_does_not_count(put, said):
    put(0, CLOCK, said)
    assert cpu_MHz() is None
    put(3, CLOCK, 3_000_000)
    assert cpu_MHz() == 3000


# ------------------------------------------------------------------ throttles


def test_throttles_are_those_of_the_usable_cores(put):
    assert cpu_throttles() is None
    for core, times in ((0, 4), (1, 100), (3, 7)):
        put(core, THROTTLES, times)
    assert cpu_throttles() == 11


def test_never_throttled_is_not_the_same_as_not_known(put):
    put(0, THROTTLES, 0)
    put(3, THROTTLES, 0)
    assert cpu_throttles() == 0


@pytest.mark.parametrize("said", GARBAGE)
def test_a_core_whose_count_cannot_be_read_is_not_one_that_was_never_throttled(put, said):
    put(0, THROTTLES, said)
    assert cpu_throttles() is None
    put(3, THROTTLES, 5)
    assert cpu_throttles() is None
    put(0, THROTTLES, 0)
    assert cpu_throttles() == 5


def test_what_is_no_file_is_not_read(put, tmp_path):
    (tmp_path / "cpu0" / CLOCK).mkdir(parents=True)
    (tmp_path / "cpu0" / THROTTLES).mkdir(parents=True)
    assert cpu_MHz() is None
    assert cpu_throttles() is None


# ------------------------------------------------------------------ temperature


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"coretemp": []}, None),
        ({"nvme": [71.0], "acpitz": [99.0], "iwlwifi_1": [50.0]}, None),
        ({"coretemp": [41.0, 56.5, 44.0], "nvme": [71.0]}, 56.5),
        ({"k10temp": [60.0], "coretemp": [40.0]}, 60.0),
        ({"zenpower": [33.0]}, 33.0),
        ({"cpu_thermal": [48.3]}, 48.3),
    ],
)
def test_the_temperature_is_that_of_the_hottest_sensor_on_the_cpu(sensors, said, expected):
    sensors.update(said)
    assert cpu_temperature_C() == expected


# ------------------------------------------------------------------ blocks


@pytest.fixture
def machine(put, sensors, monkeypatch):
    """A machine whose time and counters are set by the test."""
    state = SimpleNamespace(now=100.0, used_s=0.0, stolen_s=0.0, own_s=0.0, put=put, sensors=sensors)
    look = lambda: CpuCounters(state.now, state.used_s, state.stolen_s, state.own_s, 0.0)  # noqa: E731
    monkeypatch.setattr(cpu_use, "cpu_counters", look)
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: state.now))
    return state


def test_a_block_says_what_happened_since_the_last_one(machine):
    machine.put(0, THROTTLES, 5)
    machine.put(3, THROTTLES, 1)
    machine.put(3, CLOCK, 2_400_000)
    machine.sensors["coretemp"] = [61.0]
    reader = Telemetry()
    machine.now, machine.used_s, machine.own_s, machine.stolen_s = 104.0, 7.0, 5.0, 1.0
    machine.put(0, THROTTLES, 7)
    assert reader.block() == {
        "foreign_cores": 0.5, "stolen_cores": 0.25, "cpu_MHz": 2400.0, "cpu_temperature_C": 61.0, "cpu_throttles": 2,
    }  # fmt: skip
    machine.now = 106.0
    machine.used_s, machine.own_s = 10.0, 7.0
    assert reader.block() == {
        "foreign_cores": 0.5, "stolen_cores": 0.0, "cpu_MHz": 2400.0, "cpu_temperature_C": 61.0, "cpu_throttles": 0,
    }  # fmt: skip


def test_what_this_machine_does_not_show_is_none(machine):
    reader = Telemetry()
    machine.now, machine.used_s, machine.stolen_s = 102.0, None, None
    assert set(reader.block().values()) == {None}


@pytest.mark.parametrize(("before", "after"), [(None, 3), (3, b"gone\n"), (3, 2)])
def test_throttles_need_a_count_at_both_ends_that_did_not_go_back(machine, before, after):
    machine.put(3, THROTTLES, 0)
    if before is not None:
        machine.put(0, THROTTLES, before)
    reader = Telemetry()
    machine.put(0, THROTTLES, after)
    machine.now = 101.0
    assert reader.block()["cpu_throttles"] is None


def test_throttles_that_become_known_are_counted_from_then_on(machine):
    machine.put(3, THROTTLES, 0)
    reader = Telemetry()
    machine.put(0, THROTTLES, 3)
    machine.now = 101.0
    reader.block()
    machine.put(0, THROTTLES, 4)
    machine.now = 102.0
    assert reader.block()["cpu_throttles"] == 1


def test_a_reading_is_due_once_a_second_and_tells_what_was_since_the_last(machine):
    machine.put(0, THROTTLES, 1)
    machine.put(3, THROTTLES, 0)
    reader = Telemetry()
    machine.now, machine.used_s = 100.75, 0.5
    machine.put(0, THROTTLES, 3)
    assert not reader.due()
    machine.now = 101.0
    assert reader.due()
    found = reader.block()
    assert (found["cpu_throttles"], found["foreign_cores"]) == (2, 0.5), "since 100.0"
    assert not reader.due()


class FakeGpu:
    """A GPU whose state says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def state(self) -> dict:
        self.asked += 1
        return {"gpu_sm_MHz": 1980, "gpu_temperature_C": 50 + self.asked}


def test_the_gpus_state_stands_in_the_block(machine):
    gpu = FakeGpu()
    reader = Telemetry(gpu)
    assert not reader.due()
    assert gpu.asked == 0
    machine.now = 101.0
    found = reader.block()
    assert (found["gpu_sm_MHz"], found["gpu_temperature_C"]) == (1980, 51)
    assert found["foreign_cores"] == 0


def test_this_machine_says_who_else_used_it():
    reader = Telemetry()
    assert not reader.due(), "made this moment"
    found = reader.block()
    assert isinstance(found["foreign_cores"], float)
    assert isinstance(found["stolen_cores"], float)
    assert found["foreign_cores"] >= 0


def test_every_column_is_kept_and_summarised():
    names = set(Telemetry().block())
    assert names == {name for name in TELEMETRY if not name.startswith("gpu_")}
    assert names <= set(ITERATIONS.names)
