"""Control groups: counters of both versions read from a tree of files; a real one is met in test_sweep."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from distilbench.machine import cgroups
from distilbench.machine.cgroups import Throttling


@pytest.fixture
def member_of(tmp_path, monkeypatch):
    """Makes this process a member of the groups in the text."""

    def make(text: str) -> None:
        (tmp_path / "cgroup").write_text(text)
        monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "cgroup")

    return make


def put(root, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


EVENTS = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"


def test_version_2(tmp_path, member_of):
    member_of("0::/slurm/job_7/step_0\n")
    put(tmp_path, "slurm/job_7/step_0/memory.events", EVENTS)
    assert cgroups.oom_kills(tmp_path) == 3


def test_version_1_and_both_at_once(tmp_path, member_of):
    member_of("12:cpu,cpuacct:/\n4:memory:/slurm/uid_0/job_7\n0::/\n")
    put(tmp_path, "memory/slurm/uid_0/job_7/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert cgroups.oom_kills(tmp_path) == 5
    member_of("4:pids:/\n0::/user\n")
    put(tmp_path, "unified/user/memory.events", EVENTS)
    assert cgroups.oom_kills(tmp_path) == 3


@pytest.mark.parametrize("text", ["", "0::/gone\n", "nonsense\n", "4:memory:/old\n"])
def test_where_nothing_counts_them_nothing_is_said(tmp_path, member_of, text):
    member_of(text)
    put(tmp_path, "memory/old/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")  # before Linux 4.13
    assert cgroups.oom_kills(tmp_path) is None


@pytest.mark.parametrize("text", ["oom_kill\n", "oom_kill many\n", "oom_kill -1\n", b"\xff\xfe oom_kill 3\n"])
def test_what_is_no_count_is_no_count(tmp_path, member_of, text):
    member_of("0::/job\n")
    put(tmp_path, "job/memory.events", "")
    (tmp_path / "job/memory.events").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cgroups.oom_kills(tmp_path) is None


@pytest.mark.parametrize(
    ("before", "now", "killed"),
    [(0, 1, True), (3, 3, False), (3, 0, False), (None, 3, False), (0, None, False), (None, None, False)],
)
def test_a_kill_is_one_that_was_counted_before_and_after(monkeypatch, before, now, killed):
    monkeypatch.setattr(cgroups, "oom_kills", lambda root: now)
    assert cgroups.killed_since(before) is killed


def test_without_membership(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "nothing")
    assert cgroups.oom_kills(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("0::/\n", [([], "")]),
        ("0::/slurm/job_7\n", [([], "slurm/job_7")]),
        ("0::/a:b\n", [([], "a:b")]),
        ("12:cpu,cpuacct:/user\n9:name=systemd:/\n", [(["cpu", "cpuacct"], "user"), (["name=systemd"], "")]),
        ("nonsense\n4:memory:/job\n\n", [(["memory"], "job")]),
    ],
)
def test_memberships(member_of, text, expected):
    member_of(text)
    assert cgroups.memberships() == expected


# ------------------------------------------------------------------ limits

UNKNOWN = {"cpu.max": None, "memory.max": None, "cpuset.cpus.effective": None}
MAX_OF_VERSION_1 = str(2**63 - 4096)


def put_all(root, files: dict[str, str]) -> None:
    for file, text in files.items():
        put(root, file, f"{text}\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"job/step/cpu.max": "150000 100000", "job/step/memory.max": "1048576"},
            {"cpu.max": "150000 100000", "memory.max": "1048576"},
            id="its own",
        ),
        pytest.param(
            {
                "job/step/cpu.max": "300000 200000", "job/cpu.max": "100000 100000", "cpu.max": "max 100000",
                "job/step/memory.max": "10000", "job/memory.max": "9000", "memory.max": "max",
            },
            {"cpu.max": "100000 100000", "memory.max": "9000"},
            id="a tighter one above, by size and not by spelling",
        ),
        pytest.param(
            {
                "job/step/cpu.max": "max 100000", "cpu.max": "50000 100000",
                "job/step/memory.max": "max", "memory.max": "7",
            },
            {"cpu.max": "50000 100000", "memory.max": "7"},
            id="that of the root",
        ),
        pytest.param(
            {"job/step/cpu.max": "20000 10000", "job/cpu.max": "100000 100000"},
            {"cpu.max": "100000 100000"},
            id="a share, not a number of microseconds",
        ),
        pytest.param(
            {"job/step/cpu.max": "50000", "job/cpu.max": "60000 100000"}, {"cpu.max": "50000"}, id="no period"
        ),
        pytest.param(
            {f"{at}{file}": "max" if "memory" in file else "max 100000"
             for at in ("", "job/", "job/step/") for file in ("cpu.max", "memory.max")},
            {"cpu.max": "max 100000", "memory.max": "max"},
            id="none at all",
        ),
        pytest.param(
            {"job/step/cpu.max": "", "job/cpu.max": "50000 100000"}, {"cpu.max": "50000 100000"}, id="an empty file"
        ),
        pytest.param(
            {"job/step/other/cpu.max": "1 100000", "jobs/memory.max": "1", "../cpu.max": "1 100000"}, {}, id="others'"
        ),
        pytest.param({}, {}, id="nothing"),
    ],
)  # fmt: skip
def test_limits_of_version_2(tmp_path, member_of, files, expected):
    member_of("0::/job/step\n")
    put_all(tmp_path / "fs", files)
    assert cgroups.limits(tmp_path / "fs") == UNKNOWN | expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"job/step/cpuset.cpus.effective": "0-1", "cpuset.cpus.effective": "0-7"}, "0-1"),
        (
            {"job/step/cpuset.cpus.effective": "", "job/cpuset.cpus.effective": "2,5", "cpuset.cpus.effective": "0-7"},
            "2,5",
        ),
        ({"cpuset.cpus.effective": "0-7"}, "0-7"),
        ({"unified/job/cpuset.cpus.effective": "3"}, "3"),
    ],
)  # fmt: skip
def test_the_nearest_group_that_says_them_gives_the_cores(tmp_path, member_of, files, expected):
    member_of("0::/job/step\n")
    put_all(tmp_path, files)
    assert cgroups.limits(tmp_path) == UNKNOWN | {"cpuset.cpus.effective": expected}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"job/cpu.cfs_quota_us": "-1", "job/cpu.cfs_period_us": "100000"}, "max 100000"),
        ({"job/cpu.cfs_quota_us": "50000", "job/cpu.cfs_period_us": "100000"}, "50000 100000"),
        (
            {"job/cpu.cfs_quota_us": "-1", "job/cpu.cfs_period_us": "100000",
             "cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "50000"},
            "25000 50000",
        ),
        ({"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}, "150000 100000"),  # a container's own root
        ({"job/cpu.cfs_quota_us": "50000"}, None),
        ({"job/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_quota_of_version_1(tmp_path, member_of, files, quota):
    member_of("12:cpuset:/job\n3:cpu,cpuacct:/job\n")
    put_all(tmp_path / "cpu", files)
    assert cgroups.limits(tmp_path) == UNKNOWN | {"cpu.max": quota}


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"job/memory.limit_in_bytes": MAX_OF_VERSION_1}, "max"),
        ({"job/memory.limit_in_bytes": MAX_OF_VERSION_1, "memory.limit_in_bytes": MAX_OF_VERSION_1}, "max"),
        ({"job/memory.limit_in_bytes": "2147483648", "memory.limit_in_bytes": MAX_OF_VERSION_1}, "2147483648"),
        ({"job/memory.limit_in_bytes": "10000", "memory.limit_in_bytes": "9000"}, "9000"),
        ({}, None),
    ],
)
def test_the_memory_limit_of_version_1(tmp_path, member_of, files, memory):
    member_of("12:cpuset:/job\n4:memory:/job\n")
    put_all(tmp_path / "memory", files)
    assert cgroups.limits(tmp_path) == UNKNOWN | {"memory.max": memory}


def test_where_both_versions_are_mounted_each_controller_is_read_where_it_is(tmp_path, member_of):
    member_of("4:memory:/job\n0::/job\n")
    put_all(tmp_path, {"unified/job/cpu.max": "80000 100000", "memory/job/memory.limit_in_bytes": "4096"})
    assert cgroups.limits(tmp_path) == UNKNOWN | {"cpu.max": "80000 100000", "memory.max": "4096"}


def test_without_membership_the_limits_of_the_root_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "nothing")
    put_all(tmp_path, {"cpu.max": "80000 100000", "memory.max": "4096", "cpu/cpu.cfs_quota_us": "1"})
    assert cgroups.limits(tmp_path) == UNKNOWN | {"cpu.max": "80000 100000", "memory.max": "4096"}


@pytest.mark.parametrize(
    "said", ["half", "-1", "0x10", "50000 0", "50000 x", "50000 100000 7", "1.5", "nan", "inf 100000"]
)
def test_a_limit_that_is_none_of_the_kernels_is_not_believed(tmp_path, member_of, said):
    member_of("12:cpu,cpuacct,memory:/job\n0::/job\n")
    put_all(tmp_path, {"job/cpu.max": said, "job/memory.max": said.split()[0] + "?"})
    put_all(tmp_path / "cpu/job", {"cpu.cfs_quota_us": said, "cpu.cfs_period_us": "x"})
    put_all(tmp_path / "memory/job", {"memory.limit_in_bytes": said + "?"})
    assert cgroups.limits(tmp_path) == UNKNOWN
    assert cgroups.throttling(tmp_path) == {}


# ------------------------------------------------------------------ throttling

STAT_2 = "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\nnr_bursts 0"
STAT_1 = "nr_periods {}\nnr_throttled {}\nthrottled_time {}\nnr_bursts 0\nburst_time 0"


def test_throttling_of_version_2_is_that_of_each_group_with_a_quota(tmp_path, member_of):
    member_of("0::/job/step\n")
    put_all(tmp_path, {
        "job/step/cpu.max": "150000 100000", "job/step/cpu.stat": STAT_2.format(545, 369, 2_500_000),
        "job/cpu.max": "max 100000", "job/cpu.stat": STAT_2.format(9, 9, 9),
        "cpu.max": "200000 100000", "cpu.stat": STAT_2.format(10, 1, 1000),
        "other/cpu.max": "1000 100000", "other/cpu.stat": STAT_2.format(9, 9, 9),
    })  # fmt: skip
    assert cgroups.throttling(tmp_path) == {
        str(tmp_path / "job/step"): Throttling(545, 369, 2.5), str(tmp_path): Throttling(10, 1, 0.001)
    }  # fmt: skip


@pytest.mark.parametrize("at", ["job/", ""], ids=["its own", "above"])
def test_throttling_of_version_1(tmp_path, member_of, at):
    member_of("9:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    put_all(tmp_path / "cpu" / at, {
        "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpu.stat": STAT_1.format(21, 20, 971_413_511)
    })  # fmt: skip
    (counted,) = cgroups.throttling(tmp_path).values()
    assert counted == Throttling(21, 20, pytest.approx(0.971413511))


@pytest.mark.parametrize(
    ("quota", "stat"),
    [
        (None, STAT_2.format(1, 1, 1)),
        ("max 100000", STAT_2.format(1, 1, 1)),
        ("50000 100000", None),
        ("50000 100000", ""),
        ("50000 100000", "usage_usec 9"),
        ("50000 100000", STAT_2.format("x", 1, 1)),
        ("50000 100000", STAT_2.format(1, -1, 1)),
        ("50000 100000", "nr_periods 5\nnr_throttled 5"),
        ("50000 100000", "nr_periods 5\nthrottled_usec 5"),
    ],
)
def test_what_is_not_counted_is_not_throttled_0_times(tmp_path, member_of, quota, stat):
    member_of("0::/job\n")
    put_all(
        tmp_path, {f"job/{name}": said for name, said in (("cpu.max", quota), ("cpu.stat", stat)) if said is not None}
    )
    assert cgroups.throttling(tmp_path) == {}


A_WHILE = {"own": Throttling(100, 10, 1.0), "above": Throttling(200, 20, 2.0)}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, None),
        (A_WHILE, {}, None),
        ({}, A_WHILE, None),
        (A_WHILE, A_WHILE, Throttling(0, 0, 0.0)),
        (A_WHILE, {"own": Throttling(110, 13, 1.5), "above": Throttling(220, 21, 2.25)}, Throttling(10, 3, 0.5)),
        (A_WHILE, {"own": Throttling(110, 13, 1.5), "above": Throttling(230, 40, 4.0)}, Throttling(30, 20, 2.0)),
        (A_WHILE, {"own": Throttling(9, 8, 3.0), "above": Throttling(220, 20, 2.0)}, Throttling(20, 0, 0.0)),
        ({"own": A_WHILE["own"]}, {"own": Throttling(100, 10, 0.5)}, None),
        ({"own": A_WHILE["own"]}, {"other": A_WHILE["own"]}, None),
    ],
    ids=["none", "gone", "new", "no time", "its own", "above", "made anew", "went back", "another group"],
)
def test_between_two_readings_the_group_that_was_stopped_for_longest_counts(before, after, expected):
    assert cgroups.throttled_between(before, after) == expected


# ------------------------------------------------------------------ peak memory


@pytest.fixture
def opened_as(monkeypatch):
    """Makes opening any memory.peak give this, or raise it."""
    original = Path.open

    def make(given) -> None:
        def open_(self, *arguments, **named):
            if self.name != "memory.peak":
                return original(self, *arguments, **named)
            assert arguments == ("r+",)
            if isinstance(given, OSError):
                raise given
            return given

        monkeypatch.setattr(Path, "open", open_)

    return make


class KernelFile:
    """memory.peak of Linux 6.12: once something was written, it says the peak since then, to this reader."""

    def __init__(self, peak: int, error: OSError | None = None) -> None:
        self.peak, self.error, self.pending, self.at_start = peak, error, "", True

    def write(self, text: str) -> None:
        self.pending = text

    def flush(self) -> None:
        if self.error:
            raise self.error
        if self.pending:
            self.peak, self.at_start = 0, False

    def seek(self, to: int) -> None:
        self.at_start = to == 0

    def read(self) -> str:
        said, self.at_start = f"{self.peak}\n" if self.at_start else "", False
        return said


@pytest.mark.parametrize("at", ["", "unified"])
def test_the_peak_counts_from_the_reset_on(tmp_path, member_of, opened_as, at):
    member_of("4:memory:/old\n0::/job\n")
    put(tmp_path / at, "job/memory.peak", "")
    kernel = KernelFile(peak=9_000_000)
    opened_as(kernel)
    peak = cgroups.PeakMemory(tmp_path)
    assert (peak.reason, peak.bytes()) == (None, 0)
    kernel.peak = 4096
    assert peak.bytes() == 4096
    assert peak.bytes() == 4096, "it is read from the start every time"


def test_the_reset_is_written_at_once_and_a_later_reading_is_a_fresh_one(tmp_path, member_of):
    """A real file stands in: it keeps what was written to it, where the kernel's would not."""
    member_of("0::/job\n")
    put(tmp_path, "job/memory.peak", "")
    peak = cgroups.PeakMemory(tmp_path)
    assert (tmp_path / "job/memory.peak").read_text() == "reset"
    for said in (4096, 8192):
        put(tmp_path, "job/memory.peak", f"{said}\n")
        assert peak.bytes() == said


@pytest.mark.parametrize("text", ["", "0::/job\n", "4:memory:/job\n"])
def test_without_the_file_there_is_no_peak_but_a_reason(tmp_path, member_of, text):
    member_of(text)
    put(tmp_path, "other/memory.peak", "4096\n")
    if text.startswith("4"):
        put(tmp_path, "job/memory.peak", "4096\n")  # of version 1 no such file is known
    peak = cgroups.PeakMemory(tmp_path)
    assert (peak.bytes(), peak.reason) == (None, "no control group of version 2 counts memory here")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (KernelFile(4096, OSError(errno.EINVAL, "Invalid argument")), "Invalid argument"),  # before Linux 6.12, as root
    ],
    ids=["not opened", "not written"],
)
def test_a_peak_that_cannot_be_reset_is_not_told(tmp_path, member_of, opened_as, given, why):
    member_of("0::/job\n")
    put(tmp_path, "job/memory.peak", "4096\n")
    opened_as(given)
    peak = cgroups.PeakMemory(tmp_path)
    assert peak.bytes() is None
    assert peak.reason == f"{tmp_path}/job/memory.peak cannot be reset: {why}"
