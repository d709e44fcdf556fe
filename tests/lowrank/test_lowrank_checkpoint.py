"""Rank files and factors on disk: read back to the last bit, found by what fits, refused with a reason."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import padded_left, tiny

from distilbench.errors import ModelError, StorageError
from distilbench.lowrank import calibration, checkpoint, compress, ranks, shapes


def made(kind="llama", ratio=0.5):
    model = tiny(kind)
    of = shapes.of_config(model.config, 2)
    ids, _ = padded_left([40], seed=5)
    moments = calibration.moments(model, of, calibration.cut(ids[0], 20))
    return compress.compress(model, of, ranks.uniform(of, ratio, 1), moments)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.inference_mode()
def test_what_is_saved_is_read_back_to_the_last_bit(tmp_path, kind):
    saved = made(kind)
    checkpoint.save(saved, tmp_path / "half", "tiny", {"calibration": {"text": "random"}})
    file = checkpoint.read(tmp_path / "half")
    assert (file.weights, file.original) == (True, "tiny")
    again = checkpoint.load(tiny(kind), saved.shapes, file)
    ids, _ = padded_left([13])
    assert torch.equal(again.model(ids).logits, saved.model(ids).logits)
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["calibration"] == {"text": "random"}
    assert config["effective"] == 0.5
    assert config["energy"].keys() == saved.allocation.ranks.keys()


def test_the_nearest_ratio_is_taken_and_the_choice_explained(tmp_path):
    for ratio in (0.25, 0.5, 0.75):
        checkpoint.save(made(ratio=ratio), tmp_path / str(ratio), "tiny")
    other = tmp_path / "other" / "config.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"head_wise_ranks": {"model.layers.0.self_attn.k_proj": [3]}}))
    match = checkpoint.search(tmp_path, made().shapes, 0.7)
    assert match.file.folder.name == "0.75"
    assert match.why == "of 3 that fit this model it keeps the fraction nearest to 0.7: 0.750; 1 others do not fit"


def test_of_equal_ones_that_with_factors_is_taken(tmp_path):
    checkpoint.save(made(), tmp_path / "b", "tiny")
    bare = tmp_path / "a" / "config.json"
    bare.parent.mkdir()
    bare.write_text((tmp_path / "b" / "config.json").read_text())
    assert checkpoint.search(tmp_path, made().shapes, 0.5).file.folder.name == "b"
    (tmp_path / "b" / "model.safetensors").unlink()
    match = checkpoint.search(tmp_path, made().shapes, 0.5)
    assert (match.file.folder.name, match.file.weights) == ("a", False)


def test_a_folder_without_a_rank_file_that_fits(tmp_path):
    of = made().shapes
    with pytest.raises(ModelError, match="there is no folder"):
        checkpoint.search(tmp_path / "missing", of, 0.7)
    with pytest.raises(ModelError, match=r"no rank file in .* fits this model\. it has no config\.json at all"):
        checkpoint.search(tmp_path, of, 0.7)
    (tmp_path / "config.json").write_text(json.dumps({"head_wise_ranks": {"model.layers.0.self_attn.k_proj": [3]}}))
    with pytest.raises(ModelError, match="the ranks are of another model: they name 1 projections, this model has 6"):
        checkpoint.search(tmp_path, of, 0.7)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"head_wise_ranks": 3}', '{"head_wise_ranks": {"a": [1.5]}}'])
def test_no_rank_file(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"holds no ranks \(config.json with head_wise_ranks"):
        checkpoint.read(tmp_path)


def test_factors_of_another_model_or_damaged_ones(tmp_path):
    saved = made()
    checkpoint.save(saved, tmp_path, "tiny")
    weights = tmp_path / "model.safetensors"
    tensors, name = load_file(weights), "model.layers.1.self_attn.v_proj.U.0.weight"
    file = checkpoint.read(tmp_path)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, weights)
    with pytest.raises(ModelError, match=f"of another model: they have no {name}"):
        checkpoint.load(tiny(), saved.shapes, file)
    save_file(tensors | {name: torch.zeros(16, 3)}, weights)
    with pytest.raises(ModelError, match=r"v_proj\.U\.0\.weight is \[16, 3\], not \[16, 8\]"):
        checkpoint.load(tiny(), saved.shapes, file)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.load(tiny(), saved.shapes, file)


def test_a_full_disk_leaves_no_rank_file(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="space"):
        checkpoint.save(made(), tmp_path / "half", "tiny")
    assert not (tmp_path / "half" / "config.json").exists()
