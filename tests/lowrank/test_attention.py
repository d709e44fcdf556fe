"""The latent cache: the same answers as without it, whatever the batch, the padding and the ranks."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import padded_left, tiny
from transformers import DynamicCache, StaticCache

from distilbench.errors import ModelError
from distilbench.lowrank import calibration, checkpoint, compress, shapes
from distilbench.lowrank.attention import cache_bytes, expected_bytes
from distilbench.lowrank.generation import generate
from distilbench.lowrank.ranks import from_file, uniform

LENGTHS = [9, 4, 7, 1]
RAGGED = ([3, 9], [16, 5], [7, 7])  # of keys; values have them in turn


def compressed(kind="llama", ratio=None, attention="sdpa", **sizes):
    """A tiny decoder with compressed keys and values; ragged ranks unless a ratio is given."""
    model = tiny(kind, attention, **sizes)
    of = shapes.of_config(model.config, 2)
    ids, _ = padded_left([40], seed=5)
    moments = calibration.moments(model, of, calibration.cut(ids[0], 20))
    ragged = {name: RAGGED[i % 3][:: 1 if i % 2 else -1] for i, name in enumerate(of.projections)}
    allocation = uniform(of, ratio, 1) if ratio else from_file(ragged, of)
    return compress.compress(model, of, allocation, moments)


def step_by_step(model, ids, mask, prompt):
    """Logits (B, L - prompt, vocabulary) of teacher-forced decoding with the cache, a token at a time."""
    positions, cache, logits = (mask.cumsum(-1) - 1).clamp(min=0), DynamicCache(config=model.config), []
    for start, end in [(0, prompt), *((i, i + 1) for i in range(prompt, ids.shape[1]))]:
        out = model(
            ids[:, start:end], attention_mask=mask[:, :end], position_ids=positions[:, start:end], use_cache=True,
            past_key_values=cache,
        )  # fmt: skip
        logits.append(out.logits[:, -1])
    return torch.stack(logits[1:], dim=1), cache


def at_once(model, ids, mask, prompt):
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, prompt:]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.inference_mode()
def test_full_rank_is_the_baseline(kind, attention):
    ids, mask = padded_left(LENGTHS)
    whole, ours = tiny(kind, attention), compressed(kind, 1.0, attention).model
    expected = whole(ids, attention_mask=mask).logits
    got = ours(ids, attention_mask=mask).logits
    assert torch.allclose(got[mask.bool()], expected[mask.bool()], atol=1e-4)
    assert not torch.allclose(
        compressed(kind, 0.5, attention).model(ids, attention_mask=mask).logits, expected, atol=1e-2
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.inference_mode()
def test_cached_decoding_gives_the_logits_of_one_forward(kind, attention):
    lengths = [length + 12 for length in LENGTHS]
    ids, mask = padded_left(lengths)
    for model in (tiny(kind, attention), compressed(kind, None, attention).model):
        cached, _ = step_by_step(model, ids, mask, prompt=12)
        assert torch.allclose(cached, at_once(model, ids, mask, prompt=12), atol=1e-4)


@torch.inference_mode()
def test_values_summed_as_latents_or_rebuilt_and_keys_in_chunks_give_the_same():
    ids, mask = padded_left([21, 16, 19, 13])
    made = compressed("qwen2")
    expected, _ = step_by_step(made.model, ids, mask, prompt=12)
    layers = [block.self_attn for block in made.model.model.layers]
    for setting, value in (("chunk", 5), ("late_up_to", 0), ("late_up_to", 100)):
        for layer in layers:
            setattr(layer, setting, value)
        assert torch.allclose(step_by_step(made.model, ids, mask, prompt=12)[0], expected, atol=1e-5)


@torch.inference_mode()
def test_several_new_tokens_as_latents_are_causal():
    ids, _ = padded_left([17])
    made = compressed()
    expected = made.model(ids, use_cache=False).logits
    for layer in made.model.model.layers:
        layer.self_attn.late_up_to = 100
    assert torch.allclose(made.model(ids, use_cache=False).logits, expected, atol=1e-5)


@torch.inference_mode()
def test_padding_changes_no_answer():
    made = compressed()
    ids, mask = padded_left([9, 5])
    together = generate(made.model, ids, mask, 6).sequences[:, ids.shape[1] :]
    for row, length in enumerate([9, 5]):
        alone = ids[row : row + 1, -length:]
        got = generate(made.model, alone, torch.ones_like(alone), 6).sequences[:, length:]
        assert got.tolist() == together[row : row + 1].tolist()


@torch.inference_mode()
def test_greedy_tokens_are_those_without_a_cache():
    made = compressed()
    ids, mask = padded_left(LENGTHS)
    cached = generate(made.model, ids, mask, 10).sequences
    again = made.model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=10, min_new_tokens=10, use_cache=False,
        pad_token_id=0,
    )  # fmt: skip
    assert cached.tolist() == again.tolist()


@torch.inference_mode()
def test_beams_can_be_reordered():
    ids, mask = padded_left([9, 5])
    options = {"do_sample": False, "num_beams": 3, "max_new_tokens": 8, "min_new_tokens": 8, "pad_token_id": 0}
    whole, ours = (
        model.generate(input_ids=ids, attention_mask=mask, **options) for model in (tiny(), compressed(ratio=1.0).model)
    )
    assert ours.tolist() == whole.tolist()


@torch.inference_mode()
def test_a_cropped_cache_goes_on_where_it_was_cut():
    ids, mask = padded_left([20])
    made = compressed()
    expected, cache = step_by_step(made.model, ids, mask, prompt=12)
    cache.crop(-3)
    out = made.model(ids[:, 17:], attention_mask=mask, past_key_values=cache, use_cache=True)
    assert torch.allclose(out.logits, expected[:, -3:], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_bytes_are_those_of_the_formula(dtype):
    ids, mask = padded_left(LENGTHS)
    itemsize = torch.finfo(dtype).bits // 8
    whole, ours = tiny().to(dtype), compressed(ratio=0.5)
    ours.model.to(dtype)
    sizes = {}
    for name, model, ranks in (("whole", whole, None), ("ours", ours.model, ours.allocation.ranks)):
        cache = generate(model, ids, mask, 5).past_key_values
        tokens = cache.get_seq_length()
        sizes[name] = cache_bytes(cache)
        assert sizes[name] == expected_bytes(model.config, 4, tokens, itemsize, ranks)
    positions = 4 * tokens * 4  # batch, tokens, an int32
    assert sizes["ours"] - positions == sizes["whole"] / 2
    assert ours.allocation.effective == 0.5


def test_a_cache_that_cannot_grow_is_refused():
    made, (ids, _) = compressed(), padded_left([5])
    with pytest.raises(ModelError, match="StaticCache cannot hold it, DynamicCache can"):
        made.model(ids, past_key_values=StaticCache(made.model.config, max_cache_len=20), use_cache=True)


def test_what_cannot_be_compressed_is_said():
    config = tiny().config
    with pytest.raises(ModelError, match="group size 3 does not divide the 4 key-value heads"):
        shapes.of_config(config, 3)
    config.model_type = "gpt2"
    with pytest.raises(ModelError, match="of type 'gpt2' cannot be compressed; supported are: llama, qwen2"):
        shapes.of_config(config, 2)
    sliding = tiny("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0).config
    with pytest.raises(ModelError, match="sliding window"):
        shapes.of_config(sliding, 2)
    assert shapes.of_config(tiny().config, 2) == shapes.Shapes(3, 8, 4, 8, 2)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.inference_mode()
def test_values_alone_as_latents(kind, tmp_path):
    """Keys stay whole: at full rank nothing changes, cached decoding is one forward, and only values shrink."""
    ids, mask = padded_left([length + 12 for length in LENGTHS])
    for ratio in (1.0, 0.5):
        made = compressed(kind, ratio)
        checkpoint.save(made, tmp_path / str(ratio), "tiny")
        half = checkpoint.load(tiny(kind), made.shapes, checkpoint.read(tmp_path / str(ratio)), ("v_proj",))
        cached, cache = step_by_step(half.model, ids, mask, prompt=12)
        assert torch.allclose(cached, at_once(half.model, ids, mask, prompt=12), atol=1e-4)
        whole = at_once(tiny(kind), ids, mask, prompt=12)
        assert torch.allclose(cached[mask[:, 12:].bool()], whole[mask[:, 12:].bool()], atol=1e-4) is (ratio == 1.0)
        assert half.allocation.effective == pytest.approx((1 + ratio) / 2)
        assert all(name.endswith("v_proj") for name in half.allocation.ranks)
        tokens = cache.get_seq_length()
        counted = expected_bytes(half.model.config, 4, tokens, 4, half.allocation.ranks)
        assert cache_bytes(cache) == counted
        assert counted == 4 * tokens * 3 * 4 * 8 * (1 + ratio) * 4, "no positions: nothing is rotated later"
        layers = [block.self_attn for block in half.model.model.layers]
        for layer in layers:
            layer.chunk = 5
        assert torch.allclose(step_by_step(half.model, ids, mask, prompt=12)[0], cached, atol=1e-5)
