from collections import Counter

import pytest

from distilbench.training.order import POOL, Sampler, Sizes, steps_of

LENGTHS = [3 + (7 * i) % 23 for i in range(101)]  # a prime: nothing divides it


def taken(world: int, batch: int, epoch: int = 0, start: int = 0, **given) -> list[list[list[int]]]:
    """By step, the rows of each process."""
    sizes = Sizes(batch, given.pop("accumulation", 1), world)
    samplers = [Sampler(LENGTHS, rank, world, 17, sizes.step, start=start, **given) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    rows = [iter(sampler) for sampler in samplers]
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]
    found = []
    for count, forwards in steps_of(len(LENGTHS), start, sizes):
        step = [[row for _ in range(forwards * batch) for row in [next(one, None)] if row is not None] for one in rows]
        assert sum(row >= 0 for part in step for row in part) == count
        assert len({len(part) for part in step}) == 1, "no process has a forward that another has not"
        found.append(step)
    assert all(next(one, None) is None for one in rows)
    return found


@pytest.mark.parametrize("by_length", [True, False])
@pytest.mark.parametrize(("world", "batch"), [(1, 12), (2, 6), (3, 4), (4, 3)])
def test_every_row_is_taken_once(world, batch, by_length):
    rows = [row for step in taken(world, batch, by_length=by_length) for part in step for row in part]
    assert Counter(row for row in rows if row >= 0) == Counter(range(101))
    assert sum(row < 0 for row in rows) == -101 % world, "those that fill up weigh nothing"


@pytest.mark.parametrize("by_length", [True, False])
def test_a_step_has_the_same_rows_for_any_number_of_processes(by_length):
    alone = [sorted(step[0]) for step in taken(1, 12, by_length=by_length)]
    for world, batch, accumulation in [(2, 6, 1), (3, 4, 1), (2, 3, 2), (1, 4, 3)]:
        many = taken(world, batch, by_length=by_length, accumulation=accumulation)
        assert [sorted(row for part in step for row in part if row >= 0) for step in many] == alone


def test_each_epoch_has_another_order_and_each_time_the_same():
    assert taken(2, 6) == taken(2, 6)
    assert taken(2, 6) != taken(2, 6, epoch=1)


def test_rows_of_similar_length_stand_together():
    def padding(steps):
        return sum(max(LENGTHS[row] for row in step[0]) * len(step[0]) for step in steps) - sum(LENGTHS)

    assert padding(taken(1, 12)) < 0.5 * padding(taken(1, 12, by_length=False))
    assert POOL > 1


def test_a_resumption_takes_what_was_left_with_another_number_of_processes_too():
    whole = taken(2, 6)
    seen = 3 * 12
    left = taken(3, 4, start=seen)
    rows = [sorted(row for part in step for row in part if row >= 0) for step in left]
    assert rows == [sorted(row for part in step for row in part if row >= 0) for step in whole[3:]]


def test_a_resumption_fills_up_with_the_same_row():
    """A row of another length would draw other numbers for dropout."""
    assert taken(2, 6, start=36)[-1] == taken(2, 6)[-1]
    assert taken(2, 6, start=101) == []


def test_the_forwards_of_a_short_last_step():
    assert steps_of(101, 0, Sizes(3, 2, 2)) == [(12, 2)] * 8 + [(5, 1)]
    assert steps_of(101, 96, Sizes(3, 2, 2)) == [(5, 1)]
    assert steps_of(24, 24, Sizes(3, 2, 2)) == []
