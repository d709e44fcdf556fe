"""Running text: two halves that have nothing in common, and files that cannot be read."""

from __future__ import annotations

import io
import platform

import hub_user
import pandas as pd
import pytest
from loopback_hub import LoopbackHub

from distilbench.errors import DataError
from distilbench.sources import prose


def test_the_editorials_for_calibration_are_not_those_that_are_held_out():
    calibrating, held_out = (prose.load("editorials", calibrating=which) for which in (True, False))
    lines = [set(text.text.split("\n")) for text in (calibrating, held_out)]
    assert not lines[0] & lines[1]
    assert len(lines[0]) > 3 * len(lines[1]) > 3000, "80 % and 20 % of about five thousand"
    assert calibrating.sha256 != held_out.sha256
    assert held_out.manifest()["name"] == "sentences of newspaper editorials, held out"
    assert held_out.manifest()["licence"].startswith("MIT")


def test_a_file_is_halved(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("one\n\ntwo\nthree\nfour\nfive\n")
    assert prose.load("file", str(file), calibrating=True).text == "one\ntwo"
    held_out = prose.load("file", str(file))
    assert held_out.text == "three\nfour\nfive"
    assert held_out.name == "text.txt, second half of its lines"


def test_files_that_cannot_be_read(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("one line\n")
    with pytest.raises(DataError, match="has 1 lines of text; at least 2 are needed"):
        prose.load("file", str(file))
    file.write_bytes(b"ok\n\xff\xfe")
    with pytest.raises(DataError, match="is no UTF-8 text: invalid start byte at byte 3"):
        prose.load("file", str(file))
    with pytest.raises(DataError, match="cannot read"):
        prose.load("file", str(tmp_path))


def test_wikitext_is_taken_where_the_cache_has_it(tmp_path):
    """Over a real hub of this machine: before the text is there, when it is fetched, and offline afterwards."""
    with LoopbackHub() as hub:
        files = {"README.md": README.encode()}
        for split, lines in (
            ("train", ["", " = One = \n", " Words . \n"]),
            ("test", [" = Two = \n", "", " More . \n"]),
        ):
            written = io.BytesIO()
            pd.DataFrame({"text": lines}).to_parquet(written)
            files[prose.WIKITEXT_FILE.format(split)] = written.getvalue()
        commit = hub.push("datasets", prose.WIKITEXT, files, "main")
        start = "from distilbench.sources import prose\n"
        texts = "both = [prose.load({!r}, calibrating=one) for one in (False, True)]\n"
        texts += "answer = [one.manifest() | {{'text': one.text}} for one in both]"
        before = hub_user.run(hub.url, tmp_path, chosen=start + "answer = prose.chosen('auto')")
        fetched = hub_user.run(hub.url, tmp_path, texts=start + texts.format("wikitext"))["texts"]
    after = hub_user.run(
        "http://127.0.0.1:9", tmp_path, {"HF_HUB_OFFLINE": "1"}, chosen=start + "answer = prose.chosen('auto')",
        texts=start + texts.format("auto"),
    )  # fmt: skip
    assert before == {"chosen": "editorials"}
    assert [one["text"] for one in fetched] == [" = Two = \n\n\n\n\n More . \n", "\n\n = One = \n\n\n Words . \n"]
    assert fetched[0]["name"] == "Salesforce/wikitext wikitext-2-raw-v1, test split"
    assert (fetched[0]["source"], fetched[0]["commit"]) == ("hub", commit)
    assert after == {"chosen": "wikitext", "texts": fetched}


README = """---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - {split: test, path: wikitext-2-raw-v1/test-*}
  - {split: train, path: wikitext-2-raw-v1/train-*}
---
"""


def test_the_help_of_this_python_names_its_version():
    text = prose.topics()
    assert platform.python_version() in text.name
    assert text.about["python"] == platform.python_version()
    assert len(text.text) > 100_000
