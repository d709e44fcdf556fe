"""From run folders to pages of the book: what may be published, what a page is made of, whether it still holds."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from distilbench import paths, studies
from distilbench.anomaly import gather
from distilbench.errors import ParameterError, RunError
from distilbench.machine import environment
from distilbench.report import glue, load
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.runs.parameters import PROFILES
from distilbench.runs.rawfiles import PACKED

UNPUBLISHED_CELL = "not-published"  # tag of cells that serve the run or the tests, not the reader
LEFT_OUT = (".lock", "checkpoints", "notebooks", "orphans", "work")  # of a run folder: a published one has none
LARGEST_MiB = 2.0
YOURS = """\
:::{{admonition}} Your run
:class: warning
This page shows a run of your own, made on this machine. It is not part of the published report.
{doubt}:::
"""
HEADER = """\
(page-{slug})=
# {title}

{warning}{citation}

Every number of this page can be computed again from the run's files: `distilbench verify run {run_id}`.
The page is `notebooks/{notebook}.ipynb`, executed over the run, without its code.
"""


# ------------------------------------------------------------------ publishing


def publish(run: Run, name: str = "", replace: bool = False) -> tuple[Path, Path]:
    """Copies a finished run into results/published/ and its analysis into book/studies/<study>/.

    Args:
        run: the run; its notebooks must have been executed into it.
        name: the page's name; empty: as its kind calls it, such as `cpu-embedded`.
        replace: put it in the place of the page of that name, and remove the run that page showed.

    Returns:
        The page and the published run's folder.

    Raises:
        RunError: it must not be published; every reason is named.
    """
    if name and (not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name == "index"):
        raise ParameterError(f"{name!r} cannot name a page: small letters, digits and hyphens can, but not 'index'")
    if reasons := refusals(run):
        raise RunError(f"run {run.run_id} cannot be published:\n" + "\n".join(f"- {reason}" for reason in reasons))
    name = name or run.kind.showing.page_name(run)
    page = pages_root() / run.config["study"] / f"{name}.ipynb"
    folder = paths.published_root() / run.config["study"] / run.run_id
    if page.exists() and not replace:
        raise RunError(f"{page} shows run {run_of(page).run_id} already: choose another --name, or give --replace")
    before = run_of(page).run_id if page.exists() else run.run_id
    with paths.write_folder(folder) as part:
        _copy(run, part)
        _scrub(part)
    write_page(page, analysis_file(run), Run(folder), f"{run.config['study']}-{name}")
    if before not in {run_of(other).run_id for other in pages()}:  # last, so that a failure loses nothing
        shutil.rmtree(folder.parent / before, ignore_errors=True)
    return page, folder


def write_page(page: Path, notebook: Path, run: Run, slug: str, own_run: bool = False) -> None:
    """Writes an executed analysis of a run as a page of the book."""
    content = as_page(paths.read_json(notebook), run, slug, own_run)
    paths.write_atomic(page, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def refusals(run: Run) -> list[str]:
    """Why a run must not be published; none: it may."""
    status, config = run.status, run.config
    if paths.published_root() in run.folder.parents:
        return ["it is published already; `make pages` executes the analysis of published runs again"]
    if status["state"] != "ok":
        return [f"it is {status['state']}: {status['message'] or 'something was not measured'}"]
    reasons = []
    if config["parameters"]["profile"] != "full":
        reasons.append(f"its profile is {config['parameters']['profile']}; only full runs are published")
    reasons += [why for one in (run, *run.sections) for why in one.kind.refusals(one.config["parameters"])]
    reasons += _unbacked(run) + _failed_notebooks(run)
    files = _published_files(run).values()
    size = sum(len(_packed(file)) if packed else file.stat().st_size for file, packed in files) / 2**20
    if size > LARGEST_MiB:
        reasons.append(f"it takes {size:.1f} MiB; at most {LARGEST_MiB:g} are published")
    return reasons


def _unbacked(run: Run) -> list[str]:
    """Why nobody could make its numbers again."""
    why = environment.uncommitted(run.env["git"])
    reasons = [f"its code is in no commit ({why})"] if why else []
    return reasons + [f"verify: {problem}" for problem in [*verify.problems(run.folder), *gather.problems(run)]]


def _failed_notebooks(run: Run) -> list[str]:
    executed = sorted((run.folder / "notebooks").glob("*.ipynb"))
    others = [file for file in executed if not file.stem.startswith(analysis_file(run).stem)]
    failed = [file.stem for file in others if not _is_executed(paths.read_json(file))]
    reasons = [f"notebook {name} failed or was stopped" for name in failed]
    if not is_analysed(run):
        again = f"`distilbench analyse {run.config['study']} {run.run_id}`"
        reasons.append(f"it was not analysed, or not to the end, or by other code: {again}")
    return reasons


def analysis_file(run: Run) -> Path:
    """Where the executed analysis of a run is."""
    return run.folder / "notebooks" / f"{studies.analysis(run.config['study'])}.ipynb"


def is_analysed(run: Run) -> bool:
    """Whether the run holds its analysis, executed to the end, with the numbers that the run gives now."""
    try:
        notebook = paths.read_json(analysis_file(run))
        return _is_executed(notebook) and glue.read(notebook) == glue.values(run)
    except (RunError, KeyError):  # missing, half-written, or no notebook at all
        return False


def _is_executed(notebook: dict[str, Any]) -> bool:
    """Every cell ran, and none ended in an error."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    errors = [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    failed = notebook["metadata"].get("papermill", {}).get("exception")
    return all(cell["execution_count"] for cell in code) and not errors and not failed


def _published_files(run: Run) -> dict[Path, tuple[Path, bool]]:
    """By its name in the published folder, what is published of a run and its sections, and whether it is packed."""
    of_sections = {section.folder for section in run.sections}
    left_out, packed = run.kind.bulky(run.repetitions())
    found = {}
    for file in sorted(run.folder.rglob("*")):
        name = file.relative_to(run.folder)
        if not file.is_file() or of_sections & {*file.parents} or {*name.parts} & {*LEFT_OUT}:
            continue
        if file.suffix == ".png" or str(name) in left_out:  # SVG has the same
            continue
        small = str(name) in packed
        found[name.with_name(f"{name.name}{PACKED}") if small else name] = (file, small)
    for section in run.sections:
        found |= {section.folder.name / name: of for name, of in _published_files(section).items()}
    return found


def _packed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), 9, mtime=0)  # the same bytes whenever it is packed


def _copy(run: Run, target: Path) -> None:
    """Writes what is published of a run and its sections, and of what is not there the hashes."""
    for name, (file, packed) in _published_files(run).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if packed:
            paths.write_atomic(target / name, _packed(file))
        else:
            shutil.copyfile(file, target / name)
    for one, folder in [(run, target), *((section, target / section.folder.name) for section in run.sections)]:
        if left_out := one.kind.bulky(one.repetitions())[0]:
            hashes = {name: sha256 for record in one.repetitions() for name, sha256 in record.files.items()}
            paths.write_json(folder / "left_out.json", {name: hashes[name] for name in left_out})


def _scrub(folder: Path) -> None:
    """Takes out of a copy what is nobody's business: paths become names; the cluster's user and account go."""
    for section in Run(folder).sections:
        _scrub(section.folder)
    config, env = Run(folder).config, Run(folder).env
    if params := config.get("parameters"):
        params |= {key: Path(value).name for key, value in params.items() if key.endswith("_path") and value}
        params["results_root"] = ""
        paths.write_json(folder / "config.json", config)
    env["python"]["executable"] = Path(env["python"]["executable"]).name
    private = ("USER", "ACCOUNT", "UID", "GID", "DIR", "SUBMIT_HOST")
    env["slurm"] = {key: value for key, value in env["slurm"].items() if not key.endswith(private)}
    paths.write_json(folder / "env.json", env)


def publish_instrument(folder: Path) -> Path:
    """Copies what tells of the instrument into results/published/; those in whose place it comes are removed.

    Raises:
        RunError: its code is in no commit, or its summary does not follow from its readings.
    """
    run = Run(folder)
    slot = run.kind.slot
    if reasons := _unbacked(run):
        raise RunError(f"{run.kind.name} {folder.name} cannot be published: {reasons[0]}")
    before = [other for other in find.published_instruments(run.kind) if Run(other).config[slot] == run.config[slot]]
    target = paths.published_root() / run.kind.name / folder.name
    with paths.write_folder(target) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True)
        _scrub(part)
    for other in before:
        if other != target:
            shutil.rmtree(other)
    return target


# ------------------------------------------------------------------ pages


def as_page(notebook: dict[str, Any], run: Run, slug: str, own_run: bool = False) -> dict[str, Any]:
    """An executed analysis as a page: its own title, captions that say what was measured, results without code.

    Labels of figures and tables get the page's slug, since labels are unique in the book.
    """
    page = copy.deepcopy(notebook)
    cells = [cell for cell in page["cells"][2:] if UNPUBLISHED_CELL not in cell["metadata"].get("tags", [])]
    text = header(run, slug, own_run).splitlines(keepends=True)
    title = {"cell_type": "markdown", "id": "page-header", "metadata": {}, "source": text}
    page["cells"] = [title, *(_page_cell(cell, run, slug) for cell in cells)]
    page["metadata"] = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info")}
    page["metadata"]["distilbench"] = {"run_id": run.run_id, "slug": slug, "study": run.config["study"]}
    return page


def header(run: Run, slug: str, own_run: bool = False) -> str:
    """The page's beginning, rendered from the run's files."""
    profile = run.config["parameters"]["profile"]
    note = "" if profile == "full" else f"Profile {profile}: {PROFILES[profile]}.\n"
    return HEADER.format(
        slug=slug,
        title=f"{'Your run: ' if own_run else ''}{run.kind.showing.title(run)} on {load.label(run)}",
        warning=YOURS.format(doubt=note) + "\n" if own_run else "",
        citation=load.citation(run),
        run_id=run.run_id,
        notebook=studies.analysis(run.config["study"]),
    )


def _page_cell(cell: dict[str, Any], run: Run, slug: str) -> dict[str, Any]:
    tags = cell["metadata"].get("tags", [])
    cell["metadata"].pop("papermill", None)
    cell["metadata"].pop("execution", None)
    if cell["cell_type"] == "code":
        lines = "".join(cell["source"]).splitlines(keepends=True)
        cell["source"] = [line for line in lines if not line.startswith("results_root = ")]
        hidden = {"parameters", "injected-parameters", "remove-cell"} & set(tags)
        cell["metadata"]["tags"] = sorted({*tags, "remove-cell" if hidden else "remove-input"})
        for output in cell["outputs"]:
            if table := output.get("data", {}).get("text/markdown"):
                output["data"]["text/markdown"] = _with_slug("".join(table), slug)
    if figure := cell["metadata"].get("mystnb", {}).get("figure"):
        figure["name"], figure["caption"] = _with_slug(figure["name"], slug), caption(run, figure["name"])
        if figure["caption"] is None:  # what stands there says why there is no figure
            del cell["metadata"]["mystnb"]
    return cell


def caption(run: Run, figure: str) -> str | None:
    """The caption of a figure of a page, made from what the run has; None where it has nothing to show there.

    It ends with what must stand beside anything shown: hardware, and what was measured.
    """
    text = run.kind.showing.figure_caption(run, figure)
    return text and f"{text} Measured on {load.label(run)}{run.kind.showing.measured_with(run)}."


def _with_slug(text: str, slug: str) -> str:
    """`fig-latency` becomes `fig-<slug>-latency`, in labels."""
    return re.sub(r"(?<=:name: )(fig|tab)-|^(fig|tab)-", lambda label: f"{label[1] or label[2]}-{slug}-", text)


# ------------------------------------------------------------------ do published pages still hold?


def pages_root() -> Path:
    """Where published notebooks are."""
    return paths.repo_root() / "book" / "studies"


def pages() -> list[Path]:
    """The published notebooks."""
    return sorted(pages_root().glob("*/*.ipynb"))


def page_metadata(page: Path) -> dict[str, str]:
    """What a published page says that it shows: `run_id`, `slug`, `study`.

    Raises:
        RunError: it is no published page.
    """
    try:
        return paths.read_json(page)["metadata"]["distilbench"]
    except KeyError:
        raise RunError(f"{page} was not written by `distilbench publish`: it does not say which run it shows") from None


def run_of(page: Path) -> Run:
    """The published run that a page shows."""
    shown = page_metadata(page)
    return Run(paths.published_root() / shown["study"] / shown["run_id"])


def problems(page: Path) -> list[str]:
    """Where a published page and its run disagree: derived numbers, header, captions, glued numbers; none: it holds.

    Tables and pictures are compared by the tests, which execute the notebook again.
    """
    name = str(page.relative_to(pages_root().parent))
    try:
        run = run_of(page)
        if not run.folder.is_dir():
            return [f"{name} shows run {run.folder.name}, which is not in {run.folder.parent}"]
        differing = [*verify.problems(run.folder), *gather.problems(run)]
        return [f"run {run.run_id}: {problem}" for problem in differing] + _differences(page, run, name)
    except RunError as error:  # a file is missing or damaged
        return [f"{name}: {error}"]


def _differences(page: Path, run: Run, name: str) -> list[str]:
    """Where the text of a page is not what its run says."""
    notebook, differing = paths.read_json(page), []
    if "".join(notebook["cells"][0]["source"]) != header(run, page_metadata(page)["slug"]):
        differing.append("its header")
    for cell in notebook["cells"]:
        figure = cell["metadata"].get("mystnb", {}).get("figure")
        if figure and figure["caption"] != caption(run, figure["name"]):
            differing.append(f"the caption of {figure['name']}")
    numbers = verify.differences(glue.read(notebook), glue.values(run), f"{name}: glued")
    return [f"{name}: {part} is not what run {run.run_id} says" for part in differing] + numbers


def newest() -> datetime | None:
    """When the newest of what is published was begun; None: nothing is."""
    begun = [paths.read_json(file)["created"] for file in paths.published_root().glob("*/*/config.json")]
    return datetime.fromisoformat(max(begun)) if begun else None


def epoch() -> int:
    """The time of all that is made of the published runs, in seconds since 1970, UTC.

    The given one, else when the newest run was begun.
    """
    if (given := paths.source_date_epoch()) is not None:
        return given
    begun = newest()
    return int(begun.timestamp()) if begun else 0


def newest_ok(results_root: str = "") -> Run | None:
    """The newest run of this machine that ended well; runs of the ci profile are tests, and never shown."""
    known = [run for run in find.own_runs(results_root) if not _is_test(run)]
    return next((run for run in reversed(known) if run.status["state"] == "ok"), None)


def why_none(results_root: str = "") -> str:
    """What there is where `newest_ok` finds nothing to show, and what to do."""
    known = find.own_runs(results_root)
    others = [run for run in known if not _is_test(run)]
    there = []
    if tests := len(known) - len(others):
        there.append(f"{tests} of the ci profile (tests, which are never shown)")
    if others:
        newest = f"the newest is {others[-1].status['state']}, {others[-1].resume_command}"
        there.append(f"{len(others)} that did not end well; {newest}")
    text = " and ".join(there) or "no run"
    return f"{paths.results_root(results_root)} has {text}. Make one: distilbench run distilbert"


def _is_test(run: Run) -> bool:
    return run.config["parameters"]["profile"] == "ci"
