"""A first look at a model: it is loaded, and classifies a few sentences. Nothing is measured, and no run is made."""

from __future__ import annotations

import random
from typing import Any

from distilbench.errors import ParameterError
from distilbench.sources import models, texts
from distilbench.sources.batches import MOST_TOKENS
from distilbench.sources.models import ModelInfo
from distilbench.sources.parameters import SourceParams
from distilbench.sources.tokenizers import fits, load_tokenizer

NO_ANSWER = "random weights classify nothing: no label is shown"


def classify(params: SourceParams, count: int = 5) -> tuple[ModelInfo, str, list[dict[str, Any]]]:
    """Loads model and text, checks that they fit, and classifies some of the sentences.

    Returns:
        (what was loaded, what the text is, per sentence `text`, `label`, and `predicted` with its `probability`, which
        are None of random weights).

    Raises:
        ParameterError: the study trains its model first.
        DataError, ModelError, HubError: one of them cannot be had, or their labels or ids do not fit.
    """
    if not params.IS_TRAINED:
        raise ParameterError(
            f"study {params.study} trains its classifier: before that it has no answers to look at. A first look "
            "(--quick) is of studies with a trained one, such as distilbert and qwen"
        )
    found, tokenizer = texts.load_texts(params), load_tokenizer(params)
    loaded = models.load_model(**params.model_arguments(**fits(tokenizer, found.label_names)))
    chosen = random.Random(params.seed).sample(range(len(found.texts)), min(count, len(found.texts)))
    sentences = [found.texts[i] for i in chosen]
    tokenizer.padding_side = "left" if loaded.family.pads_left else "right"
    inputs = tokenizer(sentences, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
    models.check_fit(loaded, tokenizer, inputs["input_ids"].shape[1])
    rows = [{"text": found.texts[i], "label": found.label_names[found.labels[i]]} for i in chosen]
    ids, mask = (inputs[name].to(loaded.info.device) for name in ("input_ids", "attention_mask"))
    if params.model_source == "random":
        loaded.forward(ids, mask)
        return loaded.info, found.about["name"], [row | {"predicted": None, "probability": None} for row in rows]
    meaning = models.match_labels(loaded.info.label_names, found.label_names)
    shares, classes = loaded.forward(ids, mask).float().softmax(-1).max(-1)
    answers = [
        {"predicted": found.label_names[meaning[int(logit)]], "probability": float(share)}
        for share, logit in zip(shares, classes, strict=True)
    ]
    return loaded.info, found.about["name"], [row | answer for row, answer in zip(rows, answers, strict=True)]
