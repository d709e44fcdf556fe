"""The chunks of a complete evaluation as two parquet files, which belong to its record."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distilbench import paths
from distilbench.measurements.evaluation.measure.chunks import Chunk, ChunkFile
from distilbench.measurements.evaluation.records import BATCHES, PREDICTIONS, batches_name, predictions_name

ROWS = 4096  # of a row group, and at a time in memory
DELTA = {"row": "DELTA_BINARY_PACKED", "batch": "DELTA_BINARY_PACKED"}  # numbers that rise by one take next to nothing


def write(run: Path, cell: str, chunks: ChunkFile) -> dict[str, str]:
    """Writes them; returns their hashes by name. Predictions have the same one, however often they were interrupted."""
    return {
        predictions_name(cell): _write(run / predictions_name(cell), _predictions(chunks), PREDICTIONS),
        batches_name(cell): _write(run / batches_name(cell), _batches(chunks), BATCHES),
    }


def _write(file: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> str:
    """Compressed rows are few bytes each: only these are all in memory, so that the file appears whole."""
    sink = pa.BufferOutputStream()
    how = {
        "column_encoding": {name: form for name, form in DELTA.items() if name in schema.names},
        "use_dictionary": [name for name in schema.names if name not in DELTA],
    }
    with pq.ParquetWriter(sink, schema, compression="zstd", **how) as writer:
        while some := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    content = sink.getvalue().to_pybytes()
    paths.write_atomic(file, content)
    return paths.sha256_bytes(content)


def _predictions(chunks: ChunkFile) -> Iterator[dict[str, Any]]:
    names = PREDICTIONS.names
    for chunk in chunks.read():
        columns = (getattr(chunk, name) for name in names)
        yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _batches(chunks: ChunkFile) -> Iterator[dict[str, Any]]:
    number = 0
    for chunk in chunks.read():
        for batch in chunk.batches:
            is_last = batch is chunk.batches[-1]
            yield batch.model_dump() | {"batch": number, "chunk": chunk.chunk} | (_of_chunk(chunk) if is_last else {})
            number += 1


def _of_chunk(chunk: Chunk) -> dict[str, Any]:
    return chunk.model_dump(include={"chunk_s", "chunk_sha256", "started", "committed"})
