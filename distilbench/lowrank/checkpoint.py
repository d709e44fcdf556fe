"""Rank files and factors on disk, in the public format of PaLU's own tools, and the search for those that fit.

A folder has `config.json` with `head_wise_ranks`: {"model.layers.0.self_attn.k_proj": [rank of each group, ...], ...}.
Ours have `model.safetensors` as well, with the factors alone (`...k_proj.VT.weight`, `...k_proj.U.0.weight`); all other
weights are those of the model that it was made from, which `original_model_name_or_path` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from distilbench import paths
from distilbench.errors import DistilbenchError, ModelError, first_line
from distilbench.lowrank import ranks as allocations
from distilbench.lowrank.calibration import projections
from distilbench.lowrank.compress import Compressed, install
from distilbench.lowrank.projection import LowRankProjection
from distilbench.lowrank.ranks import Allocation
from distilbench.lowrank.shapes import KINDS, Shapes

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class RankFile:
    """A folder with ranks.

    Attributes:
        folder: where it lies.
        ranks: projection -> rank of each group.
        weights: whether factors lie beside them.
        original: the model it was made from, where the file says so.
    """

    folder: Path
    ranks: Mapping[str, tuple[int, ...]]
    weights: bool
    original: str | None


def read(folder: Path) -> RankFile:
    """The ranks of a folder.

    Raises:
        ModelError: it has no config.json, or that has no `head_wise_ranks` with a list of whole numbers per projection.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        ranks = {str(name): tuple(_whole(rank) for rank in given) for name, given in config["head_wise_ranks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"no key {error}" if isinstance(error, KeyError) else first_line(error)
        raise ModelError(
            f"{folder} holds no ranks ({CONFIG} with head_wise_ranks: a list of ranks for each projection): {why}"
        ) from None
    return RankFile(folder, ranks, (folder / WEIGHTS).is_file(), config.get("original_model_name_or_path"))


def _whole(rank: Any) -> int:
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise ValueError(f"a rank must be a whole number, not {rank!r}")
    return rank


@dataclass(frozen=True)
class Match:
    """The rank file that was taken, and why.

    Attributes:
        file: it.
        allocation: its ranks.
        why: in a sentence.
    """

    file: RankFile
    allocation: Allocation
    why: str


def search(folder: Path, shapes: Shapes, ratio: float) -> Match:
    """Of all rank files in a folder and below, the one that fits the model and comes nearest to a ratio.

    Of equally near ones that with factors is taken, then the first by name.

    Raises:
        ModelError: the folder is not there, holds no rank file, or none that fits; why each does not is said.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder} to search for rank files")
    fitting, refused = [], []
    for config in sorted(folder.rglob(CONFIG)):
        try:
            file = read(config.parent)
            fitting.append((file, allocations.from_file(file.ranks, shapes)))
        except DistilbenchError as error:
            refused.append(f"{config.parent.relative_to(folder)}: {first_line(error)}")
    if not fitting:
        found = "; ".join(refused) or f"it has no {CONFIG} at all"
        raise ModelError(f"no rank file in {folder} fits this model. {found}")
    file, allocation = min(fitting, key=lambda pair: (abs(pair[1].effective - ratio), not pair[0].weights))
    why = (
        f"of {len(fitting)} that fit this model it keeps the fraction nearest to {ratio:g}: {allocation.effective:.3f}"
        + (f"; {len(refused)} others do not fit" if refused else "")
    )
    return Match(file, allocation, why)


def save(compressed: Compressed, folder: Path, original: str, record: Mapping[str, Any] | None = None) -> None:
    """Writes ranks and factors; a folder that was begun and not ended has no config.json, and is no rank file.

    Args:
        compressed: the model.
        folder: where; made if it is not there.
        original: name of the model that it was made from.
        record: what else is to be known of it, such as the text of its calibration.
    """
    tensors = {
        f"{name}.{part}": tensor.contiguous()
        for name, module in projections(compressed.model, compressed.shapes).items()
        for part, tensor in module.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with paths.clear_write_errors(folder):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {key: value for key, value in asdict(compressed.allocation).items() if key != "ranks"}
    config = {
        "model_type": "palullama", "architectures": ["PaluLlamaForCausalLM"], "original_model_name_or_path": original,
        "head_wise_ranks": {name: list(ranks) for name, ranks in compressed.allocation.ranks.items()},
        "group_size": compressed.shapes.group_size, **settings, "energy": compressed.energy, **(record or {}),
    }  # fmt: skip
    paths.write_json(folder / CONFIG, config)


def load(model: nn.Module, shapes: Shapes, file: RankFile, kinds: Sequence[str] = KINDS) -> Compressed:
    """Puts the factors of a folder into the model that they were made from, which is changed in place.

    Args:
        kinds: those of these projections alone; without k_proj keys stay whole, and the allocation says so.

    Raises:
        ModelError: the ranks or the factors are of another model, or a file is damaged.
    """
    allocation, made = allocations.from_file(file.ranks, shapes), {}
    try:
        with safe_open(file.folder / WEIGHTS, framework="pt") as tensors:
            names = set(tensors.keys())
            for name, original in projections(model, shapes).items():
                if name.endswith(tuple(kinds)):
                    made[name] = _module(original, allocation.ranks[name], name, tensors, names)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file.folder / WEIGHTS} cannot be read: {first_line(error)}") from None
    install(model, shapes, made)
    if len(made) < len(allocation.ranks):
        allocation = allocations.only(allocation, list(made), shapes)
    return Compressed(model, shapes, allocation, None)


def _module(original: nn.Linear, ranks: tuple[int, ...], name: str, tensors: Any, names: set[str]) -> LowRankProjection:
    """A projection from a file, in the dtype and on the device of the one that it replaces."""
    made = LowRankProjection(
        original.in_features, original.out_features // len(ranks), ranks, original.bias is not None
    )
    found = {}
    for part, wanted in made.state_dict().items():
        key = f"{name}.{part}"
        if key not in names:
            raise ModelError(f"the factors are of another model: they have no {key}")
        tensor = tensors.get_tensor(key)
        if tensor.shape != wanted.shape:
            raise ModelError(
                f"the factors are of another model: {key} is {list(tensor.shape)}, not {list(wanted.shape)}"
            )
        found[part] = tensor.to(original.weight)
    made.load_state_dict(found, assign=True)
    return made.requires_grad_(False)
