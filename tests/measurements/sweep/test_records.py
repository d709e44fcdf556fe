"""The lines of raw.jsonl: what may stand in one, and that a kill at any byte costs no complete line."""

from __future__ import annotations

import json
import math
import os

import pyarrow as pa
import pytest
import synthetic
from pydantic import ValidationError

from distilbench import paths
from distilbench.errors import RunError, StorageError
from distilbench.measurements.sweep import records
from distilbench.measurements.sweep.records import MEASURED_IN, Repetition, SweepCell
from distilbench.runs import rawfiles
from distilbench.runs import records as base
from distilbench.runs.rawfiles import mend_raw, read_raw

SCHEMA = paths.repo_root() / "book" / "schemas" / f"repetition.v{base.SCHEMA_VERSION}.schema.json"
CELL = SweepCell(
    cell="sdpa-float32-longest-b004",
    device="cpu",
    variant="sdpa",
    dtype="float32",
    batch_size=4,
    length_policy="longest",
    model_source="embedded",
)


def timed(number: int = 0, **fields) -> Repetition:
    return synthetic.repetition(CELL, "timing", number, **synthetic.TIMED | fields)


def failed(number: int = 0, **fields) -> Repetition:
    return synthetic.repetition(CELL, "timing", number, **{"status": "failed", "error": "it broke – hélas 💥"} | fields)


def line_of(record: Repetition) -> bytes:
    return record.to_line().encode() + b"\n"


# ------------------------------------------------------------------ one line


@pytest.mark.parametrize("record", [timed(), failed(), synthetic.memory(CELL)], ids=["timing", "failed", "memory"])
def test_a_line_is_read_as_it_was_written(record):
    line = record.to_line()
    assert "\n" not in line
    assert Repetition.model_validate_json(line) == record
    assert Repetition.model_validate_json(line).to_line() == line
    assert json.loads(line)["pass"] == record.pass_
    assert json.loads(line)["schema_version"] == 1


@pytest.mark.parametrize("name", [name for name, where in MEASURED_IN.items() if where == "timing"])
@pytest.mark.parametrize("status", ["ok", "unstable"])
def test_a_number_that_is_missing_without_a_reason_is_refused(name, status):
    with pytest.raises(ValidationError, match=f"{name} is null without a reason"):
        timed(**{name: None, "status": status})
    assert timed(**{name: None, f"{name}_reason": "because", "status": status})


def test_a_missing_peak_without_a_reason_is_refused():
    with pytest.raises(ValidationError, match="peak_cuda_reserved_MiB is null without a reason"):
        synthetic.repetition(CELL, "memory", peak_rss_MiB=1.0, peak_cuda_allocated_MiB_reason="no GPU")


@pytest.mark.parametrize("name", MEASURED_IN)
def test_a_number_with_a_reason_for_having_none_is_refused(name):
    value = "0" * 64 if name == "logits_sha256" else 1.0
    with pytest.raises(ValidationError, match=f"{name} has both a value and a reason"):
        timed(**{name: value, f"{name}_reason": "because"})


def test_what_another_pass_measures_says_so():
    record = timed()
    assert record.peak_rss_MiB_reason == "measured in the memory pass"
    assert record.energy_J_reason == "measured in the energy pass"
    assert synthetic.memory(CELL).latency_ms_reason == "measured in the timing pass"


def test_what_a_failed_repetition_did_not_measure_says_so():
    assert failed().latency_ms_reason == "the repetition ended as failed"
    assert failed(status="oom").accuracy_reason == "the repetition ended as oom"


@pytest.mark.parametrize(
    "fields",
    [
        {"latency_ms": "fast"},
        {"latency_ms": math.nan},  # would be written as null, which no reader accepts
        {"seconds": math.inf},
        {"latencyms": 1.0},
        {"status": "fine"},
        {"pass": "speed"},
        {"repetition": -1},
        {"attempt": 0},
        {"seconds": -1},
        {"batch_size": 0},
        {"schema_version": 2},
        {"affinity": "all"},
    ],
    ids=lambda fields: "-".join(f"{name}-{value}" for name, value in fields.items()),
)
def test_an_ill_typed_or_unknown_field_is_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        timed(**fields)


def test_a_repetition_is_known_by_cell_pass_and_number():
    assert timed(3).key == (CELL.cell, "timing", 3)


def test_units_are_in_the_names_of_numbers():
    units = ("_ms", "_MiB", "_J", "_per_s", "accuracy", "sha256")
    assert all(name.endswith(units) for name in MEASURED_IN)
    assert {f"{name}_reason" for name in MEASURED_IN} <= set(Repetition.model_fields)


def test_the_published_schema_is_that_of_the_code():
    """Made with: json.dumps(records.json_schema(), indent=2, sort_keys=True) and a newline."""
    assert SCHEMA.read_text() == json.dumps(records.json_schema(), indent=2, sort_keys=True) + "\n"


def test_the_schema_has_every_field_by_its_name_in_the_file():
    fields = json.loads(timed().to_line())
    schema = records.json_schema()
    assert schema["properties"].keys() == fields.keys()
    assert schema["additionalProperties"] is False
    assert {"cell", "pass", "status", "repetition"} <= set(schema["required"])


# ------------------------------------------------------------------ the file


def test_no_file_has_no_repetitions(tmp_path):
    assert read_raw(tmp_path / "absent.jsonl", Repetition) == ([], "")
    assert mend_raw(tmp_path / "absent.jsonl", Repetition) is None
    assert list(tmp_path.iterdir()) == []


def test_whole_lines_and_the_rest_are_told_apart(tmp_path):
    file = tmp_path / "raw.jsonl"
    file.write_bytes(line_of(timed(0)) + line_of(failed(1)) + b'{"cell"')
    assert read_raw(file, Repetition) == ([timed(0), failed(1)], '{"cell"')


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_line_is_named_by_its_number(tmp_path, number):
    lines = [line_of(timed(i)) for i in range(3)]
    lines[number - 1] = lines[number - 1].replace(b'"ok"', b'"fine"')
    (tmp_path / "raw.jsonl").write_bytes(b"".join(lines))
    for use in (read_raw, mend_raw):
        with pytest.raises(RunError, match=rf"raw\.jsonl, line {number} is damaged: status Input should be"):
            use(tmp_path / "raw.jsonl", Repetition)


@pytest.mark.parametrize("damage", [b"", b"{}", b"null", b"\0" * 50, b"\xff\xfe", b'{"cell": "x'])
def test_any_damage_of_a_middle_line_is_refused_and_nothing_is_mended(tmp_path, damage):
    file = tmp_path / "raw.jsonl"
    content = line_of(timed(0)) + damage + b"\n" + line_of(timed(1)) + b'{"half'
    file.write_bytes(content)
    with pytest.raises(RunError, match="line 2 is damaged"):
        mend_raw(file, Repetition)
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["raw.jsonl"]


def test_a_cut_at_every_byte_of_the_last_line_loses_nothing_that_was_complete(tmp_path, monkeypatch):
    """A kill or power loss can stop the writing of a line anywhere; the next start must go on as if undisturbed."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of times, and no power is lost here
    file = tmp_path / "raw.jsonl"
    earlier, last = line_of(timed(0)) + line_of(failed(0, attempt=2)), failed(1)
    undisturbed = earlier + line_of(last)
    for size in range(len(earlier), len(undisturbed) + 1):
        file.write_bytes(undisturbed[:size])
        message = mend_raw(file, Repetition)
        complete = size >= len(undisturbed) - 1  # all but the newline
        assert file.read_bytes() == (undisturbed if complete else earlier), size
        torn = list(tmp_path.glob("raw.jsonl.torn-*"))
        if complete:
            assert torn == []
            assert message is None if size == len(undisturbed) else "complete and is kept" in message
        elif size > len(earlier):
            assert [piece.read_bytes() for piece in torn] == [undisturbed[len(earlier) : size]]
            assert torn[0].name in message
            assert "redone" in message
        else:
            assert (torn, message) == ([], None)
        if not complete:
            paths.append_line(file, last.to_line())
        assert file.read_bytes() == undisturbed, size
        assert len(read_raw(file, Repetition)[0]) == 3
        assert mend_raw(file, Repetition) is None, "once is enough"
        for piece in torn:
            piece.unlink()


def test_the_first_line_of_all_may_be_half(tmp_path):
    file = tmp_path / "raw.jsonl"
    file.write_bytes(line_of(timed())[:100])
    assert "half written" in mend_raw(file, Repetition)
    assert read_raw(file, Repetition) == ([], "")


@pytest.mark.parametrize("rest", [b"\0" * 700, b"\xc3", b" ", b"\r", b"{}", b"null"])
def test_what_a_power_loss_leaves_is_set_aside(tmp_path, rest):
    """A file system may have grown the file before its content: zeros; or cut a character of several bytes."""
    file = tmp_path / "raw.jsonl"
    file.write_bytes(line_of(timed()) + rest)
    assert "set aside" in mend_raw(file, Repetition)
    assert file.read_bytes() == line_of(timed())
    assert [piece.read_bytes() for piece in tmp_path.glob("*.torn-*")] == [rest]


def test_a_full_disk_while_mending_loses_nothing(small_disk):
    file = small_disk.folder / "raw.jsonl"
    content = line_of(timed()) + line_of(timed(1))[:-50]
    file.write_bytes(content)
    with small_disk.full(room=100), pytest.raises(StorageError, match="cannot write"):
        mend_raw(file, Repetition)
    assert file.read_bytes() == content
    assert "set aside" in mend_raw(file, Repetition)


# ------------------------------------------------------------------ parquet


def test_parquet_is_read_as_it_was_written_and_its_hash_is_returned(tmp_path):
    rows = synthetic.iterations(4)
    sha256 = rawfiles.write_parquet(tmp_path / "sub" / "x.parquet", rows, records.ITERATIONS)
    assert sha256 == paths.sha256_file(tmp_path / "sub" / "x.parquet")
    read = rawfiles.read_parquet(tmp_path / "sub" / "x.parquet", sha256)
    assert [{name: row[name] for name in rows[0]} for row in read] == rows
    assert all(row[name] is None for row in read for name in row.keys() - rows[0].keys()), "what was not read is null"
    assert rawfiles.read_parquet(tmp_path / "sub" / "x.parquet") == read


def test_the_same_rows_give_the_same_bytes(tmp_path):
    hashes = {rawfiles.write_parquet(tmp_path / n, synthetic.predictions("c"), records.PREDICTIONS) for n in "ab"}
    assert len(hashes) == 1


def test_another_file_than_the_committed_one_is_refused(tmp_path):
    file = tmp_path / "x.parquet"
    old = rawfiles.write_parquet(file, synthetic.iterations(4), records.ITERATIONS)
    new = rawfiles.write_parquet(file, synthetic.iterations(4, 1), records.ITERATIONS)
    with pytest.raises(RunError, match=f"x.parquet is not the committed file: its SHA-256 is {new}.*says {old}"):
        rawfiles.read_parquet(file, old)


def test_a_missing_parquet_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"x\.parquet is missing"):
        rawfiles.read_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_damaged_parquet_file_is_named(tmp_path, keep):
    file = tmp_path / "x.parquet"
    rawfiles.write_parquet(file, synthetic.predictions("c"), records.PREDICTIONS)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"x\.parquet is damaged: "):
        rawfiles.read_parquet(file)


def test_rows_that_do_not_fit_the_schema_are_refused_before_anything_is_written(tmp_path):
    rows = [synthetic.iterations(4)[0] | {"cycle": "one"}]
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        rawfiles.write_parquet(tmp_path / "x.parquet", rows, records.ITERATIONS)
    assert list(tmp_path.iterdir()) == []
