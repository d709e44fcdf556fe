"""Real tasks answered by a tiny decoder: what they leave, what follows, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import decoding
import pytest
import torch

from distilbench import paths, studies
from distilbench.errors import HubError, ImplausibleError, ModelError, ParameterError, RunError
from distilbench.measurements.task_scores import records
from distilbench.measurements.task_scores.measure import run as measuring
from distilbench.measurements.task_scores.measure import scorer, tasks, worker
from distilbench.measurements.task_scores.show import entry, plots, tables
from distilbench.measurements.task_scores.summary import derive, join
from distilbench.report import insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.sources import tokenizers
from distilbench.sources.decoders import load_decoder

GIVEN = {
    "task_scores_tasks": list(tasks.OWN), "task_scores_shots": [0, 1], "task_scores_limit": 4, "task_scores_checked": 2,
    "variants": ["baseline", "palu", "palu-v"], "ratio": 0.3,
}  # fmt: skip


@pytest.fixture(scope="session")
def answered(tmp_path_factory) -> Run:
    """Both tasks of our own, with and without an example, by three variants."""
    return decoding.measured(tmp_path_factory.mktemp("answered"), "task_scores", **GIVEN)


@pytest.fixture
def spoilt(answered, tmp_path) -> Run:
    return decoding.copy(answered, tmp_path)


# ------------------------------------------------------------------ what it leaves


def test_each_variant_answered_each_task(answered):
    assert len(answered.measured()) == 12
    assert {one.documents for one in answered.measured()} == {4}
    chosen = decoding.cell(answered, "palu-mmlu_dev_mini-0shot")
    assert (chosen["output_type"], chosen["chance"], chosen["checked"]) == ("multiple_choice", 0.25, 2)
    written = decoding.cell(answered, "palu-mmlu_dev_letter_mini-1shot")
    assert (written["output_type"], written["chance"], written["margin_nat"]) == ("generate_until", None, None)
    assert written["own_disagreed"] == 0, "with its cache a variant writes what it writes without"
    data = answered.data["tasks"]["mmlu_dev_mini"]
    assert "MIT" in data["licence"]
    assert data["documents"] == 4
    assert answered.data["harness"].startswith("lm_eval 0.")
    assert not (answered.folder / "work").exists()


def test_the_two_scorers_agree(answered):
    for one in answered.measured():
        if one.output_type == records.CHOICE:
            assert one.own_difference_nat <= join.AGREES_nat
    rows = read_parquet(answered.folder / records.file_name("baseline-mmlu_dev_mini-1shot"))
    assert [row["own_logprobs"] is not None for row in rows] == [True, True, False, False]


def test_all_variants_were_asked_the_same_and_answer_otherwise(answered):
    for shots in (0, 1):
        found = [one for one in answered.measured() if one.task == "mmlu_dev_mini" and one.shots == shots]
        assert len({one.documents_sha256 for one in found}) == 1
        assert len({one.margin_nat for one in found}) == 3, "a variant that changes nothing would not be one"
    assert len({one.documents_sha256 for one in answered.measured()}) == 4, (
        "an example before a question is a part of it"
    )


def test_the_committed_schema_is_that_of_the_record(answered):
    decoding.require_committed_schema(answered, "task_scores", records.json_schema())


# ------------------------------------------------------------------ the numbers themselves


@torch.inference_mode()
def test_a_choice_is_scored_as_log_softmax_says():
    model, tokenizer = load_decoder(source="random", size="tiny").module, tokenizers.of_bytes()
    ids = tokenizer("Ask: a b")["input_ids"]
    logits = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    expected = sum(float(logits[place - 1, ids[place]]) for place in (-2, -1))
    assert scorer.logprob(model, tokenizer, "Ask: a ", "b", 100) == pytest.approx(expected, abs=1e-5), "space and b"
    cut = torch.log_softmax(model(torch.tensor([ids[-4:]])).logits[0], dim=-1)
    expected = sum(float(cut[place - 1, ids[place]]) for place in (-2, -1))
    assert scorer.logprob(model, tokenizer, "Ask: a ", "b", 3) == pytest.approx(expected, abs=1e-5), "three are read"


def test_a_text_ends_where_it_is_told_to():
    model, tokenizer = load_decoder(source="random", size="tiny").module, tokenizers.of_bytes()
    ids = model.generate(
        torch.tensor([tokenizer("Write")["input_ids"]]), max_new_tokens=6, min_new_tokens=6, do_sample=False,
        pad_token_id=0,
    )[0, 5:]  # fmt: skip
    whole = tokenizer.decode(ids)
    assert scorer.written(model, tokenizer, "Write", ["\0"], 6, 100) == whole
    assert scorer.written(model, tokenizer, "Write", [whole[2], "\0"], 6, 100) == whole.partition(whole[2])[0]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(ids[0]))
    assert scorer.written(model, tokenizer, "Write", ["\0"], 6, 100) == "", "its own end ends it"


def row(target, logprobs=(), said=None, own=None, characters=None):
    return {
        "document": 0, "document_sha256": "a", "target": str(target), "logprobs": list(logprobs), "said": said,
        "characters": characters or [1] * len(logprobs), "own_logprobs": own, "own_said": None,
    }  # fmt: skip


def test_scores_follow_from_questions():
    rows = [
        row(0, [-1.0, -2.0], own=[-1.0, -2.5]), row(1, [-1.0, -2.0], characters=[1, 10]), row(0, [-3.0, -3.0]),
        row(2, [-5.0, -4.0, -4.5, -9.0]),
    ]  # fmt: skip
    found = derive.fields_of(rows)
    assert found["accuracy"] == 0.5, "of equals the first"
    assert found["accuracy_norm"] == 0.75
    assert found["margin_nat"] == pytest.approx((1 - 1 + 0 - 0.5) / 4)
    assert found["chance"] == pytest.approx((3 * 0.5 + 0.25) / 4)
    assert (found["checked"], found["own_difference_nat"], found["own_disagreed"]) == (1, 0.5, None)
    texts = derive.fields_of([row("A", said="A"), row("B", said="A") | {"own_said": "B"}])
    assert (texts["accuracy"], texts["accuracy_norm"], texts["own_disagreed"], texts["checked"]) == (0.5, None, 1, 1)
    with pytest.raises(ImplausibleError, match="no question was answered"):
        derive.fields_of([])


def test_what_the_harness_says_must_be_what_its_samples_give():
    worker._require_the_same({"acc,none": 0.5, "acc_norm,none": 0.25}, {"accuracy": 0.5, "accuracy_norm": 0.25})
    with pytest.raises(ImplausibleError, match=r"the harness says acc,none 0\.5, its samples give 0\.25"):
        worker._require_the_same({"acc,none": 0.5}, {"accuracy": 0.25, "accuracy_norm": None})
    with pytest.raises(ImplausibleError, match="exact_match"):
        worker._require_the_same({"exact_match,none": 1.0}, {"accuracy": 0.25, "accuracy_norm": None})


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (8, 1, 20 / 512)]
)
def test_mcnemars_exact_test(lost, won, p):
    assert join.exact_p(lost, won) == pytest.approx(p)


def test_variants_are_compared_question_by_question(answered):
    compared = decoding.cell(answered, "palu-mmlu_dev_mini-0shot")
    rows = [
        read_parquet(answered.folder / records.file_name(f"{one}-mmlu_dev_mini-0shot")) for one in ("baseline", "palu")
    ]
    right = [[derive.correct(one) for one in own] for own in rows]
    assert compared["lost"] == sum(a and not b for a, b in zip(*right, strict=True))
    assert compared["won"] == sum(b and not a for a, b in zip(*right, strict=True))
    assert compared["accuracy_difference"] == pytest.approx((sum(right[1]) - sum(right[0])) / 4)
    differ = max(compared["lost"] + compared["won"], 1)
    assert compared["visible"] == pytest.approx(2.801585 * math.sqrt(differ) / 4)
    margins = [derive.margin(b) - derive.margin(a) for a, b in zip(*rows, strict=True)]
    assert compared["margin_difference_nat"] == pytest.approx(sum(margins) / 4)
    assert "lost" not in decoding.cell(answered, "baseline-mmlu_dev_mini-0shot")
    assert decoding.cell(answered, "palu-mmlu_dev_letter_mini-0shot")["margin_difference_nat"] is None


def test_what_is_lost_is_not_what_is_won(spoilt):
    """Of four questions the baseline answers three; palu loses two of them and wins the fourth."""
    names = [f"{variant}-mmlu_dev_mini-0shot" for variant in ("baseline", "palu")]
    for name, right in zip(names, ((1, 1, 1, 0), (0, 0, 1, 1)), strict=True):
        rows = [row(0, [-1.0, -2.0] if one else [-2.0, -1.0]) for one in right]
        write_parquet(spoilt.folder / records.file_name(name), rows, records.DOCUMENTS)
    base, own = (next(one for one in spoilt.measured() if one.cell == name) for name in names)
    found = join.against(spoilt.folder, base, own)
    assert (found["lost"], found["won"], found["accuracy_difference"], found["mcnemar_p"]) == (2, 1, -0.25, 1.0)
    assert found["margin_difference_nat"] == pytest.approx(-0.5)


def test_different_questions_are_not_compared(spoilt):
    lines = [json.loads(line) for line in spoilt.raw.read_text().splitlines()]
    for line in lines:
        if line["cell"] == "palu-mmlu_dev_mini-0shot":
            line["documents_sha256"] = "0" * 64
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"cannot be compared: documents_sha256 is \w+ and 0000"):
        join.summarise(spoilt.folder)


# ------------------------------------------------------------------ verify, and what is shown


def test_a_section_verifies_and_a_changed_answer_is_found(spoilt):
    assert verify.problems(spoilt.folder) == []
    name = records.file_name("palu-mmlu_dev_mini-0shot")
    rows = read_parquet(spoilt.folder / name)
    rows[0]["logprobs"][int(rows[0]["target"])] = 0.0
    sha256 = write_parquet(spoilt.folder / name, rows, records.DOCUMENTS)
    (record,) = [json.loads(line) for line in spoilt.raw.read_text().splitlines() if name in line]
    spoilt.raw.write_text(spoilt.raw.read_text().replace(record["files_sha256"][name], sha256))
    assert any("margin_nat says" in one for one in verify.problems(spoilt.folder))
    write_parquet(spoilt.folder / name, [], records.DOCUMENTS)
    assert any("no question was answered" in one for one in verify.problems(spoilt.folder))


def test_what_is_shown(answered, tmp_path):
    text = insights.run_summary(answered, answered.summary)
    assert "mmlu_dev_mini with 0 examples: " in text
    assert "must not be compared with published ones" in " ".join(text.split())
    table = load.table([answered])
    assert (
        len(entry.measured(table))
        == len(answered.kind.showing.cells(answered, answered.summary))
        == len(entry.frame(answered))
        == 12
    )
    assert len(entry.sentences(table)) == 8
    assert [one.name for one in entry.details(table, "tab-x")] == ["tab-x-differences", "tab-x-checks"]
    assert [len(one.frame) for one in entry.details(table, "tab-x")] == [8, 12]
    numbers = entry.numbers(answered)
    assert numbers["baseline-mmlu_dev_mini-0shot-accuracy_low"] <= numbers["baseline-mmlu_dev_mini-0shot-accuracy"]
    assert "palu-mmlu_dev_letter_mini-0shot-margin_nat" not in numbers
    assert entry.about(answered)["questions"] == "8 in all; 0, 1 examples before each"
    assert len(entry.subject(answered)) == 3
    assert entry.reservation(answered.summary)
    assert entry.counted(answered) == "12 tasks computed again from their questions"
    assert entry.caption(table)
    assert {file.name for file in entry.save(answered, tmp_path)} == {"tasks.svg", "tasks.png"}
    assert entry.figure_caption(answered, "fig-tasks") == plots.CAPTION
    assert entry.figure_caption(answered, "fig-latency") is None
    (first, *_) = answered.measured()
    assert first.in_words() == f"{first.cell}: {first.accuracy:.3f} of 4 right"
    assert first.model_copy(update={"status": "failed", "error": "it broke"}).in_words().endswith("FAILED it broke")


def test_doubts(spoilt):
    def doubts(**changed):
        record = next(one for one in spoilt.measured() if one.cell == "palu-mmlu_dev_mini-0shot")
        own = decoding.cell(spoilt, record.cell) | changed
        return join._doubts(own, record)

    assert any("not surely above guessing (0.25)" in one for one in doubts())
    assert not doubts(accuracy_95=[0.3, 0.9])
    assert any(
        "a scorer of our own differs by 0.01 nat; 0.0001 is allowed" in one for one in doubts(own_difference_nat=0.01)
    )
    assert any("1 of 2 texts differ from those written without a cache" in one for one in doubts(own_disagreed=1))
    lines = [line for line in spoilt.raw.read_text().splitlines(keepends=True) if "palu-v-" not in line]
    spoilt.raw.write_text("".join(lines))
    assert "palu-v-mmlu_dev_mini-1shot: not measured (pending)" in spoilt.kind.showing.doubts(
        join.summarise(spoilt.folder)
    )
    spoilt.raw.write_text("")
    empty = join.summarise(spoilt.folder)
    paths.write_json(spoilt.folder / "summary.json", empty)
    assert entry.headline(empty) == "Nothing was measured."
    assert "why" in tables.differences(empty["cells"])
    assert "why" in tables.checks(empty["cells"])
    assert "not measured" in plots.by_task(Run(spoilt.folder)).text


# ------------------------------------------------------------------ tasks, and what is refused


@pytest.fixture(scope="module")
def index():
    """Some tasks of the harness: all of them take it seconds to find."""
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent
    some = [folder / "piqa", folder / "mmlu" / "default"]
    return lm_eval.tasks.TaskManager(include_defaults=False, include_path=some)


def test_a_task_that_does_not_exist(tmp_path, index, monkeypatch):
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda include_defaults: index)
    run, resolved = decoding.section(tmp_path, "task_scores", task_scores_tasks=["piqua"])
    with pytest.raises(ParameterError, match=r"'piqua' is not a task of the harness.*piqa.*mmlu_dev_mini"):
        measuring.prepare(resolved.params, run)


def test_a_group_is_no_task_and_another_type_is_refused(index):
    with pytest.raises(ParameterError, match="'mmlu' is a group of tasks: name one of them"):
        tasks._of_the_hub(index, "mmlu")

    class Every:
        all_subtasks, all_tasks = ["gsm8k"], ["gsm8k"]

        @staticmethod
        def load(_):
            return {"tasks": {"gsm8k": type("Task", (), {"OUTPUT_TYPE": "generate_until"})}}

    with pytest.raises(ParameterError, match="task gsm8k has answers of type generate_until"):
        tasks._of_the_hub(Every, "gsm8k")


def test_a_data_set_that_cannot_be_had(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    class Every:
        all_subtasks, all_tasks = ["piqa"], ["piqa"]

        @staticmethod
        def load(_):
            raise ConnectionError("no way there\nat all")

    with pytest.raises(HubError, match=r"task piqa: its data set cannot be loaded \(ConnectionError: no way there\)"):
        tasks._of_the_hub(Every, "piqa")


def test_without_the_harness(monkeypatch):
    def nowhere(name):
        raise tasks.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tasks.importlib.metadata, "version", nowhere)
    with pytest.raises(ModelError, match=r"pip install 'distilbench\[llm\]'"):
        tasks.load(["piqa"])


def test_a_task_of_the_harness_is_taken_as_it_is():
    class Every:
        all_subtasks, all_tasks = ["piqa"], ["piqa"]

        @staticmethod
        def load(names):
            return {"tasks": {names[0]: task}}

    class task:
        OUTPUT_TYPE = "multiple_choice"
        eval_docs = [{"goal": "a"}, {"goal": "b"}]  # noqa: RUF012
        config = type("Config", (), {"dataset_path": "baber/piqa", "dataset_name": None})

    assert tasks._of_the_hub(Every, "piqa") is task
    said = tasks.manifest(task, "piqa", 1)
    assert (said["source"], said["documents"]) == ("baber/piqa", 1)
    assert said["sha256"] != tasks.manifest(task, "piqa", 2)["sha256"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task_scores_tasks": ["../piqa"]}, "should match pattern"),
        ({"task_scores_shots": [-1]}, "greater than or equal to 0"),
        ({"task_scores_limit": 0}, "greater than or equal to 1"),
    ],
)
def test_parameters_that_make_no_sense(given, said):
    with pytest.raises(ParameterError, match=said):
        studies.sections(studies.resolve("palu", {"profile": "ci"} | given))


def test_of_a_run_in_shards_what_was_prepared_is_taken(tmp_path, monkeypatch):
    run, resolved = decoding.section(tmp_path, "task_scores", variants=["baseline"])
    told = measuring.prepare(resolved.params, run)
    assert not (run.folder / "compression.json").exists()
    monkeypatch.setattr(type(run), "is_split", property(lambda _: True))
    assert measuring.prepare(resolved.params, run) == told
