"""Executes the analysis again over a copy of every published run: pages and plots as the present code makes them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from distilbench import chain, paths
from distilbench.report import publish
from distilbench.runs import Run

for page in publish.pages():
    told = publish.told_by(page)
    published = Run(paths.published_root() / told["study"] / told["run_id"])
    with tempfile.TemporaryDirectory() as results:
        copy = Path(results) / told["study"] / told["run_id"]
        shutil.copytree(published.folder, copy)
        chain.analyse(told["study"], [published.run_id], results)
        publish.write_page(page, copy / "notebooks" / publish.NOTEBOOK, published, told["slug"])
        shutil.copytree(copy / "plots", published.folder / "plots", dirs_exist_ok=True)
    print(page.relative_to(paths.repo_root()))
