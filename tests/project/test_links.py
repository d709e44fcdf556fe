"""The link checker, on a made-up book whose broken links are known, and on hosts that answer as they are told."""

from __future__ import annotations

import http.server
import socket
import sys
from pathlib import Path

import check_links
import pytest
from pages import serving

INDEX = """<!doctype html><html><head><link rel="stylesheet" href="_static/style.css?digest=1"></head><body>
<a href="chapter.html">a page</a> <a href="chapter.html#results">an anchor</a> <a href="#here">within</a>
<a href="#">top</a>
<a href="studies/one/index.html">a folder below</a> <a href="with%20space.html#%C3%BC">encoded</a>
<a href="mailto:a@example.org">mail</a> <img src="data:image/png;base64,AA=="> <img src="_static/there.png">
<h1 id="here">Here</h1></body></html>"""
CHAPTER = '<p id="results"></p><a name="old"></a><a href="index.html">back</a><a href="chapter.html#old">old</a>'
BELOW = '<a href="../../index.html#here">up</a><a href="../..">the folder itself</a>'


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book in which every link leads somewhere."""
    files = {
        "index.html": INDEX,
        "chapter.html": CHAPTER,
        "with space.html": '<p id="ü">x</p>',
        "studies/one/index.html": BELOW,
        "_static/style.css": "",
        "_static/there.png": "",
        "_static/macros.html": "<link href=\"{{ pathto('style.css') }}\">",  # a theme's template, no page
    }
    for name, content in files.items():
        file = tmp_path / "html" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return tmp_path / "html"


def add(book: Path, html: str, page: str = "chapter.html") -> None:
    file = book / page
    file.write_text(file.read_text(encoding="utf-8") + html, encoding="utf-8")


def test_a_whole_book_has_no_broken_link(book):
    found = check_links.check(book)
    assert found.broken == []
    assert (found.pages, found.links, found.external) == (4, 12, {})


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<a href="gone.html">', "gone.html: there is no such file"),
        ('<a href="gone.html#results">', "gone.html#results: there is no such file"),
        ('<a href="index.html#gone">', "index.html#gone: the page has no such anchor"),
        ('<a href="#gone">', "#gone: the page has no such anchor"),
        ('<img src="_static/gone.png"/>', "_static/gone.png: there is no such file"),
        ('<script src="_static/gone.js"></script>', "_static/gone.js: there is no such file"),
        ('<a href="_static">', "_static: there is no such file"),
        ('<a href="../outside.html">', "../outside.html: leads out of the book"),
        ('<a href="/chapter.html">', "/chapter.html: begins with /, which is the book's folder on few servers"),
        ('<input name="q"><a href="#q">', "#q: the page has no such anchor"),
    ],
)
def test_what_leads_nowhere_is_found_with_its_page_and_why(book, html, said):
    (book.parent / "outside.html").touch()
    add(book, html)
    assert check_links.check(book).broken == [f"chapter.html: {said}"]


def test_a_folder_without_pages_is_not_a_book_without_broken_links(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no page in .*make book"):
        check_links.check(tmp_path)


# ------------------------------------------------------------------ other hosts


@pytest.fixture
def host():
    """A server on loopback that answers /<status> with that status."""

    class Told(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:4]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Told) as address:
        yield address


def nobody() -> str:
    """An address on this machine where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_other_hosts_are_asked_and_their_answers_told_apart(host):
    silent = nobody()
    addresses = [f"{host}/200#anchor", f"{host}/404", f"{host}/410", f"{host}/403", silent]
    answers = check_links.ask(addresses)
    assert list(answers) == addresses[1:]
    assert [answers[f"{host}/{status}"] for status in (404, 410, 403)] == [404, 410, 403]
    assert str(answers[silent]).startswith("no answer (")


def call(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["check_links.py", *map(str, words)])
    code = check_links.main()
    said = capsys.readouterr()
    return code, said.out + said.err


def test_links_to_other_hosts_are_counted_and_not_followed(book, host, monkeypatch, capsys):
    monkeypatch.delenv("CHECK_EXTERNAL", raising=False)
    add(book, f'<a href="{host}/404">')
    code, said = call(monkeypatch, capsys, book)
    assert code == 0
    assert "4 pages, 12 links within the book: none broken" in said
    assert "1 links to other hosts: not followed (CHECK_EXTERNAL=1 does)" in said


def test_links_to_other_hosts_are_followed_on_request(book, host, monkeypatch, capsys):
    monkeypatch.setenv("CHECK_EXTERNAL", "1")
    add(book, f'<a href="{host}/200"><a href="{host}/403">')
    code, said = call(monkeypatch, capsys, book)
    assert code == 0
    assert f"cannot tell: {host}/403: 403\n2 links to other hosts: none gone" in said
    add(book, f'<a href="{host}/404">')
    code, said = call(monkeypatch, capsys, book)
    assert code == 1
    assert f"chapter.html: {host}/404: 404" in said.splitlines()


def test_the_command_names_what_is_broken(book, monkeypatch, capsys):
    add(book, '<a href="gone.html">')
    code, said = call(monkeypatch, capsys, book)
    assert code == 1
    assert "1 broken" in said
    assert "chapter.html: gone.html: there is no such file" in said.splitlines()
    code, said = call(monkeypatch, capsys, book.parent / "nowhere")
    assert code == 1
    assert said.startswith("error: there is no page in ")
