"""Text: what local files may look like, what is refused and how, and what the manifest says."""

from __future__ import annotations

import hashlib
import json
import os

import datasets
import pytest
from transformers import DistilBertTokenizerFast

from distilbench import paths, studies
from distilbench.errors import DataError, DistilbenchError, ParameterError
from distilbench.sources import hub, movies, repositories, revisions
from distilbench.sources import texts as sources_texts
from distilbench.sources.embedded_text import split_of

TOKENIZER = paths.repo_root() / "tests" / "data" / "tiny_tokenizer"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The lock of local files is in the cache: each test starts without one."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer():
    return DistilBertTokenizerFast.from_pretrained(TOKENIZER)


def load(file, content: str | bytes | None = None) -> sources_texts.TextSet:
    """Writes a file, unless there is nothing to write, and loads it as the study would."""
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = {"profile": "ci", "data_source": "local", "data_path": str(file)}
    return sources_texts.load_texts(studies.resolve("distilbert", given).params)


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
    texts = sources_texts.load_texts(studies.resolve("distilbert", given).params)
    assert len(texts.texts) == 80
    assert sum(texts.labels) == 40


# ------------------------------------------------------------------ files that are not


@pytest.mark.parametrize("name", ["empty.csv", "empty.tsv", "empty.jsonl"])
def test_an_empty_file_is_refused(tmp_path, name):
    assert f"{name} is empty: it needs the columns 'text' and 'label', and a sentence per row" in refused(
        tmp_path / name, ""
    )


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
        ("a.jsonl", '{"text": "a", "label": 1}\n{"label": 0}\n', 2, "has no 'text'; it has ['label']"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"sentence": "b", "label": 0}\n', 2, "has no 'text'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "sentence": "c", "label": 0}\n', 2, "has both of"),
        ("a.jsonl", '{"text": 7, "label": 1}\n', 1, "the sentence is 7, not text: write it in quotation marks"),
        ("a.jsonl", '{"text": null, "label": 1}\n', 1, "the sentence is null, not text"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', 1, "the label is empty"),
        ("a.jsonl", '{"text": "a", "label": ["good"]}\n', 1, "a label must be a name, or 0 or 1, not ['good']"),
        (
            "a.jsonl",
            '{"text": "good \\ud83d", "label": 1}\n',
            1,
            "character 6 is \\ud83d, one half of a surrogate",
        ),
        ("a.jsonl", '{"text": "good", "label": "\\udfff"}\n', 1, "the label cannot be used: character 1 is \\udfff"),
        ("a.jsonl", '{"text": "good\\u0000", "label": 1}\n', 1, "character 5 is NUL"),
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
        sources_texts.load_texts(studies.resolve("distilbert", {"profile": "ci", "data_path": "absent.tsv"}).params)


@pytest.mark.parametrize(
    ("labels", "has"),
    [
        (("0", "2", "-1", "positive"), "-1, 0, 2 (-1 in line 4) beside the name 'positive'"),
        (("0.25", "0.75"), "0.25, 0.75 (0.25 in line 2)"),
        (("good", "nan"), "nan (nan in line 3) beside the name 'good'"),
        (("good", "0"), "0 (0 in line 3) beside the name 'good'"),
        (tuple(map(str, range(20))), "0, 1, 10, 11, 12, 13, 14, 15 and 12 more (10 in line 12)"),
        (("0", "7" * 5000), f"0, {'7' * 40}… (5,000 characters) ({'7' * 40}… (5,000 characters) in line 3)"),
    ],
    ids=["whole", "shares", "not a number", "beside a name", "many", "long"],
)
def test_numbers_other_than_0_and_1_are_no_labels(tmp_path, labels, has):
    content = "text,label\n" + "".join(f"a,{label}\n" for label in labels)
    message = refused(tmp_path / "some.csv", content)
    assert f"labels must be names, or 0 and 1; it has {has}. Which class" in message


def test_a_sentence_of_digits_is_text(tmp_path):
    assert load(tmp_path / "some.csv", "text,label\n7,1\n").texts == ["7"]
    assert load(tmp_path / "some.jsonl", '{"text": "7", "label": 1}\n').texts == ["7"]


def test_two_columns_of_sentences_are_refused(tmp_path):
    message = refused(tmp_path / "some.csv", "text,sentence,label\na,b,1\n")
    assert "has both of ('text', 'sentence'); leave the one with the sentences" in message


def test_labels_may_stand_in_a_column_of_that_name_and_be_numbered(tmp_path):
    found = load(tmp_path / "some.csv", "text,labels,label_id\na,toys,7\nb,books,3\nc,Toys,7\nd,books,\n")
    assert (found.label_names, found.labels) == (("books", "toys"), [1, 0, 1, 0]), "by name, never by number"
    assert found.numbers == {"toys": "7", "books": "3"}
    assert load(tmp_path / "plain.csv", "text,labels\na,toys\nb,books\n").numbers == {}
    message = refused(tmp_path / "both.csv", "text,label,labels\na,b,c\n")
    assert "has both of ('label', 'labels'); leave the one with the labels" in message


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,toys,7\nb,books,7\n", "line 3: label 'books' has label_id 7, but 'books' is 7 elsewhere, and 7 is 'toys'"),
        ("a,toys,7\nb,books,3\nc,toys,8\n", "line 4: label 'toys' has label_id 8, but 'toys' is 7 elsewhere"),
    ],
)
def test_labels_that_are_numbered_in_two_ways_are_refused(tmp_path, rows, said):
    assert said in refused(tmp_path / "some.csv", f"text,labels,label_id\n{rows}")


def test_of_a_large_text_as_many_sentences_are_drawn_as_workers_can_hold(tmp_path, monkeypatch, tokenizer):
    few = load(tmp_path / "few.csv", "text,label\n" + "".join(f"sentence {i},{i % 2}\n" for i in range(40)))
    assert few.drawn(3) is few
    whole = sources_texts.manifest(few, tokenizer)
    monkeypatch.setattr(sources_texts, "MOST_SENTENCES", 10)
    drawn = few.drawn(3)
    assert drawn.texts == few.drawn(3).texts != few.drawn(4).texts
    assert len(set(drawn.samples)) == len(drawn.texts) == len(drawn.labels) == 10
    for sample, text, label in zip(drawn.samples, drawn.texts, drawn.labels, strict=True):
        at = few.samples.index(sample)
        assert (text, label) == (few.texts[at], few.labels[at])
    assert sources_texts.manifest(few, tokenizer) == whole | {"drawn": 10}, "the manifest is of all sentences"


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.csv")
    file.write_text(CSV)
    with pytest.raises(ParameterError, match="this name is not UTF-8; rename the file"):
        load(file)


def test_two_sentences_of_one_id_are_refused(monkeypatch):
    twice = [("movie-7", "Warm.", 1, "validation"), ("movie-7", "Dull.", 0, "validation")]
    monkeypatch.setattr(movies, "sentences", lambda: twice)
    with pytest.raises(DataError, match="two sentences have the id 'movie-7'; ids must be unique"):
        sources_texts.load_texts(studies.resolve("distilbert", {"profile": "ci", "data_source": "embedded"}).params)


def test_blanks_around_a_sentence_are_removed_and_counted(tmp_path, tokenizer):
    texts = load(tmp_path / "some.csv", "text,label\nWarm.,1\n Dull. ,0\nLong.\N{NO-BREAK SPACE},0\n")
    assert texts.texts == ["Warm.", "Dull.", "Long."]
    assert sources_texts.manifest(texts, tokenizer)["sentences_trimmed"] == 2


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
    changed = sources_texts.TextSet(
        before.samples, [before.texts[0], "Dull!"], before.labels, before.label_names, before.about
    )
    assert changed.content_sha256() in message
    assert str(revisions.local_lock()) in message, "and where the first one is recorded"
    assert load(file, CSV).texts == before.texts, "the first text is still accepted"


def test_the_content_hash_is_of_ids_labels_and_texts_in_order():
    texts = sources_texts.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 0], ("negative", "positive"), {})
    by_hand = "negative\tpositive\na\t1\tWarm.\nb\t0\tDull.\n"
    assert texts.content_sha256() == hashlib.sha256(by_hand.encode()).hexdigest()
    for other in (
        sources_texts.TextSet(["a", "c"], ["Warm.", "Dull."], [1, 0], ("negative", "positive"), {}),
        sources_texts.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 1], ("negative", "positive"), {}),
        sources_texts.TextSet(["a", "b"], ["Warm.", "Dull."], [1, 0], ("bad", "good"), {}),
        sources_texts.TextSet(["b", "a"], ["Dull.", "Warm."], [0, 1], ("negative", "positive"), {}),
    ):
        assert other.content_sha256() != texts.content_sha256()


def test_a_source_without_sentences_is_refused(monkeypatch):
    monkeypatch.setattr(movies, "sentences", list)
    with pytest.raises(DataError, match="holds no sentences"):
        sources_texts.load_texts(studies.resolve("distilbert", {"profile": "ci", "data_source": "embedded"}).params)


@pytest.mark.embedded
def test_the_embedded_text_is_the_validation_split_and_is_locked(monkeypatch):
    monkeypatch.delenv("DISTILBENCH_CACHE")
    given = studies.resolve("distilbert", {"profile": "ci", "data_source": "embedded"}).params
    texts = sources_texts.load_texts(given)
    assert len(texts.texts) == 1027
    assert all(split_of(text) == "validation" for text in texts.texts)
    assert texts.about["package_sha256"] == movies.VADER.sha256
    assert "MIT" in texts.about["licence"]
    assert "Hutto" in texts.about["citation"]
    committed = revisions.read(paths.repo_root() / "params" / "revisions.lock")
    assert committed[texts.key] == {"sha256": texts.content_sha256()}
    assert revisions.read(revisions.shared_lock()) == {texts.key: {"sha256": texts.content_sha256()}}


# ------------------------------------------------------------------ the hub's shape of data (the hub itself: test_hub)


def from_hub(rows: dict, monkeypatch, names: tuple[str, ...] = (), **given) -> sources_texts.TextSet:
    """What the study reads of a data set with these columns."""
    found = datasets.Dataset.from_dict(rows)
    if names:
        found = found.cast_column("label", datasets.ClassLabel(names=list(names)))
    monkeypatch.setattr(
        hub,
        "fetch_dataset",
        lambda *_: hub.Split(repositories.table_of(found, "this"), "c" * 40, "CC0", "Someone (2026)"),
    )
    return sources_texts.load_texts(
        studies.resolve("distilbert", {"profile": "ci", "data_source": "hub"} | given).params
    )


def test_a_hub_data_set_is_recorded_with_its_commit(monkeypatch):
    rows = {"idx": [5, 9], "sentence": ["a warm film ", "dull "], "label": [1, 0]}
    texts = from_hub(rows, monkeypatch, names=("negative", "positive"))
    assert texts.samples == ["5", "9"]
    assert texts.texts == ["a warm film", "dull"]
    assert texts.label_names == ("negative", "positive")
    (entry,) = revisions.read(revisions.shared_lock()).values()
    assert entry == {"sha256": texts.content_sha256(), "commit": "c" * 40}


def test_a_hub_data_set_without_ids_or_names_gets_them(monkeypatch):
    texts = from_hub({"text": ["warm", "dull"], "label": [1, 0]}, monkeypatch)
    assert texts.samples == ["0", "1"]
    assert texts.label_names == ("negative", "positive")


@pytest.mark.parametrize("idx", [[7, 7], [None, None], [{"question": 1}, {"question": 1}]])
def test_ids_that_are_not_unique_are_not_taken(monkeypatch, idx):
    assert from_hub({"idx": idx, "text": ["warm", "dull"], "label": [1, 0]}, monkeypatch).samples == ["0", "1"]


def test_withheld_labels_are_refused(monkeypatch):
    with pytest.raises(DataError, match="withheld"):
        from_hub({"text": ["warm", "dull"], "label": [-1, -1]}, monkeypatch, names=("negative", "positive"))


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["warm", None], "row 1: the sentence is null, not text: write it in quotation marks"),
        (["warm", " "], "row 1: the sentence is empty"),
        ([123, 2], "row 0: the sentence is 123, not text: write it in quotation marks"),
        ([b"warm", b"dull"], "row 0: the sentence is \"b'warm'\", not text"),
        (["warm", "du\0ll"], "row 1: the sentence cannot be used: character 3 is NUL"),
    ],
    ids=["null", "blank", "numbers", "bytes", "NUL"],
)
def test_a_hub_sentence_that_is_none_is_refused_and_its_row_named(monkeypatch, texts, why):
    with pytest.raises(DataError) as raised:
        from_hub({"text": texts, "label": [1, 0]}, monkeypatch)
    assert f"data nyu-mll/glue/sst2/validation@main, {why}" in str(raised.value)


def test_a_hub_data_set_without_rows_is_refused(monkeypatch):
    with pytest.raises(DataError, match="sst2/validation@main is empty: it needs the columns 'text' and 'label'"):
        from_hub({"text": [], "label": []}, monkeypatch)


def test_columns_of_the_hub_that_cannot_be_told_apart_are_refused(monkeypatch):
    with pytest.raises(DataError, match="has the columns 'label' and 'Label', which cannot be told apart"):
        from_hub({"text": ["warm", "dull"], "label": [1, 0], "Label": [0, 1]}, monkeypatch)


def test_licence_and_citation_are_those_of_the_data_set(monkeypatch):
    rows = {"text": ["warm", "dull"], "label": [1, 0]}
    other = from_hub(rows, monkeypatch, dataset_name="someone/reviews", dataset_config="default").about
    assert (other["licence"], other["citation"]) == ("CC0", "Someone (2026)")
    assert other["name"] == "someone/reviews default, validation split"
    of_glue = from_hub(rows, monkeypatch, dataset_config="cola").about
    assert (of_glue["licence"], of_glue["citation"]) == ("CC0", "Someone (2026)")
    own = from_hub(rows, monkeypatch).about
    assert "GLUE" in own["licence"]
    assert "Socher" in own["citation"]


# ------------------------------------------------------------------ tokens and manifest


def test_tokens_are_neither_cut_nor_padded(tokenizer):
    """What is cut is counted, and that needs the whole length; batches cut."""
    short, long = sources_texts.tokenise(tokenizer, ["film", "film " * 600])
    assert len(short) == 3
    assert len(long) == 602
    assert (long[0], long[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_the_manifest_says_what_the_text_is(tmp_path, tokenizer):
    sentences = ["film", "A warm film.", "It was bright.", "film " * 38]  # 3, 6, 6 and 40 tokens with [CLS] and [SEP]
    sentences.append("Two hours of warm scenes that nobody in the audience will forget before the lights go on again.")
    rows = [{"text": text, "label": int(i > 1)} for i, text in enumerate(sentences)]  # the last one has 21
    texts = load(tmp_path / "some.jsonl", "\n".join(map(json.dumps, rows)))
    manifest = sources_texts.manifest(texts, tokenizer)
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
    assert {"schema_version", "licence", "citation", "key", *sources_texts.MANIFEST_HASHES} <= set(manifest)
    json.dumps(manifest)


def test_a_label_that_does_not_occur_counts_0(tmp_path, tokenizer):
    texts = load(tmp_path / "some.csv", "text,label\nWarm.,1\n")
    assert sources_texts.manifest(texts, tokenizer)["labels"] == {"negative": 0, "positive": 1}


def test_the_tokenizer_hash_ignores_padding_and_truncation_but_not_the_vocabulary(tmp_path, tokenizer):
    before = sources_texts.tokenizer_sha256(tokenizer)
    tokenizer(["a", "a warm film"], padding=True, truncation=True, max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=128)
    tokenizer.backend_tokenizer.enable_truncation(64)
    assert sources_texts.tokenizer_sha256(tokenizer) == before
    for file in TOKENIZER.iterdir():
        content = file.read_text()
        (tmp_path / file.name).write_text(content.replace('"tedious"', '"enticing"'))
    assert sources_texts.tokenizer_sha256(DistilBertTokenizerFast.from_pretrained(tmp_path)) != before
