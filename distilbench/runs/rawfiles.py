"""Raw files: committed lines that survive any kill, and parquet files with their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from distilbench import paths
from distilbench.errors import RunError, StorageError
from distilbench.runs.records import Record


def read_raw(path: Path, record: type[Record]) -> tuple[list[Any], str]:
    """All committed records of a raw file, and what stands after the last whole line ("" when nothing).

    Args:
        path: of the file.
        record: model of a line.

    Raises:
        RunError: a whole line is damaged; it is named.
    """
    if not path.exists():
        return [], ""
    *lines, rest = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(record.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            raise RunError(
                f"{path}, line {number} is damaged: {'.'.join(map(str, problem['loc']))} {problem['msg']}"
            ) from None
    return records, rest.decode("utf-8", "replace")


def mend_raw(path: Path, record: type[Record]) -> str | None:
    """Makes a raw file end with a whole line again after a kill or power loss; returns what was done, if anything.

    A last line that is complete but for its newline gets it; a half one is set aside beside the file.
    """
    _, rest = read_raw(path, record)
    if not rest:
        return None
    try:
        record.model_validate_json(rest)
    except ValidationError:
        aside = path.with_name(f"{path.name}.torn-{paths.sha256_bytes(rest.encode())[:8]}")
        whole = path.read_bytes().rpartition(b"\n")
        paths.write_atomic(aside, whole[2])
        paths.write_atomic(path, whole[0] + whole[1])
        return (
            f"the last line of {path} was half written; it was set aside as {aside.name} and its repetition is redone"
        )
    paths.append_line(path, "")
    return f"the last line of {path} lacked its end; it was complete and is kept"


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    """Writes rows as parquet, atomically; returns the file's SHA-256."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    paths.write_atomic(path, content)
    return paths.sha256_bytes(content)


def require_committed(path: Path, sha256: str | None) -> None:
    """Refuses a file that is missing, or with a hash given is not the committed one."""
    if not path.is_file():
        raise RunError(f"{path} is missing")
    if sha256 and (got := paths.sha256_file(path)) != sha256:
        raise RunError(f"{path} is not the committed file: its SHA-256 is {got}, the record says {sha256}")


def read_parquet(path: Path, sha256: str | None = None) -> list[dict[str, Any]]:
    """Reads rows; a missing or damaged file is an error, and with a hash given one that is not the committed file."""
    require_committed(path, sha256)
    try:
        content = path.read_bytes()  # Arrow would take the path for UTF-8, whatever the locale
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
