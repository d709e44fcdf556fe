"""No result is typed into the report: a digit in prose is glued, quoted with a source, or a name, version or date."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from distilbench import paths, runs
from distilbench.report import glue, publish
from distilbench.report.prose import typed_results

BOOK = Path(__file__).resolve().parents[1] / "book"
CHAPTERS = sorted(file for file in BOOK.rglob("*.md") if "_build" not in file.parts)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda file: str(file.relative_to(BOOK)))
def test_no_result_is_typed(chapter):
    assert typed_results(chapter.read_text()) == []


@pytest.mark.parametrize("page", publish.pages(), ids=lambda file: file.stem)
def test_no_result_is_typed_into_a_published_notebook(page):
    """Its first cell and the ends of its captions are rendered from the run, and compared with it elsewhere."""
    told = publish.told_by(page)
    measured_on = publish.measured_on(runs.Run(paths.published_root() / told["study"] / told["run_id"]))
    for cell in nbformat.read(page, 4).cells[1:]:
        if cell.cell_type == "markdown":
            assert typed_results(cell.source) == []
        elif figure := cell.metadata.get("mystnb", {}).get("figure"):
            assert figure.caption.endswith(measured_on)
            assert typed_results(figure.caption.removesuffix(measured_on)) == []


@pytest.mark.parametrize(
    "text",
    [
        "It takes 12.3 ms.",
        "a gain of `1.78x`",
        "| batch 8 | fast |",
        "{quoted}`1.6 times`",
        "{glue:text}`latency:.1f` of 8",
        "fixed-32 gave 400",
        "```\n12 ms\n```",
        "# The 11x",
        "```bash\nmake smoke  # 3 minutes\n```",
        ":alt: 12 ms",
        "It is twice as fast, or four\ntimes.",
    ],
)
def test_a_typed_result_is_found(text):
    assert typed_results(text)


@pytest.mark.parametrize(
    "text",
    [
        "{glue:text}`studies/distilbert/cpu-embedded.ipynb::sdpa-fixed-32-b8-latency_ms:.1f` ms",
        "{quoted}`63 ms <sanh2019distilbert>`, {cite:p}`hu2022lora`",
        "(page-2)=\n# SST-2 under Apache-2.0, measured 2026-11-22 with torch 2.13.0 at `fixed-32`.",
        "```bash\nmake smoke -j 3  # some minutes\n```",
        ":name: tab-2\n[a link](https://x.org/1)",
    ],
)
def test_names_versions_dates_and_taken_numbers_may_stand(text):
    assert typed_results(text) == []


# ------------------------------------------------------------------ what the distilbert chapter concludes


def measured(page: str) -> dict:
    told = publish.told_by(publish.pages_root() / "distilbert" / f"{page}.ipynb")
    return glue.values(runs.Run(paths.published_root() / told["study"] / told["run_id"]))


def each(values: dict, policy: str, name: str) -> list[float]:
    """One number of a curve by batch size, smallest first."""
    found = {re.search(r"-b(\d+)-", key): value for key, value in values.items() if key.endswith(f"-{name}")}
    of_policy = {int(size[1]): value for size, value in found.items() if size and f"-{policy}-b" in size.string}
    return [of_policy[size] for size in sorted(of_policy)]


@pytest.mark.parametrize("page", ["cpu-embedded", "cpu-random"])
def test_the_chapter_says_what_its_runs_say(page):
    """Words that no role can take from a run: if a new run contradicts one of them, the chapter must change."""
    values = measured(page)
    for policy in ("fixed-32", "longest"):
        latency = each(values, policy, "latency_ms")
        assert latency == sorted(latency), "latency is lowest with one sentence, and grows with the batch"
    fixed = each(values, "fixed-32", "throughput_samples_per_s")
    assert fixed[0] == min(fixed), "batching gains at fixed length"
    plateau = [value for value in fixed if value >= 0.95 * max(fixed)]
    assert max(plateau) / min(plateau) - 1 < values["latency_spread_max"], "no batch size on it is the best"
    assert fixed[-1] in plateau, "at fixed length it does not fall"
    stops = values["sdpa-fixed-32-best-saturated_batch_size"] < values["batch_size_last"]
    assert stops == (page == "cpu-embedded"), "in the other, throughput still grows at the largest batch"
    longest = each(values, "longest", "throughput_samples_per_s")
    assert longest[0] < max(longest), "padded to the longest, a small batch gains"
    assert longest[-1] < 0.95 * max(longest), "and a large one loses"
    assert not any("energy" in name for name in values), "the machine has no counter"
    assert values["machine"].endswith("2 cores")
    assert values["control_low"] < 1 < values["control_high"], "equal cells were not told apart"
    small, large = (each(values, "fixed-32", "roofline_fraction")[i] for i in (0, -1))
    assert small < 0.5 < large, "a small matrix product cannot keep the cores busy"


def test_what_the_chapter_says_of_the_heap():
    """Page faults go with a kept heap; the runs were made one after the other, so the hour counts as well."""
    given, kept = measured("cpu-embedded"), measured("cpu-embedded-keep")
    rates = each(given, "fixed-128", "throughput_samples_per_s"), each(kept, "fixed-128", "throughput_samples_per_s")
    half, largest = ([given[f"sdpa-fixed-128-b{n}-latency_ms_{end}"] / n for end in ("low", "high")] for n in (16, 32))
    assert half[0] < largest[1], "whether the largest batch loses is not known"
    assert largest[0] < half[1], "whether the largest batch loses is not known"
    assert rates[1][-1] > 1.05 * rates[0][-1]
    assert rates[1][0] > rates[0][0], "part of the difference is the hour"
    assert max(given["sdpa-fixed-128-b1-page_faults_high"], kept["sdpa-fixed-128-b1-page_faults_high"]) < 100
    for values, few in ((given, False), (kept, True)):
        assert (values["sdpa-fixed-128-b32-page_faults_high"] < 2000) == few
    assert given["sdpa-fixed-128-b16-page_faults_high"] > 10 * given["sdpa-fixed-128-b16-page_faults_low"], "by luck"
    request = given["sdpa-fixed-32-b1-latency_request_ms"]
    assert given["sdpa-fixed-32-b1-request_forward_ms"] > 0.9 * request, "nearly all of it is the forward"
