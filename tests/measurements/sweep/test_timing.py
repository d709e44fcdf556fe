"""The timing pass and its loop on a scripted clock: when warm-up and timing end, and what every row says."""

from __future__ import annotations

from itertools import chain, count, cycle, islice, pairwise, repeat
from statistics import median
from types import SimpleNamespace

import pytest
import torch

from distilbench.errors import RunError
from distilbench.harness.loop import Loop
from distilbench.measurements.sweep.measure import timing
from distilbench.measurements.sweep.measure.timing import Timing
from distilbench.measurements.sweep.records import ITERATIONS
from distilbench.stats import half_width

BATCHES = 8
CPU = torch.device("cpu")
#: Bounds that neither hold anything up nor end anything; a test says which one it is about.
OPEN = {
    "warmup_cycles": 1, "warmup_seconds": 0.0, "warmup_max_seconds": 1e6,
    "min_cycles": 1, "min_iterations": 1, "min_seconds": 0.0, "half_width": 1e6, "max_seconds": 1e6,
}  # fmt: skip


class ScriptedClock:
    """Runs the work and says the next time of its script, in ms; a loop that should have ended long ago fails."""

    def __init__(self, script, device_ms: float | None = None) -> None:
        self.script, self.device_ms = islice(script, 2000), device_ms

    def time(self, work):
        result = work()
        return next(self.script), self.device_ms, result


class Machine:
    """Telemetry whose n-th block says n thousand MHz; each is empty when `silent`, every odd one when `sparse`."""

    def __init__(self, silent: bool = False, sparse: bool = False) -> None:
        self.silent, self.sparse, self.blocks = silent, sparse, 0

    def due(self) -> bool:
        return True

    def block(self) -> dict:
        self.blocks += 1
        return {} if self.silent or (self.sparse and self.blocks % 2) else {"cpu_MHz": 1000.0 * self.blocks}


def tensors() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Eight batches of 2 x 4 made-up token ids, no two alike; the last has one sentence only."""
    whole = [torch.arange(8 * batch, 8 * batch + 8).reshape(2, 4) for batch in range(BATCHES)]
    return [(ids, torch.ones_like(ids)) for ids in [*whole[:-1], whole[-1][:1]]]


def model(forward=lambda ids, mask: torch.zeros(len(ids), 2)) -> SimpleNamespace:
    return SimpleNamespace(forward=forward, info=SimpleNamespace(label_names=("a", "b")))


def timed(script=repeat(10.0), loaded=None, telemetry=None, **bounds) -> Timing:
    """Timing on the CPU with these times in ms and these bounds."""
    made = Timing(OPEN | bounds, loaded or model(), tensors(), CPU, telemetry or Machine(silent=True))
    made.clock = ScriptedClock(script)
    return made


def cycles_of(*times: float) -> list[float]:
    """A script in which every batch of a cycle takes the same time."""
    return [ms for ms in times for _ in range(BATCHES)]


def cycles(made: Timing, **wanted) -> list[list[float]]:
    """Times by cycle of the rows with these values."""
    rows = [row for row in made.rows if all(row[name] == value for name, value in wanted.items())]
    numbers = sorted({row["cycle"] for row in rows})
    return [[row["latency_ms"] for row in rows if row["cycle"] == number] for number in numbers]


# ------------------------------------------------------------------ warm-up


def test_a_warm_up_ends_as_soon_as_its_two_halves_agree():
    made = timed()
    assert made.warm_up() == {"cycles": 2, "seconds": pytest.approx(0.16), "settled": True}
    assert len(made.rows) == 2 * BATCHES


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"warmup_cycles": 7}, 7),
        ({"warmup_seconds": 0.5}, 7),  # 0.08 s a cycle
        ({"warmup_cycles": 7, "warmup_seconds": 0.7}, 9),
        ({"warmup_cycles": 9, "warmup_seconds": 0.5}, 9),
        ({"warmup_cycles": 5, "warmup_max_seconds": 0.1}, 5),  # no cap ends a warm-up below its floors
    ],
)
def test_the_floors_hold_even_when_it_has_settled(bounds, expected):
    made = timed(**bounds)
    assert made.warm_up() == {"cycles": expected, "seconds": pytest.approx(0.08 * expected), "settled": True}


def test_it_goes_on_while_the_times_fall():
    made = timed(chain(cycles_of(80, 40, 20), repeat(10.0)))
    assert made.warm_up() == {"cycles": 5, "seconds": pytest.approx(8 * 0.16), "settled": True}


def test_all_cycles_are_looked_at_and_not_only_the_last_two():
    made = timed(chain(cycles_of(80, 80, 80, 80, 20, 20), repeat(10.0)), warmup_cycles=8)
    assert made.warm_up()["cycles"] == 10, "at the eighth, two of 20 ms stand against two of 10 ms"


def test_batches_of_unequal_cost_are_no_reason_to_go_on():
    made = timed(cycle(range(1, BATCHES + 1)))
    assert made.warm_up()["cycles"] == 2, "both halves went over the same batches"


def test_a_warm_up_that_never_settles_is_cut_off_by_its_cap_and_kept():
    made = timed((100 * 0.99**i for i in count()), warmup_max_seconds=4.0)
    said = made.warm_up()
    spent = [sum(times) / 1e3 for times in cycles(made)]
    assert said == {"cycles": len(spent), "seconds": pytest.approx(sum(spent)), "settled": False}
    assert sum(spent[:-1]) < 4.0 <= sum(spent), "at the first cycle that met it"
    assert len(made.rows) == said["cycles"] * BATCHES
    assert {row["warmup"] for row in made.rows} == {True}


def test_a_cap_that_is_met_in_the_cycle_in_which_it_settled_does_not_count():
    made = timed(warmup_max_seconds=0.16)
    assert made.warm_up() == {"cycles": 2, "seconds": pytest.approx(0.16), "settled": True}


def test_one_cycle_cannot_have_settled():
    made = timed(repeat(125.0), warmup_max_seconds=1.0)  # met exactly
    assert made.warm_up() == {"cycles": 1, "seconds": 1.0, "settled": False}


@pytest.mark.parametrize(("bounds", "expected"), [({}, 1), ({"warmup_cycles": 6}, 6), ({"warmup_seconds": 1.5}, 4)])
def test_a_cap_of_0_asks_for_no_proof_and_the_floors_alone_count(bounds, expected):
    made = timed(cycles_of(80, 60, 40, 20, 10, 5), warmup_max_seconds=0.0, **bounds)  # 0.64, 1.12, 1.44, 1.6 s
    said = made.warm_up()
    assert (said["cycles"], said["settled"]) == (expected, None), "null, neither true nor false"


# ------------------------------------------------------------------ timed cycles


def test_constant_times_are_known_at_the_fifth_cycle():
    made = timed(half_width=0.0)
    made.measure()
    assert cycles(made) == [[10.0] * BATCHES] * 5


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min_cycles": 9}, 9),
        ({"min_iterations": 50}, 7),  # 8 a cycle
        ({"min_iterations": 48}, 6),
        ({"min_seconds": 0.7}, 9),  # 0.08 s a cycle
    ],
)
def test_each_floor_alone_keeps_it_going(bounds, expected):
    made = timed(**bounds)
    made.measure()
    assert len(cycles(made)) == expected


@pytest.mark.parametrize(
    ("bounds", "expected"), [({}, 1), ({"min_cycles": 3}, 3), ({"min_iterations": 17}, 3), ({"min_seconds": 0.1}, 2)]
)
def test_no_cap_ends_it_below_a_floor_and_none_of_them_needs_five_cycles(bounds, expected):
    made = timed(max_seconds=0.05, **bounds)
    made.measure()
    assert len(cycles(made)) == expected


def noise():
    """Cycles of 10 and 11 ms in turn: the mean becomes known ever better."""
    return chain.from_iterable(cycles_of(10, 11) for _ in count())


@pytest.mark.parametrize("asked", [0.03, 0.02, 0.01])
def test_it_ends_at_the_first_cycle_at_which_the_interval_is_narrow_enough(asked):
    made = timed(noise(), half_width=asked)
    made.measure()
    medians = [median(times) for times in cycles(made)]
    assert half_width(medians) <= asked
    assert all(half_width(medians[:n]) > asked for n in range(5, len(medians)))
    assert len(medians) > 5, "else nothing was asked of it"


def test_noisy_times_end_at_the_cap_with_a_whole_cycle():
    made = timed(chain.from_iterable(cycles_of(5, 15) for _ in count()), half_width=1e-4, max_seconds=0.98)
    made.measure()
    assert [len(times) for times in cycles(made)] == [BATCHES] * 13, "0.96 s after the twelfth"


def test_it_is_the_median_of_a_cycle_that_must_be_known():
    """One batch in each cycle is slower, each time otherwise: the mean of a cycle varies, its median does not."""
    made = timed(chain.from_iterable([*repeat(10.0, BATCHES - 1), 100.0 * 2**i] for i in count()), half_width=0.01)
    made.measure()
    assert len(cycles(made)) == 5


def test_cycles_are_numbered_on_after_the_warm_up():
    made = timed(warmup_cycles=3)
    made.warm_up()
    made.measure()
    got = [(row["cycle"], row["batch"], row["warmup"]) for row in made.rows]
    assert got == [(number, batch, number < 3) for number in range(8) for batch in range(BATCHES)]


def test_without_a_warm_up_they_begin_at_0():
    made = timed()
    made.measure()
    assert [row["cycle"] for row in made.rows[::BATCHES]] == [0, 1, 2, 3, 4]
    assert not any(row["warmup"] for row in made.rows)


def test_a_second_measurement_counts_from_nothing_and_numbers_on():
    made = timed()
    made.measure()
    made.measure()
    assert [row["cycle"] for row in made.rows[::BATCHES]] == list(range(10))


def test_every_batch_is_given_to_the_model_in_its_turn():
    seen = []
    made = timed(loaded=model(lambda ids, mask: seen.append((ids, mask)) or torch.zeros(len(ids), 2)))
    made.measure()
    assert [(id(ids), id(mask)) for ids, mask in seen] == [(id(ids), id(mask)) for ids, mask in made.tensors] * 5


def test_a_row_holds_what_the_clock_said():
    made = timed()
    made.clock = ScriptedClock(count(1.0), device_ms=0.5)
    made.measure()
    row = made.rows[BATCHES + 7]
    assert row.pop("page_faults") >= 0
    assert row == {
        "kind": "forward", "cycle": 1, "batch": 7, "warmup": False, "samples": 1,
        "latency_ms": 16.0, "latency_device_ms": 0.5,
    }  # fmt: skip
    assert [row["samples"] for row in made.rows[:BATCHES]] == [2] * 7 + [1]


def test_logits_are_those_of_the_first_timed_cycle():
    calls = count()
    made = timed(loaded=model(lambda ids, mask: torch.full((len(ids), 2), float(next(calls)))), warmup_cycles=2)
    made.warm_up()
    assert made.results == []
    made.measure()
    assert [part.unique().item() for part in made.results] == list(range(16, 24))
    assert [len(part) for part in made.results] == [2] * 7 + [1]


def test_the_machines_state_stands_on_the_last_row_of_a_cycle():
    made = timed(telemetry=Machine())
    made.warm_up()
    made.measure()
    stands = {(row["cycle"], row["batch"]): row["cpu_MHz"] for row in made.rows if "cpu_MHz" in row}
    assert stands == {(number, BATCHES - 1): 1000.0 * (number + 1) for number in range(7)}


def test_a_block_without_a_reading_leaves_no_column():
    made = timed(telemetry=Machine(sparse=True))
    made.measure()
    assert [row["cycle"] for row in made.rows if "cpu_MHz" in row] == [1, 3]
    assert made.telemetry.blocks == 5, "it is asked once a cycle"


def test_on_the_cpu_the_hosts_clock_is_taken():
    made = Timing(OPEN, model(), tensors(), CPU, Machine(silent=True))
    made.measure()
    assert all(row["latency_ms"] > 0 and row["latency_device_ms"] is None for row in made.rows)


def test_the_loop_itself_times_any_steps_and_keeps_their_results():
    loop = Loop(OPEN | {"min_cycles": 6}, [lambda: "a", lambda: "b"], [3, 1], ScriptedClock(repeat(1.0)), Machine())
    loop.measure()
    assert loop.results == ["a", "b"]
    assert [row["samples"] for row in loop.rows] == [3, 1] * 6


def test_steps_and_samples_must_match():
    loop = Loop(OPEN, [lambda: "a", lambda: "b"], [3], ScriptedClock(repeat(1.0)), Machine())
    with pytest.raises(ValueError, match="shorter"):
        loop.measure()


# ------------------------------------------------------------------ requests


def texts(made: Timing) -> list[list[str]]:
    """Sentences that spell out the token ids."""
    return [[" ".join(map(str, sentence)) for sentence in ids.tolist()] for ids, _ in made.tensors]


def encode(sentences: list[str]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[int(word) for word in sentence.split()] for sentence in sentences])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_requests_are_one_cycle_of_rows_with_four_parts():
    made = timed()
    made.measure()
    before = len(made.rows)
    made.requests(texts(made), encode)
    rows = made.rows[before:]
    assert [(row["kind"], row["cycle"], row["batch"], row["samples"], row["warmup"]) for row in rows] == [
        ("request", 5, batch, 1 if batch == 7 else 2, False) for batch in range(BATCHES)
    ]
    parts = ("tokenise_ms", "transfer_ms", "latency_ms", "postprocess_ms")
    assert all(0 <= row[part] < 1000 for row in rows for part in parts)
    assert set(rows[0]) <= set(ITERATIONS.names), "each has a column"


class Host:
    """A host on which each step takes a time of its own, and which keeps the order of the steps."""

    def __init__(self) -> None:
        self.now_ns, self.steps = 10**9, []
        self.takes_ms = {"encode": 1, "move": 2, "forward": 8, "label": 16, "fence": 0}

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        self.now_ns += self.takes_ms[step] * 10**6


class Moved:
    """Token ids that take time to move."""

    def __init__(self, host: Host, tensor: torch.Tensor) -> None:
        self.host, self.tensor = host, tensor

    def to(self, device) -> torch.Tensor:
        assert device is CPU
        self.host("move")
        return self.tensor


class Names:
    """Label names that take time to find."""

    def __init__(self, host: Host) -> None:
        self.host, self.found = host, []

    def __getitem__(self, label: int) -> str:
        self.host("label")
        self.found.append("ab"[label])
        return self.found[-1]


@pytest.fixture
def host(monkeypatch):
    host = Host()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: host.now_ns))
    monkeypatch.setattr(timing, "synchronize", lambda device: host("fence"))
    return host


def test_each_part_of_a_request_has_its_own_time_between_fences(host):
    names = Names(host)
    logits = torch.tensor([[-1.0, 3.0], [2.0, 1.0]], dtype=torch.bfloat16)
    loaded = model(lambda ids, mask: host("forward") or logits[: len(ids)])
    loaded.info.label_names = names
    made = timed(loaded=loaded, max_seconds=0.0)
    made.measure()
    host.steps.clear()

    def encoded(sentences: list[str]) -> dict[str, Moved]:
        host("encode")
        return {name: Moved(host, part) for name, part in encode(sentences).items()}

    made.requests(texts(made), encoded)
    first, last = made.rows[BATCHES], made.rows[-1]
    parts = ("tokenise_ms", "transfer_ms", "latency_ms", "postprocess_ms")
    assert [first[part] for part in parts] == [1, 2 * 2, 8, 2 * 16], "two tensors, two labels"
    assert [last[part] for part in parts] == [1, 2 * 2, 8, 16]
    assert host.steps[:9] == ["fence", "encode", "move", "move", "fence", "forward", "fence", "label", "label"]
    assert names.found == ["b", "a"] * 8 + ["b"], "one request before those that count"


@pytest.mark.parametrize("other", ["64 65 66 67", "8 9 10 11 12"], ids=["another id", "another length"])
def test_other_ids_than_were_timed_are_refused_and_the_batch_is_named(other):
    made = timed(max_seconds=0.0)
    made.measure()
    sentences = texts(made)
    sentences[1] = [other] * 2
    with pytest.raises(RunError, match=r"^batch 1: .* other ids"):
        made.requests(sentences, encode)
    assert [row["batch"] for row in made.rows if row["kind"] == "request"] == [0]


# ------------------------------------------------------------------ cycles without fences


def on_gpu(made: Timing, script) -> Timing:
    made.measure()
    made.device, made.clock = SimpleNamespace(type="cuda"), ScriptedClock(script, device_ms=250.0)
    return made


def test_on_the_cpu_nothing_is_queued():
    made = timed()
    made.measure()
    before = list(made.rows)
    made.steady(1.0)
    assert made.rows == before


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (0.2, 1), (1.0, 4), (1.2, 4), (1.3, 5)])
def test_on_a_gpu_whole_cycles_are_queued_until_the_time_is_over(seconds, expected):
    made = on_gpu(timed(max_seconds=0.0), repeat(300.0))
    made.steady(seconds - 1e-9 if seconds else 0.0)
    assert [row["kind"] for row in made.rows[BATCHES:]] == ["steady"] * expected


def test_a_row_of_queued_work_stands_for_the_whole_cycle():
    seen = []
    made = timed(loaded=model(lambda ids, mask: seen.append((id(ids), id(mask))) or torch.zeros(len(ids), 2)))
    on_gpu(made, [300.0, 310.0])
    seen.clear()
    made.steady(0.5)
    first, second = made.rows[-2:]
    assert first == {
        "kind": "steady", "cycle": 5, "batch": 0, "warmup": False, "samples": 15,
        "latency_ms": 300.0, "latency_device_ms": 250.0,
    }  # fmt: skip
    assert second == first | {"cycle": 6, "latency_ms": 310.0}
    assert seen == [(id(ids), id(mask)) for ids, mask in made.tensors] * 3, (
        "one before those that count, and one reading of the clock for all batches"
    )


def test_after_requests_the_numbers_go_on():
    made = timed(max_seconds=0.0)
    made.measure()
    made.requests(texts(made), encode)
    made.device, made.clock = SimpleNamespace(type="cuda"), ScriptedClock([300.0])
    made.steady(0.0)
    numbers = [(row["kind"], row["cycle"]) for row in islice(made.rows, 0, None, BATCHES)]
    assert numbers == [("forward", 0), ("request", 1), ("steady", 2)]
    assert all(before["cycle"] <= after["cycle"] for before, after in pairwise(made.rows))
