"""Parameters: one model per study validates everything; files are diffs; an unknown key is an error.

What counts, later wins: the defaults of the model below, then params/<study>/<profile>.yml, then what was given
(papermill -p/-f/-y, the command line, a value typed into the parameters cell). `None` means "not given".
"""

from __future__ import annotations

import difflib
import os
import re
import symtable
import types
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from distilbench import paths
from distilbench.errors import ParameterError, StorageError

DESIGN_VERSION = 2  # raised when a change of code changes what is measured: older unfinished runs then stay apart
#: At its default, a design with such a parameter is the one that it was without it.
CAME_LATER = {"fresh_processes", "model_family", "embedded_task", "batches_per_cycle"}
NOT_DESIGN = {"run_id", "results_root", "run_ids"}  # where results go and are compared is not what is measured
PROFILES = {
    "ci": "tiny random models and a handful of sentences, for tests; never published",
    "smoke": "shows that it works, not for citation",
    "full": "the protocol for publication",
}
#: What to do about text that looks like something else: it was read as that before its parameter was known.
AS_TEXT = '. Text is meant? Put it in quotes in a file or a notebook ("20261126_1"); with papermill, -r in place of -p'
Source = Literal["hub", "local", "embedded", "random"]
TAG, WHOLE = "tag:yaml.org,2002:", r"[-+]?(0|[1-9][0-9]{0,17})"
PLAIN = {"bool": "true|True|TRUE|false|False|FALSE", "int": WHOLE, "float": WHOLE + r"\.[0-9]*|[-+]?\.[0-9]+"}


def _words(value: Any) -> Any:
    """Lists may be given as text, "a,b" or "[a, b]", since `papermill -p` has no lists; a number is a list of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, str) or not (matched := re.fullmatch(r"\[(.*)]|\((.*)\)|([^][()]*)", value.strip())):
        return value
    inside = next(group for group in matched.groups() if group is not None)
    return [part.strip().strip("'\"") for part in inside.split(",") if part.strip()]


def _split(value: Any) -> Any:
    """As `_words`, and whole numbers in the text become numbers."""
    if not isinstance(value, str):
        return _words(value)
    parts = _words(value)
    return parts if parts is value else [int(part) if re.fullmatch(r"-?\d{1,18}", part) else part for part in parts]


def _number(value: Any) -> Any:
    """1e-3 is a number, though YAML reads it as text (it wants 1.0e-3)."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError("allowed: 'cpu', 'cuda' or 'cuda:N'")
    return "cuda:0" if value == "cuda" else value


def _length_policy(value: str) -> str:
    matched = re.fullmatch(r"longest|fixed-(\d+)", value)
    if not matched or (matched[1] and not 4 <= int(matched[1]) <= 512):
        raise ValueError("allowed: 'longest' or 'fixed-N' with N from 4 to 512, such as 'fixed-128'")
    return value


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("each value may be given once only")
    return values


Count = Annotated[int, Field(ge=1, strict=True)]
Seconds = Annotated[float, BeforeValidator(_number), Field(strict=True, allow_inf_nan=False)]
NotNegative = Annotated[Seconds, Field(ge=0)]
Positive = Annotated[Seconds, Field(gt=0)]
Device = Annotated[str, AfterValidator(_device)]
LengthPolicy = Annotated[str, AfterValidator(_length_policy)]
Threads = Annotated[int, Field(ge=0, strict=True, description="CPU threads; 0: one per usable core")]
Timeout = Annotated[Positive, Field(description="a repetition is stopped after it")]
Heap = Annotated[
    Literal["system", "keep"],
    Field(
        description="freed memory: system: the C library does as it likes; keep: nothing goes back (glibc), so that no "
        "forward pays for fetching it again"
    ),
]
RunId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]


def list_of(item: Any) -> Any:
    return Annotated[list[item], BeforeValidator(_split), Field(min_length=1), AfterValidator(_distinct)]


class StudyParams(BaseModel):
    """What every study has."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    SECTIONS: ClassVar[tuple[str, ...]] = ()  # kinds that the study measures besides its own, in their order

    study: str
    profile: Literal["ci", "smoke", "full"] = "smoke"
    run_id: RunId = Field("", description="name of the run folder; empty: a new run")
    run_ids: Annotated[list[RunId], BeforeValidator(_words), AfterValidator(_distinct)] = Field(
        [], description="runs to analyse together; empty: the one of run_id, else the newest finished one"
    )
    results_root: str = Field("", description="folder for run folders; empty: results/ of the checkout")
    seed: Annotated[int, Field(ge=0, strict=True)] = Field(17, description="seeds sample order and random weights")

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """A study that changes a default keeps the parameter's meaning."""
        for name, own in cls.model_fields.items():
            inherited = (base.model_fields.get(name) for base in cls.__mro__[1:] if issubclass(base, BaseModel))
            own.description = own.description or next((one.description for one in inherited if one), None)

    @property
    def runs_folder(self) -> Path:
        """Where the run folders of the study are."""
        return paths.results_root(self.results_root) / self.study

    @field_validator("*")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, str):  # a name of bytes cannot be written into a record, nor into a notebook
            try:
                paths.readable(value)
            except StorageError as error:
                raise ValueError(str(error)) from None
        return value


@dataclass(frozen=True)
class Resolved:
    """Validated parameters and where each value came from."""

    params: StudyParams
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def design_hash(self) -> str:
        """Names what is measured: equal hashes mean equal designs (12 hex digits of SHA-256)."""
        fields, given = type(self.params).model_fields, self.params.model_dump(exclude=NOT_DESIGN)
        as_before = {name for name in CAME_LATER & given.keys() if given[name] == fields[name].default}
        design = {name: given[name] for name in given.keys() - as_before} | {"design_version": DESIGN_VERSION}
        return paths.sha256_bytes(paths.canonical_json(design))[:12]


def of_section(resolved: Resolved, name: str, model: type[StudyParams]) -> Resolved:
    """The parameters of a section of a study: what the study says of it (`<name>_<parameter>`), else of the whole.

    Args:
        resolved: of the study.
        name: of the section.
        model: the parameters that the section has; of what the study does not say, their defaults.

    Raises:
        ParameterError: a value that the study takes is none for the section.
    """
    said = {field_: value for field_, value in resolved.params.model_dump().items() if value is not None}
    where = {field_: f"{name}_{field_}" if f"{name}_{field_}" in said else field_ for field_ in model.model_fields}
    known = {field_: source for field_, source in where.items() if source in said}
    try:
        params = model.model_validate({field_: said[source] for field_, source in known.items()})
    except ValidationError as error:
        raise ParameterError(f"section {name} of study {resolved.params.study}: {_explain(model, error)}") from None
    origins = {field_: resolved.origins.get(known.get(field_, ""), "default") for field_ in model.model_fields}
    return Resolved(params, origins)


class _PlainYaml(yaml.SafeLoader):
    """YAML that takes for a number, or for yes or no, only what can be meant as nothing else; the rest stays text.

    YAML 1.1 reads 0714123 as octal, 20261126_1 without its underscore, 1:30 as 90, `no` as false, and days as dates.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [rule for rule in rules if rule[0] in (f"{TAG}null", f"{TAG}merge")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _pattern in PLAIN.items():
    _PlainYaml.add_implicit_resolver(TAG + _kind, re.compile(f"(?:{_pattern})$"), None)


def read_yaml(path) -> dict[str, Any]:
    """A YAML file that holds one mapping; anything else is an error with its place."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainYaml)
    except FileNotFoundError:
        raise ParameterError(f"there is no parameter file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" (line {place.line + 1})" if place else ""
        raise ParameterError(f"{path} is not valid YAML{where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{path} must hold `key: value` lines, but holds {type(content).__name__}")
    return content


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows, without what is asked of them beyond the type."""
    either = isinstance(annotation, types.UnionType) or getattr(annotation, "__origin__", None) is Union
    return {getattr(kind, "__origin__", kind) for kind in (get_args(annotation) if either else [annotation])}


def from_text(model: type[StudyParams], name: str, text: str) -> Any:
    """What a text from the command line stands for: the parameter's type decides, not how the text looks.

    Text stays as it is, and lists are cut by the model. Where nothing may be given, so may "" or "null". What cannot
    be read stays text, which `resolve` refuses with what is allowed.
    """
    field_ = model.model_fields.get(name)
    kinds = _kinds(field_.annotation) if field_ else set()
    if types.NoneType in kinds and text in ("", "null"):
        return None
    for kind in kinds & {bool, int, float} if "_" not in text else ():  # 1_000 is a number to Python only
        with suppress(ValidationError):
            return TypeAdapter(kind).validate_strings(text)
    return text


def resolve(
    model: type[StudyParams], study: str, given: dict[str, Any] | None = None, with_file: bool = True
) -> Resolved:
    """Merges defaults, the profile's file and what was given; checks everything.

    Args:
        model: the parameters that the study has.
        study: its name, such as "distilbert".
        given: values by name; None counts as not given. `profile` chooses the file; without one it is
            $DISTILBENCH_PROFILE, else smoke.
        with_file: whether that file counts, which its user may have changed.

    Raises:
        ParameterError: naming each wrong value, what is allowed, and a suggestion for a misspelt name.
    """
    if (other := (given or {}).get("study")) not in (None, study):
        raise ParameterError(f"study {other!r} was given as a parameter, but the study is {study!r}")
    left_out = (("study", study), ("profile", ""))
    given = {key: value for key, value in (given or {}).items() if value is not None and (key, value) not in left_out}
    profile = given.get("profile", os.environ.get("DISTILBENCH_PROFILE") or "smoke")
    if not isinstance(profile, str) or profile not in PROFILES:
        where = "DISTILBENCH_PROFILE: " if "profile" not in given else ""
        raise ParameterError(
            f"{where}unknown profile {profile!r}{hint(profile, PROFILES)} Profiles: {', '.join(PROFILES)}."
        )
    file = paths.repo_root() / "params" / study / f"{profile}.yml"
    from_file = read_yaml(file) if with_file else {}
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


def given_in_notebook(namespace: dict[str, Any]) -> dict[str, Any]:
    """The parameters that stand in a notebook's namespace.

    Every plain value that a cell assigned must be a known parameter, since papermill only logs a misspelt one. What
    start-up files of IPython or a configuration put there stands in no cell: that is not a parameter.
    """
    plain = (str, int, float, bool, list, dict, tuple, types.NoneType)
    hidden = {"In", "Out", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
    assigned = _assigned_in(namespace.get("In", []))
    if "study" not in assigned:  # no notebook, but a script made of one
        assigned = set(namespace)
    return {
        key: value
        for key, value in namespace.items()
        if key in assigned and not key.startswith("_") and key not in hidden and isinstance(value, plain)
    }


def _assigned_in(cells: list[str]) -> set[str]:
    """The names that cells assign, by their source."""
    names: set[str] = set()
    for cell in cells:
        with suppress(SyntaxError):  # which ended the cell before it assigned anything
            symbols = symtable.symtable(cell, "cell", "exec").get_symbols()
            names |= {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
    return names


def _refuse_unknown(model: type[StudyParams], given: dict[str, Any], where: str) -> None:
    unknown = [key for key in given if key not in model.model_fields]
    if unknown:
        lines = [f"unknown parameter {key!r}{where}{hint(key, model.model_fields)}" for key in unknown]
        raise ParameterError("\n".join(lines) + f"\nParameters: {', '.join(model.model_fields)}.")


def hint(given: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def _explain(model: type[StudyParams], error: ValidationError) -> str:
    """One line per wrong value: name, what was given, what is allowed."""
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        name = str(problem["loc"][0])
        meaning = model.model_fields[name].description if name in model.model_fields else None
        lines.append(
            f"{name}: {problem['input']!r} is not allowed: {message}"
            + (f" ({meaning})" if meaning else "")
            + (AS_TEXT if problem["type"] == "string_type" and not isinstance(problem["input"], list | dict) else "")
        )
    return "\n".join(lines)
