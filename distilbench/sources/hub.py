"""The model hub, through its own clients.

HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE=1, TRANSFORMERS_OFFLINE=1 and HF_DATASETS_OFFLINE=1 mean what they
always do.
"""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

from distilbench import paths
from distilbench.errors import DataError, DistilbenchError, HubError
from distilbench.sources import repositories, revisions

T = TypeVar("T")
RETRY_DELAYS_S = (1.0, 2.0)  # a hub that is briefly overloaded (429, 5xx) is asked again after these
TIMEOUT_S = 10.0  # for the first answer: a firewall that drops packets must not look like a hang
MODEL_FILES = (
    "config.json", "*.safetensors", "tokenizer*", "vocab.txt", "special_tokens_map.json", "adapter_config.json",
    "label_mappings.json",
)  # fmt: skip
WAY_OUT = (
    "Two ways out: run `distilbench fetch` once where the hub can be reached and share its cache (HF_HOME; with "
    "HF_HUB_OFFLINE=1 it is used as it is), or use what needs no hub: source=embedded."
)


def told_offline(kind: str = "model") -> str:
    """The setting that keeps the hub's clients off the network, such as "HF_HUB_OFFLINE=1"; empty where none does.

    Args:
        kind: model or dataset, whose own client can be told alone.
    """
    first = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"  # as huggingface_hub does
    names = (first, "HF_DATASETS_OFFLINE") if kind == "dataset" else (first,)
    given = {name: os.environ.get(name, "") for name in names}
    return next((f"{name}={value}" for name, value in given.items() if value.upper() in ("1", "ON", "YES", "TRUE")), "")


def fetch_model(name: str, revision: str) -> tuple[Path, str]:
    """A model's files in the hub's cache, checked, as (folder, commit).

    The commit is the one in revisions.lock when there is one; the files' SHA-256 is compared with the hub's own
    (when downloaded) and with the lock's (always).

    Raises:
        HubError: no route, no permission, not there, or damaged; with the ways out.
    """
    key = f"model {name}@{revision}"
    folder = _snapshot("model", name, revision, _locked_commit(key), MODEL_FILES)
    if not list(folder.glob("*.safetensors")):
        raise HubError(f"model {name} at {folder.name} has no safetensors file; only such weights are loaded")
    sums = {file.name: paths.sha256_file(file) for pattern in MODEL_FILES for file in folder.glob(pattern)}
    found = {"commit": folder.name, "sha256": paths.sha256_bytes(paths.canonical_json(sums))}
    try:
        revisions.enforce(key, found, revisions.shared_lock())
    except DataError as error:
        raise HubError(f"{error} If the files are damaged, {_fetch_again(folder)}.") from None
    return folder, folder.name


@dataclass(frozen=True)
class Split:
    """One split of a data set, and where it comes from.

    Attributes:
        table: its rows.
        commit: of the repository.
        licence, citation: as its card has them, else "not stated".
    """

    table: repositories.Table
    commit: str
    licence: str
    citation: str


def fetch_dataset(name: str, config: str, split: str, revision: str) -> Split:
    """One split of a data set, from parquet, csv, tsv or json files.

    The hub's own client downloads the files of that split only: `datasets`, when offline, takes whichever commit it
    loaded last. The caller compares the content with the lock, since only it knows which columns count.

    Args:
        config: "default" is also the one that the card marks so, or the only one.
        split: its name, or part of it, such as "validation" or "validation[:100]".

    Raises:
        HubError: as `fetch_model`.
        DataError: the data set has no such configuration or split, or keeps it in another form, or in
            text that cannot be read in one way only.
    """
    return _split_by(repositories.load_split, name, config, split, revision)


def stream_dataset(name: str, config: str, split: str, revision: str) -> Split:
    """As `fetch_dataset`; rows of parquet files are read while they are gone through, once."""
    return _split_by(repositories.stream_split, name, config, split, revision)


def _split_by(load: Callable[..., repositories.Table], name: str, config: str, split: str, revision: str) -> Split:
    locked = _locked_commit(dataset_key(name, config, split, revision))
    folder = _snapshot("dataset", name, revision, locked, repositories.DESCRIPTIONS)
    card = repositories.read_card(folder, f"data set {name}")
    entry = card.configuration(config)
    there = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    listed = _listed_files("dataset", name, folder.name) or there  # `datasets` itself lists none
    files = repositories.files_of_split(card, entry, listed, split.partition("[")[0])
    _snapshot("dataset", name, folder.name, locked, [glob.escape(file) for file in files])
    try:
        table = load(card, entry, folder, files, split)
    except DataError:
        raise
    except Exception as error:  # of `datasets`, or of the reader that it uses for the format
        raise HubError(
            f"cannot read {config}/{split} of data set {name}: {shorten(str(error.__cause__ or error), 400)}. "
            f"If the files are damaged, {_fetch_again(folder)}."
        ) from error
    named = entry["config_name"]
    return Split(table, folder.name, card.licence(named), card.citation(named))


def dataset_key(name: str, config: str, split: str, revision: str) -> str:
    """Names a data set in the lock."""
    return f"data {name}/{config}/{split}@{revision}"


def _locked_commit(key: str) -> str | None:
    return revisions.read(revisions.shared_lock()).get(key, {}).get("commit")


# ------------------------------------------------------------------ files


def _snapshot(kind: str, name: str, revision: str, locked: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache, named after the commit, that holds the files that match.

    A locked commit that is known to be cached whole needs no hub. Anything else is asked for, and every large file,
    whether cached or just downloaded, is compared with the SHA-256 that the hub keeps of it.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = f"{'data set' if kind == 'dataset' else kind} {name}@{revision}"
    asked, revision = revision, locked or revision

    def cached_or_downloaded(commit: str, **options: Any) -> Path:
        with _quiet():
            return Path(
                snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=list(patterns), **options)
            )

    told = told_offline(kind)
    if told or (locked and _listed_files(kind, name, locked)):
        try:
            folder = cached_or_downloaded(revision, local_files_only=True)
            _note_commit(folder, asked, just_resolved=False)
            return folder
        except LocalEntryNotFoundError:
            if told:
                commit = f" (commit {locked} of the lock)" if locked else ""
                raise HubError(
                    f"cannot get {what}{commit}: {told} is set and it is not in the cache {constants.HF_HUB_CACHE}. "
                    f"{WAY_OUT}"
                ) from None
    about = _ask(
        what, lambda: HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    )
    folder = _ask(what, lambda: cached_or_downloaded(about.sha))
    _compare_with_hub(about, folder, patterns)
    _note_commit(folder, asked, just_resolved=not locked)
    return folder


def _note_commit(folder: Path, revision: str, just_resolved: bool) -> None:
    """Notes which commit a branch, a tag or a short hash stands for, where the hub's clients look when offline.

    Args:
        folder: the snapshot.
        revision: as it was asked for.
        just_resolved: by the hub. A locked commit is noted only where none is: the branch may have moved on.
    """
    note = folder.parents[1] / "refs" / revision
    if revision == folder.name or (note.exists() and not just_resolved):
        return
    with suppress(DistilbenchError, OSError):  # a cache that is shared may be read-only: nothing is fetched into it
        paths.write_atomic(note, folder.name)


def _listed_files(kind: str, name: str, commit: str) -> list[str]:
    """The files of a commit, as the cache has them; without that list, it takes a part of them for the whole."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in get_cached_repo_tree(name, repo_type=kind, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return []


def _compare_with_hub(about: Any, folder: Path, patterns: Sequence[str]) -> None:
    """Compares the SHA-256 of large files with what the hub says of them; it keeps none of small ones."""
    for told in about.siblings:
        if not told.lfs or not any(fnmatch(told.rfilename, pattern) for pattern in patterns):
            continue
        got = paths.sha256_file(folder / told.rfilename)
        if got != told.lfs.sha256:
            raise HubError(
                f"{told.rfilename} of {about.id} is damaged: the hub says SHA-256 {told.lfs.sha256}, "
                f"the file has {got}. To repair it, {_fetch_again(folder)}."
            )


def _fetch_again(folder: Path) -> str:
    """What to do about damaged files: a snapshot only links to blobs, so all that is cached of the repository goes."""
    return f"delete {folder.parents[1]} and fetch again"


# ------------------------------------------------------------------ asking


def _ask(what: str, question: Callable[[], T]) -> T:
    """Asks the hub; repeats while it is overloaded; turns every refusal into one clear message."""
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            return question()
        except Exception as error:
            status = _status_of(error)
            if _overloaded(status) and delay_s is not None:
                time.sleep(delay_s)
                continue
            raise HubError(f"cannot get {what}: {_meaning(error, status)}") from error
    raise AssertionError("unreachable")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the clients' progress bars out of logs and notebooks; a terminal gets them."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or sys.stderr.isatty():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _overloaded(status: int | None) -> bool:
    return status is not None and (status == 429 or status >= 500)


def _status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the hub's clients, looked for along its causes."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    """What the server said, else the first line of the message, else the error's name."""
    said = getattr(error, "server_message", None) or str(error)
    return said.strip().splitlines()[0] if said.strip() else type(error).__name__


def _meaning(error: Exception, status: int | None) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if status in (401, 403):
        return f"the hub refused ({status}). Log in with `hf auth login` or set HF_TOKEN, and check the name."
    if status == 404:
        return f"the hub at {endpoint} does not have it ({_first_line(error)}). Check name and revision."
    if _overloaded(status):
        return f"the hub at {endpoint} keeps answering {status}. Try later. {WAY_OUT}"
    return f"the hub at {endpoint} cannot be reached or sent something damaged ({_first_line(error)}). {WAY_OUT}"
