"""The packed variant: the same logits without padding, and a proof that fails where padding is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distilbench.errors import ModelError
from distilbench.sources.families.distilbert import forward_flops
from distilbench.sources.models import load_model
from distilbench.variants import packed, registry

TINY = {"source": "random", "size": "tiny", "vocab_size": 200}
VARIANT = registry.named("packed")


def batch(lengths: list[int], longest: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 (B, longest): sequences of these lengths, filled up behind."""
    ids = torch.randint(1, 200, (len(lengths), longest), generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([[int(place < length) for place in range(longest)] for length in lengths])
    return ids * mask, mask


@pytest.mark.parametrize(
    ("lengths", "longest"), [([7], 7), ([7], 32), ([1, 9, 4, 4], 9), ([3, 12, 1], 64), ([5] * 16, 5)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_those_with_padding(lengths, longest, dtype):
    ids, mask = batch(lengths, longest)
    plain, ours = load_model(**TINY, dtype=dtype), VARIANT.load(**TINY, dtype=dtype)
    close = 1e-5 if dtype == "float32" else 0.02
    assert torch.allclose(ours.forward(ids, mask), plain.forward(ids, mask), atol=close)


def test_a_sequence_does_not_see_its_neighbours():
    ours = VARIANT.load(**TINY)
    ids, mask = batch([6, 3, 8], 8)
    together = ours.forward(ids, mask)
    for row, length in enumerate([6, 3, 8]):
        alone = ours.forward(ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert torch.allclose(together[row], alone[0], atol=1e-5)


def watched(loaded, lengths=(4, 9)) -> dict:
    ids, mask = batch(list(lengths), 16)
    with VARIANT.watch(loaded) as proof:
        loaded.forward(ids, mask)
    return proof


def test_the_proof_counts_what_was_computed():
    found = watched(VARIANT.load(**TINY))
    assert found == {"attention": packed.ATTENTION, "matmul_dtype": "float32", "rows": 13, "tokens": 13}


def test_padding_that_was_computed_is_refused():
    """Sabotage: the padded forward under the packed one's name."""
    loaded, plain = VARIANT.load(**TINY), load_model(**TINY)
    sabotaged = replace(loaded, module=plain.module, forward=plain.forward)
    with pytest.raises(ModelError, match="padding was computed: the linear layers had 32 rows for 13 tokens"):
        watched(sabotaged)


def test_another_attention_or_type_is_refused():
    loaded = VARIANT.load(**TINY)
    with pytest.raises(ModelError, match="packed attention was asked for, 'sdpa' was used"):
        watched(replace(loaded, info=replace(loaded.info, attention="sdpa")))
    with pytest.raises(ModelError, match="bfloat16 arithmetic was asked for, the linear layers gave float32"):
        watched(replace(loaded, info=replace(loaded.info, dtype="bfloat16")))
    with pytest.raises(ModelError, match="had None rows"), VARIANT.watch(loaded):
        pass


def test_the_watch_leaves_no_hook_behind():
    loaded = VARIANT.load(**TINY)
    watched(loaded)
    modules = list(loaded.module.modules())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in modules)


def test_the_cost_is_that_of_the_tokens():
    loaded = VARIANT.load(**TINY)
    ids, _ = batch([4, 9], 16)
    config = loaded.module.config
    flops, moved = loaded.cost(ids)
    assert flops == forward_flops(config, 1, 4) + forward_flops(config, 1, 9)
    assert flops < load_model(**TINY).cost(ids)[0]
    assert moved > 0


def test_another_architecture_is_refused():
    with pytest.raises(ModelError, match=r"variant 'packed' runs DistilBERT; .* is a Qwen2\.5: take sdpa"):
        VARIANT.load(source="random", size="tiny", vocab_size=200, family="qwen2")
