"""TODO: studies."""

from __future__ import annotations

import os
import symtable
import types
from contextlib import suppress
from typing import Any

from pydantic import (
    TypeAdapter,
    ValidationError,
)

from distilbench import paths
from distilbench.errors import ParameterError
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.runs.parameters import (
    PROFILES,
    Resolved,
    StudyParams,
    _explain,
    _hint,
    _kinds,
    _refuse_unknown,
    read_yaml,
)

STUDIES: dict[str, type[StudyParams]] = {"distilbert": DistilbertParams}


def study_model(study: Any) -> type[StudyParams]:
    """The parameter model of a study."""
    if not isinstance(study, str) or study not in STUDIES:
        raise ParameterError(f"unknown study {study!r}{_hint(study, STUDIES)} Studies: {', '.join(STUDIES)}.")
    return STUDIES[study]


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


def from_text(study: str, name: str, text: str) -> Any:
    """What a text from the command line stands for: the parameter's type decides, not how the text looks.

    Text stays as it is, and lists are cut by the model. Where nothing may be given, so may "" or "null". What cannot
    be read stays text, which `resolve` refuses with what is allowed.
    """
    field_ = study_model(study).model_fields.get(name)
    kinds = _kinds(field_.annotation) if field_ else set()
    if types.NoneType in kinds and text in ("", "null"):
        return None
    for kind in kinds & {bool, int, float} if "_" not in text else ():  # 1_000 is a number to Python only
        with suppress(ValidationError):
            return TypeAdapter(kind).validate_strings(text)
    return text


def resolve(study: str, given: dict[str, Any] | None = None) -> Resolved:
    """Merges defaults, the profile's file and what was given; checks everything.

    Args:
        study: its name, such as "distilbert".
        given: values by name; None counts as not given. `profile` chooses the file; without one it is
            $DISTILBENCH_PROFILE, else smoke.

    Raises:
        ParameterError: naming each wrong value, what is allowed, and a suggestion for a misspelt name.
    """
    model = study_model(study)
    if (other := (given or {}).get("study")) not in (None, study):
        raise ParameterError(f"study {other!r} was given as a parameter, but the study is {study!r}")
    given = {key: value for key, value in (given or {}).items() if value is not None and key != "study"}
    given = {key: value for key, value in given.items() if not (key == "profile" and value == "")}
    variable = os.environ.get("DISTILBENCH_PROFILE")
    profile = given.get("profile", variable or "smoke")
    if not isinstance(profile, str) or profile not in PROFILES:
        where = "DISTILBENCH_PROFILE: " if "profile" not in given else ""
        raise ParameterError(
            f"{where}unknown profile {profile!r}{_hint(profile, PROFILES)} Profiles: {', '.join(PROFILES)}."
        )
    file = paths.repo_root() / "params" / study / f"{profile}.yml"
    from_file = read_yaml(file)
    _refuse_unknown(model, from_file, f" in {file}")
    _refuse_unknown(model, given, "")
    merged = from_file | given | {"profile": profile, "study": study}
    try:
        params = model.model_validate(merged)
    except ValidationError as error:
        raise ParameterError(_explain(model, error)) from None
    origins = dict.fromkeys(model.model_fields, "default")
    origins |= dict.fromkeys(from_file, f"params/{study}/{profile}.yml") | dict.fromkeys(given, "given")
    return Resolved(params, origins)


def from_notebook(namespace: dict[str, Any]) -> Resolved:
    """Resolves the parameters that stand in a notebook's namespace (call it in the cell after the parameters).

    Every plain value that a cell assigned must be a known parameter, since papermill only logs a misspelt one. What
    start-up files of IPython or a configuration put there stands in no cell: that is not a parameter.
    """
    plain = (str, int, float, bool, list, dict, tuple, types.NoneType)
    hidden = {"In", "Out", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
    assigned = _assigned_in(namespace.get("In", []))
    if "study" not in assigned:  # no notebook, but a script made of one
        assigned = set(namespace)
    given = {
        key: value
        for key, value in namespace.items()
        if key in assigned and not key.startswith("_") and key not in hidden and isinstance(value, plain)
    }
    return resolve(given.pop("study", None), given)


def _assigned_in(cells: list[str]) -> set[str]:
    """The names that cells assign, by their source."""
    names: set[str] = set()
    for cell in cells:
        with suppress(SyntaxError):  # which ended the cell before it assigned anything
            symbols = symtable.symtable(cell, "cell", "exec").get_symbols()
            names |= {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
    return names
