import pytest
import training_rows

from distilbench.errors import DataError
from distilbench.sources import four_sources
from distilbench.sources.batches import Padding
from distilbench.training import corpus
from distilbench.training.corpus import Rows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    return corpus.prepare(training_rows.params(folder), folder / "prepared")


def test_all_splits_are_prepared_and_none_has_rows_of_another(prepared):
    rows = {split: prepared.rows(split) for split in corpus.SPLITS}
    assert len(rows["train"]) + len(rows["validation"]) == training_rows.TRAIN
    assert 15 < len(rows["validation"]) < 50, "about a fifth, by a hash"
    assert len(rows["test"]) == training_rows.TEST
    assert not set(rows["train"].samples) & set(rows["validation"].samples)
    assert prepared.label_names == sorted(training_rows.WORDS)
    assert prepared.data["splits"]["train"]["rows"] == len(rows["train"])
    assert sum(prepared.data["splits"]["test"]["labels"].values()) == training_rows.TEST
    assert len(prepared.data["content_sha256"]) == 64
    assert (prepared.tokenizer / "tokenizer.json").is_file()


def test_texts_that_differ_in_case_only_are_on_one_side(tmp_path):
    texts = corpus.texts.TextSet(
        ["a", "b", "c"], ["A Text!", "a text", "another"], [0, 1, 0], ("x", "y"), {"name": "n", "key": "k"}
    )
    splits = corpus.carve(texts, 0.5)
    assert any({"a", "b"} <= set(split.samples) for split in splits.values())
    assert sorted(row for split in splits.values() for row in split.samples) == ["a", "b", "c"]


def test_a_batch_is_padded_to_its_longest_row_and_what_fills_up_weighs_nothing():
    rows = Rows([[1, 5, 6, 2], [1, 7, 2]], [0, 3], ["a", "b"], Padding(9, False, 1))
    batch = rows.collate([rows[0], rows[1], rows[~1]])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, 2, 9], [1, 7, 2, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [0, 3, 3]
    assert batch["weights"].tolist() == [1, 1, 0]
    left = Rows(rows.token_ids, rows.labels, rows.samples, Padding(9, True, 1))
    assert left.collate([left[0], left[1]])["input_ids"].tolist() == [[1, 5, 6, 2], [9, 1, 7, 2]]


def test_a_row_that_is_cut_keeps_its_end():
    rows = Rows([[1, 5, 6, 7, 2]], [0], ["a"], Padding(0, False, 1)).at_most(3)
    assert rows.token_ids == [[1, 5, 2]]


def test_fewer_rows_are_drawn_with_a_seed(tmp_path):
    chosen = [
        corpus.load_splits(training_rows.params(tmp_path, train_rows=20, seed=seed))["train"].samples
        for seed in (1, 1, 2)
    ]
    assert [len(rows) for rows in chosen] == [20, 20, 20]
    assert chosen[0] == chosen[1] != chosen[2]
    whole = corpus.load_splits(training_rows.params(tmp_path, train_rows=10**6))["train"]
    assert len(whole.texts) > 100


def test_labels_are_matched_by_name(tmp_path):
    training_rows.settings(tmp_path)
    few = tmp_path / "few.tsv"
    few.write_text("text\tlabel\nthe team won 1\tSports\nthe bank sold 2\tBusiness\n", encoding="utf-8")
    splits = corpus.load_splits(training_rows.params(tmp_path, test_path=str(few)))
    names = splits["train"].label_names
    assert [names[label] for label in splits["test"].labels] == ["sports", "business"]
    other = tmp_path / "other.tsv"
    other.write_text("text\tlabel\nrain 1\tWeather\nthe team won 1\tSports\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has the class 'weather'; .* has business, sci/tech, sports, world"):
        corpus.load_splits(training_rows.params(tmp_path, test_path=str(other)))


def test_rows_of_one_class_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"all rows to train on are '\S+'; a classifier needs two classes or more"):
        corpus.prepare(training_rows.params(tmp_path, train_rows=1), tmp_path / "prepared")
    lines = [f"the team won game {i}\tSports" for i in range(30)]
    one = tmp_path / "one.tsv"
    one.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="all labels are 'sports'; a classifier needs at least two"):
        corpus.prepare(training_rows.params(tmp_path, data_path=str(one)), tmp_path / "prepared")


def test_a_split_without_rows_is_refused(tmp_path):
    training_rows.settings(tmp_path)
    with pytest.raises(DataError, match="no row is left for validation; more rows, or another validation_share"):
        corpus.prepare(training_rows.params(tmp_path, validation_share=1e-9), tmp_path / "prepared")


@pytest.mark.embedded
def test_the_sentences_from_four_sources():
    rows = four_sources.sentences()
    assert len({row[0] for row in rows}) == len(rows)
    counts = {name: sum(row[2] == i for row in rows) for i, name in enumerate(four_sources.TEXT.labels)}
    assert counts["movie review"] > 10_000
    assert min(counts.values()) > 3_500
    shares = {split: sum(row[3] == split for row in rows) / len(rows) for split in corpus.SPLITS}
    assert shares == {"train": pytest.approx(0.8, abs=0.01), "validation": pytest.approx(0.1, abs=0.01),
                      "test": pytest.approx(0.1, abs=0.01)}  # fmt: skip
