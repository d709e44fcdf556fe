"""The command line where the locale is not UTF-8: real processes, in ASCII, in Latin-1, and with poor terminals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import checkouts
import pytest
from conftest import IN_CI
from measuring import stand_in_everywhere

from distilbench import paths
from distilbench.runs import find

LOCALE = "en_US.ISO-8859-1"
BARE = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "HF_HUB_OFFLINE": "1"}
ENVIRONMENTS = {
    "ascii": BARE | {"LC_ALL": "C"},
    "latin-1": BARE | {"LC_ALL": LOCALE},
    "posix": {"LC_ALL": "POSIX"},
    "ascii terminal": {"PYTHONIOENCODING": "ascii"},
    "latin-1 terminal": {"PYTHONIOENCODING": "latin-1"},
}
COPIED = ("distilbench", "params", "notebooks", "tests/data", "book/studies", "results/published")


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory) -> dict[str, str]:
    """Where a Latin-1 locale is, which few machines have: made here."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "--inputfile=en_US", "--charmap=ISO-8859-1", str(folder / LOCALE)]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True, check=False).returncode:
        assert not IN_CI, "CI can make a locale"
        pytest.skip("no localedef with its sources here")
    return {"LOCPATH": str(folder)}


@pytest.fixture(params=ENVIRONMENTS)
def env(request) -> dict[str, str]:
    """What is poor about the locale, in turn."""
    made = request.getfixturevalue("latin_1") if request.param == "latin-1" else {}
    return ENVIRONMENTS[request.param] | made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> dict[str, str]:
    """A checkout below a folder with an accent and a space, as variables."""
    folder = tmp_path_factory.mktemp("below") / "dé and space"
    for name in COPIED:
        shutil.copytree(paths.repo_root() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    where = {"ROOT": folder, "RESULTS": folder / "résultats", "CACHE": folder / "cache"}
    return checkouts.python_path(folder) | {f"DISTILBENCH_{name}": str(place) for name, place in where.items()}


def distilbench(*words: object, env: dict[str, str], code: int = 0) -> str:
    """What the command prints, as UTF-8 with what is not UTF-8 escaped; it must end with this code."""
    command = [sys.executable, "-m", "distilbench.cli.main", *map(str, words)]
    place = env.get("DISTILBENCH_ROOT", paths.repo_root())
    done = subprocess.run(
        command, capture_output=True, check=False, env=os.environ | env, cwd=place,
        encoding="utf-8", errors="backslashreplace",
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_locale_is_the_one_that_is_meant(latin_1):
    ask = "import sys; print(sys.getfilesystemencoding(), sys.flags.utf8_mode)"
    for name, encoding in (("ascii", "ascii 0"), ("latin-1", "iso8859-1 0")):
        env = os.environ | ENVIRONMENTS[name] | latin_1
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, env=env)
        assert done.stdout.decode().strip() == encoding


def test_a_published_run_is_shown_in_letters_that_the_terminal_has(env):
    run = find.published_runs()[-1]
    assert run.run_id in distilbench("show", run.run_id, env=env)
    assert " | " in distilbench("show", run.run_id, "--format", "md", env=env)


def test_no_letter_is_lost_where_there_is_a_plain_one():
    run = next(run for run in find.published_runs() if run.config["study"] == "qwen")  # it has no accuracy
    assert "  -  " in distilbench("show", run.run_id, env=ENVIRONMENTS["ascii"]), "a number that is not there"


def test_a_published_run_is_computed_again(env):
    assert "no difference" in distilbench("verify", "run", find.published_runs()[0].run_id, env=env)


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("doctor",)])
def test_help_and_findings(env, words):
    assert distilbench(*words, env=env)


def test_errors_are_one_message(env):
    distilbench("show", "absent – ü", env=env, code=1)


def test_parameter_files_with_letters_in_name_and_comments(env, tmp_path):
    file = tmp_path / "machine à côté.yml"
    file.write_text("# déjà vu – 日本\nseed: 23\nrun_id: named-here\n", encoding="utf-8")
    words = ("submit", "distilbert", "--profile", "ci", "--dry-run", "--file", file)
    assert "named-here" in distilbench(*words, env=env)


def test_slides_of_a_checkout_below_a_folder_with_an_accent(checkout):
    pytest.importorskip("pptx", reason="no python-pptx: make env EXTRAS=slides")
    assert "slides.pptx" in distilbench("slides", env=checkout | ENVIRONMENTS["ascii"])


def small_run(env: dict[str, str]) -> None:
    """One repetition of one cell, measured and computed again."""
    small = ("-p", "passes", "timing", "-p", "repetitions", "1", "-p", "batch_sizes", "4", "--new")
    distilbench("run", "distilbert", "--profile", "ci", *small, env=env)
    assert "1 repetitions computed again" in distilbench("verify", "run", "latest", env=env)


def test_a_checkout_and_results_below_a_folder_with_an_accent_measure_in_ascii(checkout, tmp_path):
    """With the stand-in, which cannot write there either unless the command line has set another encoding for it."""
    stand_in = stand_in_everywhere(tmp_path / "stand-in")["PYTHONPATH"].split(os.pathsep)[0]
    small_run(checkout | ENVIRONMENTS["ascii"] | {"PYTHONPATH": f"{stand_in}{os.pathsep}{checkout['PYTHONPATH']}"})


@pytest.mark.slow
def test_a_checkout_and_results_below_a_folder_with_an_accent_measure_in_latin_1(checkout, latin_1):
    small_run(checkout | ENVIRONMENTS["latin-1"] | latin_1)


@pytest.mark.slow
def test_slides_in_latin_1(checkout, latin_1):
    pytest.importorskip("pptx", reason="no python-pptx: make env EXTRAS=slides")
    assert "slides.pptx" in distilbench("slides", env=checkout | ENVIRONMENTS["latin-1"] | latin_1)
