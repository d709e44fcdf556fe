"""Typed results: a digit in a chapter that is neither taken from a run, nor quoted with a source, nor a name."""

from __future__ import annotations

import re

TAKEN = re.compile(r"\{glue:text\}`[\w./-]+::[\w.-]+:[^`]+`|\{quoted\}`[^`<]+<[\w:.-]+>`")
REFERENCES = re.compile(
    r"\{(?:doc|ref|numref|term|cite:[pt]|eq)\}`[^`]+`|\]\([^)]*\)|^\([\w-]+\)=$|^:(?:name|class|header-rows):.*$",
    re.MULTILINE,
)
COMMANDS = re.compile(r"^```bash\n.*?^```$", re.MULTILINE | re.DOTALL)  # their comments are prose
IN_WORDS = re.compile(
    r"\b(?:twice|thrice|(?:two|three|four|five|six|ten|hundred)\s+times|doubles?|halves|per\s?cent)\b", re.IGNORECASE
)
ALLOWED = re.compile(
    r"""\b(?:
        \d{4}-\d{2}-\d{2}                                                          # dates
      | SST-2 | Apache-2\.0 | all-MiniLM-L6-v2 | Qwen2\.5-0\.5B | Llama-3-8B       # names
      | SmolLM2(?:-135M)?
      | 0[123]_[a-z]+ | USR1 | EPYC\ 7643 | A100(?:\ 80\ GB)? | SHA-256 | UTF-8 | F1
      | (?:torch|transformers|Python|CUDA|Jupyter\ Book|SLURM)\ \d+(?:\.\d+)*      # versions
      | (?:fixed-|batch_size=)\d+ | 95\ %\ interval                                # parameters
    )(?![\w.]*\d)""",
    re.VERBOSE,
)


def typed_results(text: str) -> list[str]:
    """The lines of a chapter with a digit, or a ratio in words, that is neither taken from somewhere nor allowed.

    Args:
        text: MyST Markdown.

    Returns:
        `number: line` for each.
    """
    text = COMMANDS.sub(_comments, text)
    for pattern in (TAKEN, REFERENCES, ALLOWED):
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    lines = enumerate(text.splitlines(), 1)
    return [f"{number}: {line}" for number, line in lines if re.search(r"\d", line) or IN_WORDS.search(line)]


def _comments(block: re.Match) -> str:
    """What a block of commands says beside the commands."""
    return "\n".join(line.partition("#")[2] for line in block[0].splitlines())
