"""What is handed to SLURM and what is read from it; a real cluster is in test_cluster.py.

The answers of SLURM's programs here are recorded ones, of SLURM 22.05.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from measuring import prepared_by_hand, small_design

from distilbench import chain, environment, paths, runs, slurm, submission
from distilbench.bench import design, parts
from distilbench.errors import DistilbenchError, ParameterError, RunError
from distilbench.records import Repetition

SCRIPTS = sorted((paths.repo_root() / "slurm").glob("*.slurm"))
SHELL = [*SCRIPTS, paths.repo_root() / "slurm" / "setup.sh", paths.repo_root() / "slurm" / "run_benchmark.sh"]
#: Of sbatch in 21.08 (its manual page); what came later is not used.
OPTIONS_2108 = {
    "account", "array", "constraint", "cpus-per-task", "dependency", "error", "exclusive", "export", "gres", "job-name",
    "kill-on-invalid-dep", "mem", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition",
    "requeue", "signal", "time",
}  # fmt: skip
JOB = (
    "JobId=34 ArrayJobId=33 ArrayTaskId=1 JobName=measure-1a2b3c4d UserId=root(0) GroupId=root(0) MCS_label=N/A "
    "Priority=4294901728 Nice=0 Account=(null) QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
    "Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0 DerivedExitCode=0:0 RunTime=00:00:07 TimeLimit=00:10:00 TimeMin=N/A "
    "Partition=main NodeList=n1 BatchHost=n1 NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 "
    "TRES=cpu=1,mem=900M,node=1,billing=1,gres/gpu=1 Nodes=n1 CPU_IDs=0 Mem=900 GRES=gpu:1(IDX:0) MinMemoryNode=900M "
    "Features=(null) OverSubscribe=OK Command=/somewhere/slurm/bench_distilbert.slurm WorkDir=/somewhere"
)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs on the PATH that answer what they are told to, and note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    class Programs:
        def say(self, name: str, text: str = "", code: int = 0) -> None:
            (folder / f"{name}.txt").write_text(text)
            file = folder / name
            file.write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\ncat {folder}/{name}.txt\nexit {code}\n')
            file.chmod(0o755)

        def asked(self, name: str) -> list[str]:
            return [line for line in calls.read_text().splitlines() if line.split()[0] == name]

    return Programs()


@pytest.fixture
def run(tmp_path, this_machine) -> runs.Run:
    resolved = small_design(tmp_path / "results", batch_sizes=[1, 2], repetitions=2)
    made = runs.create(resolved, design.cells_of(resolved.params), "20261125T120000Z-cpu-1a2b3c4d")
    parts.divide(made, resolved, "rounds")
    return made


def submitted(run: runs.Run, *ids: tuple[str, str]) -> None:
    note = {"submitted": "2026-11-25T12:00:00Z", "parts": [0], "jobs": [{"name": n, "id": i} for n, i in ids]}
    paths.append_line(run.folder / "submissions.jsonl", paths.canonical_json(note).decode())


# ------------------------------------------------------------------ the chain


def test_the_chain_cannot_hang(run):
    jobs = {job.name: job for job in slurm.chain(run, [0, 1, 2], slurm.Options(), ingest=True)}
    assert list(jobs) == ["ingest", "measure", "gather", "analyse", "book", "account"]
    assert {name: job.after for name, job in jobs.items()} == {
        "ingest": None,
        "measure": ("ingest", "afterok"),
        "gather": ("measure", "afterany"),
        "analyse": ("gather", "afterok"),
        "book": ("analyse", "afterok"),
        "account": ("book", "afterany"),
    }
    for name, job in jobs.items():
        words = job.command(dict.fromkeys(jobs, "7"))
        assert ("--kill-on-invalid-dep=yes" in words) == bool(job.after), name
        assert words[-1].endswith(".slurm")


def test_what_is_asked_for_reaches_the_right_jobs(run):
    options = slurm.Options("gpu", "acc", "2:00:00", "32G", 16, "gpu:1", "a100", True, 4, "--nice=5", "--mem=1G", False)
    jobs = {job.name: job for job in slurm.chain(run, [0, 1, 2, 5], options, ingest=False, retry_oom=True)}
    assert list(jobs) == ["measure", "gather", "analyse", "account"]
    measure = jobs["measure"].command({})
    for word in (
        "--array=0-2,5%4", "--partition=gpu", "--account=acc", "--time=2:00:00", "--mem=32G", "--cpus-per-task=16",
        "--gres=gpu:1", "--constraint=a100", "--exclusive", "--nice=5", "--job-name=measure-1a2b3c4d",
    ):  # fmt: skip
        assert word in measure, word
    assert not any("dependency" in word for word in measure)
    step = jobs["gather"].command({"measure": "12"})
    assert {"--partition=gpu", "--account=acc", "--mem=1G", "--dependency=afterany:12"} <= set(step)
    assert not any(word.startswith(("--gres", "--time", "--nice", "--array")) for word in step)
    assert jobs["measure"].variables["RETRY_OOM"] == "1"
    assert jobs["gather"].variables["STEP"] == "gather"
    assert {job.variables["RUN"] for job in jobs.values()} == {str(run.folder)}


def test_where_all_is_measured_the_chain_begins_with_gathering(run):
    jobs = slurm.chain(run, [], slurm.Options(book=False), ingest=False)
    assert [(job.name, job.after) for job in jobs] == [
        ("gather", None), ("analyse", ("gather", "afterok")), ("account", ("analyse", "afterany")),
    ]  # fmt: skip
    slurm._require_room([])


def test_an_arrays_indexes_stay_below_the_clusters_limit(run, programs):
    programs.say("scontrol", "MaxArraySize            = 10")
    slurm._require_room([8, 9])
    with pytest.raises(ParameterError, match=r"11 tasks are more than this cluster's arrays hold .*--tasks 10 or less"):
        slurm._require_room([10])


@pytest.mark.parametrize(
    ("numbers", "said"), [([0], "0"), ([3, 1, 2], "1-3"), ([0, 2, 3, 9], "0,2-3,9"), ([5, 7], "5,7")]
)
def test_array_indexes(numbers, said):
    assert slurm._ranges(numbers) == said


def test_a_dry_run_is_a_script(run, tmp_path):
    jobs = slurm.chain(run, [0, 1], slurm.Options(), ingest=True)
    said = slurm.script_of(jobs)
    head, *_ = said.split("\n# ----------------")
    assert "measure=$(" in head
    assert "--dependency=afterok:$ingest" in head
    assert "slurm/bench_distilbert.slurm" in said
    assert "watched() {" in said, "the scripts are shown too"
    file = tmp_path / "script.sh"
    file.write_text(head)
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize("script", SHELL, ids=lambda file: file.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_only_options_of_2108_are_used(run):
    used = set()
    for script in SCRIPTS:
        used |= set(re.findall(r"^#SBATCH --([\w-]+)", script.read_text(), re.MULTILINE))
    options = slurm.Options("p", "a", "1", "1G", 1, "gpu:1", "c", True, 1)
    for job in slurm.chain(run, [0], options, ingest=True):
        words = job.command(dict.fromkeys(("ingest", "measure", "gather", "analyse", "book"), "1"))
        used |= {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    assert used <= OPTIONS_2108


def test_no_script_names_an_account_or_a_partition():
    for script in SCRIPTS:
        assert not re.search(r"^#SBATCH.*--(account|partition|qos)", script.read_text(), re.MULTILINE)
        if script.name != "step.slurm":
            assert "#SBATCH --output=slurm_logs/%x_%j.out" in script.read_text()


def test_a_site_sets_variables(tmp_path, monkeypatch):
    (tmp_path / "slurm").mkdir()
    monkeypatch.setattr(paths, "repo_root", lambda: tmp_path)
    assert slurm.site_variables() == {}
    site = tmp_path / "slurm" / "site.env"
    site.write_text('SBATCH_ACCOUNT=mine\nMODULES="python cuda"\n# a comment\n')
    assert slurm.site_variables() == {"SBATCH_ACCOUNT": "mine", "MODULES": "python cuda"}
    site.write_text("if\n")
    with pytest.raises(ParameterError, match=r"site\.env is no shell file"):
        slurm.site_variables()


# ------------------------------------------------------------------ submitting


def test_without_slurm_it_says_so(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DistilbenchError, match=r"sbatch, scancel not on the PATH: .* Without one: distilbench run"):
        slurm.submit(run, [], [0])
    assert slurm.settle(run) == []
    assert slurm.accounting(["1"], "JobID") == []
    submitted(run, ("measure", "1"))
    with pytest.raises(DistilbenchError, match="squeue is not on the PATH"):
        slurm.living(run)


def test_ids_are_noted_in_the_run(run, programs):
    programs.say("sbatch", "12;cluster\n")
    programs.say("scancel")
    programs.say("scontrol", "MaxArraySize            = 1001\n")
    ids = slurm.submit(run, slurm.chain(run, [0, 1], slurm.Options(book=False), ingest=True), [0, 1])
    assert ids == dict.fromkeys(("ingest", "measure", "gather", "analyse", "account"), "12")
    (told,) = slurm.submissions(run)
    assert told["parts"] == [0, 1]
    assert told["jobs"][0] == {"name": "ingest", "id": "12"}
    assert run.status["state"] == "pending"
    assert f"distilbench status {run.run_id}" in run.status["message"]
    assert "--dependency=afterok:12" in programs.asked("sbatch")[1]


def test_a_refusal_cancels_what_went_before(run, programs, monkeypatch):
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    jobs = slurm.chain(run, [0], slurm.Options(book=False), ingest=True)
    real = slurm._said

    def refuse_the_third(command, *more, **named):
        if command[0] == "sbatch" and len(programs.asked("sbatch")) == 2:
            return subprocess.CompletedProcess(command, 1, "", "sbatch: error: invalid partition\n")
        return real(command, *more, **named)

    monkeypatch.setattr(slurm, "_said", refuse_the_third)
    with pytest.raises(
        DistilbenchError, match=r"refused job gather, nothing is left in the queue: .*invalid partition"
    ):
        slurm.submit(run, jobs, [0])
    assert programs.asked("scancel") == ["scancel 12 12"]
    assert slurm.submissions(run) == []


def test_energy_is_measured_in_every_cell_of_a_submission(tmp_path):
    best = small_design(tmp_path, passes=["timing", "energy"])
    assert best.params.energy_cells == "best"
    asked = submission.as_measured(best)
    assert asked.params.energy_cells == "all"
    assert asked.design_hash != best.design_hash
    assert submission.as_measured(small_design(tmp_path)).params.energy_cells == "best", "where none is measured"


# ------------------------------------------------------------------ watching


def test_states_come_from_the_queue_and_from_accounting(run, programs):
    submitted(run, ("ingest", "11"), ("measure", "12"), ("gather", "13"))
    programs.say("squeue", "12_1|RUNNING|n1|0:07|None\n13|PENDING||0:00|Dependency\n")
    programs.say(
        "sacct",
        "11|COMPLETED|n2|00:00:05|0:0\n12_0|OUT_OF_MEMORY|n2|00:00:09|0:125\n"
        "12_[2-3]|PENDING|None assigned|00:00:00|0:0\n12_[4-5]|CANCELLED by 0|None assigned|00:00:00|0:0\n",
    )
    assert [tuple(job.values()) for job in slurm.jobs(run)] == [
        ("ingest", "11", "COMPLETED", "n2", "00:00:05", ""),
        ("measure", "12_0", "OUT_OF_MEMORY", "n2", "00:00:09", "exit code 0:125"),
        ("measure", "12_1", "RUNNING", "n1", "0:07", "None"),
        ("measure", "12_[4-5]", "CANCELLED by 0", "None assigned", "00:00:00", ""),
        ("gather", "13", "PENDING", "", "0:00", "Dependency"),
    ]


def test_without_accounting_what_left_the_queue_has_ended(run, programs):
    submitted(run, ("measure", "12"))
    programs.say("squeue", "", 1)
    programs.say("sacct", "Slurm accounting storage is disabled\n", 1)
    (job,) = slurm.jobs(run)
    assert (job["state"], job["why"]) == ("ended", "the cluster keeps no accounts")


def test_a_run_that_was_never_submitted_has_no_jobs(run):
    assert (slurm.jobs(run), slurm.living(run), slurm.submissions(run)) == ([], [], [])


def test_cancel(run, programs):
    submitted(run, ("measure", "12"))
    programs.say("squeue", "12_1\n12_2\n")
    programs.say("scancel")
    assert slurm.cancel(run) == ["12_1", "12_2"]
    assert programs.asked("scancel") == ["scancel 12"]
    assert run.status["state"] == "cancelled"
    programs.say("scancel", "", 1)
    with pytest.raises(DistilbenchError, match="scancel:"):
        slurm.cancel(run)


def test_what_is_still_queued_is_not_submitted_again(run, programs):
    submitted(run, ("measure", "12"))
    programs.say("squeue", "12\n")
    resolved = submission.chain.resolve_again(run)
    with pytest.raises(RunError, match=f"1 jobs of run {run.run_id} still wait or run: .*distilbench cancel"):
        submission.go_on(resolved, slurm.Options())


def test_an_ordinary_run_is_not_submitted_again(tmp_path, this_machine):
    resolved = small_design(tmp_path / "results")
    run = design.start(resolved)
    with pytest.raises(RunError, match="was not submitted: go on with it by `distilbench run distilbert"):
        submission.go_on(submission.chain.resolve_again(run), slurm.Options())


def test_a_dry_run_makes_nothing(run, tmp_path):
    resolved = small_design(tmp_path / "others")
    said = submission.dry(resolved, slurm.Options(), "cells", None, False, False)
    assert "--array=0 " in said
    assert not (tmp_path / "others").exists()
    prepared_by_hand(run).save(run)
    said = submission.dry(submission.chain.resolve_again(run), slurm.Options(), "rounds", None, True, False)
    assert "--array=0-2" in said
    assert "ingest=" not in said, "text and model are prepared"


# ------------------------------------------------------------------ afterwards


def test_what_scontrol_says_of_a_job():
    told = environment.slurm_fields(JOB)
    assert told["NodeList"] == "n1"
    assert told["GRES"] == "gpu:1(IDX:0)"
    assert told["CPU_IDs"] == "0"
    assert told["OverSubscribe"] == "OK"
    assert told["CPUs/Task"] == "1"
    assert "Features" not in told, "(null) says nothing"
    assert not {"UserId", "GroupId", "Account", "WorkDir", "Command"} & told.keys()


def test_outside_a_job_there_is_none(programs, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert environment.slurm_job() is None
    programs.say("scontrol", JOB)
    monkeypatch.setenv("SLURM_JOB_ID", "34")
    assert environment.slurm_job()["JobId"] == "34"
    programs.say("scontrol", "", 1)
    assert environment.slurm_job() is None


@pytest.fixture
def silent(run, monkeypatch) -> runs.Run:
    """An attempt whose process was killed, in the first incarnation of job 34; begun at 12:00:10."""
    monkeypatch.setenv("SLURM_JOB_ID", "34")
    monkeypatch.setattr(environment, "now", lambda: "2026-11-25T12:00:10Z")
    monkeypatch.setattr(environment, "slurm_job", lambda: None)
    with parts.begun(run, 0) as attempt:
        pass
    parts.end(attempt, "running", "")
    return attempt


@pytest.mark.parametrize(
    ("now", "accounts", "state"),
    [
        ("JobState=RUNNING Restarts=0", "", "running"),
        ("JobState=TIMEOUT Restarts=0", "34|TIMEOUT|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "timeout"),
        ("JobState=OUT_OF_MEMORY Restarts=0", "", "oom"),
        ("JobState=CANCELLED Restarts=0", "34|CANCELLED by 0|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "cancelled"),
        (
            "JobState=RUNNING Restarts=1",
            "34|NODE_FAIL|2026-11-25T12:00:01|2026-11-25T12:00:31\n34|RUNNING|2026-11-25T12:02:41|Unknown\n",
            "failed",
        ),
        (
            "JobState=PENDING Restarts=1",
            "34|PREEMPTED|2026-11-25T12:00:01|2026-11-25T12:00:31\n34|PENDING|Unknown|Unknown\n",
            "preempted",
        ),
        (
            "JobState=TIMEOUT Restarts=1",
            "34|PREEMPTED|2026-11-25T12:00:01|2026-11-25T12:00:31\n34|TIMEOUT|2026-11-25T12:02:41|2026-11-25T12:12:41\n",
            "preempted",
        ),
        ("JobState=COMPLETED Restarts=0", "", "failed"),
    ],
)  # fmt: skip
def test_how_a_silent_attempt_ended(run, silent, programs, now, accounts, state):
    programs.say("scontrol", now)
    programs.say("sacct", accounts)
    said = slurm.settle(run)
    assert parts.about(silent)["state"] == state
    assert bool(said) == (state != "running")
    assert slurm.settle(run) == [], "what is on record stays"


@pytest.mark.parametrize(
    ("accounts", "state"),
    [
        ("34|PREEMPTED|2026-11-25T12:00:01|2026-11-25T12:00:31\n", "preempted"),
        ("34|TIMEOUT|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "timeout"),
        ("34|NODE_FAIL|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "failed"),  # believed lost, and lived on
        ("34|CANCELLED by 0|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "cancelled"),
        ("34|FAILED|2026-11-25T12:00:01|2026-11-25T12:10:01\n", "cancelled"),
    ],
)
def test_why_an_attempt_was_told_to_end(run, silent, programs, accounts, state):
    parts.end(silent, "cancelled", "told to end at once (SIGTERM or Ctrl-C)")
    programs.say("scontrol", "JobState=PENDING Restarts=1")
    programs.say("sacct", accounts)
    slurm.settle(run)
    assert parts.about(silent)["state"] == state


def test_final_figures(run, programs):
    submitted(run, ("measure", "12"))
    row = "12_0|measure|main|COMPLETED|0:0|2026-11-25T12:00:01|2026-11-25T12:00:31|30|n1|1|cpu=1|00:25|{}|{}\n"
    programs.say("sacct", row.format("", "0") + row.format("141M", "") + row.format("141M", "5400"))
    told = paths.read_json(slurm.account(run))
    assert [job["consumed_energy_J"] for job in told["jobs"]] == [None, None, 5400]
    assert [job.get("reason") for job in told["jobs"]] == [slurm.NO_ENERGY, slurm.NO_ENERGY, None]
    assert "ConsumedEnergyRaw" in programs.asked("sacct")[0]
    programs.say("sacct", "", 1)
    assert paths.read_json(slurm.account(run))["reason"].startswith("sacct knows none of the jobs")


def test_a_program_that_does_not_answer(monkeypatch):
    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("squeue", 120)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(DistilbenchError, match="squeue did not answer"):
        slurm._said(["squeue"])
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setattr(environment.shutil, "which", lambda _: "there")
    assert environment.slurm_job() is None


def test_cells_of_a_run(run):
    assert submission.cells(run) == [
        {"cell": f"sdpa-float32-fixed-16-b00{size}", "state": "pending", "done": "0 of 3"} for size in (1, 2)
    ]
    assert Path(run.folder).is_dir()


def test_a_cell_that_lacked_memory_says_so(run):
    cell = design.cells_of(chain.resolve_again(run).params)[0]
    told = {"study": "distilbert", "pass": "timing", "repetition": 0, "status": "oom", "error": "too big"}
    run.commit(Repetition(**cell.model_dump(), **told, started="2026-11-22T14:15:00Z", seconds=1))
    assert submission.cells(run)[0] == {"cell": cell.cell, "state": "oom", "done": "1 of 3"}


def test_the_script_of_a_dry_run_stands_paths_with_spaces(run, tmp_path, monkeypatch):
    root = tmp_path / "a folder" / "with $HOME"
    shutil.copytree(paths.repo_root() / "slurm", root / "slurm")
    (root / "params").mkdir()
    shutil.copyfile(paths.repo_root() / "params" / "studies.yml", root / "params" / "studies.yml")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(root))
    said = slurm.script_of(slurm.chain(run, [0, 1], slurm.Options(), ingest=True)).split("\n# ------")[0]
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/bash\npwd >>{tmp_path}/asked\nprintf "%s\\n" "$@" >>{tmp_path}/asked\necho 7\n')
    sbatch.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": "/nowhere"}
    subprocess.run(["bash", "-c", said], env=env, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == str(root)
    assert str(root / "slurm" / "step.slurm") in asked
    assert "--dependency=afterok:7" in asked
