"""The report: the answer first, the same from the same file, and no verdict where the run bears none."""

from __future__ import annotations

import pytest
from batch_profiles import SIZES, invented

from distilbench import paths
from distilbench.anomaly import gather, plot, records, report
from distilbench.anomaly.analysis import DEVIATES, analyse
from distilbench.errors import RunError
from distilbench.runs.folder import Run


def rendered(content) -> str:
    return report.text(content, analyse(content), records.NAME)


def test_the_answer_comes_first_with_how_sure_it_is():
    text = rendered(invented({4: 0.85}))
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "# Batch sizes against linear scaling"
    assert lines[1] == "**1 of 19 batch sizes deviates from linear scaling**, all of them controlled for at 95 %."
    assert lines[2].startswith("- batch size 4: 17.7% better efficiency than linear scaling (1.17")
    assert lines[3] == "- Of the others: 18 within 2% of linear scaling for sure."


def test_several_are_counted_and_slower_is_worse():
    text = rendered(invented({4: 1.3, 8: 1.3}))
    assert "**2 of 19 batch sizes deviate from linear scaling**" in text
    assert "batch size 8: 23." in text
    assert "worse efficiency than linear scaling" in text
    assert "None of 19 batch sizes deviates" in rendered(invented())


def test_those_that_only_seem_to_are_told_apart():
    content = next(
        found for seed in range(20) if "| only seems" in rendered(found := invented(noise=0.05, seed=seed, rounds=5))
    )
    assert "Only seem to, each judged by itself: batch size" in rendered(content)


def test_the_diagnosis_has_its_evidence():
    text = rendered(invented({4: 1.3}))
    diagnosis = text[text.index("## Diagnosis") : text.index("## What the run cannot say")]
    assert "**Batch size 4.** A batch takes 5." in diagnosis
    assert "ms more than predicted. Operators that differ for sure account for 100% of that; " in diagnosis
    assert "- `aten::addmm` takes 5." in diagnosis
    assert "  - batch size 4: 6 calls; 128×768 · 768×3072 6× in" in diagnosis
    assert "`sgemm_large` at batch size 4" in diagnosis
    assert "threads that shared work: 1" in diagnosis


def test_what_is_unexplained_and_unprofiled_is_said():
    assert "mostly unexplained (100%)" in rendered(invented({4: 1.3}, cause=None))
    assert "No diagnosis: there are no operators of batch size" in rendered(invented({4: 1.3}, cause=""))
    assert "there is nothing to explain" in rendered(invented())


def test_operators_that_are_not_called_or_have_no_record_of_their_inputs():
    content = invented({4: 1.3}, cause=None)
    four = content.sizes[3].profiled
    extra = {"operator": "aten::copy_", "ms": [5.4, 5.3, 5.4, 5.5, 5.4], "shapes": None}
    four.operators.append(four.operators[1].model_copy(update=extra))
    text = rendered(content)
    assert "batch size 4: 6 calls; inputs not recorded" in text
    assert "batch size 3: not called" in text
    four.operators[-1].shapes = [records.InputShape(dims=[[], []], calls=6, ms=5.4)]
    assert "6 calls; scalars 6× in 5.4 ms" in rendered(content)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"profile": "smoke"}, "It gives no verdict: it is a run of profile smoke"),
        ({"factors": {1: 1.3}}, "Batch size 1 lies beyond the sizes that its line was drawn through"),
        (
            {"factors": {size: size**0.2 for size in SIZES}},
            "sizes deviate (sdpa, float32, fixed-32): then a straight line",
        ),
        ({"sizes": (1, 2, 4, 8, 16)}, "5 sizes (sdpa, float32, fixed-32) are too few"),
        ({"sizes": (1, 2, 4)}, "Batch size 4 (sdpa, float32, fixed-32) is left out: too few sizes"),
    ],
)
def test_what_the_run_cannot_say(given, said):
    assert said in rendered(invented(**given, noise=0.001)).split("## What the run cannot say")[1]


def test_unstable_sizes_and_profiles_that_do_not_repeat_the_deviation_are_doubted():
    content = invented({4: 1.3})
    content.sizes[2].state = "unstable"
    four = content.sizes[3].profiled
    four.forward_ms = [ms / 1.3 for ms in four.forward_ms]
    text = rendered(content)
    assert "Not settled when their warm-up was cut off (sdpa, float32, fixed-32): batch sizes 3." in text
    assert "The profiled processes, before the profiler ran, deviate at batch size 4 by" in text


def test_padding_that_grows_with_the_batch_is_doubted():
    content = invented()
    assert "`longest`" not in rendered(content)
    for size in content.sizes:
        size.length_policy = "longest"
    assert "At `longest` a larger batch is padded to a longer sentence" in rendered(content)


def test_a_published_run_has_a_report_too():
    """Real numbers, without a profile: the file is gathered from what was committed long before it was thought of."""
    (folder, *_) = sorted((paths.published_root() / "distilbert").iterdir())
    content = gather.gather(Run(folder))
    analysis = analyse(content)
    assert (len(analysis.curves), analysis.rounds, analysis.compared) == (3, 5, 18)
    assert {curve.name for curve, _ in analysis.sizes(DEVIATES)} <= {"sdpa, float32, longest"}
    assert "Operators were timed" not in rendered(content)
    assert "the run has no profile of its operators" in rendered(content)


def test_a_smoke_run_has_a_table_without_intervals_or_verdicts():
    text = rendered(invented({4: 1.3}, profile="smoke"))
    assert text.splitlines()[2].startswith("**This run cannot say which batch sizes deviate**")
    (row,) = (line for line in text.splitlines() if line.startswith("| 4 |"))
    assert row.count("–") == 3
    assert "Without a verdict there is nothing to explain." in text
    assert "0.769" in row


def test_curves_have_their_names_where_there_are_several():
    one, two = invented({4: 1.3}), invented(seed=8)
    both = one.model_copy(update={"sizes": one.sizes + [s.model_copy(update={"variant": "eager"}) for s in two.sizes]})
    assert "batch size 4 (sdpa, float32, fixed-32): " in rendered(both)
    for panel in plot.shown(analyse(both)).drawn.to_dict()["vconcat"]:
        assert panel["facet"]["column"]["field"] == "curve"
        assert not any("data" in layer for layer in panel["spec"]["layer"]), "each column shows its own curve alone"


def test_writing_it_needs_the_file_alone_and_gives_the_same_bytes(tmp_path):
    source = tmp_path / "profile.json"
    records.write(source, invented({4: 0.85}))
    first = report.write(source).read_bytes()
    names = {report.NAME, "batch_anomaly.svg", "batch_anomaly.png", source.name}
    assert {file.name for file in tmp_path.iterdir()} == names
    pictures = {name: (tmp_path / name).read_bytes() for name in names}
    other = report.write(source, tmp_path / "other")
    assert other.read_bytes() == first
    assert {name: (other.parent / name).read_bytes() for name in names - {source.name}} == {
        name: content for name, content in pictures.items() if name != source.name
    }
    assert "![Latency per sample against batch size" in first.decode()
    assert "`profile.json` alone" in first.decode()


def test_without_a_line_there_is_no_picture(tmp_path):
    source = tmp_path / "profile.json"
    records.write(source, invented(sizes=(1, 2)))
    text = report.write(source).read_text()
    assert "![" not in text
    assert "No size has enough others to be compared with." in text
    assert plot.shown(analyse(invented(sizes=(1, 2)))) is None


def test_the_picture_marks_what_deviates():
    content = invented({4: 0.85})
    table = plot.rows(analyse(content)).set_index("batch_size")
    assert table.loc[4, "kind"] == plot.DEVIATING
    assert set(table.drop(index=4)["kind"]) == {plot.OTHER}
    assert table.loc[4, "together_low"] < table.loc[4, "deviation"] == pytest.approx(-15, abs=1)
    assert "Deviating: batch size 4 by -15" in plot.shown(analyse(content)).alt_text
    assert plot.shown(analyse(invented(profile="smoke"))).alt_text.endswith("Deviating: none.")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(RunError, match="missing"):
        report.write(tmp_path / "none.json")
