"""Ranks: what is asked for, what blocks make of it, and what a rank file may hold."""

from __future__ import annotations

import pytest

from distilbench.errors import ModelError, ParameterError
from distilbench.lowrank import ranks
from distilbench.lowrank.shapes import Shapes, check_group_size

LLAMA_8B = Shapes(32, 32, 8, 128, 4)
SMOLLM2 = Shapes(30, 9, 3, 64, 3)
SMALL = Shapes(2, 8, 4, 8, 2)


@pytest.mark.parametrize(
    ("shapes", "block", "rank", "effective"),
    [
        (LLAMA_8B, 1, 358, 0.699),
        (LLAMA_8B, 8, 360, 0.703),
        (LLAMA_8B, 32, 352, 0.6875),
        (SMOLLM2, 8, 136, 0.708),
        (SMOLLM2, 32, 128, 0.667),
        (Shapes(30, 9, 3, 64, 1), 32, 32, 0.5),  # two thirds of the wish: small groups need small blocks
    ],
)
def test_blocks_change_the_ratio_and_say_so(shapes, block, rank, effective):
    allocation = ranks.uniform(shapes, 0.7, block)
    assert set(allocation.ranks.values()) == {(rank,) * shapes.groups}
    assert allocation.effective == pytest.approx(effective, abs=5e-4)
    assert (allocation.requested, allocation.block, allocation.search) == (0.7, block, "uniform")


def test_a_ratio_of_one_keeps_all_even_where_the_block_does_not_divide_a_group():
    assert ranks.uniform(SMOLLM2, 1.0, 128).ranks[SMOLLM2.projections[0]] == (192,)
    assert ranks.by_fisher(SMOLLM2, 1.0, dict.fromkeys(SMOLLM2.projections, 1.0), 128).effective == 1.0


def test_fisher_gives_more_to_those_that_matter_and_spends_the_whole_budget():
    scores = dict(zip(SMALL.projections, (1.0, 2.0, 1.0, 4.0), strict=True))
    allocation = ranks.by_fisher(SMALL, 0.5, scores, block=1)
    blocks = [allocation.ranks[name][0] for name in SMALL.projections]
    assert sum(blocks) == 0.5 * 4 * SMALL.group_width
    assert blocks == [4, 8, 4, 16]
    assert all(len(set(given)) == 1 for given in allocation.ranks.values()), "groups of a projection have the same"


def test_what_a_full_projection_cannot_take_goes_to_the_others():
    scores = dict(zip(SMALL.projections, (1.0, 1.0, 1.0, 100.0), strict=True))
    blocks = [ranks.by_fisher(SMALL, 0.5, scores, block=1).ranks[name][0] for name in SMALL.projections]
    assert sorted(blocks) == [5, 5, 6, 16]


@pytest.mark.parametrize("scores", [(0.0, 0.0, 0.0, 1.0), (1e-30, 1.0, 1.0, 1e30)])
def test_extreme_scores_leave_everyone_a_block(scores):
    blocks = ranks.shared_out(scores, 20, 8)
    assert sum(blocks) == 20
    assert min(blocks) >= 1
    assert max(blocks) <= 8


@pytest.mark.parametrize("ratio", [0, 1.5, -0.1])
def test_a_ratio_is_a_fraction(ratio):
    with pytest.raises(ParameterError, match=r"must be above 0 and at most 1: it is the fraction"):
        ranks.uniform(SMALL, ratio)


def test_a_block_larger_than_a_group():
    with pytest.raises(ParameterError, match="block 32 must be from 1 to the width of a group, 16"):
        ranks.uniform(SMALL, 0.5, 32)


def test_fisher_information_has_to_be_there():
    scores = dict.fromkeys(SMALL.projections, 1.0)
    with pytest.raises(ParameterError, match=r"no Fisher information of model\.layers\.0\.self_attn\.k_proj"):
        ranks.by_fisher(SMALL, 0.5, {})
    for bad in (0.0, float("nan")):
        with pytest.raises(ParameterError, match="finite, not negative"):
            ranks.by_fisher(SMALL, 0.5, dict.fromkeys(scores, bad))


def test_ranks_of_a_file():
    given = {name: [3, 7] for name in SMALL.projections}
    allocation = ranks.from_file(given, SMALL)
    assert allocation.effective == 10 / 32
    assert allocation.search == "file"


def test_ranks_of_another_model():
    given = {name: [3, 7] for name in SMALL.projections}
    with pytest.raises(ParameterError, match="they name 60 projections, this model has 4"):
        ranks.from_file(ranks.uniform(SMOLLM2, 0.5).ranks, SMALL)
    name = SMALL.projections[1]
    for bad in ([3], [3, 17], [0, 3]):
        with pytest.raises(ParameterError, match="2 groups of 2 heads, each with a rank of 1 to 16"):
            ranks.from_file(given | {name: bad}, SMALL)


def test_a_group_size_that_does_not_divide_the_heads():
    with pytest.raises(
        ModelError, match="group size 4 does not divide the 3 key-value heads of this model; it can be 1, 3"
    ):
        check_group_size(4, 3)
