"""What others say of a study, beside what a run of it measured: rows of a report that is no page of the book."""

from __future__ import annotations

from distilbench.publication.claims import model, page, trial
from distilbench.runs.folder import Run


def quoted(run: Run) -> list[dict[str, str]]:
    """A row per claim about the study of a run: what is claimed, by whom, what the run measured, and the verdict.

    Raises:
        ParameterError: params/claims.yml is not as it must be.
    """
    mine = [claim for claim in model.load() if claim.study == run.config["study"]]
    return [
        {
            "claim": claim.id,
            "quoted": str(claim.test.expected),
            "source": claim.source,
            "measured": ", ".join(map(page.measured, outcome.tests)) or "-",
            "verdict": outcome.verdict,
        }
        for claim, outcome in ((claim, trial.try_claim(claim, [run])) for claim in mine)
    ]
