"""Sources of energy over hardware that is not here: what each counts, when it refuses, and which one is reported."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyRAPL
import pytest
from fake_powercap import FakeRapl
from pyRAPL import device_api
from waiting import wait_for

from distilbench.collectors import energy, energy_source, rapl
from distilbench.collectors.energy import (
    Modelled,
    NvmlCounter,
    NvmlPower,
    PyRapl,
    Rapl,
    Slurm,
    Source,
    sources,
    tick_ms,
    trapezoid,
    unavailable_reason,
)
from distilbench.errors import DeviceError, DistilbenchError, ImplausibleError, RunError
from distilbench.harness.energy_windows import Windows
from distilbench.machine import environment, slurm_job

RANGE_uJ = 5_000_000


@pytest.fixture(autouse=True)
def powercap(tmp_path, monkeypatch) -> Path:
    """The powercap tree of a machine on which nothing measures: empty, outside SLURM; pyRAPL looks at it as well."""

    def move(path: str) -> Path:
        return tmp_path / path.removeprefix("/sys/")

    root = tmp_path / "class" / "powercap" / "intel-rapl"
    root.mkdir(parents=True)
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(root))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(pyRAPL, "_sensor", None)
    exists = SimpleNamespace(exists=lambda path: move(path).exists())
    monkeypatch.setattr(device_api, "open", lambda path, *mode: move(path).open(*mode), raising=False)
    monkeypatch.setattr(device_api, "os", SimpleNamespace(path=exists))
    add_sockets(tmp_path, 1)
    return root


def add_sockets(sys_root: Path, number: int) -> None:
    """CPUs of two cores each."""
    cpus = sys_root / "devices" / "system" / "cpu"
    for core in range(2 * number):
        topology = cpus / f"cpu{core}" / "topology"
        topology.mkdir(parents=True, exist_ok=True)
        (topology / "physical_package_id").write_text(f"{core // 2}\n")
    (cpus / "present").write_text(f"0-{2 * number - 1}\n")


def add_zone(folder: Path, number: str, name: str, energy_uJ: int = 0) -> Path:
    """A zone of the tree; returns its counter."""
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{RANGE_uJ}\n")
    count(zone / "energy_uj", energy_uJ)
    return zone / "energy_uj"


def count(file: Path, energy_uJ: int) -> None:
    file.write_text(f"{energy_uJ}\n")


class Clock:
    """Time that goes on by 1 ms whenever somebody asks for it."""

    def __init__(self, each_ms: Callable[[int], object] = lambda ms: None) -> None:
        self.ms, self.each_ms = 0, each_ms

    def perf_counter(self) -> float:
        self.ms += 1
        self.each_ms(self.ms)
        return self.ms / 1e3


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(energy, "time", clock)
    monkeypatch.setattr(energy_source, "time", clock)
    return clock


class FakeGpu:
    """A GPU with these readings one after the other, the last one for ever; an exception among them is raised."""

    uuid = "GPU-7"

    def __init__(self, energy_J: tuple = (0.0,), power_W: tuple = (200.0,)) -> None:
        self.energies, self.powers, self.asked = list(energy_J), list(power_W), 0

    def _next(self, readings: list) -> float:
        self.asked += 1
        value = readings.pop(0) if len(readings) > 1 else readings[0]
        if isinstance(value, Exception):
            raise value
        return value

    def energy_J(self) -> float:
        return self._next(self.energies)

    def power_W(self) -> float:
        return self._next(self.powers)


# ------------------------------------------------------------------ ticks


def test_the_tick_is_the_time_between_two_changes(clock):
    assert tick_ms(lambda: clock.ms // 20) == pytest.approx(20, abs=1)


def test_a_changing_counter_is_not_read_longer_than_needed(clock):
    tick_ms(lambda: clock.ms // 20)
    assert clock.ms < 50


@pytest.mark.parametrize("last_change_ms", [0, 500], ids=["never", "once"])
def test_a_counter_that_does_not_change_twice_has_no_tick(clock, last_change_ms):
    assert tick_ms(lambda: clock.ms > last_change_ms > 0, most_s=2.0) is None
    assert 2000 <= clock.ms < 2010, "it was read as long as allowed"


def test_a_source_has_to_say_how_it_begins_and_ends_but_not_its_tick():
    with pytest.raises(TypeError, match="abstract"):
        Source()
    source = FakeSource("a", 1.0)
    assert Source.poll(source) is source.tick_ms() is None


# ------------------------------------------------------------------ RAPL, our own reader


def test_rapl_adds_packages_and_dram_of_the_window_only(powercap):
    package, core = add_zone(powercap, "0", "package-0"), add_zone(powercap, "0:0", "core")
    dram = add_zone(powercap, "0:1", "dram")
    source = Rapl()
    assert source.parts == ["package-0", "package-0/dram"]
    count(package, 1_000_000)  # before the window
    source.begin()
    count(package, 3_500_000)
    count(core, 2_000_000)
    count(dram, 250_000)
    assert source.end() == pytest.approx(2.75)


def test_rapl_counts_one_window_after_the_other(powercap):
    package = add_zone(powercap, "0", "package-0")
    source = Rapl()
    for after_uJ, joules in ((1_000_000, 1), (3_000_000, 2), (4_500_000, 1.5)):
        source.begin()
        count(package, after_uJ)
        assert source.end() == pytest.approx(joules)


def test_a_counter_that_starts_again_between_polls_is_followed(powercap):
    package = add_zone(powercap, "0", "package-0", 1_000_000)
    source = Rapl()
    source.begin()
    for energy_uJ in (4_000_000, 1_000_000):  # 3 J, then 1 J to the end and 1 J from it
        count(package, energy_uJ)
        source.poll()
    count(package, 500_000)  # 4 J to the end again, 0.5 J from it
    assert source.end() == pytest.approx(9.5)


def test_a_counter_that_is_set_back_spoils_its_window_and_no_other(powercap):
    package = add_zone(powercap, "0", "package-0", 100_000_000_000)
    (package.parent / "max_energy_range_uj").write_text("262143328850\n")
    windows = Windows([Rapl()])

    def work(*readings_uJ: int) -> None:
        for energy_uJ in readings_uJ:
            time.sleep(0.01)
            count(package, energy_uJ)
            windows.poll()

    assert windows.over(lambda: work(100_002_000_000))[1] == {"rapl": 2.0}
    assert windows.over(lambda: work(100_003_000_000, 1_000_000, 2_000_000))[1] == {}
    assert "went back from 100003000000 to 1000000 µJ" in windows.invalid["rapl"]
    count(package, 7)  # between two windows: nobody's
    windows.poll()
    assert windows.over(lambda: work(4_000_007))[1] == {"rapl": 4.0}
    assert (windows.invalid, windows.notes) == ({}, [])


@pytest.mark.parametrize(
    ("package_uw", "dram_uw", "limit_W"),
    [(120_000_000, 40_000_000, 160.0), (120_000_000, 0, 120.0), (0, 40_000_000, None)],
)
def test_the_limit_of_rapl_is_that_of_all_packages(powercap, package_uw, dram_uw, limit_W):
    for number, name, limit in (("0", "package-0", package_uw), ("0:0", "dram", dram_uw)):
        (add_zone(powercap, number, name).parent / "constraint_0_power_limit_uw").write_text(f"{limit}\n")
    assert Rapl().limit_W() == limit_W


def test_rapl_has_the_tick_of_its_counters(powercap, clock):
    package = add_zone(powercap, "0", "package-0")
    clock.each_ms = lambda ms: count(package, ms // 20 * 1000)
    assert Rapl().tick_ms() == pytest.approx(20, abs=1)


def test_counters_that_tick_shortly_after_each_other_have_no_shorter_tick(powercap, clock):
    package, dram = add_zone(powercap, "0", "package-0"), add_zone(powercap, "0:0", "dram")

    def each_ms(ms: int) -> None:
        count(package, ms // 20 * 1000)
        count(dram, (ms - 3) // 20 * 1000 if ms > 3 else 0)

    clock.each_ms = each_ms
    assert Rapl().tick_ms() == pytest.approx(20, abs=1)


def test_rapl_needs_a_counter():
    with pytest.raises(RunError, match="no energy counter can be read here"):
        Rapl()


# ------------------------------------------------------------------ RAPL through pyRAPL


def test_without_pyrapl_the_reason_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    with pytest.raises(DistilbenchError, match=r"^pyRAPL is not installed \(extra `rapl`\)$"):
        PyRapl()


def test_pyrapl_warns_nobody_of_a_database():
    """It does when it is imported: in a fresh process."""
    code = (
        "import logging\nfrom distilbench.collectors.energy import PyRapl\ntry:\n    PyRapl()\n"
        "except Exception:\n    pass\nlogging.warning('others do')\nassert 'pyRAPL' in __import__('sys').modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "WARNING:root:others do\n")


def test_an_exception_of_pyrapl_without_a_message_is_named():
    with pytest.raises(DistilbenchError, match=r"^pyRAPL: PyRAPLCantRecordEnergyConsumption$"):
        PyRapl()


def test_a_counter_for_root_only_is_pyrapls_reason(powercap, monkeypatch):
    add_zone(powercap, "0", "package-0")
    redirected = device_api.open

    def refuse(path: str, *arguments: str) -> object:
        if path.endswith("/energy_uj"):
            raise PermissionError(13, "Permission denied", path)
        return redirected(path, *arguments)

    monkeypatch.setattr(device_api, "open", refuse)
    with pytest.raises(DistilbenchError, match=r"^pyRAPL: .*Permission denied: '/sys/class/powercap/.*/energy_uj'$"):
        PyRapl()


def joules_of_both(counters: dict[Path, int]) -> tuple[float, float]:
    """(our own reader's, pyRAPL's) joules of a window after which the counters say this."""
    both = Rapl(), PyRapl()
    for source in both:
        source.begin()
    for file, energy_uJ in counters.items():
        count(file, energy_uJ)
    return both[0].end(), both[1].end()


@pytest.mark.parametrize("with_dram", [False, True])
@pytest.mark.parametrize("sockets", [1, 2])
def test_pyrapl_agrees_with_our_own_reader(powercap, tmp_path, sockets, with_dram):
    add_sockets(tmp_path, sockets)
    counters = {}
    for socket in range(sockets):
        counters[add_zone(powercap, f"{socket}", f"package-{socket}", 100_000)] = 2_100_000 + 500_000 * socket
        package = powercap / f"intel-rapl:{socket}"
        counters[add_zone(package, f"{socket}:0", "core", 50_000)] = 1_000_000
        if with_dram:
            counters[add_zone(package, f"{socket}:1", "dram", 0)] = 250_000
    ours, pyrapls = joules_of_both(counters)
    assert ours == pytest.approx(sockets * (2 + 0.25 * with_dram) + 0.5 * (sockets - 1))
    assert pyrapls == pytest.approx(ours)


def test_pyrapl_says_that_it_lost_a_window_in_which_the_counter_started_again(powercap):
    package = add_zone(powercap, "0", "package-0", 4_000_000)
    with pytest.raises(DistilbenchError, match="lost the window: a counter started again"):
        joules_of_both({package: 1_000_000})


def test_pyrapl_says_so_when_only_one_of_two_packages_started_again(powercap, tmp_path):
    add_sockets(tmp_path, 2)
    one, two = (add_zone(powercap, f"{socket}", f"package-{socket}", 1_000_000) for socket in range(2))
    with pytest.raises(DistilbenchError, match="lost the window"):
        joules_of_both({one: 3_000_000, two: 0})


@pytest.mark.parametrize("again", ["package", "dram"])
def test_pyrapl_says_so_when_a_package_or_its_dram_alone_started_again(powercap, again):
    """The other one is not all there was."""
    counters = {"package": add_zone(powercap, "0", "package-0", 1_000_000)}
    counters["dram"] = add_zone(powercap / "intel-rapl:0", "0:0", "dram", 1_000_000)
    after = {file: 0 if name == again else 3_000_000 for name, file in counters.items()}
    with pytest.raises(DistilbenchError, match="lost the window"):
        joules_of_both(after)


# ------------------------------------------------------------------ GPU


def test_the_gpus_counter_is_read_at_both_ends():
    source = NvmlCounter(FakeGpu(energy_J=(99.0, 100.0, 350.5)))
    source.begin()
    assert source.end() == 250.5
    assert source.parts == ["GPU GPU-7"]


def test_a_gpu_counter_that_goes_back_is_an_error():
    source = NvmlCounter(FakeGpu(energy_J=(100.0, 100.0, 3.0)))
    source.begin()
    with pytest.raises(ImplausibleError, match="counter went back during a window"):
        source.end()


def test_the_gpus_counter_has_a_tick(clock):
    gpu = SimpleNamespace(uuid="GPU-7", energy_J=lambda: clock.ms // 50)
    assert NvmlCounter(gpu).tick_ms() == pytest.approx(50, abs=1)


@pytest.mark.parametrize("kind", [NvmlCounter, NvmlPower])
def test_a_gpu_that_refuses_its_readings_is_no_source(kind):
    refused = (DeviceError("NVML: Insufficient Permissions"),)
    with pytest.raises(DeviceError, match="Insufficient Permissions"):
        kind(FakeGpu(refused, refused))


def test_constant_power_is_integrated_to_power_times_time(monkeypatch):
    monkeypatch.setattr(energy, "SAMPLE_S", 0.01)
    gpu = FakeGpu(power_W=(200.0,))
    source = NvmlPower(gpu)
    before = time.perf_counter()
    source.begin()
    began = time.perf_counter()
    wait_for(lambda: gpu.asked > 5, "it is read all the while, not at both ends only")
    ending = time.perf_counter()
    joules = source.end()
    assert 200 * (ending - began) <= joules <= 200 * (time.perf_counter() - before)
    assert source.parts == ["GPU GPU-7, every 10 ms"]


def test_a_window_shorter_than_a_sample_has_one_at_each_end(monkeypatch):
    monkeypatch.setattr(energy, "SAMPLE_S", 60)
    source = NvmlPower(FakeGpu(power_W=(999.0, 100.0, 300.0)))
    before = time.perf_counter()
    source.begin()
    time.sleep(0.01)
    joules = source.end()
    assert 200 * 0.01 <= joules <= 200 * (time.perf_counter() - before)


def test_the_samples_of_one_window_are_not_those_of_the_next(monkeypatch):
    monkeypatch.setattr(energy, "SAMPLE_S", 0.01)
    source = NvmlPower(FakeGpu())
    for _ in range(2):
        before = time.perf_counter()
        source.begin()
        time.sleep(0.03)
        joules = source.end()
        assert joules <= 200 * (time.perf_counter() - before)
        assert not source._thread.is_alive()


def test_a_reading_that_fails_half_way_is_not_lost_in_its_thread(monkeypatch):
    monkeypatch.setattr(energy, "SAMPLE_S", 0.001)
    source = NvmlPower(FakeGpu(power_W=(200.0, 200.0, DeviceError("GPU is lost"), 200.0)))
    source.begin()
    source._thread.join(5)
    with pytest.raises(DeviceError, match="GPU is lost"):
        source.end()


@pytest.mark.parametrize(
    ("samples", "joules"),
    [
        ([], 0),
        ([(5.0, 100.0)], 0),
        ([(5.0, 100.0), (7.0, 100.0)], 200),
        ([(5.0, 100.0), (6.0, 200.0), (9.0, 0.0)], 150 + 300),
    ],
)
def test_the_trapezoid_rule_by_hand(samples, joules):
    assert trapezoid(samples) == joules


# ------------------------------------------------------------------ SLURM


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("AcctGatherEnergyType    = acct_gather_energy/rapl", "rapl"),
        ("AcctGatherEnergyType    = acct_gather_energy/none", "none"),
        ("AcctGatherEnergyType    = (null)", "none"),
        ("AcctGatherFilesystemType = acct_gather_filesystem/none", ""),
        ("", ""),
    ],
)
def test_what_gathers_energy_is_in_slurms_configuration(line, kind):
    config = (
        f"Configuration data as of 2026-01-01T00:00:00\nAccountingStorageType   = none\n{line}\nSlurmdPort = 6818\n"
    )
    assert slurm_job.energy_type(config) == kind


@pytest.mark.parametrize(
    ("said", "joules"),
    [
        ("0\n", None),
        ("", None),
        ("16?\n", None),
        ("0\n0\n", None),
        ("1200\n", 1200.0),
        ("900\n1200\n\n16?\n0\n", 1200.0),
        ("18446744073709551614\n1200\n", 1200.0),
        ("4294967294\n", None),
    ],
)
def test_the_largest_step_counts_and_zero_is_no_measurement(said, joules):
    steps = [f"7.{number}|{line}" for number, line in enumerate(said.split("\n"))]
    assert slurm_job.consumed_energy_J("\n".join(steps), "7") == joules


class FakeSlurm:
    """`scontrol` and `sstat` as shell scripts in a folder that is all of $PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, program: str, text: str, code: int = 0) -> None:
        file = self.folder / program
        file.write_text(f"#!/bin/sh\necho \"$*\" >> '{self.folder}/{program}.asked'\nprintf '{text}\\n'\nexit {code}\n")
        file.chmod(0o755)

    def asked(self, program: str) -> list[str]:
        return (self.folder / f"{program}.asked").read_text().splitlines()


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> FakeSlurm:
    """A SLURM job whose energy is measured: 1000 J so far."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    fake = FakeSlurm(folder)
    fake.say("scontrol", "AcctGatherEnergyType = acct_gather_energy/ipmi")
    fake.say("sstat", "4242.batch|1000")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_slurm_counts_the_jobs_energy(slurm):
    source = Slurm()
    source.begin()
    slurm.say("sstat", "4242.batch|400\\n4242.0|1250\\nWelcome|9999")
    assert source.end() == 250
    assert source.parts == ["AcctGatherEnergyType ipmi"]
    assert slurm.asked("scontrol") == ["show config"]
    assert set(slurm.asked("sstat")) == {"-a -n -P -j 4242 -o JobID,ConsumedEnergyRaw"}


def test_the_energy_of_other_tasks_of_an_array_is_not_counted(slurm, monkeypatch):
    """Asked for one task sstat lists the steps of all (22.05), each under its number."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4242")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    slurm.say("sstat", "4243.batch|90000\\n4242.batch|1000\\n42423.batch|80000")
    source = Slurm()
    source.begin()
    slurm.say("sstat", "4243.batch|190000\\n4242.batch|1250\\n42423.batch|180000")
    assert source.end() == 250
    assert slurm.asked("sstat")[0].split()[4] == "4242_3"
    slurm.say("sstat", "4242_3.batch|1300")
    assert source.end() == 300, "or under its name"


NO_JOB, NO_KIND = "not inside a SLURM job", "AcctGatherEnergyType is none"
NOTHING = "ConsumedEnergy is 0 or empty: not measured"


def test_outside_a_job_slurm_measures_nothing(slurm, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(DistilbenchError, match=NO_JOB):
        Slurm()


@pytest.mark.parametrize(("program", "reason"), [("sstat", NO_JOB), ("scontrol", "scontrol cannot be started")])
def test_without_its_programs_slurm_measures_nothing(slurm, program, reason):
    (slurm.folder / program).unlink()
    with pytest.raises(DistilbenchError, match=reason):
        Slurm()


@pytest.mark.parametrize(
    ("program", "text", "code", "reason"),
    [
        ("scontrol", "AcctGatherEnergyType = acct_gather_energy/none", 0, NO_KIND),
        ("scontrol", "AcctGatherEnergyType = acct_gather_energy/ipmi", 1, "scontrol: it ended with code 1"),
        ("scontrol", "Welcome", 0, "SLURM does not say what measures energy"),
        ("sstat", "4242.batch|0", 0, NOTHING),
        ("sstat", "4242.batch|", 0, NOTHING),
        ("sstat", "", 0, "sstat said nothing of job 4242"),
        ("sstat", "4242.batch|1000", 1, "sstat: it ended with code 1"),
    ],
)
def test_a_slurm_that_measures_nothing_says_so(slurm, program, text, code, reason):
    slurm.say(program, text, code)
    with pytest.raises(DistilbenchError, match=reason):
        Slurm()


def test_a_slurm_that_does_not_answer_measures_nothing(slurm, monkeypatch):
    def never(command: tuple[str, ...], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(slurm_job.subprocess, "run", never)
    with pytest.raises(DistilbenchError, match="scontrol did not answer within 30 s"):
        Slurm()


def test_a_slurm_that_counts_less_than_before_spoils_its_window(slurm):
    source = Slurm()
    source.begin()
    slurm.say("sstat", "4242.batch|900")
    with pytest.raises(ImplausibleError, match="ConsumedEnergy went back by 100 J"):
        source.end()


def test_a_slurm_that_stops_answering_fails_its_window(slurm):
    source = Slurm()
    source.begin()
    slurm.say("sstat", "", 1)
    with pytest.raises(DistilbenchError, match="sstat: it ended with code 1"):
        source.end()


# ------------------------------------------------------------------ what there is here


def test_a_modelled_power_is_multiplied_by_time_and_called_modelled(clock):
    source = Modelled(65.0)
    source.begin()
    clock.ms += 1999
    assert source.end() == pytest.approx(65.0 * 2)
    assert (source.name, source.scope, source.parts) == ("modelled", "given", ["65 W as given, times duration"])


@pytest.fixture
def all_count(monkeypatch):
    """Counters count, though those of the tree and of the fake GPU stand still."""
    monkeypatch.setattr(energy, "moves", lambda source: True)


def named(device: str, **given: object) -> list[str]:
    return [source.name for source in sources(device, **given)[0]]


def test_nothing_measures_here_and_each_source_says_why(all_count):
    found, why = sources("cpu")
    assert found == []
    reasons = why.split("; ")
    assert [reason.split()[0] for reason in reasons] == ["no", "pyRAPL:", "not"]
    assert reasons[-1] == NO_JOB


def test_a_cpu_is_measured_by_our_own_reader_first(powercap, all_count):
    add_zone(powercap, "0", "package-0")
    found, why = sources("cpu")
    assert ([source.name for source in found], why) == (["rapl", "pyrapl"], NO_JOB)


def test_slurm_comes_after_the_counters(powercap, slurm, all_count):
    add_zone(powercap, "0", "package-0")
    assert named("cpu") == ["rapl", "pyrapl", "slurm"]


def test_slurm_alone_is_reported(slurm, all_count):
    assert named("cpu") == named("cuda:0") == ["slurm"]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_given_power_is_used_where_nothing_measures(device, all_count):
    assert named(device, modelled_power_W=65.0) == ["modelled"]


def test_a_given_power_is_not_used_where_something_measures(powercap, all_count):
    add_zone(powercap, "0", "package-0")
    assert "modelled" not in named("cpu", modelled_power_W=65.0)


def test_a_gpu_is_measured_by_its_counter_first_and_the_host_comes_last(powercap, slurm, all_count):
    add_zone(powercap, "0", "package-0")
    assert named("cuda:0", gpu=FakeGpu()) == ["nvml-counter", "nvml-power", "rapl", "slurm"]


def test_a_gpu_without_a_counter_is_measured_by_its_power(all_count):
    gpu = FakeGpu(energy_J=(DeviceError("NVML, total energy: Not Supported"),))
    found, why = sources("cuda:0", gpu)
    assert [source.name for source in found] == ["nvml-power"]
    assert why.startswith("NVML, total energy: Not Supported; ")


def test_the_hosts_counters_alone_do_not_measure_a_gpu(powercap, all_count):
    """They do not hold it."""
    add_zone(powercap, "0", "package-0")
    refused = (DeviceError("MIG is on"),)
    assert named("cuda:0", gpu=FakeGpu(refused, refused)) == []


def test_slurm_counts_the_node_with_its_gpus(powercap, slurm, all_count):
    add_zone(powercap, "0", "package-0")
    refused = (DeviceError("MIG is on"),)
    assert named("cuda:0", gpu=FakeGpu(refused, refused)) == ["slurm"]


def test_the_reason_on_a_cpu_is_none_as_soon_as_it_has_a_counter(powercap, all_count):
    assert unavailable_reason("cpu").startswith(f"no RAPL counter at {powercap} ")
    add_zone(powercap, "0", "package-0")
    assert unavailable_reason("cpu") is None


def test_the_reason_on_a_gpu_is_nvmls(monkeypatch, all_count):
    monkeypatch.setattr(environment, "gpus", lambda: ([], "NVML: Driver Not Loaded"))
    assert unavailable_reason("cuda:0") == "no GPU counter: NVML: Driver Not Loaded"
    monkeypatch.setattr(environment, "gpus", lambda: ([{"name": "H100"}], None))
    assert unavailable_reason("cuda:0") is None


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_there_is_no_reason_where_slurm_measures(slurm, monkeypatch, device, all_count):
    monkeypatch.setattr(environment, "gpus", lambda: ([], "NVML: Driver Not Loaded"))
    assert unavailable_reason(device) is None


# ------------------------------------------------------------------ windows


def test_a_counter_that_stands_still_does_not_measure(powercap, monkeypatch):
    """As in some virtual machines, which show one all the same."""
    monkeypatch.setattr(energy, "PROBE_S", 0.1)
    add_zone(powercap, "0", "package-0")
    found, why = sources("cpu", modelled_power_W=65.0)
    assert [source.name for source in found] == ["modelled"]
    assert why.startswith("rapl: the counter can be read, but it stands still; pyrapl: the counter can be read")


def test_a_counter_that_is_set_back_while_it_is_tried_is_tried_on():
    assert energy.moves(FakeSource("a", ImplausibleError("set back"), 2.0))


def test_a_counter_that_is_set_back_all_the_while_is_no_source(monkeypatch):
    monkeypatch.setattr(energy, "PROBE_S", 0.1)
    with pytest.raises(ImplausibleError, match="set back"):
        energy.moves(FakeSource("a", ImplausibleError("set back")))


def test_a_counter_that_counts_is_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(tmp_path / "tree"))
    with FakeRapl(tmp_path / "tree", {"0": 40.0}, {"0": "package-0"}):
        monkeypatch.setattr(energy, "PROBE_S", 60.0)
        start = time.monotonic()
        assert energy.moves(Rapl())
        assert time.monotonic() - start < energy.PROBE_S


class FakeSource(Source):
    """Says these joules window after window, the last ones for ever; what is an exception is raised.

    Args:
        name: its name.
        joules: what `end` says.
        calls: where it notes what it is asked.
        fails: the other method that raises.
    """

    scope, parts = "host", ()

    def __init__(self, name: str, *joules: object, calls: list[str] | None = None, fails: str = "") -> None:
        self.name, self.joules, self.fails = name, list(joules), fails
        self.calls = [] if calls is None else calls

    def _asked(self, what: str) -> None:
        self.calls.append(f"{self.name} {what}")
        if what == self.fails:
            raise RunError(f"{what} failed")

    def begin(self) -> None:
        self._asked("begin")

    def poll(self) -> None:
        self._asked("poll")

    def end(self) -> float:
        self._asked("end")
        value = self.joules.pop(0) if len(self.joules) > 1 else self.joules[0]
        if isinstance(value, Exception):
            raise value
        return value


BROKEN = DistilbenchError("broken")


def test_the_work_is_done_between_the_beginnings_and_the_ends():
    calls: list[str] = []
    windows = Windows([FakeSource("a", 5.0, calls=calls), FakeSource("b", 6.0, calls=calls)])
    seconds, joules, result = windows.over(lambda: time.sleep(0.02) or calls.append("work") or "logits")
    assert calls == ["b begin", "a begin", "work", "a end", "b end"], "the one to report is the innermost"
    assert (joules, result, windows.notes) == ({"a": 5.0, "b": 6.0}, "logits", [])
    assert 0.02 <= seconds < 1


def test_polls_reach_all_sources():
    calls: list[str] = []
    Windows([FakeSource(name, 1.0, calls=calls) for name in "abc"]).poll()
    assert calls == ["a poll", "b poll", "c poll"]


def test_a_window_fails_with_the_source_to_report():
    with pytest.raises(RunError, match=r"^a: broken$"):
        Windows([FakeSource("a", BROKEN), FakeSource("b", 1.0)]).over(lambda: None)


def test_another_source_that_fails_is_left_out_from_then_on():
    lost = FakeSource("b", 1.0, BROKEN, 1.0)
    windows = Windows([FakeSource("a", 5.0), lost, FakeSource("c", 7.0)])
    assert [windows.over(lambda: None)[1] for _ in range(3)] == [
        {"a": 5.0, "b": 1.0, "c": 7.0},
        {"a": 5.0, "c": 7.0},
        {"a": 5.0, "c": 7.0},
    ]
    assert windows.notes == ["b: broken"]
    assert lost.calls.count("b begin") == 2
    windows.poll()
    assert "b poll" not in lost.calls


@pytest.mark.parametrize("moment", ["begin", "poll", "end"])
def test_a_reading_that_cannot_be_spoils_its_window_only(moment):
    """Of the source to report as of another one."""

    class Strays(FakeSource):
        times = 0

        def _asked(self, what: str) -> None:
            self.times += what == moment
            if what == moment and self.times == 1:
                raise ImplausibleError("it went back")

    for other in (FakeSource("b", 6.0), Strays("b", 6.0)):
        windows = Windows([Strays("a", 5.0), other])
        joules = windows.over(windows.poll)[1]
        assert "a" not in joules
        assert windows.invalid["a"] == "it went back"
        assert ("b" in joules) == ("b" not in windows.invalid)
        assert windows.over(windows.poll)[1] == {"a": 5.0, "b": 6.0}
        assert (windows.invalid, windows.notes) == ({}, [])


@pytest.mark.parametrize(("joules", "why"), [(float("nan"), "nan J, which is no number"), (float("inf"), "inf J")])
def test_joules_that_are_no_number_spoil_their_window(joules, why):
    windows = Windows([FakeSource("a", joules), FakeSource("b", 1.0)])
    assert windows.over(lambda: None)[1] == {"b": 1.0}
    assert why in windows.invalid["a"]


def test_more_than_what_a_source_can_draw_spoils_its_window():
    source = FakeSource("a", 5.0, 50.0)
    source.most_W = 1000.0
    windows = Windows([source])
    assert windows.over(lambda: time.sleep(0.01))[1] == {"a": 5.0}
    assert windows.over(lambda: time.sleep(0.01))[1] == {}
    assert re.search(r"a says 50 J in 0\.\d+ s, .* W; what it measures draws less than 1000 W", windows.invalid["a"])


def test_every_source_of_hardware_knows_what_is_too_much(powercap, slurm):
    for number in range(2):
        add_zone(powercap, str(number), f"package-{number}")
    for source in (Rapl(), PyRapl()):
        assert source.most_W == 2 * rapl.MOST_W
    assert NvmlCounter(FakeGpu()).most_W == NvmlPower(FakeGpu()).most_W == energy.MOST_GPU_W
    assert Slurm().most_W == energy.MOST_NODE_W


def test_the_callers_list_of_sources_stays_as_it_is():
    used = [FakeSource("a", 5.0), FakeSource("b", BROKEN)]
    Windows(used).over(lambda: None)
    assert [source.name for source in used] == ["a", "b"]


@pytest.mark.parametrize("joules", [0.0, -1.0])
def test_a_counter_that_does_not_move_is_an_error_when_it_is_the_one_to_report(joules):
    with pytest.raises(RunError, match=r"^a: the counter did not move in \d+\.\d s$"):
        Windows([FakeSource("a", joules), FakeSource("b", 1.0)]).over(lambda: None)


@pytest.mark.parametrize("joules", [0.0, -1.0])
def test_another_counter_that_does_not_move_is_no_measurement_of_0_J(joules):
    windows = Windows([FakeSource("a", 5.0), FakeSource("b", joules), FakeSource("c", 7.0)])
    assert windows.over(lambda: None)[1] == {"a": 5.0, "c": 7.0}
    assert [note.partition(" in ")[0] for note in windows.notes] == ["b: the counter did not move"]
    assert [source.name for source in windows.used] == ["a", "c"]


@pytest.mark.parametrize("fails", ["begin", "poll"])
def test_another_source_that_fails_before_the_end_is_left_out_as_well(fails):
    windows = Windows([FakeSource("a", 5.0), FakeSource("b", 1.0, fails=fails), FakeSource("c", 7.0)])
    assert windows.over(windows.poll)[1] == {"a": 5.0, "c": 7.0}
    assert windows.notes == [f"b: {fails} failed"]


@pytest.mark.parametrize("fails", ["begin", "poll"])
def test_the_source_to_report_fails_the_window_at_any_moment_with_its_name(fails):
    windows = Windows([FakeSource("a", 5.0, fails=fails), FakeSource("b", 1.0)])
    with pytest.raises(RunError, match=f"^a: {fails} failed$"):
        windows.over(windows.poll)


def test_work_that_fails_leaves_no_thread_that_samples():
    sampled = NvmlPower(FakeGpu())
    windows = Windows([sampled, FakeSource("b", 1.0)])

    def work() -> None:
        raise ValueError("the work broke")

    with pytest.raises(ValueError, match="the work broke"):
        windows.over(work)
    assert not sampled._thread.is_alive()
    sampled.abandon()  # once more does no harm


def test_a_source_that_never_began_can_be_abandoned():
    windows = Windows([FakeSource("a", 1.0, fails="begin"), NvmlPower(FakeGpu())])
    with pytest.raises(RunError, match=r"^a: begin failed$"):
        windows.over(lambda: None)


def test_why_there_is_no_gpu_is_said():
    found, why = sources("cuda:0", None, no_gpu="NVML: no permission")
    assert (found, why) == ([], "NVML: no permission; not inside a SLURM job")
