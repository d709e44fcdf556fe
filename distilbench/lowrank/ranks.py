"""How many dimensions each group keeps: the same for all, or by what the loss says of each projection.

A ratio is the fraction that is kept: 0.7 keeps 70 % of the cache. Ranks are whole blocks, since products of odd sizes
can be slower than larger ones of round sizes; so the ratio that results differs from the one asked for, and is
reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distilbench.errors import ParameterError
from distilbench.lowrank.shapes import Shapes

Ranks = Mapping[str, tuple[int, ...]]  # projection -> rank of each group


@dataclass(frozen=True)
class Allocation:
    """The ranks of a model.

    Attributes:
        ranks: projection -> rank of each of its groups.
        requested: fraction to keep, as asked for; null where ranks were read from a file.
        effective: fraction that the ranks keep.
        block: ranks are multiples of it, but for full ranks.
        search: uniform, fisher, or file.
    """

    ranks: Ranks
    requested: float | None
    effective: float
    block: int
    search: str


def uniform(shapes: Shapes, ratio: float, block: int = 8) -> Allocation:
    """The same rank for every group.

    Raises:
        ParameterError: the ratio is not above 0 and at most 1, or the block is larger than a group.
    """
    _check(shapes, ratio, block)
    rank = rounded(ratio * shapes.group_width, block, shapes.group_width)
    ranks = dict.fromkeys(shapes.projections, (rank,) * shapes.groups)
    return Allocation(ranks, ratio, effective_ratio(ranks, shapes), block, "uniform")


def by_fisher(shapes: Shapes, ratio: float, scores: Mapping[str, float], block: int = 8) -> Allocation:
    """Ranks in proportion to each projection's Fisher information; groups of a projection have the same.

    A projection that would get more than it has keeps all, and the others share what is over. The sum is the budget
    to within less than a block per group of one projection (as PaLU does, but in blocks from the start: its tools
    round ranks after the search, which changes the sum).

    Args:
        scores: projection -> mean root of the squared gradients (`calibration.fisher`).

    Raises:
        ParameterError: ratio or block do not fit, or scores are missing, negative, or all 0.
    """
    _check(shapes, ratio, block)
    names = shapes.projections
    if missing := [name for name in names if name not in scores]:
        raise ParameterError(f"no Fisher information of {missing[0]} and {len(missing) - 1} others")
    values = [float(scores[name]) for name in names]
    if not all(0 <= value < float("inf") for value in values) or not any(values):
        raise ParameterError("Fisher information must be finite, not negative, and not 0 everywhere")
    most = -(-shapes.group_width // block)  # blocks of a full rank; the last may be a part of one
    # the last block of a full rank may be a part of one, so that all of them are more than the rows
    budget = most * len(names) if ratio == 1 else round(ratio * shapes.group_width * len(names) / block)
    blocks = shared_out(values, max(budget, len(names)), most)
    ranks = {n: (min(b * block, shapes.group_width),) * shapes.groups for n, b in zip(names, blocks, strict=True)}
    return Allocation(ranks, ratio, effective_ratio(ranks, shapes), block, "fisher")


def shared_out(scores: Sequence[float], budget: int, most: int) -> list[int]:
    """Whole blocks in proportion to scores, each at least 1 and at most `most`, in all exactly the budget.

    The scale is found by bisection; what rounding down leaves goes to the largest remainders.
    """
    budget = min(budget, most * len(scores))
    low, high = 0.0, most / min((score for score in scores if score), default=1.0)
    for _ in range(200):  # more halvings than a float has bits
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_shares(scores, middle, most)) <= budget else (low, middle)
    shares = _shares(scores, low, most)
    blocks = [int(share) for share in shares]
    open_ones = sorted(range(len(scores)), key=lambda i: (blocks[i] - shares[i], i))
    while (left := budget - sum(blocks)) > 0:
        for i in [i for i in open_ones if blocks[i] < most][:left]:
            blocks[i] += 1
    return blocks


def _shares(scores: Sequence[float], scale: float, most: int) -> list[float]:
    return [min(float(most), max(1.0, score * scale)) for score in scores]


def rounded(rank: float, block: int, width: int) -> int:
    """The nearest multiple of a block, at least one block and at most the width of a group."""
    return min(width, max(block, block * round(rank / block)))


def effective_ratio(ranks: Ranks, shapes: Shapes) -> float:
    """What the ranks keep of all keys and values."""
    return sum(map(sum, ranks.values())) / (len(shapes.projections) * shapes.kv_heads * shapes.head_dim)


def from_file(ranks: Mapping[str, Sequence[int]], shapes: Shapes) -> Allocation:
    """Ranks as a rank file has them (`head_wise_ranks`).

    Raises:
        ParameterError: they are of another model: other projections, another number of groups, or a rank that a
            group cannot have.
    """
    names = set(shapes.projections)
    if set(ranks) != names:
        odd = sorted(set(ranks) ^ names)
        raise ParameterError(
            f"the ranks are of another model: they name {len(ranks)} projections, this model has {len(names)}; "
            f"{odd[0]} is only in one of them"
        )
    for name in shapes.projections:
        given = ranks[name]
        if len(given) != shapes.groups or not all(1 <= rank <= shapes.group_width for rank in given):
            raise ParameterError(
                f"{name}: the ranks {list(given)} do not fit; this model has {shapes.groups} groups of "
                f"{shapes.group_size} heads, each with a rank of 1 to {shapes.group_width}"
            )
    kept = {name: tuple(int(rank) for rank in ranks[name]) for name in shapes.projections}
    return Allocation(kept, None, effective_ratio(kept, shapes), 1, "file")


def only(allocation: Allocation, names: Sequence[str], shapes: Shapes) -> Allocation:
    """The same of these projections alone; all others stay whole, and count so in the effective ratio."""
    whole = dict.fromkeys(shapes.projections, (shapes.group_width,) * shapes.groups)
    kept = {name: allocation.ranks[name] for name in names}
    return replace(allocation, ranks=kept, effective=effective_ratio(whole | kept, shapes))


def _check(shapes: Shapes, ratio: float, block: int) -> None:
    if not 0 < ratio <= 1:
        raise ParameterError(
            f"ratio {ratio:g} must be above 0 and at most 1: it is the fraction of keys and values that is kept"
        )
    if not 1 <= block <= shapes.group_width:
        raise ParameterError(f"block {block} must be from 1 to the width of a group, {shapes.group_width}")
