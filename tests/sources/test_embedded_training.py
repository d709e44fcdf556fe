"""The training of the embedded classifier: deterministic, saved as it is used, and judged by its validation split."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import DistilBertTokenizerFast

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import embedded, embedded_training, movies
from distilbench.sources.embedded_training import Recipe

pytestmark = pytest.mark.embedded
QUICK = Recipe(epochs=1, batch_size=16, max_length=24)


@pytest.fixture(autouse=True)
def torch_as_it_was():
    """Training sets the number of threads and demands deterministic algorithms, for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def tokenizer():
    return DistilBertTokenizerFast.from_pretrained(embedded.tokenizer_dir())


@pytest.fixture(scope="module")
def sentences():
    return movies.sentences()


@pytest.fixture
def few(monkeypatch, sentences):
    """32 sentences to train on, 8 to validate, 8 to test."""
    wanted = {"train": 32, "validation": 8, "test": 8}
    rows = [row for split, n in wanted.items() for row in [r for r in sentences if r[3] == split][:n]]
    monkeypatch.setattr(movies, "sentences", lambda: rows)
    return rows


# ------------------------------------------------------------------ batches


def texts_of(chunks, tokenizer) -> list[str]:
    decoded = (tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True) for inputs, _ in chunks)
    return [text for batch in decoded for text in batch]


def padding(chunks) -> float:
    masks = [inputs["attention_mask"] for inputs, _ in chunks]
    return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


def test_an_epoch_goes_over_every_sentence_once(sentences, tokenizer):
    rows = sentences[:70]
    plain = list(embedded_training.batches(rows, 16, tokenizer, 512, seed=None))
    shuffled = list(embedded_training.batches(rows, 16, tokenizer, 512, seed=3))
    assert [len(labels) for _, labels in plain] == [16, 16, 16, 16, 6]
    assert torch.cat([labels for _, labels in plain]).tolist() == [row[2] for row in rows], "in order without a seed"
    assert Counter(texts_of(plain, tokenizer)) == Counter(texts_of(shuffled, tokenizer))
    assert texts_of(plain, tokenizer) != texts_of(shuffled, tokenizer)


def test_shuffling_is_decided_by_the_seed_and_saves_padding(sentences, tokenizer):
    rows = sentences[:320]
    one, again, other = (texts_of(embedded_training.batches(rows, 16, tokenizer, 512, s), tokenizer) for s in (3, 3, 4))
    assert one == again
    assert one != other
    plain, bucketed = (padding(list(embedded_training.batches(rows, 16, tokenizer, 512, s))) for s in (None, 3))
    assert bucketed < 0.7 * plain


def test_long_sentences_are_cut(sentences, tokenizer):
    widths = [
        inputs["input_ids"].shape[1] for inputs, _ in embedded_training.batches(sentences[:64], 16, tokenizer, 12, 1)
    ]
    assert max(widths) == 12


def test_accuracy_is_the_share_of_right_labels(sentences, tokenizer):
    """A model that always says 1."""
    rows = sentences[:50]

    class Always(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=torch.tensor([[0.0, 1.0]]).expand(len(input_ids), 2))

    assert embedded_training.accuracy(Always(), rows, tokenizer) == sum(row[2] for row in rows) / 50


# ------------------------------------------------------------------ training


def test_a_loss_that_is_not_finite_ends_the_training(few, tokenizer):
    rows = [row for row in few if row[3] == "train"]
    with pytest.raises(ModelError, match=r"the loss of step \d is (nan|inf): a lower learning_rate may help"):
        embedded_training.train(
            "movies", replace(QUICK, epochs=8, learning_rate=1e30, warmup_share=0.0), rows, rows, tokenizer
        )


def test_training_learns_with_the_adapter_alone(few, tokenizer, caplog):
    caplog.set_level("INFO", logger="distilbench.embedded_training")
    rows = [row for row in few if row[3] == "train"]
    model, history = embedded_training.train("movies", replace(QUICK, epochs=8), rows, rows, tokenizer)
    assert history[-1] >= 0.9, "it can learn 32 sentences by heart"
    assert len(history) == 8
    assert "epoch 8 of 8: loss" in caplog.text
    before = embedded.pretrained_classifier(movies.LABELS).state_dict()
    name = "distilbert.transformer.layer.0.attention.q_lin.weight"
    frozen = dict(model.named_parameters())[f"base_model.model.{name.replace('.weight', '.base_layer.weight')}"]
    assert torch.equal(frozen, before[name])
    assert not frozen.requires_grad
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 300_000 < trained < 600_000, "of 22.7 million"


def test_building_twice_gives_the_same_bytes_and_leaves_the_test_split_closed(few, tmp_path, monkeypatch):
    opened = []
    split_rows = embedded_training.split_rows
    monkeypatch.setattr(
        embedded_training, "split_rows", lambda task, split: opened.append(split) or split_rows(task, split)
    )
    monkeypatch.setattr(embedded_training, "split_hashes", lambda task: {"train": "hashed"})
    one, again = (
        embedded_training.build("movies", QUICK, tmp_path / name, open_test=False) for name in ("one", "again")
    )
    assert one["adapter_sha256"] == again["adapter_sha256"]
    assert paths.sha256_file(tmp_path / "one" / "adapter_model.safetensors") == one["adapter_sha256"]
    assert "test" not in one
    assert "test" not in opened
    assert one["validation"]["n"] == 8
    assert one["recipe"]["epochs"] == 1
    assert json.loads((tmp_path / "one" / "card.json").read_text()) == json.loads(json.dumps(one))
    other = embedded_training.build("movies", replace(QUICK, seed=18), tmp_path / "other", open_test=True)
    assert other["adapter_sha256"] != one["adapter_sha256"]
    assert other["test"]["n"] == 8


def test_what_is_saved_is_what_was_trained(few, tokenizer, tmp_path):
    """float16 on disk and merged into plain weights: the same logits but for rounding."""
    rows = [row for row in few if row[3] == "train"]
    model, _ = embedded_training.train("movies", QUICK, rows, rows, tokenizer)
    merged = embedded.merged_classifier("movies", embedded_training.save_adapter(model, tmp_path / "adapter")).eval()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    (inputs, _) = next(iter(embedded_training.batches(rows, 16, tokenizer, 24, seed=None)))
    with torch.inference_mode():
        assert torch.allclose(model.eval()(**inputs).logits, merged(**inputs).logits, atol=5e-3)


# ------------------------------------------------------------------ the comparison


@pytest.fixture
def committed(tmp_path):
    paths.write_json(tmp_path / "card.json", {"adapter_sha256": "a", "validation": {"accuracy": 0.86}})
    return tmp_path / "card.json"


@pytest.mark.parametrize(
    ("digest", "accuracy", "code", "said"),
    [
        ("a", 0.86, 0, "identical to the committed adapter"),
        ("b", 0.845, 0, "validation accuracy -0.0150"),
        ("b", 0.879, 0, "validation accuracy +0.0190"),
        ("b", 0.83, 1, "validation accuracy -0.0300"),
        ("b", 0.9, 1, "validation accuracy +0.0400"),
    ],
)
def test_a_rebuilt_adapter_is_identical_or_within_two_points(committed, capsys, digest, accuracy, code, said):
    card = {"adapter_sha256": digest, "validation": {"accuracy": accuracy}}
    assert embedded_training.compare(card, committed) == code
    assert said in capsys.readouterr().out


@pytest.fixture
def asked(monkeypatch, tmp_path, committed):
    """What `main` asks `build` for; nothing is trained."""
    calls = []

    def build(task, recipe, folder, open_test):
        calls.append((task, recipe, folder, open_test))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(b"new")
        return {"adapter_sha256": "b", "validation": {"accuracy": 0.5}}

    monkeypatch.setattr(embedded_training, "build", build)
    monkeypatch.setattr(embedded.Task, "adapter_dir", tmp_path)
    return calls


def test_a_rebuild_goes_elsewhere_and_is_compared(asked, tmp_path, monkeypatch, capsys):
    command = ["classifier", "--output", str(tmp_path / "out"), "--epochs", "2", "--learning-rate", "0.002"]
    monkeypatch.setattr(sys, "argv", command)
    assert embedded_training.main() == 1
    assert asked == [("movies", Recipe(epochs=2, learning_rate=0.002), tmp_path / "out", False)]
    assert "differs from the committed adapter" in capsys.readouterr().out
    assert not (tmp_path / "adapter_model.safetensors").exists(), "the committed one is untouched"


def test_only_commit_opens_the_test_split_and_replaces_the_adapter(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["classifier", "--commit", "--output", str(tmp_path / "out")])
    assert embedded_training.main() == 0
    assert asked == [("movies", Recipe(), tmp_path / "out", True)]
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"new"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", embedded.TASKS)
def test_the_committed_adapter_can_be_built_again(tmp_path, task):
    """Identical on the machine and torch that it was trained with, within two points elsewhere."""
    command = [sys.executable, "-m", "distilbench.sources.embedded_training", task, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rebuilt, known = (paths.read_json(folder / "card.json") for folder in (tmp_path, embedded.TASKS[task].adapter_dir))
    assert rebuilt["splits_sha256"] == known["splits_sha256"]
    assert rebuilt["recipe"] == known["recipe"]
    assert "test" not in rebuilt
    last = done.stdout.splitlines()[-1]
    assert last.startswith(("identical to", "differs from"))
