"""The best batch size of an earlier run: of the same environment, within limits, by figures that one can follow."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from distilbench import paths
from distilbench.cli.main import app
from distilbench.errors import ParameterError, RunError
from distilbench.execution import notebooks
from distilbench.machine import conditions
from distilbench.measurements.sweep.show import optimal
from distilbench.measurements.sweep.show.optimal import Limits

#: Two cells: 12 ms and 401 MiB for one sentence (12.12 ms in the slower process), 18 ms and 404 MiB for four (18.18).
SMALL = {"profile": "smoke", "repetitions": 2, "batch_sizes": [1, 4], "samples_per_cycle": 32}


@pytest.fixture
def one(make_run):
    return make_run("one", **SMALL)


def size(**limits: float) -> int:
    return optimal.batch_size("distilbert", "cpu", limits=Limits(**limits))[0]


def test_it_is_of_the_newest_run_on_the_same_kind_of_machine(one, this_machine):
    size, said = optimal.batch_size("distilbert", "cpu")
    assert size == 4, "12 ms for one, 18 for four"
    assert said.startswith("batch size 4: ")
    assert "samples/s in run one on" in said
    assert "profile smoke: not for citation" in said
    this_machine["cpu"]["model"] = "Another CPU"
    with pytest.raises(
        RunError, match=r"no finished run of distilbert on cpu .*\(Another CPU, \d+ cores\): measure one"
    ):
        optimal.batch_size("distilbert", "cpu")


def test_a_run_with_other_versions_says_nothing(one, make_run, this_machine):
    this_machine["packages"]["torch"] = "9.9"
    with pytest.raises(
        RunError, match=r"run one, the newest there is, had another environment: torch: '.*' there, '9.9'"
    ):
        optimal.batch_size("distilbert", "cpu")
    make_run("two", **SMALL)
    assert " in run two on " in optimal.batch_size("distilbert", "cpu")[1]
    this_machine["host"]["name"] = "a node like this one"
    assert " in run two on " in optimal.batch_size("distilbert", "cpu")[1]


@pytest.mark.parametrize("spoil", ["ci", "device", "unfinished"])
def test_runs_that_say_nothing_of_it(make_run, spoil):
    run = make_run(**(SMALL | {"profile": "ci"} if spoil == "ci" else SMALL))
    if spoil == "unfinished":
        (run.folder / "summary.json").unlink()
    with pytest.raises(RunError, match="measure one first"):
        optimal.batch_size("distilbert", "cuda" if spoil == "device" else "cpu")


def test_limits_are_kept_by_the_high_end_of_what_was_measured(one):
    assert size(latency_ms=18.18) == 4
    assert size(latency_ms=18.17) == 1, "its median of 18.09 would keep it"
    assert size(memory_MiB=404) == 4
    assert size(memory_MiB=403) == 1
    assert (
        ", the best within 13 ms and 500 MiB, in run one"
        in optimal.batch_size("distilbert", "cpu", limits=Limits(13.0, 500.0))[1]
    )
    with pytest.raises(
        RunError, match=r"no batch size of run one keeps within 5 ms: the least .* is 12.12 ms and 401 MiB"
    ):
        size(latency_ms=5.0)


def test_what_was_not_measured_keeps_no_limit(one):
    summary = one.summary
    for cell in summary["cells"]:
        cell |= {"peak_rss_MiB": None, "peak_rss_MiB_range": None, "peak_rss_MiB_interval_of_median": None}
    paths.write_json(one.folder / "summary.json", summary)
    with pytest.raises(RunError, match=r"keeps within 4000 MiB: the least that any takes is 12.12 ms$"):
        size(memory_MiB=4000.0)


@pytest.mark.parametrize("limits", [{"latency_ms": 0.0}, {"memory_MiB": -1.0}])
def test_a_limit_that_nothing_can_keep_is_refused(limits):
    with pytest.raises(ParameterError, match="must be above 0, not"):
        Limits(**limits)


def test_the_kind_of_a_gpu_is_its_name(captured):
    assert conditions.machine_of(captured | {"gpus": [{"name": "A100"}, {"name": "A100"}]}, "cuda:0") == "A100"


def test_what_is_unstable_says_so(one):
    summary = one.summary
    summary["cells"][1]["state"] = "unstable"
    paths.write_json(one.folder / "summary.json", summary)
    assert " samples/s (unstable) in run one" in optimal.batch_size("distilbert", "cpu")[1]


# ------------------------------------------------------------------ on the command line


def test_it_is_printed(one):
    shown = CliRunner().invoke(app, ["optimal", "--max-latency-ms", "13"])
    assert shown.stdout == "1\n"
    assert "the best within 13 ms" in shown.stderr
    assert isinstance(CliRunner().invoke(app, ["optimal", "--study", "profile"]).exception, ParameterError)


def test_a_run_takes_it(one, monkeypatch):
    asked = []
    monkeypatch.setattr(notebooks, "run_study", lambda study, given, *_: asked.append(given) or one)
    shown = CliRunner().invoke(
        app, ["run", "distilbert", "--optimal", "--max-memory-mib", "403", "--dtype", "bfloat16"]
    )
    assert shown.exit_code == 0, shown.output
    assert asked == [{"batch_sizes": [1], "dtype": "bfloat16"}]
    assert "in run one on" in shown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optimal", "--batch-sizes", "4"], "give one of them"),
        (["--optimal", "--resume", "one"], "give one of them"),
        (["--max-latency-ms", "5"], "limit what --optimal chooses"),
    ],
)
def test_what_excludes_it(one, words, said):
    problem = CliRunner().invoke(app, ["run", "distilbert", *words]).exception
    assert isinstance(problem, ParameterError)
    assert said in str(problem)
