"""What the book needs of Sphinx: charts that work offline, quoted numbers, and no page without its run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

import vl_convert
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from distilbench import paths, studies
from distilbench.errors import DistilbenchError, RunError
from distilbench.machine import code
from distilbench.publication import generated_tables, provenance, publish
from distilbench.publication.claims import model, page
from distilbench.report import charts
from distilbench.runs import find

STATIC = Path(__file__).parent / "static"
BUNDLE = "vega-bundle.js"
logger = logging.getLogger(__name__)


class Quoted(SphinxRole):
    """A number of somebody else, which carries its source: {quoted}`63 ms <sanh2019distilbert>`."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The text, then the citation."""
        matched = re.fullmatch(r"(.+?)\s*<([\w:.-]+)>", self.text)
        if not matched:
            error = self.inliner.reporter.error(
                f"a quoted number needs its source, as in 63 ms <key>: {self.text!r}", line=self.lineno
            )
            return [nodes.problematic(self.rawtext, self.rawtext)], [error]
        cited, messages = self.inliner.parse(f"{{cite:p}}`{matched[2]}`", self.lineno, None, nodes.inline())
        return [nodes.Text(f"{matched[1]} "), *cited], messages


class Generated(SphinxDirective):
    """A table that is made of what is published, such as {headlines}: the names are those of `made_by`."""

    made_by: ClassVar = {
        "headlines": generated_tables.headlines, "runs-index": generated_tables.runs_index,
        "machines": generated_tables.machines, "coverages": generated_tables.coverages,
        "schema": generated_tables.schema, "example-record": generated_tables.example,
    }  # fmt: skip

    def run(self) -> list[nodes.Node]:
        """What the Markdown of it is parsed to."""
        files = [*(run.raw for run in find.published_runs()), *publish.pages()]
        for file in (*files, paths.repo_root() / "params" / "studies.yml"):
            self.env.note_dependency(str(file))
        return self.parsed(self.made_by[self.name]())

    def parsed(self, markdown: str, headings: bool = False) -> list[nodes.Node]:
        """Nodes of MyST Markdown."""
        made, lines = nodes.container(), StringList(markdown.splitlines(), source=self.name)
        self.state.nested_parse(lines, self.content_offset, made, match_titles=headings)
        return made.children


class Claims(Generated):
    """The claims of params/claims.yml before the published runs: {claims}, a table; {claims-tested}, a section each."""

    made_by: ClassVar = {"claims": page.overview, "claims-tested": page.sections}

    def run(self) -> list[nodes.Node]:
        """The verdicts; sections go to the end of the chapter's own."""
        for file in (*(run.raw for run in find.published_runs()), model.file()):
            self.env.note_dependency(str(file))
        try:
            return self.parsed(self.made_by[self.name](), headings=True)
        except DistilbenchError as error:
            raise self.error(str(error)) from None


class Instrument(Generated):
    """The table of what is published of the instrument, such as {calibration} full, and the text on its numbers.

    With `optional` it says so where nothing is published, in place of both.
    """

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged, "optional": directives.flag}

    def run(self) -> list[nodes.Node]:
        """The table, computed again from its readings."""
        kind = studies.INSTRUMENTS[self.name]()
        if "optional" in self.options and not find.published_instrument(kind, self.arguments[0]):
            self.env.note_reread()
            return self.parsed(f"*Not measured yet:* no {kind.name} of {kind.slot} `{self.arguments[0]}` is published.")
        try:
            folder = provenance.instrument_of(kind, self.arguments[0])
        except RunError as error:
            raise self.error(str(error)) from None
        self.env.note_dependency(str(folder / "summary.json"))
        label = self.options.get("name", f"tab-{kind.name}-{self.arguments[0]}")
        text = "\n".join(self.content)
        return self.parsed(f"{generated_tables.instrument(kind, folder, label)}\n\n{text}")


class Certified(nodes.inline):
    """A number of a run, or in a caption its source, with its birth certificate; the class in HTML says which."""


class Judged(SphinxRole):
    """A verdict, or the value of a test, by its name in the chapter on claims: {verdict}`batch-4-against-2`."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """It as text, marked for `verify book`."""
        try:
            found = page.finding(self.text)
        except DistilbenchError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]
        return [Certified(self.rawtext, found.text, certificate=found, classes=["db-claim"])], []


class Taken(SphinxRole):
    """A number from a published page, as MyST-NB's own role has it: {glue:text}`page.ipynb::name:.1f`.

    Or one that is published of the instrument, such as {glue:text}`calibration/full::name:.1f`.
    In HTML its birth certificate shows under the pointer; at the end of its page stand the runs that numbers were taken
    from.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number as text."""
        of_instrument = "|".join(f"{name}/.+?" for name in studies.INSTRUMENTS)
        matched = re.fullmatch(rf"(.+?\.ipynb|{of_instrument})::([\w.-]+):(.*)", self.text)
        if not matched:
            return self._refused(f"a number is taken as in page.ipynb::name:.1f, not {self.text!r}")
        place, field, form = matched.groups()
        _, file = self.env.relfn2path(place, self.env.docname)
        of_a_page = place.endswith(".ipynb")
        page = os.path.relpath(file, self.env.srcdir) if of_a_page else place
        try:
            certificate = provenance.certify(page, field, form)
        except RunError as error:
            return self._refused(str(error))
        self.env.note_dependency(file if of_a_page else str(provenance.run_of(page).raw))
        return [Certified(self.rawtext, certificate.text, certificate=certificate, classes=["db-number"])], []

    def _refused(self, why: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.problematic(self.rawtext, self.rawtext)], [self.inliner.reporter.error(why, line=self.lineno)]


def open_span(writer: Any, node: Certified) -> None:
    """In HTML a span that carries the certificate, for the reader and for the audit."""
    of = node["certificate"]
    named = {"data-page": of.page, "data-field": of.field, "data-form": of.form, "data-raw": of.raw_sha256}
    writer.body.append(writer.starttag(node, "span", "", title=str(of), **named))


def runs_of_page(app: Sphinx, doctree: nodes.document) -> None:
    """Below a chapter that took numbers: the runs that they come from."""
    certificates = [number["certificate"] for number in doctree.findall(Certified)]
    sources = {one.run_id: one for one in certificates if one.run_id}
    if not sources:
        return
    box = nodes.container(classes=["db-certificates"])
    box += nodes.paragraph(
        text="The numbers of this page come from these runs; in brackets, how the SHA-256 of their raw files begins:"
    )
    lines = [f"{run_id} ({source.raw_sha256[:16]})" for run_id, source in sorted(sources.items())]
    box += nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph(text=line)) for line in lines))
    page = next((node for node in doctree.children if isinstance(node, nodes.section)), doctree)
    others = (i for i, child in enumerate(page) if "toctree-wrapper" in child.get("classes", []))
    page.insert(next(others, len(page)), box)  # pages below this one come after it in print


def runs_of_captions(app: Sphinx, doctree: nodes.document) -> None:
    """Captions of a published page end with its run and the beginning of its raw file's hash."""
    page = f"{app.env.docname}.ipynb"
    if provenance.book_root() / page not in publish.pages():
        return
    for caption in list(doctree.findall(lambda node: isinstance(node, nodes.caption | nodes.title))):
        if isinstance(caption.parent, nodes.figure | nodes.table):
            names = caption.parent["names"] or caption.parent["ids"]
            certificate = provenance.certify_picture(page, names[0] if names else "")
            end = "" if caption.astext().rstrip().endswith(".") else "."
            source = Certified("", certificate.source, certificate=certificate, classes=["db-source"])
            caption += [nodes.Text(f"{end} From "), source, nodes.Text(".")]


def refuse_unbacked_pages(app: Sphinx) -> None:
    """Stops the build where a published page shows what its run does not say, or its run is gone.

    Raises:
        ExtensionError: there is one; each is logged, by page and run.
    """
    problems = [problem for page in publish.pages() for problem in publish.problems(page)]
    for problem in problems:  # a line each, as `build` looks for them: jupyter-book ends what is raised in a traceback
        logger.error(problem)
    if problems:
        raise ExtensionError("published pages and runs disagree")


def add_static_files(app: Sphinx) -> None:
    """The scripts and styles of the charts, made from the installed renderer, so that they fit its version."""
    if app.builder.format != "html":
        return
    folder = Path(app.doctreedir) / "distilbench"
    folder.mkdir(parents=True, exist_ok=True)
    app.config.html_static_path += [str(STATIC), str(folder)]
    app.add_css_file("distilbench.css")
    if app.builder.name == "singlehtml":  # for print: the charts stay pictures
        app.add_css_file("print.css")
        return
    bundle = vl_convert.javascript_bundle(vl_version=charts.VEGA_LITE)
    (folder / BUNDLE).write_text(f"(()=>{{{bundle}}})();", encoding="utf-8")  # wrapped: its names stay its own


def scripts_of_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The charts' scripts where there are charts, and none that asks other hosts for anything."""
    context["script_files"][:] = [script for script in context["script_files"] if not _asks_other_hosts(script)]
    body = context.get("body", "")
    if app.builder.name == "singlehtml":
        issue = f"distilbench {app.config.release}. {app.config.today}."
        context["body"] = body.replace("</h1>", f'</h1>\n<p class="db-issue">{issue}</p>', 1)
        return
    if 'class="db-chart"' in body:
        app.add_js_file(BUNDLE, loading_method="defer")
    app.add_js_file("distilbench.js", loading_method="defer")
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')  # deprecated, and not a list's item


def _asks_other_hosts(script: Any) -> bool:
    """Thebe (live kernels from a public service): not used here, and it declares one constant twice."""
    return "thebe" in str(getattr(script, "filename", script)).lower() or "THEBE" in str(
        getattr(script, "attributes", {}).get("body", "")
    )


def remove_a_page_that_is_no_longer_there(app: Sphinx, exception: Exception | None) -> None:
    """What an earlier build showed of one's own run does not stay beside committed content."""
    if app.builder.format == "html" and "your-run" not in app.env.found_docs:
        (Path(app.outdir) / "your-run.html").unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, bool | int]:
    """Registers everything with Sphinx; what other code of this package read is read again."""
    app.add_role("quoted", Quoted())
    app.add_role("verdict", Judged())
    app.add_role_to_domain("glue", "text", Taken(), override=True)
    in_html = (open_span, lambda writer, node: writer.body.append("</span>"))
    in_print = (lambda writer, node: None,) * 2  # nothing beside the text
    app.add_node(Certified, html=in_html, latex=in_print)
    for name in studies.INSTRUMENTS:
        app.add_directive(name, Instrument)
    for name in Generated.made_by:
        app.add_directive(name, Generated)
    for name in Claims.made_by:
        app.add_directive(name, Claims)
    app.connect("doctree-read", runs_of_page)
    app.connect("doctree-read", runs_of_captions)
    app.connect("builder-inited", refuse_unbacked_pages)
    app.connect("builder-inited", add_static_files)
    app.connect("build-finished", remove_a_page_that_is_no_longer_there)
    app.connect("html-page-context", scripts_of_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": int(code.code_sha256()[:12], 16)}
