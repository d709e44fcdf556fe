"""The parameters of perplexities: which compressed forms of a decoder, on which texts, by windows of which length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.lowrank.params import DecoderParams, Variant
from distilbench.runs.parameters import Count, list_of

Ratio = Annotated[float, Field(gt=0, le=1)]
Form = Literal["fisher", "uniform", "plain"]
FORMS = (
    "fisher, uniform: principal components with ranks by that search; plain: singular vectors of the weights with "
    "uniform ranks"
)
Text = Literal["held-out", "other", "topics"]
TEXTS = "held-out: like the calibration's; other: data/tiny_corpus.txt; topics: what this Python says in its help"


class PerplexityParams(DecoderParams):
    """A decoder's perplexity on a text like that of the calibration and on another one."""

    study: str = "perplexity"
    variants: list_of(Variant) = Field(
        ["baseline", "palu"],
        description="baseline: keys and values whole; palu: compressed, in each of the forms; palu-v is not scored",
    )
    ratios: list_of(Ratio) = Field([0.3, 0.5, 0.7, 0.9, 1.0], description="fractions of keys and values that are kept")
    forms: list_of(Form) = Field(["fisher", "uniform", "plain"], description=FORMS)
    texts: list_of(Text) = Field(["held-out", "other"], description=TEXTS)
    length: Count = Field(512, description="tokens of a window")
    stride: Count = Field(256, description="tokens by which windows move on, where they overlap")
    windows: Count = Field(32, description="windows of each definition, evenly spaced, at most")

    @model_validator(mode="after")
    def _check_windows(self) -> PerplexityParams:
        if self.length < 2:
            raise ValueError("length must be at least 2: a token is predicted from those before it")
        if self.stride >= self.length:
            raise ValueError(
                f"stride ({self.stride}) must be below length ({self.length}): a token is predicted from earlier ones"
            )
        return self
