"""The package's own code: its hashes, and which of its modules measure."""

from __future__ import annotations

from pathlib import Path

from distilbench import paths

PACKAGE = Path(__file__).parents[1]
#: The modules that decide what is measured and how, below the package: all that a worker imports, and what its parent
#: prepares and plans with; `OF_A_KIND` finds those of a kind of measurement. Not those that keep, derive or show what
#: was measured: `verify` computes that again.
MEASURING = (
    "__init__", "collectors/__init__", "collectors/cpu_use", "collectors/energy", "collectors/energy_source",
    "collectors/latency", "collectors/memory", "collectors/nvml", "collectors/rapl", "collectors/telemetry",
    "collectors/threads", "errors", "harness/__init__", "harness/__main__", "harness/ceilings",
    "harness/energy_windows", "harness/fork_server", "harness/handover", "harness/loop", "harness/outcome",
    "harness/processes", "harness/shards", "harness/steps", "lowrank/__init__", "lowrank/attention",
    "lowrank/calibration", "lowrank/checkpoint", "lowrank/compress", "lowrank/cost", "lowrank/generation",
    "lowrank/params", "lowrank/prepared", "lowrank/projection", "lowrank/ranks", "lowrank/shapes", "machine/__init__",
    "machine/cgroups", "machine/code", "machine/device", "machine/environment", "machine/kernel_files",
    "machine/slurm_job", "measurements/__init__", "paths", "runs/__init__", "runs/parameters", "runs/rawfiles",
    "runs/records", "runs/states", "sources/__init__", "sources/adapters", "sources/batches", "sources/caches",
    "sources/decoders", "sources/embedded", "sources/embedded_text", "sources/families/__init__",
    "sources/families/distilbert", "sources/families/qwen2", "sources/four_sources", "sources/hub", "sources/intents",
    "sources/labelled_rows", "sources/labels", "sources/models", "sources/movies", "sources/packages",
    "sources/parameters", "sources/prose", "sources/questions", "sources/repositories", "sources/revisions",
    "sources/row_stream", "sources/rows", "sources/smollm2", "sources/texts", "sources/tokenizers", "stats",
    "training/__init__", "training/checkpoint", "training/clock", "training/corpus", "training/energy",
    "training/evaluation", "training/model", "training/order", "training/params", "training/ranks", "training/steps",
    "training/trainer", "variants/__init__", "variants/packed", "variants/registry", "variants/torch_variants",
)  # fmt: skip
#: Of these, where they are in the folder of a kind of measurement.
OF_A_KIND = ("__init__", "params", "records", "measure", "worker", "measure/*", "summary/__init__", "summary/derive")


def code_sha256() -> str:
    """SHA-256 of the package's own source, all of it."""
    return _sources_sha256(sorted(PACKAGE.rglob("*.py")))


def measuring_sha256() -> str:
    """SHA-256 of the modules that measure: two versions of them must not measure one run; the rest may change."""
    return _sources_sha256([PACKAGE / f"{name}.py" for name in measuring()])


def measuring() -> list[str]:
    """The modules that measure, of every kind of measurement too."""
    files = (file.relative_to(PACKAGE) for name in OF_A_KIND for file in PACKAGE.glob(f"measurements/*/{name}.py"))
    return sorted([*MEASURING, *(str(file.with_suffix("")) for file in files)])


def _sources_sha256(files: list[Path]) -> str:
    return paths.sha256_bytes(*(f"{file.relative_to(PACKAGE)}\n".encode() + file.read_bytes() for file in files))
