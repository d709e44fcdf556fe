"""The measuring loop without a model (with one: test_timing), and forwards that are slower on purpose."""

from __future__ import annotations

import pytest

from distilbench.bench import loop


@pytest.mark.parametrize("percent", [2, 5, 10])
def test_a_slowed_variant_takes_that_much_longer(percent, monkeypatch):
    """By a clock of which each reading is a microsecond later: the forward seems to take 1000 of them."""
    readings = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(loop.time, "perf_counter_ns", lambda: next(readings))

    def forward():
        for _ in range(999):
            next(readings)
        return "logits"

    assert loop.slowed(forward, percent / 100)() == "logits"
    assert next(readings) / 1e6 == pytest.approx(1 * (1 + percent / 100), rel=0.003)
