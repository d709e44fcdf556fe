"""The loop that anybody would write, as a process: one model, the same batches, a clock around each forward.

    python plain_loop.py JOB.json

It writes the median in ms on stdout, and uses nothing of the measuring code.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

import torch

from distilbench.sources.batches import load_inputs, make_batches
from distilbench.sources.models import load_model


def main(job: dict) -> None:
    token_ids, _, _ = load_inputs(Path(job["inputs"]))
    batches = make_batches(token_ids, job["batch"], job["policy"], job["samples"], job["seed"])
    pairs = [(torch.from_numpy(b.input_ids), torch.from_numpy(b.attention_mask)) for b in batches]
    torch.set_num_threads(job["threads"])
    model = load_model(**job["model"])
    for pair in pairs:  # as long a warm-up as the isolated one
        model.forward(*pair)
    times = []
    for pair in pairs:
        start = time.perf_counter()
        model.forward(*pair)
        times.append((time.perf_counter() - start) * 1e3)
    print(median(times))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
