"""Checks the links of a built book: every page, anchor and picture that a page points to must be there.

python scripts/check_links.py [book/_build/html]

Links to other hosts are followed only with CHECK_EXTERNAL=1; without it they are counted. Exit code 1 where something
is missing. Standard library only.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

BUILT = Path(__file__).resolve().parents[1] / "book" / "_build" / "html"
POINTS_WITH = {
    "a": "href", "link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data",
}  # fmt: skip
GONE = (404, 410)  # other answers say that a server does not like to be asked by a script, or has a bad day
TIMEOUT_S = 20.0


class _Page(HTMLParser):
    """What a page points to, and the anchors in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Also called for tags that close themselves."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given and (name == "id" or tag == "a")}
        if link := given.get(POINTS_WITH.get(tag, "")):
            self.links.append(link)


@dataclass
class Found:
    """What a book points to."""

    pages: int = 0
    links: int = 0  # that stay within the book
    broken: list[str] = field(default_factory=list)  # of these, those that lead nowhere, each with its page and why
    external: dict[str, list[str]] = field(default_factory=dict)  # pages by address on another host


def check(folder: Path) -> Found:
    """Follows every link of every page below a folder, as far as it stays there.

    Raises:
        FileNotFoundError: there is no page, so nothing would be checked.
    """
    folder = folder.resolve()
    files = [file for file in sorted(folder.rglob("*.html")) if "_static" not in file.relative_to(folder).parts]
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in files}  # themes keep templates in _static
    if not pages:
        raise FileNotFoundError(f"there is no page in {folder}: build the book first (make book)")
    found = Found(pages=len(pages))
    for file, page in pages.items():
        where = str(file.relative_to(folder))
        for link in dict.fromkeys(page.links):  # each once
            scheme = urlsplit(link).scheme
            if scheme in ("http", "https") or link.startswith("//"):
                found.external.setdefault(link, []).append(where)
            elif not scheme:  # mailto:, data: and the like point to nothing that could be missing
                found.links += 1
                if why := _broken(folder, file, link, pages):
                    found.broken.append(f"{where}: {link}: {why}")
    return found


def _broken(folder: Path, file: Path, link: str, pages: dict[Path, _Page]) -> str | None:
    """Why a link leads nowhere; None: it leads somewhere."""
    parts = urlsplit(link)
    if parts.path.startswith("/"):
        return "begins with /, which is the book's folder on few servers"
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(folder):
        return "leads out of the book"
    if not target.is_file():
        return "there is no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "the page has no such anchor"
    return None


def ask(addresses: Iterable[str]) -> dict[str, int | str]:
    """Asks other hosts for pages; the addresses without one, with the server's status or why there was no answer."""
    addresses = list(addresses)
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(addresses, pool.map(_answer, addresses), strict=True))
    return {address: said for address, said in answers.items() if said is not None}


def _answer(address: str) -> int | str | None:
    whole = f"https:{address}" if address.startswith("//") else address
    request = urllib.request.Request(whole.partition("#")[0], headers={"User-Agent": "distilbench link check"})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return f"no answer ({getattr(error, 'reason', error)})"
    return None


def asked_for_external() -> bool:
    """Whether the user wants links to other hosts to be followed."""
    return os.environ.get("CHECK_EXTERNAL") == "1"


def main() -> int:
    """Prints what was checked, what was not, and what is missing."""
    try:
        found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    missing = list(found.broken)
    print(f"{found.pages} pages, {found.links} links within the book: {len(missing) or 'none'} broken")
    if asked_for_external():
        for address, said in ask(found.external).items():
            if said in GONE:
                missing.append(f"{found.external[address][0]}: {address}: {said}")
            else:
                print(f"cannot tell: {address}: {said}")
        print(f"{len(found.external)} links to other hosts: {len(missing) - len(found.broken) or 'none'} gone")
    else:
        print(f"{len(found.external)} links to other hosts: not followed (CHECK_EXTERNAL=1 does)")
    for line in missing:
        print(line)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
