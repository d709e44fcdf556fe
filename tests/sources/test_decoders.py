"""The loader of decoders: from a folder, from the registry, at random; refused with a reason."""

from __future__ import annotations

import builtins
import json

import pytest
import torch
from tiny_llama import padded_left, tiny

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import decoders, smollm2


@pytest.fixture
def checkpoint(tmp_path):
    tiny().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@torch.inference_mode()
def test_a_folder_is_loaded_as_it_was_saved(checkpoint):
    loaded = decoders.load_decoder(source="local", path=checkpoint, attention="eager")
    ids, _ = padded_left([9])
    assert torch.equal(loaded.module(ids).logits, tiny(attention="eager")(ids).logits)
    assert not loaded.module.training
    assert not any(one.requires_grad for one in loaded.module.parameters())
    info = loaded.info
    assert (info.source, info.name, info.attention) == ("local", "local checkpoint tiny", "eager")
    assert info.sha256 == paths.sha256_file(checkpoint / "model.safetensors")
    assert info.disk_bytes == (checkpoint / "model.safetensors").stat().st_size


def test_weights_in_several_files(checkpoint, tmp_path):
    tiny().save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    whole, parts = (decoders.load_decoder(source="local", path=place) for place in (checkpoint, tmp_path / "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.module.parameters(), parts.module.parameters(), strict=True))
    assert whole.info.sha256 != parts.info.sha256
    assert parts.info.disk_bytes > whole.info.memory_bytes * 0.9


def test_random_weights_are_the_same_each_time_and_in_the_type_asked_for():
    one, two = (decoders.load_decoder(source="random", size="tiny", dtype="bfloat16") for _ in range(2))
    assert one.info.sha256 == two.info.sha256
    assert one.info.name == "Llama-tiny shape, random weights (timing only)"
    assert {tensor.dtype for tensor in one.module.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(ModelError, match="random weights have no tokenizer"):
        one.tokenizer()


def test_shapes_are_those_of_the_published_models():
    from transformers import LlamaConfig, LlamaForCausalLM

    for size, parameters in (("8b", 8_030_261_248), ("135m", 134_515_008)):
        with torch.device("meta"):
            module = LlamaForCausalLM(LlamaConfig(**decoders.SIZES[size]))
        assert sum(one.numel() for one in module.parameters()) == parameters


def test_what_cannot_be_loaded_is_said(checkpoint, tmp_path):
    with pytest.raises(ModelError, match=r"no size '70b' of a Llama; sizes: 8b, 135m, tiny \(`model_size`\)"):
        decoders.load_decoder(source="random", size="70b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="there are no safetensors files"):
        decoders.load_decoder(source="local", path=tmp_path / "empty")
    loaded = decoders.load_decoder(source="local", path=checkpoint)
    with pytest.raises(ModelError, match="holds no tokenizer that can be read"):
        loaded.tokenizer()
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ModelError, match=r"of type 'gpt2'; decoders that are supported: llama, qwen2"):
        decoders.load_decoder(source="local", path=checkpoint)
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"lacks \d+ tensors of a decoder, such as 'model\.layers\.3"):
        decoders.load_decoder(source="local", path=checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="holds no decoder that can be read"):
        decoders.load_decoder(source="local", path=checkpoint)


def test_without_the_library_that_reads_the_embedded_file(tmp_path, monkeypatch):
    there = builtins.__import__

    def missing(name, *rest):
        if name == "gguf":
            raise ImportError(name)
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"needs the library gguf: install it \(pip install 'distilbench\[llm\]'\)"):
        smollm2.folder()
    assert not (tmp_path / "smollm2-135m-0.1.2").exists()
