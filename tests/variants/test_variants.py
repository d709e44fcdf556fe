"""Variants: each leaves proof that it was on, and one that was not is refused."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import get_args

import measuring
import numpy as np
import pytest
import torch

from distilbench.errors import ModelError
from distilbench.measurements.sweep.measure import worker
from distilbench.measurements.sweep.measure.spec import WorkerSpec
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.sources.models import ModelInfo, load_model
from distilbench.variants import registry, torch_variants
from distilbench.variants.torch_variants import VARIANTS, TorchVariant

TINY = {"source": "random", "size": "tiny", "vocab_size": 200}
IDS = torch.tensor([[2, 17, 55, 3], [2, 99, 3, 0]])
MASK = (IDS > 0).long()


def watched(loaded, variant: TorchVariant) -> dict:
    with variant.watch(loaded) as proof:
        loaded.forward(IDS, MASK)
    return proof


@pytest.mark.parametrize(
    ("name", "dtype", "proof"),
    [
        ("eager", "float32", {"attention": "eager", "matmul_dtype": "float32"}),
        ("sdpa", "float32", {"attention": "sdpa", "matmul_dtype": "float32"}),
        ("sdpa", "bfloat16", {"attention": "sdpa", "matmul_dtype": "bfloat16"}),
        ("autocast", "float32", {"attention": "sdpa", "matmul_dtype": "bfloat16"}),
        ("slowed-5", "float32", {"attention": "sdpa", "matmul_dtype": "float32", "slow_down": 0.05}),
    ],
)
def test_each_variant_leaves_its_proof(name, dtype, proof):
    variant = VARIANTS[name]
    assert watched(variant.load(**TINY, dtype=dtype), variant) == proof


def test_every_variant_that_can_be_asked_for_is_there():
    (choice,) = get_args(DistilbertParams.model_fields["variants"].annotation)
    assert set(get_args(choice)) == set(registry.MODULES) >= set(VARIANTS)
    assert all(registry.named(name) is VARIANTS[name] for name in VARIANTS)
    assert all(registry.named(name) for name in registry.MODULES)


def test_autocast_that_was_off_is_refused():
    """The model was loaded without it: the linear layers stay float32."""
    with pytest.raises(ModelError, match="bfloat16 arithmetic was asked for, the linear layers gave float32"):
        watched(load_model(**TINY), VARIANTS["autocast"])


def test_autocast_that_was_on_uninvited_is_refused():
    with pytest.raises(ModelError, match="float32 arithmetic was asked for, the linear layers gave bfloat16"):
        watched(load_model(**TINY, autocast="bfloat16"), VARIANTS["sdpa"])


@pytest.mark.parametrize(("asked", "used"), [("eager", "sdpa"), ("sdpa", "eager")])
def test_another_attention_is_refused(asked, used):
    with pytest.raises(ModelError, match=f"attention '{asked}' was asked for, '{used}' was used"):
        watched(load_model(**TINY, attention=used), VARIANTS[asked])


def test_a_model_that_was_never_called_proves_nothing():
    with (
        pytest.raises(ModelError, match="the linear layers gave None"),
        VARIANTS["sdpa"].watch(load_model(**TINY)),
    ):
        pass


def test_compile_that_compiled_nothing_is_refused():
    with pytest.raises(ModelError, match=r"torch\.compile was asked for, but no graph was compiled"):
        watched(load_model(**TINY), VARIANTS["compiled"])


def test_compile_that_compiled_something_is_believed(monkeypatch):
    counts = iter([4, 6])
    monkeypatch.setattr(torch_variants, "_compiled_graphs", lambda: next(counts))
    assert watched(load_model(**TINY), VARIANTS["compiled"]) == {"attention": "sdpa", "compiled_graphs": 2}


def test_the_watch_leaves_no_hook_behind():
    """A hook would be timed with every forward after it, on failure too."""
    loaded = load_model(**TINY)
    linear = next(module for module in loaded.module.modules() if isinstance(module, torch.nn.Linear))
    watched(loaded, VARIANTS["sdpa"])
    assert not linear._forward_hooks
    with pytest.raises(ZeroDivisionError), VARIANTS["sdpa"].watch(loaded):
        raise ZeroDivisionError
    assert not linear._forward_hooks


def test_the_compiled_variant_carries_no_hook(monkeypatch):
    monkeypatch.setattr(torch_variants, "_check", lambda *_: None)
    loaded = load_model(**TINY)
    linear = next(module for module in loaded.module.modules() if isinstance(module, torch.nn.Linear))
    with VARIANTS["compiled"].watch(loaded):
        assert not linear._forward_hooks
    with VARIANTS["sdpa"].watch(loaded):
        assert linear._forward_hooks


REAL = """
from dataclasses import asdict
import torch
from distilbench.sources.models import load_model
from distilbench.variants.torch_variants import VARIANTS
ids = torch.tensor([[2, 17, 55, 3], [2, 99, 3, 0]])
tiny = dict(source="random", size="tiny", vocab_size=200)
loaded = VARIANTS["compiled"].load(**tiny)
with VARIANTS["compiled"].watch(loaded) as proof:
    loaded.forward(ids, (ids > 0).long())
plain = load_model(**tiny)
assert torch.allclose(loaded.forward(ids, (ids > 0).long()), plain.forward(ids, (ids > 0).long()), atol=1e-5)
print(proof["compiled_graphs"])
"""


@pytest.mark.slow
def test_torch_compile_really_compiles():
    """In a process of its own, with the real compiler (which needs g++)."""
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


# ------------------------------------------------------------------ a variant that torch does not execute


class Words:
    """A classifier that is no module of torch: the logits are sums over a table of words."""

    def __init__(self, info: ModelInfo, rows: int) -> None:
        self.info, self.touched = info, False
        self.table = np.random.default_rng(1).standard_normal((rows, 2)).astype(np.float32)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy((self.table[ids.numpy()] * mask.numpy()[..., None]).sum(axis=1))

    def touch(self) -> None:
        self.touched = bool(self.table.sum())

    def cost(self, ids: torch.Tensor) -> tuple[float, float]:
        return 2.0 * ids.numel(), 8.0 * ids.numel()


class Table:
    """The variant that executes it, and finds that this engine computed."""

    def __init__(self, engine: str = "numpy") -> None:
        self.engine = engine

    def load(self, **model) -> Words:
        return Words(load_model(**model).info, model["vocab_size"])

    @contextmanager
    def watch(self, loaded: Words):
        proof: dict = {}
        yield proof
        if self.engine != "numpy":
            raise ModelError(f"numpy was asked for, {self.engine} computed")
        proof["engine"] = self.engine


@pytest.fixture
def table(monkeypatch):
    """Registers the variant as a module of its own would."""

    def register(**given) -> None:
        module = ModuleType("table_variant")
        module.VARIANTS = {"table": Table(**given)}
        monkeypatch.setitem(sys.modules, "table_variant", module)
        monkeypatch.setitem(registry.MODULES, "table", "table_variant")

    return register


def under_the_name(folder, what: str) -> WorkerSpec:
    work = measuring.job(folder, what)
    return replace(work, identity=work.identity | {"variant": "table"})


@pytest.mark.parametrize("what", ["timing", "memory"])
def test_a_variant_without_a_module_is_measured_and_leaves_its_proof(table, tmp_path, what):
    table()
    fields = worker.measure(under_the_name(tmp_path, what))
    assert fields["proof"]["engine"] == "numpy"
    assert fields["flops_per_cycle"] == 2.0 * 16 * 16
    assert (fields["peak_rss_MiB"] if what == "memory" else fields["latency_ms"]) > 0


def test_a_variant_whose_proof_fails_is_refused_under_its_name(table, tmp_path):
    table(engine="torch")
    with pytest.raises(ModelError, match="numpy was asked for, torch computed"):
        worker.measure(under_the_name(tmp_path, "timing"))


def test_a_variant_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ModelError, match="there is no variant 'onnx'; there are: eager, sdpa"):
        registry.named("onnx")
