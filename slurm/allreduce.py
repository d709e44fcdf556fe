"""Every process gives its rank plus one; all must come to the same sum. Started by torchrun (see allreduce.slurm)."""

import os
import socket
import sys

import torch
import torch.distributed as dist

on_gpu = torch.cuda.is_available()
dist.init_process_group("nccl" if on_gpu else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
given = torch.full((1 << 18,), rank + 1.0, device=device)  # 1 MiB
dist.all_reduce(given)
wanted = world * (world + 1) / 2
right = bool((given == wanted).all())
print(f"rank {rank} of {world} on {socket.gethostname()}: sum {given[0].item():g}, wanted {wanted:g}", flush=True)
dist.destroy_process_group()
sys.exit(0 if right else 1)
