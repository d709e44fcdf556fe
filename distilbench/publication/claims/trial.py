"""The verdict on a claim: which runs can test it, what each gives, and what it would take where none can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from distilbench.errors import RunError
from distilbench.publication.claims import model
from distilbench.publication.claims.model import Claim
from distilbench.publication.claims.rules import Quantity, Verdict, judged, quantities
from distilbench.report import load
from distilbench.runs.folder import Run
from distilbench.runs.parameters import PROFILES

CONFIDENCE = 0.95  # of all verdicts of a claim together


@dataclass(frozen=True)
class Test:
    """One set of cells of one run that a claim was held against."""

    run: Run
    cells: str
    n: int  # processes, or things counted
    value: float
    low: float | None
    high: float | None
    verdict: Verdict
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A claim with its verdict.

    Attributes:
        claim: what was said.
        verdict: on it.
        tests: that decide it; of runs with the claim's own model and text only, where there are such.
        beside: per run, by id, what must be said beside the verdict.
        reasons: why other runs cannot test it, each with their ids.
        of_others: whether the tests are of another model or text than the claim's.
    """

    claim: Claim
    verdict: Verdict
    tests: list[Test] = field(default_factory=list)
    beside: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    of_others: bool = False

    @property
    def takes(self) -> str:
        """What it would take to test it, in a sentence."""
        own = f", with {self.claim.model} itself" if self.claim.model and _needs_own(self.claim) else ""
        return f"A full run on {self.claim.hardware}{own}: `{model.command(self.claim)}`, then `distilbench publish`."


def before(claims: list[Claim], runs: list[Run]) -> list[Outcome]:
    """All claims before published runs; those of another profile than the full one decide none."""
    full = [run for run in runs if run.config["parameters"]["profile"] == "full"]
    return [try_claim(claim, [run for run in full if run.config["study"] == claim.study]) for claim in claims]


def try_claim(claim: Claim, runs: list[Run]) -> Outcome:
    """The claim before these runs; what a run cannot test, it does not."""
    found: dict[str, list[Quantity]] = {}
    reasons: dict[str, list[str]] = {}
    measured: list[Run] = []
    for run in runs:
        try:
            run = run.of_kind(claim.section) if claim.section else run
            if why := _unfit(claim, run):
                raise RunError(why)
            found[run.run_id] = quantities(claim.test, run)
            measured.append(run)
        except RunError as why:
            reasons.setdefault(str(why), []).append(run.run_id)
    own = [run for run in measured if not any(_unlike(claim, run))]
    deciding = {run.run_id: run for run in own or measured}
    tests = _tests(claim, {run_id: found[run_id] for run_id in deciding}, deciding)
    if not runs:
        reasons = {f"no full run of study {claim.study} is published": []}
    beside = {run_id: [*_unlike(claim, run), *_not_for_citation(run)] for run_id, run in deciding.items()}
    return Outcome(claim, _together(tests), tests, beside, reasons, bool(measured) and not own)


def _tests(claim: Claim, found: dict[str, list[Quantity]], runs: dict[str, Run]) -> list[Test]:
    """With m tests each interval is a 1 - 0.05 / m one (Bonferroni), so that their verdicts hold together."""
    confidence = 1 - (1 - CONFIDENCE) / max(1, sum(map(len, found.values())))
    tests = []
    for run_id, one in ((run_id, one) for run_id, every in found.items() for one in every):
        interval = one.interval(confidence)
        verdict, side = judged(interval, claim.test.expected)
        low, high = interval or (None, None)
        notes = (*([side] if side else []), *(["unstable"] if one.unstable else []))
        n = one.counted[1] if one.counted else len(one.values)
        notes += () if interval else ("too few for an interval",)
        tests.append(Test(runs[run_id], one.cells, n, one.value, low, high, verdict, notes))
    return tests


def _together(tests: list[Test]) -> Verdict:
    """REPRODUCED where every test says so; NOT REPRODUCED where one does and none supports the claim; or AMBIGUOUS."""
    verdicts = {test.verdict for test in tests}
    if not verdicts:
        return "CANNOT BE TESTED HERE"
    if verdicts == {"REPRODUCED"}:
        return "REPRODUCED"
    return "NOT REPRODUCED" if "NOT REPRODUCED" in verdicts and "REPRODUCED" not in verdicts else "AMBIGUOUS"


def _unfit(claim: Claim, run: Run) -> str:
    """Why a run is not about what the claim is about; "": it is."""
    device, hardware = run.config["parameters"]["device"], claim.hardware
    if run.config["study"] != claim.study:
        return f"it is of study {run.config['study']}, the claim of {claim.study}"
    if not run.is_finished:
        return "it is unfinished"
    if hardware.device not in ("any", device.partition(":")[0]) or hardware.gpu not in load.label(run):
        return f"it was measured on {load.label(run)}, the claim is about {hardware}"
    if _needs_own(claim, run) and (unlike := list(_unlike(claim, run))):
        return f"{claim.test.of.number} says nothing of another model or text ({'; '.join(unlike)})"
    return ""


def _needs_own(claim: Claim, run: Run | None = None) -> bool:
    """Whether only a run of the claim's own model and text can test it."""
    kind = run.kind if run else model.kind_of(claim)
    return claim.test.of.number in kind.showing.OF_CONTENT


def _unlike(claim: Claim, run: Run) -> Iterator[str]:
    """What of the run is not the claim's: model, text."""
    for what, wanted, file in (("model", claim.model, "model.json"), ("text", claim.text, "data.json")):
        if not wanted or not (run.folder / file).is_file():
            continue
        there = run.model if what == "model" else run.data
        name, source = there["name"], there["source"]
        if source != "hub" or not f"{name} ".startswith(f"{wanted} "):
            yield f"{what}: {name} (source {source}), not {wanted}"


def _not_for_citation(run: Run) -> list[str]:
    """Why a run decides nothing, where it is shown nevertheless."""
    params = run.config["parameters"]
    profile = params["profile"]
    said = [f"profile {profile}: {PROFILES[profile]}; it decides nothing"] if profile != "full" else []
    return said + run.kind.refusals(params)
