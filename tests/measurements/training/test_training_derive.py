"""What follows from steps, predictions and blocks, on made-up ones whose truth is known."""

from __future__ import annotations

import pytest

from distilbench.errors import RunError
from distilbench.measurements.training.summary import derive

READINGS = dict.fromkeys(derive.READ) | {"seconds": 4.0}


def step(number: int, rank: int = 0, start_ms: float = 0.0, took_ms: float = 100.0, **changed) -> dict:
    phases = {"data_ms": 0.05, "forward_ms": 0.3, "backward_ms": 0.55, "optimizer_ms": 0.1}
    usual = {
        "epoch": 1, "step": number, "rank": rank, "samples": 8, "tokens": 60, "positions": 80, "loss_sum": 4.0,
        "correct": 6, "skipped": False, "started_ns": int(start_ms * 1e6), "step_ms": took_ms,
        "allreduce_ms": 0.2 * took_ms, "allreduce_start_ms": 0.4 * took_ms,
    }  # fmt: skip
    return usual | {name: share * took_ms for name, share in phases.items()} | changed


def two(number: int, start_ms: float) -> list[dict]:
    """A step of two processes; the second one begins 10 ms later and takes longer."""
    return [step(number, 0, start_ms, 100), step(number, 1, start_ms + 10, 110)]


def test_the_rate_is_from_the_first_start_to_the_last_end_without_the_warm_up():
    rows = [*two(1, 0), *two(2, 5000), *two(3, 5200), *two(4, 5400)]
    found = derive.speed_fields(rows, 1, 2)
    assert found["throughput_samples_per_s"] == pytest.approx(3 * 2 * 8 / 0.52), "gaps between steps count"
    assert found["timed_steps"] == 3
    assert found["step_ms"] == 110, "a step takes as long as its slowest process"
    assert found["step_times_ms"] == {"mean": 110, "p50": 110, "p90": 110, "max": 110}
    assert found["shares"] == pytest.approx(
        {"data": 0.05, "forward": 0.3, "backward": 0.55, "optimizer": 0.1, "allreduce": 0.2}
    )
    assert found["padding_share"] == 0.25


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([step(1)], "no step was timed"),
        ([step(2), step(4)], "between 2 and 4 is missing"),
        ([step(2), step(2, 1), step(2, 2)], "rows of 3 processes, not 2"),
    ],
)
def test_steps_that_are_no_whole_are_refused(rows, message):
    with pytest.raises(RunError, match=message):
        derive.speed_fields(rows, 1, 2)


def prediction(sample: str, label: int, highest: int, split: str = "test", epoch: int = 2) -> dict:
    logits = [0.0, 0.0]
    logits[highest] = 1.5
    return {
        "split": split, "epoch": epoch, "sample": sample, "label": label, "predicted": highest, "logits": logits
    }  # fmt: skip


def whole() -> tuple[list, list, list]:
    rows = [step(1), step(2), step(3, epoch=2), step(4, epoch=2, loss_sum=2.0, skipped=True)]
    predictions = [
        *(prediction(str(n), 0, n % 2, "validation", epoch) for epoch in (1, 2) for n in range(3)),
        *(prediction(str(n), 1, int(n < 3)) for n in range(4)),
    ]
    epochs = [{"epoch": 1} | READINGS, {"epoch": 2} | READINGS]
    return rows, predictions, epochs


def test_a_training_has_epochs_and_accuracies():
    found = derive.training_fields(*whole(), 1)
    first, second = found["epochs"]
    assert (first["training_loss"], second["training_loss"]) == (0.5, 6 / 16)
    assert first["training_accuracy"] == 12 / 16
    assert (first["validation_accuracy"], first["validation_rows"]) == (2 / 3, 3)
    assert (first["steps_skipped"], second["steps_skipped"]) == (0, 1)
    assert (found["test_accuracy"], found["test_rows"], found["best_epoch"]) == (0.75, 4, 2)
    low, high = found["test_wilson_95"]
    assert low < 0.75 < high
    assert found["training_s"] == 8
    assert found["throughput_samples_per_s"] == 32 / 8


def test_the_accuracy_is_that_of_the_logits():
    rows, predictions, epochs = whole()
    for one in predictions:
        one["predicted"] = one["label"]
    assert derive.training_fields(rows, predictions, epochs, 1)["test_accuracy"] == 0.75


def test_an_epoch_without_evaluation_has_no_accuracy():
    rows, predictions, epochs = whole()
    predictions = [one for one in predictions if (one["split"], one["epoch"]) != ("validation", 1)]
    first = derive.training_fields(rows, predictions, epochs, 1)["epochs"][0]
    assert (first["validation_accuracy"], first["validation_rows"]) == (None, None)


def test_a_training_that_is_no_whole_is_refused():
    rows, predictions, epochs = whole()
    with pytest.raises(RunError, match="1 rows were classified twice"):
        derive.training_fields(rows, [*predictions, predictions[-1]], epochs, 1)
    with pytest.raises(RunError, match=r"steps of epochs \[1, 2\], and readings of \[1\]"):
        derive.training_fields(rows, predictions, epochs[:1], 1)
    with pytest.raises(RunError, match="no test row"):
        derive.training_fields(rows, [one for one in predictions if one["split"] != "test"], epochs, 1)


def blocks(own: list[float], bare: list[float]) -> list[dict]:
    return [
        {"block": number, "kind": kind, "steps": 2, "rows": 100, "seconds": 100 / rate}
        for kind, rates in (("training", own), ("bare", bare))
        for number, rate in enumerate(rates)
    ]


def test_the_share_of_a_bare_loop_is_over_pairs():
    """The machine is twice as slow in some pairs; the share is the same in each."""
    bare = [100.0, 50.0, 100.0, 50.0, 100.0]
    found = derive.loop_fields(blocks([0.9 * rate for rate in bare], bare))
    assert found["loop_share"] == pytest.approx(0.9)
    assert found["loop_share_95"] == pytest.approx([0.9, 0.9])
    assert (found["throughput_samples_per_s"], found["loop_samples_per_s"]) == (pytest.approx(90), 100)


def test_few_pairs_have_no_interval_and_half_ones_are_refused():
    assert derive.loop_fields(blocks([90, 90], [100, 100]))["loop_share_95"] is None
    with pytest.raises(RunError, match="1 blocks of the training, 2 of the bare loop"):
        derive.loop_fields(blocks([90], [100, 100]))
    with pytest.raises(RunError, match="no pairs"):
        derive.loop_fields([])
