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
from typing import Annotated, Any, Literal, Union, get_args

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
    model_validator,
)

from distilbench import paths
from distilbench.errors import ParameterError, StorageError

DESIGN_VERSION = 2  # raised when a change of code changes what is measured: older unfinished runs then stay apart
NOT_DESIGN = {"run_id", "results_root", "run_ids"}  # where results go and are compared is not what is measured
MIN_BATCHES = 8  # per cycle
PROFILES = {
    "ci": "tiny random models and a handful of sentences, for tests; never published",
    "smoke": "shows that it works, not for citation",
    "full": "the protocol for publication",
}
#: What to do about text that looks like something else: it was read as that before its parameter was known.
AS_TEXT = '. Text is meant? Put it in quotes in a file or a notebook ("20261126_1"); with papermill, -r in place of -p'
Source = Literal["hub", "local", "embedded", "random"]


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
RunId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]


def _list_of(item: Any) -> Any:
    return Annotated[list[item], BeforeValidator(_split), Field(min_length=1), AfterValidator(_distinct)]


class StudyParams(BaseModel):
    """What every study has."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    study: str
    profile: Literal["ci", "smoke", "full"] = "smoke"
    run_id: RunId = Field("", description="name of the run folder; empty: a new run")
    run_ids: Annotated[list[RunId], BeforeValidator(_words), AfterValidator(_distinct)] = Field(
        [], description="runs to analyse together; empty: the one of run_id, else the newest finished one"
    )
    results_root: str = Field("", description="folder for run folders; empty: results/ of the checkout")
    seed: Annotated[int, Field(ge=0, strict=True)] = Field(17, description="seeds sample order and random weights")

    @field_validator("*")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, str):  # a name of bytes cannot be written into a record, nor into a notebook
            try:
                paths.readable(value)
            except StorageError as error:
                raise ValueError(str(error)) from None
        return value


class DistilbertParams(StudyParams):
    """The distilbert study: sequence classification over a sweep of batch sizes."""

    study: Literal["distilbert"] = "distilbert"
    device: Device = Field("cpu", description="torch device: cpu, cuda or cuda:N")
    source: Source = Field("hub", description="where model and text come from: hub, local, embedded, or random weights")
    model_source: Source | None = Field(None, description="the model's source; empty: as `source`")
    data_source: Literal["hub", "local", "embedded"] | None = Field(
        None, description="the text's source; empty: as `source` (embedded text for random weights)"
    )
    model_name: str = Field(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english", description="model on the hub"
    )
    model_revision: str = Field(
        "714eb0f",
        description="the revision that transformers itself pins (transformers/pipelines/__init__.py, v5.23)",
    )
    model_path: str = Field("", description="checkpoint folder for model_source local")
    model_size: Literal["base", "tiny"] = Field("base", description="shape of random weights; tiny is for tests")
    dataset_name: str = Field("nyu-mll/glue", description="data set on the hub")
    dataset_config: str = Field("sst2", description="its configuration; default: also the only one")
    dataset_split: str = Field("validation", description="its split")
    dataset_revision: str = Field("main", description="resolved to a commit at the first fetch, then enforced")
    data_path: str = Field("", description="csv, tsv or jsonl file with text and label for data_source local")
    tokenizer_path: str = Field("", description="tokenizer folder; empty: the tokenizer that belongs to the model")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")
    variants: _list_of(Literal["eager", "sdpa", "autocast", "compiled", "slowed-2", "slowed-5", "slowed-10"]) = Field(
        ["sdpa"], description="ways of executing the same model; slowed-N: N % slower on purpose, for calibration"
    )
    batch_sizes: _list_of(Count) = Field([1, 2, 4, 8, 16, 32, 64, 128], description="sentences per forward pass")
    length_policies: _list_of(LengthPolicy) = Field(
        ["fixed-32", "fixed-128", "longest"], description="how sentences are padded within a batch"
    )
    samples_per_cycle: Count = Field(
        1024, description="sentences in one cycle, the same ones in every cell: 8 batches of the largest size"
    )
    passes: _list_of(Literal["timing", "memory", "energy"]) = Field(
        ["timing", "memory", "energy"], description="what is measured"
    )
    control: bool = Field(
        True, description="measure one cell under a second name too: how much two equal things differ in this run"
    )
    repetitions: Count = Field(10, description="fresh processes per cell in the timing pass")
    memory_repetitions: Count = Field(3, description="fresh processes per cell in the memory pass")
    warmup_cycles: Count = Field(2, description="warm-up cycles, at least; kept in the file, flagged")
    warmup_seconds: NotNegative = Field(3.0, description="warm-up seconds, at least")
    warmup_max_seconds: NotNegative = Field(
        30.0, description="a cell not settled by then is marked unstable; 0: no proof asked"
    )
    min_cycles: Count = Field(2, description="timed cycles per repetition, at least")
    min_iterations: Count = Field(16, description="timed iterations per repetition, at least")
    min_seconds: NotNegative = Field(3.0, description="timed seconds per repetition, at least")
    half_width: NotNegative = Field(
        0.01, description="a repetition ends once the 95 % interval of its median is this narrow, as a share of it"
    )
    max_seconds: NotNegative = Field(30.0, description="a repetition ends after this, however wide the interval is")
    energy_cells: Literal["all", "best"] = Field(
        "all", description="cells of the energy pass; best: only the one with the highest throughput"
    )
    energy_windows: Count = Field(5, description="windows per cell in the energy pass; five license an interval")
    energy_window_s: Positive = Field(10.0, description="seconds per window, at least; and 100 ticks of the counter")
    energy_idle_s: Positive = Field(10.0, description="seconds of idle baseline, before the windows and after them")
    modelled_power_W: Positive | None = Field(
        None, description="where no counter is: power to multiply with the duration; then all energy is `modelled`"
    )
    ceiling_s: NotNegative = Field(
        1.0, description="seconds for each of the machine's ceilings (matrix products, copying); 0: not measured"
    )
    repetition_timeout_s: Positive = Field(3600.0, description="a repetition is stopped after it")
    num_threads: Annotated[int, Field(ge=0, strict=True)] = Field(0, description="CPU threads; 0: one per usable core")
    heap: Literal["system", "keep"] = Field(
        "system",
        description="freed memory: system: the C library does as it likes; keep: nothing goes back (glibc), so that no "
        "forward pays for fetching it again",
    )

    @model_validator(mode="after")
    def _fill_sources(self) -> DistilbertParams:
        self.model_source = self.model_source or self.source
        if self.data_source is None:
            self.data_source = "embedded" if self.source == "random" else self.source
        for what, source, path in (
            ("model", self.model_source, self.model_path), ("data", self.data_source, self.data_path)
        ):  # fmt: skip
            if source == "local" and not path:
                raise ValueError(f"{what}_source is 'local', so {what}_path must name a file or folder")
        if self.samples_per_cycle < MIN_BATCHES * max(self.batch_sizes):
            raise ValueError(
                f"samples_per_cycle ({self.samples_per_cycle}) must be at least {MIN_BATCHES} times the largest batch "
                f"size ({max(self.batch_sizes)}): a cycle goes over {MIN_BATCHES} batches or more, so that no cache "
                "can answer"
            )
        if "energy" in self.passes and self.energy_cells == "best" and "timing" not in self.passes:
            raise ValueError("energy_cells is 'best', which the timing pass finds: ask for it too, or for 'all' cells")
        for least, most in (("warmup_seconds", "warmup_max_seconds"), ("min_seconds", "max_seconds")):
            if getattr(self, most) < getattr(self, least):
                raise ValueError(
                    f"{most} ({getattr(self, most):g}) must not be below {least} ({getattr(self, least):g})"
                )
        return self

    def model_arguments(self, vocab_size: int) -> dict[str, Any]:
        """Arguments of `models.load_model`, but for the variant's.

        Args:
            vocab_size: rows that the tokenizer needs; random weights get an embedding table of that size.
        """
        return {
            "device": self.device, "source": self.model_source, "path": self.model_path, "name": self.model_name,
            "revision": self.model_revision, "dtype": self.dtype, "size": self.model_size, "vocab_size": vocab_size,
            "seed": self.seed,
        }  # fmt: skip


STUDIES: dict[str, type[StudyParams]] = {"distilbert": DistilbertParams}


@dataclass(frozen=True)
class Resolved:
    """Validated parameters and where each value came from."""

    params: StudyParams
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def design_hash(self) -> str:
        """Names what is measured: equal hashes mean equal designs (12 hex digits of SHA-256)."""
        design = self.params.model_dump(exclude=NOT_DESIGN) | {"design_version": DESIGN_VERSION}
        return paths.sha256_bytes(paths.canonical_json(design))[:12]


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


class _PlainYaml(yaml.SafeLoader):
    """YAML that takes for a number, or for yes or no, only what can be meant as nothing else; the rest stays text.

    YAML 1.1 reads 0714123 as octal, 20261126_1 without its underscore, 1:30 as 90, `no` as false, and days as dates.
    """


def _only_plain(loader: type[yaml.SafeLoader]) -> None:
    tag = "tag:yaml.org,2002:"
    kept = {tag + "null", tag + "merge"}
    known = loader.yaml_implicit_resolvers.items()
    loader.yaml_implicit_resolvers = {first: [rule for rule in rules if rule[0] in kept] for first, rules in known}
    whole = r"[-+]?(0|[1-9][0-9]{0,17})"
    for kind, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", whole, "-+0123456789"),
        ("float", whole + r"\.[0-9]*|[-+]?\.[0-9]+", "-+.0123456789"),
    ):
        loader.add_implicit_resolver(tag + kind, re.compile(f"(?:{pattern})$"), list(first))


_only_plain(_PlainYaml)


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


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows, without what is asked of them beyond the type."""
    either = isinstance(annotation, types.UnionType) or getattr(annotation, "__origin__", None) is Union
    return {getattr(kind, "__origin__", kind) for kind in (get_args(annotation) if either else [annotation])}


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


def _refuse_unknown(model: type[StudyParams], given: dict[str, Any], where: str) -> None:
    unknown = [key for key in given if key not in model.model_fields]
    if unknown:
        lines = [f"unknown parameter {key!r}{where}{_hint(key, model.model_fields)}" for key in unknown]
        raise ParameterError("\n".join(lines) + f"\nParameters: {', '.join(model.model_fields)}.")


def _hint(given: Any, known: Any) -> str:
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
