"""batch_anomaly_report.md: the answer, the table, the picture, the diagnosis with its evidence, and the doubts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from distilbench import paths
from distilbench.anomaly import plot, records, scaling
from distilbench.anomaly.analysis import DEVIATES, SEEMS, Analysis, Curve, Ratio, SizeFound, analyse
from distilbench.anomaly.diagnosis import Cause, Look
from distilbench.anomaly.records import BatchProfile
from distilbench.report import charts, tables
from distilbench.stats import THRESHOLD

NAME, PICTURE = "batch_anomaly_report.md", "batch_anomaly"
DASH = "–"
METHOD = (
    "Linear scaling says that a batch of n samples takes a + b·n. For each size, a and b come from the *other* sizes "
    "(least median of squares, then Tukey's biweight, on relative residuals), so that no size predicts itself and a "
    "few that deviate do not bend the line. Efficiency is predicted over measured latency: 1.15 is 15 % better than "
    "linear scaling predicts. The line is drawn again in each round of fresh processes, one for each size; the "
    "intervals are over the rounds.",
    "The interval of a size *alone* is Student's t at 95 %: of twenty sizes that do not deviate, one would seem to. "
    "Those of *all* sizes hold together in 95 % of runs (largest |t| over all sizes, by turning the signs of rounds: "
    "Westfall and Young 1993, Winkler et al. 2014; no standard error counts as smaller than the median one). A size "
    f"deviates where the second interval is beyond {THRESHOLD:.0%} of the prediction, which is what makes a difference "
    "in practice; it only seems to where the first one is and the second is not.",
)
HALF = 0.5


def write(file: Path, folder: Path | None = None) -> Path:
    """Writes the report on a file, and its picture as SVG and PNG, beside it or into another folder; returns its path.

    Raises:
        RunError: the file is missing or is no profile of batch sizes.
    """
    content = records.read(file)
    analysis, folder = analyse(content), folder or file.parent
    drawn = plot.chart(analysis)
    if drawn is not None:
        paths.write_atomic(folder / f"{PICTURE}.svg", charts.svg(drawn))
        paths.write_atomic(folder / f"{PICTURE}.png", charts.png(drawn, scale=2))
    paths.write_atomic(folder / NAME, text(content, analysis, file.name, drawn is not None))
    return folder / NAME


def text(content: BatchProfile, analysis: Analysis, source: str, drawn: bool = True) -> str:
    """The report in Markdown.

    Args:
        content: of the file.
        analysis: of that content.
        source: name of the file.
        drawn: whether there is a picture beside the report.
    """
    template = (Path(__file__).parent / "report.md.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.keep_trailing_newline = True
    return environment.from_string(template).render(
        content=content,
        source=source,
        answer=answer(analysis),
        curves=[(curve, tables.markdown(table(curve))) for curve in analysis.curves if curve.sizes],
        picture=f"{PICTURE}.png" if drawn else "",
        diagnoses=list(diagnoses(analysis)),
        doubts=doubts(content, analysis),
        method=METHOD,
    )


# ------------------------------------------------------------------ the answer


def answer(analysis: Analysis) -> list[str]:
    """Which sizes deviate, and how sure that is: the first lines."""
    if analysis.no_verdict:
        return [f"**This run cannot say which batch sizes deviate**: {analysis.no_verdict}."]
    off, seeming = analysis.sizes(DEVIATES), analysis.sizes(SEEMS)
    one = len(analysis.curves) == 1
    said = [f"**{_counted(len(off), analysis.compared)} from linear scaling**, all of them controlled for at 95 %."]
    said += [f"{_named(curve, size, one)}: {_how_far(size)}." for curve, size in off]
    if seeming:
        names = ", ".join(_named(curve, size, one) for curve, size in seeming)
        said.append(f"Only seem to, each judged by itself: {names}.")
    words = {"linear": f"within {THRESHOLD:.0%} of linear scaling for sure", "undecided": "undecided"}
    others = [f"{n} {word}" for kind, word in words.items() if (n := len(analysis.sizes([kind])))]
    return said + ([f"Of the others: {', '.join(others)}."] if others else [])


def _counted(n: int, of: int) -> str:
    return f"{n or 'None'} of {of} batch sizes {'deviates' if n < 2 else 'deviate'}"


def _named(curve: Curve, size: SizeFound, one: bool) -> str:
    return f"batch size {size.batch_size}" + ("" if one else f" ({curve.name})")


def _how_far(size: SizeFound) -> str:
    low, high = size.efficiency.together
    which = "better" if size.found == "faster than linear" else "worse"
    return f"{abs(size.efficiency.value - 1):.1%} {which} efficiency than linear scaling ({low:.3f}–{high:.3f})"


# ------------------------------------------------------------------ the table


def table(curve: Curve) -> pd.DataFrame:
    """One row per size, as text."""
    base = f"against batch size {curve.base_size}"
    return pd.DataFrame(
        {
            "batch size": str(size.batch_size),
            "latency (ms)": f"{size.latency_ms:.4g}",
            "per sample (ms)": f"{size.latency_per_sample_ms:.4g}",
            "linear scaling (ms)": f"{size.predicted_ms:.4g}",
            "efficiency": f"{size.efficiency.value:.3f}",
            "alone": _ends(size.efficiency.alone),
            "all together": _ends(size.efficiency.together),
            base: _ratio(size.speed_up_per_sample),
            "verdict": size.found or DASH,
        }
        for size in curve.sizes
    )


def _ends(pair: tuple[float, float] | None) -> str:
    return f"{pair[0]:.3f}–{pair[1]:.3f}" if pair else DASH


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.2f}×" + (f" ({ratio.alone[0]:.2f}–{ratio.alone[1]:.2f})" if ratio.alone else "")


# ------------------------------------------------------------------ the diagnosis


def diagnoses(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    """Per size that deviates: its name, and lines of what its operators account for."""
    one = len(analysis.curves) == 1
    for curve, size in analysis.sizes(DEVIATES):
        yield _named(curve, size, one), _diagnosis(size)


def _diagnosis(size: SizeFound) -> list[str]:
    found = size.diagnosis
    which = "less" if found.deviation_ms < 0 else "more"
    whole = f"A batch takes {abs(found.deviation_ms):.4g} ms {which} than predicted"
    if found.none:
        return [f"{whole}. No diagnosis: {found.none}."]
    explained = 1 - found.unexplained_share
    left = f"{_percent(found.unexplained_share)} is unexplained" if explained < 1 else "nothing is unexplained"
    said = [f"{whole}. Operators that differ for sure account for {_percent(explained)} of that; {left}."]
    return said + [line for cause in found.causes for line in _cause(cause)]


def _cause(cause: Cause) -> list[str]:
    low, high = cause.share_ends
    which = "less" if cause.deviation_ms < 0 else "more"
    threads = f"; threads that shared work: {cause.here.threads_used:g}" if cause.here.threads_used is not None else ""
    lines = [
        f"`{cause.operator}` takes {abs(cause.deviation_ms):.4g} ms {which}: {_percent(cause.share)} of the deviation "
        f"({_percent(low)} to {_percent(high)}); per sample {cause.per_sample_ms:.4g} ms, predicted "
        f"{cause.predicted_per_sample_ms:.4g} ms (profiled){threads}."
    ]
    looks = [look for look in (cause.here, cause.smaller, cause.larger) if look]
    lines += [f"  - {_look(look)}" for look in looks]
    changed = "; ".join(cause.changes)
    return [*lines, f"  - otherwise than at the sizes next to it: {changed or 'its time alone'}"]


def _percent(share: float) -> str:
    return f"{round(100 * share)}%"


def _look(look: Look) -> str:
    if not look.calls:
        return f"batch size {look.batch_size}: not called"
    shapes = "inputs not recorded"
    if look.shapes is not None:
        each = (f"{_dims(one.dims)} {one.calls:.4g}× in {one.ms:.4g} ms" for one in look.shapes)
        shapes = "; ".join(each) or "no tensors"
    kernels = ", ".join(f"`{one.kernel}` {one.calls:.4g}× in {one.ms:.4g} ms" for one in look.kernels or [])
    return f"batch size {look.batch_size}: {look.calls:.4g} calls; {shapes}" + (
        f"; kernels {kernels}" if kernels else ""
    )


def _dims(dims: list[Any]) -> str:
    return " · ".join("×".join(map(str, one)) for one in dims if one and not isinstance(one[0], list)) or "scalars"


# ------------------------------------------------------------------ the doubts


def doubts(content: BatchProfile, analysis: Analysis) -> list[str]:
    """What the run cannot say."""
    said = [f"It gives no verdict: {analysis.no_verdict}."] if analysis.no_verdict else []
    for curve in analysis.curves:
        said += [f"Batch size {number} ({curve.name}) is left out: {why}." for number, why in curve.left_out.items()]
        said += _of_the_line(curve)
    if unstable := [str(size.batch_size) for size in content.sizes if size.state == "unstable"]:
        said.append(f"Not settled when their warm-up was cut off: batch sizes {', '.join(unstable)}.")
    for _, size in analysis.sizes(DEVIATES):
        said += _of_the_diagnosis(size)
    return [
        *said,
        "Operators were timed under a profiler, in other processes than the latencies; their shares are of the "
        "deviation without it.",
        f"It is one machine ({content.machine}), one model and these inputs; another machine may deviate elsewhere.",
    ]


def _of_the_line(curve: Curve) -> Iterator[str]:
    off = [size for size in curve.sizes if size.found in DEVIATES]
    if len(off) > HALF * len(curve.sizes):
        yield (
            f"{len(off)} of {len(curve.sizes)} sizes deviate ({curve.name}): then a straight line does not describe "
            "this machine, and to call single sizes anomalies means little."
        )
    for size in (size for size in off if size.extrapolated):
        yield (
            f"Batch size {size.batch_size} lies beyond the sizes that its line was drawn through: what deviates "
            "there may be the line."
        )
    if curve.sizes and len(curve.sizes) <= scaling.ROBUST_FROM:
        yield f"{len(curve.sizes)} sizes ({curve.name}) are too few to tell a size that deviates from a bent line."


def _of_the_diagnosis(size: SizeFound) -> Iterator[str]:
    found = size.diagnosis
    if found.none:
        return
    if abs(found.unexplained_share) > HALF:
        yield (
            f"What makes batch size {size.batch_size} deviate is mostly unexplained ({_percent(found.unexplained_share)}); "
            f"all operators together deviate by {_percent(found.all_operators_share)} of it."
        )
    if abs(found.profiled_share - 1) > HALF:
        yield (
            f"The profiled processes, before the profiler ran, deviate at batch size {size.batch_size} by "
            f"{_percent(found.profiled_share)} of what the timed ones do: the two differ."
        )
