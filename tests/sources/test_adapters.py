"""Adapters: merged once into the model that they name, with classes that something names, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_qwen
import torch
from safetensors.torch import load_file, save_file

from distilbench import paths, studies
from distilbench.errors import DataError, DistilbenchError, ModelError
from distilbench.sources import adapters, hub
from distilbench.sources.models import load_model
from distilbench.sources.tokenizers import load_tokenizer

LABELS = ("books", "games", "groceries")
NAMES = {"id2label": {str(i): name for i, name in enumerate(LABELS)}}
IDS = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
MASK = (IDS != 0).long()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with a base and an adapter on it, the adapter's logits as PEFT computes them)."""
    folder = tmp_path_factory.mktemp("made")
    adapted = tiny_qwen.save_adapter(folder / "adapter", tiny_qwen.save_base(folder / "base"), len(LABELS))
    adapted.config.pad_token_id = 0
    with torch.inference_mode():
        return folder, adapted(input_ids=IDS, attention_mask=MASK).logits


@pytest.fixture
def adapter(made, tmp_path, monkeypatch):
    """A copy of the adapter, with its classes named, and a cache of its own."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(made[0] / "adapter", tmp_path / "adapter"))
    paths.write_json(folder / "label_mappings.json", NAMES)
    return folder


def change(folder: Path, **values) -> None:
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(told | values))


def change_tensors(folder: Path, keep) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if keep(name)}, folder / "adapter_model.safetensors")


# ------------------------------------------------------------------ merging


def test_an_adapter_is_the_model_that_was_trained(made, adapter):
    loaded = load_model(source="local", path=adapter, pad=0)
    assert torch.allclose(loaded.forward(IDS, MASK), made[1], atol=1e-4)
    assert made[1].std() > 0.1
    assert not any("lora" in name for name, _ in loaded.module.named_parameters())
    assert loaded.info.name == "local checkpoint adapter (adapter, merged into base)"
    assert loaded.info.label_names == LABELS
    base = load_file(made[0] / "base" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    merged = loaded.module.model.layers[0].self_attn.q_proj.weight
    assert (merged - base).abs().max() > 0.01


def test_it_is_merged_once_and_again_when_something_else_is_meant(adapter, monkeypatch):
    merges, merge = [], adapters.merge
    monkeypatch.setattr(adapters, "merge", lambda *given: merges.append(1) or merge(*given))
    one, again = adapters.whole(adapter), adapters.whole(adapter)
    assert one == again
    paths.write_json(adapter / "label_mappings.json", {"id2label": {"0": "a", "1": "b", "2": "c"}})
    assert adapters.whole(adapter) != one
    assert len(merges) == 2


def test_a_whole_checkpoint_is_taken_as_it_is(tmp_path):
    tiny_qwen.classifier(LABELS).save_pretrained(tmp_path)
    assert adapters.whole(tmp_path) == (tmp_path, "")
    assert adapters.tokenizer_folder(tmp_path) == tmp_path


def test_the_tokenizer_is_the_adapters_own_or_its_bases(made, adapter):
    given = {"profile": "ci", "model_source": "local", "model_path": str(adapter), "tokenizer_path": ""}
    params = studies.resolve("distilbert", given).params
    assert load_tokenizer(params).convert_tokens_to_ids("the") == 258
    assert adapters.tokenizer_folder(adapter) == made[0] / "base"
    tiny_qwen.save_tokenizer(adapter)
    assert adapters.tokenizer_folder(adapter) == adapter


# ------------------------------------------------------------------ its base


def test_a_base_on_the_hub_is_fetched_at_the_revision_that_is_named(made, adapter, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch_model", lambda *given: asked.append(given) or (made[0] / "base", "c" * 40))
    change(adapter, base_model_name_or_path="Qwen/Qwen2.5-0.5B-Instruct", revision="abc")
    assert adapters.base_of(adapter) == ("Qwen/Qwen2.5-0.5B-Instruct", made[0] / "base")
    change(adapter, revision=None)
    adapters.base_of(adapter)
    assert asked == [("Qwen/Qwen2.5-0.5B-Instruct", "abc"), ("Qwen/Qwen2.5-0.5B-Instruct", "main")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base_model_name_or_path": "/home/someone/models/qwen"}, "'/home/someone/models/qwen' is no folder here"),
        ({"base_model_name_or_path": "work/models/qwen"}, "'work/models/qwen' is no folder here"),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": " "}, "names no base model"),
        ({"peft_type": "IA3"}, "only adapters of type LORA can be merged, not 'IA3'"),
        ({"target_modules": ["query"]}, "does not fit its base model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_with_the_reason(adapter, changed, said):
    change(adapter, **changed)
    with pytest.raises(ModelError, match=said):
        adapters.whole(adapter)


def test_a_folder_with_both_is_refused_since_one_would_be_added_to_the_other(made, adapter):
    shutil.copy(made[0] / "base" / "model.safetensors", adapter)
    with pytest.raises(ModelError, match="an adapter and whole weights, and does not tell whether"):
        load_model(source="local", path=adapter)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_config_that_cannot_be_read_is_refused(adapter, content):
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        adapters.whole(adapter)


def test_a_base_of_another_shape_is_refused(adapter, tmp_path):
    tiny_qwen.classifier(LABELS, hidden_size=32).save_pretrained(tmp_path / "narrow")
    change(adapter, base_model_name_or_path=str(tmp_path / "narrow"))
    with pytest.raises(ModelError, match="does not fit its base model"):
        adapters.whole(adapter)


def test_a_base_without_weights_is_refused(made, adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copy(made[0] / "base" / "config.json", tmp_path / "empty")
    change(adapter, base_model_name_or_path=str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"holds no Qwen2\.5 model"):
        adapters.whole(adapter)


# ------------------------------------------------------------------ tensors


def test_an_adapter_that_lacks_tensors_is_refused(adapter):
    change_tensors(adapter, lambda name: "layers.1.self_attn.v_proj.lora_B" not in name)
    with pytest.raises(ModelError, match=r"lacks '.*layers\.1\.self_attn\.v_proj\.lora_B\.weight' \(1 tensors"):
        adapters.whole(adapter)


def test_an_adapter_with_tensors_that_have_no_place_is_refused(adapter):
    change(adapter, target_modules=["q_proj", "v_proj"])
    with pytest.raises(ModelError, match=r"has, and its base model has no place for, '.*down_proj"):
        adapters.whole(adapter)


def test_a_head_that_nothing_has_would_be_random(adapter):
    change(adapter, task_type=None, modules_to_save=None)
    change_tensors(adapter, lambda name: "score" not in name)
    with pytest.raises(ModelError, match=r"neither the adapter .* nor its base model has 'score\.weight'"):
        adapters.whole(adapter)


def test_damaged_weights_are_refused(adapter):
    (adapter / "adapter_model.safetensors").write_bytes(b"half a downlo")
    with pytest.raises(ModelError, match="does not fit its base model"):
        adapters.whole(adapter)


# ------------------------------------------------------------------ classes


def test_classes_are_those_of_its_own_config_before_the_file_beside_it(made, adapter):
    config = json.loads((made[0] / "base" / "config.json").read_text())
    own = {"id2label": {"0": "x", "1": "y", "2": "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    (adapter / "config.json").write_text(json.dumps(config | own))
    assert load_model(source="local", path=adapter).info.label_names == ("x", "y", "z")
    unnamed = {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    (adapter / "config.json").write_text(json.dumps(config | unnamed))
    assert load_model(source="local", path=adapter).info.label_names == LABELS


def test_an_adapter_without_names_is_refused_and_told_how_to_name_them(adapter):
    (adapter / "label_mappings.json").unlink()
    with pytest.raises(ModelError, match=r"does not name its classes: put label_mappings\.json beside it, such as"):
        adapters.whole(adapter)


def test_another_number_of_names_than_classes_is_refused(adapter):
    paths.write_json(adapter / "label_mappings.json", {"id2label": {"0": "a", "1": "b"}})
    with pytest.raises(ModelError, match="does not fit its base model"):
        adapters.whole(adapter)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"id2label": {"1": "a"}}', '{"id2label": ["a", "b", "c"]}'])
def test_a_file_of_names_that_names_not_all_is_refused(adapter, content):
    (adapter / "label_mappings.json").write_text(content)
    with pytest.raises(DataError, match=r"label_mappings\.json"):
        adapters.whole(adapter)


def test_the_file_also_names_the_classes_of_a_whole_checkpoint_that_does_not(tmp_path):
    tiny_qwen.classifier(("LABEL_0", "LABEL_1", "LABEL_2")).save_pretrained(tmp_path)
    assert load_model(source="local", path=tmp_path).info.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    paths.write_json(tmp_path / "label_mappings.json", NAMES)
    assert load_model(source="local", path=tmp_path).info.label_names == LABELS
    paths.write_json(tmp_path / "label_mappings.json", {"id2label": {"0": "a"}})
    with pytest.raises(DistilbenchError, match=r"names 1 classes, its config\.json 3"):
        load_model(source="local", path=tmp_path)
