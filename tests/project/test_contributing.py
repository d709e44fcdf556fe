"""CONTRIBUTING.md is followed to the letter: its example of a new study is made in a copy of the checkout, and runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import checkouts
import pytest
import studied
import yaml

from distilbench import paths
from distilbench.publication.typed_numbers import typed_results
from distilbench.runs import find, verify

ROOT = paths.repo_root()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ADD_A_STUDY = CONTRIBUTING.partition("## Add a study\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^   ```(\w+)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The blocks of one language in the steps, in order."""
    return [textwrap.dedent(text) for told, text in BLOCK.findall(ADD_A_STUDY) if told == language]


def call(checkout: Path, command: str, **variables: str) -> subprocess.CompletedProcess:
    """A command line in the copy, with the copy's package."""
    env = {name: value for name, value in os.environ.items() if name not in ("DISTILBENCH_ROOT", "CI")}
    env |= checkouts.python_path(checkout) | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"} | variables
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=checkout, env=env, capture_output=True, text=True, check=False
    )


# ------------------------------------------------------------------ the steps, one by one


def add_the_model(checkout: Path) -> None:
    (code,) = blocks("python")
    file = checkout / "distilbench" / "measurements" / "sweep" / "params.py"
    name, study = re.search(r"^class (\w+)", code)[1], re.search(r'study: .* = "(\w+)"', code)[1]
    file.write_text(f"{file.read_text()}\n\n{code}\n")
    registry = checkout / "distilbench" / "studies.py"
    before, entries, after = registry.read_text().partition("STUDIES: dict[str, type[StudyParams]] = {")
    assert entries, "that is where it must go"
    named = "from distilbench.measurements.sweep.params import DistilbertParams"
    registry.write_text(f'{before}{entries}\n    "{study}": {name},{after}'.replace(named, f"{named}, {name}"))


def add_the_profiles(checkout: Path) -> None:
    done = call(checkout, blocks("bash")[0])
    assert done.returncode == 0, done.stderr


def add_the_entry(checkout: Path) -> None:
    with (checkout / "params" / "studies.yml").open("a") as file:
        file.write(blocks("yaml")[0])


def add_the_chapter(checkout: Path) -> None:
    (text,) = blocks("markdown")
    file = checkout / "book" / "studies" / "half" / "index.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def add_to_the_contents(checkout: Path) -> None:
    toc = yaml.safe_load((checkout / "_toc.yml").read_text())
    chapters = next(part["chapters"] for part in toc["parts"] if part["caption"] == "Results")
    chapters += yaml.safe_load(blocks("yaml")[1])
    (checkout / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))


STEPS = [add_the_model, add_the_profiles, add_the_entry, add_the_chapter, add_to_the_contents]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the new study."""
    folder = checkouts.whole(tmp_path_factory.mktemp("contributing") / "checkout")
    for step in STEPS:
        step(folder)
    profile = folder / "params" / "half" / "ci.yml"  # one cell, timed once: enough to see the study run
    small = yaml.safe_load(profile.read_text()) | {"batch_sizes": [4], "repetitions": 1, "passes": ["timing"]}
    profile.write_text(yaml.safe_dump(small))
    return folder


# ------------------------------------------------------------------ what comes of them


def test_the_last_step_finds_nothing_missing_and_the_chain_runs(checkout, tmp_path):
    """All commands of the last step, as they are written there; and the run says what the model says."""
    done = call(checkout, blocks("bash")[1], DISTILBENCH_RESULTS=str(tmp_path / "results"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b\d+ passed", done.stdout)
    (run,) = find.all_runs(tmp_path / "results" / "half")
    assert run.status["state"] == "ok"
    assert run.config["study"] == "half"
    assert run.config["origins"]["dtype"] == "default", "the default of its own model"
    assert run.config["origins"]["source"] == "params/half/ci.yml"
    assert {cell["dtype"] for cell in run.config["cells"]} == {"bfloat16"}
    assert {record.proof["matmul_dtype"] for record in run.measured()} == {"bfloat16"}
    executed = {file.stem for file in (run.folder / "notebooks").iterdir()}
    assert executed == {"01_ingest", "02_benchmark", "03_analyse"}
    assert verify.problems(run.folder) == []


@pytest.mark.parametrize("forgotten", STEPS[1:], ids=lambda step: step.__name__)
def test_a_forgotten_step_is_said(tmp_path, forgotten):
    folder = checkouts.whole(tmp_path / "checkout")
    for step in STEPS[1:]:  # `lacking` reads files only
        if step is not forgotten:
            step(folder)
    said = "; ".join(studied.lacking(folder, "half"))
    assert {
        "add_the_profiles": "there is no params/half/ci.yml",
        "add_the_entry": "params/studies.yml has no entry 'half'",
        "add_the_chapter": "there is no book/studies/half/index.md",
        "add_to_the_contents": "_toc.yml does not list studies/half/index",
    }[forgotten.__name__] in said


def test_a_study_without_a_model_is_said(tmp_path):
    """The first step forgotten: the package does not know the study."""
    folder = checkouts.whole(tmp_path / "checkout")
    for step in STEPS[1:]:
        step(folder)
    done = call(folder, "distilbench run half --profile ci")
    assert done.returncode == 1
    assert "unknown study 'half'. Studies: distilbert, " in done.stderr
    done = call(folder, "python -m pytest -q -p no:cacheprovider tests/project/test_studies.py")
    assert done.returncode == 1
    assert "test_parameters_and_entries_are_of_the_same_studies" in done.stdout


def test_its_chapter_types_no_result():
    assert typed_results(blocks("markdown")[0]) == []


@pytest.mark.slow
def test_the_book_has_its_chapter_and_its_place_in_the_headline_table(checkout):
    """Built in the copy, warnings being errors, from the steps alone: no code of the book knows the study."""
    done = call(checkout, "distilbench book --no-own")
    assert done.returncode == 0, done.stdout + done.stderr
    html = checkout / "book" / "_build" / "html"
    assert "What do weights of half the size gain?" in (html / "studies" / "half" / "index.html").read_text()
    first = (html / "intro.html").read_text()
    assert 'href="studies/half/index.html"' in first
    text = " ".join(re.sub(r"<[^>]+>", "", first.partition('role="main"')[2]).split())
    assert "What do weights of half the size gain? (half) No run of it is published yet." in text


# ------------------------------------------------------------------ the rest of the page


def test_only_what_is_there_is_named():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", CONTRIBUTING, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:notebooks|params|distilbench|tests|book|scripts|\.github)/[\w./-]+)`", CONTRIBUTING):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([^)#:]+)\)", CONTRIBUTING):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "heading", ["Add a study", "Add a kind of measurement", "Add a variant", "Add a model family", "Add a collector"]
)
def test_it_takes_a_few_steps(heading):
    section = CONTRIBUTING.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 3 <= len(numbers) <= 7


def test_names_of_the_package_in_the_steps_are_there():
    """What `Add a variant` and `Add a collector` tell to extend."""
    from distilbench.collectors import energy, telemetry
    from distilbench.measurements.sweep import params, records
    from distilbench.measurements.sweep.summary import join
    from distilbench.variants import registry, torch_variants

    steps = CONTRIBUTING.partition("## Add a variant\n")[2].partition("\n## Notebooks")[0]
    homes = {
        "VARIANTS": torch_variants, "watch": registry.Variant, "MODULES": registry, "load_model": torch_variants,
        "sources": energy, "Source": energy, "Telemetry": telemetry, "block": telemetry.Telemetry,
        "ITERATIONS": records, "Repetition": records, "TELEMETRY": join, "SUMMARY_VERSION": join,
        "SweepParams": params,
    }  # fmt: skip
    for name, home in homes.items():
        assert re.search(rf"`(?:\w+\.)*{name}(?:\.\w+)?`", steps), f"{name} is not told"
        assert hasattr(home, name), name
