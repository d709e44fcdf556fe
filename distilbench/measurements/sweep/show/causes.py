"""What is doubtful about a run, by cause: the doubts of its cells put together, worst first."""

from __future__ import annotations

import re
from typing import Any

from distilbench.measurements.sweep.show import cell_tables, secondary_tables
from distilbench.report.doubts import Doubt
from distilbench.runs.folder import Run
from distilbench.runs.states import MEASURED

#: How a doubt of a cell begins (`summary.doubts` words it), its cause, and what that means; worst first. `{}` stands
#: for the worst of the numbers that the pattern takes from the cells.
CAUSES = (
    (r"invalid", "invalid", "these numbers cannot be right: use none of them"),
    (r"logits differ", "logits differ between processes", "they did not compute the same: do not use the accuracy"),
    (r"unstable", "unstable (did not settle)",
     "a process still changed its speed when its warm-up was cut off: the median may be too high or too low"),
    (r"the GPU was slowed", "the GPU was slowed", "power, heat or a fault held it back: it can do better"),
    (r"the CPU was throttled", "the CPU was throttled for heat", "it can do better when it is cool"),
    (r"throttled by its CPU quota", "stopped by a CPU quota", "a limit was measured, not the machine"),
    (r"before it was timed, (?:.+) got", "fewer cores than threads", "the threads had to share their cores"),
    (r"other processes used (\d+\.\d)", "other processes used up to {} cores", "latency is too high by what they took"),
    (r"the hypervisor gave (\d+\.\d+)", "the hypervisor took up to {} cores", "latency is too high by what it took"),
    (r"the parent used (\d+\.\d+)", "the waiting parent used up to {} cores", "latency may be too high by that"),
    (r"(\d+) other processes computed", "up to {} other processes on the GPU", "latency is too high by what they took"),
    (r"the .+'s clock went", "the clock changed", "times from before and after it differ"),
    (r"repetitions differ by (\d+)%", "equal processes differ by up to {} %",
     "a median depends on which processes were drawn: compare what stands beside it, too"),
    (r"so do their page faults", "their page faults differ too",
     "the C library gives memory back and fetches it again, in each process otherwise; `heap: keep` prevents it"),
    (r"a process was cut off with its median known to (\d+)%", "cut off with the median known to {} % only",
     "that process needed more time than `max_seconds`"),
    (r".+% of what the measured (?:.+) ceiling", "an implausible share of the ceiling",
     "weights stayed in a cache, or the ceiling was measured in a bad moment"),
    (r"energy is modelled", "energy is modelled", "no counter: a given power times the time"),
    (r"energy is integrated", "energy is integrated from sampled power", "peaks between samples are missed"),
    (r"net energy is not above 0", "net energy is not above 0", "the machine drew as much at rest"),
    (r"energy: .+ windows are invalid", "energy: windows were left out", "the counter failed in them"),
    (r"energy: windows of one process", "energy: one process only",
     "its range does not hold what differs between processes"),
    (r"energy: .+, no interval", "energy: no interval", "five windows give one"),
    (r"energy", "energy is uncertain", "the counter, or the machine at rest, was not steady: run_summary.md says how"),
    (r"\d+ repetition\S*: no interval", "no interval", "five processes or more per cell give one"),
    (r"whether the warm-up", "settling was not tested",
     "the warm-up has a fixed length here: whether the speed had settled is not known"),
    (r"(\d+\.\d)% of the sentences are cut", "up to {} % of the sentences are cut",
     "time and accuracy are those of shorter text"),
)  # fmt: skip


def causes(run: Run, summary: dict[str, Any]) -> list[Doubt]:
    """Why the numbers of a run must be doubted: cells without numbers, doubts of cells, and what holds of the run."""
    names = {cell["cell"]: _name(cell, summary["cells"]) for cell in summary["cells"]}
    lost: dict[str, list[str]] = {}
    for cell in summary["cells"]:
        if cell["state"] not in MEASURED:
            lost.setdefault(cell["state"], []).append(names[cell["cell"]])
    found = [Doubt(f"not measured ({state})", "", tuple(cells), len(names)) for state, cells in lost.items()]
    said = [(doubt, names[cell["cell"]]) for cell in summary["cells"] for doubt in cell["doubts"]]
    for pattern, cause, meaning in CAUSES:
        mine = [(matched, name) for doubt, name in said if (matched := re.match(pattern, doubt))]
        said = [pair for pair in said if not re.match(pattern, pair[0])]
        if mine:
            worst = max((matched[1] for matched, _ in mine if matched.re.groups), key=float, default="")
            found.append(_doubt(cause.format(worst), meaning, [name for _, name in mine], len(names)))
    others = {doubt: [name for other, name in said if other == doubt] for doubt, _ in said}
    found += [_doubt(doubt, "", cells, len(names)) for doubt, cells in others.items()]
    of_run = [secondary_tables.control(summary), secondary_tables.nodes(summary), secondary_tables.intervals(run)]
    texts = [*filter(None, of_run), *(f"not measured, {text}" for text in cell_tables.not_measured(summary))]
    return found + [Doubt(cause, meaning) for cause, _, meaning in (text.partition(": ") for text in texts)]


def _doubt(cause: str, meaning: str, cells: list[str], of: int) -> Doubt:
    return Doubt(cause, meaning, tuple(dict.fromkeys(cells)), of)


def _name(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """A cell as readers call it: its length and batch size, and its variant where there are several."""
    several = len({other["variant"] for other in cells}) > 1
    return f"{cell['variant'] + ' ' if several else ''}{cell['length_policy']} b{cell['batch_size']}"
