"""Says which torch build an installation will fetch and how large it is, before it is fetched. Standard library only.

python scripts/announce_torch.py PYTHON [--index-url URL]
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse


def size_mb(url: str) -> float | None:
    """Size of a file that pip would fetch, in MB; None where the server does not say."""
    if url.startswith("file:"):
        return Path(unquote(urlparse(url).path)).stat().st_size / 1e6
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as answer:
            return int(answer.headers["Content-Length"]) / 1e6
    except (OSError, TypeError, ValueError):
        return None


def plan(python: str, options: list[str]) -> list[dict]:
    """What pip would install for torch and what it depends on."""
    command = [python, "-P", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["--disable-pip-version-check", "-c", "constraints.txt", *options, "torch"]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", errors="replace")
    return json.loads(done.stdout)["install"]


def main() -> None:
    """Prints one line; an index that cannot be asked is said, and the installation itself will tell more."""
    try:
        packages = plan(sys.argv[1], sys.argv[2:])
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        print(f"torch: pip cannot say what it would fetch ({error})")
        return
    torch = next(p for p in packages if p["metadata"]["name"] == "torch")
    cuda = [p for p in packages if p["metadata"]["name"].startswith(("nvidia", "cuda", "triton"))]
    sizes = [size_mb(p["download_info"]["url"]) for p in [torch, *cuda]]
    total = f"{sum(s for s in sizes if s):.0f} MB" + (" or more" if None in sizes else "")
    file = unquote(torch["download_info"]["url"].rpartition("/")[2])
    kind = f"CUDA build with {len(cuda)} CUDA packages" if cuda else "CPU build"
    print(f"torch: {file}, {kind}, {total} to fetch unless cached")


if __name__ == "__main__":
    main()
