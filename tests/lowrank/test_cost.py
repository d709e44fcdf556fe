"""The cost of a cached token, by numbers that were worked out by hand."""

from __future__ import annotations

import pytest

from distilbench.lowrank import cost
from distilbench.lowrank.ranks import uniform
from distilbench.lowrank.shapes import Shapes

LLAMA_3_8B = Shapes(layers=32, query_heads=32, kv_heads=8, head_dim=128, group_size=4)


def test_llama_3_8b_at_seven_tenths():
    found = cost.of_token(LLAMA_3_8B, uniform(LLAMA_3_8B, 0.7, 1).ranks, 2)
    rebuilt = 2 * 358 * 512  # two groups, each of rank 358 and 512 wide
    assert rebuilt == 366_592
    assert found["baseline"] == {"macs": 2 * 4096, "bytes": 4096}
    assert found["palu"]["macs"] == rebuilt + 4096 + 16 * 2 * 358
    assert found["palu"]["bytes"] == (2 * 716 + 2 * 1024) * 2
    assert found["ratio"]["macs"] == pytest.approx(found["palu"]["macs"] / 8192)


def test_at_full_rank_a_rebuilt_key_still_costs_more():
    found = cost.of_token(LLAMA_3_8B, uniform(LLAMA_3_8B, 1.0, 1).ranks, 4)
    assert found["ratio"]["bytes"] == 2.0, "latents are read, keys written and read"
    assert found["ratio"]["macs"] > 60
