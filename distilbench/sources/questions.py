"""Questions with four answers, from a package that is installed: what tasks ask where no hub can be reached.

lm-evaluation-harness (MIT) ships worked examples of MMLU's questions, five for each of its subjects: those of MMLU's
development set (MIT). Questions, choices and answers are taken from them; the worked reasoning between is not. They are
few, they were published to be shown to models, and a score on them is not a score on MMLU.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import DataError, ModelError

PLACE = Path("tasks", "mmlu", "flan_cot_fewshot", "_cot_prompts.json")  # in the package
PACKAGE = "lm_eval"
SHA256 = "081478485b1d4f51e01305e19113f0e3a468f2dc787596386998e229a97b096c"
LETTERS = "ABCD"
BETWEEN = re.compile(r"\n\n(?=Q: )")
#: A question may have lines; its choices stand on one.
EXAMPLE = re.compile(
    r"Q: (?P<question>.+?)\n\(A\) (?P<A>.+?) \(B\) (?P<B>.+?) \(C\) (?P<C>.+?) \(D\) (?P<D>[^\n]+)\n"
    r"A: .*?The answer is \((?P<answer>[ABCD])\)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Questions:
    """Documents for a task.

    Attributes:
        shown: those that may stand before a question, the first of each subject.
        asked: all others, subject by subject in turn, so that the first few are of many subjects.
        manifest: where they are from.
    """

    shown: list[dict[str, Any]]
    asked: list[dict[str, Any]]
    manifest: dict[str, Any]


def load() -> Questions:
    """All questions that could be read; one whose choices cannot be told apart is left out.

    Raises:
        ModelError: the package is not installed.
        DataError: it ships another file than the one that was looked at.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "tasks need lm-evaluation-harness, which is not installed: pip install 'distilbench[llm]' brings it"
        )
    file = Path(spec.submodule_search_locations[0]) / PLACE
    if not file.is_file() or (got := paths.sha256_file(file)) != SHA256:
        version = importlib.metadata.version(PACKAGE)
        state = got if file.is_file() else "missing"
        raise DataError(
            f"{file} of {PACKAGE} {version} is {state}, expected SHA-256 {SHA256}: its questions were not looked at; "
            f"install the version in constraints.txt"
        )
    shown, asked = [], []
    for subject, text in sorted(json.loads(file.read_text(encoding="utf-8")).items()):
        examples = map(EXAMPLE.match, BETWEEN.split(text)[1:])  # before the first one stands what all of them are
        found = [_document(subject, example) for example in examples if example]
        own = list({one["question"]: one for one in found}.values())  # one subject has the same one twice
        shown += own[:1]
        asked += [(number, document) for number, document in enumerate(own[1:])]
    in_turn = [document for _, document in sorted(asked, key=lambda one: (one[0], one[1]["subject"]))]
    manifest = {
        "source": f"worked examples of MMLU's development questions in {PACKAGE} "
        f"{importlib.metadata.version(PACKAGE)}, {PLACE.as_posix()}",
        "licence": "MIT (both)",
        "file_sha256": SHA256,
    }
    return Questions(shown, in_turn, manifest)


def _document(subject: str, example: re.Match[str]) -> dict[str, Any]:
    texts = [" ".join(example[letter].split()) for letter in LETTERS]
    question = " ".join(example["question"].split())
    return {
        "subject": subject, "question": question, "choices": texts, "answer": LETTERS.index(example["answer"]),
        "letter": example["answer"],
    }  # fmt: skip
