"""Energy counters of the CPU in a fake tree: none, readable, unreadable, several; and reasons that tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilbench.collectors import rapl
from distilbench.collectors.rapl import Counter, Meter, rapl_counters, unavailable_reason
from distilbench.errors import ImplausibleError, RunError

RANGE_uJ = 262_143_328_850  # of many Intel packages


@pytest.fixture
def powercap(tmp_path, monkeypatch) -> Path:
    """An empty powercap tree, which the package looks at."""
    root = tmp_path / "powercap"
    root.mkdir()
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(root))
    return root


def add_zone(root: Path, number: str, name: str | None = None, energy_uj: str | None = "123456\n") -> Path:
    zone = root / f"intel-rapl:{number}"
    zone.mkdir()
    if name is not None:
        (zone / "name").write_text(f"{name}\n")
    if energy_uj is not None:
        (zone / "energy_uj").write_text(energy_uj)
    return zone


def forbid(monkeypatch, *forbidden: Path) -> None:
    """Reading these files is refused, as to everybody but root on a real machine (root may read any file here)."""
    original = Path.read_text

    def read_text(self, *arguments, **named):
        if self in forbidden:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_machine_without_counters_has_none(powercap):
    assert rapl_counters() == []
    (powercap / "intel-rapl").mkdir()  # the control type, which is no zone
    (powercap / "dtpm").mkdir()
    assert rapl_counters() == []
    assert rapl_counters(powercap / "absent") == []


def test_a_readable_counter(powercap):
    zone = add_zone(powercap, "0", "package-0")
    assert rapl_counters() == [Counter("package-0", True, str(zone / "energy_uj"), zone / "energy_uj")]


def test_an_unreadable_counter_says_what_helps(powercap, monkeypatch):
    file = add_zone(powercap, "0", "package-0") / "energy_uj"
    forbid(monkeypatch, file)
    (counter,) = rapl_counters()
    assert counter == Counter("package-0", False, f"{file} is for root only; `chmod a+r` it, or ask the site")


def test_a_zone_without_a_counter_says_so(powercap):
    file = add_zone(powercap, "0", "package-0", energy_uj=None) / "energy_uj"
    assert rapl_counters() == [Counter("package-0", False, f"{file}: No such file or directory")]


@pytest.mark.parametrize("name", ["absent", "forbidden"])
def test_a_zone_without_a_name_is_called_after_its_folder(powercap, monkeypatch, name):
    zone = add_zone(powercap, "3", None if name == "absent" else "package-3")
    if name == "forbidden":
        forbid(monkeypatch, zone / "name")
    assert [counter.name for counter in rapl_counters()] == ["intel-rapl:3"]


def test_several_packages_are_in_order_and_each_may_differ(powercap, monkeypatch):
    for number in range(3):
        add_zone(powercap, str(number), f"package-{number}")
    forbid(monkeypatch, powercap / "intel-rapl:1" / "energy_uj")
    counters = rapl_counters()
    assert [counter.name for counter in counters] == ["package-0", "package-1", "package-2"]
    assert [counter.readable for counter in counters] == [True, False, True]


def test_without_the_variable_the_kernels_own_tree_is_read(monkeypatch, tmp_path):
    monkeypatch.delenv("DISTILBENCH_POWERCAP_ROOT", raising=False)
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path)
    add_zone(tmp_path, "0", "package-0")
    assert len(rapl_counters()) == 1


# ------------------------------------------------------------------ which counters may be added


def names_of(counters: list[Counter]) -> list[tuple[str, bool]]:
    return [(counter.name, counter.counted) for counter in counters]


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_what_a_package_holds_is_not_added_to_it(powercap, nested):
    """The kernel shows zones within a package beside it and below it; each is there once."""
    package = add_zone(powercap, "0", "package-0")
    for place in (powercap, package) if nested else (powercap,):
        for number, name in (("0:0", "core"), ("0:1", "uncore"), ("0:2", "dram")):
            add_zone(place, number, name)
    assert names_of(rapl_counters()) == [
        ("package-0", True),
        ("package-0/core", False),
        ("package-0/uncore", False),
        ("package-0/dram", True),
    ]


def test_the_platforms_counter_holds_the_packages(powercap):
    add_zone(powercap, "0", "package-0")
    add_zone(powercap, "1", "psys")
    (powercap / "intel-rapl-mmio:0").mkdir()  # another way to the package's counter
    assert names_of(rapl_counters()) == [("package-0", True), ("psys", False)]


def test_dies_are_packages_and_more_than_ten_are_in_order(powercap):
    for number in range(12):
        add_zone(powercap, str(number), f"package-{number // 2}-die-{number % 2}")
    counters = rapl_counters()
    assert counters[2].name == "package-1-die-0"
    assert counters[11].name == "package-5-die-1"
    assert all(counter.counted for counter in counters)


# ------------------------------------------------------------------ adding up


def limited(zone: Path, range_uJ: int) -> Path:
    (zone / "max_energy_range_uj").write_text(f"{range_uJ}\n")
    return zone / "energy_uj"


def test_a_meter_adds_packages_and_dram_and_follows_them_over_the_end(powercap):
    one = limited(add_zone(powercap, "0", "package-0", "1000000\n"), 5_000_000)
    add_zone(powercap, "0:0", "core", "0\n")
    dram = limited(add_zone(powercap, "0:1", "dram", "4000000\n"), 5_000_000)
    two = limited(add_zone(powercap, "1", "package-1", "0\n"), 5_000_000)
    meter = Meter(rapl_counters())
    assert meter.update() == {"package-0": 0, "package-0/dram": 0, "package-1": 0}
    one.write_text("3500000\n")  # 2.5 J
    dram.write_text("1000000\n")  # over the end: 1 J up to it, 1 J from it
    assert meter.update() == {"package-0": 2.5, "package-0/dram": 2.0, "package-1": 0}
    one.write_text("500000\n")  # 1.5 J to the end, 0.5 J from it
    two.write_text("250000\n")
    assert meter.update() == {"package-0": 4.5, "package-0/dram": 2.0, "package-1": 0.25}


def test_a_counter_that_goes_back_without_a_range_is_refused(powercap):
    file = add_zone(powercap, "0", "package-0", "1000\n") / "energy_uj"
    (file.parent / "max_energy_range_uj").write_text("unknown\n")
    meter = Meter(rapl_counters())
    file.write_text("10\n")
    with pytest.raises(RunError, match=r"energy_uj went back from 1000 to 10 µJ and does not say its range"):
        meter.update()


@pytest.mark.parametrize(
    ("before_uJ", "after_uJ"),
    [
        (100_000_000_000, 99_998_000_000),
        (100_000_000_000, 0),
        (1_000_000, 0),
        (RANGE_uJ - 500_000_000, 10),
        (RANGE_uJ - 10, RANGE_uJ - 500_000_000),
    ],
    ids=["by 2 J", "to 0", "to 0 from 1 J", "500 J before its end", "not as far as 0"],
)
def test_a_counter_that_was_set_back_did_not_go_over_its_end(powercap, before_uJ, after_uJ):
    """In the moment between two readings no package draws what it takes to get to the end and on."""
    file = limited(add_zone(powercap, "0", "package-0", f"{before_uJ}\n"), RANGE_uJ)
    meter = Meter(rapl_counters())
    file.write_text(f"{after_uJ}\n")
    said = rf"went back from {before_uJ} to {after_uJ} µJ within .* range of {RANGE_uJ} µJ was not near: .*set back"
    with pytest.raises(ImplausibleError, match=said):
        meter.update()
    file.write_text(f"{after_uJ + 3_000_000}\n")
    assert meter.update() == {"package-0": 3.0}, "from there on it counts again, and the lost step is not in it"


def test_the_longer_nobody_looked_the_farther_from_its_end_a_counter_may_have_been(powercap, monkeypatch):
    """500 J before its end: in a second some package may have drawn them, in a moment none has."""
    clock = iter((100.0, 101.0, 101.0))
    file = limited(add_zone(powercap, "0", "package-0", f"{RANGE_uJ - 500_000_000}\n"), RANGE_uJ)
    monkeypatch.setattr(rapl.time, "perf_counter", lambda: next(clock))
    meter = Meter(rapl_counters())
    file.write_text("1000000\n")
    assert meter.update() == {"package-0": 501.0}


def test_a_counter_that_leaps_on_is_not_believed_either(powercap):
    file = limited(add_zone(powercap, "0", "package-0", "0\n"), RANGE_uJ)
    dram = limited(add_zone(powercap, "0:0", "dram", "0\n"), RANGE_uJ)
    meter = Meter(rapl_counters())
    file.write_text("90000000000\n")
    dram.write_text("2000000\n")
    with pytest.raises(
        ImplausibleError, match=r"went on from 0 to 90000000000 µJ .* more than 1000 W, which no package"
    ):
        meter.update()
    assert meter.update() == {"package-0": 0.0, "package-0/dram": 0.0}


def test_a_counter_beyond_its_own_range_is_not_believed(powercap):
    file = limited(add_zone(powercap, "0", "package-0", "9000000\n"), 5_000_000)
    meter = Meter(rapl_counters())
    file.write_text("1000000\n")
    with pytest.raises(ImplausibleError, match="went back from 9000000 to 1000000"):
        meter.update()


def test_a_meter_that_is_started_again_does_not_ask_what_was_before(powercap):
    file = limited(add_zone(powercap, "0", "package-0", "100000000000\n"), RANGE_uJ)
    meter = Meter(rapl_counters())
    file.write_text("5000000\n")
    meter.restart()
    file.write_text("6000000\n")
    assert meter.update() == {"package-0": 1.0}


@pytest.mark.parametrize("content", ["", "No data", None], ids=["empty", "words", "gone"])
def test_a_counter_that_cannot_be_read_any_more_is_named(powercap, content):
    file = add_zone(powercap, "0", "package-0", "1000\n") / "energy_uj"
    meter = Meter(rapl_counters())
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(RunError, match=rf"{file} cannot be read any more"):
        meter.update()


@pytest.mark.parametrize(
    ("limits", "limit_W"),
    [
        ({}, None),
        ({"constraint_0_power_limit_uw": "65000000"}, 65.0),
        ({"constraint_0_power_limit_uw": "65000000", "constraint_1_power_limit_uw": "120000000"}, 120.0),
        ({"constraint_0_power_limit_uw": "0", "constraint_0_max_power_uw": "41250000"}, 41.25),
        ({"constraint_0_power_limit_uw": "0"}, None),
        ({"constraint_0_power_limit_uw": "4095999756"}, None),
        ({"constraint_0_power_limit_uw": "none"}, None),
    ],
    ids=["none", "one", "for long and for short", "not set", "0", "unlimited", "no number"],
)
def test_the_power_limit_is_the_highest_that_means_one(powercap, limits, limit_W):
    zone = add_zone(powercap, "0", "package-0")
    for name, value in limits.items():
        (zone / name).write_text(f"{value}\n")
    assert rapl_counters()[0].limit_W == limit_W


def test_a_meter_needs_a_counter_that_it_can_read(powercap, monkeypatch):
    with pytest.raises(RunError, match="no energy counter can be read here"):
        Meter(rapl_counters())
    forbid(monkeypatch, add_zone(powercap, "0", "package-0") / "energy_uj")
    add_zone(powercap, "0:0", "core")
    with pytest.raises(RunError, match="no energy counter can be read here"):
        Meter(rapl_counters())


def test_power_is_energy_over_time(powercap, monkeypatch):
    """The counter moves by 6 J while the clock moves by 2 s."""
    file = limited(add_zone(powercap, "0", "package-0", "0\n"), 10**9)
    clock = iter((100.0, 102.0))
    monkeypatch.setattr(rapl.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(rapl.time, "sleep", lambda _: file.write_text("6000000\n"))
    assert rapl.power_W(rapl_counters()) == {"package-0": 3.0}


# ------------------------------------------------------------------ reasons


def test_why_nothing_can_be_read(powercap, monkeypatch):
    assert f"no RAPL counter at {powercap} " in unavailable_reason()
    file = add_zone(powercap, "0", "package-0") / "energy_uj"
    assert unavailable_reason() is None
    forbid(monkeypatch, file)
    assert unavailable_reason() == f"RAPL cannot be read: {file} is for root only; `chmod a+r` it, or ask the site"
    add_zone(powercap, "1", "package-1")
    assert unavailable_reason() is None
