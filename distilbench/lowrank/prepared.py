"""What parameters ask for: a text as tokens, and a decoder with compressed keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distilbench import paths
from distilbench.lowrank import calibration, checkpoint, compress, cost, ranks, shapes
from distilbench.lowrank.compress import Compressed, Proof
from distilbench.lowrank.params import BASELINE, VALUES_ALONE, DecoderParams
from distilbench.lowrank.ranks import Allocation
from distilbench.lowrank.shapes import Shapes
from distilbench.machine.device import software
from distilbench.sources import prose
from distilbench.sources.decoders import LoadedDecoder

if TYPE_CHECKING:  # a worker needs no run folder
    from distilbench.runs.folder import Run

FACTORS = Path("work", "palu")  # in a run's folder: ranks and factors of the compressed model, for its workers
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


def record_model(run: Run, loaded: LoadedDecoder) -> None:
    """What the decoder is, in model.json, and torch's own software in env.json.

    Raises:
        RunError: the run was begun with another model; both hashes are named.
    """
    of_this_process = ("device", "attention", "load_s")  # each repetition has its own
    model = {key: value for key, value in vars(loaded.info).items() if key not in of_this_process}
    run.record_once("model.json", model | {"label_names": []}, ("sha256",))
    run.add_to_environment("torch", software())


def leave(params: Any, run: Run, loaded: LoadedDecoder, ids: torch.Tensor) -> None:
    """Finds ranks and factors, proves that the cache shrinks, and leaves them for the workers; not for the baseline.

    Args:
        params: of a decoder, with variants, ratio, rank_search and ratio_dir.
        ids: int64 (tokens,), what the proof reads.

    Raises:
        ModelError: the group size does not fit the model, no rank file does, or the compressed model is not one.
        RunError: the run was begun with other ranks; both hashes are named.
    """
    if set(params.variants) == {BASELINE}:
        return
    of = shapes.of_config(loaded.module.config, params.group_size)
    made, record = compressed(params, params.ratio, params.rank_search, params.ratio_dir, of, loaded)
    proof = compress.prove(made, ids[None].to(loaded.module.device))
    checkpoint.save(made, run.folder / FACTORS, loaded.info.name, record)
    run.record_once("compression.json", content(made, proof, record), ("ranks_sha256",))


def install(variant: str, group_size: int, folder: Path, loaded: LoadedDecoder) -> tuple[dict[str, Any] | None, float]:
    """Puts the factors that were left into the model where the variant asks for them.

    Args:
        folder: of the run.

    Returns:
        Ranks of its groups by projection (null: nothing is compressed), and the fraction that is kept.
    """
    if variant == BASELINE:
        return None, 1.0
    of = shapes.of_config(loaded.module.config, group_size)
    kinds = ("v_proj",) if variant == VALUES_ALONE else shapes.KINDS
    made = checkpoint.load(loaded.module, of, checkpoint.read(folder / FACTORS), kinds)
    return {name: list(given) for name, given in made.allocation.ranks.items()}, made.allocation.effective


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
