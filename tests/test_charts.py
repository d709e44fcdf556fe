"""Charts: what is drawn, that equal data give equal bytes, and what stands where nothing can be drawn."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from distilbench.report import charts


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        {
            "machine": machine, "variant": "sdpa", "length_policy": policy, "batch_size": size,
            "latency_ms": 10.0 * size / speed, "latency_ms_range": [9.0 * size / speed, 11.0 * size / speed],
            "energy_per_sample_J": None, "energy_per_sample_J_reason": "no counter",
        }
        for machine, speed in (("CPU", 1), ("GPU", 8))
        for policy in ("fixed-32", "longest")
        for size in (1, 8, 32)
    ]  # fmt: skip
    return pd.DataFrame(rows)


LATENCY = charts.METRICS[0]


def test_axes_have_units_and_one_colour_per_machine(table):
    spec = charts.chart(table, LATENCY).to_dict()
    line = spec["layer"][1]["encoding"]
    assert line["y"]["title"] == "Latency of one batch (ms)"
    assert line["x"]["scale"]["type"] == "log"
    assert line["x"]["axis"]["values"] == [1, 8, 32]
    assert line["color"]["field"] == "machine"
    assert line["color"]["scale"]["range"] == charts.PALETTE


def test_the_bar_is_the_range_of_the_repetitions(table):
    (rows,) = charts.chart(table, LATENCY).to_dict()["datasets"].values()
    first = next(row for row in rows if row["machine"] == "CPU" and row["batch_size"] == 8)
    assert (first["low"], first["value"], first["high"]) == (72, 80, 88)


def test_one_panel_per_variant(table):
    both = pd.concat([table, table.assign(variant="eager")])
    assert charts.chart(both, LATENCY).to_dict()["facet"]["column"]["field"] == "variant"


def test_equal_data_give_equal_bytes_whatever_their_order(table):
    shuffled = table.sample(frac=1, random_state=1)
    assert charts.svg(charts.chart(table, LATENCY)) == charts.svg(charts.chart(shuffled, LATENCY))
    assert (
        charts.plot(table, "latency_ms")._repr_mimebundle_() == charts.plot(shuffled, "latency_ms")._repr_mimebundle_()
    )


def test_a_page_gets_picture_data_and_alternative_text(table):
    bundle = charts.plot(table, "latency_ms")._repr_mimebundle_()
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
    assert 'fill="currentColor"' in charts.svg(charts.chart(table, LATENCY))


def test_what_was_not_measured_is_said_with_its_reason(table):
    shown = charts.plot(table, "energy_per_sample_J")
    assert "not measurable on this machine: no counter" in shown._repr_mimebundle_()["text/html"]


def test_saved_as_svg_and_png(table, tmp_path):
    names = sorted(file.name for file in charts.save(table, tmp_path))
    assert names == ["latency_ms.png", "latency_ms.svg"]
    assert (tmp_path / "latency_ms.png").read_bytes().startswith(b"\x89PNG")
