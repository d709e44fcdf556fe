"""Where things are, and how files are written so that a kill at any moment leaves nothing half done."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from distilbench.errors import DistilbenchError, ParameterError, RunError, StorageError

#: How this package starts a Python: without the working directory, where a user's `random.py` may lie, on its path.
PYTHON = (sys.executable, "-P")
LAST_EPOCH = 2**32 - 1  # gzip writes no later second (RFC 1952)


def repo_root() -> Path:
    """The folder that holds notebooks/ and params/: $DISTILBENCH_ROOT, else the checkout of this package."""
    root = Path(os.environ.get("DISTILBENCH_ROOT") or Path(__file__).resolve().parents[1])
    if not (root / "params" / "studies.yml").is_file():
        raise DistilbenchError(
            f"no distilbench checkout at {root}: it has no params/studies.yml. "
            "Install with `pip install -e .` from a clone, or set DISTILBENCH_ROOT to one."
        )
    return readable(root)


def results_root(given: str | Path = "") -> Path:
    """Where run folders go: `given`, else $DISTILBENCH_RESULTS, else results/ of the checkout."""
    chosen = given or os.environ.get("DISTILBENCH_RESULTS") or repo_root() / "results"
    return readable(expand(chosen).resolve())


def checkpoints_root() -> Path:
    """Where trained classifiers are looked for: $DISTILBENCH_CHECKPOINTS, else checkpoints/ of the checkout."""
    return readable(expand(os.environ.get("DISTILBENCH_CHECKPOINTS") or repo_root() / "checkpoints").resolve())


def published_root() -> Path:
    """Where the runs are that the report cites: small, and committed."""
    return repo_root() / "results" / "published"


def cache_root() -> Path:
    """Where fetched artefacts are kept: $DISTILBENCH_CACHE, else $XDG_CACHE_HOME/distilbench, else ~/.cache."""
    if given := os.environ.get("DISTILBENCH_CACHE"):
        return readable(expand(given).resolve())
    return readable(expand(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "distilbench")


def home() -> Path:
    """The user's home folder, where caches and Jupyter's files go unless variables say otherwise.

    Raises:
        StorageError: there is none, as in a container whose user has a number only.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise StorageError(
            f"user {os.getuid()} has no home folder: HOME is not set, and no passwd entry names one. "
            "Set HOME to a folder that you may write."
        ) from None


def expand(path: str | Path) -> Path:
    """A path with its `~` replaced.

    Raises:
        StorageError: nobody knows whose home that is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise StorageError(
            f"{str(path)!r} begins in a home folder that this system does not know: name it without '~', or set HOME"
        ) from None


def readable(path: str | Path) -> Path:
    """A path whose name is text; records, notebooks and messages hold names as UTF-8, and can hold no other bytes.

    Raises:
        StorageError: a byte of it is not UTF-8; it is shown as \\xNN.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        shown = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise StorageError(f"'{shown}': this name is not UTF-8; rename the file or folder") from None
    return Path(path)


def find_input(path: str | Path) -> Path:
    """An input file named by the user: as given, relative to the working directory, else to the checkout."""
    given = expand(path)
    for candidate in (given, repo_root() / given):
        if candidate.exists():
            return readable(candidate.resolve())
    raise DistilbenchError(
        f"there is no {str(path)!r}: looked in the working directory ({Path.cwd()}) and in {repo_root()}"
    )


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that may be read; none where it is not there.

    Raises:
        StorageError: it is no folder, or it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not folder.exists():  # or it is below a file
            return []
        raise StorageError(
            f"cannot read {folder}: {error.strerror or error}. Name another place (--results-root, "
            "DISTILBENCH_RESULTS), or ask its owner for the right to read it."
        ) from None


#: What helps, by what the operating system said; for everything else OTHER_PLACE.
OTHER_PLACE = "choose another place (--results-root, DISTILBENCH_CACHE), then run again"
WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"free some space or {OTHER_PLACE}"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit on open files (ulimit -n), then run again"),
    errno.ENAMETOOLONG: f"give a shorter name or {OTHER_PLACE}",
    errno.ESTALE: f"the network file system lost it: mount it anew or {OTHER_PLACE}",
}


def storage_error(target: str | Path, error: OSError) -> StorageError:
    """What the operating system says about an unwritable or full place, as a message with a way out."""
    way_out = WAYS_OUT.get(error.errno or 0, OTHER_PLACE)
    why = (error.strerror or str(error)).rstrip(".")
    return StorageError(f"cannot write {target}: {why}. What was already there is untouched; {way_out}.")


@contextmanager
def clear_write_errors(target: Path) -> Iterator[None]:
    """Turns what the operating system says about an unwritable or full place into one clear message."""
    try:
        yield
    except OSError as error:
        raise storage_error(target, error) from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: a temporary name in the same folder, fsync, `os.replace`."""
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())  # else a power loss could leave the new name without its content
            Path(temporary).chmod(0o644)  # mkstemp makes files that only their owner reads
            os.replace(temporary, path)  # noqa: PTH105 (the atomic call is the point)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which then appears whole in the place of an earlier one, or not at all."""
    part, old = (folder.with_name(f".{folder.name}.{state}") for state in ("part", "old"))
    for left in (part, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with clear_write_errors(folder):
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.replace(old)
        part.replace(folder)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically: sorted keys, indented, a final newline, NaN refused."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON; a missing or damaged file is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def append_line(path: Path, line: str) -> None:
    """Appends one whole line and fsyncs it; if that fails half-way (full disk), cuts the file back."""
    with clear_write_errors(path), path.open("ab", buffering=0) as file:  # a buffer would write its rest at the close
        before, rest = file.tell(), line.encode() + b"\n"
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise


def sha256_bytes(*parts: bytes) -> str:
    """SHA-256 (hex) of the parts in order."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(content: Any) -> bytes:
    """One byte string per value, whatever the order of keys: what hashes of settings are taken of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@contextmanager
def hold_lock(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds an advisory lock on `path` while inside; dies with the process, so nothing is ever left locked.

    Args:
        path: the lock file; made when missing, and it names the holder.
        busy: what to say when another process holds it.
        wait: wait for the other process instead of refusing.

    Raises:
        RunError: another process holds the lock.
        StorageError: the place cannot be written, or has no locks; then nothing is left there.
    """
    there = nearest(path.parent)
    try:
        with clear_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        free = _lock(file, wait)
    except StorageError:
        _take_back(path, there)
        raise
    with file:
        if not free:
            file.seek(0)
            raise RunError(f"{busy} (held by process {file.read().strip() or 'unknown'})")
        with clear_write_errors(path):
            path.write_text(f"{os.getpid()} on {os.uname().nodename}", encoding="utf-8")
        yield


def _take_back(lock: Path, there: Path) -> None:
    """Removes a lock file that could not be locked, and the folders below `there` that were made for it."""
    with suppress(OSError):  # it was not made, or its name is too long
        if lock.stat().st_size == 0:
            lock.unlink()
    for folder in takewhile(lambda above: above != there, lock.parents):
        with suppress(OSError):  # it was not made, or something else is in there
            folder.rmdir()


def _lock(file: IO, wait: bool) -> bool:
    """Takes the lock; without waiting, asks a few times, since `is_locked` of another process holds it for a moment.

    flock, not lockf: its lock belongs to the open file and goes with it, however the process ends.
    """
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            time.sleep(0.05)
        except OSError as error:
            file.close()
            raise StorageError(
                f"{Path(file.name).parent} has no file locks ({error.strerror}), and without them two processes could "
                "write one file. Choose a place on a file system that has them (--results-root or DISTILBENCH_RESULTS "
                "for runs, DISTILBENCH_CACHE for what is fetched): a local disk, or a network file system that is "
                "mounted with locks."
            ) from error
    return False


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock on `path`; where the file system has no locks, none can.

    Raises:
        StorageError: the lock file may not be read.
    """
    if not path.exists():
        return False
    try:
        file = path.open("rb")  # for reading, and shared: works on what only others may write, disturbs no reader
    except OSError as error:
        raise StorageError(f"cannot tell whether {path.parent} is in use: {path.name}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False


def nearest(folder: Path) -> Path:
    """The folder itself, else the nearest one above it that is there."""
    return next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path("/"))


def trouble_with(folder: Path, locks: bool = True) -> str | None:
    """Why `folder` (or, while it is not there, the one it would be made in) cannot hold files; None: it can.

    Tried with a file that leaves nothing. With `locks`, as runs and the cache need them, it must have those too.
    """
    try:
        with tempfile.TemporaryFile(dir=nearest(folder)) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())  # a full network disk says so only now
            try:
                if locks:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return f"NO FILE LOCKS ({error.strerror})"
    except OSError as error:
        return f"NOT WRITABLE ({error.strerror or error})"
    return None


def source_date_epoch() -> int | None:
    """$SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch); None where it is not set or empty.

    Raises:
        ParameterError: it is no number of seconds.
    """
    if not (given := os.environ.get("SOURCE_DATE_EPOCH")):
        return None
    if not (given.isascii() and given.isdigit() and int(given[:20]) <= LAST_EPOCH):
        allowed = f"whole seconds since 1970, from 0 to {LAST_EPOCH}, such as `git log -1 --format=%ct` prints"
        raise ParameterError(f"SOURCE_DATE_EPOCH is {given[:40]!r}: it must be {allowed}; or do not set it")
    return int(given)
