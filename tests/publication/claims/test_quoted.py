"""What others say of a study stands beside what a run of it measured."""

from __future__ import annotations

from distilbench.publication.claims import model, page
from distilbench.publication.claims.quoted import quoted


def test_each_claim_about_its_study_is_a_row(make_run):
    run = make_run(batch_sizes=[2, 4], length_policies=["fixed-16"], samples_per_cycle=32, repetitions=6)
    rows = {row["claim"]: row for row in quoted(run)}
    assert list(rows) == [claim.id for claim in model.load() if claim.study == "distilbert"]
    row = rows["batch-4-against-2"]
    assert row["quoted"] == "1.39, 5 % either way"
    assert row["source"] == "requirement document 001"
    assert row["measured"].startswith(page._number(2 * 14 / 18)), "14 ms for two, 18 for four"
    assert row["verdict"] == "NOT REPRODUCED"
    assert rows["mixed-precision-on-a-gpu"] | {"claim": ""} == {
        "claim": "", "quoted": "at least 1.02", "source": "requirement document 001", "measured": "-",
        "verdict": "CANNOT BE TESTED HERE",
    }  # fmt: skip
