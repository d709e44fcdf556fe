"""What makes a study whole: parameters, entry, notebooks, chapter (see CONTRIBUTING.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from distilbench.runs import parameters

HEADINGS = ["Question", "Protocol", "Results", "Takeaways", "Threats to validity", "Versions"]
ENTRY, ROW = {"question", "notebooks", "headline"}, {"what", "value"}  # a row may have form, low and high as well


def lacking(root: Path, study: str) -> list[str]:
    """What a study lacks in a checkout; none: it is whole."""
    entry = yaml.safe_load((root / "params" / "studies.yml").read_text()).get(study)
    if entry is None:
        return [f"params/studies.yml has no entry {study!r}"]
    found = _of_entry(root, entry)
    profiles = (root / "params" / study / f"{profile}.yml" for profile in parameters.PROFILES)
    found += [f"there is no {file.relative_to(root)}" for file in profiles if not file.is_file()]
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    below = {chapter["file"]: chapter.get("sections") for part in toc["parts"] for chapter in part["chapters"]}
    if f"studies/{study}/index" not in below:
        found.append(f"_toc.yml does not list studies/{study}/index")
    elif below[f"studies/{study}/index"] != [{"glob": f"studies/{study}/*"}]:
        found.append(f"_toc.yml does not have studies/{study}/* below the chapter: published runs would have no page")
    chapter = root / "book" / "studies" / study / "index.md"
    return found + (_of_chapter(chapter, entry) if chapter.is_file() else [f"there is no {chapter.relative_to(root)}"])


def _of_entry(root: Path, entry: dict[str, Any]) -> list[str]:
    found = [f"params/studies.yml: {name} is not known" for name in entry.keys() - ENTRY]
    found += [f"params/studies.yml: {name} is missing" for name in sorted(ENTRY) if not entry.get(name)]
    notebooks = [root / "notebooks" / f"{name}.ipynb" for name in entry.get("notebooks") or []]
    found += [f"there is no {file.relative_to(root)}" for file in notebooks if not file.is_file()]
    wrong = [row for row in entry.get("headline") or [] if not set(row) >= ROW]
    return found + [f"params/studies.yml: a headline row needs {', '.join(sorted(ROW))}: {row}" for row in wrong]


def _of_chapter(chapter: Path, entry: dict[str, Any]) -> list[str]:
    text = chapter.read_text()
    found = [] if text.startswith("# ") else [f"{chapter.name} does not begin with a title"]
    if (headings := re.findall(r"^## (.+)$", text, re.MULTILINE)) != HEADINGS:
        found.append(f"{chapter.name} has the headings {headings}, not {HEADINGS}")
    if " ".join(str(entry.get("question")).split()) not in " ".join(text.split()):
        found.append(f"{chapter.name} asks another question than params/studies.yml")
    return found
