"""Runs on a real SLURM cluster: submitted, interrupted in every way, gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import checkouts
import psutil
import pytest
import torch
import toy_kind
import training_rows
from cluster import Cluster, free_ports, missing
from conftest import IN_CI
from measuring import checkout_with_notebooks, finished_once, is_a_fork, stand_in_everywhere
from waiting import ended, wait_for

from distilbench import paths
from distilbench.errors import SlurmError
from distilbench.execution import job_states, notebooks, slurm
from distilbench.harness import shards
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.measure import design
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet
from distilbench.runs.states import FINAL
from distilbench.training import checkpoint

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]
BIN, ROOT = Path(sys.executable).parent, paths.repo_root()
#: Two cells, timing only: what each repetition costs is the start of its process.
SMALL = ["--profile", "ci", "-p", "passes", "timing", "-p", "length_policies", "fixed-16"]
TASK = ["--mem", "900M", "--cpus-per-task", "1", "--time", "10"]
STEPS = "--mem=900M --cpus-per-task=1"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cores each, for all tests here."""
    if why := missing():
        assert not IN_CI, f"no SLURM cluster in CI: {why}"
        pytest.skip(f"no SLURM cluster here: {why}")
    folder = Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))  # short: a socket's path has at most 107 characters
    made = Cluster(folder / "c")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout on a disk that all nodes share, and this process as a login node."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("params", "notebooks", "tests", "book", "_toc.yml", "_config.yml", "constraints.txt"):
        (root / name).symlink_to(paths.repo_root() / name)
    shutil.copytree(paths.repo_root() / "slurm", root / "slurm", ignore=shutil.ignore_patterns("site.env"))
    (root / "slurm_logs").mkdir()
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    monkeypatch.setenv("DISTILBENCH_ROOT", str(root))
    monkeypatch.setenv("DISTILBENCH_BIN", str(BIN))
    monkeypatch.chdir(root)
    yield root
    if left := cluster.queue():
        cluster.run("scancel", "--user=root")
        cluster.wait(lambda: not cluster.queue(), f"the queue is empty; before: {left}")
    for name in cluster.names:
        if not cluster.is_on(name):
            cluster.power_on(name)
    cluster.wait(lambda: cluster.idle(), "all nodes are idle")


@pytest.fixture
def stand_in(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of all jobs pretends to measure, for a few seconds of which no core has any work.

    The notebooks before and after it, which are those of `test_the_whole_chain`, say nothing.
    """
    silent = {"01_ingest": "", "02_benchmark": ROOT / "notebooks" / "02_benchmark.ipynb", "03_analyse": ""}
    (site / "notebooks").unlink()
    (site / "notebooks").symlink_to(checkout_with_notebooks(site / "silent", **silent) / "notebooks")
    for name, value in stand_in_everywhere(site / "stand-in").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STAND_IN_SECONDS", "3")


def distilbench(*words: str, code: int = 0) -> str:
    """What the command line prints."""
    done = subprocess.run([str(BIN / "distilbench"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def submit(*words: str) -> Run:
    """A run of the small design, submitted."""
    distilbench("submit", "distilbert", *SMALL, *TASK, "--step-flags", STEPS, "--no-book", *words)
    return find.find("latest")


def ids(run: Run, name: str) -> str:
    """The newest job of that name."""
    return [number for number, called in job_states.job_ids(run).items() if called == name][-1]


def logs(root: Path) -> str:
    """All that the jobs printed."""
    return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in sorted((root / "slurm_logs").iterdir()))


def finish(cluster: Cluster, site: Path, run: Run) -> None:
    """Waits for the whole chain, and checks that it came to a good end."""
    cluster.wait_until_gone(*job_states.job_ids(run))
    assert run.status["state"] == "ok", f"{run.status}\n{logs(site)}"
    done = [record.key for record in run.repetitions() if record.status in FINAL - {"oom"}]
    planned = [(cell.cell, where, number) for cell, where, number in design.plan(notebooks.resolve_again(run))]
    assert sorted(done) == sorted(planned), "every repetition once"
    assert verify.problems(run.folder) == []


def first_record(run: Run) -> Callable[[], object]:
    """Whether any part has committed something."""
    return lambda: any(attempt.raw.is_file() for attempt in shards.attempts(run))


# ------------------------------------------------------------------ the chain


def test_the_whole_chain(cluster, site, tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.mkdir()
    (site / "slurm" / "site.env").write_text(f"RESULTS_DEST={archive}\nMODULES=python\n")
    small = ["--profile", "ci", "--batch-sizes", "4", "-p", "repetitions", "1"]
    distilbench("submit", "distilbert", *small, *TASK, "--step-flags", STEPS, "--no-book", "--gres", "gpu:1")
    run = find.find("latest")
    finish(cluster, site, run)

    env = paths.read_json(run.folder / "env.json")
    assert env["slurm_job"]["NodeList"] in env["nodes"], "provenance is that of the nodes, not of the login node"
    assert env["slurm_job"]["NumCPUs"] == "1"
    assert env["slurm_job"]["OverSubscribe"] == "OK", "shared: an exclusive node says NO"
    assert env["slurm_job"]["GRES"].startswith("gpu"), "which GPU was bound"
    assert env["visible_gpus"] == "0"
    assert {record.num_threads for record in run.measured()} == {1}, "threads from the allocation"
    assert env["slurm"]["SLURM_ARRAY_TASK_ID"]
    assert sorted(f.name for f in (run.folder / "notebooks").iterdir()) == [
        "01_ingest.ipynb", "02_benchmark.ipynb", "03_analyse.ipynb",
    ]  # fmt: skip
    assert (run.folder / "plots").is_dir()
    accounts = paths.read_json(run.folder / "slurm_jobs.json")["jobs"]
    states = {row["JobID"]: row["State"] for row in accounts}
    assert states[f"{ids(run, 'measure')}_0"] == "COMPLETED"
    assert {row["consumed_energy_J"] for row in accounts} == {None}, "0 is not measured"
    assert all(row["reason"] for row in accounts)
    copied = archive / "distilbert" / run.run_id
    assert (copied / "raw.jsonl").read_bytes() == run.raw.read_bytes()

    before = run.raw.read_bytes()
    distilbench("job", "gather", run.run_id)
    assert run.raw.read_bytes() == before, "gathered twice, there once"
    said = distilbench("job", "measure", run.run_id, "--part", "0")
    assert "repetitions are done" in said
    assert run.raw.read_bytes() == before
    assert "COMPLETED" in distilbench("status", run.run_id)
    assert "nothing is missing" in distilbench("submit", "distilbert", "--resume", run.run_id, code=1)


@pytest.mark.slow  # what the jobs call, and what would be submitted: tests/project/test_add_a_kind.py
def test_the_chain_of_another_kind_of_measurement(cluster, site, tmp_path, monkeypatch):
    """The toy kind of CONTRIBUTING.md, in a copy of the checkout that all nodes share."""
    root = checkouts.whole(tmp_path / "copy")
    toy_kind.follow(root)
    monkeypatch.setenv("DISTILBENCH_ROOT", str(root))
    monkeypatch.setenv("PYTHONPATH", checkouts.python_path(root)["PYTHONPATH"])
    monkeypatch.chdir(root)
    (root / "slurm_logs").mkdir()
    words = ["--profile", "ci", *TASK, "--step-flags", STEPS, "--no-book", "--json"]
    (made,) = json.loads(distilbench("submit", "copies", *words))
    cluster.wait_until_gone(*made["jobs"].values())
    folder = Path(made["folder"])
    assert paths.read_json(folder / "status.json")["state"] == "ok", logs(root)
    lines = [json.loads(line) for line in (folder / "copies.jsonl").read_text().splitlines()]
    keys = sorted((line["cell"], line["repetition"]) for line in lines)
    assert keys == [("1MiB", 0), ("1MiB", 1), ("2MiB", 0), ("2MiB", 1)], "every repetition once"
    assert sorted(file.name for file in (folder / "notebooks").iterdir()) == ["04_copy.ipynb", "05_copies.ipynb"]
    distilbench("verify", "run", made["run_id"])


@pytest.mark.slow
def test_the_chain_of_a_training(cluster, site):
    """One process and two, under torchrun on a node, each configuration a task of its own."""
    steps = "--mem=900M --cpus-per-task=1"
    words = ["--profile", "ci", "--mem", "2500M", "--cpus-per-task", "2", "--time", "10", "--step-flags", steps]
    (made,) = json.loads(distilbench("submit", "agnews", *words, "--split", "cells", "--no-book", "--json"))
    cluster.wait_until_gone(*made["jobs"].values())
    run = Run(Path(made["folder"]))
    assert run.status["state"] == "ok", f"{run.status}\n{logs(site)}"
    assert {record.cell for record in run.measured()} == {"p1-b8", "p2-strong-b4"}
    assert verify.problems(run.folder) == []


def test_status_shows_jobs_and_cells(cluster, site, stand_in, monkeypatch):
    """Of jobs on a cluster that is chosen by name; while it does not answer, nothing is said of them."""
    monkeypatch.setenv("STAND_IN_SECONDS", "600")  # none is done before it is cancelled
    monkeypatch.setenv("SBATCH_CLUSTERS", "distilbench")
    run = submit("--throttle", "1")
    monkeypatch.delenv("SBATCH_CLUSTERS")
    assert {job["cluster"] for told in job_states.submissions(run) for job in told["jobs"]} == {"distilbench"}
    said = distilbench("status", run.run_id)
    assert "ingest" in said
    assert "PENDING" in said
    assert "0 of 2" in said
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SLURM_CONF", str(without_controller(cluster, site)))
        elsewhere.setattr(slurm, "on", lambda cluster: [])  # by its name it would be found all the same
        with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
            job_states.cancel(run)
        assert {job["state"] for job in job_states.jobs(run)} == {job_states.UNKNOWN}
    assert run.status["state"] != "cancelled"
    assert "still wait or run" in distilbench("submit", "distilbert", "--resume", run.run_id, code=1)
    said = distilbench("cancel", run.run_id)
    assert "cancelled; to resume: distilbench submit distilbert --resume" in said
    cluster.wait_until_gone(*job_states.job_ids(run))
    assert run.status["state"] == "cancelled"


def without_controller(cluster: Cluster, site: Path) -> Path:
    """A configuration in which nobody listens where the controller should."""
    file = site / "nobody.conf"
    conf = (cluster.root / "slurm.conf").read_text()
    file.write_text(re.sub("SlurmctldPort=.*", f"SlurmctldPort={free_ports(1)[0]}\nMessageTimeout=5", conf))
    return file


def test_a_cancelled_run_goes_on(cluster, site, stand_in, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "30")  # longer than it takes to cancel, so that something is left
    run = submit("-p", "batch_sizes", "1")
    cluster.wait(first_record(run), "a first repetition")
    distilbench("cancel", run.run_id)
    cluster.wait_until_gone(*job_states.job_ids(run))
    recorded = {shards.about(attempt)["state"] for attempt in shards.attempts(run)}
    monkeypatch.setenv("STAND_IN_SECONDS", "3")
    distilbench("submit", "distilbert", "--resume", run.run_id, *TASK, "--step-flags", STEPS, "--no-book")
    assert recorded | {shards.about(a)["state"] for a in shards.attempts(run)} <= {"ok", "cancelled", "running"}
    finish(cluster, site, run)


def test_two_submissions_at_once_are_two_runs(cluster, site, stand_in):
    """With jobs of their own. How such a run is measured is what the other tests are about."""
    later = "--begin=now+1hour"  # the chain waits until it is cancelled
    command = [
        str(BIN / "distilbench"), "submit", "distilbert", *SMALL, *TASK, "--tasks", "1", "--flags", later,
        "--step-flags", f"{STEPS} {later}", "--no-book", "-p", "repetitions", "1", "-p", "batch_sizes", "1",
    ]  # fmt: skip
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        ended(process)
    assert [process.returncode for process in started] == [0, 0]
    found = find.all_runs(paths.results_root() / "distilbert")
    assert len(found) == 2
    jobs = [set(job_states.job_ids(run)) for run in found]
    assert len(jobs[0]) == len(jobs[1]) > 1
    assert not jobs[0] & jobs[1]
    assert {job.partition("_")[0] for job, *_ in cluster.queue()} == jobs[0] | jobs[1]
    distilbench("cancel", found[0].run_id)
    cluster.wait(lambda: {job.partition("_")[0] for job, *_ in cluster.queue()} <= jobs[1], "those of one run end")
    assert [run.status["state"] == "cancelled" for run in found] == [True, False]


def test_a_failed_ingest_ends_the_chain(cluster, site):
    run = submit("-p", "data_path", "nowhere.tsv")
    cluster.wait_until_gone(*job_states.job_ids(run))
    assert run.status["state"] == "failed"
    assert "ingest" in run.status["message"]
    assert "nowhere.tsv" in run.status["message"]
    cluster.wait(
        lambda: "ended" not in {job["state"] for job in job_states.jobs(run)}, "the accounts, which lag behind"
    )
    states = {job["name"]: job["state"].split(" ")[0] for job in job_states.jobs(run)}
    assert states["ingest"] == "FAILED"
    assert states["measure"] == states["analyse"] == "CANCELLED", "they do not wait for ever"
    assert states["gather"] == "FAILED"
    assert states["account"] == "COMPLETED"


# ------------------------------------------------------------------ what clusters do


def measuring_on(cluster: Cluster, run: Run, node: str) -> str | None:
    """A job on that node whose first worker is at its work, and has not committed anything."""
    here = [job for job, state, at in cluster.raw_queue() if (state, at) == ("RUNNING", node)]
    for attempt in shards.attempts(run):
        told, job = shards.about(attempt), attempt.folder / "work" / "job.json"
        at_work = told["state"] == "running" and job.is_file() and not attempt.raw.is_file()
        if at_work and told["slurm"]["job_id"] in here:
            return told["slurm"]["job_id"]
    return None


def worker_of(job: str) -> psutil.Process | None:
    """The measuring process of that job, by its control group: a fresh one, or the fork of another one."""
    for listed in Path("/sys/fs/cgroup/memory").glob(f"slurm_*/uid_0/job_{job}/step_batch/**/cgroup.procs"):
        for pid in map(int, listed.read_text().split()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                command = process.cmdline() or [""]
                if command[-1].endswith("/job.json") or (command[-1] == "-" and is_a_fork(process)):
                    return process
    return None


def kill_for_memory(job: str, worker: psutil.Process) -> None:
    """Another process in the job's control group takes memory until the kernel ends the worker, which it is told to.

    With the job, SLURM ends that other process too.
    """
    worker.suspend()  # so that it cannot finish before
    Path(f"/proc/{worker.pid}/oom_score_adj").write_text("1000")
    (group,) = Path("/sys/fs/cgroup/memory").glob(f"slurm_*/uid_0/job_{job}/step_batch")
    code = (
        "import os, sys, time\nopen(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\nheld = []\n"
        "while os.path.exists('/proc/' + sys.argv[2] + '/exe'):\n"
        "    held.append(b'x' * (8 << 20))\n    time.sleep(0.01)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(group), str(worker.pid)], check=False)
    wait_for(lambda: not worker.is_running(), f"the kernel ended the worker, not the other process ({done})")


def test_usr1_stops_after_the_repetition_and_the_job_goes_on(cluster, site, stand_in):
    """By hand, in one job; the run equals an undisturbed one in cells, repetitions and design."""
    variables = {"PROFILE": "ci", "BATCH_SIZES": "1,2,4", "REPETITIONS": "1"}
    variables |= {"DISTILBENCH_RESULTS": str(paths.results_root())}
    more = ["-p", "passes", "timing", "-p", "length_policies", "fixed-16"]
    command = ["sbatch", "--parsable", "--mem=1500M", "--cpus-per-task=2", "slurm/bench_distilbert.slurm", *more]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    job = done.stdout.strip()
    folder = paths.results_root() / "distilbert" / f"slurm-{job}-cpu"
    cluster.wait(lambda: (folder / "raw.jsonl").is_file(), "a first repetition")
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    run = Run(folder)
    cluster.wait(lambda: run.status["state"] == "preempted", "the run says that it was stopped")
    stopped_with = len(run.repetitions())
    cluster.wait_until_gone(job)
    assert run.status["state"] == "ok", logs(site)
    resolved = notebooks.resolve_again(run)
    assert finished_once(run, resolved)
    assert stopped_with < len(run.repetitions()) == 3
    assert {record.attempt for record in run.repetitions()} == {1}, "the current repetition was waited for"
    assert "back into the queue" in logs(site)
    assert "start 2 on" in logs(site), "the log was appended to"
    undisturbed = find.create(resolved, SWEEP, "undisturbed")
    assert undisturbed.config["design_hash"] == run.config["design_hash"]
    planned = {(cell.cell, where, repetition) for cell, where, repetition in design.plan(resolved)}
    assert {record.key for record in run.measured()} == planned


#: Each task says what it is; the last one, which has the array's own number, stops once with work left.
STAND_IN = """#!/bin/bash
cd "$SLURM_SUBMIT_DIR"
@PYTHON@ -c '
import json, os
from distilbench.machine import slurm_job
job = os.environ["SLURM_JOB_ID"]
steps = slurm_job.answer("sstat", "-a", "-n", "-P", "-j", slurm_job.name(job), "-o", "JobID,ConsumedEnergyRaw")
slurm_job.consumed_energy_J(steps, job)
told = {"id": job, "node": os.environ["SLURMD_NODENAME"], "recorded": slurm_job.read()[0]}
print(json.dumps(told))' >told-$SLURM_ARRAY_TASK_ID.part && mv told-$SLURM_ARRAY_TASK_ID.part told-$SLURM_ARRAY_TASK_ID
echo "start ${SLURM_RESTART_COUNT:-0}" >>starts-$SLURM_ARRAY_TASK_ID
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 0
while [ "$(ls told-? | wc -l)" -lt 4 ]; do sleep 0.2; done
[ "$SLURM_ARRAY_TASK_ID" != 3 ] || exit 75
while [ ! -e go ]; do sleep 0.2; done
"""


def test_the_last_task_of_an_array_speaks_for_itself_alone(cluster, site, monkeypatch):
    """It is put back, and the others go on undisturbed; each records its own allocation."""
    (site / "bin").mkdir()
    (site / "bin" / "distilbench").write_text(STAND_IN.replace("@PYTHON@", sys.executable))
    (site / "bin" / "distilbench").chmod(0o755)
    monkeypatch.setenv("DISTILBENCH_BIN", str(site / "bin"))
    monkeypatch.setenv("RUN", "x")
    small = ["--mem=700M", "--cpus-per-task=1", "--array=0-3"]
    array = cluster.run("sbatch", "--parsable", *small, "slurm/bench_distilbert.slurm", env=os.environ).strip()
    cluster.wait(lambda: (site / "starts-3").exists(), "the last one has begun")
    cluster.wait(lambda: [f"{array}_3", "PENDING", ""] in cluster.queue(array), "it waits again")
    assert sorted(row[:2] for row in cluster.queue(array))[:3] == [[f"{array}_{task}", "RUNNING"] for task in range(3)]
    (site / "go").touch()
    cluster.wait_until_gone(array)
    starts = [(site / f"starts-{task}").read_text().split("\n")[:-1] for task in range(4)]
    assert starts == [["start 0"]] * 3 + [["start 0", "start 1"]], logs(site)
    cluster.wait(lambda: sorted(cluster.states(array)) == ["COMPLETED"] * 4 + ["REQUEUED"], "accounting has their ends")
    for task in range(4):
        told = paths.read_json(site / f"told-{task}")
        recorded = told["recorded"]
        assert (recorded["JobId"], recorded["ArrayTaskId"]) == (told["id"], str(task))
        assert recorded["BatchHost"] == told["node"]


@pytest.mark.parametrize("tasks", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_a_power_loss_and_a_memory_kill(cluster, site, stand_in, monkeypatch, tasks):
    """What is missing is submitted again; every cell is measured once, and nothing is lost.

    Four tasks are at work at once, whether six or twelve are to be done.
    """
    if not cluster.kills_by_kernel:
        pytest.skip("this kernel's control groups are of version 2: SLURM 22.05 kills for memory by polling there")
    monkeypatch.setenv("STAND_IN_SECONDS", "8")  # to be found at work also where each question to SLURM takes seconds
    first, second = cluster.names
    sizes = [3, 5, 6, 7, 9, 11, 12, 13, 14, 17, 18, 19][:tasks]
    planned = ["-p", "batch_sizes", str(sizes), "-p", "samples_per_cycle", "152", "-p", "repetitions", "1"]
    run = submit(*planned, "--split", "cells")
    assert len(shards.of(run, notebooks.resolve_again(run))) == tasks
    measure = ids(run, "measure")
    job, worker = cluster.wait(
        lambda: (job := measuring_on(cluster, run, first)) and (worker := worker_of(job)) and (job, worker),
        "a task that measures on the first node",
    )  # fmt: skip
    kill_for_memory(job, worker)
    cluster.wait(lambda: job not in [row[0] for row in cluster.raw_queue()], "the task that lacks memory ended")
    cluster.wait(lambda: measuring_on(cluster, run, second), "a task that measures on the second")
    cluster.lose(second)
    cluster.power_on(second)
    cluster.wait_until_gone(*job_states.job_ids(run))
    cells = run.status["cells"]
    assert set(cells.values()) == {"ok", "oom"}, f"{cells}\n{logs(site)}"
    assert list(cells.values()).count("oom") == 1
    assert "NODE_FAIL" in cluster.states(measure)
    assert "OUT_OF_MEMORY" in cluster.states(measure)
    told = [shards.about(attempt) for attempt in shards.attempts(run)]
    assert "failed" in {one["state"] for one in told if one["node"] == second}, f"lost: {told}\n{logs(site)}"
    assert len({record.key for record in run.measured()}) == tasks - 1
    before = run.raw.read_text()

    again = ["--mem", "2500M", "--cpus-per-task", "1", "--step-flags", STEPS, "--no-book"]
    distilbench("submit", "distilbert", "--resume", run.run_id, "--retry-oom", *again)
    assert len(job_states.submissions(run)[-1]["parts"]) == 1, "only what is missing"
    finish(cluster, site, run)
    assert run.raw.read_text().startswith(before), "nothing that was measured is measured again"
    assert set(run.status["cells"].values()) == {"ok"}


@pytest.mark.slow
def test_a_preempted_job_goes_on(cluster, site, stand_in):
    run = submit("--partition", "low", f"--flags=--nodelist={cluster.names[0]}", "--tasks", "1")
    cluster.wait(first_record(run), "a first repetition")
    urgent = cluster.run(
        "sbatch", "--parsable", "-w", cluster.names[0], "-p", "main", "--exclusive", "--wrap", "sleep 1"
    ).strip()
    cluster.wait(lambda: not cluster.queue(urgent), "the urgent job done")
    finish(cluster, site, run)
    assert "PREEMPTED" in cluster.states(ids(run, "measure"))
    assert {shards.about(attempt)["state"] for attempt in shards.attempts(run)} == {"preempted", "ok"}


@pytest.mark.slow
def test_a_real_time_limit_leaves_a_run_that_goes_on(cluster, site):
    """Without the signal: the task is killed at its limit, which is on record."""
    run = submit("--tasks", "1", "--flags=--signal=B:URG@10", "--time", "1", "-p", "min_seconds", "40.0", "-p",
                 "max_seconds", "40.0")  # fmt: skip
    cluster.wait_until_gone(*job_states.job_ids(run))
    assert run.status["state"] == "failed"
    assert "TIMEOUT" in cluster.states(ids(run, "measure"))
    assert "timeout" in run.status["cells"].values()
    distilbench("submit", "distilbert", "--resume", run.run_id, *TASK, "--step-flags", STEPS, "--no-book")
    finish(cluster, site, run)


@pytest.mark.slow
def test_two_hundred_tasks(cluster, site, stand_in, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0")
    sizes, lengths = [*range(1, 50, 2)], [f"fixed-{length}" for length in range(16, 24)]
    run = submit(
        "-p", "batch_sizes", str(sizes), "-p", "length_policies", f"[{', '.join(lengths)}]", "-p", "samples_per_cycle",
        "400", "-p", "repetitions", "1", "-p", "warmup_cycles", "1", "-p", "min_cycles", "1", "--split", "cells",
    )  # fmt: skip
    assert len(shards.of(run, notebooks.resolve_again(run))) == 200
    cluster.wait_until_gone(*job_states.job_ids(run))
    finish(cluster, site, run)


# ------------------------------------------------------------------ scripts


def test_any_notebook_with_any_parameters(cluster, site):
    own = checkout_with_notebooks(site / "own", mine="print('of', study)")
    command = [
        "sbatch", "--parsable", "--wait", "--mem=1500M", "--cpus-per-task=2", "slurm/notebook.slurm",
        str(own / "notebooks" / "mine.ipynb"), "-p", "study", "somebody",
    ]  # fmt: skip
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    executed = site / "slurm_logs" / f"mine_{job}.ipynb"
    assert '"exception": null' in executed.read_text().replace('"exception": false', '"exception": null')
    assert "of somebody" in (site / "slurm_logs" / f"notebook_{job}.out").read_text() + logs(site)


def test_two_nodes_find_each_other(cluster, site):
    env = os.environ | {"GLOO_SOCKET_IFNAME": "eth0"}
    command = ["sbatch", "--parsable", "--mem=1500M", "--cpus-per-task=1", "slurm/allreduce.slurm"]
    job = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()
    cluster.wait_until_gone(job)
    said = (site / "slurm_logs" / f"allreduce_{job}.out").read_text()
    for name in cluster.names:
        assert f"of 2 on {name}: sum 3, wanted 3" in said, logs(site)
    cluster.wait(lambda: cluster.states(job) == ["COMPLETED"], "accounting has its end")


def test_two_nodes_train_together_and_go_on_after_a_lost_node(cluster, site):
    """Put back before a time limit, then a power loss: the weights are those of an undisturbed training."""
    values = training_rows.settings(site, batch_size=6, epochs=40, checkpoint_steps=3, dropout=0.1)
    output, second = site / "trained", cluster.names[1]
    options = training_rows.command(values, output)[3:]
    env = os.environ | {"GLOO_SOCKET_IFNAME": "eth0"}
    command = ["sbatch", "--parsable", "--mem=1800M", "--cpus-per-task=1", "slurm/train_ddp.slurm", *options]
    job = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()
    log = site / "slurm_logs" / f"train_{job}.out"
    cluster.wait(checkpoint.state_file(output).is_file, "a first state")
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    cluster.wait(lambda: cluster.hurry(job) or "resumed after step" in log.read_text(), "it goes on")
    assert "back into the queue" in log.read_text()
    cluster.lose(second)
    cluster.power_on(second)
    cluster.wait_until_gone(job)
    cluster.wait(lambda: cluster.states(job)[-1:] == ["COMPLETED"], logs(site))
    assert {"REQUEUED", "NODE_FAIL"} <= set(cluster.states(job)), "both happened"
    results = paths.read_json(output / "results.json")
    assert (results["processes"], results["backend"], results["test_rows"]) == (2, "gloo", training_rows.TEST)
    total = sum(one["steps"] for one in results["epochs"])
    steps = [(row["rank"], row["step"]) for row in read_parquet(output / "steps.parquet")]
    assert sorted(steps) == [(rank, step) for rank in (0, 1) for step in range(1, total + 1)], "each once"
    said = log.read_text()
    assert said.count("resumed after step") == 2
    assert said.count("epoch 40 of 40: training loss") == 1, "the first process alone says something"

    done = training_rows.run_command(training_rows.command(values, site / "undisturbed", 2))
    assert done.returncode == 0, done.stderr[-3000:]
    found, wanted = [checkpoint.load(one / "distilbert_train.pt")["model"] for one in (output, site / "undisturbed")]
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_night_of_six_jobs(cluster, site):
    """Both variants with all three suites, one of them stopped before its time limit and put back."""
    options = ["--profile", "ci", "-p", "task_scores_limit=1", "-p", "alignment_measured=1"]
    env = os.environ | {"SBATCH_FLAGS": "--mem=1800M --cpus-per-task=1"}
    command = ["slurm/launch_llm_night.sh", "--results_root", "results/night", *options]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    jobs = [line.split() for line in said.splitlines()]
    suites = ("infer_sweep", "ppl", "lmeval")
    assert [name for _, name, _ in jobs] == [f"{one}_{suite}" for one in ("baseline", "palu") for suite in suites]
    assert len({folder for *_, folder in jobs}) == 6
    first, begun = jobs[0][0], site / "results" / "night" / "runs"
    cluster.wait(lambda: list(begun.glob("*/palu/*/llm_speed.jsonl")), "a first cell")
    cluster.run("scancel", "--batch", "--signal=USR1", first)
    for job, name, folder in jobs:
        cluster.wait(lambda job=job: cluster.hurry(job) or cluster.states(job)[-1:] == ["COMPLETED"], logs(site))
        summary = paths.read_json(site / folder / "summary.json")
        assert {cell["state"] for cell in summary["cells"]} == {"ok"}, name
        assert "run_id" in paths.read_json(site / folder / "config.json")
        assert (site / "slurm_logs" / f"{name}_{job}.out").is_file()
        assert (site / "slurm_logs" / f"{name}_{job}.err").is_file()
    lines = [json.loads(line) for line in (site / jobs[0][2] / "raw.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["cell"] for line in lines}) == 2, "nothing is there twice"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--suite '' is none: infer_sweep, ppl or lmeval"),
        (("--suite", "speed"), "--suite 'speed' is none"),
        (("--suite", "ppl"), "--variant is missing: baseline, palu or palu-v"),
        (("--suite",), "--suite needs a value"),
        (("--suite", "ppl", "--variant", "svd"), "'svd' is not one of"),
    ],
)
def test_a_job_that_was_asked_for_in_a_wrong_way(site, words, said):
    """The script without SLURM: it says what is wrong before anything is measured."""
    env = os.environ | {"SLURM_SUBMIT_DIR": str(site), "SLURM_JOB_ID": "1"}
    done = subprocess.run(
        ["bash", "slurm/run_llm.sbatch", *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.parametrize(
    "script",
    ["bench_distilbert.slurm", "step.slurm", "notebook.slurm", "allreduce.slurm", "train_ddp.slurm", "run_llm.sbatch"],
)
def test_sbatch_takes_every_script(cluster, site, script):
    small = ["--mem=500M", "--cpus-per-task=1"]
    done = subprocess.run(["sbatch", "--test-only", *small, f"slurm/{script}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_refused_job_leaves_nothing_in_the_queue(cluster, site):
    said = distilbench("submit", "distilbert", *SMALL, "--flags=--partition=nowhere", "--step-flags", STEPS, code=1)
    assert "sbatch refused job measure, nothing is left in the queue" in said
    cluster.wait(lambda: not cluster.queue(), "an empty queue")
    run = find.find("latest")
    assert run.status["state"] == "cancelled"
    assert "not submitted" in run.status["message"]


def test_more_tasks_than_an_array_holds_are_refused(cluster, site):
    said = distilbench("submit", "distilbert", *SMALL, "-p", "repetitions", "1100", code=1)
    assert "MaxArraySize is 1001" in said
    assert "--tasks 1001 or less" in said


# ------------------------------------------------------------------ artefacts


@pytest.fixture
def daemon(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real rsync daemon: its address, and the folder behind it."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = tmp_path / "module"
    module.mkdir()
    conf = tmp_path / "rsyncd.conf"
    conf.write_text(f"use chroot = no\nuid = 0\ngid = 0\n[results]\npath = {module}\nread only = no\n")
    command = ["rsync", "--daemon", "--no-detach", f"--config={conf}", f"--port={port}", "--address=127.0.0.1"]
    process = subprocess.Popen(command)
    address = f"rsync://127.0.0.1:{port}/results"
    wait_for(lambda: subprocess.run(["rsync", address], capture_output=True, check=False).returncode == 0)
    yield address, module
    process.terminate()
    ended(process)


def test_a_run_goes_to_an_rsync_daemon(daemon, finished_run):
    address, module = daemon
    said = distilbench("push", finished_run.run_id, "--to", f"{address}/here")
    assert "equal by checksum" in said
    copied = module / "here" / "distilbert" / finished_run.run_id
    assert (copied / "raw.jsonl").read_bytes() == finished_run.raw.read_bytes()
    assert read_parquet(next((copied / "iterations").glob("*.parquet")))
    assert (finished_run.folder / "raw.jsonl").is_file(), "never deleted at the source"
