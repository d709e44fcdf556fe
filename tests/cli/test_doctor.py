"""What can be measured here: each finding when all is well, when something limits it, and when it is missing."""

from __future__ import annotations

import json
import socket
import tempfile
import types
from pathlib import Path

import pytest

import distilbench.machine
from distilbench.cli import doctor
from distilbench.cli.doctor import Found
from distilbench.collectors import rapl
from distilbench.collectors.rapl import Counter
from distilbench.machine import cgroups, environment
from distilbench.machine.cgroups import Throttling
from distilbench.sources import embedded

GIB = 2**30


def only(found: Found | list[Found]) -> Found:
    (finding,) = found if isinstance(found, list) else [found]
    return finding


@pytest.fixture
def device(monkeypatch):
    """torch as a stand-in: nothing of it is loaded here."""
    fake = types.SimpleNamespace(available=lambda: ["cpu"], cuda_version=lambda: None)
    monkeypatch.setattr(distilbench.machine, "device", fake, raising=False)
    return fake


# ------------------------------------------------------------------ processor and memory


def machine(monkeypatch, usable: int, logical: int, quota: str | None, isa=("avx2",)) -> None:
    cpu = {"model": "Imagined", "affinity": list(range(usable)), "logical_cores": logical, "physical_cores": 4}
    monkeypatch.setattr(environment, "cpu", lambda: cpu | {"isa": list(isa)})
    monkeypatch.setattr(cgroups, "limits", lambda: {"cpu.max": quota})


@pytest.mark.parametrize("quota", [None, "max 100000"])
def test_a_whole_processor_is_ok(monkeypatch, quota):
    machine(monkeypatch, 8, 8, quota)
    assert only(doctor._cpu()) == ("ok", "Imagined; 8 of 8 logical cores usable (4 physical); avx2")
    assert only(doctor._quota()) == ("ok", "none that is seen here")


def test_a_part_of_a_processor_is_limited(monkeypatch):
    machine(monkeypatch, 2, 8, None, isa=())
    state, text = only(doctor._cpu())
    assert state == "limited"
    assert "2 of 8 logical cores" in text
    assert "no vector extension" in text


@pytest.mark.parametrize(
    ("quota", "counted", "said"),
    [
        (
            "150000 100000", {},
            "1.5 cores (cgroup cpu.max 150000 100000): 1 thread by default; how often it throttles is not counted here",
        ),
        (
            "250000 100000", {"own": Throttling(9, 1, 0.1), "above": Throttling(1545, 842, 3.5)},
            "2.5 cores (cgroup cpu.max 250000 100000): 2 threads by default; its periods are counted: "
            "so far 842 of 1,545 periods were throttled",
        ),
    ],
)  # fmt: skip
def test_a_quota_says_how_many_threads_follow_and_whether_it_is_counted(monkeypatch, quota, counted, said):
    machine(monkeypatch, 8, 8, quota)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(cgroups, "throttling", lambda: counted)
    assert only(doctor._quota()) == ("limited", said)


@pytest.mark.parametrize(("available", "state"), [(16, "ok"), (3, "limited")])
def test_memory(monkeypatch, available, state):
    memory = types.SimpleNamespace(available=available * GIB, total=32 * GIB)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory)
    assert only(doctor._memory()) == (state, f"{available}.0 of 32.0 GiB available")


# ------------------------------------------------------------------ torch and GPUs


def test_without_torch_nothing_can_be_measured(monkeypatch):
    monkeypatch.setattr(environment, "packages", lambda: {"torch": None})
    state, text = only(doctor._torch())
    assert state == "missing"
    assert "extra `run`" in text


@pytest.mark.parametrize(("cuda", "built"), [(None, "without CUDA"), ("12.8", "for CUDA 12.8")])
def test_torch_says_what_it_was_built_for(monkeypatch, device, cuda, built):
    monkeypatch.setattr(environment, "packages", lambda: {"torch": "2.13.0"})
    device.cuda_version = lambda: cuda
    assert only(doctor._torch()) == ("ok", f"2.13.0, built {built}")


def test_no_gpu_is_missing_with_the_reason(monkeypatch):
    monkeypatch.setattr(environment, "gpus", lambda: ([], "NVML: Driver Not Loaded"))
    assert only(doctor._gpus()) == ("missing", "none: NVML: Driver Not Loaded; cells on CUDA cannot be measured here")


def test_a_gpu_that_torch_cannot_use_is_limited(monkeypatch, device):
    gpu = {"name": "H100", "memory_MiB": 81559, "driver": "570.1"}
    monkeypatch.setattr(environment, "gpus", lambda: ([gpu], None))
    state, text = only(doctor._gpus())
    assert state == "limited"
    assert "H100, 81559 MiB, driver 570.1; but torch can use none" in text
    device.available = lambda: ["cpu", "cuda:0"]
    assert only(doctor._gpus()) == ("ok", "H100, 81559 MiB, driver 570.1; 1 usable by torch; NVML readable")


# ------------------------------------------------------------------ energy and SLURM


def test_energy_without_counters_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(tmp_path))
    state, text = only(doctor._rapl())
    assert state == "missing"
    assert f"no RAPL counter at {tmp_path}" in text


def test_each_counter_is_a_finding(monkeypatch):
    counters = [
        Counter("package-0", True, "/x/energy_uj"),
        Counter("package-0/core", True, "/c/energy_uj", counted=False),
        Counter("package-0/dram", False, "/y is for root only"),
        Counter("package-1", True, "/z/energy_uj"),
    ]
    monkeypatch.setattr(rapl, "rapl_counters", lambda: counters)
    monkeypatch.setattr(rapl, "power_W", lambda counters: {"package-0": 12.34, "package-1": 0.0})
    assert doctor._rapl() == [
        ("ok", "RAPL package-0: 12.3 W just now"),
        ("ok", "RAPL package-0/core: readable; not added to the others, which overlap with it"),
        ("limited", "RAPL package-0/dram: /y is for root only"),
        ("limited", "RAPL package-1: readable, but it does not count"),
    ]


def test_counters_that_nobody_can_read_are_said(monkeypatch):
    monkeypatch.setattr(rapl, "rapl_counters", lambda: [Counter("package-0", False, "/x is for root only")])
    assert only(doctor._rapl()) == ("limited", "RAPL package-0: /x is for root only")


def test_slurm(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert only(doctor._slurm()) == ("missing", "no sbatch on the PATH: runs are local")
    (tmp_path / "sbatch").touch(mode=0o755)
    state, text = only(doctor._slurm())
    assert (state, text.split(":")[0]) == ("limited", "sinfo cannot be started"), "not believed unseen"
    for code, state, text in ((0, "ok", "answers"), (1, "limited", "sinfo ended with code 1: Unable to contact")):
        (tmp_path / "sinfo").write_text(f"#!/bin/sh\necho Unable to contact >&2\nexit {code}\n")
        (tmp_path / "sinfo").chmod(0o755)
        assert only(doctor._slurm())[0] == state
        assert text in only(doctor._slurm())[1]
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert only(doctor._slurm()) == ("ok", "inside job 42")


# ------------------------------------------------------------------ the hub and the cache


@pytest.fixture
def online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_a_hub_that_answers_is_ok(monkeypatch, online):
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert only(doctor.model_hub()) == ("ok", f"{endpoint} answers")
    state, text = only(doctor.model_hub())
    assert state == "missing"
    assert f"{endpoint} cannot be reached (" in text
    assert "source=embedded" in text


@pytest.mark.parametrize(
    "endpoint", ["", "hub.example.org", "http://127.0.0.1:port", "http://127.0.0.1:99999", "https://"]
)
def test_a_hub_whose_address_is_none_is_missing(monkeypatch, online, endpoint):
    """No request may go to this machine's own web server only because a name is missing."""

    def refuse(place, timeout):
        raise AssertionError(f"asked {place}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    state, text = only(doctor.model_hub())
    assert state == "missing"
    assert f"HF_ENDPOINT is {endpoint!r}, which is no address such as https://huggingface.co" in text


def test_the_public_hub_is_asked_where_nothing_is_set(monkeypatch, online):
    asked = []

    def connect(place, timeout):
        asked.append((place, timeout))
        raise TimeoutError("timed out")

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert only(doctor.model_hub())[0] == "missing"
    assert asked == [(("huggingface.co", 443), 3)]


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_that_one_is_told_to_leave_alone_is_limited(monkeypatch, online, setting):
    monkeypatch.setenv(setting, "1")
    state, text = only(doctor.model_hub())
    assert state == "limited"
    assert f"{setting}=1: only what is in its cache" in text


def test_data_sets_can_be_left_alone_while_the_hub_answers(monkeypatch, online):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        state, text = only(doctor.model_hub())
    assert state == "limited"
    assert "answers; HF_DATASETS_OFFLINE=1: of data sets, only what is in its cache" in text


def test_the_embedded_source_is_ok_when_all_files_are_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    (tmp_path / "packages").mkdir()
    for package in (embedded.MINILM, *{task.text.package for task in embedded.TASKS.values()}):
        state, text = only(doctor._embedded())
        assert state == "limited"
        assert "will be fetched" in text
        (tmp_path / "packages" / package.filename).touch()
    assert only(doctor._embedded()) == ("ok", "models and texts are in the cache")


# ------------------------------------------------------------------ disk


def free_space(monkeypatch, gib: int) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=gib * GIB))


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DISTILBENCH_RESULTS", str(tmp_path / "results" / "not" / "made" / "yet"))
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    free_space(monkeypatch, 50)
    return tmp_path


def test_places_with_space_are_ok_even_before_they_are_made(places):
    assert only(doctor._places()) == (
        "ok",
        f"results {places}/results/not/made/yet: 50 GiB free; cache {places}: 50 GiB free; "
        f"temporary {tempfile.gettempdir()}: 50 GiB free",
    )
    assert list(places.iterdir()) == [], "looking makes nothing"


def test_places_that_are_nearly_full_are_limited(places, monkeypatch):
    free_space(monkeypatch, 1)
    assert only(doctor._places())[0] == "limited"


def test_a_place_that_cannot_be_written_is_limited(places, monkeypatch):
    there = doctor.paths.trouble_with
    monkeypatch.setattr(
        doctor.paths,
        "trouble_with",
        lambda place, locks: there(Path("/proc/self") if place.is_relative_to(places) else place, locks),
    )
    state, text = only(doctor._places())
    assert state == "limited"
    assert text.count("NOT WRITABLE") == 2


def test_a_place_below_a_regular_file_cannot_be_written(places):
    (places / "results").touch()
    state, text = only(doctor._places())
    assert state == "limited"
    assert f"results {places}/results/not/made/yet: 50 GiB free, NOT WRITABLE" in text
    assert text.count("NOT WRITABLE") == 1


def test_a_place_without_locks_is_limited(places, monkeypatch):
    monkeypatch.setattr(doctor.paths, "trouble_with", lambda place, locks: "NO FILE LOCKS (No locks available)")
    state, text = only(doctor._places())
    assert state == "limited"
    assert f"cache {places}: 50 GiB free, NO FILE LOCKS (No locks available)" in text


def test_the_temporary_folder_needs_no_locks(places, monkeypatch):
    monkeypatch.setattr(doctor.paths, "trouble_with", lambda place, locks: "NO FILE LOCKS (-)" if locks else None)
    assert only(doctor._places())[1].count("NO FILE LOCKS") == 2, "results and cache, and nothing else"


def test_a_home_is_ok_unless_it_cannot_be_written(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    assert only(doctor._home()) == ("ok", str(places))
    (places / "file").touch()
    monkeypatch.setenv("HOME", str(places / "file"))
    state, text = only(doctor._home())
    assert state == "limited"
    assert "set HOME to a folder that you may write" in text


# ------------------------------------------------------------------ the code


def test_code_in_a_commit_is_ok_and_other_code_is_limited_with_its_reason(monkeypatch):
    told = {"sha": "0123456789abcdef", "dirty": False, "reason": None}
    monkeypatch.setattr(environment, "git", lambda: told)
    assert only(doctor._code()) == ("ok", "commit 0123456789ab")
    told |= {"sha": None, "dirty": None, "reason": "git refuses the checkout"}
    assert only(doctor._code()) == (
        "limited",
        "in no commit (git refuses the checkout): runs of it cannot be published",
    )


# ------------------------------------------------------------------ all together


def test_variables_that_limit_threads_are_named(monkeypatch):
    for name in environment.variables():
        monkeypatch.delenv(name)
    assert doctor._threads()[0] == "ok"
    monkeypatch.setenv("OMP_DYNAMIC", "true")
    assert doctor._threads()[0] == "limited"
    assert "OMP_DYNAMIC=true" in doctor._threads()[1]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("no home")])
def test_what_the_system_refuses_is_a_finding_and_the_others_are_still_made(monkeypatch, device, error):
    def refuse():
        raise error

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(environment, "cpu", refuse)
    found = {finding["topic"]: finding for finding in doctor.examine()}
    assert found["CPU"] == {"topic": "CPU", "state": "missing", "text": str(error)}
    assert "disk" in found


def test_an_examination_of_this_machine_finds_something_on_every_topic(monkeypatch, device):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    findings = doctor.examine()
    topics = [finding["topic"] for finding in findings]
    assert list(dict.fromkeys(topics)) == [
        "CPU", "CPU quota", "threads", "memory", "torch", "GPU", "CPU energy", "SLURM", "model hub", "embedded source",
        "home", "open files", "disk", "code",
    ]  # fmt: skip
    assert all(finding["text"] for finding in findings)
    assert {finding["state"] for finding in findings} <= {"ok", "limited", "missing"}
    assert json.dumps(findings)
