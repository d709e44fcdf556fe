"""Text: what local files may look like, what is refused and how, and what the manifest says."""

from __future__ import annotations

import hashlib
import json

import pytest
from transformers import DistilBertTokenizerFast

from distilbench import data, embedded, hub, params, paths, revisions
from distilbench.errors import DataError, DistilbenchError

TOKENIZER = paths.repo_root() / "tests" / "data" / "tiny_tokenizer"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The lock of local files is in the cache: each test starts without one."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer():
    return DistilBertTokenizerFast.from_pretrained(TOKENIZER)


def load(file, content: str | bytes | None = None) -> data.TextSet:
    """Writes a file, unless there is nothing to write, and loads it as the study would."""
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = {"profile": "ci", "data_source": "local", "data_path": str(file)}
    return data.load_texts(params.resolve("distilbert", given).params)


def refused(file, content: str | bytes | None = None) -> str:
    """What is said about a file that cannot be used; the file is always named."""
    with pytest.raises(DataError) as raised:
        load(file, content)
    assert str(file) in str(raised.value)
    return str(raised.value).replace(str(file), file.name)


# ------------------------------------------------------------------ files that are fine

CSV = 'text,label\n"A warm film, truly.",positive\nDull.,Negative\n'
TSV = "sentence\tlabel\nA warm film, truly.\tpositive\nDull.\tnegative\n"
JSONL = '{"text": "A warm film, truly.", "label": "positive"}\n\n{"label": "negative", "text": "Dull."}\n'


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("some.csv", CSV, (2, 3)),
        ("some.csv", "\N{BYTE ORDER MARK}" + CSV.replace("\n", "\r\n"), (2, 3)),
        ("some.tsv", TSV, (2, 3)),
        ("some.jsonl", JSONL, (1, 3)),
        ("some.jsonl", JSONL.replace("\n", "\r\n").rstrip(), (1, 3)),
    ],
    ids=["csv", "csv of a spreadsheet", "tsv", "jsonl", "jsonl without a last newline"],
)
def test_local_files_of_each_kind(tmp_path, name, content, lines):
    texts = load(tmp_path / name, content)
    assert texts.samples == [f"some-{line}" for line in lines]
    assert texts.texts == ["A warm film, truly.", "Dull."]
    assert texts.labels == [1, 0]
    assert texts.label_names == ("negative", "positive")
    assert texts.key == f"data local {tmp_path / name}"
    assert texts.about["source"] == "local"


def test_labels_0_and_1_mean_what_they_mean_in_sst2(tmp_path):
    texts = load(tmp_path / "some.csv", "text,label\nDull.,0\nWarm.,1\nWarm again.,1\n")
    assert texts.labels == [0, 1, 1]
    assert texts.label_names == ("negative", "positive")
    assert load(tmp_path / "one.jsonl", '{"text": "Warm.", "label": 1}\n').labels == [1]


def test_labels_are_names_in_any_case_sorted(tmp_path):
    texts = load(tmp_path / "some.tsv", "text\tlabel\na\tWorld\nb\t sports \nc\tBusiness\nd\tWORLD\n")
    assert texts.label_names == ("business", "sports", "world")
    assert texts.labels == [2, 1, 0, 2]


def test_a_json_sentence_may_hold_a_line_separator(tmp_path):
    """U+2028 ends a line for `str.splitlines`, but not in JSON."""
    texts = load(tmp_path / "some.jsonl", '{"text": "one\u2028line", "label": 0}\n{"text": "b", "label": 1}\n')
    assert texts.texts == ["one\u2028line", "b"]


def test_a_path_relative_to_the_checkout_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"profile": "ci", "data_path": "tests/data/tiny_reviews.tsv"}
    texts = data.load_texts(params.resolve("distilbert", given).params)
    assert len(texts.texts) == 80
    assert sum(texts.labels) == 40


# ------------------------------------------------------------------ files that are not


@pytest.mark.parametrize("name", ["empty.csv", "empty.tsv", "empty.jsonl"])
def test_an_empty_file_is_refused(tmp_path, name):
    assert f"{name} is empty: it needs a header with 'text' and 'label'" in refused(tmp_path / name, "")


def test_a_header_alone_is_refused(tmp_path):
    assert "is empty" in refused(tmp_path / "some.csv", "text,label\n")


@pytest.mark.parametrize(
    ("name", "content", "line", "why"),
    [
        ("a.tsv", "text\tlabel\nfine\t1\nno label\n", 3, "another number of columns"),
        ("a.csv", "text,label\nfine,1\none, two,1\n", 3, "another number of columns"),
        ("a.csv", 'text,label\nfine,1\n"quoted" badly,1\n', 3, "expected after"),
        ("a.csv", 'text,label\nfine,1\n"never closed,1\n', 3, "unexpected end"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"', 2, "not JSON"),
        ("a.jsonl", '{"text": "a", "label": 1}\n\n[1, 2]\n', 3, "not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', 2, "the label is empty"),
        ("a.jsonl", '{"text": "a", "label": null}\n', 1, "the label is empty"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"label": 0}\n', 2, "the sentence is empty"),
        ("a.jsonl", '{"text": 7, "label": 1}\n', 1, "the sentence is empty"),
        ("a.csv", "text,label\nfine,1\n  ,0\n", 3, "the sentence is empty"),
        ("a.csv", "text,label\nfine,1\nfine too, \n", 3, "the label is empty"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, content, line, why):
    message = refused(tmp_path / name, content)
    assert f"{name}, line {line}: " in message
    assert why in message


@pytest.mark.parametrize(
    ("content", "has"),
    [("review,label\na,1\n", "['label', 'review']"), ("text,stars\na,1\n", "['stars', 'text']"), ("a\nb\n", "['a']")],
)
def test_missing_columns_are_refused_and_those_there_are_named(tmp_path, content, has):
    message = refused(tmp_path / "some.csv", content)
    assert "needs a column 'label' and one of ('text', 'sentence')" in message
    assert f"it has {has}" in message


@pytest.mark.parametrize(("name", "ending"), [("some.txt", "'.txt'"), ("some", "a file without an ending")])
def test_an_unknown_ending_is_refused_and_the_known_ones_are_named(tmp_path, name, ending):
    message = refused(tmp_path / name, TSV)
    assert "allowed are .csv, .tsv, .jsonl" in message
    assert ending in message


@pytest.mark.parametrize("name", ["some.csv", "some.jsonl"])
def test_a_file_that_is_not_utf8_is_refused(tmp_path, name):
    assert "cannot be read: 'utf-8'" in refused(tmp_path / name, "text,label\ncaf\xe9,1\n".encode("latin-1"))


def test_a_folder_is_not_a_file(tmp_path):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "cannot be read: " in refused(folder)


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DistilbenchError, match=r"there is no 'absent.tsv': looked in the working directory"):
        data.load_texts(params.resolve("distilbert", {"profile": "ci", "data_path": "absent.tsv"}).params)


def test_integer_labels_beyond_0_and_1_are_refused(tmp_path):
    message = refused(tmp_path / "some.csv", "text,label\na,0\nb,2\nc,-1\nd,positive\n")
    assert "labels must be names, or 0 and 1; it has -1, 0, 2" in message


def test_a_single_label_is_refused(tmp_path):
    assert "all labels are 'good'; a classifier needs at least two" in refused(
        tmp_path / "some.csv", "text,label\na,good\nb,Good\n"
    )


# ------------------------------------------------------------------ the same text as before


def test_changed_content_is_refused_and_both_hashes_are_named(tmp_path):
    file = tmp_path / "some.csv"
    before, again = load(file, CSV), load(file)
    assert before.content_sha256() == again.content_sha256()
    message = refused(file, CSV.replace("Dull.", "Dull!"))
    assert before.content_sha256() in message
    changed = data.TextSet(before.samples, [before.texts[0], "Dull!"], before.labels, before.label_names, before.about)
    assert changed.content_sha256() in message
    assert str(revisions.local_lock()) in message, "and where the first one is recorded"
    assert load(file, CSV).texts == before.texts, "the first text is still accepted"


def test_the_content_hash_is_of_ids_labels_and_texts_in_order():
    texts = data.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 0], ("negative", "positive"), {})
    by_hand = "negative\tpositive\na\t1\tWarm.\nb\t0\tDull.\n"
    assert texts.content_sha256() == hashlib.sha256(by_hand.encode()).hexdigest()
    for other in (
        data.TextSet(["a", "c"], ["Warm.", "Dull."], [1, 0], ("negative", "positive"), {}),
        data.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 1], ("negative", "positive"), {}),
        data.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 0], ("bad", "good"), {}),
        data.TextSet(["b", "a"], ["Dull.", "Warm."], [0, 1], ("negative", "positive"), {}),
    ):
        assert other.content_sha256() != texts.content_sha256()


def test_a_source_without_sentences_is_refused(monkeypatch):
    monkeypatch.setattr(embedded, "movie_sentences", list)
    with pytest.raises(DataError, match="holds no sentences"):
        data.load_texts(params.resolve("distilbert", {"profile": "ci", "data_source": "embedded"}).params)


@pytest.mark.embedded
def test_the_embedded_text_is_the_validation_split_and_is_locked(monkeypatch):
    monkeypatch.delenv("DISTILBENCH_CACHE")
    given = params.resolve("distilbert", {"profile": "ci", "data_source": "embedded"}).params
    texts = data.load_texts(given)
    assert len(texts.texts) == 1027
    assert all(embedded.split_of(text) == "validation" for text in texts.texts)
    assert texts.about["package_sha256"] == embedded.VADER.sha256
    assert "MIT" in texts.about["licence"]
    assert "Hutto" in texts.about["citation"]
    committed = revisions.read(paths.repo_root() / "params" / "revisions.lock")
    assert committed[texts.key] == {"sha256": texts.content_sha256()}
    assert revisions.read(revisions.shared_lock()) == {texts.key: {"sha256": texts.content_sha256()}}


# ------------------------------------------------------------------ the hub's shape of data (the hub itself: test_hub)


class Rows(dict):
    """As much of a `datasets.Dataset` as is used."""

    class Names:
        names = ("negative", "positive")

    column_names = property(lambda self: list(self))
    features = property(lambda self: {"label": self.Names() if "idx" in self else None})

    def __len__(self):
        return len(self["label"])


def from_hub(rows: Rows, monkeypatch) -> data.TextSet:
    monkeypatch.setattr(hub, "fetch_dataset", lambda *_: (rows, "c" * 40))
    return data.load_texts(params.resolve("distilbert", {"profile": "ci", "data_source": "hub"}).params)


def test_a_hub_data_set_is_recorded_with_its_commit(monkeypatch):
    rows = Rows(idx=[5, 9], sentence=["a warm film ", "dull "], label=[1, 0])
    texts = from_hub(rows, monkeypatch)
    assert texts.samples == ["5", "9"]
    assert texts.texts == ["a warm film", "dull"]
    assert texts.label_names == ("negative", "positive")
    (entry,) = revisions.read(revisions.shared_lock()).values()
    assert entry == {"sha256": texts.content_sha256(), "commit": "c" * 40}


def test_a_hub_data_set_without_ids_or_names_gets_them(monkeypatch):
    texts = from_hub(Rows(text=["warm", "dull"], label=[1, 0]), monkeypatch)
    assert texts.samples == ["0", "1"]
    assert texts.label_names == ("negative", "positive")


def test_withheld_labels_are_refused(monkeypatch):
    with pytest.raises(DataError, match="withheld"):
        from_hub(Rows(text=["warm", "dull"], label=[-1, -1]), monkeypatch)


# ------------------------------------------------------------------ tokens and manifest


def test_tokens_are_neither_cut_nor_padded(tokenizer):
    """What is cut is counted, and that needs the whole length; batches cut."""
    short, long = data.tokenise(tokenizer, ["film", "film " * 600])
    assert len(short) == 3
    assert len(long) == 602
    assert (long[0], long[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_the_manifest_says_what_the_text_is(tmp_path, tokenizer):
    sentences = ["film", "A warm film.", "It was bright.", "film " * 38]  # 3, 6, 6 and 40 tokens with [CLS] and [SEP]
    sentences.append("Two hours of warm scenes that nobody in the audience will forget before the lights go on again.")
    rows = [{"text": text, "label": int(i > 1)} for i, text in enumerate(sentences)]  # the last one has 21
    texts = load(tmp_path / "some.jsonl", "\n".join(map(json.dumps, rows)))
    manifest = data.manifest(texts, tokenizer)
    assert manifest["tokens"] == {
        "mean": 15.2,
        "p50": 6,
        "p90": 40,
        "p95": 40,
        "p99": 40,
        "min": 3,
        "max": 40,
        "share_over": {"32": 0.2, "64": 0.0, "128": 0.0, "512": 0.0},
    }
    assert manifest["rows"] == 5
    assert manifest["labels"] == {"negative": 2, "positive": 3}
    assert manifest["name"] == "some.jsonl"
    assert manifest["source"] == "local"
    assert manifest["revision"] is None
    assert manifest["content_sha256"] == texts.content_sha256()
    assert manifest["tokenizer"] == type(tokenizer).__name__
    assert {"schema_version", "licence", "citation", "key", *data.MANIFEST_HASHES} <= set(manifest)
    json.dumps(manifest)


def test_a_label_that_does_not_occur_counts_0(tmp_path, tokenizer):
    texts = load(tmp_path / "some.csv", "text,label\nWarm.,1\n")
    assert data.manifest(texts, tokenizer)["labels"] == {"negative": 0, "positive": 1}


def test_the_tokenizer_hash_ignores_padding_and_truncation_but_not_the_vocabulary(tmp_path, tokenizer):
    before = data.tokenizer_sha256(tokenizer)
    tokenizer(["a", "a warm film"], padding=True, truncation=True, max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=128)
    tokenizer.backend_tokenizer.enable_truncation(64)
    assert data.tokenizer_sha256(tokenizer) == before
    for file in TOKENIZER.iterdir():
        content = file.read_text()
        (tmp_path / file.name).write_text(content.replace('"tedious"', '"enticing"'))
    assert data.tokenizer_sha256(DistilBertTokenizerFast.from_pretrained(tmp_path)) != before
