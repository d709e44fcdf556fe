"""No result is typed into the report: a digit in prose is glued, quoted with a source, or a name, version or date."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from distilbench import paths
from distilbench.measurements.sweep.show.numbers import mark_of
from distilbench.publication import provenance, publish
from distilbench.publication.typed_numbers import typed_results
from distilbench.report import glue, load, tables

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(file for file in BOOK.rglob("*.md") if "_build" not in file.parts)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda file: str(file.relative_to(BOOK)))
def test_no_result_is_typed(chapter):
    assert typed_results(chapter.read_text()) == []


@pytest.mark.parametrize("page", publish.pages(), ids=lambda file: file.stem)
def test_no_result_is_typed_into_a_published_notebook(page):
    """Its first cell and the captions of its figures are rendered from the run, and compared with it elsewhere."""
    for cell in nbformat.read(page, 4).cells[1:]:
        if cell.cell_type == "markdown":
            assert typed_results(cell.source) == []


@pytest.mark.parametrize("notebook", sorted((BOOK.parent / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_no_result_is_typed_into_a_caption(notebook):
    for cell in nbformat.read(notebook, 4).cells:
        assert typed_results(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")) == []


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
    return glue.values(publish.run_of(publish.pages_root() / "distilbert" / f"{page}.ipynb"))


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


# ------------------------------------------------------------------ what must stand beside a number, wherever it stands

TAKEN = re.compile(r"\{glue:text\}`(?:[\w./-]*/)?([\w-]+)\.ipynb::([\w.-]+):[^`]*`")
OF_THE_STUDY = [BOOK / "results.md", BOOK / "studies" / "distilbert" / "index.md"]


def blocks(chapter: Path) -> list[str]:
    """Paragraphs, points of lists and rows of tables: what a reader takes in at once."""
    return re.split(r"\n\s*\n|\n(?=- )|\n(?=\|)", chapter.read_text(encoding="utf-8"))


def taken(text: str) -> set[tuple[str, str]]:
    """(page, name) of each number in a text."""
    return set(TAKEN.findall(text))


@pytest.mark.parametrize("chapter", OF_THE_STUDY, ids=lambda file: file.stem)
def test_a_number_of_an_unstable_cell_is_marked_where_it_stands(chapter):
    unmarked = [
        (page, name)
        for block in blocks(chapter)
        for page, name in taken(block)
        if (mark := mark_of(name)) and measured(page)[mark] and (page, mark) not in taken(block)
    ]
    assert unmarked == []


def test_the_chapter_has_unstable_cells_to_mark():
    every = {pair for chapter in OF_THE_STUDY for pair in taken(chapter.read_text(encoding="utf-8"))}
    assert len([name for page, name in every if name.endswith("mark") and measured(page)[name]]) >= 4


@pytest.mark.parametrize("chapter", OF_THE_STUDY, ids=lambda file: file.stem)
def test_where_scaling_stops_in_one_model_it_is_said_of_the_other_too(chapter):
    """One of them still grows at its largest batch: what holds of one must not read as if it held of both."""
    saying = [block for block in blocks(chapter) if "best-saturated_batch_size" in block]
    assert saying
    for block in saying:
        assert {page for page, _ in taken(block)} == {"cpu-embedded", "cpu-random"}, block
        assert "still grows" in block


@pytest.mark.parametrize("chapter", OF_THE_STUDY, ids=lambda file: file.stem)
def test_what_a_length_cuts_is_said_wherever_its_times_are(chapter):
    text = chapter.read_text(encoding="utf-8")
    for page, name in taken(text):
        policy = (re.search(r"-(fixed-\d+|longest)-", name) or [None, ""])[1]
        if mark_of(name) and page != "cpu-embedded-keep" and measured(page)[f"{policy}-truncated_share"] > 0:
            shares = {("cpu-embedded", f"{policy}-truncated_share"), ("cpu-embedded", f"{policy}-truncated_of")}
            assert shares <= taken(text), name


@pytest.mark.parametrize("chapter", OF_THE_STUDY, ids=lambda file: file.stem)
def test_the_accuracy_that_is_told_is_that_of_the_cells_whose_latency_is_told(chapter):
    every = taken(chapter.read_text(encoding="utf-8"))
    first = {(page, name) for page, name in every if re.fullmatch(r"sdpa-fixed-32-b1-latency_ms", name)}
    assert first
    for page, name in first:
        accuracy = name.replace("latency_ms", "accuracy")
        assert accuracy not in measured(page) or (page, accuracy) in every


def test_lengths_that_are_overlaid_are_told_apart_by_what_they_cut():
    """The chapter compares how curves bend, not how high they are: fixed-32 is another task."""
    values = measured("cpu-embedded")
    assert values["fixed-32-truncated_share"] > 0.2
    assert values["longest-truncated_share"] == values["fixed-128-truncated_share"] == 0
    assert values["fixed-32-truncated_of"] in ("of the whole text", "of a cycle")
    accuracy = [values[f"sdpa-{policy}-b1-accuracy"] for policy in ("fixed-32", "longest")]
    assert accuracy[0] < accuracy[1], "cut sentences are classified from less"


@pytest.mark.parametrize("page", publish.pages(), ids=lambda page: page.stem)
def test_a_page_says_what_its_run_cannot_say(page):
    """All of it, and nothing else: the causes of doubt are part of what is published."""
    run = provenance.run_of(str(page.relative_to(provenance.book_root())))
    texts = ["".join(o["data"]["text/markdown"]) for c in paths.read_json(page)["cells"] for o in c.get("outputs", [])
             if "text/markdown" in o.get("data", {})]  # fmt: skip
    wanted = tables.markdown(load.limitations([run]))
    assert any(wanted in text for text in texts)
