"""What is kept of a training: its state, to go on from, and the classifier, to be used elsewhere.

Everything is written under another name, flushed to the disk and then renamed: a kill or a full disk leaves what was
there before.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from distilbench import paths
from distilbench.errors import RunError

STATE = "state.pt"
VERSION = 1


def save(file: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values, which `torch.load(..., weights_only=True)` reads: no code is in them."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with paths.clear_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(file, buffer.getvalue())


def load(file: Path) -> dict[str, Any]:
    """What `save` wrote.

    Raises:
        RunError: it is no such file.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint at {file}") from None
    except Exception as error:  # torch raises what pickle, zip files and its own reader raise
        raise RunError(f"{file} is no checkpoint that can be read: {str(error).splitlines()[0]}") from error


def state_file(folder: Path) -> Path:
    """Where the state of a training is."""
    return folder / STATE


def export(folder: Path, name: str, network: nn.Module, tokenizer: Path, about: dict[str, Any]) -> dict[str, str]:
    """Writes `<name>.pt` and, beside it, a folder `<name>` as transformers loads one: safetensors, config, tokenizer.

    Args:
        network: unwrapped.
        tokenizer: folder of its files.
        about: label names, hash of the data, run and settings, into the checkpoint.

    Returns:
        SHA-256 by name of what was written.
    """
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    with paths.clear_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save(folder / f"{name}.pt", {"version": VERSION, "model": weights, **about})
    whole = folder / name
    with paths.write_folder(whole) as part:
        (part / "model.safetensors").write_bytes(safetensors_bytes(weights, metadata={"format": "pt"}))
        network.config.save_pretrained(part)
        for file in tokenizer.iterdir():
            shutil.copyfile(file, part / file.name)
    written = [folder / f"{name}.pt", whole / "model.safetensors"]
    return {str(file.relative_to(folder)): paths.sha256_file(file) for file in written}


def copy(name: str, folder: Path, target: Path) -> Path:
    """The same checkpoint in another folder, where people look for it; returns its file there."""
    paths.write_atomic(target / f"{name}.pt", (folder / f"{name}.pt").read_bytes())
    with paths.write_folder(target / name) as part:
        shutil.copytree(folder / name, part, dirs_exist_ok=True)
    return target / f"{name}.pt"
