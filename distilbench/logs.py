"""Log lines: coloured in a terminal, plain elsewhere, JSON on request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

log = logging.getLogger("distilbench")


def _time(record: logging.LogRecord) -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, and what the call gave as `extra={"fields": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        return json.dumps(
            {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage(), **fields}
        )


def setup(log_format: Literal["text", "json"], stream=None) -> None:
    """Sends distilbench's log to stderr (or `stream`) in the chosen form."""
    stream = stream or sys.stderr
    if log_format == "text" and stream.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
