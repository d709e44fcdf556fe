"""The qwen study's hub: a fine-tuned checkpoint, whole or as an adapter, and reviews with named, numbered labels."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import tiny_qwen
from hub_user import run
from loopback_hub import LoopbackHub

MODEL, BASE, DATA = "codefactory4791/intent-classification-qwen", "Qwen/Tiny-Instruct", "codefactory4791/amazon_test"
LABELS = tuple(f"category {letter}" for letter in "abcdefghijklmnopqrstuvw")  # 23, in the order of the model's logits
LOOK = """
from distilbench import studies
from distilbench.sources import labels, models, quick, texts, tokenizers
params = studies.resolve("qwen", {"profile": "full"} | GIVEN).params
found, tokenizer = texts.load_texts(params), tokenizers.load_tokenizer(params)
info, text, rows = quick.classify(params, 3)
meaning = models.match_labels(info.label_names, found.label_names)
answer = {
    "name": info.name, "revision": info.revision, "names": info.label_names, "text": text, "rows": rows,
    "data": found.label_names, "meaning": meaning, "numbers": found.numbers, "texts": found.texts,
    "end": tokenizer.convert_tokens_to_ids("the"),
    "mappings": labels.mappings(info.label_names, found.label_names, found.numbers),
}
"""


def look(**given: str) -> str:
    return f"GIVEN = {given!r}\n{LOOK}"


def reviews(names: tuple[str, ...] = LABELS, number=lambda i: 22 - i) -> dict[str, bytes]:
    """A csv as the data set has it: text, labels (a name), label_id; numbered otherwise than the model's logits."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["text", "labels", "label_id"])
    for i, name in enumerate(names * 2):
        writer.writerow([f'the "best" thing, number {i}:\nreally', name, number(i % len(names))])
    return {"README.md": b"# reviews", "amazon_test.csv": table.getvalue().encode()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The repositories: a merged checkpoint, its base, and an adapter on it."""
    folder = tmp_path_factory.mktemp("qwen")
    tiny_qwen.classifier(LABELS, pad_token_id=None).save_pretrained(folder / "merged")
    tiny_qwen.save_tokenizer(folder / "merged")
    base = tiny_qwen.save_base(folder / "base")
    tiny_qwen.save_adapter(folder / "adapter", base, len(LABELS), named_base=BASE)
    names = {"id2label": {str(i): name.upper() for i, name in enumerate(LABELS)}}
    (folder / "adapter" / "label_mappings.json").write_text(json.dumps(names))
    return {name: files_of(folder / name) for name in ("merged", "base", "adapter")}


@pytest.fixture
def hub():
    with LoopbackHub() as running:
        running.push("datasets", DATA, reviews(), "main")
        yield running


def test_a_merged_checkpoint_and_reviews_are_read_as_they_are(hub, made, tmp_path):
    commit = hub.push("models", MODEL, made["merged"], "main")
    found = run(hub.url, tmp_path, look=look())["look"]
    assert (found["name"], found["revision"]) == (MODEL, commit)
    assert len(found["texts"]) == 46
    assert found["texts"][0] == 'the "best" thing, number 0:\nreally'
    assert found["text"] == f"{DATA} default, only split"
    assert found["names"] == found["data"] == list(LABELS)
    assert found["meaning"] == list(range(23))
    assert found["numbers"] == {name: str(22 - i) for i, name in enumerate(LABELS)}
    assert found["mappings"]["labels"][1] == {"label": "category b", "index": 1, "model_class": 1, "number": "21"}
    assert found["mappings"]["id2label"]["22"] == "category w"
    assert [set(row) for row in found["rows"]] == [{"text", "label", "predicted", "probability"}] * 3
    assert all(row["predicted"] in LABELS and 1 / 23 <= row["probability"] <= 1 for row in found["rows"])


def test_an_adapter_is_merged_into_the_base_that_it_names(hub, made, tmp_path):
    hub.push("models", BASE, made["base"], "main")
    commit = hub.push("models", MODEL, made["adapter"], "main")
    answers = run(hub.url, tmp_path, look=look(), again=look())
    found = answers["look"]
    assert (found["name"], found["revision"]) == (f"{MODEL} (adapter, merged into {BASE})", commit)
    assert found["names"] == [name.upper() for name in LABELS]
    assert found["meaning"] == list(range(23)), "by name, whatever the case"
    assert found["end"] == 258, "the tokenizer is its base's"
    assert answers["again"] == found
    offline = run(hub.url, tmp_path, {"HF_HUB_OFFLINE": "1"}, look=look())["look"]
    assert offline == found


WRONG = {  # reviews that cannot be used, and what is said of them
    "unknown": (reviews(("other", *LABELS[1:])), ["only the model has 'category a'; only the data has 'other'"]),
    "fewer": (reviews(LABELS[:-1]), ["only the model has 'category w'", "(the model has 23, the data 22)"]),
    "more": (reviews((*LABELS, "one more")), ["only the data has 'one more'", "(the model has 23, the data 24)"]),
    "numbers": (reviews(number=lambda i: 0), ["line 4: label 'category b' has label_id 0", "0 is 'category a'"]),
    "splits": (
        {"test.csv": reviews()["amazon_test.csv"], "train.csv": b"text,labels\na,b\n"},
        ["there is no split 'only'; it has: train, test"],
    ),
}


def test_labels_that_have_no_counterpart_and_other_mistakes_are_named(hub, made, tmp_path):
    hub.push("models", MODEL, made["merged"], "main")
    for name, (files, _) in WRONG.items():
        hub.push("datasets", f"someone/{name}", files, "main")
    answers = run(hub.url, tmp_path, **{name: look(dataset_name=f"someone/{name}") for name in WRONG})
    for name, (_, said) in WRONG.items():
        assert [words for words in said if words not in answers[name]["message"]] == [], answers[name]
    assert {answers[name]["error"] for name in ("unknown", "fewer", "more")} == {"ModelError"}
    assert {answers[name]["error"] for name in ("numbers", "splits")} == {"DataError"}
