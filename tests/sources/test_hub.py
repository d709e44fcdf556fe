"""The hub source, end to end: the real clients in a fresh process each, over a real socket, against a loopback hub."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_user import run
from loopback_hub import LoopbackHub

from distilbench import paths
from distilbench.sources import repositories

MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
SHORT_REVISION = "714eb0f"
DATASET = "nyu-mll/glue"
VALIDATION = "sst2/validation-00000-of-00001.parquet"
MODEL_KEY = f"model {MODEL}@{SHORT_REVISION}"
DATA_KEY = f"data {DATASET}/sst2/validation@main"
SENTENCES = ("a moving film ", "it is dull and slow ", "great fun ")  # SST-2's own end in a blank
WAYS_OUT = ("`distilbench fetch`", "source=embedded")

# ------------------------------------------------------------------ what is on the hub


def model_files(seed: int) -> dict[str, bytes]:
    """A tiny classifier, laid out as the real one: vocab.txt, no tokenizer.json, and formats that nobody asks for."""
    import torch
    from safetensors.torch import save
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    tokenizer = json.loads((paths.repo_root() / "tests/data/tiny_tokenizer/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    config = DistilBertConfig(
        vocab_size=len(vocabulary), n_layers=2, n_heads=2, dim=64, hidden_dim=128,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
        architectures=["DistilBertForSequenceClassification"],
    )  # fmt: skip
    torch.manual_seed(seed)
    weights = save(DistilBertForSequenceClassification(config).state_dict(), metadata={"format": "pt"})
    return {
        "README.md": b"# a tiny stand-in",
        "config.json": config.to_json_string().encode(),
        "model.safetensors": weights,
        "onnx/tokenizer.json": b"{}",
        "pytorch_model.bin": b"never to be downloaded",
        "tokenizer_config.json": b'{"do_lower_case": true, "model_max_length": 512}',
        "vocab.txt": "".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.get)).encode(),
    }


def glue_files(sentences: tuple[str, ...]) -> dict[str, bytes]:
    """Two configurations of GLUE; only the card knows the names of the labels."""
    names = {"cola": ["unacceptable", "acceptable"], "sst2": ["negative", "positive"]}
    splits = ("train", "validation", "test")
    features = {
        config: [
            {"name": "sentence", "dtype": "string"},
            {"name": "label", "dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(labels)}}}},
            {"name": "idx", "dtype": "int32"},
        ]
        for config, labels in names.items()
    }
    card = {
        "configs": [
            {"config_name": config, "data_files": [{"split": s, "path": f"{config}/{s}-*"} for s in splits]}
            for config in names
        ],
        "dataset_info": [{"config_name": config, "features": features[config]} for config in names],
    }
    files = {"README.md": f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# GLUE\n".encode()}
    for config in names:
        for split in splits:
            labels = [-1] * len(sentences) if split == "test" else [(i + 1) % 2 for i in range(len(sentences))]
            table = pa.table(
                {
                    "sentence": [f"{config} {split}" for _ in sentences] if config == "cola" else list(sentences),
                    "label": pa.array(labels, pa.int64()),
                    "idx": pa.array(range(len(sentences)), pa.int32()),
                }
            )
            pq.write_table(table, buffer := io.BytesIO())
            files[f"{config}/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def content() -> dict[str, dict[str, bytes]]:
    """Files of both repositories, and of what they become when their branches move."""
    return {
        "model": model_files(seed=1),
        "moved model": model_files(seed=2),
        "data": glue_files(SENTENCES),
        "moved data": glue_files(("other words ", *SENTENCES)),
    }


def stocked(hub: LoopbackHub, content: dict[str, dict[str, bytes]]) -> LoopbackHub:
    """Puts both repositories there; equal content gives equal commits."""
    hub.push("models", MODEL, content["model"], "main", SHORT_REVISION)
    hub.push("datasets", DATASET, content["data"], "main")
    return hub


@pytest.fixture
def hub(content):
    """A hub of its own for each test, so that its faults stay there."""
    with LoopbackHub() as running:
        yield stocked(running, content)


def commit_of(hub: LoopbackHub, kind: str, name: str) -> str:
    """What main stands for."""
    return hub.repositories[kind, name].branches["main"]


# ------------------------------------------------------------------ a user's process

FETCH = f"""
from distilbench.sources import hub
folder, commit = hub.fetch_model({MODEL!r}, {SHORT_REVISION!r})
answer = {{"commit": commit, "folder": str(folder)}}
"""
TEXTS = """
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.sources import texts as sources_texts
texts = sources_texts.load_texts(DistilbertParams(source="hub"))
answer = {"commit": texts.about["revision"], "texts": texts.texts, "labels": texts.labels, "names": texts.label_names}
answer |= {"samples": texts.samples} | {name: texts.about[name] for name in ("licence", "citation", "name")}
"""
FORWARD = f"""
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.sources import models, tokenizers
encode = tokenizers.load_tokenizer(DistilbertParams(source="hub"))
tokens = encode({list(SENTENCES)!r}, return_tensors="pt", padding=True)
loaded = models.load_model(name={MODEL!r}, revision={SHORT_REVISION!r})
answer = {{
    "ids": tokens["input_ids"].tolist(),
    "logits": loaded.forward(tokens["input_ids"], tokens["attention_mask"]).tolist(),
    "names": loaded.info.label_names,
    "commit": loaded.info.revision,
    "matched": models.match_labels(loaded.info.label_names, ("negative", "positive")),
}}
"""


def locked(home: Path) -> dict[str, dict[str, str]]:
    """What the lock holds."""
    file = home / "revisions.lock"
    return yaml.safe_load(file.read_text()) if file.exists() else {}


def hashes_in(message: str) -> list[str]:
    """The SHA-256 sums that a message names, in order."""
    return re.findall(r"\b[0-9a-f]{64}\b", message)


def is_clear(answer: dict[str, Any], error: str, *words: str) -> bool:
    """Whether the step ended in one readable message of this type that says all of this."""
    assert answer.get("error") == error, answer
    missing = [word for word in words if word not in answer["message"]]
    assert not missing, f"{missing} not in: {answer['message']}"
    assert "Traceback" not in answer["message"]
    assert "\n" not in answer["message"]
    return True


@dataclass(frozen=True)
class Download:
    """What the first fetch gave.

    Attributes:
        answers: of the steps.
        home: caches and lock; copy it before changing it.
        requests: what the hub was asked.
        url: where the hub was; nothing listens there any more.
    """

    answers: dict[str, Any]
    home: Path
    requests: list[str]
    url: str


@pytest.fixture(scope="module")
def download(content, tmp_path_factory) -> Download:
    """One fetch of model and text into empty caches."""
    home = tmp_path_factory.mktemp("home")
    with LoopbackHub() as running:
        stocked(running, content)
        answers = run(running.url, home, model=FORWARD, texts=TEXTS)
        return Download(answers, home, running.requests, running.url)


@pytest.fixture
def home(download, tmp_path) -> Path:
    """A copy of what the first fetch left: caches and lock."""
    return Path(shutil.copytree(download.home, tmp_path / "home", symlinks=True))


# ------------------------------------------------------------------ download, lock, offline


def test_download_gives_a_working_model_and_the_text(download):
    model, texts = download.answers["model"], download.answers["texts"]
    assert model["names"] == ["NEGATIVE", "POSITIVE"]
    assert model["matched"] == [0, 1]
    assert [len(row) for row in model["logits"]] == [2, 2, 2]
    assert len({str(row) for row in model["ids"]}) == 3, "vocab.txt was not used: all sentences have the same tokens"
    assert texts["texts"] == ["a moving film", "it is dull and slow", "great fun"]
    assert texts["labels"] == [1, 0, 1]
    assert texts["names"] == ["negative", "positive"]


def test_download_takes_what_is_needed_and_no_more(download):
    fetched = {
        line.split()[1].rpartition("/")[2]
        for line in download.requests
        if line.startswith("GET") and "/resolve/" in line
    }
    assert fetched == {
        "README.md", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt", Path(VALIDATION).name
    }  # fmt: skip
    assert not any("/cola/" in line or "/test-" in line for line in download.requests)


def test_download_is_locked_by_commit_and_content(download):
    lock = locked(download.home)
    assert set(lock) == {MODEL_KEY, DATA_KEY}
    assert lock[MODEL_KEY]["commit"] == download.answers["model"]["commit"]
    assert lock[DATA_KEY]["commit"] == download.answers["texts"]["commit"]
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in lock.values())


def test_the_plain_datasets_client_reads_the_same_rows(hub, tmp_path):
    plain = f"""
import datasets
rows = datasets.load_dataset({DATASET!r}, "sst2", split="validation", revision={commit_of(hub, "datasets", DATASET)!r})
answer = {{"texts": rows["sentence"][:], "labels": rows["label"][:], "names": rows.features["label"].names}}
"""
    answers = run(hub.url, tmp_path, plain=plain, ours=TEXTS)
    assert answers["plain"]["texts"] == list(SENTENCES)
    assert answers["plain"]["labels"] == answers["ours"]["labels"]
    assert answers["plain"]["names"] == answers["ours"]["names"]


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "on another machine"])
def test_a_moved_branch_does_not_change_what_is_loaded(hub, home, content, download, cached):
    hub.push("models", MODEL, content["moved model"], "main", SHORT_REVISION)
    hub.push("datasets", DATASET, content["moved data"], "main")
    if not cached:
        shutil.rmtree(home / "hf")
    answers = run(hub.url, home, model=FETCH, texts=TEXTS)
    assert answers["model"]["commit"] == download.answers["model"]["commit"]
    assert answers["texts"] == download.answers["texts"]
    weights = Path(answers["model"]["folder"], "model.safetensors").read_bytes()
    assert weights == content["model"]["model.safetensors"]
    assert locked(home) == locked(download.home)
    if cached:
        assert [line for line in hub.requests if "nyu-mll" in line or "distilbert" in line] == []


def test_a_cache_that_another_tool_filled_in_part_is_completed(hub, home, download):
    for name, file in (("models--*", "vocab.txt"), ("datasets--*", VALIDATION)):
        (repository,) = (home / "hf" / "hub").glob(name)
        shutil.rmtree(repository / "trees")  # a client that fetches single files lists none
        (missing,) = repository.glob(f"snapshots/*/{file}")
        missing.unlink()
    answers = run(hub.url, home, model=FETCH, texts=TEXTS)
    assert answers["model"]["commit"] == download.answers["model"]["commit"], answers["model"]
    assert answers["texts"] == download.answers["texts"]


def test_other_content_under_the_same_commit_is_refused(hub, home, content):
    model, data = hub.repositories["models", MODEL], hub.repositories["datasets", DATASET]
    model.commits[commit_of(hub, "models", MODEL)] = content["moved model"]
    data.commits[commit_of(hub, "datasets", DATASET)] = content["moved data"]
    shutil.rmtree(home / "hf")
    lock = locked(home)
    answers = run(hub.url, home, model=FETCH, texts=TEXTS)
    for step, error, key in (("model", "HubError", MODEL_KEY), ("texts", "DataError", DATA_KEY)):
        assert is_clear(answers[step], error, key, "is not what it was", "delete the entry")
        then, now = hashes_in(answers[step]["message"])
        assert then == lock[key]["sha256"]
        assert now != then
    assert locked(home) == lock


def test_other_vocabulary_under_the_same_commit_is_refused(hub, home, content):
    files = content["model"] | {"vocab.txt": content["model"]["vocab.txt"].replace(b"film\n", b"clip\n")}
    hub.repositories["models", MODEL].commits[commit_of(hub, "models", MODEL)] = files
    shutil.rmtree(home / "hf")
    assert is_clear(run(hub.url, home, model=FETCH)["model"], "HubError", "is not what it was")


def test_offline_loads_what_was_downloaded(home, download):
    answers = run(download.url, home, {"HF_HUB_OFFLINE": "1"}, model=FORWARD, texts=TEXTS)
    assert answers == download.answers


@pytest.mark.parametrize("locked_before", [False, True], ids=["first fetch", "fetch of a locked commit"])
def test_another_checkout_finds_offline_what_was_fetched(hub, download, tmp_path, locked_before):
    """It shares HF_HOME, and has neither the first one's lock nor its cache."""
    if locked_before:
        shutil.copy(download.home / "revisions.lock", tmp_path)
    run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    other = {
        "HF_HUB_OFFLINE": "1",
        "DISTILBENCH_CACHE": str(tmp_path / "other cache"),
        "DISTILBENCH_REVISIONS_LOCK": str(tmp_path / "other.lock"),
    }
    hub.requests.clear()
    answers = run(hub.url, tmp_path, other, model=FORWARD, texts=TEXTS)
    assert answers == download.answers
    assert hub.requests == []


def test_a_locked_commit_does_not_move_what_a_branch_stands_for(hub, home, content):
    """Another tool that shares the cache has seen the branch move on."""
    moved = hub.push("datasets", DATASET, content["moved data"], "main")
    (note,) = (home / "hf" / "hub").glob("datasets--*/refs/main")
    note.write_text(moved, encoding="utf-8")
    answers = run(hub.url, home, texts=TEXTS)
    assert answers["texts"]["commit"] == locked(home)[DATA_KEY]["commit"] != moved
    assert note.read_text(encoding="utf-8") == moved


def test_offline_a_cache_that_datasets_itself_filled_is_enough(hub, tmp_path):
    plain = f"import datasets\ndatasets.load_dataset({DATASET!r}, 'sst2')\nanswer = None\n"
    run(hub.url, tmp_path, plain=plain)
    texts = run(hub.url, tmp_path, {"HF_HUB_OFFLINE": "1"}, texts=TEXTS)["texts"]
    assert texts["texts"] == [sentence.strip() for sentence in SENTENCES], texts


@pytest.mark.parametrize(
    ("given", "models", "datasets"),
    [
        ({}, "", ""),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1", "HF_HUB_OFFLINE=1"),
        ({"HF_HUB_OFFLINE": "yes"}, "HF_HUB_OFFLINE=yes", "HF_HUB_OFFLINE=yes"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"),
        ({"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": ""}, "TRANSFORMERS_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"),
        ({"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "0"}, "", ""),
        ({"HF_DATASETS_OFFLINE": "1"}, "", "HF_DATASETS_OFFLINE=1"),
        ({"HF_DATASETS_OFFLINE": "0", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1", "HF_HUB_OFFLINE=1"),
    ],
)
def test_offline_is_what_the_clients_take_for_it_and_the_setting_is_named(hub, tmp_path, given, models, datasets):
    clients = """
import huggingface_hub.constants, datasets.config
answer = [huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE]
"""
    answers = run(hub.url, tmp_path, given, clients=clients, model=FETCH, texts=TEXTS)
    assert answers["clients"][0] == bool(models)
    assert answers["clients"][1] <= bool(datasets)
    for step, setting in (("model", models), ("texts", datasets)):
        if setting:
            assert is_clear(answers[step], "HubError", f"{setting} is set", "not in the cache", *WAYS_OUT)
        else:
            assert "error" not in answers[step]
    assert bool(hub.requests) == (not models)


def test_offline_with_an_empty_cache_names_the_ways_out(hub, tmp_path):
    answers = run(hub.url, tmp_path, {"HF_HUB_OFFLINE": "1"}, model=FETCH, texts=TEXTS)
    assert is_clear(answers["model"], "HubError", MODEL, "HF_HUB_OFFLINE=1", "not in the cache", *WAYS_OUT)
    assert is_clear(answers["texts"], "HubError", DATASET, "HF_HUB_OFFLINE=1", "not in the cache", *WAYS_OUT)
    assert hub.requests == []


# ------------------------------------------------------------------ damage


def with_one_bit_changed(content: bytes) -> bytes:
    """The same size, other content; in a safetensors file the header stays valid."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_damage_on_the_way_is_found_and_can_be_repaired(hub, tmp_path):
    hub.spoil = {"model.safetensors": with_one_bit_changed, VALIDATION: with_one_bit_changed}
    answers = run(hub.url, tmp_path, model=FETCH, model_again=FETCH, texts=TEXTS, texts_again=TEXTS)
    for step, file in (("model", "model.safetensors"), ("texts", VALIDATION)):
        assert is_clear(answers[step], "HubError", file, "is damaged", "delete", "fetch again")
        assert len(set(hashes_in(answers[step]["message"]))) == 2
        assert answers[f"{step}_again"] == answers[step], "the damaged file in the cache was accepted"
    assert locked(tmp_path) == {}
    hub.spoil = {}
    for step in ("model", "texts"):
        shutil.rmtree(re.search(r"delete (\S+) and fetch again", answers[step]["message"])[1])
    run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    assert set(locked(tmp_path)) == {MODEL_KEY, DATA_KEY}


def test_a_truncated_download_is_found(hub, tmp_path):
    hub.spoil = dict.fromkeys(("model.safetensors", VALIDATION), lambda content: content[:-100])
    answers = run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    assert is_clear(answers["model"], "HubError", MODEL, "damaged", "file should be of size", *WAYS_OUT)
    assert is_clear(answers["texts"], "HubError", DATASET, "damaged", "file should be of size", *WAYS_OUT)
    assert locked(tmp_path) == {}


def test_damage_in_the_cache_is_found_later(home, download):
    snapshots = home / "hf" / "hub"
    (weights,) = snapshots.glob("models--*/snapshots/*/model.safetensors")
    weights.write_bytes(with_one_bit_changed(weights.read_bytes()))
    (sentences,) = snapshots.glob(f"datasets--*/snapshots/*/{VALIDATION}")
    sentences.write_bytes(sentences.read_bytes()[:-100])
    answers = run(download.url, home, {"HF_HUB_OFFLINE": "1"}, model=FETCH, texts=TEXTS)
    assert is_clear(answers["model"], "HubError", "is not what it was", str(snapshots), "fetch again")
    assert hashes_in(answers["model"]["message"])[0] == locked(home)[MODEL_KEY]["sha256"]
    assert is_clear(answers["texts"], "HubError", "cannot read sst2/validation", str(snapshots), "fetch again")


# ------------------------------------------------------------------ refusals and silence


def test_without_permission_it_says_how_to_log_in(hub, tmp_path):
    hub.token = "hf_a_token"
    answers = run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    for step in ("model", "texts"):
        assert is_clear(answers[step], "HubError", "refused (401)", "`hf auth login`", "HF_TOKEN")
    answers = run(hub.url, tmp_path, {"HF_TOKEN": hub.token}, model=FETCH, texts=TEXTS)
    assert "error" not in answers["model"] | answers["texts"]


def test_a_hub_that_is_briefly_overloaded_is_asked_again(hub, tmp_path):
    hub.overloaded_for = 2
    answers = run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    assert [line[-3:] for line in hub.requests if MODEL in line][:3] == ["503", "503", "200"]
    assert answers["model"]["commit"] == commit_of(hub, "models", MODEL)


def test_a_hub_that_stays_overloaded_is_left_alone_after_three_questions(hub, tmp_path):
    hub.overloaded_for = float("inf")
    answers = run(hub.url, tmp_path, model=FETCH, texts=TEXTS)
    for step, name in (("model", MODEL), ("texts", DATASET)):
        assert is_clear(answers[step], "HubError", name, hub.url, "503", "Try later", *WAYS_OUT)
        assert sum(name in line for line in hub.requests) == 3


def test_no_route_names_the_ways_out(download, tmp_path):
    answers = run(download.url, tmp_path, model=FETCH, texts=TEXTS)
    assert is_clear(answers["model"], "HubError", MODEL, download.url, "cannot be reached", *WAYS_OUT)
    assert is_clear(answers["texts"], "HubError", DATASET, download.url, "cannot be reached", *WAYS_OUT)


def test_no_route_to_a_locked_commit_fails_at_once(home, download):
    shutil.rmtree(home / "hf")
    code = "import time\nslept = []\ntime.sleep = slept.append\ntry:\n" + textwrap.indent(FETCH, "    ")
    code += "except DistilbenchError:\n    answer = sum(slept)\n"
    assert run(download.url, home, waited_s=code)["waited_s"] < 10  # the client's own retries would take 23 s


# ------------------------------------------------------------------ what is not there


def of_other(**params: str) -> str:
    """The step that loads other text."""
    return TEXTS.replace('source="hub"', "source='hub', " + ", ".join(f"{k}={v!r}" for k, v in params.items()))


def test_what_is_not_there_is_named(hub, tmp_path):
    answers = run(
        hub.url, tmp_path,
        revision=FETCH.replace(SHORT_REVISION, "0ddba11"),
        data_revision=of_other(dataset_revision="v9"),
        configuration=of_other(dataset_config="sst3"),
        split=of_other(dataset_split="dev"),
        part=of_other(dataset_split="validation[1:x]"),
        labels=of_other(dataset_split="test"),
        stranger=of_other(dataset_name="nobody/nothing"),
    )  # fmt: skip
    assert is_clear(answers["revision"], "HubError", f"{MODEL}@0ddba11", "does not have it", "Invalid rev id: 0ddba11")
    assert is_clear(
        answers["data_revision"], "HubError", f"{DATASET}@v9", "does not have it", "Check name and revision"
    )
    assert is_clear(answers["configuration"], "DataError", "'sst3'", "cola, sst2")
    assert is_clear(answers["split"], "DataError", "'dev'", "train, validation, test")
    assert is_clear(answers["part"], "DataError", "no split 'validation[1:x]'", "Unrecognized instruction format")
    assert is_clear(answers["labels"], "DataError", "withheld", "validation or train")
    assert is_clear(answers["stranger"], "HubError", "nobody/nothing", "check the name")
    assert locked(tmp_path) == {}


def test_part_of_a_split_and_the_other_configuration(hub, tmp_path):
    answers = run(
        hub.url, tmp_path, part=of_other(dataset_split="validation[1:]"), cola=of_other(dataset_config="cola")
    )
    assert answers["part"]["texts"] == [sentence.strip() for sentence in SENTENCES[1:]]
    assert answers["cola"]["texts"] == ["cola validation"] * 3
    assert answers["cola"]["names"] == ["unacceptable", "acceptable"]


# ------------------------------------------------------------------ other repositories

CARD = """---
license: cc-by-4.0
configs:
- config_name: short
  data_files:
  - split: train
    path: short/train.csv
  - split: validation
    path: [short/dev_0.csv, short/dev_1.csv]
  sep: ";"
- config_name: long
  data_files: long/*.jsonl
dataset_info:
- config_name: long
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good}}}
---
# Reviews

## Citation Information

```bibtex
@misc{someone, title = {Reviews}}
```

### Notes

Cite it.

## Contributions

Thanks.
"""
FILES = {
    "README.md": CARD.encode(),
    "short/train.csv": b"text;label\nnot this one;good\n",
    "short/dev_0.csv": "text;label\nA warm film, \u00e9.;x\n".encode(),
    "short/dev_1.csv": b"text;label\nDull.;bad\nFine.;Good\n",
    "long/a.jsonl": b'{"sentence": "Dull.", "label": 0}\n{"sentence": "Warm.", "label": 1}\n',
    "long/notes.txt": b"not data",
}


def ask(hub: LoopbackHub, home: Path, cases: dict[str, tuple[dict[str, bytes], str, str]], **environment: str) -> Any:
    """What is read of repositories, each called someone/NAME: files, configuration and split by name."""
    steps = {}
    for name, (files, config, split) in cases.items():
        hub.push("datasets", f"someone/{name}", files, "main")
        steps[name] = of_other(dataset_name=f"someone/{name}", dataset_config=config, dataset_split=split)
    return run(hub.url, home, environment, **steps)


def fetched(hub: LoopbackHub) -> set[str]:
    """The data files that were downloaded."""
    paths_ = {line.split()[1].partition("/resolve/")[2].partition("/")[2] for line in hub.requests if "GET" in line}
    return paths_ & set(FILES) - {"README.md"}


def test_csv_and_json_are_read_by_configuration_and_split_also_offline(hub, tmp_path):
    cases = {"csv": (FILES, "short", "validation"), "json": (FILES, "long", "train")}
    answers = ask(hub, tmp_path, cases)
    assert answers["csv"]["texts"] == ["A warm film, \u00e9.", "Dull.", "Fine."], answers
    assert answers["csv"]["names"] == ["bad", "good", "x"]
    assert answers["csv"]["labels"] == [2, 0, 1]
    assert answers["json"]["texts"] == ["Dull.", "Warm."]
    assert (answers["json"]["labels"], answers["json"]["names"]) == ([0, 1], ["bad", "good"])
    assert fetched(hub) == {"short/dev_0.csv", "short/dev_1.csv", "long/a.jsonl"}
    assert ask(hub, tmp_path, cases, HF_HUB_OFFLINE="1") == answers


CSV, TSV = (f"text{sep}label\nDull.{sep}0\nWarm.{sep}1\n".encode() for sep in (",", "\t"))
FOLDER = b"---\nconfigs:\n- config_name: all\n  data_dir: sub\n---\n"
ONE = b"---\nconfigs:\n- {config_name: all, data_files: a.csv}\n---\n"
MARKED = ONE.replace(b"a.csv}", b"a.csv, default: true}\n- {config_name: other, data_files: b.csv}")
LAYOUTS = {
    "one_file": ({"reviews.csv": CSV}, "default", "train"),
    "named_after_splits": ({"train.tsv": TSV.replace(b"Warm", b"Cold"), "dev.tsv": TSV}, "default", "validation"),
    "shards": ({f"data/{part}-00000-of-00001.csv": CSV for part in ("test", "train")}, "default", "test"),
    "folder": ({"README.md": FOLDER, "sub/a.tsv": TSV, "b.tsv": TSV}, "all", "train"),
    "the_only_one": ({"README.md": ONE, "a.csv": CSV, "b.csv": b""}, "default", "train"),
    "the_marked_one": ({"README.md": MARKED, "a.csv": CSV, "b.csv": b""}, "default", "train"),
    "json": ({"train.json": b'[{"text": "Dull.", "label": 0}, {"text": "Warm.", "label": 1}]'}, "default", "train"),
}


def test_the_layout_tells_the_splits_as_datasets_does(hub, tmp_path):
    ours = ask(hub, tmp_path, {n: ({"run.py": b"raise SystemExit"} | f, c, s) for n, (f, c, s) in LAYOUTS.items()})
    splits = {name: split for name, (*_, split) in LAYOUTS.items()}
    plain = f"""
import datasets
rows = {{n: datasets.load_dataset("someone/" + n, split=s) for n, s in {splits}.items()}}
answer = {{n: [r["text"][:], r["label"][:]] for n, r in rows.items()}}
"""
    theirs = run(hub.url, tmp_path / "other", plain=plain)["plain"]
    for name in LAYOUTS:
        assert [ours[name]["texts"], ours[name]["labels"]] == theirs[name] == [["Dull.", "Warm."], [0, 1]], ours[name]
        assert (ours[name]["licence"], ours[name]["citation"]) == ("not stated", "not stated")


def test_licence_and_citation_are_what_the_card_says(hub, tmp_path, download):
    legacy = {
        "default": {"citation": "@misc{old}", "license": "MIT", "description": "", "homepage": "", "features": None}
    }
    template = (
        "---\nlicense: [mit, other]\n---\n## Citation\n\n<!-- here -->\n**BibTeX:**\n\n[More Information Needed]\n"
    )
    cases = {
        "reviews": (FILES, "long", "train"),
        "template": ({"README.md": template.encode(), "a.csv": CSV}, "default", "train"),
        "legacy": ({"dataset_infos.json": json.dumps(legacy).encode(), "a.csv": CSV}, "default", "train"),
        "silent": ({"a.csv": CSV}, "default", "train"),
    }
    answers = ask(hub, tmp_path, cases)
    assert {name: (answer["licence"], answer["citation"]) for name, answer in answers.items()} == {
        "reviews": ("cc-by-4.0 (says its card)", "@misc{someone, title = {Reviews}} Cite it."),
        "template": ("mit, other (says its card)", "not stated"),
        "legacy": ("MIT (says its card)", "@misc{old}"),
        "silent": ("not stated", "not stated"),
    }
    assert answers["reviews"]["name"] == "someone/reviews long, train split"
    assert "GLUE" in download.answers["texts"]["licence"]


LABELS = {
    "five": ("0 1 2 3 4", "labels must be names, or 0 and 1; it has 0, 1, 2, 3, 4"),
    "shares": ("0.25 0.75", "labels must be names, or 0 and 1; it has 0.25, 0.75"),
    "withheld": ("1 -1", "withheld"),
    "missing_name": ("good ", "all.csv, line 3: the label is empty"),
    "missing_number": ("0 ", "all.csv, line 3: the label is empty"),
    "one_class": ("good good", "a classifier needs at least two"),
}


def test_labels_of_the_hub_are_never_guessed(hub, tmp_path):
    files = {
        name: "text,label\n" + "".join(f"sentence {i},{label}\n" for i, label in enumerate(labels.split(" ")))
        for name, (labels, _) in LABELS.items()
    }
    answers = ask(
        hub, tmp_path, {name: ({"all.csv": rows.encode()}, "default", "train") for name, rows in files.items()}
    )
    for name, (_, why) in LABELS.items():
        assert is_clear(answers[name], "DataError", f"someone/{name}", why)


def with_files(data_files: str) -> dict[str, bytes]:
    """A repository whose card lists these files."""
    card = f"---\nconfigs:\n- {{config_name: a, data_files: '{data_files}'}}\n---\n"
    return {"README.md": card.encode(), "a.csv": CSV}


NOT_THERE = {
    "which": ((FILES, "default", "train"), ("no configuration 'default'", "short, long")),
    "configuration": ((FILES, "medium", "train"), ("no configuration 'medium'", "short, long")),
    "split": ((FILES, "short", "test"), ("no split 'test'", "train, validation")),
    "no_configurations": (({"all.csv": TSV}, "sst2", "train"), ("no configuration 'sst2'", "default")),
    "script": (({"reviews.py": b"# a loading script"}, "default", "train"), ("no data files are found",)),
    "other_form": (({"a.txt": b"a line"}, "default", "train"), ("train is kept in a.txt", ".parquet, .csv")),
    "no_list": (({"README.md": b"---\nconfigs: 3\n---\n"}, "default", "train"), ("malformed", "config_name")),
    "no_yaml": (({"README.md": b"---\n: [\n---\n"}, "default", "train"), ("malformed",)),
    "elsewhere": ((with_files("https://127.0.0.1:1/a.csv"), "a", "train"), ("kept elsewhere", "https://127.0.0.1:1")),
    "outside": ((with_files("/etc/[p]asswd"), "a", "train"), ("configuration a",)),
    "above": ((with_files("../*/a.csv"), "a", "train"), ("configuration a",)),
}


def test_what_a_repository_does_not_have_is_named(hub, tmp_path):
    answers = ask(hub, tmp_path, {name: case for name, (case, _) in NOT_THERE.items()})
    for name, (_, why) in NOT_THERE.items():
        assert is_clear(answers[name], "DataError", f"someone/{name}", *why)


def test_paths_that_lead_out_of_a_repository_are_none_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    card = repositories.Card("a data set", {}, "", {})
    listed = ["../../above.csv", f"{tmp_path}/absolute.csv", "inside.csv"]
    assert repositories.files_of_split(card, {"config_name": "default"}, listed, "train") == ["inside.csv"]
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ text as it stands, as in local files

STRAY_TSV = b'text\tlabel\n"a dull film he said\t0\na fine one she said"\t1\nwarm\t1\n'
UNTYPED_CSV = b"idx,text,label\n007,NA,0\n008,null,1\n010,true,1\n011,1e5,0\n012,7,1\n"
NAMED = b"""---
dataset_info:
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': bad, '1': good}}}}
---
"""
LISTED = "---\nconfigs:\n- {config_name: default, data_files: %s}\n---\n"
TABBED, FIELD, SKIPPED, WIDE, QUOTE, NUMBER = (
    (LISTED % how).encode()
    for how in (
        'a.csv, sep: "\\t", encoding: UTF-8',
        "a.json, field: rows",
        "a.csv, skiprows: 1, names: [text]",
        "a.csv, sep: '::'",
        "a.csv, sep: '\"'",
        "a.csv, sep: 1",
    )
)  # fmt: skip
ARRAY = b'[{"text": "Dull.", "label": 0}, {"text": "Warm.", "label": 1}]'
LINES = b'{"text": "Dull.", "label": 0}\n{"text": "Warm.", "label": 1}\n'
BOTH = (["Dull.", "Warm."], [0, 1])
STRAY = (['"a dull film he said', 'a fine one she said"', "warm"], [0, 1, 1])
AS_IT_STANDS = {
    "quotes": ({"a.tsv": STRAY_TSV}, *STRAY),
    "untyped": ({"a.csv": UNTYPED_CSV}, ["NA", "null", "true", "1e5", "7"], [0, 1, 1, 0, 1]),
    "numbers_only": ({"a.csv": b"text,label\n12,0\n34,1\n"}, ["12", "34"], [0, 1]),
    "indices": ({"README.md": NAMED, "a.csv": CSV}, *BOTH),
    "names": ({"README.md": NAMED, "a.csv": b"text,label\nDull.,bad\nWarm.,Good\n"}, *BOTH),
    "tabbed": ({"README.md": TABBED, "a.csv": STRAY_TSV}, *STRAY),
    "packed": ({"train.csv.gz": gzip.compress(CSV)}, *BOTH),
    "field": ({"README.md": FIELD, "a.json": b'{"rows": ' + ARRAY + b"}"}, *BOTH),
    "lines": ({"a.json": b"\xef\xbb\xbf" + LINES}, *BOTH),
    "array": ({"a.json": b"\n" + ARRAY}, *BOTH),
    "several": ({"train-0.jsonl": LINES, "train-1.jsonl": b"", "train-2.jsonl": LINES}, BOTH[0] * 2, BOTH[1] * 2),
}  # fmt: skip


def test_text_of_the_hub_is_read_as_it_stands(hub, tmp_path):
    answers = ask(hub, tmp_path, {name: (files, "default", "train") for name, (files, *_) in AS_IT_STANDS.items()})
    for name, (_, texts, labels) in AS_IT_STANDS.items():
        assert (answers[name].get("texts"), answers[name].get("labels")) == (texts, labels), answers[name]
    assert answers["names"]["names"] == answers["indices"]["names"] == ["bad", "good"]
    assert answers["untyped"]["samples"] == ["007", "008", "010", "011", "012"]


def test_a_part_of_a_split_of_text_is_what_datasets_takes(hub, tmp_path):
    rows = b"text,label\n" + b"".join(b"sentence %d,%d\n" % (i, i % 2) for i in range(20))
    hub.push("datasets", "someone/parts", {"train.csv": rows}, "main")
    parts = ["train[2:4]", "train[-3:]", "train[:10%]", "train[15:99]", "train[:1]+train[5:6]", "train[1:x]"]
    asked = {"dataset_name": "someone/parts", "dataset_config": "default"}
    ours = run(hub.url, tmp_path, **{f"part{i}": of_other(**asked, dataset_split=part) for i, part in enumerate(parts)})
    wrong = ours.pop("part5")
    plain = f"""
import datasets
answer = [datasets.load_dataset("someone/parts", split=part)["text"][:] for part in {parts[:-1]}]
"""
    theirs = run(hub.url, tmp_path / "other", plain=plain)["plain"]
    assert [answer.get("texts") for answer in ours.values()] == theirs
    assert is_clear(wrong, "DataError", "there is no split 'train[1:x]'", "Unrecognized instruction format")


HALF = b'{"text": "fine", "label": 1}\n{"text": "good \\ud83d", "label": 0}'
LONG = b"7" * 5000
REFUSED = {
    "number": ({"a.jsonl": b'{"text": 123, "label": 1}'}, "a.jsonl, line 1: the sentence is 123, not text: write it"),
    "entry": ({"a.json": b'[{"text": "a", "label": 1}, {"text": 123}]'}, "a.json, entry 2: the sentence is 123, not"),
    "empty": ({"a.csv": b"text,label\nfine,1\n ,0\n"}, "a.csv, line 3: the sentence is empty"),
    "null": ({"a.jsonl": b'{"text": null, "label": 1}'}, "a.jsonl, line 1: the sentence is null, not text"),
    "half": ({"a.jsonl": HALF}, "a.jsonl, line 2: the sentence cannot be used: character 6 is \\ud83d, one half"),
    "half_entry": ({"a.json": b"[" + HALF.replace(b"\n", b",") + b"]"}, "a.json, entry 2: the sentence cannot be used"),
    "nul": ({"a.jsonl": b'{"text": "a\\u0000", "label": 1}'}, "a.jsonl, line 1: the sentence cannot be used: char"),
    "latin": ({"a.csv": b"text,label\ncaf\xe9,1\n"}, "/latin/a.csv, line 2: cannot be read: 'utf-8'"),
    "twice": ({"a.csv": b"text,label,label\na,0,1\n"}, "/twice/a.csv, line 1: has the columns 'label' and 'label'"),
    "twice_entry": ({"a.json": b'[{"text": "a", "label": 0, "label": 1}]'}, "/twice_entry/a.json: has the columns"),
    "digits": ({"a.jsonl": b'{"text": "a", "label": %s}' % LONG}, "/digits/a.jsonl, line 1: cannot be read: Exceeds"),
    "digits_text": ({"a.csv": b"text,label\na,0\nb,%s\n" % LONG}, "(5,000 characters) in a.csv, line 3)"),
    "swallowed": ({"a.csv": b'text,label\n"warm,1\ncold",0\n'}, "/swallowed/a.csv, line 2: a quotation mark opens"),
    "skipped": ({"README.md": SKIPPED, "a.csv": CSV}, "its card says how to read it (skiprows: 1, names: ['text'])"),
    "wide": ({"README.md": WIDE, "a.csv": CSV}, "its card says how to read it (sep: '::'), which is not done here"),
    "quote": ({"README.md": QUOTE, "a.csv": CSV}, "its card says how to read it (sep: '\"'), which is not done here"),
    "number_sep": ({"README.md": NUMBER, "a.csv": CSV}, "its card says how to read it (sep: 1), which is not"),
    "field": ({"README.md": FIELD, "a.json": ARRAY}, "/field/a.json: not an array of JSON objects under 'rows'"),
    "no_name": ({"README.md": NAMED, "a.csv": b"text,label\na,0\nb,2\n"}, "a.csv, line 3: label 2 has no name"),
    "zip": ({"train.csv.zip": b"PK"}, "train is kept in train.csv.zip; files that are read: .parquet"),
    "nothing": ({"a.csv": b"text,label\n"}, "someone/nothing/default/train@main is empty: it needs the columns"),
}  # fmt: skip


def test_text_of_the_hub_is_refused_as_local_text_is_by_file_and_line(hub, tmp_path):
    answers = ask(hub, tmp_path, {name: (files, "default", "train") for name, (files, _) in REFUSED.items()})
    for name, (_, why) in REFUSED.items():
        assert is_clear(answers[name], "DataError", f"someone/{name}", why)
        assert "delete" not in answers[name]["message"], "nothing is damaged"
        assert str(tmp_path) not in answers[name]["message"], "no folder of the cache"


def test_a_file_that_is_not_what_its_name_says_is_refused(hub, tmp_path):
    files = {
        "reviews": {"all.csv": b'text,label\n"never closed,1\n'},
        "packed": {"all.csv.gz": gzip.compress(CSV)[:-9]},
    }
    answers = ask(hub, tmp_path, {name: (content, "default", "train") for name, content in files.items()})
    assert is_clear(answers["reviews"], "DataError", "someone/reviews/all.csv, line 2: unexpected end of data")
    assert is_clear(answers["packed"], "HubError", "someone/packed", "cannot read", "delete")


def test_columns_that_the_files_do_not_have_are_named(hub, tmp_path):
    answers = ask(hub, tmp_path, {"reviews": (FILES | {"long/a.jsonl": b'{"review": "Dull."}\n'}, "long", "train")})
    assert is_clear(answers["reviews"], "DataError", "someone/reviews", "needs a column 'label'", "it has ['review']")
