"""Windows of four definitions: which tokens are scored, how often, and with what before them."""

from __future__ import annotations

import pytest

from distilbench.measurements.perplexity.measure.windows import chosen, disjoint, rolling, strided, weighted


def scored(windows):
    return [token for window in windows for token in range(window.first, window.end)]


def test_disjoint_windows_leave_out_the_first_token_of_each_and_the_rest_of_the_text():
    found = disjoint(23, 10)
    assert [(one.start, one.end) for one in found] == [(0, 10), (10, 20)]
    assert scored(found) == [*range(1, 10), *range(11, 20)]
    assert disjoint(9, 10) == []


@pytest.mark.parametrize("tokens", [2, 9, 10, 11, 20, 37])
@pytest.mark.parametrize("stride", [1, 4, 9])
def test_strided_windows_score_each_token_but_the_first_once(tokens, stride):
    found = strided(tokens, 10, stride)
    assert scored(found) == list(range(1, tokens))
    for window in found[1:]:
        assert window.first - window.start >= 10 - stride, "so much is before a token that is scored"


def test_rolling_windows_score_each_token_of_each_document_once():
    found = rolling([(0, 5), (5, 28), (28, 29)], 10)
    assert scored(found) == list(range(29))
    assert [one.start_token for one in found] == [True, True, False, False, True]
    assert [one.start for one in found] == [0, 5, 14, 17, 28], "a start token, or as many before as can be read"


def test_weighted_windows_count_with_their_length():
    found = weighted(23, 10)
    assert [(one.start, one.end, one.weight) for one in found] == [(0, 10, 10), (10, 20, 10), (20, 23, 3)]
    assert scored(weighted(21, 10)) == [*range(1, 10), *range(11, 20)], "one token alone predicts nothing"


def test_those_that_are_chosen_are_evenly_spaced():
    found = disjoint(100, 10)
    assert [one.start for one in chosen(found, 3)] == [0, 30, 60]
    assert chosen(found, 10) == chosen(found, 99) == found
