"""Tables that the book makes of what is published: headlines, runs, machines, schema of a record; MyST Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench import paths, simulated_traces
from distilbench.publication import provenance, publish
from distilbench.report import glue
from distilbench.report.tables import Table
from distilbench.runs import find, parameters
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement
from distilbench.stats import MIN_REPETITIONS, median_level
from distilbench.studies import KINDS


def studies() -> dict[str, dict[str, Any]]:
    """params/studies.yml: per study its question, notebooks and headline."""
    return parameters.read_yaml(paths.repo_root() / "params" / "studies.yml")


def headlines() -> str:
    """Per study with published pages: its question, and a table of its headline numbers, page by page.

    What stands in it is the study's `headline` in params/studies.yml: {what, value, form, low, high}, all but `what`
    and `form` being names of `glue.values`. A page without a number has a dash there; what is unstable says so.
    """
    parts = []
    for study, about in studies().items():
        pages = sorted((publish.pages_root() / study).glob("*.ipynb"), key=lambda page: publish.run_of(page).run_id)
        if not pages:
            parts += [f"**{about['question']}** (`{study}`) No run of it is published yet.", ""]
            continue
        parts += [f"**{about['question']}** ({{doc}}`{study} </studies/{study}/index>`)", ""]
        rows = [[row["what"], *(_headline(page, row) for page in pages)] for row in about["headline"]]
        titles = [" ", *map(_link, pages)]
        parts += [_table(f"{study}: headline results", f"tab-headline-{study}", titles, rows), ""]
    return "\n".join(parts)


def _link(page: Path) -> str:
    return f"{{doc}}`{page.stem} </studies/{page.parent.name}/{page.stem}>`"


def _headline(page: Path, row: dict[str, Any]) -> str:
    name, form = str(page.relative_to(provenance.book_root())), row.get("form", "")
    values = provenance.carried(name)
    if row["value"] not in values:
        return "–"

    def glued(field: str) -> str:
        return f"{{glue:text}}`/{name}::{field}:{form or 's'}`"

    text, ends = glued(row["value"]), [row.get("low"), row.get("high")]
    if all(end in values for end in ends):
        text += f" ({glued(ends[0])} to {glued(ends[1])})"
    mark = glue.mark_of(provenance.run_of(name), row["value"])
    return text + (f"{{glue:text}}`/{name}::{mark}:s`" if values.get(mark) else "")


def runs_index() -> str:
    """Every run that the book cites, with the page that shows it and how the SHA-256 of its raw file begins."""
    shown: dict[str, list[str]] = {}
    for page in publish.pages():
        shown.setdefault(publish.run_of(page).run_id, []).append(_link(page))
    rows = []
    for run in find.published_runs():
        code = (paths.read_json(run.folder / "env.json")["git"]["sha"] or "none")[:8]
        pages = ", ".join(shown.get(run.run_id, ["–"]))
        raw = paths.sha256_file(run.raw)[:12]
        rows.append([f"`{run.run_id}`", pages, run.config["created"][:10], f"`{code}`", f"`{raw}`"])
    caption = "The runs that this book cites, and how the SHA-256 of each raw file begins"
    return _table(caption, "tab-runs-index", ["Run", "Page", "Measured", "Code", "Raw file"], rows)


def machines() -> str:
    """What the published runs were measured on, one column per machine."""
    runs: dict[str, list[str]] = {}
    for run in find.published_runs():
        machine = json.dumps(_machine(paths.read_json(run.folder / "env.json")))
        runs.setdefault(machine, []).append(f"`{run.run_id[-8:]}`")
    columns = [{"Runs": ", ".join(names)} | json.loads(machine) for machine, names in runs.items()]
    rows = [[what, *(column[what] for column in columns)] for what in columns[0]]
    titles = ["What", *(f"Machine {chr(ord('A') + i)}" for i in range(len(columns)))]
    return _table("What the published runs were measured on", "tab-machines", titles, rows)


def _machine(env: dict[str, Any]) -> dict[str, str]:
    cpu, tuning, torch = env["cpu"], env.get("tuning", {}), env.get("torch", {})
    quota, memory = (env["cgroup"].get(name) or "max" for name in ("cpu.max", "memory.max"))
    libraries = [name for name, key in (("MKL", "mkl"), ("oneDNN", "onednn")) if torch.get(key)]
    return {
        "CPU": f"{cpu['model']} ({cpu['architecture']})",
        "Cores": f"{len(cpu['affinity'])} usable, {cpu['physical_cores']} physical, {cpu['logical_cores']} logical",
        "Vector extensions": ", ".join(cpu["isa"]),
        "Memory": f"{env['memory_MiB'] / 1024:.0f} GiB",
        "GPUs": ", ".join(f"{gpu['name']} ({gpu['memory_MiB'] / 1024:.0f} GiB)" for gpu in env["gpus"]) or "none",
        "Governor, turbo": f"{tuning.get('governor') or 'not told'}, {tuning.get('turbo') or 'not told'}",
        "Hyper-threading, NUMA nodes": f"{tuning.get('smt') or 'not told'}, {tuning.get('numa_nodes') or 'not told'}",
        "Limits": f"CPU {'none' if quota.startswith('max') else quota}, memory {'none' if memory == 'max' else memory}",
        "Container": env.get("container") or "none that shows",
        "System": env["host"]["os"],
        "Software": f"Python {env['python']['version']}, torch {env['packages']['torch']}, "
        f"transformers {env['packages']['transformers']}",
        "Arithmetic": ", ".join([torch.get("cpu_capability", "?"), *libraries]),
    }


def coverages() -> str:
    """How often intervals hold the truth, for every number of repetitions that a published run has, and the usual one.

    Where a page carries the number it is taken from there, as all numbers are; else it is computed here.
    """
    pages: dict[int, str] = {}
    for page in publish.pages():
        name = str(page.relative_to(provenance.book_root()))
        pages.setdefault(provenance.run_of(name).config["parameters"].get("repetitions"), name)
    sizes = sorted(n for n in {*pages, simulated_traces.USUAL} if n and n >= MIN_REPETITIONS)
    kinds = simulated_traces.KINDS
    rows = [["Student's t", kind, *(_coverage(kind, n, pages.get(n)) for n in sizes)] for kind in kinds]
    rows.append(["of the median", "any, exactly", *(f"{median_level(n):.1%}" for n in sizes)])
    titles = ["Interval", "Processes", *(f"{n} repetitions" for n in sizes)]
    caption = "How often an interval holds the truth, by the number of repetitions; Student's t claims 95 %"
    return _table(caption, "tab-coverages", titles, rows, prose=False)


def _coverage(kind: str, repetitions: int, page: str | None) -> str:
    field = f"coverage_{kind.replace('-', '_')}"
    if page and field in provenance.carried(page):
        return f"{{glue:text}}`/{page}::{field}:.1%`"
    return f"{simulated_traces.coverages(repetitions)[kind]:.1%}"


def schema() -> str:
    """Per kind the fields of a line of its raw file, from the pydantic model that reads and writes it."""
    parts = []
    for run in _first_of_each_kind():
        fields = run.kind.record.model_json_schema(by_alias=True)["properties"]
        rows = [[f"`{name}`", _type(field), field.get("description", "")] for name, field in fields.items()]
        label = "tab-schema" + f"-{run.kind.name}" * bool(parts)  # chapters refer to the first one
        parts.append(_table(f"A line of {run.raw.name}", label, ["Field", "Type", "Meaning"], rows))
    return "\n\n".join(parts)


def _first_of_each_kind() -> list[Run]:
    """The first published run of each kind, in the order of the kinds."""
    first = {run.kind.name: run for run in reversed(find.published_runs())}
    return [first[name] for name in KINDS if name in first]


def _type(field: dict[str, Any]) -> str:
    options = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    names = []
    for one in options:
        named = one.get("$ref", "").rpartition("/")[2] or one.get("type") or "one of a list"
        names.append(named if named != "array" else f"list of {one.get('items', {}).get('type', 'values')}")
    return " or ".join(names)


def example() -> str:
    """A real line of a raw file, of the first published run, laid out over many lines."""
    run = _first_of_each_kind()[0]
    record = json.loads(run.raw.read_text(encoding="utf-8").splitlines()[0])
    text = json.dumps({name: value for name, value in record.items() if value not in (None, {}, [])}, indent=2)
    return f"The first line of run `{run.run_id}`, without what is null:\n\n```json\n{text}\n```"


def instrument(kind: Measurement, folder: Path, name: str) -> str:
    """What is published of an instrument."""
    rows = kind.showing.cells(Run(folder), paths.read_json(folder / "summary.json"))
    return _table(kind.showing.caption(folder), name, rows.columns, rows.to_numpy().tolist())


def _table(caption: str, name: str, titles: Iterable[str], rows: list[list[str]], prose: bool = True) -> str:
    table = Table(pd.DataFrame(rows, columns=list(titles)), caption, name, prose)
    return table._repr_mimebundle_()["text/markdown"]
