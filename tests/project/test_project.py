"""The project's own files: pins, environment.yml, Makefile, README, decisions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import numpy as np
import pytest
import scipy.stats
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distilbench import paths
from distilbench.simulated_traces import processes

ROOT = paths.repo_root()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, CONTRACTS = PYPROJECT["project"], PYPROJECT["tool"]["importlinter"]["contracts"]
LOCK = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
README = (ROOT / "README.md").read_text()


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    texts = PROJECT["dependencies"] + [text for extra in extras for text in extra]
    return [r for r in map(Requirement, texts) if r.name not in ("distilbench", "pip")]  # pip does not pin itself


def test_every_direct_requirement_is_locked_inside_its_range():
    for requirement in direct_requirements():
        locked = LOCK.get(canonicalize_name(requirement.name))
        assert locked, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(locked), f"{requirement} excludes the locked {locked}"


def test_the_lock_holds_exact_public_versions_only():
    assert LOCK["torch"] == "2.13.0"
    for name, version in LOCK.items():
        assert re.fullmatch(r"[0-9][0-9A-Za-z.]*", version), f"{name}=={version}: no local tags, no ranges"


def test_what_is_installed_here_is_what_is_locked():
    for requirement in direct_requirements():
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # another tier
        assert installed.partition("+")[0] == LOCK[canonicalize_name(requirement.name)]


def test_environment_yml_is_thin_and_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "distilbench"
    *conda, last = environment["dependencies"]
    python = next(item for item in conda if item.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.partition("=")[2] + ".0")
    assert last["pip"] == ["-c constraints.txt", "-e .[all]"], "all pins stay in constraints.txt"
    assert all(re.fullmatch(r"[a-z]+([<>=]+[\d.]+)?", item) for item in conda)


def test_a_batch_node_need_not_install_the_book():
    run = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["run"]
    assert not any("book" in text or "jupyterlab" in text or "pytest" in text for text in run)


def test_make_alone_lists_the_targets():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = "env smoke benchmark analyse test test-slurm test-long lint lab book pdf pdf-deps slides report release"
    for target in [*named.split(), "nightly", "clean"]:
        assert re.search(rf"^{target}\s", listed, re.MULTILINE), target


def make_says(target: str, *, active: str) -> str:
    """What make would do for a target, with a virtualenv or conda environment active."""
    command = ["make", "--dry-run", "VENV=.venv-that-is-not-there", target]
    env = {"PATH": "/usr/bin:/bin", active: sys.prefix} if active else {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=env).stdout


@pytest.mark.parametrize("active", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_make_uses_the_active_environment_that_holds_this_checkout(active):
    assert "pip install" not in make_says("smoke", active=active)


def test_make_works_in_a_folder_with_spaces(tmp_path):
    """Its own environment is made there, by that folder's interpreter, and the next call finds it."""
    checkout, tools = tmp_path / "my files" / "check out", tmp_path / "tools"
    checkout.mkdir(parents=True)
    tools.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, checkout / name)
    stand_in = tools / "python3"  # `python -m venv FOLDER` makes a folder with itself in it; all else it only notes
    stand_in.write_text(
        f'#!/bin/bash\necho "$0 $*" >>{tools}/calls\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
    )
    stand_in.chmod(0o755)
    command = ["make", "env", f"PYTHON={stand_in}", "EXTRAS=lint"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stderr
    made, installed = (tools / "calls").read_text().splitlines()
    assert made == f"{stand_in} -m venv .venv"
    assert installed.startswith(f"{checkout}/.venv/bin/python -m pip install")


def test_make_sets_up_its_own_environment_elsewhere(tmp_path):
    assert "pip install" in make_says("smoke", active="")


def test_readme_first_screen_has_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:45])
    assert "make smoke" in first_screen
    assert "make test" in first_screen


def test_readme_names_only_what_is_there():
    """Paths and make targets that the README mentions exist."""
    for target in re.findall(r"`make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    for path in re.findall(r"`((?:notebooks|params|distilbench|tests|book|scripts)/[\w./-]+)`", README):
        assert (ROOT / path).exists() or path.startswith("book/_build/"), path


def test_the_picture_of_the_readme_is_the_plot_of_a_published_run():
    """On white, since a plot has no background of its own (`make pages` writes it)."""
    (shown,) = re.findall(r"^!\[.+\]\((.+\.svg)\)$", README, re.MULTILINE)
    plots = ROOT.glob("results/published/*/*/plots/*.svg")
    assert (ROOT / shown).read_text().replace(' style="background:#fff"', "") in {file.read_text() for file in plots}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


# ------------------------------------------------------------------ the map of the house


HOUSE = README.partition("## The repository\n")[2].partition("\n## ")[0]


def floors() -> dict[int, set[str]]:
    """Modules and sub-packages (with a slash) by layer, as the README's table has them."""
    rows = re.findall(r"^\| layer (\d)[^|]*\| `([^`]+)` \|$", HOUSE, re.MULTILINE)
    return {int(number): set(names.split()) for number, names in rows}


def test_the_map_names_every_module_of_the_package_and_no_other():
    package = ROOT / "distilbench"
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    modules |= {f"{file.parent.name}/" for file in package.glob("*/__init__.py")}
    named = [name for names in floors().values() for name in names]
    assert sorted(named) == sorted(modules)


def test_the_floors_of_the_map_are_those_that_imports_are_held_to():
    """From the top of the linter's layers downwards, the floor never rises, and every module has one."""
    by_module = {name.rstrip("/"): floor for floor, names in floors().items() for name in names}
    layers = CONTRACTS[0]
    listed = [[name.strip() for name in layer.split(":")] for layer in layers["layers"]]
    assert sorted(by_module) == sorted(name for layer in listed for name in layer)
    order = [{by_module[name] for name in layer} for layer in listed]
    assert all(len(floor) == 1 for floor in order), "a layer lies within one floor"
    heights = [floor.pop() for floor in order]
    assert heights == sorted(heights, reverse=True)


def test_the_map_names_every_room_and_no_other():
    rooms = set(re.findall(r"^\| `([\w.]+)/[\w./]*` \|", HOUSE, re.MULTILINE))
    rooms |= {"slurm_logs"} if "`slurm_logs/`" in HOUSE else set()  # named beside what writes them
    built = {".git", ".venv", ".ci", "dist", "checkpoints"}
    there = {folder.name for folder in ROOT.iterdir() if folder.is_dir()} - built
    there -= {name for name in there if name.endswith(("_cache", ".egg-info", "__pycache__", ".ipynb_checkpoints"))}
    assert {name for name in there if not name.startswith(".venv")} == rooms


def test_decisions_are_numbered_and_whole():
    files = sorted((ROOT / "decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        text = file.read_text()
        assert text.startswith(f"# {int(file.name[:4])}. ")
        wanted = ["Context", "Decision", "Consequences", "What would change our mind"]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == wanted
        for path in re.findall(r"`((?:notebooks|params|distilbench|tests|book|scripts)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{file.name}: {path}"


def coverages(kind: str, n: int, trials: int = 2000) -> tuple[float, float]:
    """How often (percentile bootstrap, Student's t) intervals of n repetitions hold the truth; both claim 0.95."""
    generator = np.random.default_rng(20261125)
    truth = processes(kind, generator, 4000, 10).mean()
    values = processes(kind, generator, trials, n)
    means = (generator.choice(of_one, (1000, n)).mean(axis=1) for of_one in values)
    ends = np.array([np.percentile(drawn, [2.5, 97.5]) for drawn in means])
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(axis=1, ddof=1) / n**0.5
    return np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])), np.mean(np.abs(values.mean(axis=1) - truth) <= half)


def test_the_coverage_that_the_third_decision_tells_is_what_simulation_gives():
    text = (ROOT / "decisions" / "0003-interval-of-repetitions.md").read_text()
    numbers, bootstrap, t = (
        [float(cell) for cell in re.search(rf"^\| {name} \|(.+)\|$", text, re.MULTILINE)[1].split("|")]
        for name in ("repetitions", "percentile bootstrap", "Student's t")
    )
    found = [coverages("smooth", int(n)) for n in numbers]
    assert bootstrap == pytest.approx([of_bootstrap for of_bootstrap, _ in found], abs=0.03)
    assert t == pytest.approx([of_t for _, of_t in found], abs=0.02)
    told = re.search(r"t covers ([\d.]+) at five repetitions and ([\d.]+) at ten", text)
    assert float(told[1]) == pytest.approx(coverages("two-mode", 5)[1], abs=0.03)
    assert float(told[2]) == pytest.approx(coverages("two-mode", 10)[1], abs=0.03)


def test_versions_agree():
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()
