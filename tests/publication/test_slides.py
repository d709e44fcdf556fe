"""The slides: twelve, from published runs and nothing else, readable, and the same bytes each time."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import IN_CI

from distilbench import paths
from distilbench.cli import reading
from distilbench.errors import DistilbenchError, ParameterError, RunError
from distilbench.measurements.calibration import show
from distilbench.measurements.calibration.kind import MEASUREMENT as CALIBRATION
from distilbench.measurements.sweep.show import findings
from distilbench.measurements.sweep.show.slides import deck as deck_of
from distilbench.measurements.sweep.show.slides import pictures as slides_pictures
from distilbench.publication import publish
from distilbench.publication.slides import build as slides
from distilbench.publication.typed_numbers import typed_results
from distilbench.report import charts
from distilbench.runs import find
from distilbench.runs.folder import Run

pptx = pytest.importorskip("pptx", reason="no python-pptx: make env EXTRAS=slides")
powerpoint = pytest.importorskip("distilbench.publication.slides.powerpoint")

ROOT = Path(__file__).resolve().parents[2]
RULER = {"run_id": "", "caption": "", "table": "", "readings_sha256": ""}


@pytest.fixture(scope="module")
def told() -> dict[str, deck_of.Numbers]:
    return {name: deck_of.numbers_of(slides.published_run(page)) for name, page in deck_of.PAGES.items()}


@pytest.fixture(scope="module")
def drawn(told: dict[str, deck_of.Numbers]) -> dict[str, charts.Shown]:
    return slides_pictures.pictures(**{name: one.run for name, one in told.items()}, lengths=deck_of.LENGTHS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made as the command makes it, from the committed runs, in a folder of the tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        return slides.build(tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="module")
def deck(built: Path) -> Any:
    return pptx.Presentation(str(built))


def text_of(slide: Any) -> str:
    """Everything that a slide shows as text."""
    frames = [shape.text_frame.text for shape in slide.shapes if shape.has_text_frame]
    tables = [shape.table for shape in slide.shapes if getattr(shape, "has_table", False)]
    return "\n".join(frames + [cell.text for table in tables for cell in table.iter_cells()]).replace("\u00a0", " ")


def notes_of(slide: Any) -> str:
    return slide.notes_slide.notes_text_frame.text if slide.has_notes_slide else ""


def slide_with(deck: Any, words: str) -> str:
    """What the one slide shows whose title has these words."""
    (found,) = (slide for slide in deck.slides if words in slide.shapes.title.text)
    return text_of(found)


# ------------------------------------------------------------------ what there is


def test_twelve_slides_of_16_to_9(deck):
    assert len(deck.slides) == 12
    assert deck.slide_width * 9 == deck.slide_height * 16


def test_each_slide_has_a_title_and_notes(deck):
    for slide in deck.slides:
        assert len(slide.shapes.title.text) > 10
        assert len(notes_of(slide)) > 100, slide.shapes.title.text


def test_the_first_names_version_and_newest_day(deck, told):
    newest = max(one.run.config["created"][:10] for one in told.values())
    assert f"distilbench {deck_of.metadata.version('distilbench')}; newest run of {newest}" in text_of(deck.slides[0])


def test_pictures_are_drawn_in_full_and_described(deck, drawn):
    """Where a font is not there, vl-convert leaves all text away without a word: the axis must have its title."""
    from PIL import Image

    pictures = [shape for slide in deck.slides for shape in slide.shapes if hasattr(shape, "image")]
    described = [picture.element.find(".//{*}cNvPr").get("descr") for picture in pictures]
    assert sorted(described) == sorted(shown.alt_text for shown in drawn.values())
    for picture in pictures:
        image = Image.open(io.BytesIO(picture.image.blob)).convert("L")
        assert image.width > 1400
        assert image.crop((0, 0, image.width // 20, image.height)).getextrema()[0] < 100


def boxes(slide: Any) -> list[tuple[str, int, int, int, int]]:
    return [(s.name, s.left, s.top, s.left + s.width, s.top + s.height) for s in slide.shapes]


def test_nothing_leaves_the_slide_or_covers_anything(deck):
    for slide in deck.slides:
        placed = boxes(slide)
        for i, (name, left, top, right, bottom) in enumerate(placed):
            where = f"{name} of {slide.shapes.title.text!r}"
            assert 0 <= left < right <= deck.slide_width, where
            assert 0 <= top < bottom <= deck.slide_height, where
            for other in placed[i + 1 :]:
                assert right <= other[1] or other[3] <= left or bottom <= other[2] or other[4] <= top, (where, other[0])


def test_shapes_have_ids_and_placeholders_of_their_own(deck):
    """Pandoc gives some the same; a program may then take the file for damaged."""
    for slide in deck.slides:
        ids = [shape.shape_id for shape in slide.shapes]
        placeholders = [shape.placeholder_format.idx for shape in slide.placeholders]
        assert len(set(ids)) == len(ids)
        assert min(ids) > 1, "1 is the slide's own"
        assert len(set(placeholders)) == len(placeholders)


def test_the_reference_document_has_the_places_and_the_colour_that_the_code_counts_on():
    layouts = {layout.name: layout for layout in pptx.Presentation(str(powerpoint.REFERENCE)).slide_layouts}
    for name, number, place in (("Title and Content", 1, powerpoint.BODY), ("Two Content", 2, powerpoint.RIGHT)):
        (shape,) = (one for one in layouts[name].placeholders if one.placeholder_format.idx == number)
        inches = [length / 914400 for length in (shape.left, shape.top, shape.width, shape.height)]
        assert inches == pytest.approx(place, abs=1e-5)
    with zipfile.ZipFile(powerpoint.REFERENCE) as entries:
        theme = entries.read("ppt/theme/theme1.xml").decode()
    assert f'<a:accent1><a:srgbClr val="{charts.PALETTE[0].removeprefix("#")}"' in theme, "the colour of the charts"


# ------------------------------------------------------------------ where the numbers come from


class Hidden:
    """A value that counts and compares as it is, and is written out as #."""

    def __format__(self, spec: str) -> str:
        return "#"


class HiddenInt(Hidden, int):
    pass


class HiddenFloat(Hidden, float):
    pass


class HiddenText(Hidden, str):
    __slots__ = ()


def hidden(one: deck_of.Numbers) -> deck_of.Numbers:
    kinds = {int: HiddenInt, float: HiddenFloat, str: HiddenText}
    return deck_of.Numbers(one.run, {name: kinds[type(value)](value) for name, value in one.values.items()})


@pytest.fixture
def rendered(drawn, monkeypatch):
    """Renders the slides of these runs; what is no run's is hidden."""
    monkeypatch.setattr(deck_of.metadata, "version", HiddenText)
    monkeypatch.setattr(findings, "WORTH", HiddenFloat(findings.WORTH))
    unseen = charts.Shown(None, HiddenText(), HiddenText())
    instruments = {"calibration": dict.fromkeys(RULER, HiddenText())}
    return lambda told: deck_of.render(told, instruments, dict.fromkeys(drawn, unseen))


def typed(markdown: str) -> list[str]:
    return typed_results(markdown.replace("SHA-256", "").replace("\u00a0", " "))


def test_no_number_is_typed(told, rendered):
    markdown = rendered({name: hidden(one) for name, one in told.items()})
    assert typed(markdown) == []
    assert markdown.count("#") > 200


@pytest.mark.parametrize(
    "text",
    [
        "It takes 12.3 ms",
        "{{ 12.3 | shown }} ms",
        '{{ "12.3" }} ms',
        '{{ small["repetitions"] * 2 }}',
        "four times as many",
    ],
)
def test_a_typed_number_is_found(told, rendered, monkeypatch, tmp_path, text):
    template = tmp_path / "slides.md.j2"
    template.write_text(deck_of.TEMPLATE.read_text() + f"\n{text}\n")
    monkeypatch.setattr(deck_of, "TEMPLATE", template)
    assert typed(rendered({name: hidden(one) for name, one in told.items()}))


def parts(markdown: str) -> list[tuple[str, str]]:
    """Per slide what it shows, and its notes; the title slide is left out."""
    every = re.split(r"^# ", markdown, flags=re.MULTILINE)[1:]
    return [(shown, notes) for shown, _, notes in (part.partition("::: notes") for part in every)]


def test_notes_name_every_run_that_a_slide_has_a_number_of(told, rendered):
    """What changes when a run's values are hidden has them from this run."""
    plain = parts(rendered(told))
    for name, one in told.items():
        without = parts(rendered(told | {name: hidden(one)}))
        using = [notes for (shown, notes), (other, _) in zip(plain, without, strict=True) if shown != other]
        assert len(using) >= 3
        sha256 = paths.sha256_file(paths.published_root() / "distilbert" / one.run.run_id / "raw.jsonl")
        for notes in using:
            assert f"Run {one.run.run_id}; SHA-256 of its raw.jsonl: {sha256}." in notes


def test_notes_name_the_calibration(deck):
    (slide,) = (slide for slide in deck.slides if "instrument" in slide.shapes.title.text)
    folder = find.published_instrument(CALIBRATION, "full")
    assert folder.name in notes_of(slide)
    assert paths.sha256_file(folder / "checks.jsonl") in notes_of(slide)


def cell(run: Run, policy: str, size: int) -> dict[str, Any]:
    """A cell as the run's summary has it."""
    cells = paths.read_json(run.folder / "summary.json")["cells"]
    return next(c for c in cells if c["length_policy"] == policy and c["batch_size"] == size)


def spanned(of: dict[str, Any], name: str, spec: str, interval: str = "_range") -> str:
    """As the slides have it; of five processes the interval of the median is their range."""
    low, high = of[f"{name}{interval}"]
    unstable = ", unstable" if of.get("state") == "unstable" and interval == "_range" else ""
    return f"{of[name]:{spec}} ({low:{spec}} to {high:{spec}}{unstable})"


def test_numbers_are_those_of_the_runs(deck, told):
    """Read from the summaries by another way than the slides take."""
    small, large, kept = (one.run for one in told.values())
    rates = slide_with(deck, "times the throughput")
    for run, size in ((small, 1), (small, 16), (large, 1), (large, 16)):
        assert spanned(cell(run, "fixed-32", size), "throughput_samples_per_s", ".0f") in rates
    times = slide_with(deck, "answered soonest")
    for run, size, spec in ((small, 1, ".1f"), (small, 32, ".0f"), (large, 1, ".1f"), (large, 16, ".0f")):
        assert f"{spanned(cell(run, 'fixed-32', size), 'latency_ms', spec)} ms" in times
    assert f"{cell(small, 'fixed-32', 1)['latency_request_ms']:.1f} ms" in times
    padding = slide_with(deck, "Padding")
    assert f"{cell(small, 'longest', 32)['padding_share']:.0%} of the positions" in padding
    for run, size in ((small, 16), (small, 32), (large, 8), (large, 16)):
        assert spanned(cell(run, "longest", size), "throughput_samples_per_s", ".0f") in padding
    heap = slide_with(deck, "fetch memory")
    for run, size in ((small, 32), (small, 16)):
        low, high = cell(run, "fixed-128", size)["iterations_ms"]["page_faults"]
        assert f"{low:,.0f} to {high:,.0f}" in heap
    assert f"at most {cell(kept, 'fixed-128', 32)['iterations_ms']['page_faults'][1]:,.0f}" in heap
    for run in (small, kept):
        assert spanned(cell(run, "fixed-128", 32), "throughput_samples_per_s", ".1f") in heap
    limits = slide_with(deck, "adds little memory")
    for run, size in ((small, 1), (small, 32), (large, 1), (large, 16)):
        assert f"{cell(run, 'fixed-32', size)['roofline']['fraction']:.0%}" in limits
    assert f"{cell(small, 'fixed-128', 32)['memory']['delta_rss_MiB']:.0f} MiB with the largest batch" in limits
    about, first = slide_with(deck, "What was measured"), cell(small, "fixed-32", 1)
    assert f"fixed-32: {spanned(first, 'accuracy', '.3f', '_wilson_95')}" in about, "of the cells whose times are shown"
    assert f"n = {first['accuracy_n']}" in about
    data = paths.read_json(small.folder / "data.json")
    over = round(data["tokens"]["share_over"]["32"] * data["rows"]) / data["rows"]
    assert f"fixed-32: {over:.1%}" in about
    for run in (small, large):
        control = paths.read_json(run.folder / "summary.json")["control"]
        assert spanned(control, "ratio", ".3f", "_interval_95") in slide_with(deck, "to doubt")


def test_pictures_show_the_runs(told, drawn):
    small, large, _ = (one.run for one in told.values())
    (rows,) = drawn["throughput"].drawn.to_dict()["datasets"].values()
    for run, label in ((small, "Half as wide, real weights"), (large, "Real size, random weights")):
        mine = [row for row in rows if row["machine"] == label]
        assert len(mine) >= 5
        for row in mine:
            assert row["value"] == pytest.approx(
                cell(run, "fixed-32", row["batch_size"])["throughput_samples_per_s"], rel=1e-4
            )


def test_the_table_of_the_calibration_has_every_check(deck):
    folder = find.published_instrument(CALIBRATION, "full")
    shown = slide_with(deck, "instrument")
    for check in paths.read_json(folder / "summary.json")["checks"]:
        assert check["measured"].split()[0].rstrip("%") in shown, check
        if check["ok"] is None:
            assert re.search(rf"^{re.escape(check['check'])}\n.*\n.*\nreported$", shown, re.MULTILINE), check


def test_readings_of_a_kind_share_a_row_and_one_that_is_off_stays_apart():
    columns = ("check", "truth", "measured", "held to")
    checks = [
        ("sleep of 1 ms", "1 ms", "1.1 ms", "ok: 1 %"),
        ("sleep of 10 ms", "10 ms", "10.1 ms", "ok: 1 %"),
        ("sleep of 100 ms", "100 ms", "120 ms", "OFF: 1 %"),
        ("slow-down of 5% found", "always", "88% (6 comparisons)", "ok: 95%"),
        ("slow-down of 10% found", "always", "99% (6 comparisons)", "ok: 95%"),
    ]
    rows = show.gathered(pd.DataFrame(checks, columns=columns)).to_numpy().tolist()
    assert rows == [["sleep of 1/10 ms", "1/10 ms", "1.1/10.1 ms", "ok: 1 %"], *map(list, checks[2:])]


def test_the_words_say_what_the_runs_say(told):
    """Beside what test_typed_numbers.py holds the chapter to: words of the slides that no number carries."""
    small, large, kept = told.values()
    for name in ("dtype", "repetitions", "torch", "transformers", "python", "text"):
        assert small[name] == large[name] == kept[name], "captions say it once for all"
    assert small["machine"] == large["machine"] == kept["machine"].removesuffix(", heap kept")
    assert (small["model_source"], large["model_source"]) == ("embedded", "random")
    assert small["model"] == kept["model"]
    assert [one.run.config["parameters"].get("heap", "") == "keep" for one in told.values()] == [False, False, True]
    assert {one.run.config["parameters"]["device"] for one in told.values()} == {"cpu"}, "no GPU"
    assert {name for one in told.values() for name in one.run.config["parameters"]["variants"]} == {"sdpa"}
    for one in (small, large):
        best = one[f"{one.curve('longest')}best-throughput_batch_size"]
        assert best < one["batch_size_last"], "padded to the longest, the best batch is not the largest"
        states = [c["state"] for c in paths.read_json(one.run.folder / "summary.json")["cells"]]
        assert "unstable" in states, "some cells were measured before they had settled"
        assert one[f"{one.cell('fixed-32', 'last')}roofline_fraction"] > 0.5, "most of what the machine can do"
    last = small.cell("fixed-128", "last")
    assert small[f"{last}memory_delta_rss_MiB"] < 0.25 * small[f"{last}peak_memory_MiB"], "adds little memory"
    control = small["control_low"], small["control_high"]
    assert control[0] < 1 < control[1], "equal cells were not told apart"


def test_where_scaling_stops_is_said_as_the_run_has_it(told, rendered):
    small, large, _ = told.values()
    markdown = rendered(told)
    assert f"Batch size {small[small.curve('fixed-32') + 'best-saturated_batch_size']} is the first" in markdown
    assert f"It still grows at batch size {large['batch_size_last']}, the largest measured" in markdown


def changed(one: deck_of.Numbers, alter: Any) -> deck_of.Numbers:
    return deck_of.Numbers(one.run, {name: alter(name, value) for name, value in one.values.items()})


def test_each_number_that_was_timed_says_where_its_cell_is_unstable(told, rendered):
    """A line that changes with a timed number changes with the mark of its cell as well."""

    def hide_timed(name: str, value: Any) -> Any:
        timed = re.search(r"-(latency_\w+|throughput_\w+_per_s(_low|_high)?|gain|efficiency_last)$", name)
        return HiddenFloat(value) if timed and isinstance(value, float) else value

    def unstable(name: str, value: Any) -> Any:
        return " (unstable)" if name.endswith("mark") else value

    def stable(name: str, value: Any) -> Any:
        return "" if name.endswith("mark") else value

    for name, one in told.items():
        base, marked, hidden_ = (
            [line for shown, _ in parts(rendered(told | {name: changed(one, alter)})) for line in shown.splitlines()]
            for alter in (stable, unstable, lambda key, value: hide_timed(key, stable(key, value)))
        )
        timed = [i for i, line in enumerate(base) if line != hidden_[i]]
        assert len(timed) >= 2
        assert [base[i] for i in timed if "unstable" not in marked[i].replace(base[i], "")] == []


def test_what_is_known_of_one_model_is_not_said_of_both(told, rendered):
    (line,) = (line for line in rendered(told).splitlines() if "nearly all the throughput" in line)
    assert "Half as wide" in line
    assert f"at the real size, throughput still grows at {told['large']['batch_size_last']}, the largest" in line


def test_captions_name_brackets_bars_marks_and_what_is_cut(deck, told, drawn):
    small = told["small"].run
    for words in ("times the throughput", "answered soonest", "Padding", "fetch memory"):
        assert "bars: from the lowest to the highest process" in slide_with(deck, words), words
    assert "fixed-32 cuts 27.8% of the sentences of the whole text" in slide_with(deck, "Padding")
    assert "Hollow points are unstable" in slide_with(deck, "Padding"), "the largest batch, padded"
    assert cell(small, "longest", 32)["state"] == "unstable"
    assert drawn["latency"].note == "fixed-32 cuts 27.8% of the sentences of the whole text."
    assert "95 % interval" in slide_with(deck, "Equal processes"), "that of a ratio"


def test_text_of_a_run_is_no_markup():
    assert deck_of.shown("a *b* [c] <d> $e$ `f`") == r"a \*b\* \[c\] \<d\> \$e\$ \`f\`"
    assert deck_of.shown(1234.5, ",.0f") == "1,234"


# ------------------------------------------------------------------ the same each time


@pytest.fixture
def unchecked(monkeypatch):
    """Whether published runs hold is tested elsewhere, and takes long."""
    monkeypatch.setattr(publish, "problems", lambda page: [])
    monkeypatch.setattr(slides.provenance.verify, "problems", lambda folder: [])


def test_equal_runs_give_equal_bytes(built, unchecked, monkeypatch, tmp_path):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    again = slides.build(tmp_path)
    for name in ("slides.md", "slides.pptx"):
        assert again.with_name(name).read_bytes() == built.with_name(name).read_bytes(), name


def dates_in(file: Path) -> set[datetime]:
    with zipfile.ZipFile(file) as entries:
        inside = {datetime(*entry.date_time, tzinfo=UTC) for entry in entries.infolist()}
        core = entries.read("docProps/core.xml").decode()
    stamps = re.findall(r"\d{4}-\d\d-\d\dT[\d:]+Z", core)
    assert len(stamps) == 2
    return inside | {datetime.fromisoformat(stamp) for stamp in stamps}


def test_the_only_time_in_it_is_that_of_the_newest_run(built, told):
    newest = publish.newest()
    assert newest >= max(datetime.fromisoformat(one.run.config["created"]) for one in told.values())
    (date,) = {date.replace(second=date.second // 2 * 2) for date in dates_in(built)}  # zip counts two seconds
    assert date == newest.replace(second=newest.second // 2 * 2, microsecond=0)


def test_source_date_epoch_is_honoured(built, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    given = datetime.fromtimestamp(publish.epoch(), UTC)
    assert given.year == 2023
    assert dates_in(powerpoint.write(built.with_name("slides.md"), tmp_path / "x.pptx", given)) == {given}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ParameterError, match="whole seconds since 1970"):
        slides.build(tmp_path)


# ------------------------------------------------------------------ what is missing is named


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the slides are made from, to be spoilt."""
    for name in ("params", "book/studies", "results/published"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    return tmp_path


def test_a_page_that_is_not_there_is_named(checkout):
    (checkout / "book/studies/distilbert/cpu-random.ipynb").unlink()
    with pytest.raises(RunError, match=r"page distilbert/cpu-random, which is not published: `distilbench publish RUN"):
        slides.published_run("cpu-random")


def test_a_run_that_is_not_there_is_named(checkout, told):
    shutil.rmtree(checkout / "results/published/distilbert" / told["kept"].run.run_id)
    with pytest.raises(RunError, match=rf"shows run {told['kept'].run.run_id}, which is not in"):
        slides.published_run("cpu-embedded-keep")


def test_a_calibration_that_is_not_there_is_named(checkout):
    shutil.rmtree(checkout / "results/published/calibration")
    with pytest.raises(RunError, match=r"slides show .* instrument: no calibration of depth 'full' is published"):
        slides.instruments()


def test_a_number_that_is_not_there_is_named_with_its_run(told, rendered):
    small = told["small"]
    fewer = {name: value for name, value in small.values.items() if name != "control_low"}
    with pytest.raises(RunError, match=rf"need 'control_low', which run {small.run.run_id} does not have"):
        rendered(told | {"small": deck_of.Numbers(small.run, fewer)})


def test_a_plot_that_cannot_be_drawn_says_why(finished_run):
    with pytest.raises(RunError, match=r"need energy_per_sample_J at longest: .* not measured"):
        slides_pictures.chart({"a": finished_run}, ["longest"], "energy_per_sample_J")


def test_without_pandoc_the_way_out_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(slides.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DistilbenchError, match=r"need pypandoc-binary and python-pptx: make env EXTRAS=slides"):
        slides.build(tmp_path)


def test_what_pandoc_complains_of_is_said(tmp_path):
    (tmp_path / "s.md").write_text("# One\n\n![](nowhere.png)\n")
    with pytest.raises(DistilbenchError, match=r"pandoc could not make the slides: .*nowhere\.png"):
        powerpoint.write(tmp_path / "s.md", tmp_path / "s.pptx", datetime(2026, 1, 1, tzinfo=UTC))
    assert [file.name for file in tmp_path.iterdir()] == ["s.md"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("printf 'caf\\351' >&2; exit 5", r"could not make the slides: caf\ufffd"),
        ("exit 5", "could not make the slides: it ended with code 5"),
        ("exit 0", "could not make the slides: it ended with code 0"),
    ],
)
def test_what_pandoc_says_is_not_believed_unseen(tmp_path, monkeypatch, script, said):
    import pypandoc

    pandoc = tmp_path / "pandoc"
    pandoc.write_text(f"#!/bin/sh\n{script}\n")
    pandoc.chmod(0o755)
    monkeypatch.setattr(pypandoc, "get_pandoc_path", lambda: str(pandoc))
    with pytest.raises(DistilbenchError, match=said):
        powerpoint.write(tmp_path / "s.md", tmp_path / "s.pptx", datetime(2026, 1, 1, tzinfo=UTC))


def test_the_command_prints_where_they_are(monkeypatch, capsys):
    monkeypatch.setattr(slides, "build", lambda: Path("/somewhere/slides.pptx"))
    reading.slides()
    assert capsys.readouterr().out.split() == ["slides", "/somewhere/slides.pptx"]


# ------------------------------------------------------------------ as others open it


@pytest.fixture(scope="module")
def pdf(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides as LibreOffice shows them; without it the tests are skipped, but in CI they fail."""
    if missing := [program for program in ("soffice", "pdftotext") if shutil.which(program) is None]:
        reason = f"no {' and no '.join(missing)}: scripts/system_packages.sh installs LibreOffice and Poppler (Debian)"
        (pytest.fail if IN_CI else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("libreoffice")
    command = ["soffice", "--headless", f"-env:UserInstallation=file://{folder}/profile", "--convert-to", "pdf"]
    done = subprocess.run([*command, "--outdir", folder, built], capture_output=True, text=True, check=False)
    assert (folder / "slides.pdf").is_file(), done.stdout + done.stderr
    return folder / "slides.pdf"


def words_of(pdf: Path) -> list[tuple[float, float, list[tuple[str, float, float, float, float]]]]:
    """Per page its width and height, and each word with left, top, right, bottom; in points."""
    told = subprocess.run(["pdftotext", "-bbox", pdf, "-"], capture_output=True, text=True, check=True).stdout
    place = r'xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)"'
    pages = []
    for page in told.split("<page ")[1:]:
        width, height = map(float, re.search(r'width="([\d.]+)" height="([\d.]+)"', page).groups())
        words = [(text, *map(float, ends)) for *ends, text in re.findall(rf"<word {place}>(.*?)</word>", page)]
        pages.append((width, height, words))
    return pages


def test_libreoffice_opens_it_and_shows_twelve_pages(pdf, deck):
    pages = words_of(pdf)
    assert len(pages) == 12
    for slide_number, ((width, height, words), slide) in enumerate(zip(pages, deck.slides, strict=True), 1):
        assert width * 9 == pytest.approx(height * 16, rel=0.001)
        shown = " ".join(text for text, *_ in words)
        assert slide.shapes.title.text.split()[0] in shown
        captions = [shape for shape in slide.shapes if shape.has_text_frame and not shape.is_placeholder]
        if not captions:  # then nothing but the slide's number stands below the content
            foot = (powerpoint.BODY.top + powerpoint.BODY.height + 0.15) * 72
            assert {text for text, _, _, _, bottom in words if bottom * 405 / height > foot} <= {str(slide_number)}


def test_no_text_is_cut_off_or_covers_other_text(pdf):
    """Lines a little closer than their boxes are no harm; a table that runs into the caption is."""
    for number, (width, height, words) in enumerate(words_of(pdf), 1):
        for i, (text, left, top, right, bottom) in enumerate(words):
            assert left >= 0, (number, text)
            assert right <= width, (number, text)
            assert bottom <= height, (number, text)
            for other, its_left, its_top, its_right, its_bottom in words[i + 1 :]:
                wide = min(right, its_right) - max(left, its_left)
                high = min(bottom, its_bottom) - max(top, its_top)
                limit = 0.45 * min(bottom - top, its_bottom - its_top)
                assert wide <= 1 or high <= limit, f"page {number}: {text!r} and {other!r} cover each other"
