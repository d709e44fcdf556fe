"""What all cells of a run share: the rows, read once and checked one by one, the tokenizer, and the model's names.

A damaged row is found here, before anything is measured. Nothing grows with the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from distilbench import paths
from distilbench.errors import DataError, ModelError
from distilbench.machine.device import parse, software
from distilbench.measurements.evaluation.measure.spec import Prepared
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.runs.folder import Run
from distilbench.sources import labelled_rows, revisions, texts
from distilbench.sources.batches import most_tokens
from distilbench.sources.labelled_rows import Row
from distilbench.sources.models import LoadedModel, check_fit, load_model
from distilbench.sources.row_stream import Damaged
from distilbench.sources.tokenizers import load_tokenizer, table_rows

NAMED = 100  # damaged rows that data.json names
AT_A_TIME = 512  # rows that are tokenised together to count their tokens
MOST_LABELS = 10_000  # a label for each sentence is no label


@dataclass
class Counted:
    """What was found while rows went by.

    Attributes:
        labels: rows by label.
        lengths: rows by number of tokens.
        damaged: how many could not be used, the first of them by place and reason.
        sha256: of the prepared rows.
    """

    labels: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    damaged: int = 0
    first_damaged: list[dict[str, str]] = field(default_factory=list)
    sha256: str = ""

    @property
    def rows(self) -> int:
        """How many can be used."""
        return self.labels.total()

    def tokens(self) -> dict[str, Any]:
        """Mean, percentiles and ends of the lengths, as in a text's manifest."""
        ordered = sorted(self.lengths.items())
        total = sum(length * count for length, count in ordered)
        shares = {
            str(most): round(sum(count for length, count in ordered if length > most) / self.rows, 4)
            for most in (32, 64, 128, 512)
        }
        return {
            "mean": round(total / self.rows, 2),
            **{f"p{p}": self._percentile(ordered, p) for p in (50, 90, 95, 99)},
            "min": ordered[0][0],
            "max": ordered[-1][0],
            "share_over": shares,
        }

    def _percentile(self, ordered: list[tuple[int, int]], percent: int) -> int:
        wanted, seen = -(-percent * (self.rows - 1) // 100), 0  # as numpy's method "higher"
        for length, count in ordered:
            seen += count
            if seen > wanted:
                return length
        raise AssertionError("unreachable")


def prepare(params: EvaluationParams, run: Run) -> Prepared:
    """Reads and checks all rows, and records them and the model in data.json and model.json.

    Raises:
        DataError: a row is damaged and none may be; it is named, and how many there are.
        RunError: the run was begun with other rows or another model; both hashes are named.
    """
    parse(params.device)
    work = run.folder / "work"
    counted, manifest, tokenizer, loaded, names = load_all(params, work / "rows.jsonl")
    model = {key: value for key, value in vars(loaded.info).items() if key not in ("device", "attention", "load_s")}
    model["label_names"] = list(loaded.info.label_names)
    run.record_once("data.json", manifest, texts.MANIFEST_HASHES)
    run.record_once("model.json", model, ("sha256",))
    run.add_to_environment("torch", software())
    tokenizer.save_pretrained(work / "tokenizer")
    files = [str(work / name) for name in ("rows.jsonl", "tokenizer")]
    prepared = Prepared(*files, list(names), counted.damaged, counted.rows, table_rows(tokenizer))
    prepared.save(run)
    return prepared


def load_all(params: EvaluationParams, file: Path) -> tuple[Counted, dict[str, Any], Any, LoadedModel, tuple[str, ...]]:
    """Writes the rows that can be used into `file`, and checks that model, tokenizer and rows belong together.

    Returns:
        (what was counted, the rows' manifest, tokenizer, model on the CPU, names of the labels).
    """
    tokenizer = load_tokenizer(params)
    loaded = load_model(**params.model_arguments(table_rows(tokenizer)) | {"device": "cpu"})
    names = () if params.model_source == "random" else loaded.info.label_names
    _require_distinct(names)
    source = labelled_rows.source_of(params, names)
    with _replacing(file) as opened:
        counted = _write(labelled_rows.read(source, names), opened, tokenizer)
    _require_usable(params, counted, source.about["name"])
    longest = max(min(most_tokens(policy), max(counted.lengths)) if policy == "longest" else most_tokens(policy)
                  for policy in params.length_policies)  # fmt: skip
    check_fit(loaded, tokenizer, longest)
    names = names or tuple(sorted(counted.labels))
    manifest = _manifest(source.about, counted, tokenizer)
    left_out = ", without damaged rows" if counted.damaged else ""
    lock = revisions.local_lock() if params.data_source == "local" else revisions.shared_lock()
    found = {"sha256": counted.sha256} | ({"commit": manifest["revision"]} if manifest["revision"] else {})
    revisions.enforce(f"rows of {source.about['key']}{left_out}", found, lock)
    return counted, manifest, tokenizer, loaded, names


@contextmanager
def _replacing(file: Path) -> Iterator[IO[bytes]]:
    """A file to fill line by line that then takes the place of an earlier one; a part of it never does."""
    part = file.with_name(f".{file.name}.part")
    with paths.clear_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)


def _write(found: Iterator[Row | Damaged], file: IO[bytes], tokenizer: Any) -> Counted:
    """Writes the rows that can be used, a line of JSON each; counts labels, tokens and damaged rows."""
    counted, digest = Counted(), hashlib.sha256()
    while some := list(islice(found, AT_A_TIME)):
        usable = [row for row in some if isinstance(row, Row)]
        for row in some:
            if isinstance(row, Damaged):
                counted.damaged += 1
                counted.first_damaged += [vars(row)] if len(counted.first_damaged) < NAMED else []
        for row in usable:
            line = json.dumps([row.number, row.label, row.text], ensure_ascii=False).encode() + b"\n"
            file.write(line)
            digest.update(line)
        counted.labels.update(row.label for row in usable)
        if len(counted.labels) > MOST_LABELS:
            raise DataError(f"more than {MOST_LABELS:,} different labels: is the right column called 'label'?")
        if usable:
            counted.lengths.update(map(len, texts.tokenise(tokenizer, [row.text for row in usable])))
    counted.sha256 = digest.hexdigest()
    return counted


def _require_usable(params: EvaluationParams, counted: Counted, what: str) -> None:
    """Refuses damaged rows where none may be, and data without a row that can be used.

    Raises:
        DataError: the first rows are named.
    """
    named = "; ".join(f"{row['place']}: {row['why']}" for row in counted.first_damaged[:3])
    more = f"; and {counted.damaged - 3} more" if counted.damaged > 3 else ""
    if counted.damaged and params.damaged_rows == "error":
        raise DataError(
            f"{what}: {counted.damaged:,} of {counted.damaged + counted.rows:,} rows cannot be used: {named}{more}. "
            "Mend them, or leave them out with -p damaged_rows=skip. What was evaluated before is kept."
        )
    if not counted.rows:
        raise DataError(f"{what} has no row that can be used{f': {named}{more}' if named else ''}")


def _require_distinct(names: tuple[str, ...]) -> None:
    if len({name.strip().casefold() for name in names}) < len(names):
        raise ModelError(f"two of the model's labels have the same name: {', '.join(names)}")


def _manifest(about: dict[str, Any], counted: Counted, tokenizer: Any) -> dict[str, Any]:
    """What the rows are, as `texts.manifest` says it of a text; and the damaged ones."""
    return {
        "schema_version": 1,
        **about,
        "rows": counted.rows,
        "rows_damaged": counted.damaged,
        "first_damaged": counted.first_damaged,
        "labels": dict(sorted(counted.labels.items())),
        "tokens": counted.tokens(),
        "tokenizer": type(tokenizer).__name__,
        "tokenizer_sha256": texts.tokenizer_sha256(tokenizer),
        "content_sha256": counted.sha256,
    }
