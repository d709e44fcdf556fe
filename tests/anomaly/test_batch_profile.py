"""The file: written, read, refused where it breaks its schema."""

from __future__ import annotations

import json

import pytest
from batch_profiles import invented

from distilbench import paths
from distilbench.anomaly import records
from distilbench.errors import RunError


def test_what_is_written_is_read(tmp_path):
    content = invented({4: 1.3})
    records.write(tmp_path / records.NAME, content)
    assert records.read(tmp_path / records.NAME) == content


def test_the_committed_schema_is_that_of_the_file():
    """Made with: json.dumps(records.json_schema(), indent=2, sort_keys=True) and a newline."""
    committed = (paths.repo_root() / "book" / "schemas" / "batch_profile.v1.schema.json").read_text()
    assert committed == json.dumps(records.json_schema(), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda content: content.pop("machine"), "machine: Field required"),
        (lambda content: content.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda content: content["sizes"].append(content["sizes"][0]), "a batch size is given twice"),
        (lambda content: content["sizes"][0]["profiled"]["forward_ms"].pop(), "one entry per repetition"),
        (lambda content: content["sizes"][0]["processes"][0].update(latency_ms=0), "greater than 0"),
    ],
)
def test_a_file_that_breaks_its_schema_is_refused_by_its_place(tmp_path, spoil, where):
    content = invented(sizes=(1, 2)).model_dump(mode="json")
    spoil(content)
    paths.write_json(tmp_path / "file.json", content)
    with pytest.raises(RunError, match=r"file\.json is no profile of batch sizes: ") as refused:
        records.read(tmp_path / "file.json")
    assert where in str(refused.value)
    assert "distilbench profile-batches --output" in str(refused.value)
