"""A browser for tests: Debian's Chromium, pages served over a real socket, and everything that a page complains of."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SLOW_MS = 300_000  # a browser does not tell how it gets on; so long it may take for anything
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def chromium() -> str:
    """Chromium's path; without one the tests that need it are skipped, but in CI they fail."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium: scripts/system_packages.sh installs it (Debian)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return found


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser that is closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS, timeout=SLOW_MS)
        try:
            yield running
        finally:
            running.close()


def patient(page: Any) -> Any:
    """The page, which waits long for what a slow machine draws."""
    page.set_default_timeout(SLOW_MS)
    return page


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's address on a web server on loopback."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/favicon.ico":  # what a browser asks of a page that names no icon (the redirecting one)
                self.send_response(204)
                self.end_headers()
                return
            super().do_GET()

    with serving(functools.partial(Silent, directory=str(folder))) as address:
        yield address


@contextlib.contextmanager
def serving(handler: Any) -> Iterator[str]:
    """The address on loopback where a handler answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Complaints(list):
    """What goes wrong in a page: errors in its console, requests that fail or leave this machine."""

    def watch(self, page: Any) -> Complaints:
        """Listens to the page from now on."""
        page.on("console", lambda message: message.type == "error" and self._say(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.append(f"script: {error}"))
        page.on("requestfailed", lambda request: self._say(f"failed: {request.url} {request.failure}"))
        page.on("response", lambda answer: answer.status >= 400 and self.append(f"{answer.status}: {answer.url}"))
        page.on("request", lambda request: self._request(request.url))
        return self

    def _say(self, complaint: str) -> None:
        """What Chromium gives up since a test cluster beside it made or removed a network is no fault of the page."""
        if "ERR_NETWORK_CHANGED" not in complaint:
            self.append(complaint)

    def _request(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "file:")):
            self.append(f"external: {url}")
