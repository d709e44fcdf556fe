"""What is handed to SLURM and what is read from it; a real cluster is in test_cluster.py.

The answers of SLURM's programs here are recorded ones, of SLURM 22.05.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic
from measuring import prepared_by_hand, small_design

from distilbench import paths, studies
from distilbench.cli import main
from distilbench.errors import ParameterError, RunError, SlurmError
from distilbench.execution import job_states, jobs, notebooks, push, slurm, submission
from distilbench.harness import shards
from distilbench.machine import environment, slurm_job
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.records import Repetition
from distilbench.runs import find
from distilbench.runs.folder import Run

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

        def list(self, name: str, rows: str = "", banner: str = "") -> None:
            """A list below the header that squeue and sacct print, and what a site may print before it."""
            fields = "JOBID|STATE|NODELIST|TIME|REASON" if name == "squeue" else ""
            self.say(name, rows)
            file = folder / name
            head = f"echo '{fields}'" if fields else "for last; do :; done; echo \"$last\" | tr , '|'"
            file.write_text(file.read_text().replace("cat ", f"printf '{banner}'\n{head}\ncat "))

        def fail(self, name: str, said: str, code: int = 1) -> None:
            self.say(name, "", code)
            file = folder / name
            file.write_text(file.read_text().replace("exit", f"echo '{said}' >&2\nexit"))

        def hang(self, name: str) -> None:
            self.say(name)
            (folder / name).write_text("#!/bin/sh\nexec sleep 60\n")

        def asked(self, name: str) -> list[str]:
            return [line for line in calls.read_text().splitlines() if line.split()[0] == name]

    return Programs()


@pytest.fixture
def run(tmp_path, this_machine) -> Run:
    resolved = small_design(tmp_path / "results", batch_sizes=[1, 2], repetitions=2)
    made = find.create(resolved, SWEEP, "20261125T120000Z-cpu-1a2b3c4d")
    shards.divide(made, resolved, "rounds")
    return made


def distilbench(monkeypatch, capsys, *words: str) -> SimpleNamespace:
    """What the command line prints, and its exit code."""
    monkeypatch.setattr("sys.argv", ["distilbench", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    return SimpleNamespace(code=ended.value.code or 0, out=out, err=err)


def submitted(run: Run, *ids: tuple[str, str]) -> None:
    note = {"submitted": "2026-11-25T12:00:00Z", "parts": [0], "jobs": [{"name": n, "id": i} for n, i in ids]}
    paths.append_line(run.folder / "submissions.jsonl", paths.canonical_json(note).decode())


# ------------------------------------------------------------------ the chain


def test_the_chain_cannot_hang(run):
    chained = {job.name: job for job in jobs.chain(run, [0, 1, 2], jobs.Options(), ingest=True)}
    assert list(chained) == ["ingest", "measure", "gather", "analyse", "book", "account"]
    assert {name: job.after for name, job in chained.items()} == {
        "ingest": None,
        "measure": ("ingest", "afterok"),
        "gather": ("measure", "afterany"),
        "analyse": ("gather", "afterok"),
        "book": ("analyse", "afterok"),
        "account": ("book", "afterany"),
    }
    for name, job in chained.items():
        words = job.command(dict.fromkeys(chained, "7"))
        assert ("--kill-on-invalid-dep=yes" in words) == bool(job.after), name
        assert words[-1].endswith(".slurm")


def test_what_is_asked_for_reaches_the_right_jobs(run, monkeypatch, capsys):
    prepared_by_hand(run).save(run)
    asked = "--partition gpu --account acc --time 2:00:00 --mem 32G --cpus-per-task 16 --gres gpu:1 --constraint a100"
    asked += " --exclusive --throttle 4 --flags=--nice=5 --step-flags=--mem=1G --no-book --retry-oom --dry-run"
    said = distilbench(monkeypatch, capsys, "submit", "distilbert", "--resume", str(run.folder), *asked.split())
    assert said.code == 0
    script = {line.partition("=$(")[0]: line.split() for line in said.out.splitlines() if "=$(" in line}
    assert list(script)[:3] == ["measure", "gather", "analyse"]
    for word in (
        "--array=0-2%4", "--partition=gpu", "--account=acc", "--time=2:00:00", "--mem=32G", "--cpus-per-task=16",
        "--gres=gpu:1", "--constraint=a100", "--exclusive", "--nice=5", f"--job-name=measure-{run.run_id[-8:]}",
        "RETRY_OOM=1",
    ):  # fmt: skip
        assert word in script["measure"], word
    assert not any("dependency" in word for word in script["measure"])
    assert {"--partition=gpu", "--account=acc", "--mem=1G", "--dependency=afterany:$measure"} <= set(script["gather"])
    assert not any(word.startswith(("--gres", "--time", "--nice", "--array", "RETRY")) for word in script["gather"])
    assert "STEP=gather" in script["gather"]
    for words in list(script.values())[:3]:
        assert any(word.endswith(f"RUN={run.folder}") for word in words)


def test_where_all_is_measured_the_chain_begins_with_gathering(run):
    chained = jobs.chain(run, [], jobs.Options(book=False), ingest=False)
    assert [(job.name, job.after) for job in chained] == [
        ("gather", None), ("analyse", ("gather", "afterok")), ("account", ("analyse", "afterany")),
    ]  # fmt: skip
    jobs._require_room([])


def test_an_arrays_indexes_stay_below_the_clusters_limit(run, programs):
    programs.say("scontrol", "MaxArraySize            = 10")
    jobs._require_room([8, 9])
    with pytest.raises(ParameterError, match=r"11 tasks are more than this cluster's arrays hold .*--tasks 10 or less"):
        jobs._require_room([10])


def test_a_cluster_that_does_not_say_its_limit_is_asked_all_the_same(programs):
    programs.fail("scontrol", NO_CONTROLLER)
    jobs._require_room([10])


@pytest.mark.parametrize(
    ("numbers", "said"), [([0], "0"), ([3, 1, 2], "1-3"), ([0, 2, 3, 9], "0,2-3,9"), ([5, 7], "5,7")]
)
def test_array_indexes(numbers, said):
    assert jobs._ranges(numbers) == said


def test_a_dry_run_is_a_script(run, tmp_path):
    chained = jobs.chain(run, [0, 1], jobs.Options(), ingest=True)
    said = jobs.script_of(chained)
    head, *_ = said.split("\n# ----------------")
    assert "measure=$(" in head
    assert "--dependency=afterok:$ingest" in head
    assert "slurm/bench_distilbert.slurm" in said
    assert "watched() {" in said, "the scripts are shown too"
    file = tmp_path / "script.sh"
    file.write_text(head)
    subprocess.run(["bash", "-n", str(file)], check=True)


@pytest.mark.parametrize(("said", "code"), [("12;second\n", 0), ("Welcome\n12\n", 0), ("Welcome\n", 1)])
def test_a_dry_run_by_hand_takes_the_number_and_nothing_else(run, programs, tmp_path, said, code):
    programs.say("sbatch", said)
    head, *_ = jobs.script_of(jobs.chain(run, [0, 1], jobs.Options(), ingest=True)).split("\n# ----------------")
    done = subprocess.run(["bash", "-c", head], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert len(programs.asked("sbatch")) == (1 if code else 6), "without a number nothing follows"
    assert code or "--dependency=afterok:12 " in programs.asked("sbatch")[1]


@pytest.mark.parametrize("script", SHELL, ids=lambda file: file.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_only_options_of_2108_are_used(run):
    used = set()
    for script in SCRIPTS:
        used |= set(re.findall(r"^#SBATCH --([\w-]+)", script.read_text(), re.MULTILINE))
    of_all = jobs.flags(partition="p", account="a")
    of_tasks = jobs.flags(time="1", mem="1G", cpus_per_task=1, gres="gpu:1", constraint="c", exclusive=True)
    options = jobs.Options([*of_all, *of_tasks], of_all, 1)
    for job in jobs.chain(run, [0], options, ingest=True):
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
    assert jobs.site_variables() == {}
    site = tmp_path / "slurm" / "site.env"
    site.write_text('SBATCH_ACCOUNT=mine\nMODULES="python cuda"\n# a comment\n')
    assert jobs.site_variables() == {"SBATCH_ACCOUNT": "mine", "MODULES": "python cuda"}
    site.write_text('echo "Welcome to"\nSBATCH_ACCOUNT=mine\n')
    assert jobs.site_variables() == {"SBATCH_ACCOUNT": "mine"}, "what it prints is no variable"
    site.write_text("if\n")
    with pytest.raises(ParameterError, match=r"site\.env is no shell file"):
        jobs.site_variables()


# ------------------------------------------------------------------ submitting


def test_without_slurm_it_says_so(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SlurmError, match=r"sbatch, scancel not on the PATH: .* Without one: distilbench run"):
        jobs.submit(run, [], [0])
    assert job_states.settle(run) == []
    assert slurm.accounting(["1"], "JobID") is None
    submitted(run, ("measure", "1"))
    with pytest.raises(SlurmError, match="squeue not on the PATH"):
        job_states.living(run)


def the_chain(run: Run) -> list[jobs.Job]:
    return jobs.chain(run, [0, 1], jobs.Options(book=False), ingest=True)


BANNERS = "Welcome to the cluster.\nMaintenance on 2026-12-01; 12 nodes are down\n"


@pytest.mark.parametrize("said", ["12\n", f"{BANNERS}12\n", f"12\n{BANNERS}", "12", "12\r\n"])
def test_ids_are_noted_in_the_run(run, programs, said):
    programs.say("sbatch", said)
    programs.say("scancel")
    programs.say("scontrol", "MaxArraySize            = 1001\n")
    ids = jobs.submit(run, the_chain(run), [0, 1])
    assert ids == dict.fromkeys(("ingest", "measure", "gather", "analyse", "account"), "12")
    (told,) = job_states.submissions(run)
    assert told["parts"] == [0, 1]
    assert told["jobs"][0] == {"name": "ingest", "id": "12"}
    assert run.status["state"] == "pending"
    assert f"distilbench status {run.run_id}" in run.status["message"]
    assert "--dependency=afterok:12 " in programs.asked("sbatch")[1]
    assert not any("--clusters" in call for call in programs.asked("sbatch"))


@pytest.mark.parametrize("said", ["12;second\n", f"{BANNERS}12;second\n"])
def test_a_chain_on_one_of_several_clusters_is_asked_for_there(run, programs, said):
    programs.say("sbatch", said)
    programs.say("scancel")
    programs.say("scontrol", "")
    jobs.submit(run, the_chain(run), [0, 1])
    first, *others = programs.asked("sbatch")
    assert "--clusters" not in first
    assert all("--clusters=second" in call for call in others), "the others must find the job that they wait for"
    (told,) = job_states.submissions(run)
    assert told["jobs"][1] == {"name": "measure", "id": "12", "cluster": "second"}
    programs.list("squeue", "12_0|RUNNING|n1|0:07|None\n", "CLUSTER: second\\n")
    programs.list("sacct")
    assert job_states.cancel(run) == ["12_0"]
    assert job_states.jobs(run)[0]["state"] == "RUNNING"
    for name in ("squeue", "sacct", "scancel"):
        assert all("--clusters=second" in call for call in programs.asked(name)), name


def test_a_chain_across_clusters_is_refused(run, programs, monkeypatch):
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    real = slurm.answer

    def the_second_elsewhere(command, *more, **named):
        if command[0] == "sbatch" and len(programs.asked("sbatch")) == 1:
            programs.say("sbatch", "13;second\n")
        return real(command, *more, **named)

    monkeypatch.setattr(slurm, "answer", the_second_elsewhere)
    with pytest.raises(SlurmError, match="job measure, nothing is left in the queue: it went to cluster 'second'"):
        jobs.submit(run, the_chain(run), [0, 1])
    assert programs.asked("scancel") == [
        "scancel --clusters=second 13", "scancel 12", "scancel --name=measure-1a2b3c4d",
    ]  # fmt: skip
    assert job_states.submissions(run) == []


@pytest.mark.parametrize("said", ["", "Submitted batch job 12\n", BANNERS, "12\n13\n", "12; DROP\n", "slurm_12\n"])
def test_what_is_no_job_id_is_none(run, programs, said):
    programs.say("sbatch", said)
    programs.say("scancel")
    programs.say("scontrol", "")
    with pytest.raises(SlurmError, match=r"job ingest, nothing is left .*: of what it printed (no|more than)"):
        jobs.submit(run, the_chain(run), [0, 1])
    assert programs.asked("scancel") == ["scancel --name=ingest-1a2b3c4d"], "it may be in the queue all the same"
    assert job_states.submissions(run) == []


def test_a_full_run_of_code_in_no_commit_is_said_before_it_is_submitted(tmp_path, this_machine, programs, monkeypatch):
    said = []
    monkeypatch.setattr(find.environment, "git", lambda: {"sha": "1" * 40, "dirty": True, "reason": None})
    monkeypatch.setattr(find.log, "warning", lambda message, **_: said.append((message, programs.asked("sbatch"))))
    programs.say("sbatch", "12\n")
    programs.say("scontrol", "")
    for profile in ("ci", "full"):
        submission.new(
            small_design(tmp_path / "results", profile=profile, warmup_seconds=0.0), jobs.Options(book=False)
        )
    (warning,) = [words for words in said if "no commit" in words[0]]
    assert warning[0] == "warning: this code is in no commit (uncommitted changes), so the run cannot be published"
    assert len(warning[1]) == 5, "the chain of the first one alone"


def test_submit_hands_in_a_run_per_device_and_says_how_to_watch_it(
    programs, this_machine, tmp_path, monkeypatch, capsys
):
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    words = ["submit", "distilbert", "--profile", "ci", "--results-root", str(tmp_path / "results"), "--no-book"]
    assert distilbench(monkeypatch, capsys, *words, "--device", "cpu,cuda:0", "--json").code == 0
    runs = find.own_runs(tmp_path / "results")
    assert [made.config["parameters"]["device"] for made in runs] == ["cpu", "cuda:0"]
    said = distilbench(monkeypatch, capsys, *words, "--tasks", "1")
    newest = find.find("latest", tmp_path / "results")
    assert f"{newest.run_id}: 1 tasks\n" in said.out
    assert "ingest 12, measure 12, gather 12" in said.out
    assert said.out.endswith(f"distilbench status {newest.run_id}\n")
    programs.list("squeue", "12|PENDING||0:00|Dependency\n")
    assert "1 jobs of run" in distilbench(monkeypatch, capsys, "cancel", str(newest.folder)).out
    programs.list("squeue")
    assert distilbench(monkeypatch, capsys, "cancel", str(newest.folder)).out == "no job was left\n"
    for more, why in (
        (["--resume", "x", "--tasks", "2"], "is fixed"),
        (["--retry-oom"], "name the run with --resume"),
        (["--flags", "--comment='x"], 'error: --flags: no closing quotation in "--comment=\'x"\n'),
        (["--step-flags", "--comment='x"], "error: --step-flags: "),
    ):
        said = distilbench(monkeypatch, capsys, *words, *more)
        assert (said.code, why in said.err) == (1, True)


def refuse_the_third(programs, monkeypatch, how) -> None:
    real = slurm.answer

    def said(command, *more, **named):
        if command[0] == "sbatch" and len(programs.asked("sbatch")) == 2:
            how("sbatch")
        return real(command, *more, **named)

    monkeypatch.setattr(slurm, "answer", said)


def test_a_refusal_cancels_what_went_before(run, programs, monkeypatch):
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    refuse_the_third(programs, monkeypatch, lambda name: programs.fail(name, "sbatch: error: invalid partition"))
    with pytest.raises(SlurmError, match=r"refused job gather, nothing is left in the queue: .*invalid partition"):
        jobs.submit(run, the_chain(run), [0, 1])
    assert programs.asked("scancel") == ["scancel 12 12", "scancel --name=gather-1a2b3c4d"]
    assert job_states.submissions(run) == []


def test_an_sbatch_that_hangs_cancels_what_went_before(run, programs, monkeypatch):
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    monkeypatch.setattr(slurm, "TIMEOUT_S", 5.0)

    def hang(name: str) -> None:
        programs.hang(name)
        monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)

    refuse_the_third(programs, monkeypatch, hang)
    with pytest.raises(SlurmError, match=r"gather, .*sbatch did not answer within 0\.2 s"):
        jobs.submit(run, the_chain(run), [0, 1])
    assert "scancel 12 12" in programs.asked("scancel")


def test_what_could_not_be_cancelled_is_named(run, programs, monkeypatch):
    programs.say("sbatch", "12\n")
    programs.fail("scancel", "scancel: error: Unable to contact slurm controller", 8)
    programs.say("scontrol", "")
    refuse_the_third(programs, monkeypatch, lambda name: programs.fail(name, "Socket timed out"))
    with pytest.raises(SlurmError, match=r"the queue may still hold 12 12 gather-1a2b3c4d .*Unable to contact"):
        jobs.submit(run, the_chain(run), [0, 1])


def test_a_job_of_an_array_does_not_pass_its_own_number_on(run, programs, monkeypatch, tmp_path):
    """`distilbench submit` in a task of another array: the new jobs would take that one's number for theirs."""
    programs.say("sbatch", "12\n")
    programs.say("scancel")
    programs.say("scontrol", "")
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("exit", f"env >{tmp_path}/env\nexit"))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    jobs.submit(run, the_chain(run), [0, 1])
    assert "SLURM_ARRAY" not in (tmp_path / "env").read_text()


def test_energy_is_measured_in_every_cell_of_a_submission(tmp_path):
    best = small_design(tmp_path, passes=["timing", "energy"])
    assert best.params.energy_cells == "best"
    asked = design.for_jobs(best)
    assert asked.params.energy_cells == "all"
    assert asked.design_hash != best.design_hash
    assert design.for_jobs(small_design(tmp_path)).params.energy_cells == "best", "where none is measured"


def test_the_energy_of_the_best_cell_is_one_repetition_more(make_run):
    """Which cell that is shows only when all else is measured."""
    run = make_run(passes=["timing", "energy"], energy_cells="best", repetitions=3, control=False)
    cells = {cell.cell: cell for cell in design.cells_of(notebooks.resolve_again(run).params)}
    best = cells[paths.read_json(run.folder / "summary.json")["best_throughput"]["cell"]]
    (other,) = cells.keys() - {best.cell}
    done = {row["cell"]: row["done"] for row in submission.cells(run)}
    assert done == {best.cell: "3 of 4", other: "3 of 3"}
    synthetic.measure(run, best, "energy", 0)
    done = {row["cell"]: row["done"] for row in submission.cells(run)}
    assert done == {best.cell: "4 of 4", other: "3 of 3"}


# ------------------------------------------------------------------ watching


@pytest.mark.parametrize("banner", ["", "Welcome\\n12|13\\n"])
def test_states_come_from_the_queue_and_from_accounting(run, programs, banner):
    submitted(run, ("ingest", "11"), ("measure", "12"), ("gather", "13"))
    programs.list("squeue", "12_1|RUNNING|n1|0:07|None\n13|PENDING||0:00|Dependency\nBye|and|thanks|to|you\n", banner)
    programs.list(
        "sacct",
        "11|COMPLETED|n2|00:00:05|0:0\n12_0|OUT_OF_MEMORY|n2|00:00:09|0:125\n"
        "12_[2-3]|PENDING|None assigned|00:00:00|0:0\n12_[4-5]|CANCELLED by 0|None assigned|00:00:00|0:0\n",
        banner,
    )
    assert [tuple(job.values()) for job in job_states.jobs(run)] == [
        ("ingest", "11", "COMPLETED", "n2", "00:00:05", ""),
        ("measure", "12_0", "OUT_OF_MEMORY", "n2", "00:00:09", "exit code 0:125"),
        ("measure", "12_1", "RUNNING", "n1", "0:07", "None"),
        ("measure", "12_[4-5]", "CANCELLED by 0", "None assigned", "00:00:00", ""),
        ("gather", "13", "PENDING", "", "0:00", "Dependency"),
    ]


def test_a_banner_with_as_many_bars_is_no_job(programs):
    programs.list("squeue", "12_1|RUNNING|n1|0:07|None\nBye|and|thanks|to|you\n", "Welcome\\n")
    assert [row["JOBID"] for row in slurm.queued(["12"])] == ["12_1"]
    programs.list("sacct", "12_0|COMPLETED\nGood|bye\n")
    assert slurm.accounting(["12"], "JobID,State") == [{"JobID": "12_0", "State": "COMPLETED"}]


def test_what_is_read_has_its_times_in_utc_and_is_narrowed_by_no_variable_of_the_user(monkeypatch):
    for name in ("SQUEUE_STATES", "SACCT_FORMAT", "SCANCEL_NAME", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("TZ", "America/New_York")
    told = dict(line.partition("=")[::2] for line in slurm.answer(["env"]).splitlines())
    assert told["TZ"] == "UTC0"
    assert not {name for name in told if name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_TIME"))}


#: What SLURM 22.05 says when its controller or its database cannot be reached, and of a job that it has forgotten.
NO_CONTROLLER = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
NO_DATABASE = "sacct: error: Problem talking to the database: Connection refused"
GONE = "slurm_load_jobs error: Invalid job id specified"


def test_without_accounting_what_left_the_queue_has_ended(run, programs):
    submitted(run, ("measure", "12"))
    programs.fail("squeue", GONE)
    programs.fail("sacct", "Slurm accounting storage is disabled")
    (job,) = job_states.jobs(run)
    assert (job["state"], job["why"]) == ("ended", "the cluster keeps no accounts")
    programs.fail("sacct", NO_DATABASE)
    (job,) = job_states.jobs(run)
    assert (job["state"], job["why"]) == ("ended", f"sacct ended with code 1: {NO_DATABASE}")
    programs.list("sacct")
    (job,) = job_states.jobs(run)
    assert (job["state"], job["why"]) == ("ended", "not in the cluster's accounts (yet)")


def test_what_left_the_queue_has_ended_also_where_the_accounts_lag_behind(run, programs):
    submitted(run, ("measure", "12"))
    programs.list("squeue")
    programs.list("sacct", "12|RUNNING|n2|00:00:05|0:0\n")
    (job,) = job_states.jobs(run)
    assert (job["state"], job["why"]) == ("ended", "not in the cluster's accounts (yet)")


def test_of_several_jobs_one_that_is_forgotten_hides_no_other(run, programs, tmp_path):
    submitted(run, ("ingest", "11"), ("measure", "12"))
    programs.list("squeue", "12|RUNNING|n1|0:07|None\n")
    squeue = tmp_path / "bin" / "squeue"
    body = squeue.read_text().replace("#!/bin/sh", f"#!/bin/sh\ncase \"$*\" in *11*) echo '{GONE}' >&2; exit 1;; esac")
    squeue.write_text(body)
    assert job_states.living(run) == ["12"]


def silent_controller(programs, how: str, monkeypatch) -> None:
    """Every way in which squeue does not say what is in the queue."""
    if how == "hangs":
        programs.hang("squeue")
        monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)
    elif how == "fails":
        programs.fail("squeue", NO_CONTROLLER)
    else:
        programs.say("squeue", {"says nothing": "", "prints a banner": BANNERS}[how])


@pytest.mark.parametrize("how", ["fails", "hangs", "says nothing", "prints a banner"])
def test_a_controller_that_does_not_answer_has_not_said_that_all_ended(run, programs, monkeypatch, how):
    submitted(run, ("ingest", "11"), ("measure", "12"))
    programs.list("sacct", "11|COMPLETED|n2|00:00:05|0:0\n")
    programs.say("scancel")
    programs.say("sbatch", "13\n")
    silent_controller(programs, how, monkeypatch)
    with pytest.raises(SlurmError, match=r"squeue (ended with code 1|did not answer)|an answer that is not understood"):
        job_states.living(run)
    assert {job["state"] for job in job_states.jobs(run)} == {job_states.UNKNOWN}
    before = run.status
    with pytest.raises(SlurmError):
        job_states.cancel(run)
    with pytest.raises(SlurmError):
        submission.resume(notebooks.resolve_again(run), jobs.Options())
    assert programs.asked("sbatch") == [], "nothing is submitted twice"
    assert run.status == before


def test_status_says_that_it_does_not_know(run, programs, capsys, monkeypatch):
    submitted(run, ("ingest", "11"), ("measure", "12"))
    programs.fail("squeue", NO_CONTROLLER)
    for words in ([], ["--json"]):
        said = distilbench(monkeypatch, capsys, "status", str(run.folder), *words)
        assert said.code == 1
        assert "2 unknown" in said.out or '"state": "unknown"' in said.out
        assert "0 of 3" in said.out, "the run's own files are shown all the same"
        assert "the state of 2 jobs is not known, they may still wait or run: squeue ended with code 1" in said.err
        assert "ended\n" not in said.out


def test_what_the_user_usually_filters_does_not_hide_jobs(run, programs, monkeypatch, tmp_path):
    submitted(run, ("measure", "12"))
    programs.list("squeue", "12|PENDING||0:00|Priority\n")
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(squeue.read_text().replace("exit", f"env >{tmp_path}/env\nexit"))
    for name in ("SQUEUE_STATES", "SACCT_FEDERATION", "SCANCEL_STATE", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "relative")
    assert job_states.living(run) == ["12"]
    assert "relative" not in (tmp_path / "env").read_text()


def test_a_run_that_was_never_submitted_has_no_jobs(run):
    assert (job_states.jobs(run), job_states.living(run), job_states.submissions(run)) == ([], [], [])


def test_cancel(run, programs):
    submitted(run, ("ingest", "11"), ("measure", "12"))
    programs.list("squeue", "12_1|RUNNING|n1|0:07|None\n12_2|PENDING||0:00|Resources\n")
    programs.say("scancel")
    assert job_states.cancel(run) == ["12_1", "12_2"]
    assert programs.asked("scancel") == ["scancel 12"]
    assert run.status["state"] == "cancelled"
    run.set_status("running")
    programs.fail("scancel", "scancel: error: Kill job error on job id 12: Job/step already completing or completed")
    programs.list("squeue", "12_1|COMPLETING|n1|0:07|None\n")
    assert job_states.cancel(run) == ["12_1"]
    assert run.status["state"] == "cancelled", "what is ending by itself needs no cancelling"
    run.set_status("running")
    programs.list("squeue", "12_1|RUNNING|n1|0:07|None\n12_2|PENDING||0:00|Resources\n")
    programs.fail("scancel", "scancel: error: Access/permission denied")
    with pytest.raises(SlurmError, match=r"2 jobs of run .* are not cancelled: scancel ended with code 1: .*denied"):
        job_states.cancel(run)
    assert run.status["state"] != "cancelled" or "to resume" not in run.status["message"]


def test_what_is_still_queued_is_not_submitted_again(run, programs):
    submitted(run, ("measure", "12"))
    programs.list("squeue", "12|RUNNING|n1|0:07|None\n")
    resolved = notebooks.resolve_again(run)
    with pytest.raises(RunError, match=f"1 jobs of run {run.run_id} still wait or run: .*distilbench cancel"):
        submission.resume(resolved, jobs.Options())


def test_an_ordinary_run_is_not_submitted_again(tmp_path, this_machine):
    resolved = small_design(tmp_path / "results")
    run = studies.start(resolved)
    with pytest.raises(RunError, match="was not submitted: resume it with `distilbench run distilbert"):
        submission.resume(notebooks.resolve_again(run), jobs.Options())


def test_a_dry_run_makes_nothing(run, tmp_path):
    resolved = small_design(tmp_path / "others")
    said = submission.dry(resolved, jobs.Options(), "cells", None, False, False)
    assert "--array=0 " in said
    assert not (tmp_path / "others").exists()
    prepared_by_hand(run).save(run)
    said = submission.dry(notebooks.resolve_again(run), jobs.Options(), "rounds", None, True, False)
    assert "--array=0-2" in said
    assert "ingest=" not in said, "text and model are prepared"


# ------------------------------------------------------------------ afterwards


def test_what_scontrol_says_of_a_job():
    told = slurm_job.fields(JOB)
    assert told["NodeList"] == "n1"
    assert told["GRES"] == "gpu:1(IDX:0)"
    assert told["CPU_IDs"] == "0"
    assert told["OverSubscribe"] == "OK"
    assert told["CPUs/Task"] == "1"
    assert "Features" not in told, "(null) says nothing"
    assert not {"UserId", "GroupId", "Account", "WorkDir", "Command"} & told.keys()


def test_outside_a_job_there_is_none(programs, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm_job.read() == (None, None)
    monkeypatch.setenv("SLURM_JOB_ID", "34")
    assert slurm_job.read()[1].startswith("scontrol"), "not there, or out of order"
    programs.say("scontrol", JOB)
    assert slurm_job.read()[0]["JobId"] == "34"
    assert slurm_job.read()[1] is None
    for fail, why in ((programs.fail, "scontrol: down"), (programs.say, "scontrol did not describe job 34")):
        fail("scontrol", "down")
        assert slurm_job.read() == (None, why)
    programs.hang("scontrol")
    monkeypatch.setattr(slurm_job, "ANSWER_S", 0.2)
    job, why = slurm_job.read()
    assert job is None
    assert why == "scontrol did not answer within 0.2 s"


def test_a_task_of_an_array_records_its_own_allocation(programs, monkeypatch):
    """The last task has the array's number, for which SLURM describes every task."""
    others = [JOB.replace("JobId=34", f"JobId={n}").replace("NodeList=n1", "NodeList=n2") for n in (35, 36)]
    programs.say("scontrol", "\n".join([others[0], JOB, others[1]]) + "\n")
    for name, value in (("JOB_ID", "34"), ("ARRAY_JOB_ID", "34"), ("ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert slurm_job.read()[0]["NodeList"] == "n1"
    assert programs.asked("scontrol") == ["scontrol show job --details --oneliner 34_1"]


#: Another task of the array, which runs; a task's number is asked for, and all are answered.
NEIGHBOUR = "JobId=35 ArrayJobId=34 ArrayTaskId=0 JobState=RUNNING Restarts=0\n"
NEIGHBOURS_ROWS = "34_0|35|RUNNING|2026-11-25T12:00:01|Unknown\n34_[3-4]|34|PENDING|2026-11-25T12:00:05|Unknown\n"


def say_end(programs, now: str, accounts: str) -> None:
    programs.say("scontrol", f"{NEIGHBOUR}JobId=34 ArrayJobId=34 ArrayTaskId=2 {now}\n{NEIGHBOUR}")
    programs.list("sacct", NEIGHBOURS_ROWS + accounts.replace("34|", "34_2|34|"))


@pytest.fixture
def silent(run, monkeypatch) -> Run:
    """An attempt whose process was killed, in the first incarnation of the last task of array 34; begun at 12:00:10."""
    for name, value in (("JOB_ID", "34"), ("ARRAY_JOB_ID", "34"), ("ARRAY_TASK_ID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(environment, "now", lambda: "2026-11-25T12:00:10Z")
    with shards.start_attempt(run, 0) as attempt:
        pass
    shards.end(attempt, "running", "")
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
    say_end(programs, now, accounts)
    said = job_states.settle(run)
    assert shards.about(silent)["state"] == state
    assert bool(said) == (state != "running")
    assert job_states.settle(run) == [], "what is on record stays"
    assert {call.split()[-1] for call in programs.asked("scontrol")} == {"34_2"}, "not all tasks of the array"


def test_an_attempt_of_an_earlier_version_is_found_by_its_number(run, silent, programs):
    told = shards.about(silent)
    del told["slurm"]["array_job_id"]
    paths.write_json(silent.folder / "attempt.json", told)
    say_end(programs, "JobState=TIMEOUT Restarts=0", "34|TIMEOUT|2026-11-25T12:00:01|2026-11-25T12:10:01\n")
    job_states.settle(run)
    assert shards.about(silent)["state"] == "timeout"


def test_without_accounts_the_end_of_a_later_start_is_not_that_of_this_one(run, silent, programs):
    say_end(programs, "JobState=TIMEOUT Restarts=1", "")
    programs.fail("sacct", "Slurm accounting storage is disabled")
    job_states.settle(run)
    told = shards.about(silent)
    assert (told["state"], told["message"]) == ("failed", f"{shards.LOST}; SLURM says nothing")


@pytest.mark.parametrize("silence", ["scontrol fails", "scontrol hangs", "scontrol prints a banner", "sacct fails"])
def test_while_slurm_does_not_answer_nothing_is_put_on_record(run, silent, programs, monkeypatch, silence):
    say_end(programs, "JobState=RUNNING Restarts=1", "")
    if silence == "sacct fails":
        programs.fail("sacct", NO_DATABASE)
    elif silence == "scontrol fails":
        programs.fail("scontrol", NO_CONTROLLER)
    elif silence == "scontrol hangs":
        programs.hang("scontrol")
        monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)
    else:
        programs.say("scontrol", BANNERS)
    (said,) = job_states.settle(run)
    assert "how it ended is not known yet" in said
    assert shards.about(silent)["state"] == "running"


def test_a_job_that_the_controller_has_forgotten_is_in_the_accounts(run, silent, programs):
    say_end(programs, "", "34|OUT_OF_MEMORY|2026-11-25T12:00:01|2026-11-25T12:10:01\n")
    programs.fail("scontrol", GONE)
    job_states.settle(run)
    assert shards.about(silent)["state"] == "oom"


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
    shards.end(silent, "cancelled", "told to end at once (SIGTERM or Ctrl-C)")
    say_end(programs, "JobState=PENDING Restarts=1", accounts)
    job_states.settle(run)
    assert shards.about(silent)["state"] == state


def test_final_figures(run, programs):
    submitted(run, ("measure", "12"))
    row = "12_0|measure|main|COMPLETED|0:0|2026-11-25T12:00:01|2026-11-25T12:00:31|30|n1|1|cpu=1|00:25|{}|{}\n"
    programs.list("sacct", row.format("", "0") + row.format("141M", "") + row.format("141M", "5400"))
    told = paths.read_json(job_states.account(run))
    assert [job["consumed_energy_J"] for job in told["jobs"]] == [None, None, 5400]
    assert [job.get("reason") for job in told["jobs"]] == [job_states.NO_ENERGY, job_states.NO_ENERGY, None]
    assert "ConsumedEnergyRaw" in programs.asked("sacct")[0]
    before = (run.folder / "slurm_jobs.json").read_bytes()
    programs.fail("sacct", NO_DATABASE)
    with pytest.raises(SlurmError, match="Problem talking to the database"):
        job_states.account(run)
    assert (run.folder / "slurm_jobs.json").read_bytes() == before
    programs.list("sacct")
    assert paths.read_json(job_states.account(run))["reason"] == "sacct knows none of the jobs"
    programs.fail("sacct", "Slurm accounting storage is disabled")
    assert paths.read_json(job_states.account(run))["reason"] == "the cluster keeps no accounts"


def test_accounts_that_cannot_be_read_keep_no_results_from_their_place(run, programs, monkeypatch, capsys):
    submitted(run, ("measure", "12"))
    programs.fail("sacct", NO_DATABASE)
    monkeypatch.setenv("RESULTS_DEST", "there")
    monkeypatch.setattr(push, "push", lambda run: (7, "there"))
    said = distilbench(monkeypatch, capsys, "job", "account", str(run.folder))
    assert (said.code, said.out.strip()) == (1, "7 files are in there, equal by checksum")
    assert "Problem talking to the database" in said.err


def test_a_program_that_does_not_answer(programs, monkeypatch):
    programs.hang("squeue")
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)
    with pytest.raises(SlurmError, match=r"squeue did not answer within 0\.2 s"):
        slurm.answer(["squeue"])
    with pytest.raises(SlurmError, match="nowhere cannot be started: No such file"):
        slurm.answer(["nowhere"])


# ------------------------------------------------------------------ inside a job


@pytest.fixture
def in_a_job(tmp_path, programs, monkeypatch) -> Path:
    """A folder to submit from, in which `setup.sh` can be sourced; what waits does not."""
    site = tmp_path / "site"
    (site / "slurm").mkdir(parents=True)
    shutil.copy(paths.repo_root() / "slurm" / "setup.sh", site / "slurm")
    programs.say("distilbench")
    programs.say("sleep")
    programs.say("scontrol")
    return site


def watched(site: Path, code: int, **variables: str) -> subprocess.CompletedProcess:
    """A batch script whose work ends with that code."""
    script = f"set -euo pipefail; source slurm/setup.sh; work() {{ return {code}; }}; watched work"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    variables |= {"HOME": str(site), "DISTILBENCH_BIN": str(site.parent / "bin")}
    return subprocess.run(["bash", "-c", script], cwd=site, env=bare | variables, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"SLURM_JOB_ID": "34"}, "34"),
        ({"SLURM_JOB_ID": "35", "SLURM_ARRAY_JOB_ID": "33", "SLURM_ARRAY_TASK_ID": "2"}, "33_2"),
        ({"SLURM_JOB_ID": "33", "SLURM_ARRAY_JOB_ID": "33", "SLURM_ARRAY_TASK_ID": "3"}, "33_3"),  # the last one
    ],
)
def test_a_job_with_work_left_puts_itself_back_and_no_other(in_a_job, programs, monkeypatch, variables, name):
    done = watched(in_a_job, 75, **variables)
    assert done.returncode == 0, done.stderr
    assert programs.asked("scontrol") == [f"scontrol requeue {name}"]
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert slurm_job.name(variables["SLURM_JOB_ID"]) == name, "the package says the same"


def test_a_job_takes_names_and_texts_for_utf8_whatever_its_locale_is(in_a_job):
    ask = f"source slurm/setup.sh >&2; {sys.executable} -c 'import sys; print(sys.getfilesystemencoding())'"
    env = os.environ | {"DISTILBENCH_BIN": str(in_a_job.parent / "bin"), "HOME": str(in_a_job)}
    env |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(["bash", "-c", ask], cwd=in_a_job, env=env, capture_output=True, text=True)
    assert done.stdout == "utf-8\n", done.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_without_work_left_is_not_put_back(in_a_job, programs, code):
    assert watched(in_a_job, code, SLURM_JOB_ID="34").returncode == code
    assert programs.asked("scontrol") == []


def test_a_controller_that_does_not_answer_is_asked_again_before_a_job_gives_up(in_a_job, programs):
    programs.fail("scontrol", NO_CONTROLLER)
    done = watched(in_a_job, 75, SLURM_JOB_ID="34")
    assert done.returncode == 75, "it does not end well with work left"
    assert len(programs.asked("scontrol")) == 4
    assert programs.asked("sleep") == ["sleep 5", "sleep 30", "sleep 60"]
    assert "submit --resume" in done.stderr


def test_a_job_whose_failure_no_other_would_name_notes_it_in_the_run(run, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise SlurmError("the text is gone\nfor good")

    monkeypatch.setattr(notebooks, "execute", fail)
    said = distilbench(monkeypatch, capsys, "job", "ingest", str(run.folder))
    assert (said.code, said.err) == (1, "error: the text is gone\nfor good\n")
    assert (run.status["state"], run.status["message"]) == ("failed", "ingest: the text is gone")
    said = distilbench(monkeypatch, capsys, "job", "gather", str(run.folder))
    assert "no part of it began; before: ingest: the text is gone" in said.err
    assert run.status["message"].startswith("gather: no part of it began; before: ingest")


def test_cells_of_a_run(run):
    assert submission.cells(run) == [
        {"cell": f"sdpa-float32-fixed-16-b00{size}", "state": "pending", "done": "0 of 3"} for size in (1, 2)
    ]
    assert Path(run.folder).is_dir()


def test_a_cell_that_lacked_memory_says_so(run):
    cell = design.cells_of(notebooks.resolve_again(run).params)[0]
    told = {"study": "distilbert", "pass": "timing", "repetition": 0, "status": "oom", "error": "too big"}
    synthetic.commit(run, Repetition(**cell.model_dump(), **told, started="2026-11-22T14:15:00Z", seconds=1))
    assert submission.cells(run)[0] == {"cell": cell.cell, "state": "oom", "done": "1 of 3"}


def test_the_script_of_a_dry_run_stands_paths_with_spaces(run, tmp_path, monkeypatch):
    root = tmp_path / "a folder" / "with $HOME"
    shutil.copytree(paths.repo_root() / "slurm", root / "slurm")
    (root / "params").mkdir()
    shutil.copyfile(paths.repo_root() / "params" / "studies.yml", root / "params" / "studies.yml")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(root))
    said = jobs.script_of(jobs.chain(run, [0, 1], jobs.Options(), ingest=True)).split("\n# ------")[0]
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
