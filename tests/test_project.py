"""The project's own files: pins, environment.yml, Makefile, README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distilbench import paths

ROOT = paths.repo_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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
    targets = ["env", "smoke", "benchmark", "analyse", "test", "test-long", "lint", "lab", "book", "pdf", "pdf-deps"]
    for target in [*targets, "clean"]:
        assert re.search(rf"^{target}\s", listed, re.MULTILINE), target


def make_says(target: str, *, active: str) -> str:
    """What make would do for a target, with a virtualenv or conda environment active."""
    command = ["make", "--dry-run", "VENV=.venv-that-is-not-there", target]
    env = {"PATH": "/usr/bin:/bin", active: sys.prefix} if active else {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=env).stdout


@pytest.mark.parametrize("active", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_make_uses_the_active_environment_that_holds_this_checkout(active):
    assert "pip install" not in make_says("smoke", active=active)


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


def test_versions_agree():
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()
