"""What env.json says of a machine: read where it can be read, null where it cannot, never guessed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distilbench import paths
from distilbench.machine import cgroups, code, conditions, environment
from distilbench.sources import families
from distilbench.variants import registry

CPUINFO = """\
processor\t: 0
model name\t: Imagined CPU @ 3.00GHz
flags\t\t: fpu avx2 fma avx512f amx_int8 unknown_flag

processor\t: 1
model name\t: Another CPU
flags\t\t: fpu
"""


def read_text_of(monkeypatch, **files: str | OSError) -> None:
    """Makes files of /proc say this; `cpuinfo="..."` is /proc/cpuinfo, `self_cgroup` is /proc/self/cgroup."""
    original = Path.read_text
    contents = {f"/proc/{name.replace('_', '/')}": content for name, content in files.items()}

    def read_text(self, *arguments, **named):
        content = contents.get(str(self))
        if isinstance(content, OSError):
            raise content
        return original(self, *arguments, **named) if content is None else content

    monkeypatch.setattr(Path, "read_text", read_text)


# ------------------------------------------------------------------ everything


def test_a_capture_is_plain_json_with_all_its_parts():
    env = environment.capture()
    assert json.loads(json.dumps(env, allow_nan=False)) == env
    assert env.keys() == {
        "schema_version", "captured", "host", "cpu", "memory_MiB", "cgroup", "gpus", "python", "packages",
        "lock_sha256", "code_sha256", "measuring_sha256", "git", "variables", "slurm", "visible_gpus", "tuning",
        "container", "preloaded", "slurm_job", "slurm_job_reason",
    }  # fmt: skip
    assert env["memory_MiB"] > 100
    assert env["python"]["version"] == sys.version.split()[0]
    assert env["lock_sha256"] == paths.sha256_file(paths.repo_root() / "constraints.txt")
    assert env["cpu"]["affinity"] == sorted(os.sched_getaffinity(0))


def test_no_secret_of_the_environment_is_captured(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    env = environment.capture()
    assert "hf_secret" not in json.dumps(env)
    assert env["slurm"]["SLURM_JOB_ID"] == "42"
    assert env["slurm"]["SLURM_JOB_NODELIST"] == "node[1-2]"
    assert env["variables"]["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in env["variables"]


def test_time_is_utc_to_the_second(monkeypatch):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", environment.now())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    code = "from distilbench.machine.environment import now; print(now())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = datetime.strptime(done.stdout.strip(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((said - datetime.now(UTC)).total_seconds()) < 60


def test_the_key_holds_what_repetitions_must_share(captured):
    key = conditions.key_of(captured)
    assert set(key) == {
        "host", "cpu", "usable cores", "python", "gpus", "distilbench", "torch", "transformers", "tokenizers", "numpy",
        "code", "CPU quota", "visible GPUs", "driver", "governor", "turbo", "container",
        "malloc", "variables", "GPU variables", "preloaded",
    }  # fmt: skip
    assert key["usable cores"] == len(os.sched_getaffinity(0))
    assert conditions.key_of(json.loads(json.dumps(captured))) == key, "read back from env.json it is the same"


def test_another_heap_is_another_environment(captured, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    key = conditions.key_of(environment.capture())
    assert key["malloc"] == {"MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert conditions.key_of(captured)["malloc"] == {}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("OMP_THREAD_LIMIT", "variables"),
        ("OMP_DYNAMIC", "variables"),
        ("GOMP_SPINCOUNT", "variables"),
        ("KMP_BLOCKTIME", "variables"),
        ("MKL_DYNAMIC", "variables"),
        ("OPENBLAS_CORETYPE", "variables"),
        ("TOKENIZERS_PARALLELISM", "variables"),
        ("MALLOC_ARENA_MAX", "malloc"),
        ("CUDA_LAUNCH_BLOCKING", "GPU variables"),
    ],
)
def test_what_changes_threads_or_memory_is_on_record_and_in_the_key(captured, monkeypatch, name, part):
    monkeypatch.setenv(name, "another")
    env = environment.capture()
    assert env["variables"][name] == "another"
    key, usual = conditions.key_of(env), conditions.key_of(captured)
    assert key[part][name] == "another"
    assert {what for what in key if key[what] != usual[what]} == {part}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_what_a_worker_is_given_anew_is_no_condition(captured, monkeypatch, name):
    monkeypatch.setenv(name, "7")
    env = environment.capture()
    assert env["variables"][name] == "7"
    assert conditions.key_of(env) == conditions.key_of(captured)


def test_what_is_loaded_before_all_else_is_a_condition(captured, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "")
    usual = conditions.key_of(environment.capture())
    assert usual["preloaded"] == []
    assert conditions.key_of(captured | {"preloaded": ["libjemalloc.so.2"]})["preloaded"] == ["libjemalloc.so.2"]


def test_variables_that_limit_threads_are_named(monkeypatch):
    for name in environment.variables():
        monkeypatch.delenv(name)
    assert environment.variables_of_threads() == []
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert environment.variables_of_threads() == ["OMP_THREAD_LIMIT=1"]


@pytest.fixture
def package(monkeypatch, tmp_path) -> Path:
    """A copy of the package's sources, which is hashed instead."""
    copied = tmp_path / "package"
    shutil.copytree(code.PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copied)
    return copied


def append(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8") + "# another version\n", encoding="utf-8")


@pytest.mark.parametrize(
    "module", ["measurements/sweep/measure/worker", "harness/processes", "collectors/rapl", "stats", "sources/texts"]
)
def test_another_version_of_what_measures_is_another_environment(package, module):
    before = environment.capture()
    assert conditions.key_of(environment.capture()) == conditions.key_of(before)
    append(package / f"{module}.py")
    assert conditions.key_of(environment.capture())["code"] != conditions.key_of(before)["code"]


@pytest.mark.parametrize(
    "module",
    ["publication/slides/build", "report/charts", "measurements/sweep/summary/doubts", "cli/main", "execution/slurm"],
)
def test_another_version_of_what_shows_is_the_same_environment_and_other_code(package, module):
    """A run may be gone on with when a slide got another colour; that the code differs is on record all the same."""
    before = environment.capture()
    append(package / f"{module}.py")
    after = environment.capture()
    assert conditions.key_of(after) == conditions.key_of(before)
    assert after["code_sha256"] != before["code_sha256"]


def test_an_environment_of_an_early_version_is_told_by_all_of_its_code(captured):
    early = {name: value for name, value in captured.items() if name != "measuring_sha256"}
    assert conditions.key_of(early)["code"] == captured["code_sha256"]


def imported(*modules: str) -> set[str]:
    """The package's modules that importing these brings, as paths below the package."""
    code = (
        f"import sys, pathlib, distilbench, {', '.join(f'distilbench.{module}' for module in modules)}\n"
        "root = pathlib.Path(distilbench.__file__).parent\n"
        "mine = [m for name, m in sys.modules.items() if name.split('.')[0] == 'distilbench']\n"
        "print(*(str(pathlib.Path(m.__file__).relative_to(root).with_suffix('')) for m in mine))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.split())


#: What the parent imports besides: folders and locks, derived numbers, progress bars. None of it measures.
BESIDE = {
    "machine/conditions", "runs/folder", "runs/measurement", "measurements/sweep/summary/join",
    "measurements/sweep/summary/doubts", "measurements/sweep/summary/energy", "progress",
}  # fmt: skip
MEASURED = ("sweep", "profiling", "evaluation")
LATER = ("training", "llm_speed", "perplexity", "task_scores", "alignment")


def test_all_that_a_worker_imports_and_its_parent_plans_with_is_what_measures():
    by_name = [f"sources.families.{name}" for name in families.supported()]  # imported when they are asked for
    by_name += [module.removeprefix("distilbench.") for module in {*registry.MODULES.values()}]
    workers = [f"measurements.{kind}.measure.worker" for kind in MEASURED]
    worker = imported(*workers, *by_name, "harness.ceilings", "harness.__main__")
    measuring = {name for name in code.measuring() if not name.startswith("measurements/calibration/")}
    assert worker <= measuring
    prepared = [f"measurements.{kind}.measure.prepare" for kind in ("sweep", "evaluation")]
    parent = imported(*(f"measurements.{kind}.measure.run" for kind in MEASURED), *prepared, "harness.steps")
    assert parent - measuring == BESIDE
    found = [file for kind in LATER for file in sorted((code.PACKAGE / "measurements" / kind / "measure").glob("*.py"))]
    others = imported(*(f"measurements.{file.parts[-3]}.measure.{file.stem}" for file in found))
    assert others - measuring <= BESIDE
    assert measuring <= worker | parent | others, "nothing else is among them"


# ------------------------------------------------------------------ processor and limits


def test_the_first_processor_of_proc_is_described(monkeypatch):
    read_text_of(monkeypatch, cpuinfo=CPUINFO)
    cpu = environment.cpu()
    assert cpu["model"] == "Imagined CPU @ 3.00GHz"
    assert cpu["isa"] == ["avx2", "fma", "avx512f", "amx_int8"]


def test_without_proc_the_processor_has_a_name_all_the_same(monkeypatch):
    read_text_of(monkeypatch, cpuinfo=FileNotFoundError())
    cpu = environment.cpu()
    assert cpu["model"]
    assert cpu["isa"] == []
    assert cpu["logical_cores"] >= 1


def test_limits_are_those_of_the_own_cgroup_else_of_the_root(tmp_path, monkeypatch):
    read_text_of(monkeypatch, self_cgroup="3:cpuset:/old\n0::/user.slice/job_7\n")
    own = tmp_path / "user.slice" / "job_7"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroups.limits(tmp_path) == {
        "cpu.max": "150000 100000",
        "memory.max": "max",
        "cpuset.cpus.effective": None,
    }


@pytest.mark.parametrize("self_cgroup", ["0::/\n", "0::/gone\n", PermissionError()])
def test_limits_of_the_root_hold_where_there_is_no_own_cgroup(tmp_path, monkeypatch, self_cgroup):
    read_text_of(monkeypatch, self_cgroup=self_cgroup)
    (tmp_path / "cpuset.cpus.effective").write_text("0-1\n")
    assert cgroups.limits(tmp_path) == {"cpu.max": None, "memory.max": None, "cpuset.cpus.effective": "0-1"}


def test_without_cgroups_nothing_is_said(tmp_path):
    assert set(cgroups.limits(tmp_path / "absent").values()) == {None}


# ------------------------------------------------------------------ GPUs


class FakeNvml(types.ModuleType):
    """NVML as its library shows it: two GPUs; `fails` names the call that does not work. Notes all calls."""

    class NVMLError(Exception):
        pass

    def __init__(self, fails: str = "") -> None:
        super().__init__("pynvml")
        self.fails, self.calls = fails, []

    def _call(self, name: str, result=None):
        self.calls.append(name)
        if name == self.fails:
            raise self.NVMLError("Driver Not Loaded")
        return result

    def nvmlInit(self):
        self._call("init")

    def nvmlShutdown(self):
        self._call("shutdown")

    def nvmlDeviceGetCount(self):
        return self._call("count", 2)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self._call("handle", index)

    def nvmlDeviceGetName(self, handle):
        return f"Imagined GPU {handle}"

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return types.SimpleNamespace(total=(handle + 1) * 2**30)

    def nvmlSystemGetDriverVersion(self):
        return self._call("driver", "570.1")

    def nvmlSystemGetCudaDriverVersion(self):
        return 12080

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 350_000

    def nvmlDeviceGetPersistenceMode(self, handle):
        return 1

    def nvmlDeviceGetMigMode(self, handle):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle):
        return 5

    NVML_CLOCK_SM = 1

    def nvmlDeviceGetMaxClockInfo(self, handle, clock):
        return 1980


def fake_nvml(monkeypatch, nvml):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_all_gpus_are_listed_and_nvml_is_closed(monkeypatch):
    nvml = fake_nvml(monkeypatch, FakeNvml())
    (first, second), why = environment.gpus()
    assert why is None
    told = {"cuda_driver": 12080, "power_limit_W": 350.0, "persistence": True, "mig": None, "pcie_generation": 5}
    common = {"driver": "570.1", "max_sm_MHz": 1980} | told
    assert first == {"name": "Imagined GPU 0", "uuid": "GPU-0", "memory_MiB": 1024} | common
    assert second == {"name": "Imagined GPU 1", "uuid": "GPU-1", "memory_MiB": 2048} | common
    assert (nvml.calls[0], nvml.calls[-1]) == ("init", "shutdown")


def test_without_the_library_the_reason_says_which(monkeypatch):
    fake_nvml(monkeypatch, None)
    assert environment.gpus() == ([], "nvidia-ml-py is not installed (extra `run`)")


def test_without_a_driver_the_reason_is_nvmls_and_nothing_is_closed(monkeypatch):
    nvml = fake_nvml(monkeypatch, FakeNvml(fails="init"))
    assert environment.gpus() == ([], "NVML: Driver Not Loaded")
    assert nvml.calls == ["init"]


@pytest.mark.parametrize("fails", ["count", "handle", "driver"])
def test_an_error_half_way_is_a_reason_and_nvml_is_closed(monkeypatch, fails):
    nvml = fake_nvml(monkeypatch, FakeNvml(fails=fails))
    assert environment.gpus() == ([], "NVML: Driver Not Loaded")
    assert nvml.calls[-1] == "shutdown"


# ------------------------------------------------------------------ software


def test_versions_of_packages(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    versions = environment.packages()
    assert re.match(r"\d+\.\d+", versions["numpy"])
    assert versions["no-such-package"] is None


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout that is not under git yet, and has no lock file."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "studies.yml").touch()
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_without_git_has_no_commit(checkout):
    assert environment.git() == {"sha": None, "dirty": None, "reason": "not under git"}
    assert environment.lock_sha256() is None


def test_a_commit_is_named_and_changes_are_seen(checkout):
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    sha = git(checkout, "rev-parse", "HEAD")
    assert environment.git() == {"sha": sha, "dirty": False, "reason": None}
    (checkout / "new").touch()
    assert environment.git() == {"sha": sha, "dirty": True, "reason": None}


def test_a_machine_without_git_says_nothing(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    assert environment.git() == {"sha": None, "dirty": None, "reason": "git is not installed"}


# ------------------------------------------------------------------ what changes a core's speed


def test_what_tunes_a_core_is_read_from_sysfs(tmp_path):
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
        "devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "devices/system/cpu/smt/active": "0\n",
        "kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "devices/system/node/node0/cpulist": "0-1\n",
        "devices/system/node/node1/cpulist": "2-3\n",
        "devices/system/node/nodes_elsewhere": "\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert environment.tuning(tmp_path) == {
        "governor": "performance", "frequency_driver": "intel_pstate", "turbo": "off", "smt": "off", "numa_nodes": 2,
        "transparent_hugepage": "always [madvise] never",
    }  # fmt: skip


def test_turbo_is_called_boost_elsewhere(tmp_path):
    file = tmp_path / "devices/system/cpu/cpufreq/boost"
    file.parent.mkdir(parents=True)
    file.write_text("1\n")
    assert environment.tuning(tmp_path)["turbo"] == "on"


def test_what_the_kernel_does_not_say_is_null(tmp_path):
    assert set(environment.tuning(tmp_path).values()) == {None}


def test_a_container_may_say_its_name_or_leave_a_sign(monkeypatch):
    monkeypatch.setenv("container", "podman")
    assert environment.container() == "podman"
    monkeypatch.delenv("container")
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/.singularity.d")
    assert environment.container() == "apptainer"
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert environment.container() is None


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7})
    assert environment.usable_cores() == 3


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("150000 100000", 1), ("299999 100000", 2), ("50000 100000", 1), (None, None)],
)
def test_only_whole_cores_of_a_containers_quota_are_usable(monkeypatch, quota, cores):
    monkeypatch.setattr(cgroups, "limits", lambda: {"cpu.max": quota})
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _pid: set(range(64)))
    assert environment.usable_cores() == (cores or 64)


def test_a_checkout_of_another_user_is_not_taken_for_one_without_git(checkout, monkeypatch):
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    told = environment.git()
    assert (told["sha"], told["dirty"]) == (None, None)
    assert "belongs to another user" in told["reason"]
    assert f"git config --global --add safe.directory {checkout}" in told["reason"]
    assert environment.uncommitted(told) == told["reason"]


def test_why_code_is_in_no_commit():
    assert environment.uncommitted({"sha": "a", "dirty": False}) is None, "also of a record that has no reason"
    assert environment.uncommitted({"sha": "a", "dirty": True, "reason": None}) == "uncommitted changes"
    assert environment.uncommitted({"sha": None, "dirty": None}) == "not under git"


def test_a_repository_without_a_commit_says_what_git_says(checkout):
    git(checkout, "init", "--quiet")
    assert environment.git()["reason"].startswith("git: ")
