"""The book as people build it and see it: two real builds in a copy of the checkout, then every page in a browser."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import checkouts
import nbformat
import pytest
import synthetic
import yaml
from pages import Complaints, browser, patient, served

from distilbench import paths
from distilbench.errors import DistilbenchError
from distilbench.machine import environment
from distilbench.publication import build as building
from distilbench.publication import provenance, publish
from distilbench.report import glue
from distilbench.runs.folder import Run

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
THEMES = ["light", "dark"]
#: In the dark only colours differ: a page with code, one of numbers, one of charts and tables, and the search.
OF_EACH_KIND = ("cluster.html", "results.html", "your-run.html", "search.html")


def call(checkout: Path, *command: str) -> subprocess.CompletedProcess:
    env = os.environ | {"DISTILBENCH_ROOT": str(checkout), "DISTILBENCH_RESULTS": str(checkout / "results")}
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def bare_build(checkout: Path) -> subprocess.CompletedProcess:
    return call(checkout, str(BIN / "jupyter-book"), "build", "book", "-W", "-n", "--keep-going")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkouts.of_the_book(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def committed(checkout: Path) -> subprocess.CompletedProcess:
    """The committed content, built with the bare command."""
    return bare_build(checkout)


@pytest.fixture(scope="session")
def html(checkout: Path, committed: subprocess.CompletedProcess, captured: dict) -> Path:
    """The book with a page for one's own run, which `distilbench book` analyses first."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(environment, "capture", lambda: captured)
        run = synthetic.finished_run(results_root=str(checkout / "results"), profile="smoke", min_cycles=1)
    done = call(checkout, str(BIN / "distilbench"), "book")
    assert done.returncode == 0, done.stderr
    page = checkout / "book" / "_build" / "html" / "your-run.html"
    assert done.stdout.split() == ["your", "run", str(page)]
    assert run.run_id in page.read_text()
    return page.parent


# ------------------------------------------------------------------ building


def test_this_is_jupyter_book_1():
    """Jupyter Book 2 reads neither of the two configuration files, builds nothing and ends with exit code 0."""
    assert importlib.metadata.version("jupyter-book").startswith("1.")


def test_configuration_is_linked():
    for name in ("_config.yml", "_toc.yml"):
        assert (ROOT / "book" / name).is_symlink()
        assert (ROOT / "book" / name).resolve() == ROOT / name


def test_the_bare_command_builds_committed_content_without_a_warning(checkout, committed):
    assert committed.returncode == 0, committed.stdout + committed.stderr
    html = checkout / "book" / "_build" / "html"
    pages = {str(file.relative_to(html).with_suffix("")) for file in html.rglob("*.html")}
    sources = {
        str(file.relative_to(ROOT / "book").with_suffix("")) for file in (ROOT / "book" / "studies").rglob("*.*")
    }
    assert sources <= pages
    assert "your-run" not in pages


def test_a_page_whose_run_is_gone_stops_the_build_by_name(tmp_path, monkeypatch):
    copy = checkouts.of_the_book(tmp_path / "checkout")
    run = next((copy / "results" / "published").glob("*/*/status.json")).parent
    shutil.rmtree(run)
    monkeypatch.setenv("DISTILBENCH_ROOT", str(copy))
    with pytest.raises(DistilbenchError, match=rf"shows run {run.name}, which is not in"):
        building.build()


def test_a_second_build_at_once_is_refused(tmp_path, start_process):
    copy = checkouts.of_the_book(tmp_path / "checkout")
    holder = start_process(
        "import sys; from distilbench.publication import build\n"
        "with build.build_lock(): print('ready', flush=True); sys.stdin.readline()",
        root=copy,
    )
    done = call(copy, str(BIN / "distilbench"), "book")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the book is being built by another process (held by process {holder.pid} ")


def test_what_the_builder_complains_of_is_said(monkeypatch):
    with pytest.raises(DistilbenchError, match=r"WARNING: no such label") as failed:
        building._call([sys.executable, "-c", "print('fine'); print('x.md:1: WARNING: no such label'); exit(1)"])
    assert "fine" not in str(failed.value)
    with pytest.raises(DistilbenchError, match="only this"):
        building._call([sys.executable, "-c", "print('only this'); exit(1)"])


def test_without_jupyter_book_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(building.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DistilbenchError, match="make env EXTRAS=book"):
        building.build()


# ------------------------------------------------------------------ where numbers come from


def test_every_number_of_the_book_is_given_by_raw_files(checkout, committed):
    done = call(checkout, str(BIN / "distilbench"), "verify", "book", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == []
    assert told["numbers"] > 100


def test_a_changed_raw_value_is_found_in_the_built_book(checkout, committed, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, symlinks=True)
    raw = next((copy / "results" / "published" / "distilbert").glob("*/raw.jsonl"))
    first = next(line for line in raw.read_text().splitlines() if '"pass":"timing"' in line and "fixed-32-b001" in line)
    latency = json.loads(first)["latency_ms"]
    raw.write_text(raw.read_text().replace(f'"latency_ms":{latency},', f'"latency_ms":{10 * latency},', 1))
    done = call(copy, str(BIN / "distilbench"), "verify", "book")
    assert done.returncode == 1
    named = [line for line in done.stdout.splitlines() if "b1-latency_ms" in line and "the raw files give" in line]
    assert any(line.startswith("results.html: ") for line in named), done.stdout


def test_what_was_shown_before_does_not_stay(checkout, committed, tmp_path, monkeypatch):
    """A second build in the same place: one's own run is gone, and numbers in chapters are those of the page now."""
    built = checkout / "book" / "_build" / "html"
    (built / "your-run.html").touch()
    page = checkout / "book" / "studies" / "distilbert" / "cpu-embedded.ipynb"
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout))
    told = publish.page_metadata(page)
    run = Run(paths.published_root() / told["study"] / told["run_id"])
    kept = {file: file.read_bytes() for file in (page, run.folder / "model.json")}
    model = paths.read_json(run.folder / "model.json") | {"name": "A model of another name"}
    paths.write_json(run.folder / "model.json", model)
    notebook = nbformat.read(page, 4)
    notebook.cells[0].source = publish.header(run, told["slug"])
    for figure in (cell.metadata["mystnb"]["figure"] for cell in notebook.cells if "mystnb" in cell.metadata):
        figure["caption"] = publish.caption(run, figure["name"])
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == "model":
            output.data[f"{glue.HIDDEN}text/plain"] = repr(model["name"])
    nbformat.write(notebook, page)
    done = bare_build(checkout)
    for file, content in kept.items():
        file.write_bytes(content)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A model of another name" in (built / "results.html").read_text()
    assert not (built / "your-run.html").exists()


def test_a_number_says_under_the_pointer_where_it_comes_from(html):
    text = (html / "results.html").read_text()
    titles = re.findall(r'class="db-number"[^>]* title="([^"]+)"', text)
    assert len(titles) > 20
    assert all(re.fullmatch(r"\S+ of run \S+; raw\.jsonl has SHA-256 [0-9a-f]{64}", title) for title in titles)
    assert "The numbers of this page come from" in text


def test_captions_of_published_pages_name_their_run(html):
    for page in publish.pages():
        run_id, raw = publish.run_of(page).run_id, re.escape(publish.run_of(page).raw.name)
        text = (html / page.relative_to(provenance.book_root()).with_suffix(".html")).read_text()
        numbered = r'<span class="caption-number">[^<]+</span><span class="caption-text">(.*?)<a class="headerlink"'
        captions = re.findall(numbered, text, re.DOTALL)
        assert len(captions) > 5
        for caption in captions:
            assert re.search(rf'\. From <span class="db-source"[^>]*>run {run_id} \({raw}', caption), caption


def test_a_link_to_a_claim_leads_to_its_section(html):
    text = (html / "claims.html").read_text()
    sections = re.findall(r'<section id="[^"]+">\s*<span id="(claim-[^"]+)"></span><h2>', text)
    assert sections == re.findall(r'href="#(claim-[^"]+)"', text)
    assert len(sections) >= 5


def test_an_unknown_number_and_one_without_its_source_stop_the_build(tmp_path):
    copy = checkouts.of_the_book(tmp_path / "checkout")
    (copy / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "bibliography"}))
    page = copy / "book" / "bibliography.md"
    lines = [
        "It was {quoted}`60 % faster <sanh2019distilbert>`, they say.",
        "It was {quoted}`61 % faster`.",
        "{glue:text}`studies/distilbert/cpu-embedded.ipynb::no-such-thing:.1f`",
    ]
    page.write_text("\n\n".join([page.read_text(), *lines]))
    done = bare_build(copy)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "a quoted number needs its source, as in 63 ms <key>: '61 % faster'" in said
    assert "carries no number 'no-such-thing'" in said
    built = (copy / "book" / "_build" / "html" / "bibliography.html").read_text()
    assert re.search(r"It was 60 % faster <.*Sanh.*they say", built)
    assert "60 % faster" not in said, "with its source it is none"


# ------------------------------------------------------------------ looking at it


@pytest.fixture(scope="module")
def site(html: Path):
    with served(html) as address, browser() as running:
        yield address, running


def every_page(html: Path) -> list[str]:
    """All pages but the first, index.html, which sends the browser on to intro.html."""
    pages = sorted(str(file.relative_to(html)) for file in html.rglob("*.html") if "_static" not in file.parts)
    assert {"intro.html", "results.html", "your-run.html", "search.html", "studies/distilbert/index.html"} <= set(pages)
    return [page for page in pages if page != "index.html"]


def opened(site, theme: str, size: dict):
    """A page in a theme and of a size."""
    context = site[1].new_context(viewport=size, color_scheme=theme)
    context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    return patient(context.new_page())


def test_every_chart_is_drawn_and_answers_to_the_pointer(site, html):
    page, seen = opened(site, "light", WIDE), 0
    for name in every_page(html):
        page.goto(f"{site[0]}/{name}")
        charts = page.locator(".db-chart")
        for i in range(charts.count()):
            chart = charts.nth(i)
            chart.locator("xpath=self::*[@data-interactive='true']").wait_for()
            assert chart.locator("svg").count() == 1, "the static picture gave way"
            assert len(chart.get_attribute("aria-label")) > 50
            point = chart.locator("[aria-roledescription='point'], [aria-roledescription='bar']").first
            point.scroll_into_view_if_needed()
            point.hover(force=True)
            tooltip = page.locator("#vg-tooltip-element.visible")
            tooltip.wait_for()
            assert re.search("batch size|process|configuration", tooltip.inner_text())
            page.mouse.move(1, 1)
            seen += 1
    assert seen >= 9, "three charts at least of each run"


def test_without_scripts_the_pictures_stay(site):
    context = site[1].new_context(java_script_enabled=False)
    page = patient(context.new_page())
    page.goto(f"{site[0]}/your-run.html")
    assert page.locator(".db-chart svg").count() >= 3
    assert page.locator(".db-chart svg").first.bounding_box()["width"] > 300


def too_wide(page, name: str) -> list[tuple]:
    """What a page on a narrow screen has out of sight: itself where it is wider than the screen, charts cut off."""
    width = page.evaluate("document.documentElement.scrollWidth")
    found = [(name, width)] if width > NARROW["width"] else []
    for chart in page.locator(".db-chart").all():
        chart.locator("xpath=self::*[@data-interactive='true']").wait_for()
        if chart.evaluate("box => box.scrollWidth > box.clientWidth"):
            found.append((name, chart.get_attribute("aria-label")))
    return found


def violations(page, name: str, theme: str) -> list[tuple]:
    """Against which rules of accessibility a page is; with the theme only contrasts change."""
    from axe_playwright_python.sync_playwright import Axe

    every = {"type": "tag", "values": ["wcag2a", "wcag2aa"]}
    run_only = every if theme == THEMES[0] else {"type": "rule", "values": ["color-contrast"]}
    options = {"runOnly": run_only, "preload": {"assets": ["media"]}}  # it would ask for styles by wrong names
    found = []
    for violation in Axe().run(page, options=options).response["violations"]:
        where = [node["html"][:150] for node in violation["nodes"]][:3]
        found.append((name, violation["id"], violation["help"], where))
    return found


@pytest.mark.parametrize(
    ("theme", "names"),
    [("light", ()), ("dark", OF_EACH_KIND), pytest.param("dark", (), marks=pytest.mark.slow)],
    ids=["light", "some in the dark", "dark"],
)
def test_every_page_fits_a_narrow_screen_is_accessible_and_does_not_complain(site, html, theme, names):
    """Nor does it ask other hosts. Each page is loaded on a narrow screen, then looked at on a wide one."""
    page = opened(site, theme, NARROW)
    complaints, wide, against = Complaints().watch(page), [], []
    assert set(names) < set(every_page(html))
    for name in names or every_page(html):
        page.set_viewport_size(NARROW)
        page.goto(f"{site[0]}/{name}", wait_until="networkidle")
        wide += too_wide(page, name)
        page.set_viewport_size(WIDE)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        against += violations(page, name, theme)
    assert (wide, against, complaints) == ([], [], [])


def test_search_finds(site):
    page = opened(site, "light", WIDE)
    page.goto(f"{site[0]}/search.html?q=throughput", wait_until="networkidle")
    page.locator("#search-results a[href^='results.html']").first.wait_for()


def test_figures_and_tables_are_numbered_and_have_captions(html):
    text = (html / "your-run.html").read_text()
    figures = re.findall(r"<figcaption>.*?</figcaption>", text, re.DOTALL)
    assert len(figures) == 3, "energy was not measured: a sentence says so, and no caption says anything of it"
    assert all(re.search(r'caption-number">Fig\. \d', figure) for figure in figures)
    assert all(re.search(r"\d (forked|fresh) process(es)? per cell", figure) for figure in figures)
    assert len(re.findall(r'caption-number">Table \d', text)) == 9
