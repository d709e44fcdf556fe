"""params/claims.yml: what stands in it, and what is refused with what may stand there instead."""

from __future__ import annotations

import shutil

import pytest
import yaml
from claimed import FASTER, claim_of

from distilbench import paths
from distilbench.errors import ParameterError
from distilbench.publication.claims import model

LINE = {"rule": "against-line", "of": {"number": "latency_ms", "where": {"batch_size": 4}}, "along": "batch_size",
        "through": [1, 2, 8], "expected": {"at_least": 1}}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a claims file with these entries into a checkout of its own."""
    (tmp_path / "book").mkdir()
    shutil.copytree(paths.repo_root() / "params", tmp_path / "params")
    shutil.copy(paths.repo_root() / "book" / "references.bib", tmp_path / "book")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    return lambda *entries: model.file().write_text(yaml.safe_dump({"claims": list(entries)}))


def test_the_committed_claims_hold():
    claims = model.load()
    assert {"batch-4-against-2", "batch-4-against-line", "mixed-precision-on-a-gpu"} <= {one.id for one in claims}
    assert all(one.reading for one in claims)


def test_a_source_may_be_a_document_or_a_key_of_the_bibliography(write):
    write(FASTER, FASTER | {"id": "another", "source": "sanh2019distilbert"})
    assert [claim.source for claim in model.load()] == ["requirement document 001", "sanh2019distilbert"]
    assert "williams2009roofline" in model.bibliography()


TEST = FASTER["test"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sourc": "x"}, "unknown key 'sourc'; did you mean 'source'?"),
        ({"hardware": {"device": "cpu", "gpus": "A100"}}, r"hardware: unknown key 'gpus'.* Keys: device, gpu\."),
        ({"hardware": {"device": "cpu", "gpu": "A100"}}, "hardware: gpu is given, but device is cpu"),
        ({"hardware": {"device": "tpu"}}, "hardware.device: Input should be 'cpu', 'cuda' or 'any'"),
        ({"test": TEST | {"rule": "ration"}}, "test: unknown rule 'ration'; did you mean 'ratio'.* against-line"),
        ({"test": TEST | {"off": 1}}, "test: unknown key 'off'; did you mean 'of'?"),
        ({"test": TEST | {"of": {"numbr": "x"}}}, "test.of: unknown key 'numbr'; did you mean 'number'?"),
        ({"test": TEST | {"expected": {"about": 1.39, "wthin": 0.1}}}, "unknown key 'wthin'; did you mean 'within'?"),
        ({"test": TEST | {"expected": {"about": 1.39}}}, "give either `about` with `within`, or"),
        ({"test": TEST | {"expected": {}}}, "give either `about` with `within`, or"),
        ({"test": TEST | {"expected": {"about": 1, "within": 0.1, "at_least": 1}}}, "give either `about`"),
        ({"test": TEST | {"expected": {"within": 0.1, "at_least": 1}}}, "give either `about`"),
        ({"test": TEST | {"expected": {"at_least": 2, "at_most": 1}}}, "at_least must be below at_most"),
        ({"test": TEST | {"to": {"number": "latency_ms"}}}, "need the same fields in `where`"),
        ({"test": TEST | {"of": {"number": "latency_ms", "where": {"batch_size": [2, 4]}}}}, "may be several"),
        ({"test": LINE | {"through": [2, 4, 8]}}, "one number that `through` has not"),
        ({"test": LINE | {"through": [2, 8]}}, "test.through: List should have at least 3 items"),
        ({"source": "sanh2019"}, r"'sanh2019' is no key of book/references.bib; did you mean 'sanh2019distilbert'\?"),
        ({"source": "requirement document 1"}, "is no key of book/references.bib"),
        ({"study": "distilbart"}, "unknown study 'distilbart'; did you mean 'distilbert'?"),
        ({"parameters": {"batch_size": [2]}}, "unknown parameter 'batch_size'; did you mean 'batch_sizes'?"),
        ({"parameters": {"batch_sizes": [2, 8]}}, "with its parameters no cell has batch_size 4; they have: 2, 8"),
        ({"test": TEST | {"of": TEST["of"] | {"number": "throughput"}}}, "'distilbert' has no number 'throughput'"),
        ({"test": TEST | {"cells": {"length": "fixed-*"}}}, "a cell of study 'distilbert' has no 'length'"),
        ({"id": "Batch 4"}, "id: String should match pattern"),
        ({"claim": None}, "claim 'four-against-two', claim: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_by_name(write, changed, said):
    write(FASTER | changed)
    with pytest.raises(ParameterError, match=said) as refused:
        model.load()
    assert str(refused.value).startswith(f"{model.file()}, claim ")


def test_what_is_wrong_with_the_file_itself(write):
    write(FASTER, FASTER)
    with pytest.raises(ParameterError, match="two claims have the id 'four-against-two'"):
        model.load()
    write()
    with pytest.raises(ParameterError, match=r"claims\.yml: List should have at least 1 item"):
        model.load()
    model.file().write_text("claim: []")
    with pytest.raises(ParameterError, match=r"unknown key 'claim'; did you mean 'claims'\? Keys: claims\."):
        model.load()
    write("words")
    with pytest.raises(ParameterError, match="claim number 1"):
        model.load()


def test_the_command_that_makes_a_run_for_a_claim():
    on_gpu = claim_of(hardware={"device": "cuda"}, parameters={"batch_sizes": [2, 4], "num_threads": 2})
    said = "distilbench run distilbert --profile full --device cuda:0 -p batch_sizes 2,4 -p num_threads 2"
    assert model.command(on_gpu) == said
    said = {device: str(claim_of(hardware={"device": device}).hardware) for device in ("cpu", "cuda", "any")}
    assert said == {"cpu": "a CPU", "cuda": "a GPU", "any": "any device"}
    assert str(claim_of(hardware={"device": "cuda", "gpu": "A100"}).hardware) == "a GPU whose name has 'A100'"
