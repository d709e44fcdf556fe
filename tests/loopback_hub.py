"""A small hub on the loopback: the part of the Hugging Face Hub's HTTP API that its clients need in order to download.

Point the real clients at it with HF_ENDPOINT. It serves what is pushed to it, notes every request, and can be told to
ask for a token, to be overloaded, to send other bytes than it announces, and to move a branch.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_FILES = (".safetensors", ".parquet", ".bin")  # kept as LFS objects, as .gitattributes of real repositories says
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(/(?P<verb>revision|tree|paths-info)/(?P<rest>.+))?"
)
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """Files by path for each commit, and the commit that each branch (or tag, or short hash) stands for."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is not 200: status, and what the hub puts into X-Error-Code and X-Error-Message."""


class LoopbackHub:
    """The hub; use as a context manager. Faults are plain attributes, to be set at any time.

    Attributes:
        requests: what was asked and answered, such as "GET /api/models/a/b 200", in order.
        token: when set, requests without this bearer token are answered 401.
        overloaded_for: how many requests from now on are answered 503; float("inf"): all.
        spoil: by path, a function from the true bytes of a file to those that are sent when it is downloaded;
            size and hash are announced as before.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.token = ""
        self.overloaded_for: float = 0
        self.spoil: dict[str, Callable[[bytes], bytes]] = {}

    def __enter__(self) -> LoopbackHub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must be; after the end nothing listens there."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def push(self, kind: str, name: str, files: dict[str, bytes], *branches: str) -> str:
        """Adds a commit to a repository ("models" or "datasets") and moves these branches to it; returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository())
        content = repr((len(repository.commits), sorted(files.items()))).encode()
        commit = hashlib.sha1(content).hexdigest()
        repository.commits[commit] = dict(files)
        repository.branches.update(dict.fromkeys(branches, commit))
        return commit

    def find(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a revision."""
        if (kind, name) not in self.repositories:  # the real hub does not tell strangers whether it is there
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        repository = self.repositories[kind, name]
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]


def blob_id(content: bytes) -> str:
    """Git's own name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs(path: str, content: bytes) -> dict[str, Any] | None:
    """What the hub says of a large file; None for a small one, which is in git itself."""
    if not path.endswith(LARGE_FILES):
        return None
    return {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds after which an idle connection is closed

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = urlsplit(self.path)
        api, file = API.fullmatch(place.path), FILE.fullmatch(place.path)
        try:
            if not (api or file):
                raise Refusal(404, "NotFound", f"no such page: {place.path}")
            self._refuse_if_told()
            if file:
                content, headers = self._file(file)
            else:
                about = self._api(api, parse_qs(place.query), parse_qs(body.decode()))
                content, headers = json.dumps(about).encode(), {"Content-Type": "application/json"}
            self._send(200, content, headers)
        except Refusal as refusal:
            status, code, message = refusal.args
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    do_GET = do_HEAD = do_POST = _answer

    def _refuse_if_told(self) -> None:
        if self.hub.overloaded_for > 0:
            self.hub.overloaded_for -= 1
            raise Refusal(503, "Overloaded", "Service Unavailable")
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            raise Refusal(401, "GatedRepo", "Access to this repository is restricted. You must be authenticated.")

    def _api(self, asked: re.Match[str], query: dict[str, list[str]], form: dict[str, list[str]]) -> Any:
        """What a repository is (revision), which files are in a folder of it (tree), and what some paths are."""
        revision, _, folder = unquote(asked["rest"] or "main").partition("/")
        commit, files = self.hub.find(asked["kind"], asked["name"], revision)
        if asked["verb"] == "tree":
            return self._tree(files, f"{folder}/" if folder else "", query.get("recursive") == ["true"])
        if asked["verb"] == "paths-info":
            return [self._entry(path, files[path]) for path in form.get("paths", []) if path in files]
        siblings = [{"rfilename": path} for path in files]
        if "blobs" in query:
            siblings = [self._sibling(path, content) for path, content in files.items()]
        return {"id": asked["name"], "sha": commit, "private": False, "gated": False, "tags": [], "siblings": siblings}

    def _tree(self, files: dict[str, bytes], prefix: str, recursive: bool) -> list[dict[str, Any]]:
        """All files below `prefix`; or, if not recursive, the files and folders right in it."""
        below = {path: path.removeprefix(prefix).partition("/") for path in files if path.startswith(prefix)}
        entries = [self._entry(path, files[path]) for path, (_, slash, _) in below.items() if recursive or not slash]
        folders = sorted({prefix + first for first, slash, _ in below.values() if slash})
        return entries + [{"type": "directory", "path": path, "oid": blob_id(path.encode())} for path in folders]

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "oid": blob_id(content), "size": len(content)}
        return entry | ({"lfs": large} if (large := lfs(path, content)) else {})

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        sibling = {"rfilename": path, "blobId": blob_id(content), "size": len(content)}
        if large := lfs(path, content):
            sibling["lfs"] = {"sha256": large["oid"], "size": large["size"], "pointerSize": large["pointerSize"]}
        return sibling

    def _file(self, asked: re.Match[str]) -> tuple[bytes, dict[str, str]]:
        """A file's bytes and what the hub announces of them."""
        kind, path = "datasets" if asked["kind"] else "models", unquote(asked["path"])
        commit, files = self.hub.find(kind, asked["name"], unquote(asked["revision"]))
        if path not in files:
            raise Refusal(404, "EntryNotFound", f"Entry not found: {path}")
        content, large = files[path], lfs(path, files[path])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob_id(content)}"'}
        if large:
            headers |= {"X-Linked-ETag": f'"{large["oid"]}"', "X-Linked-Size": str(large["size"])}
        spoil = self.hub.spoil.get(path) if self.command == "GET" else None
        return spoil(content) if spoil else content, headers

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.hub.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)} {status}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` has it all."""
