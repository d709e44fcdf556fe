"""The file of chunks: whole lines in order, whatever ended the process that wrote them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.evaluation.measure import chunks
from distilbench.measurements.evaluation.measure.chunks import Batch, Chunk, ChunkFile
from distilbench.measurements.evaluation.measure.watch import Lines, progress


def chunk(number: int, **changed: object) -> Chunk:
    batch = Batch(rows=2, tokens=9, positions=12, cut=0, tokenise_ms=0.1, forward_ms=1.5, device_ms=None)
    row = [2 * number + 1, 2 * number + 2]
    usual = {
        "chunk": number, "row": row, "label": [0, 1], "predicted": [0, 0], "probability": [0.9, 0.5],
        "batches": [batch], "chunk_s": 0.01, "chunk_sha256": "x", "started": "s", "committed": "c",
    }  # fmt: skip
    return Chunk(**usual | changed)


@pytest.fixture
def file(tmp_path) -> ChunkFile:
    with ChunkFile(tmp_path / "work" / "cell.jsonl").held() as held:
        for number in range(3):
            held.append(chunk(number))
    return held


def test_chunks_come_back_in_order(file):
    assert list(file.read()) == [chunk(number) for number in range(3)]
    assert list(ChunkFile(file.file.with_name("none.jsonl")).read()) == []


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_last_chunk_is_cut_off_and_computed_again(file, left):
    whole = file.file.read_bytes()
    line = whole.splitlines(keepends=True)[2]
    file.file.write_bytes(whole[: len(whole) - len(line)] + line[:left])
    with file.held():
        assert [one.chunk for one in file.read()] == [0, 1]
        file.append(chunk(2))
    assert file.file.read_bytes() == whole


@pytest.mark.parametrize(("number", "line"), [(2, "holds chunk 2, not 3"), (4, "holds chunk 4, not 3")])
def test_a_chunk_that_is_there_twice_or_missing_is_found(file, number, line):
    file.append(chunk(number))
    with pytest.raises(RunError, match=f"line 4 {line}: one is missing or twice"):
        list(file.read())


def test_a_damaged_line_is_named(file):
    file.file.write_bytes(file.file.read_bytes().replace(b'"label":[0,1]', b'"label":[0]', 1))
    with pytest.raises(RunError, match=r"line 1 is damaged: .*one label, prediction and probability per row"):
        list(file.read())


@pytest.mark.parametrize("changed", [{"row": [1]}, {"predicted": []}, {"batches": []}, {"probability": [0.5]}])
def test_a_chunk_has_as_many_of_each(changed):
    with pytest.raises(ValidationError, match="one label"):
        chunk(0, **changed)


def test_a_second_process_waits_for_the_first(file):
    order = []

    def second() -> None:
        with ChunkFile(file.file).held():
            order.append("second")

    with file.held():
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


# ------------------------------------------------------------------ attempts at a shard


def attempt(folder: Path, name: str, count: int = 0) -> Path:
    place = folder / "parts" / "0000" / name
    paths.write_json(place / "attempt.json", {})
    for number in range(count):
        own = ChunkFile(chunks.place(place, "cell"))
        own.file.parent.mkdir(parents=True, exist_ok=True)
        own.append(chunk(number))
    return place


def test_an_attempt_goes_on_where_the_one_that_came_furthest_was_ended(tmp_path):
    attempt(tmp_path, "a", 1)
    attempt(tmp_path, "b", 3)
    attempt(tmp_path, "c")
    own = attempt(tmp_path, "d")
    chunks.take_over(own, "cell")
    assert [one.chunk for one in ChunkFile(chunks.place(own, "cell")).read()] == [0, 1, 2]
    ChunkFile(chunks.place(own, "cell")).append(chunk(3))
    chunks.take_over(own, "cell")
    assert len(list(ChunkFile(chunks.place(own, "cell")).read())) == 4, "its own are not overwritten"


def test_a_run_and_a_first_attempt_begin_with_nothing(tmp_path):
    attempt(tmp_path, "a", 2)
    run = tmp_path / "parts" / "0000" / "run"
    run.mkdir()
    chunks.take_over(run, "cell")
    first = attempt(tmp_path / "other", "a")
    chunks.take_over(first, "cell")
    assert not chunks.place(run, "cell").exists()
    assert not chunks.place(first, "cell").exists()


# ------------------------------------------------------------------ progress


def test_whole_lines_are_counted_as_they_come(tmp_path):
    file = tmp_path / "lines"
    lines = Lines(file)
    assert lines.new() == 0
    file.write_text("one\ntwo\nhal")
    assert (lines.new(), lines.new()) == (2, 0)
    file.write_text("one\ntwo\nthree\nfour\n")
    assert lines.new() == 2, "a half line was cut off and written again"


def test_progress_says_rows_and_what_is_left_and_begins_where_it_was(file, monkeypatch, capsys):
    monkeypatch.setattr("distilbench.measurements.evaluation.measure.watch.EVERY_S", 0.05)
    seen = threading.Event()
    monkeypatch.setattr(
        "distilbench.progress.Progress.line", lambda self, what: seen.set() or f"{self.done}/{self.total} {what}"
    )
    with progress(file.file, 6, 2, 11, "a cell"):
        file.append(chunk(3))
        file.append(chunk(4))
        assert seen.wait(30)
        seen.clear()
        file.append(chunk(5))
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "6/6 a cell: 11 of 11 rows"
    assert len(said) >= 2
    assert said[0] in ("4/6 a cell: 8 of 11 rows", "5/6 a cell: 10 of 11 rows")
