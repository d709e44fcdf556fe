"""A user of a hub: steps in a fresh process, since the hub's clients read their settings when they are imported."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import waiting

STEP = """
try:
{code}
except DistilbenchError as error:
    answer = {{"error": type(error).__name__, "message": str(error)}}
answers[{name!r}] = answer
"""
START = """
import json
from distilbench.errors import DistilbenchError
from distilbench.sources import hub
hub.RETRY_DELAYS_S = (0.1, 0.1)
answers = {}
"""


def run(url: str, home: Path, environment: dict[str, str] | None = None, **steps: str) -> dict[str, Any]:
    """Runs the steps in order in a fresh process (the clients read their settings when imported).

    Args:
        url: of the hub.
        home: holds the caches and the lock.
        environment: further variables.
        steps: by name, code that sets `answer`.

    Returns:
        By name of the step its answer; for an error that people are meant to read, its type and message.
    """
    inherited = {k: v for k, v in os.environ.items() if not re.match("HF_|HUGGING|TRANSFORMERS_|.*_proxy$", k, re.I)}
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hf"),
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # `datasets` would tell a server elsewhere
        "NO_PROXY": "127.0.0.1",
        "DISTILBENCH_CACHE": str(home / "cache"),
        "DISTILBENCH_REVISIONS_LOCK": str(home / "revisions.lock"),
    }
    code = START + "".join(STEP.format(name=n, code=textwrap.indent(c, "    ")) for n, c in steps.items())
    command = [sys.executable, "-c", code + "print(json.dumps(answers))"]
    done = waiting.run(command, env=inherited | own | (environment or {}))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
