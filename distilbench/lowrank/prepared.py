"""What parameters ask for: a text as tokens, and a decoder with compressed keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from distilbench import paths
from distilbench.lowrank import calibration, checkpoint, compress, cost, ranks
from distilbench.lowrank.compress import Compressed, Proof
from distilbench.lowrank.params import DecoderParams
from distilbench.lowrank.ranks import Allocation
from distilbench.lowrank.shapes import Shapes
from distilbench.sources import prose
from distilbench.sources.decoders import LoadedDecoder

RANDOM_TOKENS = 1 << 14  # for random weights, which have no tokenizer


def tokens_of(params: DecoderParams, loaded: LoadedDecoder, calibrating: bool) -> tuple[torch.Tensor, dict[str, Any]]:
    """Token ids, int64 (tokens,), and what the text is; of random weights random ids.

    Args:
        calibrating: the half that keys and values are calibrated on, which shares nothing with the other one.

    Raises:
        DataError, HubError: the text cannot be had.
    """
    if loaded.folder is None:
        generator = torch.Generator().manual_seed(params.seed + calibrating)
        ids = torch.randint(loaded.module.config.vocab_size, (RANDOM_TOKENS,), generator=generator)
        manifest = {"name": "random tokens", "source": "random", "sha256": paths.sha256_bytes(ids.numpy().tobytes())}
    else:
        text = prose.load(params.text, params.text_path, calibrating)
        ids = torch.tensor(loaded.tokenizer()(text.text, add_special_tokens=False)["input_ids"])
        manifest = text.manifest()
    return ids, {"schema_version": 1, **manifest, "tokens": len(ids)}


def windows_of(params: DecoderParams, loaded: LoadedDecoder) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The windows of the calibration, each int64 (1, L), and what they are."""
    ids, manifest = tokens_of(params, loaded, calibrating=True)
    windows = calibration.cut(ids, params.calibration_length, params.calibration_windows)
    return windows, manifest | {"windows": len(windows), "length": params.calibration_length}


def compressed(
    params: DecoderParams, ratio: float, search: str, ratio_dir: str, of: Shapes, loaded: LoadedDecoder
) -> tuple[Compressed, dict[str, Any]]:
    """The compressed model, and where its ranks and factors are from: a rank file, or a calibration.

    Args:
        ratio: fraction to keep.
        search: fisher or uniform.
        ratio_dir: folder to search for rank files; "": ranks are found here.

    Raises:
        ModelError: no rank file fits.
        DataError: the text is shorter than a window.
    """
    record: dict[str, Any] = {"rank_file": None, "calibrated_on": None}
    match = checkpoint.search(paths.find_input(ratio_dir), of, ratio) if ratio_dir else None
    if match:
        record["rank_file"] = {"folder": str(match.file.folder), "why": match.why, "weights": match.file.weights}
        record["rank_file"]["original"] = match.file.original
        if match.file.weights:
            return checkpoint.load(loaded.module, of, match.file), record
    windows, record["calibrated_on"] = windows_of(params, loaded)
    moments = calibration.moments(loaded.module, of, windows)
    if match:
        allocation = match.allocation
    else:
        scores = calibration.fisher(loaded.module, of, windows) if search == "fisher" else {}
        allocation = allocated(of, ratio, search, params.rank_block, scores)
    return compress.compress(loaded.module, of, allocation, moments), record


def allocated(of: Shapes, ratio: float, search: str, block: int, scores: Mapping[str, float]) -> Allocation:
    """Ranks by that search; `scores` are the Fisher information, for search fisher."""
    return ranks.by_fisher(of, ratio, scores, block) if search == "fisher" else ranks.uniform(of, ratio, block)


def content(made: Compressed, proof: Proof, record: dict[str, Any]) -> dict[str, Any]:
    """What compression.json says: ranks and their source, what they keep, and the proof."""
    of, energy = made.shapes, made.energy
    return {
        "schema_version": 1,
        "group_size": of.group_size,
        "groups": of.groups,
        "group_width": of.group_width,
        "cost": cost.of_token(of, made.allocation.ranks, next(made.model.parameters()).element_size()),
        **{name: value for name, value in asdict(made.allocation).items() if name != "ranks"},
        "ranks": {name: list(given) for name, given in made.allocation.ranks.items()},
        "ranks_sha256": paths.sha256_bytes(paths.canonical_json(made.allocation.ranks)),
        "energy": energy and {name: list(shares) for name, shares in energy.items()},
        "retained": energy and calibration.retained(energy),
        "proof": asdict(proof),
        **record,
    }
