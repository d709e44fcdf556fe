"""What all cells of a run share: the texts as tokens, what the model is, and what the calibration says of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from distilbench import paths
from distilbench.errors import DataError
from distilbench.harness import handover
from distilbench.lowrank import calibration, prepared, shapes
from distilbench.measurements.perplexity.params import PerplexityParams
from distilbench.runs.folder import Run
from distilbench.sources import prose
from distilbench.sources.decoders import LoadedDecoder, load_decoder

MOMENTS, SCORES = Path("work", "moments.safetensors"), Path("work", "fisher.json")


def prepare(params: PerplexityParams, run: Run) -> dict[str, Any]:
    """Texts, model and calibration, recorded in data.json, model.json and calibration.json.

    Returns:
        `folder`: of the run, where workers find texts and calibration.

    Raises:
        DataError: a text is shorter than a window.
        RunError: the run was begun with another text or another model; both hashes are named.
    """
    loaded = load_decoder(**params.model_arguments())
    of = shapes.of_config(loaded.module.config, params.group_size)
    texts = {name: text_of(params, loaded, name) for name in params.texts}
    for name, text in texts.items():
        if len(text["ids"]) < params.length:
            raise DataError(f"text {name} has {len(text['ids'])} tokens, a window {params.length}: take more text")
        paths.write_json(run.folder / place(name), text)
    about = {name: {key: value for key, value in text.items() if key not in OF_WORKERS} for name, text in texts.items()}
    sha256 = paths.sha256_bytes(paths.canonical_json({name: text["sha256"] for name, text in about.items()}))
    names = " and ".join(text["name"] for text in about.values())
    source = about[params.texts[0]]["source"]
    data = {"schema_version": 1, "name": names, "source": source, "sha256": sha256, "texts": about}
    run.record_once("data.json", data | {"tokens": sum(text["tokens"] for text in about.values())}, ("sha256",))
    prepared.record_model(run, loaded)
    windows, manifest = prepared.windows_of(params, loaded)
    paths.write_atomic(run.folder / MOMENTS, save(calibration.moments(loaded.module, of, windows)))
    scores = calibration.fisher(loaded.module, of, windows) if "fisher" in params.forms else {}
    paths.write_json(run.folder / SCORES, scores)
    run.record_once("calibration.json", {"schema_version": 1, **manifest, "fisher": scores}, ("sha256",))
    told = {"folder": str(run.folder)}
    handover.save(run, told)
    return told


OF_WORKERS = ("ids", "lines")


def text_of(params: PerplexityParams, loaded: LoadedDecoder, name: str) -> dict[str, Any]:
    """A text: what it is, its token ids, and of each line its first token, the one behind its last, bytes and words."""
    if loaded.folder is None:
        ids, manifest = prepared.tokens_of(params, loaded, calibrating=False)
        ids = ids.roll(("held-out", "other", "topics").index(name) * len(ids) // 3)  # three texts, of a sort
        ends = [*range(0, len(ids), 12), len(ids)]
        lines = [[start, end, 2 * (end - start), end - start] for start, end in pairwise(ends)]
        return manifest | {"sha256": paths.sha256_bytes(ids.numpy().tobytes()), "ids": ids.tolist(), "lines": lines}
    others = {"other": prose.tiny_corpus, "topics": prose.topics}
    text = others[name]() if name in others else prose.load(params.text, params.text_path)
    found, lines, tokenizer = [], [], loaded.tokenizer()
    for line in text.text.split("\n"):
        # a line with its break: the ids of all lines are those of the whole text but where a token would span lines
        own = tokenizer(f"{line}\n", add_special_tokens=False)["input_ids"]
        lines.append([len(found), len(found) + len(own), len(f"{line}\n".encode()), len(line.split())])
        found += own
    return text.manifest() | {"tokens": len(found), "ids": found, "lines": lines}


def place(text: str) -> Path:
    """The file of a text, below the run folder."""
    return Path("work", f"{text}.json")


def read_text(folder: Path, name: str) -> dict[str, Any]:
    """A text that was prepared."""
    return json.loads((folder / place(name)).read_text(encoding="utf-8"))


def read_calibration(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Moments and Fisher information of all projections."""
    return load_file(folder / MOMENTS), json.loads((folder / SCORES).read_text(encoding="utf-8"))
