"""Energy counters of the CPU in a fake tree: none, readable, unreadable, several; and reasons that tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilbench import environment
from distilbench.collectors import energy
from distilbench.collectors.energy import Counter, rapl_counters, unavailable_reason


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
    assert rapl_counters() == [Counter("package-0", True, str(zone / "energy_uj"))]


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
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    add_zone(tmp_path, "0", "package-0")
    assert len(rapl_counters()) == 1


def test_reasons_on_a_cpu(powercap, monkeypatch):
    assert f"no RAPL counter at {powercap} " in unavailable_reason("cpu")
    file = add_zone(powercap, "0", "package-0") / "energy_uj"
    assert unavailable_reason("cpu") == "the energy pass is not built yet; RAPL is readable"
    forbid(monkeypatch, file)
    assert unavailable_reason("cpu") == (
        f"RAPL cannot be read: {file} is for root only; `chmod a+r` it, or ask the site"
    )
    add_zone(powercap, "1", "package-1")
    assert "RAPL is readable" in unavailable_reason("cpu")


def test_reasons_on_a_gpu(powercap, monkeypatch):
    add_zone(powercap, "0", "package-0")
    monkeypatch.setattr(environment, "gpus", lambda: ([], "NVML: Driver Not Loaded"))
    assert unavailable_reason("cuda:0") == "no GPU counter: NVML: Driver Not Loaded"
    monkeypatch.setattr(environment, "gpus", lambda: ([{"name": "H100"}], None))
    assert unavailable_reason("cuda:0") == "the energy pass is not built yet; NVML is readable"
