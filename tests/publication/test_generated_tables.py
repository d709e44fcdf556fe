"""Tables that the book makes of what is published."""

from __future__ import annotations

import re

import yaml

from distilbench import paths, simulated_traces
from distilbench.measurements.sweep import records
from distilbench.publication import generated_tables, provenance, publish
from distilbench.runs import find
from distilbench.runs.folder import Run


def test_every_study_has_a_headline_whose_numbers_are_taken():
    said = generated_tables.headlines()
    for study, told in generated_tables.studies().items():
        assert told["question"] in said
        for page in (publish.pages_root() / study).glob("*.ipynb"):
            assert f"</studies/{study}/{page.stem}>" in said
    taken = re.findall(r"\{glue:text\}`/([^:]+)::([\w.-]+):([^`]*)`", said)
    assert len(taken) > 15
    for page, field, form in taken:
        assert provenance.certify(page, field, form).text
    assert "cpu-embedded.ipynb::sdpa-fixed-32-b1-latency_ms_low:.1f` to " in said, "with its interval"


def test_a_study_without_a_published_run_says_so(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    told = {"other": {"question": "What else?", "notebooks": ["01_ingest"], "headline": [{"what": "x", "value": "y"}]}}
    (tmp_path / "params" / "studies.yml").write_text(yaml.safe_dump(told))
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    assert generated_tables.headlines().strip() == "**What else?** (`other`) No run of it is published yet."


def test_a_number_that_a_page_lacks_is_a_dash():
    row = next(line for line in generated_tables.headlines().splitlines() if line.startswith("| Energy"))
    assert set(row.split("|")[2:-1]) == {" – "}


def test_the_index_names_every_published_run():
    said = generated_tables.runs_index()
    for file in paths.published_root().glob("*/*/status.json"):
        assert f"`{file.parent.name}`" in said
        assert paths.sha256_file(Run(file.parent).raw)[:12] in said


def test_machines_are_told_once_each():
    said = generated_tables.machines()
    assert said.count("Machine A") == 1
    for file in paths.published_root().glob("*/*/status.json"):
        assert said.count(f"`{file.parent.name[-8:]}`") == 1


def test_every_field_of_a_record_is_explained_or_a_reason():
    said = generated_tables.schema()
    for name, field in records.json_schema()["properties"].items():
        assert f"| `{name}` |" in said
        assert field.get("description", "") in said.replace(r"\|", "|")


def test_the_example_is_a_real_record():
    said = generated_tables.example()
    assert '"latency_ms"' in said or '"peak_rss_MiB"' in said
    assert '"schema_version": 1' in said
    assert "null" not in said.partition("```json")[2]


def test_intervals_are_tried_for_every_number_of_repetitions_that_a_published_run_has(monkeypatch):
    used = {run.config["parameters"]["repetitions"] for run in find.published_runs()}
    header, _, *rows = re.findall(r"^\|.*\|$", generated_tables.coverages(), re.MULTILINE)
    assert [cell.strip() for cell in header.strip("|").split("|")][2:] == [
        f"{n} repetitions" for n in sorted({*used, simulated_traces.USUAL})
    ]
    assert [row.split("|")[2].strip() for row in rows] == [*simulated_traces.KINDS, "any, exactly"]
    assert rows[-1].split("|")[3].strip() == f"{1 - 2 / 2**5:.1%}", "five on one side of the median, as coins fall"
    page = "studies/distilbert/cpu-embedded.ipynb"
    monkeypatch.setattr(provenance, "carried", lambda name: {"coverage_spiky": 0.5} if name == page else {})
    spiky, two = generated_tables._coverage("spiky", 5, page), generated_tables._coverage("two-mode", 5, page)
    assert spiky == f"{{glue:text}}`/{page}::coverage_spiky:.1%`", "what a page carries is taken from it"
    assert (two, generated_tables._coverage("two-mode", 5, None)) == ("76.3%", "76.3%")
