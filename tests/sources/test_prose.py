"""Running text: two halves that have nothing in common, and files that cannot be read."""

from __future__ import annotations

import pytest

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
