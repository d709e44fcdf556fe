"""What a record derives from its predictions and its batches: the worker writes it, and `verify` computes it again.

The files are gone through piece by piece: a prediction becomes a count of the confusion matrix.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilbench import paths
from distilbench.errors import RunError, first_line
from distilbench.measurements.evaluation.records import RANDOM, batches_name, predictions_name
from distilbench.runs.rawfiles import read_committed
from distilbench.stats import wilson_interval

ROWS = 4096  # at a time in memory
OF_A_CHUNK = ["chunk_s", "chunk_sha256", "started", "committed"]
SUMMED = ("tokenise_ms", "tokens", "positions", "cut")


def fields_of(run: Path, cell: str, label_names: list[str], random_weights: bool) -> dict[str, Any]:
    """The fields of a record.

    Args:
        run: its folder.
        label_names: in the order of the logits.
        random_weights: whether the model learnt nothing: then there is no accuracy, nor what goes with it.

    Raises:
        RunError: a file is missing or damaged, or a row is in it twice.
    """
    counts = counted(run / predictions_name(cell), len(label_names))
    fields = {"rows": int(counts.sum()), "label_names": label_names} | times(run / batches_name(cell))
    if random_weights:
        return fields | {"accuracy_reason": RANDOM}
    return fields | quality(counts, label_names)


def pieces(file: Path) -> Iterator[pa.RecordBatch]:
    """A parquet file piece by piece.

    Raises:
        RunError: it is missing or damaged.
    """
    content = read_committed(file)
    try:
        yield from pq.ParquetFile(pa.BufferReader(content)).iter_batches(ROWS, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{file} is damaged: {first_line(error)}") from None


def counted(file: Path, classes: int) -> np.ndarray:
    """Rows by true and predicted label, int64 (classes, classes).

    A predicted class that the labels do not have, as random weights may give, counts as the last.

    Raises:
        RunError: the numbers of the rows do not rise: one is there twice.
    """
    counts, before = np.zeros((classes, classes), dtype=np.int64), 0
    for piece in pieces(file):
        numbers = piece["row"].to_numpy()
        if (np.diff(numbers, prepend=before) <= 0).any():
            raise RunError(f"{file}: the numbers of its rows do not rise: a row is there twice, or out of order")
        before = numbers[-1]
        predicted = np.minimum(piece["predicted"].to_numpy(), classes - 1)
        np.add.at(counts, (piece["label"].to_numpy(), predicted), 1)
    return counts


# ------------------------------------------------------------------ quality


def quality(counts: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    """Accuracy, F1 and what is by class, by scikit-learn, of rows by true and predicted label.

    Args:
        counts: int64 (classes, classes).
    """
    rows, right = int(counts.sum()), int(counts.trace())
    macro, weighted = (_f1(counts, average) for average in ("macro", "weighted"))
    return {
        "accuracy": right / rows,
        "accuracy_wilson_95": list(wilson_interval(right, rows)),
        "macro_f1": macro,
        "weighted_f1": weighted,
        "per_class": _per_class(counts, label_names),
        "confusion": {
            name: dict(zip(label_names, map(int, row), strict=True))
            for name, row in zip(label_names, counts, strict=True)
        },
    }


def _weighted_pairs(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Each pair of labels once, weighted by its rows: what the metrics take in the place of all rows."""
    true, predicted = counts.nonzero()
    return {"y_true": true, "y_pred": predicted, "sample_weight": counts[true, predicted]}


def _f1(counts: np.ndarray, average: str) -> float:
    from sklearn import metrics  # here: it takes a second, and what only reads records does without

    return float(metrics.f1_score(**_weighted_pairs(counts), average=average))


def _per_class(counts: np.ndarray, label_names: list[str]) -> list[dict[str, Any]]:
    from sklearn import metrics

    how = {"labels": range(len(label_names)), "zero_division": np.nan}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(**_weighted_pairs(counts), **how)
    return [
        {
            "label": name,
            "support": int(counts[i].sum()),
            "predicted": int(counts[:, i].sum()),
            "precision": _known(precision[i]),
            "recall": _known(recall[i]),
            "f1": _known(f1[i]),
        }
        for i, name in enumerate(label_names)
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# ------------------------------------------------------------------ times


def times(file: Path) -> dict[str, Any]:
    """Totals, rates and percentiles of a file of batches.

    Raises:
        RunError: it holds no batch, or a time that is none.
    """
    forwards, sizes, sums, chunks = [], [], Counter(), []
    for piece in pieces(file):
        forwards.append(piece["forward_ms"].to_numpy())
        sizes.append(piece["rows"].to_numpy())
        sums.update({name: piece[name].to_numpy().sum() for name in SUMMED})
        chunks += piece.filter(piece["chunk_s"].is_valid()).select(OF_A_CHUNK).to_pylist()
    total_s = math.fsum(row["chunk_s"] for row in chunks)
    forward_ms, rows = np.concatenate(forwards or [np.zeros(1)]), np.concatenate(sizes or [np.zeros(1)])
    if not (total_s > 0 and (forward_ms > 0).all()):
        raise RunError(f"{file}: it holds nothing, or a forward or a chunk took no time")
    whole = forward_ms[rows == rows.max()]
    return {
        "rows_sha256": paths.sha256_bytes(*(row["chunk_sha256"].encode() for row in chunks)),
        "batches": len(rows),
        "total_s": total_s,
        "elapsed_s": _elapsed_s(chunks),
        "forward_s": float(forward_ms.sum()) / 1e3,
        "tokenise_s": float(sums["tokenise_ms"]) / 1e3,
        "throughput_samples_per_s": int(rows.sum()) / total_s,
        "throughput_batches_per_s": len(rows) / total_s,
        "batch_ms": float(np.median(whole)),
        "batch_times_ms": _spread(whole),
        "tokens": int(sums["tokens"]),
        "padding_share": 1 - int(sums["tokens"]) / int(sums["positions"]),
        "truncated_share": int(sums["cut"]) / int(rows.sum()),
        "processes": len({row["started"] for row in chunks}),
    }


def _elapsed_s(chunks: list[dict[str, Any]]) -> float:
    started, committed = ([datetime.fromisoformat(row[name]) for row in chunks] for name in ("started", "committed"))
    return (max(committed) - min(started)).total_seconds()


def _spread(values: np.ndarray) -> dict[str, float]:
    percentiles = {f"p{p}": float(np.percentile(values, p, method="higher")) for p in (50, 90, 95, 99)}
    return {"mean": float(values.mean()), **percentiles, "max": float(values.max())}
