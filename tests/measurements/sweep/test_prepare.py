"""What all cells of a run share: recorded once, and checked before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring import committed, small_design

from distilbench import paths, studies
from distilbench.errors import DataError, ModelError, RunError
from distilbench.harness import steps
from distilbench.measurements.sweep.measure import prepare
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.runs import parameters
from distilbench.runs.folder import Run
from distilbench.sources.batches import load_inputs, sample_order
from distilbench.sources.models import load_model


def start(results: Path, **given) -> tuple[Run, parameters.Resolved]:
    resolved = small_design(results, **given)
    return studies.start(resolved), resolved


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


def test_preparing_records_text_and_model_and_writes_the_inputs(own_cache, tmp_path):
    run, resolved = start(tmp_path)
    prepared = prepare.prepare(resolved.params, run)
    assert prepared.label_names == ["negative", "positive"]
    assert prepared.fits == {"vocab_size": 191, "labels": 2, "pad": 0}
    assert prepared.manifest == paths.read_json(run.folder / "data.json")
    assert prepared.model == paths.read_json(run.folder / "model.json")
    token_ids, samples, _ = load_inputs(prepared.inputs)
    used = sum(min(16, len(token_ids[i])) for i in sample_order(80, 16, resolved.params.seed))
    (row,) = sweep.batch_table(resolved.params, prepared)
    assert len(samples) == 80
    assert (row["batches"], row["tokens"], row["padding"]) == (8, "16", round(1 - used / (16 * 16), 3))


@pytest.mark.parametrize(
    ("file", "key"),
    [("data.json", "content_sha256"), ("data.json", "tokenizer_sha256"), ("model.json", "sha256")],
)
def test_a_run_of_other_text_or_another_model_is_not_gone_on_with(own_cache, tmp_path, file, key):
    run, resolved = start(tmp_path)
    prepare.prepare(resolved.params, run)
    known = paths.read_json(run.folder / file)
    paths.write_json(run.folder / file, known | {key: "0" * 64})
    with pytest.raises(RunError, match=f"{key} is {'0' * 64} in {file}, {known[key]} now"):
        steps.measure_run(run, resolved)
    assert run.status["state"] == "failed"


def test_a_model_whose_labels_are_not_the_texts_is_refused_before_anything_is_measured(own_cache, tmp_path):
    load_model(source="random", size="tiny", vocab_size=191).module.save_pretrained(tmp_path / "model")
    run, resolved = start(tmp_path, model_source="local", model_path=str(tmp_path / "model"))
    with pytest.raises(ModelError, match=r"labels \['LABEL_0', 'LABEL_1'\] do not match"):
        prepare.prepare(resolved.params, run)
    assert committed(run) == []


def test_which_class_is_which_label_is_recorded_by_name(own_cache, tmp_path):
    module = load_model(source="random", size="tiny", vocab_size=191).module
    module.config.id2label, module.config.label2id = {0: "POSITIVE", 1: "NEGATIVE"}, {"POSITIVE": 0, "NEGATIVE": 1}
    module.save_pretrained(tmp_path / "model")
    run, resolved = start(tmp_path, model_source="local", model_path=str(tmp_path / "model"))
    prepare.prepare(resolved.params, run)
    assert paths.read_json(run.folder / "label_mappings.json") == {
        "schema_version": 1,
        "id2label": {"0": "POSITIVE", "1": "NEGATIVE"},
        "label2id": {"POSITIVE": 0, "NEGATIVE": 1},
        "labels": [
            {"label": "negative", "index": 0, "model_class": 1, "number": None},
            {"label": "positive", "index": 1, "model_class": 0, "number": None},
        ],
        "reason": None,
    }


def test_of_random_weights_no_class_is_any_label(own_cache, tmp_path):
    run, resolved = start(tmp_path)
    prepare.prepare(resolved.params, run)
    told = paths.read_json(run.folder / "label_mappings.json")
    assert (told["id2label"], [row["model_class"] for row in told["labels"]]) == (None, [None, None])
    assert told["reason"] == "random weights: their logits stand for nothing"


def test_batches_are_made_of_the_sentences_that_are_drawn(own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("distilbench.sources.texts.MOST_SENTENCES", 40)
    run, resolved = start(tmp_path)
    prepared = prepare.prepare(resolved.params, run)
    _, samples, _ = load_inputs(prepared.inputs)
    assert len(samples) == len(paths.read_json(Path(prepared.texts))) == 40
    assert (prepared.manifest["rows"], prepared.manifest["drawn"]) == (80, 40)


def test_text_so_short_that_a_cycle_repeats_itself_is_refused(own_cache, tmp_path):
    run, resolved = start(tmp_path, batch_sizes=[40], samples_per_cycle=320)
    with pytest.raises(DataError, match=r"batch size 40: a cycle has 2 distinct batches, 8 are needed .* 80 sentences"):
        prepare.prepare(resolved.params, run)
    assert not sweep.Prepared.is_there(run), "no part can begin"
