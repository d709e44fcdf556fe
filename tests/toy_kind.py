"""The toy kind of measurement of CONTRIBUTING.md, added to a copy of the checkout as the page says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import nbformat
import yaml

from distilbench import paths

PAGE = (paths.repo_root() / "CONTRIBUTING.md").read_text()
SECTION = PAGE.partition("## Add a kind of measurement\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^   ```\w+\n   # (\S+)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^   ```bash\n(.*?)^   ```$", SECTION, re.MULTILINE | re.DOTALL)


def notebook_of(text: str) -> nbformat.NotebookNode:
    """A notebook from cells separated by `# %%`."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        what, _, source = part.partition("\n")
        if "[markdown]" in what:
            cells.append(nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", source.strip(), flags=re.MULTILINE)))
        else:
            cells.append(nbformat.v4.new_code_cell(source.strip(), metadata={"tags": what.split()}))
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def add_to_the_contents(file: Path, text: str) -> None:
    toc = yaml.safe_load(file.read_text())
    next(part["chapters"] for part in toc["parts"] if part["caption"] == "Results").extend(yaml.safe_load(text))
    file.write_text(yaml.safe_dump(toc, sort_keys=False))


def add_the_entry(registry: Path, kind: str, model: str) -> None:
    text, known = registry.read_text(), "from distilbench.measurements."
    text = re.sub(r"^(KINDS = \(\n(?: .*\n)+)", rf'\1    "{kind}",\n', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^(STUDIES: .* = {)$", rf'\1\n    "{kind}": {model},', text, count=1, flags=re.MULTILINE)
    registry.write_text(text.replace(known, f"{known}{kind}.params import {model}\n{known}", 1))


def follow(checkout: Path) -> set[str]:
    """Does what the page says; returns the files that it makes or changes."""
    for name, indented in BLOCK.findall(SECTION):
        file, text = checkout / name, textwrap.dedent(indented)
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".ipynb"):
            nbformat.write(notebook_of(text), file)
        elif name == "_toc.yml":
            add_to_the_contents(file, text)
        elif name == "params/studies.yml":
            file.write_text(file.read_text() + text)
        else:
            file.write_text(text)
    add_the_entry(checkout / "distilbench" / "studies.py", "copies", "CopiesParams")
    return {name for name, _ in BLOCK.findall(SECTION)} | {"distilbench/studies.py"}
