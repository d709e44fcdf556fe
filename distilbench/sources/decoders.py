"""The loader of decoders that generate text: any Llama or Qwen2 from any source, with what is recorded of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from distilbench import paths
from distilbench.errors import ModelError, first_line
from distilbench.machine.device import DTYPES, parse, synchronize
from distilbench.sources import hub, smollm2
from distilbench.sources.models import ModelInfo, pretrained, weights_sha256

HUB_DECODER = "meta-llama/Meta-Llama-3-8B-Instruct"
SUPPORTED = ("llama", "qwen2")  # `model_type` in config.json
#: Shapes of random weights, by size: config.json of Meta-Llama-3-8B and of SmolLM2-135M; and one for tests.
SIZES = {
    "8b": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "bos_token_id": 128000,
        "eos_token_id": 128001,
    },
    "135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "tiny": {
        "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}, "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip


@dataclass(frozen=True)
class LoadedDecoder:
    """A decoder that is ready to run.

    Attributes:
        module: the model itself, in evaluation mode.
        info: what was loaded; a decoder has no classes, so no label names.
        folder: of its files, with the tokenizer; null for random weights.
    """

    module: torch.nn.Module
    info: ModelInfo
    folder: Path | None

    def tokenizer(self) -> Any:
        """Its tokenizer.

        Raises:
            ModelError: random weights have none, or its files are damaged.
        """
        if self.folder is None:
            raise ModelError("random weights have no tokenizer, and what they say of a text means nothing")
        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.folder} holds no tokenizer that can be read: {first_line(error)}") from error


def load_decoder(
    device: str = "cpu",
    *,
    source: str = "hub",
    path: str | Path = "",
    name: str = HUB_DECODER,
    revision: str = "main",
    dtype: str = "float32",
    attention: str = "sdpa",
    size: str = "8b",
    seed: int = 17,
) -> LoadedDecoder:
    """Loads a decoder, ready to run on `device`.

    Args:
        device: cpu, cuda or cuda:N.
        source: hub (`name` at `revision`), local (`path`), embedded, or random (`size`, `seed`).
        dtype: of the weights: float32, bfloat16 or float16.
        attention: eager or sdpa (the implementation inside transformers).

    Raises:
        DeviceError: no such device; those that are there are named.
        ModelError: no checkpoint at `path`, or of no architecture that is supported.
        HubError: the hub cannot be used; the message has the ways out.
    """
    place = parse(device)
    folder, shown, commit = _locate(source, path, name, revision)
    started = time.perf_counter()  # what is fetched or built the first time is not part of loading
    if folder is None:
        module = _random(size, dtype, attention, seed, place)
        shown = f"Llama-{size if size.isalpha() else size.upper()} shape, random weights (timing only)"
    else:
        module = _from_folder(folder, dtype, attention)
    module = module.eval().requires_grad_(False).to(place)
    synchronize(place)
    load_s = time.perf_counter() - started
    weights = sorted(folder.glob("*.safetensors")) if folder else []
    info = ModelInfo(
        source=source,
        name=shown,
        revision=commit,
        parameters=sum(p.numel() for p in module.parameters()),
        memory_bytes=sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())),
        disk_bytes=sum(file.stat().st_size for file in weights) if weights else None,
        load_s=load_s,
        sha256=_sha256(weights) if weights else weights_sha256(module),
        label_names=(),
        dtype=dtype,
        attention=module.config._attn_implementation,
        device=str(place),
    )
    return LoadedDecoder(module, info, folder)


def _sha256(files: list[Path]) -> str:
    """Of the only file; of several, of their names and hashes."""
    sums = {file.name: paths.sha256_file(file) for file in files}
    return next(iter(sums.values())) if len(sums) == 1 else paths.sha256_bytes(paths.canonical_json(sums))


def _locate(source: str, path: str | Path, name: str, revision: str) -> tuple[Path | None, str, str | None]:
    """The folder of a checkpoint, what to call it, and its commit; nothing of random weights."""
    if source == "random":
        return None, "", None
    if source == "embedded":
        return smollm2.folder(), smollm2.NAME, None
    if source == "local":
        return paths.find_input(path), f"local checkpoint {Path(path).name}", None
    folder, commit = hub.fetch_model(name, revision)
    return folder, name, commit


def _random(size: str, dtype: str, attention: str, seed: int, place: torch.device) -> torch.nn.Module:
    """Random weights of a shape, made where and in the type in which they are used: they may not fit elsewhere."""
    if size not in SIZES:
        raise ModelError(f"there is no size {size!r} of a Llama; sizes: {', '.join(SIZES)} (`model_size`)")
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(DTYPES[dtype])
        with torch.device(place):
            return LlamaForCausalLM(LlamaConfig(**SIZES[size], attn_implementation=attention))
    finally:
        torch.set_default_dtype(before)


def _from_folder(folder: Path, dtype: str, attention: str) -> torch.nn.Module:
    """Loads a checkpoint folder; one that lacks weights is refused, not filled with random ones."""
    holds_none = f"{folder} holds no decoder that can be read (config.json, *.safetensors)"
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{holds_none}: there are no safetensors files")
    try:
        model_type = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{holds_none}: {first_line(error)}") from error
    if model_type not in SUPPORTED:
        raise ModelError(
            f"{folder} holds a model of type {model_type!r}; decoders that are supported: {', '.join(SUPPORTED)}"
        )
    return pretrained(AutoModelForCausalLM, folder, dtype, attention, holds_none, "a decoder")
