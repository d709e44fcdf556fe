"""The worker: real processes that measure one repetition, and what they leave when they cannot."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_powercap import FakeRapl
from measuring import LABELS, descendants, job
from transformers import DistilBertTokenizerFast
from waiting import all_gone, ended, wait_for

from distilbench import paths
from distilbench.collectors import latency, threads
from distilbench.collectors.threads import Use
from distilbench.errors import DeviceError, ImplausibleError, ModelError, StorageError
from distilbench.harness import __main__ as entry
from distilbench.harness import processes as harness_processes
from distilbench.machine import cgroups
from distilbench.machine.cgroups import Throttling
from distilbench.machine.environment import usable_cores
from distilbench.measurements.calibration import measure as calibration_measure
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.measurements.sweep.measure import worker
from distilbench.measurements.sweep.measure.spec import WorkerSpec, predictions_file
from distilbench.measurements.sweep.records import Repetition
from distilbench.measurements.sweep.summary import derive
from distilbench.runs import rawfiles
from distilbench.sources.batches import batches_sha256, load_inputs, make_batches, save_inputs, truncated_shares
from distilbench.sources.texts import tokenise
from distilbench.variants import torch_variants

CYCLE = 8  # batches: 16 sentences, 2 at a time
WARM = 2 * CYCLE  # iterations before the timed ones


@pytest.mark.parametrize(
    "command",
    [sweep.WORKER, harness_processes.CEILINGS, calibration_measure.BUSY, calibration_measure.ALLOCATE],
    ids=["worker", "ceilings", "busy", "allocate"],
)
def test_a_file_of_the_users_named_like_a_module_does_not_reach_a_worker(tmp_path, monkeypatch, command):
    for name in ("random", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is mine')")
    monkeypatch.chdir(tmp_path)
    code, said = harness_processes._spawn((*command, "no-such-job.json"), 120, 1, "system")
    assert code == 1
    assert "no-such-job.json" in said, "it came as far as its job"


def measured(work: WorkerSpec) -> dict:
    """The fields of a record, measured in this process."""
    return worker.measure(work)


def as_record(work: WorkerSpec, fields: dict) -> Repetition:
    return Repetition(**work.identity, **{"status": "ok"} | fields, started="now", seconds=1.0)


# ------------------------------------------------------------------ real processes


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Three jobs, each done by a process of its own: (job, exit code, stderr, record) by name."""
    jobs, processes = {}, {}
    for name, where, variant in (
        ("timing", "timing", "sdpa"),
        ("eager", "timing", "eager"),
        ("memory", "memory", "sdpa"),
    ):
        jobs[name] = job(tmp_path_factory.mktemp(name), where, variant)
        file = Path(jobs[name].run) / "work" / "job.json"
        jobs[name].save(file)
        command = [*sweep.WORKER, str(file)]
        processes[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    done = {}
    for name, process in processes.items():
        _, said = ended(process)
        file = Path(jobs[name].run) / "work" / "job.record.json"
        record = Repetition.model_validate_json(file.read_text()) if file.is_file() else None
        done[name] = SimpleNamespace(job=jobs[name], code=process.returncode, said=said, record=record)
    return done


@pytest.mark.skipif(usable_cores() < 2, reason="one thread cannot be limited further")
def test_threads_that_a_variable_takes_away_make_the_repetition_invalid(tmp_path, monkeypatch):
    """torch says two all the same: its record said so, and the run was called faster than another."""
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    file, work = tmp_path / "work" / "job.json", job(tmp_path)
    work.save(file)
    code, said = harness_processes._spawn((*sweep.WORKER, str(file)), 300, work.protocol["num_threads"])
    failure = paths.read_json(file.with_suffix(".failure.json"))
    assert (code, failure["status"]) == (1, "invalid"), said
    wanted = f"{usable_cores()} threads were asked for and 1 computed"
    assert failure["error"].startswith(wanted)
    assert "OMP_THREAD_LIMIT=1" in failure["error"]
    assert "-p num_threads 1" in failure["error"]


@pytest.mark.parametrize(("device", "refused"), [("cpu", True), ("cuda:0", False)])
def test_fewer_threads_than_asked_for_are_refused_where_they_compute(tmp_path, monkeypatch, device, refused):
    monkeypatch.setattr(threads, "used", lambda work, asked: Use(asked - 1, 1.0, frozenset({0})))
    monkeypatch.setattr(worker, "select", torch.device)
    work = job(tmp_path)
    work = replace(work, model=work.model | {"device": device})
    if refused:
        with pytest.raises(ImplausibleError, match=f"and {usable_cores() - 1} computed"):
            worker.threads_used(work, [0])
    else:
        assert worker.threads_used(work, [0]) == {"threads_used": usable_cores() - 1, "product_cores": 1.0}


def test_where_threads_are_not_counted_the_reason_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "used", lambda work, asked: None)
    assert worker.threads_used(job(tmp_path), [0]) == {"threads_used_reason": threads.NO_COUNTERS}
    assert worker.threads_used(job(tmp_path, "memory"), [0]) == {"threads_used_reason": threads.NOT_IN_MEMORY_PASS}


def iterations(result) -> list[dict]:
    """The rows of a repetition's parquet file, which must be the one that its record names."""
    return rawfiles.read_parquet(Path(result.job.run) / result.record.iterations_file, result.record.iterations_sha256)


def test_each_process_ends_well_and_says_nothing(real):
    assert {name: (result.code, result.said) for name, result in real.items()} == dict.fromkeys(real, (0, ""))


def test_a_timing_record_is_valid_and_says_which_repetition_it_is(real):
    record = real["timing"].record
    assert record.status == "ok"
    assert record.key == ("sdpa-float32-fixed-16-b002", "timing", 0)
    assert record.proof == {"attention": "sdpa", "matmul_dtype": "float32"}
    assert record.num_threads == record.threads_used == usable_cores()
    assert 0 < record.product_cores < record.threads_used + 0.1
    assert record.affinity == sorted(os.sched_getaffinity(0))
    assert record.energy_J is None
    assert record.energy_J_reason == "measured in the energy pass"
    assert record.accuracy is None
    assert record.accuracy_reason == "random weights classify nothing"
    job = real["timing"].job
    cycle = job.protocol["samples_per_cycle"], job.protocol["seed"]
    cut = truncated_shares(load_inputs(Path(job.inputs))[0], "fixed-16", *cycle)
    assert (record.truncated_share, record.truncated_tokens_share) == cut
    assert 0 < cut[1] < cut[0] < 1, "some are cut, and not all of them"
    assert 0 < record.latency_ms < 1000


def test_the_iterations_are_whole_cycles_with_the_warm_up_flagged(real):
    rows, record = iterations(real["timing"]), real["timing"].record
    assert [row["batch"] for row in rows] == list(range(CYCLE)) * (2 + record.n_cycles)
    assert [row["cycle"] for row in rows] == [i // CYCLE for i in range(len(rows))]
    assert [row["warmup"] for row in rows] == [True] * WARM + [False] * CYCLE * record.n_cycles
    assert {row["samples"] for row in rows} == {2}
    assert (record.n_warmup, record.n_iterations) == (WARM, CYCLE * record.n_cycles)
    assert record.n_cycles == real["timing"].job.protocol["min_cycles"] == 2
    assert all(row["latency_ms"] > 0 and row["latency_device_ms"] is None for row in rows)


def test_the_numbers_follow_from_the_iterations(real):
    record = real["timing"].record
    timed = [row["latency_ms"] for row in iterations(real["timing"]) if not row["warmup"]]
    assert record.latency_ms == np.median(timed)
    assert record.latency_per_sample_ms == pytest.approx(math.fsum(timed) / (2 * len(timed)))
    assert record.throughput_samples_per_s == pytest.approx(1e3 / record.latency_per_sample_ms)


def test_two_variants_see_the_same_inputs_and_weights(real):
    one, other = real["timing"].record, real["eager"].record
    assert one.inputs_sha256 == other.inputs_sha256
    assert one.model_sha256 == other.model_sha256
    assert (one.proof["attention"], other.proof["attention"]) == ("sdpa", "eager")
    token_ids, _, _ = load_inputs(Path(real["timing"].job.inputs))
    assert one.inputs_sha256 == batches_sha256(make_batches(token_ids, 2, "fixed-16", 16, 17))


def test_predictions_are_left_for_the_parent(real):
    result = real["timing"]
    file = predictions_file(Path(result.job.run), result.record.cell)
    rows = rawfiles.read_parquet(file)
    _, samples, labels = load_inputs(Path(result.job.inputs))
    known = dict(zip(samples, labels, strict=True))
    assert len(rows) == 16
    assert len({row["sample"] for row in rows}) == 16
    assert all(row["label"] == known[row["sample"]] for row in rows)
    assert all(row["predicted"] == int(np.argmax(row["logits"])) for row in rows)
    assert derive.classification_fields(rows, True)["logits_sha256"] == result.record.logits_sha256


def test_a_memory_record_has_peaks_and_no_times(real):
    record = real["memory"].record
    assert record.pass_ == "memory"
    assert record.peak_rss_MiB >= record.loaded_rss_MiB > 50
    assert record.peak_cuda_allocated_MiB is None
    assert record.peak_cuda_allocated_MiB_reason == "the model ran on the CPU"
    assert record.latency_ms is None
    assert record.latency_ms_reason == "measured in the timing pass"
    assert record.iterations_file is None
    assert not list((Path(real["memory"].job.run) / "iterations").iterdir()), "nothing is timed in the memory pass"


# ------------------------------------------------------------------ in this process


def test_measuring_again_gives_the_same_logits_and_inputs(tmp_path, real):
    again = measured(replace(real["timing"].job, run=str(tmp_path)))
    assert again["logits_sha256"] == real["timing"].record.logits_sha256
    assert again["inputs_sha256"] == real["timing"].record.inputs_sha256
    assert as_record(real["timing"].job, again).key == real["timing"].record.key


class FallingClock:
    """A clock by which each forward is 1 % faster than the one before: a machine that never settles."""

    def __init__(self) -> None:
        self.ms = 1000.0

    def time(self, work):
        self.ms *= 0.99
        return self.ms, None, work()


def test_a_warm_up_that_never_settles_is_cut_off_and_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "clock_for", lambda _device: FallingClock())
    fields = measured(job(tmp_path, warmup_max_seconds=20.0))
    assert fields["warmup"]["settled"] is False
    assert 20 <= fields["warmup"]["seconds"] < 28, "cut off after the cycle in which the cap is reached"
    record = as_record(job(tmp_path), fields)
    assert record.status == "unstable"
    assert record.latency_ms > 0, "it is measured all the same"


@pytest.mark.parametrize(
    ("readings", "fields"),
    [
        ([{"own": Throttling(40, 5, 0.5)}, {"own": Throttling(57, 16, 1.25)}], (17, 11, 0.75, None)),
        ([{"own": Throttling(40, 5, 0.5)}, {"own": Throttling(57, 5, 0.5)}], (17, 0, 0.0, None)),
        ([{}, {}], (None, None, None, cgroups.NO_QUOTA)),
        ([{"own": Throttling(40, 5, 0.5)}, {}], (None, None, None, cgroups.OTHER_GROUPS)),
    ],
    ids=["throttled", "not throttled", "no quota", "moved meanwhile"],
)
def test_what_a_quota_did_is_counted_while_it_is_timed_and_not_before(tmp_path, monkeypatch, readings, fields):
    order, given = [], iter(readings)
    monkeypatch.setattr(cgroups, "throttling", lambda: order.append("read") or next(given))
    for name in ("warm_up", "measure"):
        own = getattr(worker.Timing, name)
        monkeypatch.setattr(worker.Timing, name, lambda self, own=own, name=name: order.append(name) or own(self))
    work = job(tmp_path)
    record = as_record(work, measured(work))
    assert (record.quota_periods, record.throttled_periods, record.throttled_s, record.quota_reason) == fields
    assert order == ["warm_up", "read", "measure", "read"]


def test_a_last_batch_may_be_smaller(tmp_path):
    fields = measured(job(tmp_path, batch_sizes=[5], samples_per_cycle=41))
    rows = rawfiles.read_parquet(tmp_path / fields["iterations_file"])
    assert [row["samples"] for row in rows if row["cycle"] == 1] == [5] * 8 + [1]


def test_cores_that_are_not_there_are_said(tmp_path):
    work = job(tmp_path)
    work.protocol["affinity"] = [4095]
    with pytest.raises(DeviceError, match=r"cores \[4095\] cannot be used: Invalid argument"):
        measured(work)


def test_other_cores_or_threads_than_asked_for_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    work = job(tmp_path)
    work.protocol["affinity"] = [0, 4095]
    with pytest.raises(DeviceError, match=r"asked for cores \[0, 4095\] and .* got cores \["):
        measured(work)


@pytest.mark.parametrize("policy", ["fixed-16", "longest"])
def test_requests_from_text_to_label_are_split(tmp_path, policy):
    """With the committed sentences and their tokenizer."""
    lines = (paths.repo_root() / "tests/data/tiny_reviews.tsv").read_text().splitlines()[1:]
    texts = [line.split("\t")[0] for line in lines]
    folder = paths.repo_root() / "tests/data/tiny_tokenizer"
    ids = tokenise(DistilBertTokenizerFast.from_pretrained(folder), texts)
    plain = job(tmp_path, length_policies=[policy])
    save_inputs(Path(plain.inputs), ids, [f"s{i}" for i in range(len(ids))], [0] * len(ids))
    paths.write_json(tmp_path / "work" / "texts.json", texts)
    model = plain.model | {"vocab_size": 1 + max(map(max, ids))}
    files = {"texts": str(tmp_path / "work" / "texts.json"), "tokenizer": str(folder)}
    fields = measured(replace(plain, model=model, **files))
    split = fields["request"]
    assert split["n"] == CYCLE
    assert all(split[f"{part}_ms"] > 0 for part in ("tokenise", "transfer", "forward", "postprocess"))
    assert fields["latency_request_ms"] > split["forward_ms"]
    assert as_record(plain, fields).request.n == CYCLE


def test_memory_has_phases(real):
    split = real["memory"].record.memory
    assert split.phases_reason is None
    assert split.started_rss_MiB < split.loaded_rss_MiB <= split.load_peak_rss_MiB
    assert split.delta_rss_MiB == max(split.first_peak_rss_MiB, split.steady_peak_rss_MiB) - split.loaded_rss_MiB
    peaks = (split.load_peak_rss_MiB, split.first_peak_rss_MiB, split.steady_peak_rss_MiB)
    assert real["memory"].record.peak_rss_MiB >= max(peaks)


def test_energy_is_measured_over_windows(tmp_path, monkeypatch):
    root = tmp_path / "powercap"
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(root))
    readings = iter([{"own": Throttling(40, 5, 0.5)}, {"own": Throttling(57, 16, 1.25)}])
    monkeypatch.setattr(cgroups, "throttling", lambda: next(readings))
    with FakeRapl(root, {"0": 40.0, "0:0": 3.0}, {"0": "package-0", "0:0": "dram"}):
        work = job(tmp_path, "energy", energy_windows=5, energy_window_s=0.2, passes=["energy"], energy_cells="all")
        fields = measured(work)
    record = as_record(work, fields)
    assert record.energy_source == "rapl"
    joules = [window.joules["rapl"] for window in record.energy.windows]
    per_sample = [window.joules["rapl"] / window.samples for window in record.energy.windows]
    assert min(joules) <= record.energy_J <= max(joules)
    assert min(per_sample) <= record.energy_per_sample_J <= max(per_sample)
    watts = [window.joules["rapl"] / window.seconds for window in record.energy.windows]
    assert watts == pytest.approx([43] * 5, rel=0.1)
    assert (record.quota_periods, record.throttled_periods, record.throttled_s) == (17, 11, 0.75)
    assert record.latency_ms_reason == "measured in the timing pass"


def test_where_nothing_measures_energy_the_repetition_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(tmp_path / "nothing"))
    work = job(tmp_path, "energy", passes=["energy"], energy_cells="all")
    file = tmp_path / "work" / "job.json"
    work.save(file)
    assert worker.main(file) == 1
    failure = paths.read_json(file.with_suffix(".failure.json"))
    assert failure["status"] == "unavailable"
    assert failure["error"].startswith("nothing measures energy here: no energy counter can be read")


def test_a_given_power_is_called_modelled(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_POWERCAP_ROOT", str(tmp_path / "nothing"))
    work = job(tmp_path, "energy", passes=["energy"], energy_cells="all", modelled_power_W=65.0)
    record = as_record(work, measured(work))
    assert (record.energy_source, record.energy_net_per_sample_J) == ("modelled", None)
    assert record.energy_J == pytest.approx(65 * record.energy.windows[0].seconds, rel=0.01)


def test_a_sentence_that_stands_twice_in_the_cycle_counts_once(tmp_path):
    work = job(tmp_path, samples_per_cycle=60)  # of 40 sentences
    measured(work)
    rows = rawfiles.read_parquet(predictions_file(tmp_path, work.identity["cell"]))
    assert len(rows) == len({row["sample"] for row in rows}) == 40


def test_every_batch_size_can_have_as_many_batches_in_its_cycle(tmp_path):
    given = {"batch_sizes": [1, 2, 4], "samples_per_cycle": 32, "batches_per_cycle": 8}
    found = {}
    for size in given["batch_sizes"]:
        work = job(tmp_path, **given | {"batch_sizes": [size]})
        cycle = worker.workload(work, torch.device("cpu"))
        found[size] = cycle.rows.tolist()
        assert [tensors[0].shape[0] for tensors in cycle.tensors] == [size] * 8
    assert found[1] == found[2][:8] == found[4][:8], "one order of sentences for all"
    del work.protocol["batches_per_cycle"]  # as of a run that was begun before there were such cycles
    assert len(worker.workload(work, torch.device("cpu")).rows) == 32


def test_the_number_of_threads_can_be_given(tmp_path):
    before = torch.get_num_threads()
    try:
        assert measured(job(tmp_path, num_threads=1))["num_threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_cuda_peaks_are_recorded_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.memory, "cuda_peaks_MiB", lambda device: (12.0, 20.0))
    monkeypatch.setattr(worker.memory, "cuda_allocated_MiB", lambda device: 9.0)
    work = job(tmp_path, "memory")
    record = as_record(work, measured(work))
    assert (record.peak_cuda_allocated_MiB, record.peak_cuda_reserved_MiB) == (12.0, 20.0)
    assert (record.memory.loaded_cuda_MiB, record.memory.delta_cuda_MiB) == (9.0, 3.0)


def test_peaks_are_reset_before_the_first_forward(tmp_path, monkeypatch):
    order = []
    real_load = torch_variants.load_model

    def load(**arguments):
        loaded = real_load(**arguments)
        return replace(loaded, forward=lambda *pair: order.append("forward") or loaded.forward(*pair))

    monkeypatch.setattr(torch_variants, "load_model", load)
    monkeypatch.setattr(worker.memory, "reset_cuda_peaks", lambda device: order.append("reset"))
    measured(job(tmp_path, "memory"))
    assert order == ["reset", "forward", *["forward"] * CYCLE], "one to prove the variant, then a whole cycle"


def test_accuracy_matches_labels_by_name(tmp_path, monkeypatch):
    """A model that calls its logits POSITIVE, NEGATIVE, and always finds the first larger."""
    real_load = torch_variants.load_model

    def load(**arguments):
        loaded = real_load(**arguments)
        info = replace(loaded.info, source="local", label_names=("POSITIVE", "NEGATIVE"))
        head = loaded.module.classifier
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([1.0, 0.0])
        return replace(loaded, info=info)

    monkeypatch.setattr(torch_variants, "load_model", load)
    work = job(tmp_path)
    fields = measured(work)
    rows = rawfiles.read_parquet(predictions_file(tmp_path, work.identity["cell"]))
    assert {row["predicted"] for row in rows} == {LABELS.index("positive")}
    assert fields["accuracy"] == sum(row["label"] for row in rows) / 16
    assert fields["accuracy_reason"] is None


# ------------------------------------------------------------------ what is not finite


def loads(monkeypatch, change) -> None:
    """Every model is loaded with this change: a function of the loaded model that returns another one, or None."""
    real_load = torch_variants.load_model

    def load(**arguments):
        loaded = real_load(**arguments)
        return change(loaded) or loaded

    monkeypatch.setattr(torch_variants, "load_model", load)


def break_head(loaded) -> None:
    loaded.module.classifier.bias.data[0] = math.nan


def overflow_in_float16(loaded) -> None:
    """All weights are finite; in float16 the sum over the last layer is not, in float32 it is 384 million."""
    loaded.module.pre_classifier.bias.data.fill_(100.0)
    loaded.module.classifier.weight.data.fill_(60_000.0)


def break_one_sentence(loaded):
    """The sixth batch of a cycle has one sentence that gives infinity; the first batch is sound."""
    seen: list[bytes] = []

    def forward(ids, mask):
        key, logits = ids.numpy().tobytes(), loaded.forward(ids, mask).clone()
        if key not in seen:
            seen.append(key)
        if seen.index(key) == 5:
            logits[1, 1] = math.inf
        return logits

    return replace(loaded, forward=forward)


@pytest.mark.parametrize("where", ["timing", "memory", "energy"])
def test_logits_that_are_nan_make_the_repetition_invalid(tmp_path, monkeypatch, where):
    """A checkpoint whose logits are NaN was right in half of all cases, since NaN counted as class 0."""
    loads(monkeypatch, break_head)
    job(tmp_path, where, modelled_power_W=65.0).save(tmp_path / "work" / "job.json")
    assert worker.main(tmp_path / "work" / "job.json") == 1
    assert failure(tmp_path / "work" / "job.json") == {
        "status": "invalid",
        "error": "the logits of 2 of 2 sentences are NaN or infinite (are all weights of the checkpoint finite?)",
    }
    assert not list((tmp_path / "work").glob("*.predictions.parquet"))


@pytest.mark.parametrize(("dtype", "code"), [("float16", 1), ("float32", 0)])
def test_an_overflow_in_float16_is_invalid_and_says_what_helps(tmp_path, monkeypatch, dtype, code):
    loads(monkeypatch, overflow_in_float16)
    job(tmp_path, dtype=dtype).save(tmp_path / "work" / "job.json")
    assert worker.main(tmp_path / "work" / "job.json") == code
    if code:
        found = failure(tmp_path / "work" / "job.json")
        assert found["status"] == "invalid"
        assert "overflow in float16: choose dtype float32 or bfloat16" in found["error"]


def test_one_sentence_anywhere_in_the_cycle_is_enough(tmp_path, monkeypatch):
    loads(monkeypatch, break_one_sentence)
    with pytest.raises(ImplausibleError, match="the logits of 1 of 16 sentences are NaN or infinite"):
        measured(job(tmp_path))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_of_the_record_that_is_not_finite_makes_it_invalid(job_file, monkeypatch, value):
    monkeypatch.setattr(worker, "measure", lambda job: {"latency_ms": value})
    assert worker.main(job_file) == 1
    assert failure(job_file) == {"status": "invalid", "error": "latency_ms: Input should be a finite number"}
    assert not job_file.with_suffix(".record.json").exists()


@pytest.mark.parametrize("ms", [math.nan, math.inf, 0.0, -1.0])
def test_a_clock_that_says_no_time_makes_the_repetition_invalid(job_file, monkeypatch, ms):
    monkeypatch.setattr(latency, "clock_for", lambda _: SimpleNamespace(time=lambda work: (ms, None, work())))
    work = job(job_file.parent.parent, max_seconds=0.0, min_seconds=0.0)
    work.save(job_file)
    assert worker.main(job_file) == 1
    assert failure(job_file)["status"] == "invalid"
    assert failure(job_file)["error"] == f"a cycle of {CYCLE} iterations took {CYCLE * ms} ms by its clock"


# ------------------------------------------------------------------ when it cannot


@pytest.fixture
def job_file(tmp_path, monkeypatch):
    file = tmp_path / "work" / "job.json"
    job(tmp_path).save(file)
    return file


def ends_with(error: BaseException, monkeypatch) -> None:
    def measure(job):
        raise error

    monkeypatch.setattr(worker, "measure", measure)


def failure(job_file: Path) -> dict:
    return paths.read_json(job_file.with_suffix(".failure.json"))


def test_main_leaves_the_record_beside_the_job(job_file):
    assert worker.main(job_file) == 0
    record = Repetition.model_validate_json(job_file.with_suffix(".record.json").read_text())
    assert record.status == "ok"
    assert record.energy_J_reason == "measured in the energy pass"
    assert not job_file.with_suffix(".failure.json").exists()


def test_a_cpu_out_of_memory_is_oom(job_file, monkeypatch):
    """The allocator's own message: no machine has 4 EiB."""
    monkeypatch.setattr(worker, "measure", lambda job: torch.empty(2**62, dtype=torch.uint8))
    assert worker.main(job_file) == 3
    assert failure(job_file)["status"] == "oom"
    assert "memory" in failure(job_file)["error"]
    assert not job_file.with_suffix(".record.json").exists()


def test_a_cuda_out_of_memory_is_oom(job_file, monkeypatch):
    ends_with(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines"), monkeypatch)
    assert worker.main(job_file) == 3
    assert failure(job_file) == {"status": "oom", "error": "CUDA out of memory. Tried to allocate 2 GiB."}


def test_another_runtime_error_is_not_called_oom(job_file, monkeypatch):
    ends_with(RuntimeError("shapes do not match\n\nSet VERBOSE=1 for more"), monkeypatch)
    assert worker.main(job_file) == 1
    assert failure(job_file) == {"status": "failed", "error": "RuntimeError: shapes do not match"}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA error: out of memory\nmore"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")],
)
def test_whatever_says_that_memory_did_not_suffice_is_oom(job_file, monkeypatch, error):
    ends_with(error, monkeypatch)
    assert worker.main(job_file) == 3
    assert failure(job_file)["status"] == "oom"


def test_an_error_for_people_is_a_failure_file(job_file, monkeypatch):
    ends_with(ModelError("float32 arithmetic was asked for"), monkeypatch)
    assert worker.main(job_file) == 1
    assert failure(job_file) == {"status": "failed", "error": "float32 arithmetic was asked for"}


def test_a_full_disk_is_said_as_storage(job_file, monkeypatch):
    ends_with(StorageError("cannot write there: No space left on device"), monkeypatch)
    assert worker.main(job_file) == 1
    assert failure(job_file)["status"] == "storage"


def test_where_not_even_the_failure_can_be_written_it_is_said(job_file, monkeypatch, capsys):
    def full(path, content):
        raise StorageError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(paths, "write_json", full)
    ends_with(StorageError("cannot write the iterations\nsecond line"), monkeypatch)
    assert worker.main(job_file) == 1
    assert capsys.readouterr().err == "cannot write the iterations\n"


# ------------------------------------------------------------------ no worker without its parent

PARENT = """
import os, subprocess, sys
task = "distilbench.measurements.sweep.measure.worker"
worker = subprocess.Popen([sys.executable, "-m", "distilbench.harness", task, sys.argv[1]],
                          env=os.environ | {"DISTILBENCH_PARENT": str(os.getpid())},
                          stderr=subprocess.DEVNULL)
print("started", flush=True)
worker.wait()
"""


@pytest.mark.parametrize("moment", ["while it starts", "while it measures"])
def test_the_worker_dies_with_its_parent(tmp_path, moment):
    """Real processes; the inputs are a pipe that never delivers, so the worker would wait for ever."""
    work = job(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = tmp_path / "work" / "job.json"
    replace(work, inputs=str(pipe)).save(file)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "started\n"
        (child,) = wait_for(lambda: descendants(parent, "job.json"))
        if moment == "while it measures":
            with pipe.open("w"):  # opens once the worker reads from it
                parent.send_signal(signal.SIGKILL)
                assert all_gone([child])
        else:
            parent.send_signal(signal.SIGKILL)
            assert all_gone([child], cpu_s=60), "it finds its parent gone as soon as it can look"
    finally:
        parent.kill()
        parent.communicate()


def test_a_worker_whose_parent_went_before_it_could_ask_ends(monkeypatch):
    monkeypatch.setattr(entry.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    monkeypatch.setenv("DISTILBENCH_PARENT", "1")
    with pytest.raises(SystemExit, match="the parent went"):
        entry.tie_to_parent()
    monkeypatch.setenv("DISTILBENCH_PARENT", str(os.getppid()))
    entry.tie_to_parent()


def test_a_job_survives_its_file(tmp_path):
    work = job(tmp_path)
    work.save(tmp_path / "job.json")
    assert WorkerSpec(**json.loads((tmp_path / "job.json").read_text())) == work
