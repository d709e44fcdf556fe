"""Writes the files of a baseline into its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.measurements.sweep.show.baseline import metrics, pictures, report
from distilbench.report import export
from distilbench.report.charts import png
from distilbench.runs.folder import Run


def write(run: Run, folder: Path, quoted: Sequence[dict[str, Any]] = ()) -> list[Path]:
    """Writes baseline_metrics.json, detailed_metrics.csv, baseline_summary_report.txt and two pictures.

    Args:
        run: finished.
        folder: where they go; the run's own, or where what is made of a published run goes (`load.output_folder`).
        quoted: what others say of it (`report.text`).
    """
    found = metrics.metrics(run)
    content: dict[str, str | bytes] = {
        "detailed_metrics.csv": export.csv(run) + "\n",
        "baseline_summary_report.txt": report.text(run, found, quoted),
    }
    if found["batch_sizes"]:
        content["plots/batch_size_comparison.png"] = png(pictures.comparison(found), scale=2)
        content["plots/metrics_heatmap.png"] = png(pictures.heatmap(found), scale=2)
    paths.write_json(folder / "baseline_metrics.json", found)
    for name, what in content.items():
        paths.write_atomic(folder / name, what)
    return [folder / name for name in ("baseline_metrics.json", *content)]
