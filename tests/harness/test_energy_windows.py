"""The energy pass on a machine whose time and power are known exactly, and in real time over fake RAPL counters."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_powercap import FakeRapl

from distilbench.collectors import energy
from distilbench.collectors.energy import Rapl, Source
from distilbench.errors import DistilbenchError, ImplausibleError, RunError
from distilbench.harness import energy_windows
from distilbench.harness.energy_windows import HOST_TOO, TICKS, Windows, idle_W, measure
from distilbench.measurements.sweep.records import Energy
from distilbench.measurements.sweep.summary.derive import energy_fields

CPU = torch.device("cpu")
BATCHES = (3, 2)  # a cycle: five samples in two forwards
FORWARD_S, COLD_W, WARM_W, BUSY_W = 0.01, 10.0, 12.0, 17.0


def tensors() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.zeros(size, 4, dtype=torch.int64), torch.ones(size, 4, dtype=torch.int64)) for size in BATCHES]


def protocol(windows: int = 3, window_s: float = 30.0, idle_s: float = 5.0) -> dict[str, Any]:
    return {"energy_windows": windows, "energy_window_s": window_s, "energy_idle_s": idle_s}


class Machine:
    """A machine on which time passes only while it sleeps or computes; idle, it draws more once it has computed."""

    def __init__(self) -> None:
        self.now, self.joules, self.log = 100.0, 0.0, []
        self.power_W = COLD_W

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self.power_W, f"sleep {seconds:g}")

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        assert ids.shape == mask.shape
        self._pass(FORWARD_S, BUSY_W, f"forward {len(ids)}")
        self.power_W = WARM_W

    def _pass(self, seconds: float, power_W: float, what: str) -> None:
        self.now += seconds
        self.joules += seconds * power_W
        self.log.append(what)

    def stretches(self) -> list[list[str]]:
        """The log, cut where windows begin and end: outside, inside, outside, ..."""
        found: list[list[str]] = [[]]
        for what in self.log:
            if what in ("begin", "end"):
                found.append([])
            elif what != "poll":
                found[-1].append(what)
        return found


class FakeSource(Source):
    """Counts the machine's joules; `end` fails in the window of the number `fails_in`."""

    def __init__(
        self,
        machine: Machine,
        name: str = "rapl",
        scope: str = "host",
        tick: float | None = None,
        fails_in: int | None = None,
    ) -> None:
        self.machine, self.name, self.scope, self.tick, self.parts = machine, name, scope, tick, ["all of it"]
        self.fails_in, self.begun = fails_in, 0
        self.log = machine.log if name == "rapl" else []

    def tick_ms(self) -> float | None:
        return self.tick

    def begin(self) -> None:
        self.log.append("begin")
        self.begun += 1
        self.before = self.machine.joules

    def poll(self) -> None:
        self.log.append("poll")

    def end(self) -> float:
        self.log.append("end")
        if self.begun == self.fails_in:
            raise DistilbenchError("broken")
        return self.machine.joules - self.before


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine = Machine()
    for module in (energy, energy_windows):
        monkeypatch.setattr(module, "time", machine)
    return machine


def measured(machine: Machine, *used: Source, **bounds: Any) -> dict[str, Any]:
    sources = list(used) or [FakeSource(machine)]
    return measure(protocol(**bounds), SimpleNamespace(forward=machine.forward), tensors(), CPU, sources)


# ------------------------------------------------------------------ what is done


def test_windows_of_forwards_stand_between_two_windows_of_sleep(machine):
    measured(machine, windows=2)
    stretches = machine.stretches()
    inside = [{what.split()[0] for what in stretch} for stretch in stretches[1::2]]
    assert inside == [{"sleep"}, {"forward"}, {"forward"}, {"sleep"}]
    outside = [{what.split()[0] for what in stretch} for stretch in stretches[0::2]]
    assert outside == [set(), {"forward"}, set(), set(), set()], "warming up is in no window"


@pytest.mark.parametrize(("window_s", "warm_up_s"), [(30.0, 10.0), (5.0, 5.0)])
def test_the_chip_is_warmed_up_for_ten_seconds_or_a_short_window(machine, window_s, warm_up_s):
    measured(machine, window_s=window_s)
    assert len(machine.stretches()[2]) * FORWARD_S == pytest.approx(warm_up_s, abs=2 * FORWARD_S)


@pytest.mark.parametrize("windows", [1, 4])
def test_there_are_as_many_windows_as_asked(machine, windows):
    assert len(measured(machine, windows=windows)["windows"]) == windows


def test_a_window_is_whole_cycles_and_its_samples_are_those_computed(machine):
    found = measured(machine, window_s=1.01)  # 50.5 cycles
    for window, forwards in zip(found["windows"], machine.stretches()[3:-2:2], strict=True):
        assert forwards == [f"forward {size}" for size in BATCHES] * (len(forwards) // 2)
        assert window["samples"] == 51 * sum(BATCHES) == sum(int(what.split()[1]) for what in forwards)


def test_a_window_has_one_cycle_at_least(machine):
    assert [window["samples"] for window in measured(machine, window_s=0.0)["windows"]] == [5, 5, 5]


@pytest.mark.parametrize(
    ("tick", "seconds"),
    [(None, 30.0), (1.0, 30.0), (500.0, 50.0)],
    ids=["no tick", "quick", "slow"],
)
def test_a_window_is_as_long_as_asked_and_holds_a_hundred_ticks(machine, tick, seconds):
    found = measured(machine, FakeSource(machine, tick=tick))
    assert found["tick_ms"] == tick
    for window in found["windows"]:
        assert seconds - 1e-6 <= window["seconds"] <= seconds + 2 * len(BATCHES) * FORWARD_S


def test_the_first_sources_tick_is_the_one_that_counts(machine):
    found = measured(machine, FakeSource(machine), FakeSource(machine, "slurm", tick=30_000.0), window_s=1.0)
    assert found["tick_ms"] is None
    assert found["windows"][0]["seconds"] < 2


def test_each_cycle_is_fenced_and_counters_are_polled(machine, monkeypatch):
    def fence(device: torch.device) -> None:
        assert device == CPU
        machine.log.append("fence")

    monkeypatch.setattr(energy_windows, "synchronize", fence)
    measured(machine, windows=1, window_s=0.04)
    cycle = ["forward 3", "forward 2", "fence", "poll"]
    last = len(machine.log) - machine.log[::-1].index("forward 2") - 2
    assert machine.log[last - 5 : last + 5] == ["begin", *cycle, *cycle, "end"]


def test_idle_is_slept_through_and_polled_four_times_a_second(machine):
    watts = idle_W(Windows([FakeSource(machine)]), 0.625)
    assert machine.log == ["begin", "sleep 0.25", "poll", "sleep 0.25", "poll", "sleep 0.125", "poll", "end"]
    assert watts == {"rapl": pytest.approx(COLD_W)}


# ------------------------------------------------------------------ what is recorded


def test_the_baselines_are_those_before_and_after(machine):
    found = measured(machine, idle_s=7.0)
    assert found["idle_before_W"] == {"rapl": pytest.approx(COLD_W)}
    assert found["idle_after_W"] == {"rapl": pytest.approx(WARM_W)}
    assert found["idle_s"] == 7.0
    sleeps = [stretch for stretch in machine.stretches() if stretch and stretch[0].startswith("sleep")]
    assert [len(stretch) for stretch in sleeps] == [28, 28]


def test_the_record_is_valid_and_gives_gross_and_net_joules(machine):
    found = measured(machine)
    assert Energy.model_validate(found).model_dump() == found
    for window in found["windows"]:
        assert window["joules"] == {"rapl": pytest.approx(BUSY_W * window["seconds"])}
    cycle_s = len(BATCHES) * FORWARD_S
    assert energy_fields(found, "rapl") == {
        "energy_J": pytest.approx(BUSY_W * 30, rel=1e-3),
        "energy_per_sample_J": pytest.approx(BUSY_W * cycle_s / 5),
        "energy_net_per_sample_J": pytest.approx((BUSY_W - (COLD_W + WARM_W) / 2) * cycle_s / 5),
        "energy_net_per_sample_J_reason": None,
    }


def test_a_modelled_power_has_no_net_energy(machine):
    found = measured(machine, energy.Modelled(65.0))
    assert (found["tick_ms"], found["notes"]) == (None, [])
    fields = energy_fields(found, "modelled")
    assert fields["energy_per_sample_J"] == pytest.approx(65 * len(BATCHES) * FORWARD_S / 5)
    assert fields["energy_net_per_sample_J"] is None
    assert fields["energy_net_per_sample_J_reason"] == "a given power knows no idle"


@pytest.mark.parametrize(
    ("scopes", "notes"),
    [(["host"], [HOST_TOO]), (["gpu", "host"], [HOST_TOO]), (["gpu", "nodes of the job"], [])],
)
def test_what_others_do_on_the_host_is_a_note(machine, scopes, notes):
    used = [FakeSource(machine, f"source {number}", scope) for number, scope in enumerate(scopes)]
    assert measured(machine, *used)["notes"] == notes


def test_what_each_source_is_made_of_is_recorded(machine):
    found = measured(machine, FakeSource(machine), FakeSource(machine, "slurm"))
    assert found["counters"] == {"rapl": ["all of it"], "slurm": ["all of it"]}


def test_a_source_that_is_lost_half_way_stays_in_the_windows_it_measured(machine):
    """The first window of all is the idle one."""
    found = measured(machine, FakeSource(machine), FakeSource(machine, "pyrapl", fails_in=3))
    assert [sorted(window["joules"]) for window in found["windows"]] == [["pyrapl", "rapl"], ["rapl"], ["rapl"]]
    assert sorted(found["idle_before_W"]) == ["pyrapl", "rapl"]
    assert sorted(found["idle_after_W"]) == ["rapl"]
    assert found["notes"] == ["pyrapl: broken", HOST_TOO]
    assert Energy.model_validate(found)
    assert energy_fields(found, "rapl")["energy_J"] == pytest.approx(BUSY_W * 30, rel=1e-3)


@pytest.mark.parametrize("fails_in", [1, 2, 5], ids=["idle before", "a window", "idle after"])
def test_the_pass_fails_with_the_source_to_report(machine, fails_in):
    with pytest.raises(RunError, match=r"^rapl: broken$"):
        measured(machine, FakeSource(machine, fails_in=fails_in), FakeSource(machine, "pyrapl"))


# ------------------------------------------------------------------ what cannot be believed


class Strays(FakeSource):
    """Its counter is set back in the windows of these numbers; the first of all is the idle one."""

    def __init__(self, machine: Machine, *strays_in: int) -> None:
        super().__init__(machine)
        self.strays_in = strays_in

    def end(self) -> float:
        joules = super().end()
        if self.begun in self.strays_in:
            raise ImplausibleError(f"set back in {self.begun}")
        return joules


def test_an_invalid_window_is_kept_with_its_reason_and_the_others_count(machine):
    found = measured(machine, Strays(machine, 3), windows=5)
    assert [sorted(window["joules"]) for window in found["windows"]] == [["rapl"], [], ["rapl"], ["rapl"], ["rapl"]]
    assert [window["invalid"] for window in found["windows"]] == [{}, {"rapl": "set back in 3"}, {}, {}, {}]
    assert Energy.model_validate(found).model_dump() == found
    fields = energy_fields(found, "rapl")
    cycle_s = len(BATCHES) * FORWARD_S
    assert fields["energy_J"] == pytest.approx(BUSY_W * 30, rel=1e-3), "the mean of the windows that count"
    assert fields["energy_per_sample_J"] == pytest.approx(BUSY_W * cycle_s / 5)
    assert fields["energy_net_per_sample_J"] == pytest.approx((BUSY_W - (COLD_W + WARM_W) / 2) * cycle_s / 5)


@pytest.mark.parametrize(("windows", "strays_in"), [(1, [2]), (4, [2, 4]), (5, [2, 3, 6])])
def test_where_not_most_windows_count_there_is_no_number(machine, windows, strays_in):
    said = rf"^{len(strays_in)} of {windows} energy windows are invalid; rapl: set back in {strays_in[0]}$"
    with pytest.raises(ImplausibleError, match=said):
        measured(machine, Strays(machine, *strays_in), windows=windows)


@pytest.mark.parametrize("strays_in", [1, 5], ids=["before", "after"])
def test_without_a_baseline_there_is_no_net_energy(machine, strays_in):
    found = measured(machine, Strays(machine, strays_in))
    assert found["idle_invalid"] == {"rapl": f"set back in {strays_in}"}
    assert Energy.model_validate(found)
    fields = energy_fields(found, "rapl")
    assert fields["energy_J"] == pytest.approx(BUSY_W * 30, rel=1e-3)
    assert fields["energy_net_per_sample_J"] is None
    assert fields["energy_net_per_sample_J_reason"] == f"the baseline at rest is invalid: set back in {strays_in}"


def test_power_limits_are_recorded_where_there_are_some(machine):
    limited, other = FakeSource(machine), FakeSource(machine, "pyrapl")
    limited.limit_W = lambda: 120.0
    assert measured(machine, limited, other)["limits_W"] == {"rapl": 120.0}


@pytest.mark.parametrize("to_J", [0.0, -2.0], ids=["to 0", "by 2 J"])
def test_a_counter_that_is_set_back_is_no_262_kJ(tmp_path, monkeypatch, to_J):
    """40 W, far below the range, in real time: the second window is spoilt, the others say 40 W."""
    root: Path = tmp_path / "powercap"
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(root))
    monkeypatch.setattr(energy_windows, "WARM_UP_S", 0.1)
    monkeypatch.setattr(energy_windows, "TICKS", 1)
    start_J, spoilt = 100_000.0, []
    with FakeRapl(root, {"0": 40.0}, {"0": "package-0"}, range_uJ=262_143_328_850, start_J=start_J) as fake:

        class Second(Rapl):
            begun = 0

            def begin(self) -> None:
                super().begin()
                self.begun += 1
                if self.begun == 3:  # the first is the idle one
                    fake.set_back(start_J if to_J == 0 else -to_J)
                    spoilt.append(True)

        loaded = SimpleNamespace(forward=lambda ids, mask: time.sleep(0.005))
        found = measure(protocol(windows=3, window_s=0.5, idle_s=0.3), loaded, tensors(), CPU, [Second()])
    assert spoilt
    assert [sorted(window["joules"]) for window in found["windows"]] == [["rapl"], [], ["rapl"]]
    assert "went back" in found["windows"][1]["invalid"]["rapl"]
    seconds = sum(window["seconds"] for window in found["windows"]) / 3
    stale_J = 40 * fake.largest_gap_s
    assert energy_fields(found, "rapl")["energy_J"] == pytest.approx(40 * seconds, abs=0.2 * 40 * seconds + 2 * stale_J)


# ------------------------------------------------------------------ in real time


def test_known_power_is_found_again_by_the_real_reader(tmp_path, monkeypatch):
    """40 W and 3 W; the package's counter starts again once a second."""
    root: Path = tmp_path / "powercap"
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(root))
    monkeypatch.setattr(energy_windows, "WARM_UP_S", 0.2)
    names = {"0": "package-0", "0:0": "dram"}
    loaded = SimpleNamespace(forward=lambda ids, mask: time.sleep(0.001))
    with FakeRapl(root, {"0": 40.0, "0:0": 3.0}, names, range_uJ=40_000_000) as fake:
        found = measure(protocol(windows=2, window_s=1.5, idle_s=0.5), loaded, tensors(), CPU, [Rapl()])
    assert found["counters"] == {"rapl": ["package-0", "package-0/dram"]}
    stale_J = 43 * fake.largest_gap_s  # at either end of a window; more than a few milliseconds on a busy machine only
    for window in found["windows"]:
        assert window["seconds"] >= max(1.5, TICKS * found["tick_ms"] / 1e3)
        spent_J = 43 * window["seconds"]
        assert window["joules"]["rapl"] == pytest.approx(spent_J, abs=0.02 * spent_J + 2 * stale_J)
        assert window["samples"] % sum(BATCHES) == 0
    for idle in ("idle_before_W", "idle_after_W"):
        assert found[idle]["rapl"] == pytest.approx(43, abs=0.05 * 43 + 2 * stale_J / 0.5)
    Energy.model_validate(found)
    fields = energy_fields(found, "rapl")
    idle_share = abs(fields["energy_net_per_sample_J"]) / fields["energy_per_sample_J"]
    assert idle_share < 0.15 + 4 * fake.largest_gap_s / 0.5, "it drew as much when idle"
