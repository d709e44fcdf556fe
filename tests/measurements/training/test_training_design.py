"""Which configurations there are, in which order they are measured, and what is refused."""

from __future__ import annotations

import pytest

from distilbench import studies
from distilbench.errors import ParameterError
from distilbench.measurements.training.measure import design


def resolved(**given):
    return studies.resolve("agnews", {"profile": "ci"} | given)


def cells(**given) -> dict[str, tuple]:
    found = design.cells_of(resolved(**given).params)
    return {one.cell: (one.processes, one.scaling, one.batch_size, one.rows_per_step) for one in found}


def test_strong_scaling_keeps_the_rows_of_a_step_and_weak_those_of_a_process():
    assert cells(processes=[4, 1, 2], scalings=["strong", "weak"], batch_size=8, accumulation=2) == {
        "p1-b8": (1, "one", 8, 16),
        "p2-strong-b4": (2, "strong", 4, 16),
        "p2-weak-b8": (2, "weak", 8, 32),
        "p4-strong-b2": (4, "strong", 2, 16),
        "p4-weak-b8": (4, "weak", 8, 64),
    }


def test_rounds_hold_every_configuration_then_come_the_bare_loop_and_the_trainings():
    design_ = resolved(repetitions=3, scalings=["strong", "weak"], loop_blocks=2)
    steps = [(cell.cell, pass_name, number) for cell, pass_name, number in design.plan(design_)]
    timed, rest = steps[:9], steps[9:]
    assert {of for _, of, _ in timed} == {"steps"}
    for number in range(3):
        mine = [name for name, _, n in timed if n == number]
        assert sorted(mine) == ["p1-b8", "p2-strong-b4", "p2-weak-b8"]
        assert mine == [name for name, _, _ in timed[3 * number : 3 * number + 3]], "round by round"
    assert rest == [("p1-b8", "loop", 0), ("p1-b8", "train", 0), ("p2-strong-b4", "train", 0)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("all", ["p1-b8", "p2-strong-b4"]), ("one", ["p1-b8"]), ("none", [])],
)
def test_only_steps_of_as_many_rows_are_trained_to_the_end(given, wanted):
    params = resolved(trainings=given, scalings=["strong", "weak"]).params
    assert [cell.cell for cell in design.trained(params)] == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": [2]}, "processes must hold 1"),
        ({"processes": [1, 3]}, "batch_size 8 cannot be shared out evenly over 3 processes"),
        ({"processes": [1, 0]}, "processes"),
        ({"scalings": ["wide"]}, "scalings"),
        ({"batch_size": 0}, "batch_size"),
        ({"proceses": [1]}, "processes"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        resolved(**given)


def test_weak_scaling_alone_needs_no_multiple():
    assert list(cells(processes=[1, 3], scalings=["weak"])) == ["p1-b8", "p3-weak-b8"]
