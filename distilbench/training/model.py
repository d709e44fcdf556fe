"""DistilBERT for classification (Sanh et al. 2019, arXiv:1910.01108), ready to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distilbench.errors import ModelError
from distilbench.sources import embedded, families, hub
from distilbench.sources.adapters import whole
from distilbench.sources.models import weights_sha256
from distilbench.training.params import TrainingParams

DTYPES = {"float32": torch.float32, "float64": torch.float64}
NO_DECAY = ("bias", "LayerNorm", "layer_norm")
HEAD = ("pre_classifier.", "classifier.")


class Classifier(nn.Module):
    """The network of a library, giving logits alone: on any device, and fit to be wrapped for many processes.

    Attributes:
        network: what is trained and saved.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of token ids and mask, int64 (B, L)."""
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits


def build(params: TrainingParams, label_names: list[str], vocab_size: int) -> Classifier:
    """The classifier before its training: an encoder from `model_source`, and untrained layers on top.

    Args:
        label_names: classes, in the order of the logits.
        vocab_size: rows that the tokenizer needs.

    Raises:
        ModelError: the checkpoint is no DistilBERT encoder.
    """
    torch.manual_seed(params.seed)
    names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    dropouts = {"dropout": params.dropout, "attention_dropout": params.dropout, "seq_classif_dropout": params.dropout}
    if params.model_source == "embedded":
        network = embedded.pretrained_classifier(label_names, **dropouts)
    elif params.model_source == "random":
        family = families.of_random(params.model_family, params.model_size)
        sizes = family.sizes[params.model_size]
        network = family.model_class(family.config_class(vocab_size=vocab_size, **sizes, **names, **dropouts))
    else:
        network = _from_folder(_folder(params), params, names | dropouts)
    return Classifier(network.to(DTYPES[params.dtype]))


def describe(classifier: Classifier, params: TrainingParams) -> dict[str, Any]:
    """What is trained: name, source, size, and the SHA-256 of all weights before the training, new layers included."""
    named = {
        "hub": params.model_name,
        "local": Path(params.model_path).name,
        "embedded": embedded.ENCODER,
        "random": f"{params.model_family}-{params.model_size} shape, random weights",
    }
    return {
        "name": named[params.model_source],
        "source": params.model_source,
        "revision": _folder(params).name if params.model_source == "hub" else None,
        "parameters": sum(one.numel() for one in classifier.parameters()),
        "dtype": params.dtype,
        "sha256": weights_sha256(classifier.network),
    }


def _folder(params: TrainingParams) -> Path:
    if params.model_source == "local":
        from distilbench import paths

        return whole(paths.find_input(params.model_path))[0]
    return hub.fetch_model(params.model_name, params.model_revision)[0]


def _from_folder(folder: Path, params: TrainingParams, changes: dict[str, Any]) -> nn.Module:
    family = families.of_checkpoint(folder)
    if family.name != families.named(params.model_family).name:
        raise ModelError(f"{folder} holds a {family.name} model; this training is of {params.model_family}")
    try:
        network, report = family.model_class.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **changes
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} holds no {family.name} encoder: {str(error).strip().splitlines()[0]}") from error
    if lost := sorted(name for name in report["missing_keys"] if not name.startswith(HEAD)):
        raise ModelError(f"{folder} lacks {len(lost)} tensors of a {family.name} encoder, such as {lost[0]!r}")
    return network


def optimizer_of(classifier: Classifier, params: TrainingParams) -> torch.optim.Optimizer:
    """The optimizer, with groups for what decays and for the head's learning rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.network.named_parameters():
        key = name.startswith(HEAD), any(part in name for part in NO_DECAY)
        groups.setdefault(key, []).append(parameter)
    found = [
        {
            "params": parameters,
            "lr": (params.head_learning_rate if head else None) or params.learning_rate,
            "weight_decay": 0.0 if bare else params.weight_decay,
        }
        for (head, bare), parameters in groups.items()
    ]
    if params.optimizer == "sgd":
        return torch.optim.SGD([group | {"weight_decay": 0.0} for group in found], lr=params.learning_rate)
    return torch.optim.AdamW(found, lr=params.learning_rate)


def schedule_of(optimizer: torch.optim.Optimizer, steps: int, warmup_share: float) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises over the warm-up and then falls to 0, both in a line."""
    rising = round(warmup_share * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return max(0.0, (steps - step) / max(1, steps - rising))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
