"""batch_anomaly_report.md: the answer, the table, the picture, the diagnosis with its evidence, and the doubts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2
import pandas as pd

from distilbench import paths
from distilbench.anomaly import evidence, plot, records, scaling
from distilbench.anomaly.analysis import DEVIATES, SEEMS, Analysis, Curve, Ratio, SizeFound, analyse
from distilbench.anomaly.gather import gather
from distilbench.anomaly.records import BatchProfile
from distilbench.report import charts, load, tables
from distilbench.runs.folder import Run
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


def write_of(run: Run) -> tuple[BatchProfile, Analysis]:
    """Gathers a run's file, and writes it and the report into the run; of a published run, beside one's own runs.

    Raises:
        RunError: nothing was measured.
    """
    folder = load.output_folder([run])
    records.write(folder / records.NAME, gather(run))
    write(folder / records.NAME)
    content = records.read(folder / records.NAME)
    return content, analyse(content)


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
        diagnosis=evidence.text(analysis),
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
    said += [f"{evidence.named(curve, size, one)}: {_how_far(size)}." for curve, size in off]
    if seeming:
        names = ", ".join(evidence.named(curve, size, one) for curve, size in seeming)
        said.append(f"Only seem to, each judged by itself: {names}.")
    words = {"linear": f"within {THRESHOLD:.0%} of linear scaling for sure", "undecided": "undecided"}
    others = [f"{n} {word}" for kind, word in words.items() if (n := len(analysis.sizes([kind])))]
    which = "Of the others" if off or seeming else "Of these"
    return said + ([f"{which}: {', '.join(others)}."] if others else [])


def _counted(n: int, of: int) -> str:
    return f"{n or 'None'} of {of} batch sizes {'deviates' if n < 2 else 'deviate'}"


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


# ------------------------------------------------------------------ the doubts


def doubts(content: BatchProfile, analysis: Analysis) -> list[str]:
    """What the run cannot say."""
    said = [f"It gives no verdict: {analysis.no_verdict}."] if analysis.no_verdict else []
    for curve in analysis.curves:
        said += [f"Batch size {number} ({curve.name}) is left out: {why}." for number, why in curve.left_out.items()]
        said += _of_the_line(curve)
        if unstable := [str(size.batch_size) for size in curve.sizes if size.state == "unstable"]:
            said.append(
                f"Not settled when their warm-up was cut off ({curve.name}): batch sizes {', '.join(unstable)}."
            )
    for _, size in analysis.sizes(DEVIATES):
        said += _of_the_diagnosis(size)
    if any(size.profiled for size in content.sizes):
        said.append(
            "Operators were timed under a profiler, in other processes than the latencies; their shares are of the "
            "deviation without it."
        )
    if any(size.length_policy == "longest" for size in content.sizes):
        said.append(
            "At `longest` a larger batch is padded to a longer sentence: more than its size differs, and what deviates "
            "there may be the padding."
        )
    return [
        *said,
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
    left, every = (evidence.percent(share) for share in (found.unexplained_share, found.all_operators_share))
    if abs(found.unexplained_share) > HALF:
        yield (
            f"What makes batch size {size.batch_size} deviate is mostly unexplained ({left}); all operators together "
            f"deviate by {every} of it."
        )
    if abs(found.profiled_share - 1) > HALF:
        yield (
            f"The profiled processes, before the profiler ran, deviate at batch size {size.batch_size} by "
            f"{evidence.percent(found.profiled_share)} of what the timed ones do: the two differ."
        )
