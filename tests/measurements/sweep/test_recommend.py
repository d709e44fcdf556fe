"""What to take of a measured run: the best for each aim within limits, by figures that one can follow."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from distilbench import paths
from distilbench.cli.main import app
from distilbench.errors import ParameterError, RunError
from distilbench.measurements.sweep.show import recommend
from distilbench.measurements.sweep.show.optimal import Limits

#: Two cells: 12 ms and 401 MiB for one sentence (12.12 ms in the slower process), 18 ms and 404 MiB for four (18.18).
SMALL = {"profile": "smoke", "repetitions": 2, "batch_sizes": [1, 4], "samples_per_cycle": 32}


@pytest.fixture
def one(make_run):
    return make_run("one", **SMALL)


def chosen(run, **limits) -> dict[str, int | None]:
    return {aim.name: cell and cell["batch_size"] for aim, cell in recommend.recommended(run, Limits(**limits))}


def test_each_aim_has_its_best(one):
    assert chosen(one) == {"latency": 1, "throughput": 4, "memory": 1, "energy": None}


def test_limits_are_kept(one):
    assert chosen(one, latency_ms=13.0)["throughput"] == 1
    assert chosen(one, memory_MiB=403)["throughput"] == 1
    with pytest.raises(RunError, match=r"nothing that run one measured keeps within 5 ms: the least .* 12\.12 ms"):
        chosen(one, latency_ms=5.0)
    summary = one.summary
    for cell in summary["cells"]:
        cell["accuracy"] = 0.9 if cell["batch_size"] == 1 else 0.8
    paths.write_json(one.folder / "summary.json", summary)
    assert chosen(one, accuracy=0.85)["throughput"] == 1
    with pytest.raises(RunError, match=r"within an accuracy of at least 0\.95: .* the highest accuracy is 0\.9000"):
        chosen(one, accuracy=0.95)
    for wrong in (0.0, 1.5):
        with pytest.raises(ParameterError, match="--min-accuracy must be above 0 and at most 1"):
            Limits(accuracy=wrong)


def test_what_has_no_single_sentences_has_no_latency(make_run):
    run = make_run("two", **SMALL | {"batch_sizes": [2, 4]})
    assert chosen(run)["latency"] is None
    row = recommend.table(recommend.recommended(run, Limits())).set_index("for").loc["latency"]
    assert (row["variant"], row["note"]) == ("–", "no single sentences")


def test_what_is_unstable_says_so(one):
    summary = one.summary
    summary["cells"][1]["state"] = "unstable"
    paths.write_json(one.folder / "summary.json", summary)
    table = recommend.table(recommend.recommended(one, Limits())).set_index("for")
    assert table.loc["throughput", "note"] == "(unstable)"
    assert table.loc["memory", "note"] == "–"
    assert table.loc["energy", "note"] == "not measured"


def test_the_front_has_what_no_other_beats():
    cells = [
        {"cell": name, "latency_ms": latency, "throughput_samples_per_s": rate}
        for name, latency, rate in [("a", 1, 10), ("b", 2, 9), ("c", 3, 30), ("d", 3, 20), ("e", 9, 30), ("f", 10, 31)]
    ]
    assert [cell["cell"] for cell in recommend.front(cells)] == ["a", "c", "f"]
    assert recommend.front([]) == []


def test_on_the_command_line(one):
    shown = CliRunner().invoke(app, ["recommend", "one", "--max-latency-ms", "13"])
    assert shown.exit_code == 0, shown.output
    assert "Of what run one measured within 13 ms, on" in shown.output
    assert "profile smoke: not for citation" in shown.output
    assert {file.name for file in (one.folder / "plots").glob("pareto.*")} == {"pareto.svg", "pareto.png"}
    as_json = json.loads(CliRunner().invoke(app, ["recommend", "one", "--json"]).stdout)
    assert as_json["recommended"]["throughput"]["batch_size"] == 4
    assert as_json["recommended"]["energy"] is None


def test_the_picture_says_its_front_in_words(one):
    assert "on the front: " in recommend.picture(one, Limits()).alt_text
