"""The conditions that repetitions of one run must share, and which other code is declared to measure alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from distilbench.machine.environment import NO_CONDITION, VARIABLES_OF_GPUS

#: Says of the measuring code (`code.MEASURING`) which earlier versions of it measure alike, and is no part of it.
ALIKE = Path(__file__).with_name("measures_alike.yml")
MALLOC = ("MALLOC_", "GLIBC_TUNABLES")
#: Keys that do not matter to work on a CPU: SLURM shows another GPU to each job.
OF_GPUS = ("driver", "visible GPUs", "gpus", "GPU variables")


def key_of(env: dict[str, Any]) -> dict[str, Any]:
    """The part of an environment that repetitions of one run must share; without what an early env.json lacks."""
    names = ("distilbench", "torch", "transformers", "tokenizers", "numpy")
    key = {
        "host": ", ".join(env.get("nodes", [])) or env["host"]["name"],
        "cpu": env["cpu"]["model"],
        "usable cores": len(env["cpu"]["affinity"]),
        "CPU quota": env["cgroup"].get("cpu.max"),
        "visible GPUs": env.get("visible_gpus"),
        "driver": next((gpu.get("driver") for gpu in env["gpus"]), None),
        "gpus": [gpu["name"] for gpu in env["gpus"]],
        "code": env.get("measuring_sha256") or env.get("code_sha256"),
        "python": env["python"]["version"],
        **{name: env["packages"].get(name) for name in names},
    }
    recorded = env["variables"] if "variables" in env else env["threads"]  # null there where it was not set
    key["malloc"] = {name: value for name, value in recorded.items() if name.startswith(MALLOC) and value}
    if "variables" in env:
        others = {name: value for name, value in recorded.items() if not name.startswith((*MALLOC, *NO_CONDITION))}
        key["GPU variables"] = {name: others.pop(name) for name in recorded if name.startswith(VARIABLES_OF_GPUS)}
        key |= {"variables": others, "preloaded": env["preloaded"]}
    if "tuning" in env:
        key |= {"governor": env["tuning"]["governor"], "turbo": env["tuning"]["turbo"], "container": env["container"]}
    return key


def machine_of(env: dict[str, Any], device: str) -> str:
    """The kind of machine, in words: its GPUs, or the CPU and how many cores of it can be used."""
    if device != "cpu":
        return ", ".join(sorted({gpu["name"] for gpu in env["gpus"]})) or "no GPU"
    return f"{env['cpu']['model']}, {len(env['cpu']['affinity'])} cores"


def left_out_on(device: str) -> tuple[str, ...]:
    """The conditions that say nothing of work on that device."""
    return OF_GPUS if device == "cpu" else ()


def differences(there: dict[str, Any], here: dict[str, Any], left_out: Iterable[str] = ()) -> list[str]:
    """The conditions of a run that do not hold here; code that is declared to measure alike holds.

    The version of the package says nothing then that the hash of its measuring code does not say better.

    Args:
        there, here: as `key_of` gives them.
        left_out: conditions that do not count.
    """
    alike = ("code", "distilbench") if why_alike(there.get("code"), here["code"]) else ()
    names = [name for name in here if name not in (*left_out, *alike) and there.get(name) != here[name]]
    return [f"{name}: {there.get(name)!r} there, {here[name]!r} here" for name in names]


def why_alike(begun: str | None, code: str) -> str | None:
    """Why two versions of the measuring code, by hash, measure alike; None: nobody declares it."""
    declared = yaml.safe_load(ALIKE.read_text(encoding="utf-8"))
    if declared["measuring_sha256"] != code:  # written for other code: it says nothing of this one
        return None
    return next((one["why"] for one in declared["alike"] if one["measuring_sha256"] == begun), None)
