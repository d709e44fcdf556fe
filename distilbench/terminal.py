"""What people see of the command line: output that a poor terminal can show too, and errors that nobody foresaw."""

from __future__ import annotations

import codecs
import io
import os
import sys

DEGRADES = "distilbench.degrades"  # name of the error handler
TRACEBACK = "DISTILBENCH_TRACEBACK"  # set: an unforeseen error shows where it happened
PLAIN = {
    "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "±": "+-", "µ": "u", "μ": "u", "·": ".", "→": "->", "•": "*",
    "≤": "<=", "≥": ">=", "‘": "'", "’": "'", "‹": "<", "›": ">", "“": '"', "”": '"',
}  # fmt: skip


def prepare() -> None:
    """Makes this process, and those that it starts, read file names as UTF-8, and its output never fail for a letter.

    Where the locale is Latin-1 or ASCII, the process begins anew in Python's UTF-8 mode: what reads models and tables
    takes every path for UTF-8, which it then is. Output keeps the terminal's encoding.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        env = {"PYTHONIOENCODING": encoding} | os.environ | {"PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], env)
    codecs.register_error(DEGRADES, degrade)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=DEGRADES)
    if "PYTHONIOENCODING" in os.environ:  # is about the terminal; what this process starts is read as UTF-8 by it
        os.environ["PYTHONIOENCODING"] = "utf-8"


def degrade(error: UnicodeError) -> tuple[bytes, int]:
    """Error handler of the output: typographic letters become plain, bytes of file names stay, others are escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return b"".join(_plain(letter) for letter in error.object[error.start : error.end]), error.end


def _plain(letter: str) -> bytes:
    if "\udc80" <= letter <= "\udcff":  # how Python keeps a byte of a file name that is not UTF-8
        return bytes([ord(letter) - 0xDC00])
    return PLAIN.get(letter, letter).encode("ascii", "backslashreplace")


def unforeseen(error: BaseException) -> str:
    """One line for people about an error that no check foresaw, and how to see where it happened."""
    what = "the operating system refused" if isinstance(error, OSError) else "this was not foreseen"
    if isinstance(error, UnicodeEncodeError):  # the only text that UTF-8 cannot hold
        what = "a name is not UTF-8; rename the file or folder"
    why = f"{str(error) or 'no reason given'} ({type(error).__name__})"
    return f"{what}: {why}. Nothing that was measured is lost. {TRACEBACK}=1 shows where it happened."


def flush() -> None:
    """Writes out what was printed, so that a full disk behind the output is an error and not an afterthought.

    What is left of it is dropped then.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more at its end
        raise
