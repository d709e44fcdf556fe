"""Several small trainings and evaluations under one torchrun, whose start takes longer than they do.

python -m torch.distributed.run … tests/training_driver.py JOBS RESULTS: a JSON file of what to train, and one for what
came of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from distilbench import paths
from distilbench.runs.parameters import resolve
from distilbench.training.__main__ import train
from distilbench.training.params import TrainingParams
from distilbench.training.ranks import joined


def main() -> None:
    jobs, found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), {}
    with joined("cpu", 45.0) as here:
        for name, job in jobs.items():
            params = resolve(TrainingParams, "agnews", job["params"], with_file=False).params
            results = train(params, Path(job["folder"]), {"run_id": name}, here)
            here.wait()
            found[name] = results
        if here.is_first:
            paths.write_json(Path(sys.argv[2]), found)


if __name__ == "__main__":
    main()
