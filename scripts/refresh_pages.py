"""Derives again what the published runs derive, from a copy of each: summary, plots, page, as the present code does."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from distilbench import paths, studies
from distilbench.execution import notebooks
from distilbench.publication import publish
from distilbench.report import insights
from distilbench.runs import find
from distilbench.runs.folder import Run

for page in publish.pages():
    told, published = publish.page_metadata(page), publish.run_of(page)
    with tempfile.TemporaryDirectory() as results:
        copy = Path(results) / told["study"] / told["run_id"]
        shutil.copytree(published.folder, copy)
        derived = published.kind.summarise(copy)
        paths.write_json(copy / "summary.json", derived)
        insights.write(Run(copy), derived)
        notebooks.analyse(told["study"], [published.run_id], results)
        for name in ("summary.json", "run_summary.md"):
            shutil.copyfile(copy / name, published.folder / name)
        no_png = shutil.ignore_patterns("*.png")  # as when published
        if (copy / "plots").is_dir():
            shutil.copytree(copy / "plots", published.folder / "plots", dirs_exist_ok=True, ignore=no_png)
        publish.write_page(page, publish.analysis_file(Run(copy)), published, told["slug"])  # reads them
    print(page.relative_to(paths.repo_root()))

for study in studies.STUDIES:
    shown = [run for run in find.published_runs() if run.config["study"] == study]
    for name, text in studies.kind_of(study).showing.rendered(shown).items():
        paths.write_atomic(paths.repo_root() / name, text)
        print(name)

# The picture of the README: a plot has no background, and a dark page would hide its text.
shown = next((paths.published_root() / "distilbert").glob("*-ca55155b")) / "plots" / "throughput_samples_per_s.svg"
plain = shown.read_text(encoding="utf-8").replace("<svg ", '<svg style="background:#fff" ', 1)
paths.write_atomic(paths.repo_root() / "book" / "_static" / "throughput.svg", plain)
