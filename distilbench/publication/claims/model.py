"""params/claims.yml: its schema, and what else must hold of it (studies, parameters, numbers, sources)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distilbench import paths, studies
from distilbench.errors import ParameterError
from distilbench.report.readings import agrees
from distilbench.runs import measurement
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Resolved, hint, read_yaml

Plain = str | int | float | bool
#: Fields with what they may be: one value or several; text may have `*` for any characters.
Where = dict[str, Plain | list[Plain]]
DOCUMENT = re.compile(r"requirement document \d{3}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Expected(_Strict):
    """What a claim says of a quantity: a figure with how far one may be off it, or bounds."""

    about: float | None = Field(None, gt=0, description="the claimed figure")
    within: float | None = Field(None, gt=0, lt=1, description="its tolerance, as a share: 0.05 is 5 % either way")
    at_least: float | None = Field(None, gt=0, description="the lower bound")
    at_most: float | None = Field(None, gt=0, description="the upper bound")

    @model_validator(mode="after")
    def _one_way(self) -> Expected:
        figure, bounds = (self.about, self.within), (self.at_least, self.at_most)
        if (None in figure) == (bounds == (None, None)) or (None in figure and figure != (None, None)):
            raise ValueError("give either `about` with `within`, or `at_least`, `at_most` or both")
        if None not in bounds and self.at_least >= self.at_most:
            raise ValueError("at_least must be below at_most")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value that agree with the claim; a tolerance is symmetric for ratios."""
        if self.about is not None:
            return self.about / (1 + self.within), self.about * (1 + self.within)
        return self.at_least or 0.0, self.at_most or math.inf

    def __str__(self) -> str:
        if self.about is not None:
            return f"{self.about:g}, {100 * self.within:g} % either way"
        if self.at_most is None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}" if self.at_least is None else f"{self.at_least:g} to {self.at_most:g}"


class Reading(_Strict):
    """A number of some cells, from the processes whose proof is as it must be."""

    number: str = Field(description="a field of the records of the study's kind of measurement")
    where: Where = Field({}, description="of which cells")
    proof: Where = Field({}, description="what their proof must say; a process that proves something else is left out")


class _Rule(_Strict):
    of: Reading
    cells: Where = Field({}, description="cells that it is about at all; those that differ otherwise are tested apart")
    expected: Expected


class Value(_Rule):
    """The number itself is as expected."""

    rule: Literal["value"]

    def readings(self) -> list[Reading]:
        """What is read of a run."""
        return [self.of]


class Ratio(_Rule):
    """`of` over `to` is as expected, in each pair of cells that differ in nothing but what these two name."""

    rule: Literal["ratio"]
    to: Reading

    @model_validator(mode="after")
    def _pairs(self) -> Ratio:
        if not self.of.where or self.of.where.keys() != self.to.where.keys():
            raise ValueError("`of` and `to` need the same fields in `where`, and one at least")
        for value in (*self.of.where.values(), *self.to.where.values()):
            if isinstance(value, list) or "*" in str(value):
                raise ValueError(f"`of` and `to` are one cell each: {value!r} in `where` may be several")
        return self

    def readings(self) -> list[Reading]:
        """What is read of a run."""
        return [self.of, self.to]


class AgainstLine(_Rule):
    """What a straight line through other cells predicts, over what was measured, is as expected."""

    rule: Literal["against-line"]
    along: str = Field(description="the field that the line goes along; `of` has one value of it")
    through: list[float] = Field(min_length=3, description="its values in the cells that the line is fitted to")

    @model_validator(mode="after")
    def _is_beside(self) -> AgainstLine:
        at = self.of.where.get(self.along)
        if len(self.of.where) != 1 or isinstance(at, str | bool | list) or at is None or at in self.through:
            raise ValueError(f"`where` needs {self.along} and nothing else, with one number that `through` has not")
        return self

    def readings(self) -> list[Reading]:
        """What is read of a run."""
        return [self.of, self.of.model_copy(update={"where": self.of.where | {self.along: self.through}})]


class Hardware(_Strict):
    """What a claim is about."""

    device: Literal["cpu", "cuda", "any"] = Field(description="any: of what depends on none, such as accuracy")
    gpu: str = Field("", description="a part of the GPU's name, such as A100; empty: any")

    @model_validator(mode="after")
    def _has_gpu(self) -> Hardware:
        if self.gpu and self.device != "cuda":
            raise ValueError(f"gpu is given, but device is {self.device}")
        return self

    def __str__(self) -> str:
        if self.gpu:
            return f"a GPU whose name has {self.gpu!r}"
        return {"cpu": "a CPU", "cuda": "a GPU", "any": "any device"}[self.device]


class Claim(_Strict):
    """One claim, with what tests it and how a run becomes a verdict."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    claim: str = Field(min_length=10, description="in our own words")
    source: str = Field(description="key of book/references.bib, or `requirement document 001`")
    reading: str = Field("", description="how it is understood, and what it leaves open")
    study: str
    section: str = Field("", description="what of the study is meant, by its kind; empty: what it measures first")
    hardware: Hardware
    model: str = Field("", description="its model on the hub; empty: any")
    text: str = Field("", description="its data set on the hub; empty: any")
    parameters: dict[str, Any] = Field({}, description="of a run of the study that tests it; the rest as in `full`")
    test: Annotated[Value | Ratio | AgainstLine, Field(discriminator="rule")]


class _File(_Strict):
    claims: list[Claim] = Field(min_length=1)


def file() -> Path:
    """Where the claims are."""
    return paths.repo_root() / "params" / "claims.yml"


def load() -> list[Claim]:
    """All claims in their order.

    Raises:
        ParameterError: a key, a rule, a study, a parameter, a number or a source is none that there is; each is named,
            with what it may be.
    """
    content = read_yaml(file())
    try:
        claims = _File.model_validate(content).claims
    except ValidationError as error:
        raise ParameterError("\n".join(_in_words(content, error))) from None
    keys = bibliography()
    problems = [f"{file()}, claim {claim.id!r}: {said}" for claim in claims for said in _unknown(claim, keys)]
    ids = [claim.id for claim in claims]
    problems += [f"{file()}: two claims have the id {one!r}" for one in sorted({i for i in ids if ids.count(i) > 1})]
    if problems:
        raise ParameterError("\n".join(problems))
    return claims


def bibliography() -> list[str]:
    """The keys of the book's bibliography."""
    text = (paths.repo_root() / "book" / "references.bib").read_text(encoding="utf-8")
    return re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE)


def command(claim: Claim) -> str:
    """The command that makes a run which tests the claim."""
    device = " --device cuda:0" if claim.hardware.device == "cuda" else ""
    given = (f" -p {name} {_as_text(value)}" for name, value in claim.parameters.items())
    return f"distilbench run {claim.study} --profile full{device}{''.join(given)}"


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def kind_of(claim: Claim) -> Measurement:
    """What measures what the claim is about."""
    return measurement.named(claim.section) if claim.section else studies.kind_of(claim.study)


def _unknown(claim: Claim, keys: list[str]) -> Iterator[str]:
    """What a claim names and there is not."""
    if not DOCUMENT.fullmatch(claim.source) and claim.source not in keys:
        yield (
            f"source {claim.source!r} is no key of book/references.bib{hint(claim.source, keys)} "
            "Or give `requirement document NNN`."
        )
    device = "cuda:0" if claim.hardware.device == "cuda" else "cpu"
    try:
        given = {"profile": "full", "device": device} | claim.parameters
        resolved = studies.resolve(claim.study, given, with_file=False)  # no edited profile makes a claim wrong
    except ParameterError as error:
        yield str(error)
        return
    known = type(resolved.params).SECTIONS
    if claim.section and claim.section not in known:
        yield f"study {claim.study!r} has no section {claim.section!r}{hint(claim.section, known)}"
        return
    yield from _not_there(claim, resolved)


def _not_there(claim: Claim, resolved: Resolved) -> Iterator[str]:
    """The numbers and cells that a run with the claim's parameters would not have."""
    kind, of = kind_of(claim), resolved
    if claim.section:
        of = studies.sections(resolved)[claim.section][0]
    cells = [cell.model_dump() for cell in kind.cells(of.params) if not cell.control_of]
    for reading in claim.test.readings():
        if reading.number not in (fields := kind.record.model_fields):
            number = reading.number
            yield f"a record of study {claim.study!r} has no number {number!r}{hint(number, fields)}"
        for name, value in (*claim.test.cells.items(), *reading.where.items()):
            if name not in cells[0]:
                yield f"a cell of study {claim.study!r} has no {name!r}{hint(name, cells[0])}"
            for one in value if isinstance(value, list) else [value]:
                if name in cells[0] and not any(agrees(cell, {name: one}) for cell in cells):
                    there = ", ".join(dict.fromkeys(str(cell[name]) for cell in cells))
                    yield f"with its parameters no cell has {name} {one!r}; they have: {there}"


def _in_words(content: dict[str, Any], error: ValidationError) -> Iterator[str]:
    """One line per wrong value: which claim, where in it, what is allowed."""
    for problem in error.errors():
        where, what = [part for part in problem["loc"] if part not in RULES], problem["msg"]
        who = str(file())
        if len(where) > 1:
            who += f", claim {_name(content['claims'], where[1])}"
        if problem["type"] == "extra_forbidden":
            allowed = _allowed(problem["loc"])
            what = f"unknown key {where[-1]!r}{hint(where[-1], allowed)} Keys: {', '.join(allowed)}."
            where = where[:-1]
        elif problem["type"] == "union_tag_invalid":
            given = problem["ctx"]["tag"]
            what = f"unknown rule {given!r}{hint(given, RULES)} Rules: {', '.join(RULES)}."
        inside = ".".join(str(part) for part in where[2:])
        yield f"{who}{f', {inside}' if inside else ''}: {what.removeprefix('Value error, ')}"


#: The rules by name.
RULES: dict[str, type[_Rule]] = {"value": Value, "ratio": Ratio, "against-line": AgainstLine}


def _name(claims: list[Any], index: int) -> str:
    entry = claims[index]
    return repr(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"number {index + 1}"


def _allowed(place: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed where an unknown one stands."""
    models: dict[str | int, type[BaseModel]] = {"hardware": Hardware, "expected": Expected, "of": Reading} | RULES
    models["to"] = Reading
    inner = next((models[part] for part in reversed(place[:-1]) if part in models), None)
    return list((inner or (Claim if len(place) > 1 else _File)).model_fields)
