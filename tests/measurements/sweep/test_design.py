"""The design of a sweep: its cells, the order of measuring, and no folder for a device that is not there."""

from __future__ import annotations

import re
import sys
import types
from collections import Counter

import pytest
import synthetic

import distilbench.machine
from distilbench import studies
from distilbench.errors import DeviceError
from distilbench.measurements.sweep.measure import design
from distilbench.runs import find


def plan_of(**given):
    return [(cell.cell, where, number) for cell, where, number in design.plan(synthetic.resolved(**given))]


SWEEP = {
    "variants": ["eager", "sdpa"],
    "length_policies": ["fixed-32", "longest"],
    "batch_sizes": [1, 2, 4],
    "repetitions": 4,
    "memory_repetitions": 2,
}


def test_cells_are_all_combinations_in_reading_order():
    cells = design.cells_of(synthetic.resolved(**SWEEP).params)
    assert [(c.variant, c.length_policy, c.batch_size) for c in cells] == [
        (variant, policy, size)
        for variant in ("eager", "sdpa")
        for policy in ("fixed-32", "longest")
        for size in (1, 2, 4)
    ]
    assert {(c.device, c.dtype, c.model_source) for c in cells} == {("cpu", "float32", "embedded")}


def test_names_of_cells_are_unique_fit_for_files_and_sort_by_batch_size():
    cells = design.cells_of(
        synthetic.resolved(**SWEEP | {"batch_sizes": [2, 16, 128], "samples_per_cycle": 1024}).params
    )
    names = [cell.cell for cell in cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert names[:3] == sorted(names[:3]) == [f"eager-float32-fixed-32-b{size}" for size in ("002", "016", "128")]


def test_every_repetition_of_every_cell_is_planned_once():
    counted = Counter(plan_of(**SWEEP))
    assert set(counted.values()) == {1}
    assert len(counted) == 12 * (4 + 2 + 1)
    assert {(where, number) for _, where, number in counted} == {
        *(("timing", number) for number in range(4)),
        *(("memory", number) for number in range(2)),
        ("energy", 0),
    }


def test_a_pass_that_was_not_asked_for_is_not_planned():
    assert {where for _, where, _ in plan_of(passes=["memory"])} == {"memory"}


def test_rounds_interleave_all_cells_each_in_an_order_of_its_own():
    """So that a slow quarter of an hour of the machine touches all cells alike."""
    steps = plan_of(**SWEEP)
    rounds = [steps[i : i + 12] for i in range(0, len(steps), 12)]
    assert [{(where, number) for _, where, number in one} for one in rounds] == [
        {("timing", 0)},
        {("timing", 1)},
        {("timing", 2)},
        {("timing", 3)},
        {("memory", 0)},
        {("memory", 1)},
        {("energy", 0)},
    ]
    orders = [tuple(cell for cell, _, _ in one) for one in rounds]
    assert len({frozenset(order) for order in orders}) == 1
    assert len(set(orders)) == len(orders)


def test_the_energy_of_the_best_cell_alone_is_not_planned():
    """Which one that is shows only once the others are measured."""
    assert {where for _, where, _ in plan_of(**SWEEP, energy_cells="best")} == {"timing", "memory"}


def test_a_control_cell_is_another_cell_under_a_second_name():
    plain, *_ = cells = design.cells_of(synthetic.resolved(**SWEEP, control=True).params)
    control = cells[-1]
    assert len(cells) == 12 + 1
    assert (control.cell, control.control_of) == ("control-eager-float32-fixed-32-b002", "eager-float32-fixed-32-b002")
    told = {"cell", "control_of"}
    assert control.model_dump(exclude=told) == cells[1].model_dump(exclude=told)
    assert plain.control_of is None
    timed = Counter((where, cell) for cell, where, _ in plan_of(**SWEEP, control=True))
    assert timed["timing", control.cell] == 4
    assert timed["memory", control.cell] == timed["energy", control.cell] == 0, "it is there for its times"


def test_a_resumed_run_goes_on_in_the_same_order(tmp_path):
    assert plan_of(**SWEEP) == plan_of(**SWEEP, run_id="mine", results_root=str(tmp_path))
    assert plan_of(**SWEEP) != plan_of(**SWEEP, seed=18)


def test_a_start_makes_a_run_with_these_cells(this_machine):
    resolved = synthetic.resolved(**SWEEP)
    run = studies.start(resolved)
    assert run.config["cells"] == [cell.model_dump() for cell in design.cells_of(resolved.params)]
    assert studies.start(resolved).run_id == run.run_id, "it is unfinished"
    assert studies.start(resolved, new=True).run_id != run.run_id


@pytest.mark.parametrize(("profile", "count"), [("full", 1), ("ci", 0)])
def test_a_full_run_of_code_in_no_commit_says_so_before_it_begins(this_machine, monkeypatch, caplog, profile, count):
    """Whoever begins it: `run`, a bare papermill, a deep calibration."""
    monkeypatch.setattr(find.log, "propagate", True)
    monkeypatch.setattr(find.environment, "git", lambda: {"sha": None, "dirty": None, "reason": "git refuses"})
    studies.start(synthetic.resolved(profile=profile))
    said = "warning: this code is in no commit (git refuses), so the run cannot be published"
    assert caplog.messages == [said] * count


def test_no_folder_is_made_for_a_device_that_is_not_there(this_machine, tmp_path, monkeypatch):
    asked = []

    def parse(name):
        asked.append(name)
        raise DeviceError("there is no device 'cuda:7' here")

    device = types.ModuleType("distilbench.machine.device")
    device.parse = parse
    monkeypatch.setitem(sys.modules, "distilbench.machine.device", device)
    monkeypatch.setattr(distilbench.machine, "device", device, raising=False)
    with pytest.raises(DeviceError):
        studies.start(synthetic.resolved(device="cuda:7"))
    assert asked == ["cuda:7"]
    assert not (tmp_path / "results").exists()
