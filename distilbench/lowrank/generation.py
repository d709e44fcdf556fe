"""Greedy generation of a known number of tokens, with a clock at each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from distilbench.errors import ModelError


class TokenClock(StoppingCriteria):
    """Reads the clock after each new token; it stops nothing.

    Attributes:
        stamps_ns: of the call, then of each token.
    """

    def __init__(self, fence: Callable[[], None] = lambda: None) -> None:
        self._fence = fence
        self.stamps_ns = [time.perf_counter_ns()]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._fence()  # a GPU's token is there only when its stream is done
        self.stamps_ns.append(time.perf_counter_ns())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def intervals_ms(self) -> list[float]:
        """Until the first token, then from each token to the next."""
        return [(end - start) / 1e6 for start, end in zip(self.stamps_ns, self.stamps_ns[1:], strict=False)]


@torch.inference_mode()
def generate(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, new_tokens: int, clock: TokenClock | None = None
) -> Any:
    """Greedy generation of exactly so many tokens, with the cache that it ended with.

    `min_new_tokens` forbids an early end, and the cache is asked for: a library that computes everything again would
    give the same tokens.

    Args:
        model: decoder.
        ids, mask: int64 (B, L), padded on the left.
        new_tokens: for each sequence.
        clock: read after each token.

    Raises:
        ModelError: another number of tokens came, or the cache does not hold them.
    """
    done = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
        use_cache=True, return_dict_in_generate=True, pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([clock] if clock else []),
    )  # fmt: skip
    made, cached = done.sequences.shape[1] - ids.shape[1], done.past_key_values.get_seq_length()
    if made != new_tokens or cached != ids.shape[1] + new_tokens - 1:
        raise ModelError(
            f"asked for were {new_tokens} new tokens, generated were {made}, and the cache holds {cached} tokens "
            f"instead of {ids.shape[1] + new_tokens - 1}: no time per token can be taken from this"
        )
    return done
