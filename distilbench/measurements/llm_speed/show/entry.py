"""What decoders show, under the names by which general code asks for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench import paths
from distilbench.lowrank.params import BASELINE, PALU
from distilbench.measurements.llm_speed.records import DECODE, PREFILL
from distilbench.measurements.llm_speed.show import plots, tables
from distilbench.measurements.llm_speed.show import side_by_side as of_two
from distilbench.report import load
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

TITLE = "A decoder with its cache whole and compressed"
SUBJECT = "prefill and decoding with keys and values whole, and compressed to latents"
OF_CONTENT = ("unaligned_share",)
NOTE = """\
Latencies are medians of a forward over the prompts (prefill) or of a whole generation (decode). To the first token
counts from the call; per token is the mean after it. Round brackets give 95 % intervals over trials, square ones
their range. The cache is counted from its tensors."""
NUMBERS = (
    "batch_size", "context", "new_tokens", "repetitions", "latency_ms", "ttft_ms", "tpot_ms", "tokens_per_s",
    "latency_mean_ms", "latency_std_ms", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "iterations",
    "p99_supported", "cached_tokens", "cache_bytes", "cache_ratio", "latency_ratio", "ttft_ratio", "tpot_ratio",
    "effective_ratio", "peak_rss_MiB", "peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB",
)  # fmt: skip
ENDS = {
    "latency_95_ms": "latency_ms", "ttft_95_ms": "ttft_ms", "tpot_95_ms": "tpot_ms",
    "latency_ratio_95": "latency_ratio", "ttft_ratio_95": "ttft_ratio", "tpot_ratio_95": "tpot_ratio",
}  # fmt: skip


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell, as text."""
    return tables.cells(summary["cells"])


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs."""
    return tables.cells(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    names = ("cell", "variant", "phase", "state")
    return pd.DataFrame(
        {"run_id": run.run_id} | {name: row[name] for name in names} | _numbers(row) for row in run.summary["cells"]
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row.get(name) for name in NUMBERS}
    for name, of in ENDS.items():
        found[f"{of}_low"], found[f"{of}_high"] = row.get(name) or (None, None)
    return found


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per cell `<cell>-<name>`."""
    found: dict[str, Value] = {
        "run_id": run.run_id,
        "machine": load.label(run),
        "measured_on": run.config["created"][:10],
        "model": run.model["name"],
        "model_parameters": run.model["parameters"],
        "data": run.data["name"],
        "data_tokens": run.data["tokens"],
    }
    if kept := run.summary["compression"]:
        shares = kept["retained"] or {}
        found |= {"effective_ratio": kept["effective"], "group_size": kept["group_size"], "block": kept["block"]}
        found |= {f"retained_{kind.removesuffix('_proj')}": share for kind, share in shares.items()}
    for row in run.summary["cells"]:
        known = {name: value for name, value in _numbers(row).items() if tables.known(value)}
        found |= {f"{row['cell']}-{name}": value for name, value in known.items()}
    return found


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "Prefill and decoding by variant, batch size and length: medians over trials"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    known = [cell for cell in summary["cells"] if cell["variant"] == PALU and cell.get("cache_ratio")]
    said = []
    for phase, stem, what in ((PREFILL, "latency", "a prefill"), (DECODE, "tpot", "a token")):
        if own := [cell for cell in known if cell["phase"] == phase]:
            last = own[-1]
            said.append(f"{what} {tables.ratio(last, stem)} times as long ({last['cell'].partition('-')[2]})")
    if known:
        cache = known[-1]["cache_ratio"]
        return f"Compressed, the cache has {cache:.3f} of its bytes; {' and '.join(said)}."
    every = [cell for cell in summary["cells"] if cell.get("tokens_per_s")]
    best = max(every, key=lambda cell: cell["tokens_per_s"], default=None)
    return f"Most tokens/s: {best['tokens_per_s']:,.1f} at {best['cell']}." if best else "Nothing was measured."


def sentences(table: pd.DataFrame) -> list[str]:
    """What compression changes at each point."""
    return [
        f"{row['cell'].removeprefix('palu-')}: the cache has {row['cache_ratio']:.3f} of its bytes, and "
        + (
            f"a prefill takes {tables.ratio(row, 'latency')} times as long"
            if row["phase"] == PREFILL
            else f"a token takes {tables.ratio(row, 'tpot')} times as long"
        )
        for row in table.to_dict("records")
        if row["variant"] != BASELINE and tables.known(row.get("cache_ratio"))
    ]


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """Both phases point by point, where a run has decoders as a section."""
    every = table.to_dict("records")
    return [
        Table(tables.prefill(every), "Reading a prompt, baseline and compressed", f"{label}-prefill"),
        Table(tables.decode(every), "Writing after it, baseline and compressed", f"{label}-decode"),
    ]


def compression(run: Run) -> pd.DataFrame:
    """How keys and values were compressed."""
    file = run.folder / "compression.json"
    return tables.compression("this run", paths.read_json(file) if file.is_file() else None)


def about(run: Run) -> dict[str, str | int]:
    """What was measured on what, and how often."""
    counts = ", ".join(f"{pass_name}: {count}" for pass_name, count in load.processes(run).items())
    params = run.config["parameters"]
    return {
        "model": f"{run.model['name']}, {run.model['parameters']:,} parameters, {params['dtype']}",
        "source of the model": run.model["source"],
        "text of the prompts": f"{run.data['name']}, {run.data['tokens']:,} tokens",
        "fresh processes per cell": counts or "none",
    }


def subject(run: Run) -> list[str]:
    """What was measured, in a line each."""
    return [
        f"model: {run.model['name']}, {run.model['parameters']:,} parameters ({run.model['source']})",
        f"text: {run.data['name']}, {run.data['tokens']:,} tokens",
    ]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return "So few iterations cannot say how sure a ratio is; nor can times say what compression costs in quality."


def figure_caption(run: Run, figure: str) -> str | None:
    """What a figure of a page shows, one of a section too; None where the run has nothing to show there."""
    of_sections = (one.kind.showing.figure_caption(one, figure) for one in run.sections if one.is_measured)
    return plots.caption(run, figure) or next(filter(None, of_sections), None)


save, save_of, side_by_side = plots.save, plots.save_of, of_two.page


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} repetitions computed again from their iterations"
