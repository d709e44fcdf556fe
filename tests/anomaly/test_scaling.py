"""The line through the other sizes: exact where they are on one, and not bent by those that are not."""

from __future__ import annotations

import numpy as np
import pytest
from batch_profiles import FIXED_MS, PER_SAMPLE_MS, SIZES, truth

from distilbench.anomaly import scaling

NUMBERS = np.array(SIZES, dtype=float)
EXACT = np.array([truth(size) for size in SIZES])


def test_sizes_on_a_line_give_that_line_and_predict_any_other():
    assert scaling.line(NUMBERS, EXACT) == pytest.approx((FIXED_MS, PER_SAMPLE_MS))
    assert scaling.predictor(NUMBERS, EXACT, 20.0) @ EXACT == pytest.approx(truth(20))


@pytest.mark.parametrize("off", [{1: 1.3}, {128: 0.7}, {2: 1.3, 3: 1.3}, {1: 1.5, 64: 0.6, 8: 1.1, 9: 1.1, 10: 1.1}])
def test_a_few_sizes_that_are_off_get_no_weight(off):
    bent = EXACT * [off.get(size, 1.0) for size in SIZES]
    assert scaling.line(NUMBERS, bent) == pytest.approx((FIXED_MS, PER_SAMPLE_MS))
    weights = dict(zip(SIZES, scaling.predictor(NUMBERS, bent, 20.0), strict=True))
    assert {size for size, weight in weights.items() if not weight} == set(off)


def test_least_squares_would_be_bent_by_one():
    """What the line is for: a plain fit of relative errors takes the first size for the fixed cost."""
    bent = EXACT * np.where(NUMBERS == 1, 1.3, 1.0)
    fixed = np.polyfit(NUMBERS, bent, 1, w=1 / bent)[1]
    assert fixed > 1.1 * FIXED_MS


def test_a_size_does_not_predict_itself_and_deviates_by_what_it_is_off():
    off = np.where(NUMBERS == 4, 0.85, 1.0)
    deviations, coefficients = scaling.deviations(NUMBERS, np.tile(EXACT * off, (3, 1)))
    assert not coefficients.diagonal().any()
    assert np.exp(deviations) == pytest.approx(np.tile(off, (3, 1)))


def test_what_slows_a_whole_round_down_drops_out():
    rounds = EXACT * np.array([1.0, 1.4, 0.9])[:, None]
    assert scaling.deviations(NUMBERS, rounds)[0] == pytest.approx(0)


def test_of_few_sizes_the_line_is_that_of_least_squares_of_relative_errors():
    sizes, latency = np.array([1.0, 2.0, 4.0]), np.array([10.0, 14.0, 17.0])
    slope, fixed = np.polyfit(sizes, latency, 1, w=1 / latency)
    assert scaling.line(sizes, latency) == pytest.approx((fixed, slope))
