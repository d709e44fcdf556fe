"""Qwen2: what a forward costs is counted in another way too, and padding changes no answer, on whichever side it is."""

from __future__ import annotations

import pytest
import tiny_qwen
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DistilBertTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification, Qwen2TokenizerFast

from distilbench import paths
from distilbench.sources import families, tokenizers
from distilbench.sources.batches import Padding, make_batches
from distilbench.sources.families import qwen2
from distilbench.sources.models import LoadedModel, load_model

TINY = {"source": "random", "family": "qwen2", "size": "tiny", "vocab_size": 200, "labels": 23}
SENTENCES = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14]]


def loaded_with(seed: int = 17, **given) -> LoadedModel:
    """Tiny, with a head whose logits differ by more than rounding does."""
    loaded = load_model(**TINY | {"seed": seed} | given)
    torch.nn.init.normal_(loaded.module.score.weight)
    return loaded


# ------------------------------------------------------------------ size


def test_the_real_size_has_the_parameters_of_qwen2_5_0_5b():
    """494,032,768, as published for the model, and a head of 23 rows without bias."""
    with torch.device("meta"):
        model = Qwen2ForSequenceClassification(Qwen2Config(**qwen2.SIZE_0_5B, num_labels=23))
    assert sum(p.numel() for p in model.parameters()) == 494_032_768 + 23 * 896
    assert model.config.rope_parameters["rope_theta"] == 1e6
    assert model.config.pad_token_id == 151643


def test_the_real_size_keeps_its_table_whatever_the_tokenizer_needs(monkeypatch):
    seen = []

    class Stop(Exception):
        pass

    def no_weights(config):
        seen.append(config)
        raise Stop

    monkeypatch.setattr(families.transformers, "Qwen2ForSequenceClassification", no_weights)
    with pytest.raises(Stop):
        load_model(source="random", family="qwen2", size="0.5b", vocab_size=30522, labels=23)
    assert (seen[0].vocab_size, seen[0].num_labels) == (151936, 23)
    with pytest.raises(Stop):
        load_model(**TINY)
    assert seen[1].vocab_size == 200, "the tiny one has what the tokenizer needs"


# ------------------------------------------------------------------ cost


@pytest.mark.parametrize("shape", [(1, 8), (3, 5), (2, 32)])
@pytest.mark.parametrize("heads", [(4, 2), (4, 1), (4, 4)])
def test_flops_are_those_that_torch_counts(shape, heads):
    config = Qwen2Config(
        **qwen2.SIZE_TINY | {"num_attention_heads": heads[0], "num_key_value_heads": heads[1]},
        vocab_size=200, num_labels=23, attn_implementation="eager",  # whose products torch counts
    )  # fmt: skip
    module = Qwen2ForSequenceClassification(config).eval()
    ids = torch.randint(1, 200, shape)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert qwen2.forward_flops(config, *shape) == counter.get_total_flops()


def test_flops_of_heads_that_are_wider_than_their_share():
    config = Qwen2Config(**qwen2.SIZE_TINY, vocab_size=200, num_labels=2)
    config.head_dim = 32
    products = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 128
    assert qwen2.forward_flops(config, 1, 4) == 2 * (2 * 4 * products + 4 * 16 * 128) + 2 * 4 * 64 * 2


def test_bytes_are_all_weights_but_the_rows_of_the_table_that_are_not_used():
    loaded = loaded_with()
    ids = torch.tensor([[3, 4, 3, 5], [5, 6, 0, 0]])
    parameters = loaded.info.parameters
    assert loaded.cost(ids)[1] == 4 * (parameters - 200 * 64 + 5 * 64) + 2 * 8 * 8


# ------------------------------------------------------------------ padding


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_no_answer_on_either_side(left, attention):
    loaded = loaded_with(attention=attention, pad=0)
    (batch,) = make_batches(SENTENCES, 3, "fixed-8", 3, 0, Padding(0, left, 0))
    together = loaded.forward(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask))
    for row, logits in zip(batch.rows, together, strict=True):
        ids = torch.tensor([SENTENCES[row]])
        alone = loaded.forward(ids, torch.ones_like(ids))[0]
        assert alone.std() > 0.1
        assert torch.allclose(logits, alone, atol=1e-5)


def test_the_model_is_told_which_id_is_padding():
    """A config that names none, or another than the tokenizer's, would make it classify by a token of padding."""
    (batch,) = make_batches(SENTENCES, 3, "fixed-8", 3, 0, Padding(7, False, 0))
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    told, untold = loaded_with(pad=7), loaded_with()
    assert (told.module.config.pad_token_id, untold.module.config.pad_token_id) == (7, 0)
    row = batch.rows.tolist().index(1)
    alone = told.forward(torch.tensor([SENTENCES[1]]), torch.ones(1, 6, dtype=torch.int64))[0]
    assert torch.allclose(told.forward(ids, mask)[row], alone, atol=1e-5)
    assert not torch.allclose(untold.forward(ids, mask)[row], alone, atol=0.1)


def test_no_keys_and_values_are_kept_for_tokens_that_never_come():
    loaded = loaded_with()
    with torch.inference_mode():
        result = loaded.module(input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3))
    assert result.past_key_values is None


# ------------------------------------------------------------------ tokenizer


@pytest.fixture(scope="module")
def qwen_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_qwen.save_tokenizer(folder)
    return folder


def test_a_qwen_tokenizer_adds_no_special_tokens_and_pads_with_its_own(qwen_tokenizer):
    tokenizer = Qwen2TokenizerFast.from_pretrained(qwen_tokenizer)
    padding = tokenizers.padding_of(tokenizer, qwen2.FAMILY)
    assert padding == Padding(tokenizer.pad_token_id, left=False, end_tokens=0)
    assert tokenizer("the")["input_ids"] == [tokenizer.convert_tokens_to_ids("the")]
    assert tokenizers.fits(tokenizer, ("a", "b", "c")) == {
        "vocab_size": len(tokenizer), "labels": 3, "pad": tokenizer.pad_token_id,
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["fixed-8", "longest"])
def test_a_request_gets_the_ids_of_the_batches(qwen_tokenizer, policy):
    """Cut and padded alike by the tokenizer and by `make_batches`, for a tokenizer with and without end tokens."""
    for kind, folder in (
        (Qwen2TokenizerFast, qwen_tokenizer),
        (DistilBertTokenizerFast, paths.repo_root() / "tests" / "data" / "tiny_tokenizer"),
    ):
        tokenizer = kind.from_pretrained(folder)
        texts = ["the film", "a moving film and the best of the year", "dull"]
        token_ids = [tokenizer(text)["input_ids"] for text in texts]
        padding = tokenizers.padding_of(tokenizer, qwen2.FAMILY)
        (batch,) = make_batches(token_ids, 3, policy, 3, 0, padding)
        encoded = tokenizers.encoder(folder, policy)([texts[row] for row in batch.rows])
        assert encoded["input_ids"].tolist() == batch.input_ids.tolist()
        assert encoded["attention_mask"].tolist() == batch.attention_mask.tolist()
