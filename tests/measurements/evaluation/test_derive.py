"""Numbers of an evaluation against those that scikit-learn gives for all rows one by one, and against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from distilbench.errors import RunError
from distilbench.measurements.evaluation.records import BATCHES, PREDICTIONS
from distilbench.measurements.evaluation.summary import derive
from distilbench.runs.rawfiles import write_parquet
from distilbench.stats import wilson_interval


def predictions(tmp_path, labels, predicted, numbers=None):
    file = tmp_path / "predictions.parquet"
    numbers = numbers or range(1, len(labels) + 1)
    rows = [
        {"row": int(n), "label": int(true), "predicted": int(given), "probability": 0.5}
        for n, true, given in zip(numbers, labels, predicted, strict=True)
    ]
    write_parquet(file, rows, PREDICTIONS)
    return file


@pytest.mark.parametrize("classes", [2, 3, 23])
@pytest.mark.parametrize("absent", [0, 1])
def test_quality_is_that_of_scikit_learn_over_all_rows(tmp_path, classes, absent):
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes - absent, 500)
    predicted = np.where(generator.random(500) < 0.7, labels, generator.integers(0, classes - absent, 500))
    counts = derive.counted(predictions(tmp_path, labels, predicted), classes)
    found = derive.quality(counts, [f"class {i}" for i in range(classes)])
    assert found["accuracy"] == metrics.accuracy_score(labels, predicted)
    assert found["accuracy_wilson_95"] == list(wilson_interval(int((labels == predicted).sum()), 500))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), rel=1e-12)
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="weighted"), rel=1e-12)
    matrix = metrics.confusion_matrix(labels, predicted, labels=range(classes))
    assert [list(row.values()) for row in found["confusion"].values()] == matrix.tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted)
    for i in range(classes - absent):
        one = found["per_class"][i]
        assert (one["precision"], one["recall"], one["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
        assert (one["support"], one["predicted"]) == (support[i], (predicted == i).sum())
    if absent:
        nothing = {"support": 0, "predicted": 0, "precision": None, "recall": None, "f1": None}
        assert found["per_class"][-1] == {"label": f"class {classes - 1}"} | nothing


def test_what_is_divided_by_nothing_is_absent_and_never_zero(tmp_path):
    counts = derive.counted(predictions(tmp_path, [0, 0, 1], [0, 0, 2]), 3)
    first, second, third = derive.quality(counts, ["a", "b", "c"])["per_class"]
    assert (first["precision"], first["recall"], first["f1"]) == (1, 1, 1)
    assert (second["precision"], second["recall"], second["f1"]) == (None, 0, 0)
    assert (third["precision"], third["recall"], third["f1"]) == (0, None, 0)


@pytest.mark.parametrize("numbers", [[1, 2, 2], [1, 3, 2], [0, 1, 2]])
def test_a_row_that_is_there_twice_or_out_of_order_is_found(tmp_path, numbers):
    with pytest.raises(RunError, match="a row is there twice, or out of order"):
        derive.counted(predictions(tmp_path, [0, 0, 0], [0, 0, 0], numbers), 2)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match="is damaged"):
        derive.counted(tmp_path / "predictions.parquet", 2)
    with pytest.raises(RunError, match="is missing"):
        derive.counted(tmp_path / "none.parquet", 2)


BATCH = {"rows": 4, "tokens": 30, "positions": 40, "cut": 1, "tokenise_ms": 1.0, "device_ms": None}


def batches(tmp_path, rows):
    write_parquet(tmp_path / "batches.parquet", rows, BATCHES)
    return tmp_path / "batches.parquet"


def chunk_end(second: int, started: str = "2026-11-27T10:00:00.000+00:00") -> dict:
    committed = f"2026-11-27T10:00:{second:02d}.500+00:00"
    return {"chunk_s": 2.0, "chunk_sha256": "ab", "started": started, "committed": committed}


def test_times_add_up_over_processes_and_the_last_batch_is_no_whole_one(tmp_path):
    rows = [BATCH | {"batch": i, "chunk": i // 2, "forward_ms": float(10 + i)} for i in range(5)]
    rows[1] |= chunk_end(2)
    rows[3] |= chunk_end(30, "2026-11-27T10:00:20.000+00:00")
    rows[4] |= chunk_end(31, "2026-11-27T10:00:20.000+00:00") | {"rows": 2, "forward_ms": 1.0, "cut": 0}
    found = derive.times(batches(tmp_path, rows))
    assert (found["total_s"], found["elapsed_s"], found["processes"], found["batches"]) == (6.0, 31.5, 2, 5)
    assert found["throughput_samples_per_s"] == 18 / 6
    assert found["throughput_batches_per_s"] == 5 / 6
    assert found["batch_ms"] == 11.5, "of the four whole batches"
    assert found["batch_times_ms"] == {"mean": 11.5, "p50": 12, "p90": 13, "p95": 13, "p99": 13, "max": 13}
    assert found["forward_s"] == pytest.approx(0.047)
    assert found["tokenise_s"] == pytest.approx(0.005)
    assert found["padding_share"] == 0.25
    assert found["truncated_share"] == 4 / 18


@pytest.mark.parametrize("rows", [[], [BATCH | chunk_end(1) | {"batch": 0, "chunk": 0, "forward_ms": 0.0}]])
def test_no_batch_and_no_time_are_refused(tmp_path, rows):
    with pytest.raises(RunError, match="it holds nothing, or a forward or a chunk took no time"):
        derive.times(batches(tmp_path, rows))
