import errno
import os

import pytest
import torch
from safetensors.torch import load_file

from distilbench.errors import RunError, StorageError
from distilbench.training import checkpoint


def test_a_checkpoint_is_read_without_any_code_in_it(tmp_path):
    checkpoint.save(tmp_path / "x" / "one.pt", {"model": {"w": torch.ones(2)}, "names": ["a"], "run_id": None})
    found = torch.load(tmp_path / "x" / "one.pt", weights_only=True)
    assert found["names"] == ["a"]
    assert checkpoint.load(tmp_path / "x" / "one.pt")["model"]["w"].tolist() == [1, 1]


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(RunError, match="there is no checkpoint at"):
        checkpoint.load(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"bad\.pt is no checkpoint that can be read"):
        checkpoint.load(tmp_path / "bad.pt")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "state.pt"
    checkpoint.save(file, {"step": 1})

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        checkpoint.save(file, {"step": 2})
    assert checkpoint.load(file) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]


class Network(torch.nn.Linear):
    class config:
        @staticmethod
        def save_pretrained(folder):
            (folder / "config.json").write_text("{}")


def test_the_classifier_is_exported_with_its_tokenizer(tmp_path):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    network = Network(2, 3)
    for _ in range(2):  # once more over what is there
        found = checkpoint.export(tmp_path, "mine", network, tokenizer, {"label_names": ["a", "b", "c"]})
    assert sorted(found) == ["mine.pt", "mine/model.safetensors"]
    assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert torch.equal(load_file(tmp_path / "mine" / "model.safetensors")["weight"], network.weight)
    whole = checkpoint.load(tmp_path / "mine.pt")
    assert whole["label_names"] == ["a", "b", "c"]
    assert torch.equal(whole["model"]["bias"], network.bias)
