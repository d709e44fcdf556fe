"""What a calibration shows: the table of its checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench import paths
from distilbench.machine import conditions
from distilbench.report import tables
from distilbench.report.glue import Value
from distilbench.runs import find
from distilbench.runs.folder import Run


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per check, every value as text."""
    titles = ("check", "truth", "measured", "bound")
    rows = [{name: check[name] for name in titles} | {"verdict": _verdict(check)} for check in summary["checks"]]
    return pd.DataFrame(rows)


def _verdict(check: dict[str, Any]) -> str:
    """A rate over a few comparisons can contradict its bound, but not show that it is met."""
    met = "not refuted" if "comparisons" in check else "ok"
    return {True: met, False: "OFF", None: "reported"}[check["ok"]]


def caption(folder: Path) -> str:
    """What a table of a calibration is of."""
    config, env = Run(folder).config, Run(folder).env
    what, pool = f"A {config['depth']} calibration", f"pool of {config.get('rounds')} rounds, in processes"
    if "each" in config:
        what = "Forked against fresh processes"
        pool = f"{config['blocks']} times {config['each']} forks of a process and {config['each']} fresh processes, all"
    return f"{what} on {_machine(env)}, {config['created'][:10]}; {pool} of one thread{_elsewhere(env)}"


def _machine(env: dict[str, Any]) -> str:
    cores = len(env["cpu"]["affinity"])
    return f"{env['cpu']['model']}, {cores} core{'s' if cores > 1 else ''}"


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: run_id, machine, day, and of each check `<its name, with dashes>-<field>`."""
    found: dict[str, Value] = {"run_id": run.run_id, "machine": _machine(run.env), "day": run.config["created"][:10]}
    for check in run.summary["checks"]:
        low, high = check.get("interval", (None, None))
        fields = {"low": low, "high": high} | check
        plain = {name: value for name, value in fields.items() if name == "verdict" or _is_number(value)}
        found |= {f"{re.sub(r'[^A-Za-z0-9]+', '-', check['check'])}-{name}": value for name, value in plain.items()}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _elsewhere(env: dict[str, Any]) -> str:
    """Says where no published run was made on a machine like that of the calibration."""
    others = {conditions.machine_of(run.env, "cpu") for run in find.published_runs()}
    alone = others and conditions.machine_of(env, "cpu") not in others
    return "; no published run is of this machine" if alone else ""


def counted(run: Run) -> str:
    """What was computed again when it was verified."""
    count = len(run.kind.summarise(run.folder)["checks"])
    return f"{count} checks computed again from their readings"


def slide(folder: Path) -> dict[str, str]:
    """What a slide says of it: its table, its caption, its name and the hash of its readings."""
    checks = cells(Run(folder), Run(folder).summary)
    held = checks["verdict"].where(checks["verdict"] == checks["bound"], checks["verdict"] + ": " + checks["bound"])
    checks = checks.drop(columns=["bound", "verdict"]).assign(**{"held to": held})
    checks["measured"] = checks["measured"].str.replace("independent ", "")  # the caption says so
    return {
        "run_id": folder.name,
        "caption": caption(folder),
        "table": tables.markdown(gathered(checks)),
        "readings_sha256": paths.sha256_file(folder / "checks.jsonl"),
    }


def gathered(checks: pd.DataFrame) -> pd.DataFrame:
    """Plain readings of one kind that are held to the same go into one row: `sleep of 1/10/100 ms`."""
    plain = checks["measured"].str.split().str.len() <= 2  # a number and its unit
    kind = checks["check"].where(~plain, checks["check"].str.split().str[:2].str.join(" "))
    words = checks[["check", "truth", "measured"]].map(lambda text: len(text.split())).astype(str).agg(" ".join, axis=1)
    keys = [kind.rename("kind"), checks["held to"].rename("bound"), words.rename("words")]
    return checks.groupby(keys, sort=False).agg(_joined).reset_index(drop=True)


def _joined(texts: pd.Series) -> str:
    words = zip(*(text.split() for text in texts), strict=True)
    return " ".join("/".join(dict.fromkeys(alike)) for alike in words)
