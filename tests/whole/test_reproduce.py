"""The commands that the first page promises are run as they stand there: from a clean clone, without a model hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import checkouts
import pytest
import yaml
from conftest import LEANER

from distilbench import paths
from distilbench.runs import find, verify
from distilbench.sources import embedded

ROOT = paths.repo_root()
PLACE = "<this repository>"
PAGES = ["README.md", "book/intro.md", "book/reproduce.md", "book/cluster.md"]
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOUR = next(block for block in BLOCK.findall((ROOT / "book" / "intro.md").read_text()) if "git clone" in block)
SHORT = {  # the commands stay as they are; only what they measure gets small
    "batch_sizes": [2], "length_policies": ["fixed-32"], "samples_per_cycle": 16, "repetitions": 1,
    "memory_repetitions": 1, "control": False, "warmup_seconds": 0.0, "warmup_max_seconds": 0.1, "min_cycles": 1,
    "min_iterations": 1, "min_seconds": 0.0, "max_seconds": 0.1, "ceiling_s": 0.1,
    "passes": ["timing"],
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_what_follows_a_clone_finds_the_command(page):
    """A page that begins with a clone makes the environment, and enters it, before it says `distilbench`."""
    for block in BLOCK.findall((ROOT / page).read_text()):
        before, cloned, after = block.partition("git clone")
        if cloned and (told := re.search(r"^distilbench ", after, re.MULTILINE)):
            assert re.search(r"&& source \.venv/bin/activate", after[: told.start()]), block
        assert "distilbench " not in before or not cloned


def test_the_first_page_has_four_commands_and_says_so():
    lines = [line for line in FOUR.splitlines() if line.strip()]
    assert len(lines) == 4
    assert "## Reproduce it in four commands" in (ROOT / "book" / "intro.md").read_text()
    assert lines[0] == f"git clone {PLACE} distilbench && cd distilbench"
    assert lines[-1].startswith("distilbench verify run latest")


def origin(folder: Path, short: bool) -> Path:
    """This checkout as a repository to clone; with `short`, its profiles measure as little as they can."""
    checkouts.whole(folder)
    if short:
        for file in ("distilbert/smoke.yml", "distilbert/full.yml", "hardware/two-cores.yml"):
            settings = yaml.safe_load((folder / "params" / file).read_text())
            (folder / "params" / file).write_text(yaml.safe_dump(settings | SHORT))
    who = ["-c", "user.name=a test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "as it is"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def lend_packages(place: Path) -> Path:
    """An environment as `make` leaves it: the packages of this one, and the code of the clone that it will be in.

    Args:
        place: where it will be copied to; its scripts hold that name, so it is made there and moved away.
    """
    venv.EnvBuilder(with_pip=False).create(place)
    packages = next((place / "lib").glob("python*/site-packages"))
    ours = next(Path(folder) for folder in sys.path if folder.endswith("site-packages"))
    (packages / "lent.pth").write_text(f"import sys; sys.path.insert(1, sys.prefix + '/..')\n{LEANER}\n{ours}\n")
    script = place / "bin" / "distilbench"
    script.write_text(f"#!{place}/bin/python -P\nfrom distilbench.cli.main import main\nmain()\n")
    script.chmod(0o755)
    lent = place.parent.with_name("lent")
    place.rename(lent)
    place.parent.rmdir()
    return lent


def without_hub_and_environment(folder: Path) -> dict[str, str]:
    """The variables of somebody who has nothing of this project yet, where no hub answers."""
    ours = Path(sys.executable).parent
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DISTILBENCH_", "HF_", "TRANSFORMERS_")) and name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    env["PATH"] = os.pathsep.join(folder for folder in env["PATH"].split(os.pathsep) if Path(folder) != ours)
    cache = {"DISTILBENCH_CACHE": str(paths.cache_root()), "HF_HOME": str(folder / "hf")}
    return env | cache | {"HF_ENDPOINT": "http://127.0.0.1:9", "CI": ""}


def follow(folder: Path, script: str) -> subprocess.CompletedProcess:
    command = ["bash", "-eo", "pipefail", "-c", script]
    env = without_hub_and_environment(folder)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def check(done: subprocess.CompletedProcess, folder: Path) -> None:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    smoke, full = find.all_runs(folder / "distilbench" / "results" / "distilbert")
    assert [run.config["parameters"]["profile"] for run in (smoke, full)] == ["smoke", "full"]
    assert {run.status["state"] for run in (smoke, full)} <= {"ok"}, "and was told so by an exit code"
    assert full.config["parameters"]["model_source"] == full.config["parameters"]["data_source"] == "embedded"
    assert f"{full.run_id}: {len(full.measured())} repetitions computed again" in done.stdout
    assert verify.problems(full.folder) == []
    assert (folder / "distilbench" / "book" / "_build" / "html" / "your-run.html").is_file(), "as `make smoke` says"


@pytest.mark.embedded
def test_the_four_commands_as_written_with_packages_that_are_there_and_little_to_measure(tmp_path):
    """All four in one shell, as one pastes them; what is spared is the installation and most of the measuring."""
    embedded.classifier_dir()  # packages that the cache lacks would be fetched in the middle of it
    where, lent = origin(tmp_path / "origin", short=True), lend_packages(tmp_path / "distilbench" / ".venv")
    first, _, rest = FOUR.replace(PLACE, str(where)).partition("\n")
    done = follow(tmp_path, f"{first}\ncp -a {lent} .venv\ntouch .venv/.installed-{{run,book}}\n{rest}")
    check(done, tmp_path)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.timeout(3 * 3600)
def test_the_four_commands_as_written(tmp_path):
    """The whole of it: an environment from the package registry, and the full profile. Most of an hour on two cores."""
    where = origin(tmp_path / "origin", short=False)
    done = follow(tmp_path, FOUR.replace(PLACE, str(where)))
    check(done, tmp_path)
    shutil.rmtree(tmp_path / "distilbench" / ".venv")
