"""Four definitions of perplexity, as windows over a text's tokens. No torch.

- disjoint: windows of L tokens side by side, whole ones only; the first token of each is not scored. What papers on
  compression report (GPTQ, PaLU: WikiText-2 at 2,048).
- strided: windows of L tokens that move on by a stride; of each, only tokens that no earlier window scored
  (transformers' documentation of perplexity).
- rolling: documents one by one, each token scored once, the first ones after a start token; divided by words or
  bytes of the text (lm-evaluation-harness, task wikitext).
- weighted: windows of L tokens side by side with the shorter one at the end; the mean of each counts with its length,
  although its first token was not scored.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens that are read together.

    Attributes:
        start, end: of the text, that are read.
        first: the first one that is scored.
        start_token: a start token is read before them, so that the first one can be scored too.
        weight: with which its mean counts.
    """

    start: int
    end: int
    first: int
    start_token: bool
    weight: float

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return self.end - self.first


def disjoint(tokens: int, length: int) -> list[Window]:
    """Whole windows side by side."""
    starts = range(0, tokens - length + 1, length)
    return [Window(at, at + length, at + 1, False, length - 1) for at in starts]


def strided(tokens: int, length: int, stride: int) -> list[Window]:
    """Windows that overlap; each token but the first is scored once, with as many before it as there are."""
    found, done = [], 1
    for start in range(0, tokens, stride):
        end = min(start + length, tokens)
        if end > done:
            found.append(Window(start, end, done, False, end - done))
            done = end
        if end == tokens:
            break
    return found


def rolling(documents: list[tuple[int, int]], length: int) -> list[Window]:
    """Windows over each document alone; each token is scored once.

    The last one of a document reads as many tokens as the others, and scores those that are left
    (`get_rolling_token_windows` of lm-evaluation-harness, with one token of context).

    Args:
        documents: first token and the one behind the last, of each.
        length: tokens that are read together, the one before the first scored included.
    """
    found = []
    for begin, finish in documents:
        for first in range(begin, finish, length):
            end = min(first + length, finish)
            start = begin if first == begin else end - length - 1  # `length` tokens that predict, and the last one
            found.append(Window(start, end, first, first == begin, end - first))
    return found


def weighted(tokens: int, length: int) -> list[Window]:
    """Windows side by side, the shorter last one too; each counts with its length."""
    ends = ((at, min(at + length, tokens)) for at in range(0, tokens, length))
    return [Window(start, end, start + 1, False, end - start) for start, end in ends if end - start > 1]


def chosen(windows: list[Window], most: int) -> list[Window]:
    """So many of them at most, evenly spaced."""
    count = len(windows)
    return windows if count <= most else [windows[i * count // most] for i in range(most)]
