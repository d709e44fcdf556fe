"""The rows of an evaluation: read once, checked one by one, in bounded memory; a damaged one is named."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from evaluating import NAMES, TOKENIZER, checkpoint, made_up_rows, resolved
from transformers import DistilBertTokenizerFast

from distilbench import studies
from distilbench.errors import DataError, ModelError, RunError
from distilbench.measurements.evaluation.measure import prepare as preparing
from distilbench.measurements.evaluation.measure import run as measuring
from distilbench.sources import texts
from distilbench.sources.labelled_rows import Row
from distilbench.sources.row_stream import Damaged


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path) -> Path:
    return made_up_rows(tmp_path / "rows.tsv", 50)


def spoil(file: Path, line: int, content: bytes) -> None:
    lines = file.read_bytes().split(b"\n")
    lines[line - 1] = content
    file.write_bytes(b"\n".join(lines))


def load(tmp_path: Path, model: Path, data: Path, **given):
    params = resolved(tmp_path / "results", model, data, **given).params
    return preparing.load_all(params, tmp_path / "rows.jsonl")


def test_rows_labels_and_tokens_are_those_of_a_text_that_is_loaded_whole(tmp_path, model, data):
    _, manifest, tokenizer, _, names = load(tmp_path, model, data)
    whole = texts.load_texts(resolved(tmp_path, model, data).params)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [text for _, _, text in rows] == whole.texts
    assert [label for _, label, _ in rows] == [whole.label_names[label] for label in whole.labels]
    assert [number for number, _, _ in rows] == list(range(1, 51))
    alike = texts.manifest(whole, tokenizer)
    for name in ("rows", "labels", "tokens", "name", "source", "tokenizer_sha256"):
        assert manifest[name] == alike[name], name
    assert names == NAMES, "the model's, in the order of its logits"


@pytest.mark.parametrize("count", [1, 2, 7, 50, 101])
def test_percentiles_of_counted_lengths_are_numpys(count):
    lengths = np.random.default_rng(count).integers(3, 40, count)
    counted = preparing.Counted()
    counted.lengths.update(map(int, lengths))
    counted.labels["a"] = count
    found = counted.tokens()
    for percent in (50, 90, 95, 99):
        assert found[f"p{percent}"] == np.percentile(lengths, percent, method="higher")
    assert (found["mean"], found["max"]) == (round(float(lengths.mean()), 2), lengths.max())


DAMAGED = {b"music\t": "the sentence is empty", b"music": "another number of columns", b"mus\xffic\tx": "no UTF-8",
           b"sport\ta film": "the label 'sport' is none of the model's: Alarm, Music"}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_row_is_named_and_ends_the_preparation(tmp_path, model, data, content):
    spoil(data, 26, content)
    with pytest.raises(DataError) as error:
        load(tmp_path, model, data)
    assert "rows.tsv: 1 of 50 rows cannot be used: line 26: " in str(error.value)
    assert DAMAGED[content] in str(error.value)
    assert "-p damaged_rows=skip" in str(error.value)


def test_damaged_rows_may_be_left_out_and_are_counted_and_named(tmp_path, model, data):
    for line, content in zip((20, 26, 30, 31), DAMAGED, strict=True):
        spoil(data, line, content)
    counted, manifest, *_ = load(tmp_path, model, data, damaged_rows="skip")
    assert (manifest["rows"], manifest["rows_damaged"]) == (46, 4)
    assert [row["place"] for row in manifest["first_damaged"]] == ["line 20", "line 26", "line 30", "line 31"]
    numbers = [json.loads(line)[0] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert numbers == [n for n in range(1, 51) if n + 1 not in (20, 26, 30, 31)]
    assert counted.rows == len(numbers)


def test_more_damaged_rows_than_can_be_read_are_counted(tmp_path, model, data):
    for line in range(10, 20):
        spoil(data, line, b"music")
    with pytest.raises(DataError, match=r"10 of 50 rows cannot be used: line 10: .*; line 12: .*; and 7 more"):
        load(tmp_path, model, data)


def test_data_without_a_row_that_can_be_used_is_refused(tmp_path, model):
    data = tmp_path / "rows.tsv"
    data.write_text("text\tlabel\n")
    with pytest.raises(DataError, match=r"rows\.tsv has no row that can be used$"):
        load(tmp_path, model, data)
    data.write_text("text\tlabel\n\tmusic\n")
    with pytest.raises(DataError, match="has no row that can be used: line 2: the sentence is empty"):
        load(tmp_path, model, data, damaged_rows="skip")


def test_a_label_for_each_sentence_is_no_label(tmp_path, data, monkeypatch):
    monkeypatch.setattr(preparing, "MOST_LABELS", 3)
    params = studies.resolve("evaluate", {"profile": "ci", "data_path": str(data)}).params
    with pytest.raises(DataError, match="more than 3 different labels: is the right column called 'label'"):
        preparing.load_all(params, tmp_path / "rows.jsonl")


def test_names_of_classes_that_are_alike_are_refused(tmp_path, data):
    model = checkpoint(tmp_path / "model", ("Yes", "yes"))
    with pytest.raises(ModelError, match="two of the model's labels have the same name: Yes, yes"):
        load(tmp_path, model, data)


def test_rows_that_changed_are_refused_and_what_was_done_stays(tmp_path, model, data):
    design = resolved(tmp_path / "results", model, data)
    run = studies.start(design)
    measuring.prepare(design.params, run)
    kept = run.folder / "work" / "evaluation" / "cell.jsonl"
    kept.parent.mkdir()
    kept.write_text("{}\n")
    before = data.read_bytes()
    spoil(data, 26, b"music\tother words")
    with pytest.raises(DataError, match="is not what it was"):
        measuring.prepare(design.params, run)
    spoil(data, 26, b"\xff")
    with pytest.raises(DataError, match="line 26: byte 0xff"):
        measuring.prepare(design.params, run)
    assert kept.read_text() == "{}\n"
    data.write_bytes(before)
    measuring.prepare(design.params, run)


def test_a_run_that_was_begun_with_other_rows_is_refused(tmp_path, model, data, monkeypatch):
    design = resolved(tmp_path / "results", model, data)
    run = studies.start(design)
    measuring.prepare(design.params, run)
    monkeypatch.setattr(preparing.revisions, "enforce", lambda *_: True)
    spoil(data, 26, b"music\tother words")
    with pytest.raises(RunError, match="begun with other content: content_sha256"):
        measuring.prepare(design.params, run)


def test_a_policy_longer_than_the_models_positions_is_refused_first(tmp_path, model, data):
    with pytest.raises(ModelError, match="takes 64 tokens at most, asked for are 128"):
        load(tmp_path, model, data, length_policies=["fixed-128"])
    load(tmp_path, model, data, length_policies=["longest"])


def test_fetch_says_what_text_and_model_are(tmp_path, model, data):
    manifest, info = measuring.fetch(resolved(tmp_path, model, data).params)
    assert manifest["rows"] == 50
    assert info.label_names == NAMES


def test_memory_does_not_grow_with_the_rows():
    tokenizer = DistilBertTokenizerFast.from_pretrained(TOKENIZER)

    class Nowhere(io.BytesIO):
        def write(self, content: bytes) -> int:
            return len(content)

    def peak(count: int) -> int:
        rows = (Row(n, "a warm film", "positive") if n % 9 else Damaged(f"line {n}", "torn") for n in range(count))
        tracemalloc.start()
        counted = preparing._write(rows, Nowhere(), tokenizer)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counted.rows + counted.damaged == count
        return found

    peak(2000)
    assert peak(20_000) < 1.1 * peak(2000)
