"""Charts: what is drawn, that equal data give equal bytes, and what stands where nothing can be drawn."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from distilbench.measurements.sweep.show import plots
from distilbench.report import charts, spread


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        {
            "machine": machine, "variant": "sdpa", "length_policy": policy, "batch_size": size,
            "latency_ms": 10.0 * size / speed, "latency_ms_range": [9.0 * size / speed, 11.0 * size / speed],
            "latency_ms_repetitions": 2, "state": "unstable" if size == 32 else "ok",
            "energy_per_sample_J": None, "energy_per_sample_J_reason": "no counter",
        }
        for machine, speed in (("CPU", 1), ("GPU", 8))
        for policy in ("fixed-32", "longest")
        for size in (1, 8, 32)
    ]  # fmt: skip
    return pd.DataFrame(rows)


LATENCY = plots.METRICS[0]


def test_axes_have_units_and_one_colour_per_machine(table):
    spec = plots.chart(table, LATENCY).to_dict()
    line = spec["layer"][1]["encoding"]
    assert line["y"]["title"] == "Latency of one batch (ms)"
    assert line["x"]["scale"]["type"] == "log"
    assert line["x"]["axis"]["values"] == [1, 8, 32]
    assert line["color"]["field"] == "machine"
    assert line["color"]["scale"]["range"] == charts.PALETTE


def row_of(table: pd.DataFrame, metric: plots.Metric = LATENCY) -> dict:
    (rows,) = plots.chart(table, metric).to_dict()["datasets"].values()
    return next(row for row in rows if row["machine"] == "CPU" and row["batch_size"] == 8)


def test_the_bar_is_what_stands_beside_the_number_elsewhere(table):
    first = row_of(table)
    assert (first["low"], first["value"], first["high"]) == (72, 80, 88), "below five processes their range"
    table["latency_ms_interval_95"] = [[1.0, 2.0]] * len(table)
    table["latency_ms_interval_of_median"] = [[value * 0.95, value * 1.05] for value in table["latency_ms"]]
    first = row_of(table)
    assert (first["low"], first["high"]) == (76, 84), "the median's own interval, not that of the mean"
    shown = spread.ends(table.iloc[1].to_dict(), "latency_ms")
    assert [first["low"], first["high"]] == pytest.approx(shown)


def test_the_point_of_an_unstable_cell_is_hollow_where_it_was_timed(table):
    spec = plots.chart(table, LATENCY).to_dict()
    opacity = spec["layer"][2]["encoding"]["fillOpacity"]
    assert opacity == {"condition": [{"test": "datum.state == 'unstable'", "value": 0}], "value": 1}
    assert "Hollow points are unstable" in plots.caption(table, LATENCY)
    assert "(unstable at 32)" in plots.plot(table, "latency_ms").alt_text
    assert "Hollow" not in plots.caption(table.assign(state="ok"), LATENCY)
    memory = table.assign(peak_memory_MiB=1.0, peak_memory_MiB_range=table["latency_ms_range"])
    assert "Hollow" not in plots.caption(memory, plots.METRICS[2]), "no warm-up is cut off where memory is watched"
    assert row_of(memory.assign(state="unstable"), plots.METRICS[2])["state"] == "ok"


def test_a_caption_is_made_from_what_is_there(table):
    """Each statement of a caption goes when its ground goes."""
    said = plots.caption(table, LATENCY)
    assert "bars reach from the lowest to the highest of 2 fresh processes per cell, too few for an interval." in said
    assert "cuts" not in said
    cut = table.assign(truncated_share=[0.25, 0.25, 0.25, 0.0, 0.0, 0.0] * 2, truncated_of="of a cycle")
    assert "fixed-32 cuts 25.0% of the sentences of a cycle; longest cuts no sentence." in plots.caption(cut, LATENCY)
    assert "cuts" not in plots.caption(cut[cut["length_policy"] == "longest"], LATENCY), "nothing shown is cut"
    assert plots.caption(table, plots.METRICS[3]) is None, "no energy, no figure"
    one = table.copy()
    one.loc[one["machine"] == "GPU", "latency_ms"] = None
    one["latency_ms_reason"] = one["latency_ms"].isna().map({True: "it broke", False: None})
    assert plots.caption(one, LATENCY).endswith("Not shown: GPU: it broke.")
    table["energy_per_sample_J"], table["energy_windows"] = 0.5, 5
    table["energy_per_sample_J_range"] = [[0.4, 0.6]] * len(table)
    said = plots.caption(table, plots.METRICS[3])
    assert "means over the windows" in said
    assert "of 5 windows of one process per cell." in said


def test_one_panel_per_variant(table):
    both = pd.concat([table, table.assign(variant="eager")])
    assert plots.chart(both, LATENCY).to_dict()["facet"]["column"]["field"] == "variant"


def test_equal_data_give_equal_bytes_whatever_their_order(table):
    shuffled = table.sample(frac=1, random_state=1)
    assert charts.svg(plots.chart(table, LATENCY)) == charts.svg(plots.chart(shuffled, LATENCY))
    assert plots.plot(table, "latency_ms")._repr_mimebundle_() == plots.plot(shuffled, "latency_ms")._repr_mimebundle_()


def test_a_page_gets_picture_data_and_alternative_text(table):
    bundle = plots.plot(table, "latency_ms")._repr_mimebundle_()
    assert bundle["image/svg+xml"].startswith("<svg")
    assert (
        'role="img" aria-label="Latency of one batch (ms) against batch size. CPU, sdpa, fixed-32: '
        in bundle["text/html"]
    )
    spec = re.search(r"<script[^>]*>(.*)</script>", bundle["text/html"], re.DOTALL)[1]
    assert json.loads(spec.replace("<\\/", "</"))["layer"]
    assert "http" not in bundle["text/html"].replace("http://www.w3.org", "").replace(
        "https://vega.github.io/schema", ""
    )


def test_text_takes_the_colour_of_the_page(table):
    assert 'fill="currentColor"' in charts.svg(plots.chart(table, LATENCY))


def test_what_was_not_measured_is_said_with_its_reason(table):
    shown = plots.plot(table, "energy_per_sample_J")
    assert "Energy per sample (J): not measured: no counter" in shown._repr_mimebundle_()["text/html"]


def test_saved_as_svg_and_png(table, tmp_path):
    names = sorted(file.name for file in plots.save(table, tmp_path))
    assert names == ["latency_ms.png", "latency_ms.svg"]
    assert (tmp_path / "latency_ms.png").read_bytes().startswith(b"\x89PNG")
