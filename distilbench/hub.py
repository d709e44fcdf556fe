"""The model hub, through its own clients.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE=1 mean what they always do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from distilbench import paths, revisions
from distilbench.errors import DataError, HubError

T = TypeVar("T")
RETRY_DELAYS_S = (1.0, 2.0)  # a hub that is briefly overloaded (429, 5xx) is asked again after these
TIMEOUT_S = 10.0  # for the first answer: a firewall that drops packets must not look like a hang
MODEL_FILES = ("config.json", "*.safetensors", "tokenizer*", "vocab.txt", "special_tokens_map.json")
WAY_OUT = (
    "Two ways out: run `distilbench fetch` once where the hub can be reached and share its cache (HF_HOME), "
    "or use what needs no hub: source=embedded."
)


def offline() -> bool:
    """Whether the user told the hub's clients to stay off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


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


def fetch_dataset(name: str, config: str, split: str, revision: str) -> tuple[Any, str]:
    """One split of a data set through `datasets`, as (dataset, commit).

    The hub's own client downloads the files of that split only: `datasets`, when offline, takes whichever commit it
    loaded last. The caller compares the content with the lock, since only it knows which columns count.

    Args:
        split: its name, or part of it, such as "validation" or "validation[:100]".

    Raises:
        HubError: as `fetch_model`.
        DataError: the data set has no such configuration or split, or keeps it in another form than parquet.
    """
    import datasets

    locked = _locked_commit(dataset_key(name, config, split, revision))
    card = _snapshot("dataset", name, revision, locked, ["README.md"]) / "README.md"
    whole_split = split.partition("[")[0]
    patterns = _split_patterns(card, f"data set {name}", config, whole_split)
    commit = card.parent.name
    folder = _snapshot("dataset", name, commit, locked, patterns)
    files = sorted({str(file) for pattern in patterns for file in folder.glob(pattern)})
    if not files or not all(file.endswith(".parquet") for file in files):
        raise DataError(f"data set {name} keeps {config}/{whole_split} in {patterns}; only parquet files can be read")
    datasets.disable_progress_bars()
    try:
        described = datasets.info.DatasetInfosDict.from_directory(str(folder)).get(config)
        features = described.features if described else None  # the card names the labels
        return datasets.Dataset.from_parquet({whole_split: files}, split=split, features=features), commit
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        raise HubError(
            f"cannot read {config}/{split} of data set {name}: {_first_line(error.__cause__ or error)}. "
            f"If the files are damaged, {_fetch_again(folder)}."
        ) from error


def dataset_key(name: str, config: str, split: str, revision: str) -> str:
    """Names a data set in the lock."""
    return f"data {name}/{config}/{split}@{revision}"


def _locked_commit(key: str) -> str | None:
    return revisions.read(revisions.shared_lock()).get(key, {}).get("commit")


def _split_patterns(card: Path, what: str, config: str, split: str) -> list[str]:
    """The files of one split, as the data set's card lists them."""
    from huggingface_hub import DatasetCard

    listed = DatasetCard.load(card).data.to_dict().get("configs") or [] if card.is_file() else []
    configs = {entry["config_name"]: entry.get("data_files") for entry in listed}
    if config not in configs:
        raise DataError(f"{what} has no configuration {config!r}; its card lists: {', '.join(configs) or 'none'}")
    parts = {part["split"]: part["path"] for part in configs[config] or [] if isinstance(part, dict)}
    if split not in parts:
        raise DataError(f"{what} has no split {split!r} in {config!r}; its card lists: {', '.join(parts) or 'none'}")
    return [parts[split]] if isinstance(parts[split], str) else list(parts[split])


# ------------------------------------------------------------------ files


def _snapshot(kind: str, name: str, revision: str, locked: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache, named after the commit, that holds the files that match.

    A locked commit that is known to be cached whole needs no hub. Anything else is asked for, and every large file,
    whether cached or just downloaded, is compared with the SHA-256 that the hub keeps of it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = f"{'data set' if kind == 'dataset' else kind} {name}@{revision}"
    revision = locked or revision

    def cached_or_downloaded(commit: str, **options: Any) -> Path:
        with _quiet():
            return Path(
                snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=list(patterns), **options)
            )

    if offline() or (locked and _is_listed(kind, name, locked)):
        try:
            return cached_or_downloaded(revision, local_files_only=True)
        except LocalEntryNotFoundError:
            if offline():
                raise HubError(
                    f"cannot get {what}: HF_HUB_OFFLINE=1 is set and it is not in the cache. {WAY_OUT}"
                ) from None
    about = _ask(
        what, lambda: HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    )
    folder = _ask(what, lambda: cached_or_downloaded(about.sha))
    _compare_with_hub(about, folder, patterns)
    return folder


def _is_listed(kind: str, name: str, commit: str) -> bool:
    """Whether the cache has the list of the commit's files; without it, it takes a part of them for the whole."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return bool(get_cached_repo_tree(name, repo_type=kind, revision=commit))
    except CachedRepoTreeNotFoundError:
        return False


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
