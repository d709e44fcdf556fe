"""A split that is read while it is gone through holds what one holds that is loaded whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import datasets
import pytest

from distilbench.errors import DataError
from distilbench.sources import repositories
from distilbench.sources.repositories import files_of_split, load_split, read_card, stream_split


def repository(folder: Path, count: int, form: str = "parquet", names: tuple[str, ...] = ("no", "yes")) -> Path:
    """Two files of one split, with a column that nobody looks at."""
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    features = datasets.Features(features | {"other": datasets.Value("int64")})
    for part in range(2):
        rows = [{"text": f"{part} {n}", "label": n % 2, "other": n} for n in range(count)]
        made = datasets.Dataset.from_list(rows, features=features)
        file = folder / f"train-{part:05d}-of-00002.{form}"
        made.to_parquet(file) if form == "parquet" else made.to_json(file)
    return folder


def split_of(folder: Path, load, split: str = "train"):
    card = read_card(folder, "made up")
    entry = card.configuration("default")
    files = files_of_split(card, entry, (file.name for file in folder.iterdir()), split.partition("[")[0])
    return load(card, entry, folder, files, split)


@pytest.mark.parametrize(("form", "split"), [("parquet", "train"), ("parquet", "train[:3]"), ("jsonl", "train")])
def test_rows_and_names_are_the_same(tmp_path, form, split):
    folder = repository(tmp_path, 5, form)
    streamed, whole = split_of(folder, stream_split, split), split_of(folder, load_split, split)
    assert streamed.label_names == whole.label_names == (("no", "yes") if form == "parquet" else ())
    assert list(streamed.rows) == list(whole.rows)
    assert len(list(whole.rows)) == (3 if "[" in split else 10)


def test_rows_of_parquet_are_never_all_in_memory(tmp_path):
    def peak(count: int) -> int:
        (tmp_path / str(count)).mkdir()
        table = split_of(repository(tmp_path / str(count), count), stream_split)
        tracemalloc.start()
        assert sum(1 for _ in table.rows) == 2 * count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(12_000) < 1.25 * peak(3_000)


def test_columns_that_cannot_be_told_apart_are_refused(tmp_path):
    datasets.Dataset.from_list([{"text": "a", "Text": "b", "label": 1}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="cannot be told apart"):
        split_of(tmp_path, stream_split)
    assert repositories.STREAMED > 100
