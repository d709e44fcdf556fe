"""What differs between architectures: a small file each, named after the `model_type` in a checkpoint's config.json.

A new one is a file here with a `FAMILY`; loader, batches, ceilings and worker name none.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from distilbench.errors import ModelError

DEFAULT = "distilbert"  # of random weights, and of a tokenizer whose files do not tell


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: for captions and messages.
        config, model, tokenizer: names of classes in transformers; the model classifies sequences.
        sizes: arguments of `config` for random weights, by size; rows of the table are the tokenizer's unless given.
        pads_left: whether padding goes before the tokens.
        forward_flops: (config, batch size, length) -> FLOPs of the matrix products of a forward; a multiplication and
            an addition are two.
        forward_bytes: (module, input_ids) -> bytes that a forward must move at least.
    """

    name: str
    config: str
    model: str
    tokenizer: str
    sizes: Mapping[str, Mapping[str, Any]]
    pads_left: bool
    forward_flops: Callable[[Any, int, int], float]
    forward_bytes: Callable[[Any, Any], float]

    @property
    def config_class(self) -> Any:
        """By name, as the next two: transformers imports a class when it is asked for."""
        return getattr(transformers, self.config)

    @property
    def model_class(self) -> Any:
        """The class of the model."""
        return getattr(transformers, self.model)

    @property
    def tokenizer_class(self) -> Any:
        """The class of the fast tokenizer, which a worker without requests never needs."""
        return getattr(transformers, self.tokenizer)


def supported() -> list[str]:
    """The `model_type` of each family."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def named(model_type: str) -> Family:
    """The family of that `model_type`.

    Raises:
        ModelError: there is none.
    """
    module = f"{__name__}.{model_type}"
    try:
        return importlib.import_module(module).FAMILY
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModelError(
            f"models of type {model_type!r} are not supported; supported are: {', '.join(supported())} "
            "(`model_type` in config.json; a new family is a file in distilbench/sources/families/)"
        ) from None


def of_checkpoint(folder: Path) -> Family:
    """The family of a checkpoint's folder.

    Raises:
        ModelError: its config.json is missing, is no JSON, or names a type that is not supported.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"no key {error}" if isinstance(error, KeyError) else str(error).partition(chr(10))[0]
        raise ModelError(
            f"{folder} holds no checkpoint (config.json, model.safetensors): its config.json cannot be read: {why}"
        ) from None
    return named(str(model_type))


def of_random(model_type: str, size: str) -> Family:
    """The family of random weights.

    Raises:
        ModelError: there is none of that `model_type`, or it has no such size; those that it has are named.
    """
    family = named(model_type)
    if size not in family.sizes:
        raise ModelError(f"{family.name} has no size {size!r}; it has: {', '.join(family.sizes)} (`model_size`)")
    return family


def of_tokenizer(folder: Path) -> Family:
    """The family of a tokenizer's folder: by the class that the tokenizer names, else of the checkpoint beside it.

    A tokenizer may come from a model that is not supported: what tells of no family here is read as the default's.
    """
    by_class = {family.tokenizer.removesuffix("Fast"): family for family in map(named, supported())}
    saved_as = str(_setting(folder / "tokenizer_config.json", "tokenizer_class")).removesuffix("Fast")
    model_type = _setting(folder / "config.json", "model_type")
    return by_class.get(saved_as) or named(model_type if model_type in supported() else DEFAULT)


def _setting(file: Path, name: str) -> Any:
    """One value of a file of settings; None where it has none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError):
        return None
