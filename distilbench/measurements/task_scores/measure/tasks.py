"""Tasks of lm-evaluation-harness: those of the hub by name, and small ones from questions that a package ships."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

from distilbench.errors import HubError, ModelError, ParameterError, first_line
from distilbench.measurements.task_scores.records import CHOICE, GENERATE
from distilbench.runs.parameters import hint
from distilbench.sources import questions

PACKAGE = questions.PACKAGE
CHOSEN, WRITTEN = "mmlu_dev_mini", "mmlu_dev_letter_mini"
OWN = (CHOSEN, WRITTEN)
HOW = {
    CHOSEN: {
        "output_type": CHOICE,
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    },
    # a text is written, token by token with the cache: scoring choices would never use it
    WRITTEN: {
        "output_type": GENERATE,
        "doc_to_text": "Question: {{question}}\n"
        + "\n".join(f"({letter}) {{{{choices[{place}]}}}}" for place, letter in enumerate(questions.LETTERS))
        + "\nAnswer: (",
        "doc_to_target": "letter",
        "target_delimiter": "",
        "generation_kwargs": {"until": [")", "\n"], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


def version() -> str:
    """The harness with its version.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            "tasks need lm-evaluation-harness, which is not installed: pip install 'distilbench[llm]' brings it"
        ) from None


def load(names: list[str]) -> dict[str, Any]:
    """The tasks, by name, with their questions.

    Raises:
        ModelError: the harness is not installed.
        ParameterError: there is no such task, it is a group of several, or its answers are of another kind.
        HubError: its data set cannot be had.
    """
    version()
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # of what it warns is on record, or refused
    every = TaskManager(include_defaults=bool(set(names) - set(OWN)))  # the index of all tasks takes seconds
    return {name: _own(every, name) if name in OWN else _of_the_hub(every, name) for name in names}


def _own(every: Any, name: str) -> Any:
    from datasets import Dataset

    found = questions.load()

    def splits(**_: Any) -> dict[str, Any]:
        return {"train": Dataset.from_list(found.shown), "validation": Dataset.from_list(found.asked)}

    splits_of = {"training_split": "train", "validation_split": "validation", "fewshot_split": "train"}
    config = {"task": name, "custom_dataset": splits, **splits_of, "fewshot_config": {"sampler": "first_n"}}
    return every.load([config | HOW[name] | {"metadata": {"version": 1}}])["tasks"][name]


def _of_the_hub(every: Any, name: str) -> Any:
    known = [*every.all_subtasks, *OWN]
    if name not in known:
        kind = "a group of tasks: name one of them" if name in every.all_tasks else "not a task of the harness"
        raise ParameterError(f"{name!r} is {kind}{hint(name, known)} Without the hub: {', '.join(OWN)}.")
    try:
        task = every.load([name])["tasks"][name]
    except Exception as error:  # whatever the hub, its client or a loader of that task raises
        raise HubError(
            f"task {name}: its data set cannot be loaded ({type(error).__name__}: {first_line(error)}). Run once where "
            f"the hub can be reached, which fills the cache (HF_HOME); or take {' or '.join(OWN)}, which need no hub"
        ) from error
    if task.OUTPUT_TYPE != CHOICE:
        raise ParameterError(
            f"task {name} has answers of type {task.OUTPUT_TYPE}; variants are compared on {CHOICE} tasks, and on "
            f"{WRITTEN} for texts"
        )
    return task


def manifest(task: Any, name: str, limit: int) -> dict[str, Any]:
    """What a task asks, for data.json: its source, and the questions that are taken."""
    from lm_eval.utils import hash_string

    documents = list(task.eval_docs)[:limit]
    config = task.config
    source = (
        questions.load().manifest
        if name in OWN
        else {"source": f"{config.dataset_path} {config.dataset_name or ''}".strip()}
    )
    said = [hash_string(repr(sorted(document.items()))) for document in documents]
    return source | {"documents": len(documents), "sha256": hash_string("".join(said)), "output_type": task.OUTPUT_TYPE}
