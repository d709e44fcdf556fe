"""On a real CUDA device (`pytest -m gpu`): what the fakes of the other tests stand for."""

from __future__ import annotations

import pytest
import training_rows

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from distilbench import paths, studies  # noqa: E402
from distilbench.collectors import latency, memory  # noqa: E402
from distilbench.harness import steps  # noqa: E402
from distilbench.runs import verify  # noqa: E402
from distilbench.sources.models import load_model  # noqa: E402

DEVICE = torch.device("cuda:0")


def test_the_fence_waits_for_the_device():
    """A long kernel: without the fence the host's clock would read the launch only."""
    a = torch.randn(8192, 8192, device=DEVICE)
    clock = latency.clock_for(DEVICE)
    for _ in range(3):
        host_ms, device_ms, _ = clock.time(lambda: a @ a)
    assert device_ms > 1
    assert host_ms >= device_ms * 0.98


def test_peaks_see_a_known_allocation():
    memory.reset_cuda_peaks(DEVICE)
    before = memory.cuda_peaks_MiB(DEVICE)[0]
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device=DEVICE)
    assert memory.cuda_peaks_MiB(DEVICE)[0] - before == pytest.approx(64, rel=0.02)
    del block


def test_cuda_and_cpu_give_the_same_logits():
    ids = torch.randint(5, 190, (4, 16))
    mask = torch.ones_like(ids)
    one = load_model("cpu", source="random", size="tiny", vocab_size=200)
    other = load_model("cuda:0", source="random", size="tiny", vocab_size=200)
    assert one.info.sha256 == other.info.sha256
    assert torch.allclose(one.forward(ids, mask), other.forward(ids.cuda(), mask.cuda()).cpu(), atol=1e-3)


def test_a_sweep_on_cuda_has_device_time_and_gpu_memory(tmp_path):
    given = {"profile": "ci", "device": "cuda:0", "variants": ["sdpa", "autocast"], "results_root": str(tmp_path)}
    resolved = studies.resolve("distilbert", given)
    run = studies.start(resolved)
    derived = steps.measure_run(run, resolved)
    assert verify.problems(run.folder) == []
    for cell in derived["cells"]:
        assert cell["state"] == "ok"
        assert cell["latency_device_ms"] <= cell["latency_ms"]
        assert cell["peak_cuda_allocated_MiB"] > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_training_with_a_process_per_gpu(tmp_path, precision):
    """At most two of them; with one GPU, one process and no NCCL."""
    values = training_rows.settings(tmp_path, device="cuda", precision=precision, batch_size=6, deterministic=False)
    processes = min(2, torch.cuda.device_count())
    done = training_rows.run_command(training_rows.command(values, tmp_path / "out", processes))
    assert done.returncode == 0, done.stderr[-3000:]
    results = paths.read_json(tmp_path / "out" / "results.json")
    assert (results["device"], results["test_rows"]) == ("cuda", training_rows.TEST)
    assert processes == 1 or results["backend"] == "nccl"
    first, *_, last = results["epochs"]
    assert last["training_loss"] < first["training_loss"], "it learns"


def test_more_processes_than_gpus_are_refused(tmp_path):
    values = training_rows.settings(tmp_path, device="cuda", batch_size=6)
    processes = torch.cuda.device_count() + 1
    done = training_rows.run_command(training_rows.command(values, tmp_path / "out", processes))
    assert done.returncode != 0
    assert "each needs a GPU of its own" in done.stderr


def test_the_study_of_training_on_cuda(tmp_path):
    given = {"profile": "ci", "device": "cuda", "processes": [1, 2][: torch.cuda.device_count()]}
    resolved = studies.resolve("agnews", given | {"results_root": str(tmp_path)})
    run = studies.start(resolved)
    derived = steps.measure_run(run, resolved)
    assert verify.problems(run.folder) == []
    for cell in derived["cells"]:
        assert cell["state"] == "ok"
        assert cell["peak_cuda_allocated_MiB"] > 0
