"""Raw files: committed lines that survive any kill, and parquet files with their hashes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from distilbench import paths
from distilbench.errors import RunError, StorageError, first_line
from distilbench.runs.records import Record

PACKED = ".gz"
_KEPT: ContextVar[dict[tuple, Any] | None] = ContextVar("_KEPT", default=None)


@contextmanager
def each_read_once() -> Iterator[None]:
    """While inside, a raw file is read when it is first asked for, and kept: nobody may change it, or what it gave."""
    outside = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(outside)


def _kept(read: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(read)
    def reading(*arguments: Any) -> Any:
        if (known := _KEPT.get()) is None:
            return read(*arguments)
        if (key := (read, *arguments)) not in known:
            known[key] = read(*arguments)
        return known[key]

    return reading


@_kept
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


def parquet_bytes(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as the content of a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    """Writes rows as parquet, atomically; returns the file's SHA-256."""
    content = parquet_bytes(rows, schema)
    paths.write_atomic(path, content)
    return paths.sha256_bytes(content)


@_kept
def read_committed(path: Path, sha256: str | None = None) -> bytes:
    """What a file holds; refuses one that is missing, or with a hash given is not the committed one.

    A published copy may have it packed (`PACKED` behind its name).
    """
    packed = path.with_name(f"{path.name}{PACKED}")
    there = packed if packed.is_file() and not path.exists() else path
    try:
        content = there.read_bytes()
        content = gzip.decompress(content) if there is packed else content
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"{packed} is damaged: {first_line(error)}") from None
    except OSError as error:
        raise StorageError(f"cannot read {there}: {error.strerror or error}") from None
    if sha256 and (got := paths.sha256_bytes(content)) != sha256:
        raise RunError(f"{path} is not the committed file: its SHA-256 is {got}, the record says {sha256}")
    return content


@_kept
def read_parquet(path: Path, sha256: str | None = None) -> list[dict[str, Any]]:
    """Reads rows; a missing or damaged file is an error, and with a hash given one that is not the committed file."""
    content = read_committed(path, sha256)  # not Arrow, which would take the path for UTF-8, whatever the locale
    try:  # in this thread: to hand so few rows to others takes longer than to read them
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is damaged: {first_line(error)}") from None
