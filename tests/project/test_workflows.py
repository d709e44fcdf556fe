"""The workflows on GitHub, as far as they can be tried without it: their form, and that what they call is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distilbench import paths

ROOT = paths.repo_root()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
by_name = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)


def check_form(*files: Path) -> subprocess.CompletedProcess:
    """What `make lint` does with them."""
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    return subprocess.run([*command, *files], capture_output=True, text=True, check=False)


def told(workflow: Path) -> dict:
    """What it says; YAML reads its `on` as a truth."""
    content = yaml.safe_load(workflow.read_text())
    return content | {"on": content.pop(True)}


def steps(workflow: Path) -> list[dict]:
    return [step for job in told(workflow)["jobs"].values() for step in job["steps"]]


def called(text: str) -> tuple[set[str], set[str]]:
    """(make targets, files of the checkout) that a workflow's commands call."""
    return set(re.findall(r"\bmake ([a-z-]+)", text)), set(re.findall(r"(?:scripts|\.ci)/[\w./-]+", text))


def test_there_are_five():
    assert [file.stem for file in WORKFLOWS] == ["book", "lint", "nightly", "release", "tests"]


def test_they_have_the_form_that_github_wants():
    done = check_form(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("runs-on:", "run-on:"), ("  pull_request:", "  pull_requests:"), ("minutes: 15", "minutes: soon")],
)
def test_another_form_is_refused(tmp_path, right, wrong):
    text = (ROOT / ".github" / "workflows" / "lint.yml").read_text()
    assert right in text
    file = tmp_path / "lint.yml"
    file.write_text(text.replace(right, wrong, 1))
    assert check_form(file).returncode == 1


@by_name
def test_what_they_call_is_there(workflow):
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    targets, files = called(commands)
    assert targets | files, "each of them calls what can be called by hand"
    assert targets <= TARGETS
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_calls_are_seen():
    commands = "sudo -E make test-long\nscripts/gone.sh x && .ci/run\npython scripts/a.py"
    assert called(commands) == ({"test-long"}, {"scripts/gone.sh", ".ci/run", "scripts/a.py"})


@by_name
def test_they_may_read_and_no_more(workflow):
    content = told(workflow)
    assert content["permissions"] == {"contents": "read"}
    writing = {name for name, job in content["jobs"].items() if "permissions" in job}
    assert writing == ({"attach"} if workflow.stem == "release" else set()), "only a release is written"
    for name in writing:
        assert content["jobs"][name]["permissions"] == {"contents": "write"}
        assert not any("actions/checkout" in step.get("uses", "") for step in content["jobs"][name]["steps"])


@by_name
def test_they_end_and_do_not_pile_up(workflow):
    content = told(workflow)
    assert content["concurrency"]["group"].startswith(workflow.stem)
    assert all(job["timeout-minutes"] <= 180 for job in content["jobs"].values())
    assert all(re.fullmatch(r"ubuntu-\d+\.\d+", job["runs-on"]) for job in content["jobs"].values())


@by_name
def test_actions_are_githubs_own_at_a_major_version(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_each_starts_when_it_should():
    starts = {file.stem: told(file)["on"] for file in WORKFLOWS}
    for name in ("lint", "tests", "book"):
        assert starts[name] == {"push": {"branches": ["main"]}, "pull_request": None}
    assert starts["release"] == {"push": {"tags": ["v*"]}}
    assert set(starts["nightly"]) == {"schedule", "workflow_dispatch"}


def test_the_tests_run_as_they_do_by_hand():
    """All of `.ci/run`, with nothing skipped: as root, where packages can be installed and disks mounted."""
    (job,) = told(ROOT / ".github" / "workflows" / "tests.yml")["jobs"].values()
    assert job["env"]["CI"] == "true"
    assert "--privileged" in job["container"]["options"]
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_a_release_is_refused_where_tag_and_version_differ(tmp_path):
    """The step's own command, on a tag of this version and on another."""
    release = ROOT / ".github" / "workflows" / "release.yml"
    command = next(step["run"] for step in steps(release) if "pyproject.toml" in step.get("run", ""))
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    for tag, code in ((f"v{version}", 0), ("v99.0", 1)):
        env = {"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag}
        assert subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, check=False).returncode == code
