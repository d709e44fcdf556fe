"""`python -m distilbench.llm`: what a command leaves in a folder, what two of them say together, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import decoding
import pytest

from distilbench import paths
from distilbench.cli.main import main
from distilbench.errors import RunError
from distilbench.llm import compare, layout
from distilbench.llm.__main__ import app
from distilbench.measurements.llm_speed.show import side_by_side

FILES = {
    "config.json",
    "env.json",
    "raw.json",
    "raw.jsonl",
    "summary.json",
    "run_summary.md",
    "data.json",
    "model.json",
}


def in_this_process(patched, root: Path) -> None:
    patched.setenv("DISTILBENCH_RESULTS", str(root / "results"))
    decoding.in_this_process(patched)


def call(patched, *words: object) -> int:
    """The command with these words, as a terminal would call it."""
    patched.setattr(sys, "argv", ["python -m distilbench.llm", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main(app)
    return int(ended.value.code or 0)


@pytest.fixture(scope="session")
def left(tmp_path_factory) -> Path:
    """What `run` leaves of both variants, and `eval` of one."""
    out = tmp_path_factory.mktemp("llm")
    with pytest.MonkeyPatch.context() as patched:
        in_this_process(patched, out)
        for variant in ("baseline", "palu"):
            assert call(patched, "run", "--variant", variant, "--profile", "ci", "--out", out / variant) == 0
        words = ("eval", "--variant", "palu", "--profile", "ci")
        assert call(patched, *words, "--suite", "ppl", "--out", out / "ppl") == 0
        tasks = ("--suite", "lmeval", "--tasks", "mmlu_dev_letter_mini", "--limit", "2")
        assert call(patched, *words, *tasks, "--out", out / "tasks") == 0
    return out


def test_a_folder_has_what_the_requirements_name(left):
    for name, more in (("baseline", set()), ("palu", {"compression.json"})):
        assert {file.name for file in (left / name).iterdir()} == FILES | {"plots"} | more
        assert {file.suffix for file in (left / name / "plots").iterdir()} == {".png", ".svg"}
        raw = json.loads((left / name / "raw.json").read_text())
        assert raw == [json.loads(line) for line in (left / name / "raw.jsonl").read_text().splitlines()]
        assert {line["variant"] for line in raw} == {name}
    assert {file.name for file in (left / "ppl").iterdir()} == FILES
    assert {cell["form"] for cell in layout.read(left / "ppl")[1]["cells"]} == {"fisher"}
    assert {file.name for file in (left / "tasks").iterdir()} == FILES | {"compression.json", "plots"}
    (cell,) = layout.read(left / "tasks")[1]["cells"]
    assert (cell["variant"], cell["task"], cell["documents"]) == ("palu", "mmlu_dev_letter_mini", 2)


def test_two_results_are_compared(left, tmp_path, capsys, monkeypatch):
    assert call(monkeypatch, "plot", left / "baseline", left / "palu", "--out", tmp_path) == 0
    text = (tmp_path / "comparison.md").read_text()
    assert "| decode-b2-c16-g4 | per token (ms) |" in text
    assert "| prefill-b2-s16 | cache (bytes) | 16,384 |" in text
    assert "so the ratios have no interval" in text
    assert str(tmp_path / "plots" / "per-token.png") in capsys.readouterr().out


def test_what_cannot_be_compared(left, tmp_path):
    with pytest.raises(RunError, match="holds no results"):
        compare.compare(left, left / "palu", tmp_path)
    with pytest.raises(RunError, match=r"holds results of kind perplexity; times are compared"):
        compare.compare(left / "ppl", left / "palu", tmp_path)
    for file in (left / "palu").iterdir():
        if file.is_file():
            paths.write_atomic(tmp_path / "other" / file.name, file.read_bytes())
    data = paths.read_json(tmp_path / "other" / "data.json")
    paths.write_json(tmp_path / "other" / "data.json", data | {"sha256": "0" * 64})
    with pytest.raises(RunError, match=r"cannot be compared: the SHA-256 in data\.json is"):
        compare.compare(left / "baseline", tmp_path / "other", tmp_path / "out")
    with pytest.raises(RunError, match="no point in common"):
        side_by_side.page([], [])


def test_results_of_another_run_are_not_overwritten(left, tmp_path, monkeypatch, capsys):
    in_this_process(monkeypatch, tmp_path)
    words = ("run", "--variant", "baseline", "--profile", "ci", "--out", left / "palu")
    assert call(monkeypatch, *words) == 1
    assert "holds run" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other files; name a folder that is empty or not there"):
        layout.leave(SimpleNamespace(run_id="x"), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--variant", "svd", "--out", "x"), "'svd' is not one of 'baseline', 'palu'"),
        (("run", "--variant", "palu", "--out", "x", "-p", "ratio", "1.5"), "less than or equal to 1"),
        (("run", "--variant", "palu", "--out", "x", "-p", "group_sise", "3"), "group_size"),
        (("eval", "--variant", "palu", "--suite", "infer_sweep", "--out", "x"), "'infer_sweep' is not one of 'ppl'"),
        (("eval", "--variant", "palu", "--limit", "0", "--out", "x"), "should be greater than or equal to 1"),
    ],
)
def test_bad_words_are_named(words, said, monkeypatch, capsys):
    assert call(monkeypatch, *words) != 0
    assert said in " ".join(capsys.readouterr().err.replace("│", "").split())
