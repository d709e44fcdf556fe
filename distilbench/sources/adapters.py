"""A low-rank adapter (LoRA, in PEFT's format) as a checkpoint: merged into its base model once, in the cache.

Merged weights are what a service runs: a forward through an unmerged adapter has twice as many products.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import families, hub, labels
from distilbench.sources.caches import built_once

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OF_TOKENIZERS = ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole checkpoint.

    Raises:
        ModelError: it holds both, of which transformers would add the one to the other.
    """
    if not (folder / CONFIG).is_file():
        return False
    if (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder} holds an adapter and whole weights, and does not tell whether it is already merged into them: "
            f"copy the one that is meant into a folder of its own (without {CONFIG}, or without model.safetensors)"
        )
    return True


def base_of(folder: Path) -> tuple[str, Path]:
    """The base model that an adapter names: its name, and its folder, here or from the hub.

    Raises:
        ModelError: it names none, or is no adapter of the kind that can be merged.
        HubError: the hub does not have the base, or cannot be used.
    """
    told = _read(folder / CONFIG)
    if told.get("peft_type") != "LORA":
        raise ModelError(f"{folder}: only adapters of type LORA can be merged, not {told.get('peft_type')!r}")
    name = told.get("base_model_name_or_path")
    if not isinstance(name, str) or not name.strip():
        raise ModelError(f"{folder}: its {CONFIG} names no base model (`base_model_name_or_path`)")
    for place in (paths.expand(name), folder / name):
        if place.is_dir():
            return place.resolve().name, place.resolve()
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"{folder}: its base model {name!r} is no folder here and no name on the hub: write where it is into "
            f"`base_model_name_or_path` of {CONFIG}"
        )
    return name, hub.fetch_model(name, told.get("revision") or "main")[0]


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a checkpoint is: beside it, or beside the base model of an adapter without one."""
    if has_tokenizer(folder) or not is_adapter(folder):
        return folder
    return base_of(folder)[1]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds one; from an empty one, transformers would make one up."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))


def whole(folder: Path) -> tuple[Path, str]:
    """A checkpoint as such: an adapter merged into its base model, in float32, and saved in the cache.

    Returns:
        (the folder, what to add to its name).

    Raises:
        ModelError: the adapter and its base do not fit, or nothing names the adapter's classes.
    """
    if not is_adapter(folder):
        return folder, ""
    name, base = base_of(folder)
    names = _class_names(folder, base)
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(base.glob("*.safetensors"))]
    sums = [paths.sha256_file(folder / file) for file in (CONFIG, WEIGHTS) if (folder / file).is_file()]
    key = paths.sha256_bytes(paths.canonical_json([sums, str(base), weights, list(names)]))[:12]

    def build(target: Path) -> None:
        merge(*_classifier(base, names), folder).save_pretrained(target)
        tokenizer = tokenizer_folder(folder)
        for file in (file for pattern in OF_TOKENIZERS for file in tokenizer.glob(pattern)):
            shutil.copyfile(file, target / file.name)

    merged = built_once(paths.cache_root() / f"merged-{key}", "merges the adapter", build)
    return merged, f" (adapter, merged into {name})"


def merge(base: torch.nn.Module, missing: Iterable[str], adapter: Path) -> torch.nn.Module:
    """A model with an adapter's folder merged into its weights.

    Args:
        missing: names of the base's tensors that are random, since only the adapter has them.

    Raises:
        ModelError: they do not fit, or the adapter lacks something that it says it has.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / WEIGHTS, "pt") as file:
            saved = set(file.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old name in transformers; what is missing is said below
            loaded = PeftModel.from_pretrained(base, adapter)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the adapter {adapter} does not fit its base model: {' '.join(said[:2])}") from error
    expected = set(get_peft_model_state_dict(loaded, save_embedding_layers=False))  # else it asks the hub of the base
    if differ := sorted(expected ^ saved):
        side = "lacks" if differ[0] in expected else "has, and its base model has no place for,"
        raise ModelError(f"the adapter {adapter} {side} {differ[0]!r} ({len(differ)} tensors differ)")
    if random := sorted(set(missing) - {name.removeprefix("base_model.model.") for name in saved}):
        raise ModelError(f"neither the adapter {adapter} nor its base model has {random[0]!r}: it would be random")
    return loaded.float().merge_and_unload()


def _classifier(base: Path, names: tuple[str, ...]) -> tuple[torch.nn.Module, list[str]]:
    """The base model with a head for these classes, and the names of the tensors that it lacks."""
    import torch

    family = families.of_checkpoint(base)
    try:
        module, report = family.model_class.from_pretrained(
            base,
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=True,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise ModelError(f"{base} holds no {family.name} model: {str(error).strip().splitlines()[0]}") from error
    return module, report["missing_keys"]


def _class_names(folder: Path, base: Path) -> tuple[str, ...]:
    """The adapter's classes, from the first that names them: config.json, label_mappings.json, its base's config."""
    for place in (folder, base):
        told = _read(place / "config.json") if (place / "config.json").is_file() else {}
        if (names := labels.class_names(told.get("id2label"))) and not labels.unnamed(names):
            return names
        if place is folder and (names := labels.names_beside(folder)):
            return names
    raise ModelError(
        f"the adapter {folder} does not name its classes: put {labels.MAPPINGS} beside it, such as "
        '{"id2label": {"0": "first class", "1": "second class"}}'
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    if not isinstance(told, dict):
        raise ModelError(f"{file} holds no JSON object")
    return told
