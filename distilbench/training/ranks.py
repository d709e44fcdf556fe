"""The processes that train together: who they are, how they meet, and how they end.

The same calls work in a single process, where there is nobody to wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from distilbench.errors import DeviceError
from distilbench.machine.device import available, select

#: What torch says in a process that waits for one that has ended.
OTHERS = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "timed out", "Broken pipe")
PREPARING_S = 3600.0  # others wait so long while the first one fetches and tokenises


def says_another_ended(error: str) -> bool:
    """Whether an error follows from another process's end, which is the one to tell of."""
    return any(sign in error for sign in OTHERS)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train.

    Attributes:
        rank, world: its number, and how many there are.
        local_rank, local_world: the same on this machine.
        device: where it computes.
        backend: nccl, gloo, or none in a single process.
        messages: a gloo group for what is not gradients; None in a single process.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: torch.device
    backend: str
    messages: Any = None

    @property
    def is_first(self) -> bool:
        """Whether it is the one that logs and saves."""
        return self.rank == 0

    def wait_for_preparation(self) -> None:
        """Until all are here; the first one may take long."""
        if self.world > 1:
            dist.monitored_barrier(self.messages, timeout=timedelta(seconds=PREPARING_S))

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier(group=self.messages)

    def add(self, *values: float) -> list[float]:
        """The sum of each value over all processes, in float64: counts stay exact."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(total, group=self.messages)
        return total.tolist()

    def gather(self, thing: Any) -> list[Any] | None:
        """What each process gives, in order of rank, for the first one; None for the others."""
        if self.world == 1:
            return [thing]
        found = [None] * self.world if self.is_first else None
        dist.gather_object(thing, found, dst=0, group=self.messages)
        return found

    def told(self, thing: Any) -> Any:
        """What the first process gives."""
        if self.world == 1:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, src=0, group=self.messages)
        return box[0]


@contextmanager
def joined(device: str, timeout_s: float) -> Iterator[Ranks]:
    """This process's place, as torchrun says it; alone where torchrun started nothing. Leaves the group at the end.

    Args:
        device: cpu, or cuda: then each process takes the GPU of its local rank.
        timeout_s: most that one waits for another.

    Raises:
        DeviceError: there are fewer GPUs here than processes.
    """
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    local, locals_ = (
        int(os.environ.get(f"LOCAL_{name}", default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    place = select(_device_of(device, local, locals_))
    if "RANK" not in os.environ:
        yield Ranks(0, 1, 0, 1, place, "none")
        return
    backend, timeout = "nccl" if place.type == "cuda" else "gloo", timedelta(seconds=timeout_s)
    store = _store(rank, world, world == locals_, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    try:
        # gradients go over NCCL, which knows no objects; what is said besides goes over gloo, and no GPU waits for it
        messages = dist.new_group(backend="gloo", timeout=timeout)
        yield Ranks(rank, world, local, locals_, place, backend, messages)
    finally:
        dist.destroy_process_group()


def _store(rank: int, world: int, is_one_machine: bool, timeout: timedelta) -> dist.Store:
    """Where the processes leave their addresses.

    torchrun keeps one store for all of its attempts (torch 2.13), in which a process that was started again finds the
    addresses of killed ones, and waits for them. On one machine all processes know the number of the attempt. On
    several each torchrun counts for itself: there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes a store per attempt.
    """
    store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"attempt {attempt}", store) if is_one_machine else store


def _device_of(device: str, local_rank: int, local_world: int) -> str:
    """Where a process computes."""
    if device == "cpu" or local_world == 1:
        return device
    gpus = [name for name in available() if name != "cpu"]
    if local_world > len(gpus):
        raise DeviceError(
            f"{local_world} processes were started on this machine, and each needs a GPU of its own: there "
            f"{'is' if len(gpus) == 1 else 'are'} {len(gpus)}. Give torchrun --nproc-per-node={max(1, len(gpus))}, or "
            "train on the CPU (--device cpu)"
        )
    return gpus[local_rank]
