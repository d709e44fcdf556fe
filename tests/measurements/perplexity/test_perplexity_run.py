"""A real section of a tiny decoder: what it leaves, what verify finds, what is shown, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import decoding
import pytest
import torch
from tiny_llama import padded_left, tiny

from distilbench import studies
from distilbench.errors import DataError, ImplausibleError, ParameterError, RunError
from distilbench.measurements.perplexity import records
from distilbench.measurements.perplexity.measure import prepare, windows, worker
from distilbench.measurements.perplexity.measure import run as measuring
from distilbench.measurements.perplexity.params import PerplexityParams
from distilbench.measurements.perplexity.show import entry, tables
from distilbench.measurements.perplexity.summary import derive, join
from distilbench.report import insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.sources import tokenizers
from distilbench.sources.decoders import load_decoder
from distilbench.sources.prose import Prose

GIVEN = {
    "perplexity_ratios": [0.5, 1.0], "perplexity_forms": ["fisher", "plain"], "perplexity_texts": ["held-out", "other"],
    "perplexity_windows": 6,
}  # fmt: skip


def section(folder: Path, **given):
    return decoding.section(folder, "perplexity", **GIVEN | given)


@pytest.fixture(scope="session")
def scored(tmp_path_factory) -> Run:
    """Two forms at two ratios on two texts."""
    return decoding.measured(tmp_path_factory.mktemp("scored"), "perplexity", **GIVEN)


@pytest.fixture
def spoilt(scored, tmp_path) -> Run:
    return decoding.copy(scored, tmp_path)


# ------------------------------------------------------------------ what it leaves


def test_each_form_scored_each_text(scored):
    assert [one["cell"] for one in scored.summary["cells"]][:4] == [
        "baseline-held-out", "fisher-0.5-held-out", "fisher-1-held-out", "plain-0.5-held-out",
    ]  # fmt: skip
    assert len(scored.measured()) == 10
    assert not (scored.folder / "work").exists()
    files = {str(file.relative_to(scored.folder)) for file in (scored.folder / records.FOLDER).iterdir()}
    assert files == {name for record in scored.measured() for name in record.files}


def test_full_rank_has_the_perplexity_of_the_whole_decoder(scored):
    for text in ("held-out", "other"):
        whole = decoding.cell(scored, f"baseline-{text}")
        for form in ("fisher", "plain"):
            full = decoding.cell(scored, f"{form}-1-{text}")
            for definition in records.DEFINITIONS:
                name = f"{definition}_perplexity"
                assert full[name] == pytest.approx(whole[name], rel=1e-5)
            assert full["ratio_of_baseline"] == pytest.approx(1, abs=1e-5)
            assert full["ratio_95"][0] <= full["ratio_of_baseline"] + 1e-9
    assert decoding.cell(scored, "fisher-0.5-held-out")["ratio_of_baseline"] != 1
    assert 0 < decoding.cell(scored, "fisher-0.5-held-out")["retained_k"] < 1


def test_the_committed_schema_is_that_of_the_record(scored):
    decoding.require_committed_schema(scored, "perplexity", records.json_schema())


# ------------------------------------------------------------------ the numbers themselves


@torch.inference_mode()
def test_a_window_is_scored_as_cross_entropy_says():
    model, (ids, _) = tiny(), padded_left([30], seed=4)
    logits = model(ids[:, 4:20]).logits[0]
    expected = float(torch.nn.functional.cross_entropy(logits[5:-1], ids[0, 10:20], reduction="sum"))
    window = windows.Window(4, 20, 10, False, 10)
    assert worker.score(model, ids[0], window, 1) == pytest.approx(expected, rel=1e-5)
    with_start = model(torch.cat([torch.tensor([[1]]), ids[:, :5]], dim=1)).logits[0, :-1]
    expected = float(torch.nn.functional.cross_entropy(with_start, ids[0, :5], reduction="sum"))
    assert worker.score(model, ids[0], windows.Window(0, 5, 0, True, 5), 1) == pytest.approx(expected, rel=1e-5)


def test_rolling_windows_agree_with_the_harness():
    """lm-evaluation-harness, on the same lines: the sums of each document, with a start token and cut into windows."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer, lines, length = load_decoder(source="random", size="tiny").module, tokenizers.of_bytes(), [], 40
    texts = [
        "A line that is longer than one window, and so is cut into several of them.\n",
        "Short.\n",
        "Exactly\n" * 5,
    ]
    ids: list[int] = []
    for text in texts:
        own = tokenizer(text)["input_ids"]
        lines.append((len(ids), len(ids) + len(own)))
        ids += own
    ours = [
        sum(worker.score(model, torch.tensor(ids), one, 1) for one in windows.rolling([line], length)) for line in lines
    ]
    harness = HFLM(model, tokenizer=tokenizer, max_length=length, prefix_token_id=1, add_bos_token=False, batch_size=2)
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    assert ours == pytest.approx([-one for one in harness.loglikelihood_rolling(asked, disable_tqdm=True)], abs=1e-4)


def test_a_probability_that_is_no_number():
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ImplausibleError, match="tokens 1 to 5 have a probability that is no number"):
        worker.score(model, torch.arange(3, 9), windows.Window(0, 5, 1, False, 4), 1)


def row(definition, nll, scored, weight=None, **sizes):
    return {
        "definition": definition, "nll": nll, "scored": scored, "weight": weight or scored, "utf8_bytes": 0, "words": 0,
    } | sizes  # fmt: skip


def test_perplexities_follow_from_chunks():
    rows = [
        row("disjoint", 10.0, 5), row("disjoint", 30.0, 5), row("strided", 6.0, 6),
        row("rolling", 8.0, 4, utf8_bytes=16, words=2), row("rolling", 5.0, 9),
        row("weighted", 8.0, 4, 5), row("weighted", 1.0, 1, 2),
    ]  # fmt: skip
    found = {one["definition"]: one for one in derive.fields_of(rows)["perplexities"]}
    assert found["disjoint"]["perplexity"] == pytest.approx(math.exp(4))
    assert found["strided"]["tokens"] == 6
    assert found["rolling"]["bits_per_byte"] == pytest.approx(0.5 / math.log(2)), "over whole lines only"
    assert found["rolling"]["tokens"] == 13
    assert found["rolling"]["word_perplexity"] == pytest.approx(math.exp(4))
    assert found["weighted"]["perplexity"] == pytest.approx(math.exp((2 * 5 + 1 * 2) / 7)), "of means, by length"
    with pytest.raises(ImplausibleError, match="no chunk was scored by the definition 'disjoint'"):
        derive.fields_of(rows[2:])


# ------------------------------------------------------------------ verify


def test_a_section_verifies_and_a_changed_chunk_is_found(spoilt):
    assert verify.problems(spoilt.folder) == []
    name = records.file_name("fisher-0.5-other")
    (record,) = [json.loads(line) for line in spoilt.raw.read_text().splitlines() if name in line]
    rows = read_parquet(spoilt.folder / name)
    rows[0]["nll"] *= 2
    sha256 = write_parquet(spoilt.folder / name, rows, records.CHUNKS)
    spoilt.raw.write_text(spoilt.raw.read_text().replace(record["files_sha256"][name], sha256))
    assert any("perplexity says" in one for one in verify.problems(spoilt.folder))
    write_parquet(spoilt.folder / name, [one for one in rows if one["definition"] != "strided"], records.CHUNKS)
    assert any("no chunk was scored by the definition 'strided'" in one for one in verify.problems(spoilt.folder))


def test_different_texts_are_not_compared(spoilt):
    lines = [json.loads(line) for line in spoilt.raw.read_text().splitlines()]
    for line in lines:
        if line["cell"] == "baseline-other":
            line["text_sha256"] = "0" * 64
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"baseline-other and fisher-0\.5-other cannot be compared: text_sha256 is 0000"):
        join.summarise(spoilt.folder)


# ------------------------------------------------------------------ what is shown


def test_what_is_shown(scored):
    text = insights.run_summary(scored, scored.summary)
    assert "Perplexity of the whole decoder: " in text
    assert "on the other text" in text
    numbers = entry.numbers(scored)
    assert numbers["fisher-0.5-other-ratio_of_baseline_low"] < numbers["fisher-0.5-other-ratio_of_baseline_high"]
    table = load.table([scored])
    assert len(entry.measured(table)) == 10
    assert len(entry.sentences(table)) == 8
    assert entry.cells(scored, scored.summary).shape[0] == entry.frame(scored).shape[0] == 10
    (details,) = entry.details(table, "tab-x")
    assert (details.name, len(details.frame)) == ("tab-x-energies", 4)
    assert "tokens" in entry.about(scored)["text"]
    assert len(entry.subject(scored)) == 2
    assert entry.reservation(scored.summary)
    assert entry.counted(scored) == "10 texts computed again from their windows"
    assert entry.caption(table)


def test_few_windows_have_no_interval_and_what_is_missing_is_said(spoilt):
    lines = [json.loads(line) for line in spoilt.raw.read_text().splitlines()]
    for line in lines:
        name = records.file_name(line["cell"])
        rows = [one for one in read_parquet(spoilt.folder / name) if one["chunk"] < 3]
        line["files_sha256"][name] = write_parquet(spoilt.folder / name, rows, records.CHUNKS)
        again = derive.fields_of(rows)
        line |= again
    kept = [line for line in lines if line["cell"] != "plain-1-other"]
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in kept))
    summary = join.summarise(spoilt.folder)
    said = spoilt.kind.showing.doubts(summary)
    assert "plain-1-other: not measured (pending)" in said
    assert any("3 windows: too few for an interval; 5 are needed" in one for one in said)
    assert tables.against(summary["cells"][1]).count("(") == 0
    spoilt.raw.write_text("")
    empty = join.summarise(spoilt.folder)
    assert entry.headline(empty) == "Nothing was measured."
    assert "why" in tables.energies(empty["cells"])


# ------------------------------------------------------------------ texts, and what is refused


def test_a_real_text_keeps_its_lines(tmp_path, monkeypatch):
    class Loaded:
        folder = tmp_path

        @staticmethod
        def tokenizer():
            return lambda text, add_special_tokens: {"input_ids": [len(word) for word in text.split()] + [0]}

    monkeypatch.setattr(prepare.prose, "load", lambda *_: Prose("words", "a bc\ndéf", {}))
    text = prepare.text_of(PerplexityParams(source="embedded"), Loaded, "held-out")
    assert text["ids"] == [1, 2, 0, 3, 0]
    assert text["lines"] == [[0, 3, 5, 2], [3, 5, 5, 1]], "first token, end, bytes and words of each line"
    assert prepare.text_of(PerplexityParams(source="embedded"), Loaded, "other")["name"].startswith("Alice")


def test_a_text_that_is_shorter_than_a_window(tmp_path):
    run, resolved = section(tmp_path, perplexity_length=20_000, perplexity_stride=10)
    with pytest.raises(DataError, match="text held-out has 16384 tokens, a window 20000"):
        measuring.prepare(resolved.params, run)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"perplexity_ratios": [1.5]}, "less than or equal to 1"),
        ({"perplexity_length": 1, "perplexity_stride": 1}, "length must be at least 2"),
        ({"perplexity_length": 16, "perplexity_stride": 17}, "must be below length"),
    ],
)
def test_parameters_that_make_no_sense(given, said):
    with pytest.raises(ParameterError, match=said):
        studies.sections(studies.resolve("palu", {"profile": "ci"} | given))


def test_of_a_run_in_shards_what_was_prepared_is_taken(tmp_path, monkeypatch):
    run, resolved = section(tmp_path)
    told = measuring.prepare(resolved.params, run)
    monkeypatch.setattr(type(run), "is_split", property(lambda _: True))
    assert measuring.prepare(resolved.params, run) == told
