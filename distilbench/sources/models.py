"""The model loader: a classifier of any family from any source, on any device, with what is recorded of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from distilbench import paths
from distilbench.collectors import memory
from distilbench.errors import ModelError
from distilbench.machine.device import DTYPES, parse, synchronize
from distilbench.sources import adapters, embedded, families, hub
from distilbench.sources import labels as labels_of
from distilbench.sources.families import Family
from distilbench.sources.tokenizers import table_rows

transformers.utils.logging.disable_progress_bar()  # bars of a few milliseconds would litter notebooks and logs

HUB_MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


@dataclass(frozen=True)
class ModelInfo:
    """What was loaded, as recorded in model.json.

    Attributes:
        source: hub, local, embedded or random.
        name: what to call it in captions.
        revision: commit on the hub, where there is one.
        parameters: number of parameters.
        memory_bytes: parameters and buffers as loaded.
        disk_bytes: weights file; null for random weights.
        load_s: wall time from files to a model that is ready on its device.
        sha256: of the weights file; of the parameters' bytes for random weights.
        label_names: in the order of the logits.
        dtype, attention, device: as loaded.
    """

    source: str
    name: str
    revision: str | None
    parameters: int
    memory_bytes: int
    disk_bytes: int | None
    load_s: float
    sha256: str
    label_names: tuple[str, ...]
    dtype: str
    attention: str
    device: str


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        module: the model itself, in evaluation mode.
        forward: (input_ids, attention_mask), each int64 (batch, length) on the device -> logits (batch, labels).
        info: what was loaded.
        family: its architecture.
    """

    module: torch.nn.Module
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    info: ModelInfo
    family: Family

    def touch(self) -> None:
        """Makes all weights resident (`collectors.memory.touch`)."""
        memory.touch(self.module)

    def cost(self, input_ids: torch.Tensor) -> tuple[float, float]:
        """FLOPs and bytes of one forward, counted from the shapes; ids as of `forward`."""
        flops = self.family.forward_flops(self.module.config, *input_ids.shape)
        return flops, self.family.forward_bytes(self.module, input_ids)


def load_model(
    device: str = "cpu",
    *,
    source: str = "hub",
    path: str | Path = "",
    name: str = HUB_MODEL,
    revision: str = "main",
    dtype: str = "float32",
    attention: str = "sdpa",
    autocast: str | None = None,
    compile: bool = False,
    size: str = "base",
    vocab_size: int = 30522,
    pad: int | None = None,
    labels: int = 2,
    seed: int = 17,
    family: str = families.DEFAULT,
    task: str = "movies",
) -> LoadedModel:
    """Loads a classifier of sequences, ready to run on `device`.

    Args:
        device: cpu, cuda or cuda:N.
        source: hub (`name` at `revision`), local (`path`), embedded (`task`), or random (`family`, `size`,
            `vocab_size`, `labels`, `seed`).
        dtype: of the weights: float32, bfloat16 or float16.
        attention: eager or sdpa (the implementation inside transformers).
        autocast: dtype of mixed precision around each forward; None: none.
        compile: run through torch.compile.
        pad: the id that fills up batches, by which a decoder finds the last token of each; None: its config's own.

    Raises:
        DeviceError: no such device; those that are there are named.
        ModelError: no checkpoint at `path`, or of no architecture that is supported.
        HubError: the hub cannot be used; the message has the ways out.
    """
    place = parse(device)
    folder, shown, commit = _locate(source, path, name, revision, task)
    architecture = families.of_checkpoint(folder) if folder else families.of_random(family, size)
    name_of_size = size if size.isalpha() else size.upper()  # Qwen2.5-0.5B
    shown = shown or f"{architecture.name}-{name_of_size} shape, random weights (timing only)"
    started = time.perf_counter()  # what is fetched or built the first time is not part of loading
    if folder is None:
        torch.manual_seed(seed)
        config = architecture.config_class(
            **{"vocab_size": vocab_size, "num_labels": labels} | architecture.sizes[size]
        )
        config._attn_implementation = attention
        module = architecture.model_class(config).to(DTYPES[dtype])
    else:
        module = _from_folder(folder, architecture, dtype, attention)
    _configure(module.config, pad)
    module = module.eval().to(place)
    synchronize(place)
    load_s = time.perf_counter() - started
    weights = folder / "model.safetensors" if folder else None
    info = ModelInfo(
        source=source,
        name=shown,
        revision=commit,
        parameters=sum(p.numel() for p in module.parameters()),
        memory_bytes=sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())),
        disk_bytes=weights.stat().st_size if weights else None,
        load_s=load_s,
        sha256=paths.sha256_file(weights) if weights else weights_sha256(module),
        label_names=_label_names(module.config, shown, folder),
        dtype=dtype,
        attention=module.config._attn_implementation,
        device=str(place),
    )
    return LoadedModel(module, _forward(module, place, autocast, compile), info, architecture)


def _locate(source: str, path: str | Path, name: str, revision: str, task: str) -> tuple[Path | None, str, str | None]:
    """The folder of a whole checkpoint, what to call it, and its commit; nothing of random weights."""
    if source == "random":
        return None, "", None
    if source == "embedded":
        return embedded.classifier_dir(task), embedded.TASKS[task].name, None
    if source == "local":
        folder, adapted = adapters.whole(paths.find_input(path))
        return folder, f"local checkpoint {Path(path).name}{adapted}", None
    there, commit = hub.fetch_model(name, revision)
    folder, adapted = adapters.whole(there)
    return folder, f"{name}{adapted}", commit


def _from_folder(folder: Path, family: Family, dtype: str, attention: str) -> torch.nn.Module:
    """Loads a checkpoint folder; one that lacks weights of the classifier is refused, not filled with random ones."""
    holds_none = f"{folder} holds no {family.name} checkpoint (config.json, model.safetensors)"
    if not (folder / "model.safetensors").is_file():
        raise ModelError(f"{holds_none}: model.safetensors is missing; save the checkpoint as one safetensors file")
    return pretrained(family.model_class, folder, dtype, attention, holds_none, f"a {family.name} classifier")


def pretrained(
    model_class: Any, folder: Path, dtype: str, attention: str, holds_none: str, what: str
) -> torch.nn.Module:
    """A checkpoint's model by one of transformers' classes; none of its weights is filled with random ones.

    Args:
        holds_none: how a refusal begins where the folder cannot be read.
        what: it should be, for a refusal where weights are missing.

    Raises:
        ModelError: the folder cannot be read, or lacks weights.
    """
    try:
        module, report = model_class.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{holds_none}: {str(error).strip().splitlines()[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{folder} lacks {len(missing)} tensors of {what}, such as {missing[0]!r}")
    return module


def _configure(config: Any, pad: int | None) -> None:
    """What a classifier needs of a decoder's config: which id is padding, and no keys and values for later tokens.

    Checkpoints of decoders often name no padding, or another one than their tokenizer uses: then the "last token" would
    be one of the padding.
    """
    if pad is not None:
        config.pad_token_id = pad
    if getattr(config, "use_cache", False):
        config.use_cache = False


def _label_names(config: Any, name: str, folder: Path | None) -> tuple[str, ...]:
    """The class that each logit stands for: as config.json names them, else label_mappings.json beside it."""
    names = labels_of.class_names(config.id2label)
    if not names or len(names) != config.num_labels:
        raise ModelError(
            f"{name}: id2label in its config.json must name classes 0 to {config.num_labels - 1}; it is "
            f"{config.id2label}"
        )
    if labels_of.unnamed(names) and folder and (beside := labels_of.names_beside(folder)):
        if len(beside) != len(names):
            raise ModelError(f"{name}: {labels_of.MAPPINGS} names {len(beside)} classes, its config.json {len(names)}")
        return beside
    return names


def _forward(
    module: torch.nn.Module, device: torch.device, autocast: str | None, compile: bool
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    runnable = torch.compile(module) if compile else module

    @torch.inference_mode()
    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, DTYPES[autocast]) if autocast else nullcontext():
            return runnable(input_ids=input_ids, attention_mask=attention_mask).logits  # (B, labels)

    return forward


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 of all parameters' bytes in order of name: the checksum of weights that are in no file.

    Tensor by tensor and without a copy: a second set of weights would show in the peak memory of the process.
    """
    digest = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_fit(loaded: LoadedModel, tokenizer: Any, longest: int) -> None:
    """Refuses a tokenizer that is not the model's, and sequences longer than its positions.

    A table may have more rows than the tokenizer has tokens: many are filled up to a round number.

    Args:
        longest: tokens in the longest sequence that will be given to the model.

    Raises:
        ModelError: the tokenizer has ids that the model's table has no row for, or the positions do not suffice.
    """
    config, needed = loaded.module.config, table_rows(tokenizer)
    if needed > config.vocab_size:
        raise ModelError(
            f"the tokenizer's ids go up to {needed - 1}, the model's table has {config.vocab_size} rows: they do not "
            "belong together; leave tokenizer_path empty to take the model's own"
        )
    if longest > config.max_position_embeddings:
        raise ModelError(f"the model takes {config.max_position_embeddings} tokens at most, asked for are {longest}")


def match_labels(model_labels: tuple[str, ...], data_labels: tuple[str, ...]) -> list[int]:
    """For each logit, which label of the data set it stands for, matched by name whatever the case.

    Raises:
        ModelError: a name of either side has no counterpart, or more than one; both lists are named.
    """
    known = {name.strip().casefold(): index for index, name in enumerate(data_labels)}
    asked = [name.strip().casefold() for name in model_labels]
    if sorted(asked) == sorted(known):
        return [known[name] for name in asked]
    if labels_of.unnamed(asked):
        why = (
            "its checkpoint does not name its classes; save it with id2label and label2id in its config.json, or put "
            f'{labels_of.MAPPINGS} with an "id2label" beside it'
        )
    else:
        only_model = [name for name in model_labels if name.strip().casefold() not in known]
        only_data = [name for name in data_labels if name.strip().casefold() not in asked]
        sides = ((only_model, "the model"), (only_data, "the data"))
        said = [f"only {side} has {', '.join(map(repr, names))}" for names, side in sides if names]
        why = "; ".join(["the data must use the model's names, each of them and no other", *said])
    if len(model_labels) != len(data_labels):
        why += f" (the model has {len(model_labels)}, the data {len(data_labels)})"
    raise ModelError(f"the model's labels {list(model_labels)} do not match the data's {list(data_labels)}: {why}")
