"""The embedded decoder: the cache shrinks as promised, and principal components lose least."""

from __future__ import annotations

import copy

import pytest
import torch

from distilbench import studies
from distilbench.lowrank import calibration, compress, prepared, ranks, shapes
from distilbench.lowrank.projection import plain, principal
from distilbench.measurements.perplexity.measure import windows, worker
from distilbench.measurements.task_scores.measure import scorer, tasks
from distilbench.measurements.task_scores.measure import worker as answering
from distilbench.sources import prose
from distilbench.sources.decoders import load_decoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
LENGTH, WINDOWS = 256, 6


@pytest.fixture(scope="module")
def loaded():
    return load_decoder(source="embedded")


@pytest.fixture(scope="module")
def params():
    return studies.resolve("palu", {"profile": "smoke"}).params


@pytest.fixture(scope="module")
def calibrated(loaded, params):
    of = shapes.of_config(loaded.module.config, params.group_size)
    chosen, _ = prepared.windows_of(params, loaded)
    return of, calibration.moments(loaded.module, of, chosen), calibration.fisher(loaded.module, of, chosen)


@pytest.fixture(scope="module")
def loss(loaded, params):
    """Of a model on held-out windows, in nats per token."""
    ids, _ = prepared.tokens_of(params, loaded, calibrating=False)
    chosen = windows.chosen(windows.disjoint(len(ids), LENGTH), WINDOWS)
    return lambda model: sum(worker.score(model, ids, one, 0) for one in chosen) / sum(one.scored for one in chosen)


def test_it_writes_text(loaded):
    tokenizer = loaded.tokenizer()
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    out = loaded.module.generate(input_ids=ids, do_sample=False, max_new_tokens=4, pad_token_id=0)
    assert "Paris" in tokenizer.decode(out[0])
    assert loaded.info.parameters == 134_515_008


def test_perplexity_and_tasks_agree_with_the_harness(loaded, params):
    """Absolute numbers of real weights: sums over rolling windows of whole lines, and log-probabilities of choices."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer, length = loaded.tokenizer(), 64
    texts = [f"{line}\n" for line in prose.tiny_corpus().text.split("\n")[20:80:12]]
    harness = HFLM(loaded.module, tokenizer=tokenizer, max_length=length, add_bos_token=False, batch_size=2)
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    theirs = [-one for one in harness.loglikelihood_rolling(asked, disable_tqdm=True)]
    ours = []
    for text in texts:
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
        own = windows.rolling([(0, len(ids))], length)
        ours.append(sum(worker.score(loaded.module, ids, one, tokenizer.bos_token_id) for one in own))
    assert ours == pytest.approx(theirs, rel=1e-5)

    (task,) = tasks.load([tasks.CHOSEN]).values()
    found, _ = answering.evaluate(loaded, tokenizer, task, 1, {"batch_size": 4, "limit": 5})
    for sample in found:
        pairs = answering.pairs_of(sample)
        own = [scorer.logprob(loaded.module, tokenizer, *pair, 8192) for pair in pairs]
        assert own == pytest.approx([float(one[0][0]) for one in sample["resps"]], abs=1e-4)


def test_the_cache_at_seven_tenths(loaded, calibrated):
    of, moments, scores = calibrated
    ids = torch.arange(100, 164)[None]
    for allocation in (ranks.uniform(of, 0.7), ranks.by_fisher(of, 0.7, scores)):
        made = compress.compress(copy.deepcopy(loaded.module), of, allocation, moments)
        proof = compress.prove(made, ids)
        whole = 1 * proof.cached_tokens * 30 * 2 * 3 * 64 * 4
        assert proof.cache_bytes / whole == pytest.approx(0.70, abs=0.02)


def test_less_is_lost_the_more_is_kept_and_principal_components_lose_least(loaded, calibrated, loss):
    of, moments, scores = calibrated
    whole = loss(loaded.module)
    found = {}
    for ratio in (0.3, 0.5, 0.7, 0.9, 1.0):
        uniform = ranks.uniform(of, ratio)
        forms = {
            "uniform": (uniform, principal),
            "fisher": (ranks.by_fisher(of, ratio, scores), principal),
            "plain": (uniform, plain),
        }
        for name, (allocation, how) in forms.items():
            made = compress.compress(copy.deepcopy(loaded.module), of, allocation, moments, how)
            found[name, ratio] = loss(made.model)
    for name in ("uniform", "fisher", "plain"):
        by_ratio = [found[name, ratio] for ratio in (0.3, 0.5, 0.7, 0.9, 1.0)]
        assert by_ratio == sorted(by_ratio, reverse=True)
        assert by_ratio[-1] == pytest.approx(whole, abs=1e-4), "all is kept"
    assert all(found["uniform", ratio] <= found["plain", ratio] + 1e-4 for ratio in (0.3, 0.5, 0.7, 0.9, 1.0))
    assert found["uniform", 0.5] < found["plain", 0.5]
