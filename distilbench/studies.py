"""The one registry: which studies there are, with the parameters and the notebooks of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from distilbench import paths
from distilbench.errors import ParameterError
from distilbench.harness import preflight
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.profiling.params import BatchesParams, ProfileParams, QwenParams
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.measurements.training.params import AgnewsParams
from distilbench.runs import find, measurement, parameters
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Resolved, StudyParams, read_yaml

#: The kinds of measurement, by the names of their folders.
KINDS = (
    "sweep", "calibration", "profiling", "evaluation", "training", "llm_speed", "alignment", "perplexity",
    "task_scores",
)  # fmt: skip
#: Of these, those that tell of the instrument, and of no study.
INSTRUMENTS: dict[str, Callable[[], Measurement]] = {"calibration": partial(measurement.named, "calibration")}
#: Per study its parameters, which say what it measures.
STUDIES: dict[str, type[StudyParams]] = {
    "distilbert": DistilbertParams,
    "profile": ProfileParams,
    "batches": BatchesParams,
    "evaluate": EvaluationParams,
    "qwen": QwenParams,
    "agnews": AgnewsParams,
    "palu": PaluParams,
}


def study_model(study: Any) -> type[StudyParams]:
    """The parameter model of a study."""
    if not isinstance(study, str) or study not in STUDIES:
        raise ParameterError(f"unknown study {study!r}{parameters.hint(study, STUDIES)} Studies: {', '.join(STUDIES)}.")
    return STUDIES[study]


def kind_of(study: str) -> Measurement:
    """What a study measures: the kind whose parameters are its own.

    Raises:
        ParameterError: no kind in `KINDS` has parameters that those of the study derive from.
    """
    model = study_model(study)
    kinds = [measurement.named(name) for name in KINDS if name not in INSTRUMENTS]
    if not (found := [kind for kind in kinds if issubclass(model, kind.params)]):
        raise ParameterError(
            f"no kind of measurement takes the parameters of study {study!r} ({model.__name__}): "
            f"add the name of its folder in distilbench/measurements/ to KINDS in distilbench/studies.py. "
            f"Kinds: {', '.join(kind.name for kind in kinds)}."
        )
    return found[0]


def instrument(name: str = "") -> Measurement:
    """A kind that tells of the instrument, by its name; "": the first."""
    if name and name not in INSTRUMENTS:
        hint = parameters.hint(name, INSTRUMENTS)
        raise ParameterError(f"no test of the instrument is called {name!r}{hint} Tests: {', '.join(INSTRUMENTS)}.")
    return INSTRUMENTS[name or next(iter(INSTRUMENTS))]()


def sections(resolved: Resolved) -> find.Sections:
    """What a study measures besides its own kind, each in a folder of its runs: parameters and kind, by its name."""
    kinds = map(measurement.named, type(resolved.params).SECTIONS)
    return {kind.name: (parameters.of_section(resolved, kind.name, kind.params), kind) for kind in kinds}


def section(run: Run, resolved: Resolved, kind: str) -> tuple[Run, Resolved]:
    """Where a run measures that kind, and with which parameters: in a section, or itself.

    A section that was not begun yet gets this machine, which may not be the one that its run was made on, and
    the parameters that follow from what its run has measured meanwhile.

    Raises:
        RunError: its study does not measure it, or the section was begun with another design or environment.
    """
    if (its := run.of_kind(kind)) is run:
        return run, resolved
    resolved, of = sections(resolved)[kind]
    resolved = of.follow(resolved, run)
    if its.status["state"] == "pending":
        find.renew(its, resolved)
    else:
        its.require_same_environment()
        its.require_same_design(resolved)
    return its, resolved


def chain(study: str) -> list[str]:
    """The study's notebooks in order, from params/studies.yml.

    Raises:
        ParameterError: there is no such study, or the file does not tell its notebooks.
    """
    study_model(study)
    file = paths.repo_root() / "params" / "studies.yml"
    told = read_yaml(file).get(study)
    if not isinstance(told, dict) or not told.get("notebooks"):
        raise ParameterError(f"{file} does not tell the notebooks of study {study!r}: give it a `notebooks:` list")
    return told["notebooks"]


def _measuring(study: str) -> slice:
    """Where in the chain the notebooks are that measure: those before prepare, the last one shows."""
    count = len(chain(study))
    return slice(count - 2 - len(study_model(study).SECTIONS), count - 1)


def preparing_notebooks(study: str) -> list[str]:
    """Those that prepare text and model."""
    return chain(study)[: _measuring(study).start]


def measuring_notebook(study: str) -> str:
    """The one that measures what the study's kind measures, or gathers what was measured elsewhere."""
    return chain(study)[_measuring(study)][0]


def section_notebooks(study: str) -> list[str]:
    """Those that measure the sections, one each."""
    return chain(study)[_measuring(study)][1:]


def analysis(study: str) -> str:
    """The one that shows finished runs, which becomes their page: the last one."""
    return chain(study)[-1]


def resolve(study: str, given: dict[str, Any] | None = None, with_file: bool = True) -> Resolved:
    """The checked parameters of a study: its defaults, the profile's file, what was given (`parameters.resolve`)."""
    return parameters.resolve(study_model(study), study, given, with_file)


def from_text(study: str, name: str, text: str) -> Any:
    """What a text from the command line stands for (`parameters.from_text`)."""
    return parameters.from_text(study_model(study), name, text)


def from_notebook(namespace: dict[str, Any]) -> Resolved:
    """The checked parameters of a notebook; call it in the cell after the parameters."""
    given = parameters.given_in_notebook(namespace)
    return resolve(given.pop("study", None), given)


def start(resolved: Resolved, new: bool = False) -> Run:
    """The run to work on (see `preflight.start`)."""
    return preflight.start(resolved, kind_of(resolved.params.study), new, sections(resolved))
