"""No text file and no program's output is read or written in whatever encoding the locale has."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

import pytest

from distilbench import paths

ROOT = paths.repo_root()
PYTHON = sorted(
    [*(ROOT / "distilbench").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "slurm").glob("*.py")]
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROGRAMS = {"run", "Popen", "check_output", "check_call", "call"}  # of subprocess, by whatever name it was imported
IN_TEXT = {"text", "universal_newlines", "errors"}  # each makes text of their output
ALWAYS_TEXT = {"getoutput", "getstatusoutput", "popen"}
FILES = {"read_text", "write_text"}
OPENS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"}
OTHERS = {"tarfile", "zipfile", "webbrowser", "os", "urllib"}  # whose open() has no text


def lacking(code: str) -> list[int]:
    """Lines of calls that read or write text without saying its encoding."""
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if _is_text(call) and not {"encoding", None} & _names(call)]


def _names(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


def _is_text(call: ast.Call) -> bool:
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    owner = getattr(getattr(function, "value", None), "id", "")
    if name in ALWAYS_TEXT:
        return True
    if name in PROGRAMS:
        asked = [word.value for word in call.keywords if word.arg in IN_TEXT]
        return any(getattr(value, "value", True) for value in asked)  # text=False asks for none
    if name in OPENS and owner not in OTHERS - ({"os"} if name == "fdopen" else set()):
        return not any("b" in mode for mode in _modes(call, name))
    return name in FILES and (name == "write_text" or not call.args)


def _modes(call: ast.Call, name: str) -> Iterator[str]:
    given = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    modes = [mode for mode in modes if set(mode) <= set("rwxabt+")]
    yield from modes or (["w+b"] if "Temporary" in name else [])


def sources() -> list[tuple[str, str]]:
    """Name and code of every module, script and cell."""
    cells = [
        (f"{file.name}[{number}]", "".join(cell["source"]))
        for file in NOTEBOOKS
        for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"])
        if cell["cell_type"] == "code"
    ]
    return [(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")) for file in PYTHON] + cells


def test_every_text_has_its_encoding():
    found = [f"{name}:{line}" for name, code in sources() for line in lacking(code)]
    assert found == []


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        ("p.read_text()", True),
        ("p.write_text(x)", True),
        ("p.read_text(encoding='utf-8')", False),
        ("p.open()", True),
        ("open(p, 'a')", True),
        ("p.open('rb')", False),
        ("open(p, mode='xb', buffering=0)", False),
        ("os.fdopen(n, 'w')", True),
        ("os.open(p, os.O_RDONLY)", False),
        ("tarfile.open(p)", False),
        ("tempfile.TemporaryFile()", False),
        ("tempfile.NamedTemporaryFile('w')", True),
        ("subprocess.run(c, capture_output=True)", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, capture_output=True, encoding='utf-8', errors='replace')", False),
        ("subprocess.run(c, check=True)", False),
        ("subprocess.run(c, text=False)", False),
        ("subprocess.run(c, errors='replace')", True),
        ("from subprocess import run\nrun(c, text=True)", True),
        ("import subprocess as sp\nsp.Popen(c, universal_newlines=True)", True),
        ("os.popen(c)", True),
        ("run(study)", False),
    ],
)
def test_what_lacks_one_is_found(code, lacks):
    assert bool(lacking(code)) is lacks


def test_arrow_gets_open_files_and_no_paths():
    """It takes every path for UTF-8, also where the locale, and so the file's name, is not."""
    for name, code in sources():
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            attribute = getattr(call.func, "attr", "")
            if attribute == "write_table" and len(call.args) == 1:
                continue  # of a ParquetWriter, which was given the file
            if attribute in ("read_table", "write_table", "ParquetFile", "ParquetWriter", "read_schema"):
                given = call.args[1 if attribute == "write_table" else 0]
                assert isinstance(given, ast.Call | ast.Name), f"{name}:{call.lineno}"
                assert getattr(given, "id", "") not in ("path", "folder"), f"{name}:{call.lineno}"
