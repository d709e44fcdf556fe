"""Small files of the kernel, in /proc and /sys: what they say, or None where it does not have or show them."""

from __future__ import annotations

from pathlib import Path


def text_of(file: Path) -> str | None:
    """Its text, stripped; None where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def number_in(file: Path) -> int | None:
    """Its one number."""
    try:
        return int(text_of(file) or "")
    except ValueError:
        return None
