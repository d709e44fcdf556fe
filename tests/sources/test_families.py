"""Families: a second architecture comes as one module, and no general code names either."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import families, models, tokenizers
from distilbench.sources.batches import Padding, make_batches
from distilbench.sources.families import Family
from distilbench.sources.parameters import SourceParams

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 99}


@pytest.fixture
def decoder() -> Family:
    return families.named("qwen2")


@pytest.fixture
def checkpoint(tmp_path, decoder):
    torch.manual_seed(1)
    config = Qwen2Config(**SIZES, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
    Qwen2ForSequenceClassification(config).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_second_family_is_loaded_batched_and_counted_without_being_named(checkpoint, decoder):
    loaded = models.load_model(source="local", path=checkpoint, attention="eager")  # whose products torch counts
    assert loaded.family is decoder
    assert loaded.info.label_names == ("negative", "positive")
    padding = Padding(SIZES["pad_token_id"], decoder.pads_left, end_tokens=0)
    (batch,) = make_batches([[1, 2, 3], [4, 5, 6, 7, 8]], 2, "longest", 2, 0, padding)
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    alone = loaded.forward(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.int64))
    row = batch.rows.tolist().index(0)
    assert torch.allclose(loaded.forward(ids, mask)[row], alone[0], atol=1e-5), "padding changes no answer"
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded.module(input_ids=ids, attention_mask=mask)
    assert loaded.cost(ids)[0] == counter.get_total_flops()


def test_random_weights_of_a_second_family():
    loaded = models.load_model(source="random", family="qwen2", size="tiny", vocab_size=100)
    assert loaded.info.name == "Qwen2.5-tiny shape, random weights (timing only)"


def test_a_size_that_a_family_has_not_is_named_with_those_that_it_has():
    with pytest.raises(ModelError, match=r"Qwen2\.5 has no size 'base'; it has: 0\.5b, tiny \(`model_size`\)"):
        models.load_model(source="random", family="qwen2")


def test_every_family_and_size_can_be_asked_for_as_a_parameter():
    fields = SourceParams.model_fields
    assert list(get_args(fields["model_family"].annotation)) == families.supported()
    sizes = {size for family in map(families.named, families.supported()) for size in family.sizes}
    assert set(get_args(fields["model_size"].annotation)) == sizes


def test_a_family_that_is_not_there_is_named_with_those_that_are(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(
        ModelError, match=r"type 'mamba' are not supported; supported are: distilbert, qwen2 \(`model_type`"
    ):
        models.load_model(source="local", path=tmp_path)


@pytest.mark.parametrize(
    ("config", "why"), [("{}", "no key 'model_type'"), ("{", "Expecting property name"), ("[]", "list indices")]
)
def test_a_config_that_does_not_tell_its_family_is_refused(tmp_path, config, why):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=f"its config.json cannot be read: {why}"):
        families.of_checkpoint(tmp_path)


def test_a_library_that_a_family_lacks_is_not_taken_for_the_family(tmp_path, monkeypatch):
    """Whatever library that is, its name is said, and not that the family is not supported."""
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    (tmp_path / "wanting.py").write_text("import no_such_library")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        families.named("wanting")


def test_a_tokenizers_family_by_its_checkpoint_its_class_or_the_default(tmp_path, checkpoint, decoder):
    distilbert = families.named("distilbert")
    assert families.of_tokenizer(tmp_path) is distilbert, "nothing is told"
    assert families.of_tokenizer(checkpoint) is decoder
    for saved_as in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": saved_as}))
        assert families.of_tokenizer(tmp_path) is decoder
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    for config in ('{"model_type": "bert"}', "{}", "{"):
        (tmp_path / "config.json").write_text(config)
        assert families.of_tokenizer(tmp_path) is distilbert, "as a tokenizer of a model that is not supported"


def test_a_tokenizer_without_padding_is_refused(decoder):
    class Tokenizer:
        pad_token_id = None

    with pytest.raises(ModelError, match="has no pad_token"):
        tokenizers.padding_of(Tokenizer(), decoder)


@pytest.mark.parametrize(
    "file",
    [
        "sources/models",
        "sources/tokenizers",
        "sources/batches",
        "harness/ceilings",
        "measurements/sweep/measure/worker",
        "variants/registry",
    ],
)
def test_general_code_names_no_family(file):
    """But for the checkpoint that the hub source takes by default."""
    text = (paths.repo_root() / "distilbench" / f"{file}.py").read_text()
    assert re.findall(r"(?i)distilbert(?!params|bench)", re.sub(r"^HUB_MODEL = .*$", "", text, flags=re.M)) == []
