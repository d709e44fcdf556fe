"""Compression as a whole: what the calibration says, and the proof that a cache shrank."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_llama import padded_left, tiny

from distilbench.errors import DataError, ModelError
from distilbench.lowrank import calibration, compress, generation, ranks, shapes
from distilbench.lowrank.projection import plain


@pytest.fixture
def windows():
    ids, _ = padded_left([60], seed=9)
    return calibration.cut(ids[0], 20)


@pytest.fixture(params=["llama", "qwen2"])
def model(request):
    return tiny(request.param)


def test_moments_are_those_of_keys_before_rotation_and_bias(model, windows):
    of = shapes.of_config(model.config, 2)
    moments = calibration.moments(model, of, windows)
    with torch.inference_mode():
        attention = model.model.layers[0]
        states = [attention.input_layernorm(model.model.embed_tokens(window))[0] for window in windows]
        keys = torch.cat(states).double() @ attention.self_attn.k_proj.weight.double().T
    group = keys[:, of.group_width :]
    assert torch.allclose(moments["model.layers.0.self_attn.k_proj"][1], group.T @ group, rtol=1e-4, atol=1e-3)
    assert not attention.self_attn.k_proj._forward_hooks, "hooks are taken away"


def test_fisher_is_of_the_next_token(model, windows):
    of = shapes.of_config(model.config, 2)
    scores = calibration.fisher(model, of, windows)
    name, weight = "model.layers.1.self_attn.v_proj", model.model.layers[1].self_attn.v_proj.weight
    square = torch.zeros_like(weight)
    for window in windows:
        weight.requires_grad_(True)
        logits = model(window).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, window[0, 1:])
        square += torch.autograd.grad(loss, weight)[0] ** 2
    assert scores[name] == pytest.approx(float((square / len(windows)).sqrt().mean()), rel=1e-5)
    assert set(scores) == set(of.projections)


@pytest.mark.parametrize("what", [calibration.moments, calibration.fisher])
def test_a_text_shorter_than_a_window(model, what):
    with pytest.raises(DataError, match="shorter than one window"):
        what(model, shapes.of_config(model.config, 2), [])


def test_windows_are_whole_and_evenly_spaced():
    ids = torch.arange(105)
    assert [int(window[0, 0]) for window in calibration.cut(ids, 10)] == list(range(0, 100, 10))
    assert [int(window[0, 0]) for window in calibration.cut(ids, 10, 4)] == [0, 20, 50, 70]
    assert calibration.cut(ids[:9], 10) == []


def test_more_is_kept_where_more_is_allowed(windows):
    kept, off = [], []
    ids, _ = padded_left([30], seed=11)
    with torch.inference_mode():
        expected = tiny()(ids).logits
    for ratio in (0.25, 0.5, 0.75, 1.0):
        model = tiny()
        of = shapes.of_config(model.config, 2)
        moments = calibration.moments(model, of, windows)
        made = compress.compress(model, of, ranks.uniform(of, ratio, 1), moments)
        kept.append(calibration.retained(made.energy)["k_proj"])
        with torch.inference_mode():
            off.append(float((made.model(ids).logits - expected).abs().mean()))
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(1)
    assert off == sorted(off, reverse=True)


def test_the_proof_counts_bytes_and_tokens(windows):
    model = tiny()
    of = shapes.of_config(model.config, 2)
    moments = calibration.moments(model, of, windows)
    made = compress.compress(model, of, ranks.uniform(of, 0.5, 1), moments, plain)
    proof = compress.prove(made, windows[0], new_tokens=4)
    assert (proof.new_tokens, proof.cached_tokens) == (4, 23)
    assert proof.cache_bytes == proof.expected_bytes == 23 * (3 * 2 * 16 * 4 + 4)


def test_a_cache_in_full_width_is_no_proof(windows):
    model = tiny()
    of = shapes.of_config(model.config, 2)
    claimed = compress.Compressed(model, of, ranks.uniform(of, 0.5, 1), None)
    with pytest.raises(ModelError, match="keys or values are kept in full"):
        compress.prove(claimed, windows[0])


def test_logits_that_are_not_finite_are_no_proof(windows):
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    of = shapes.of_config(model.config, 2)
    with pytest.raises(ModelError, match="not finite"):
        compress.prove(compress.Compressed(model, of, ranks.uniform(of, 0.5, 1), None), windows[0])


def test_a_generation_that_ends_early_gives_no_time(monkeypatch, windows):
    model = tiny()
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **given: generate(**given | {"max_new_tokens": 3, "min_new_tokens": 3})
    )
    with pytest.raises(ModelError, match="asked for were 5 new tokens, generated were 3"):
        generation.generate(model, windows[0], torch.ones_like(windows[0]), 5)


def test_a_library_that_computes_everything_again_gives_no_time(monkeypatch, windows):
    model = tiny()
    forgotten = SimpleNamespace(get_seq_length=lambda: 0)
    done = SimpleNamespace(sequences=torch.zeros(1, windows[0].shape[1] + 5), past_key_values=forgotten)
    monkeypatch.setattr(model, "generate", lambda **_: done)
    with pytest.raises(ModelError, match="generated were 5, and the cache holds 0 tokens instead of 24"):
        generation.generate(model, windows[0], torch.ones_like(windows[0]), 5)


def test_the_clock_is_read_once_a_token_after_the_device_is_done(windows):
    fences = []
    clock = generation.TokenClock(lambda: fences.append(len(clock.stamps_ns)))
    generation.generate(tiny(), windows[0], torch.ones_like(windows[0]), 4, clock)
    assert len(clock.intervals_ms()) == 4
    assert min(clock.intervals_ms()) > 0
    assert fences == [1, 2, 3, 4], "waited for before each reading"
