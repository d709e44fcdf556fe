"""What automation asks each night: is the text the same, does every study still run, do the published numbers hold?

python scripts/nightly.py [STUDY ...]

Per study of params/studies.yml: its text against the hash of the first time, a smoke run, that run computed again, and
compared with the published runs that were made under the same conditions. Then every published run computed again, the
book built, its numbers computed again, its links followed. A step that fails keeps none of the others from being tried.
The table at the end has what was done, what was not, and why; exit code 1 when something failed.

Here a step is a function that returns what it found. It raises NotDone where it cannot be done, and a DistilbenchError
where something is not as it must be.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import check_links

from distilbench import paths, progress, terminal
from distilbench import studies as studies_
from distilbench.cli import doctor, options
from distilbench.errors import DistilbenchError, HubError, ParameterError, RunError
from distilbench.execution import notebooks
from distilbench.publication import audit, generated_tables
from distilbench.publication import build as building
from distilbench.report import compare as comparing
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.sources import texts as sources_texts
from distilbench.sources.parameters import with_sources


class NotDone(Exception):
    """A step that cannot be done here and now, which is no failure; it is said with its reason."""


class Row(NamedTuple):
    """One line of the table."""

    step: str  # what was to be done
    of: str  # with what
    state: Literal["ok", "not done", "FAILED"]
    said: str  # what was found, or why it was not done


def attempt(step: str, of: str, work: Callable[[], str]) -> Row:
    """One step; whatever goes wrong in it becomes its row. `work` returns what it found."""
    print(f"--- {step}: {of}", flush=True)
    try:
        row = Row(step, of, "ok", work())
    except NotDone as why:
        row = Row(step, of, "not done", str(why))
    except Exception as error:
        if not isinstance(error, DistilbenchError):
            traceback.print_exc()
        row = Row(step, of, "FAILED", str(error) or type(error).__name__)
    print(f"{row.state}: {row.said}", flush=True)  # a log that ends here, since a job was killed, tells it too
    return row


# ------------------------------------------------------------------ a study


def of_study(study: str) -> Iterator[Row]:
    """Everything that concerns one study."""
    for profile in ("smoke", "full"):
        yield attempt("text unchanged", f"{study}, {profile}", partial(text_unchanged, study, profile))
    smoke = attempt("smoke run", study, partial(smoke_run, study))
    yield smoke
    if smoke.state != "ok":
        yield Row("compare", study, "not done", "there is no run of tonight")
        return
    newest = newest_of_each_profile(study)
    yield attempt("computed again", newest[0].run_id, partial(computed_again, newest[0]))
    published = [run for run in find.published_runs() if run.config["study"] == study]
    for own in newest:
        for run in published:
            yield attempt("compare", f"{own.run_id} with published {run.run_id}", partial(compared, run, own))
    if not published:
        yield Row("compare", study, "not done", "no run of this study is published")


def text_unchanged(study: str, profile: str) -> str:
    """The profile's text, loaded and compared with the lock; where no hub is, text that is on it cannot be.

    Not done where the study has no text, or where the text was never seen before: there is nothing to compare with.
    """
    params = studies_.resolve(study, {"profile": profile}).params
    try:
        texts = sources_texts.load_texts(with_sources(params))
    except ParameterError as why:
        raise NotDone(str(why)) from None
    except HubError as error:
        if doctor.model_hub()[0] == "ok":  # it answers, so the text is gone from it, or damaged
            raise
        raise NotDone(str(error)) from None
    said = f"{texts.about['name']}: {len(texts.texts)} sentences, SHA-256 {texts.content_sha256()}"
    if texts.first_seen:
        raise NotDone(f"{said}: seen for the first time and recorded, compared with nothing (commit revisions.lock)")
    return said


def smoke_run(study: str) -> str:
    """A new run in the smoke profile."""
    run = notebooks.run_study(study, {"profile": "smoke"}, new=True)
    run.require_ok()
    return f"run {run.run_id}, {len(run.measured())} repetitions"


def newest_of_each_profile(study: str) -> list[Run]:
    """The newest run of this machine that ended well, of the smoke profile first, then of the full one."""
    own = [run for run in find.all_runs(paths.results_root() / study) if run.status["state"] == "ok"]
    newest = {run.config["parameters"]["profile"]: run for run in own}  # oldest first, so the last one stays
    return [newest[profile] for profile in ("smoke", "full") if profile in newest]


def compared(base: Run, own: Run) -> str:
    """How a run compares with a published one that was made under the same conditions; no cell may be slower.

    Not done where the conditions differ, no cell is in both, or there are too few repetitions for any verdict.
    """
    if differing := comparing.differences(base, own):
        names = ", ".join(dict.fromkeys(line.partition(":")[0] for line in differing))
        raise NotDone(f"not comparable: they differ in {names} (distilbench compare {base.run_id} {own.run_id})")
    try:
        cells = comparing.compare(base, own)
    except RunError as error:
        raise NotDone(str(error)) from None
    if slower := [cell.cell for cell in cells if cell.verdict == "SLOWER"]:
        raise DistilbenchError(f"{len(slower)} of {len(cells)} cells SLOWER: {', '.join(slower)}")
    said = ", ".join(f"{n} {verdict}" for verdict, n in Counter(cell.verdict for cell in cells).items())
    said += "".join(f"; {note}" for note in dict.fromkeys(cell.note for cell in cells) if note)
    if all(cell.low is None for cell in cells):
        raise NotDone(f"no cell can be judged: {said}")
    return said


# ------------------------------------------------------------------ what is published


def of_published() -> Iterator[Row]:
    """Every published run and calibration."""
    for run in find.published_runs():
        yield attempt("computed again", f"published {run.run_id}", partial(computed_again, run))
    for kind in (named() for named in studies_.INSTRUMENTS.values()):
        for folder in find.published_instruments(kind):
            yield attempt("computed again", f"{kind.name} {folder.name}", partial(computed_again, Run(folder)))


def computed_again(run: Run) -> str:
    """What `distilbench verify run` does."""
    _refuse(verify.problems(run.folder))
    return f"{run.kind.showing.counted(run)}, no difference"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DistilbenchError(f"{len(problems)} difference(s): " + "; ".join(problems[:3]))


# ------------------------------------------------------------------ the book


def of_book() -> Iterator[Row]:
    """The book of committed content, and its links."""
    built = attempt("book", "committed content", build)
    yield built
    if built.state != "ok":
        yield Row("numbers, links", "of the book", "not done", "the book could not be built")
        return
    html = paths.repo_root() / "book" / "_build" / "html"
    yield attempt("numbers", "of the book", partial(numbers_again, html))
    yield attempt("links", "within the book", partial(links_within, html))
    yield attempt("links", "to other hosts", partial(links_to_others, html))


def build() -> str:
    """Builds it, warnings being errors."""
    with building.build_lock(wait=True):
        return str(building.build())


def numbers_again(html: Path) -> str:
    """What `distilbench verify book` does."""
    problems, count = audit.problems(html)
    _refuse(problems)
    return f"{count} numbers computed again from raw files, no difference"


def links_within(html: Path) -> str:
    """Follows the links between pages."""
    found = check_links.check(html)
    if found.broken:
        raise DistilbenchError(f"{len(found.broken)} broken: " + "; ".join(found.broken))
    return f"{found.links} links of {found.pages} pages lead somewhere"


def links_to_others(html: Path) -> str:
    """Follows the links to other hosts, when CHECK_EXTERNAL=1 asks for it."""
    addresses = check_links.check(html).external
    if not check_links.asked_for_external():
        raise NotDone(f"{len(addresses)} links; CHECK_EXTERNAL=1 follows them")
    answers = check_links.ask(addresses)
    if gone := [f"{address} ({said})" for address, said in answers.items() if said in check_links.GONE]:
        raise DistilbenchError(f"{len(gone)} of {len(addresses)} gone: {'; '.join(gone)}")
    untold = "".join(f"; cannot tell of {address}: {said}" for address, said in answers.items())
    if addresses and len(answers) == len(addresses):
        raise NotDone(f"none of {len(addresses)} gave a clear answer{untold}")
    return f"{len(addresses) - len(answers)} of {len(addresses)} answer{untold}"


# ------------------------------------------------------------------ all of it


def night(studies: list[str]) -> Iterator[Row]:
    """All rows, in the order in which the steps are done."""
    for study in studies:
        yield from of_study(study)
    yield from of_published()
    yield from of_book()


def main() -> int:
    """Does everything; 1 when something failed."""
    terminal.prepare()
    progress.set_up_log("text")
    known = list(generated_tables.studies())
    studies = sys.argv[1:] or known
    if unknown := [study for study in studies if study not in known]:
        print(f"error: unknown study {', '.join(unknown)}. Studies: {', '.join(known)}.", file=sys.stderr)
        return 1
    rows = list(night(studies))
    print()
    options.print_table([row._asdict() for row in rows])
    counts = Counter(row.state for row in rows)
    print(f"\n{counts['ok']} ok, {counts['not done']} not done, {counts['FAILED']} failed")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
