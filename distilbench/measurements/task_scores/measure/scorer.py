"""A scorer of our own, which reads one choice at a time: what the harness says is held against it."""

from __future__ import annotations

from typing import Any

import torch


@torch.inference_mode()
def logprob(model: torch.nn.Module, tokenizer: Any, context: str, choice: str, most: int) -> float:
    """The log-probability of a choice after a context, in nats, summed over its tokens.

    Context and choice are tokenised together and cut where the context alone ends, without its last spaces: a word
    and the space before it are one token. No padding, no batch.

    Args:
        model: decoder.
        tokenizer: its own.
        context, choice: text.
        most: tokens that the model reads; what is before them is left out.
    """
    ids = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
    before = len(tokenizer(context.rstrip(), add_special_tokens=False)["input_ids"])
    targets = torch.tensor(ids[before:], device=model.device)
    read = torch.tensor([ids[-most - 1 : -1]], device=model.device)
    logits = model(read, use_cache=False, logits_to_keep=len(targets)).logits[0].float()
    return float(torch.log_softmax(logits, dim=-1).gather(1, targets[:, None]).sum())


@torch.inference_mode()
def written(model: torch.nn.Module, tokenizer: Any, prompt: str, until: list[str], new: int, most: int) -> str:
    """What follows a prompt, greedily, each token from a forward over everything: no cache is used.

    Args:
        until: where the text ends, whichever comes first; it is cut off there.
        new: tokens that are written at most.
        most: tokens that the model reads and writes.
    """
    ids, text = tokenizer(prompt, add_special_tokens=False)["input_ids"][-(most - new) :], ""
    start = len(ids)
    while len(ids) < start + new and not any(end in text for end in until):
        logits = model(torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1).logits
        if (token := int(logits[0, -1].argmax())) == tokenizer.eos_token_id:
            break
        ids.append(token)
        text = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return min((text.split(end)[0] for end in until), key=len)
