"""The process of an evaluation, in the test's own one: what it refuses, and what it does not do again."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from evaluating import CELL, checkpoint, job, made_up_rows, prepared, resolved

from distilbench.errors import ImplausibleError, RunError
from distilbench.measurements.evaluation.measure import chunks, worker
from distilbench.measurements.evaluation.measure.chunks import ChunkFile
from distilbench.measurements.evaluation.measure.classifier import Classifier
from distilbench.measurements.evaluation.records import predictions_name
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.runs.rawfiles import read_parquet


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def told(tmp_path, model, monkeypatch) -> worker.EvaluationSpec:
    """The job of 42 rows in batches of 4 and chunks of 8; this process keeps its cores and threads."""
    monkeypatch.setattr(sweep, "take_cores", lambda protocol: [0])
    monkeypatch.setattr(sweep, "threads_used", lambda job, cores: {"threads_used": 1})
    design = resolved(tmp_path / "results", model, made_up_rows(tmp_path / "rows.tsv", 42))
    run, shared = prepared(design)
    return job(run, design, shared)


def place(told) -> Path:
    return chunks.place(Path(told.run), CELL)


def test_chunks_are_whole_batches_of_consecutive_rows(told):
    worker.measure(told)
    found = list(ChunkFile(place(told)).read())
    assert [len(chunk.row) for chunk in found] == [8, 8, 8, 8, 8, 2]
    assert [batch.rows for chunk in found for batch in chunk.batches] == [4] * 10 + [2]
    rows = read_parquet(Path(told.run) / predictions_name(CELL))
    assert [row["row"] for row in rows] == list(range(1, 43))
    assert all(0.2 <= row["probability"] <= 1 for row in rows), "the highest of five"


def test_predictions_are_those_of_the_model_on_each_sentence_alone(told, model):
    """Padding and batches change no prediction; and labels are found by name."""
    from transformers import AutoModelForSequenceClassification, DistilBertTokenizerFast

    worker.measure(told)
    module = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = DistilBertTokenizerFast.from_pretrained(model)
    rows = [json.loads(line) for line in Path(told.rows).read_text().splitlines()]
    for row, (_, label, text) in zip(read_parquet(Path(told.run) / predictions_name(CELL)), rows, strict=True):
        given = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        with torch.inference_mode():
            logits = module(given["input_ids"], given["attention_mask"]).logits[0]
        assert row["predicted"] == int(logits.argmax())
        assert row["probability"] == pytest.approx(float(logits.softmax(0).max()), abs=1.5e-4)
        assert told.label_names[row["label"]].lower() == label


def test_what_is_complete_is_read_again_without_a_forward(told, monkeypatch):
    first = worker.measure(told)
    before = place(told).read_bytes()
    monkeypatch.setattr(Classifier, "chunk", lambda self, rows: pytest.fail("nothing is missing"))
    again = worker.measure(told)
    assert place(told).read_bytes() == before
    assert again["files_sha256"] == first["files_sha256"]
    assert again["confusion"] == first["confusion"]


def test_chunks_of_other_rows_are_refused_and_kept(told):
    worker.measure(told)
    before, rows = place(told).read_bytes(), Path(told.rows)
    good = rows.read_text()
    rows.write_text(good.replace('[10, "', '[10, "other '))
    with pytest.raises(RunError, match="chunk 1 is of other rows"):
        worker.measure(told)
    rows.write_text("".join(good.splitlines(keepends=True)[:16]))
    with pytest.raises(RunError, match="more chunks than"):
        worker.measure(told)
    assert place(told).read_bytes() == before


def test_a_logit_that_is_no_number_ends_it_and_keeps_what_was_done(told, monkeypatch):
    done, whole = [], Classifier.classify

    def break_later(self, rows):
        done.append(rows)
        if len(done) == 6:
            self.loaded = SimpleNamespace(
                info=self.loaded.info, forward=lambda ids, mask: torch.full((len(ids), 5), float("nan"))
            )
        return whole(self, rows)

    monkeypatch.setattr(Classifier, "classify", break_later)
    with pytest.raises(ImplausibleError, match="the logits of 4 of 4 sentences are NaN or infinite"):
        worker.measure(told)
    assert len(list(ChunkFile(place(told)).read())) == 2
    monkeypatch.undo()


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Everything but the model, which here is a function: rows, batches, chunks, files."""

    class Trivial:
        def chunk(self, rows):
            size = len(rows)
            batch = {"rows": size, "tokens": 9, "positions": 9, "cut": 0, "tokenise_ms": 1.0, "forward_ms": 1.0}
            return {
                "row": [row.number for row in rows], "label": [0] * size, "predicted": [1] * size,
                "probability": [0.5] * size, "batches": [batch | {"device_ms": None}], "started": "s",
                "committed": "c",
            }  # fmt: skip

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "rows.jsonl").write_text(
            "".join(f'[{n}, "a", "{"a warm film " * 5}"]\n' for n in range(1, count + 1))
        )
        told = SimpleNamespace(rows=folder / "rows.jsonl", protocol={"rows_per_chunk": 100})
        tracemalloc.start()
        with ChunkFile(folder / "cell.jsonl").held() as held:
            worker.evaluate(told, Trivial(), held)
        worker.files.write(folder, "cell", held)
        counts = worker.derive.counted(folder / predictions_name("cell"), 2)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counts.tolist() == [[0, count], [0, 0]]
        return found

    peak(500)
    assert peak(50_000) < 1.25 * peak(10_000)
