"""The full profile on a tiny AG News of the real schema and a tiny encoder, both from a hub on the loopback."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_user import run
from loopback_hub import LoopbackHub

from distilbench import paths
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.training import checkpoint

MODEL, DATA = "distilbert/distilbert-base-uncased", "fancyzhx/ag_news"
LABELS = ("World", "Sports", "Business", "Sci/Tech")
ROWS = {"train": 100, "test": 20}
STUDY = """
from distilbench import studies
from distilbench.harness import steps
resolved = studies.resolve("agnews", {"profile": "full"} | GIVEN)
run = studies.start(resolved)
steps.measure_run(run, resolved)
answer = str(run.folder)
"""
FETCH = """
from distilbench import studies
from distilbench.sources import offline
params = studies.resolve("agnews", {"profile": "full"}).params
data, model = studies.kind_of("agnews").measuring.fetch(params)
offline.skip_downloads()
offline.require_cached(params)
answer = [data["name"], data["rows"], model.name]
"""
LACKING = """
from distilbench import studies
from distilbench.sources import offline
offline.skip_downloads()
offline.require_cached(studies.resolve("agnews", {"profile": "full"}).params)
answer = "all there"
"""


def encoder_files() -> dict[str, bytes]:
    """A pretrained encoder as the hub has it: of masked words, without a classifier."""
    import torch
    from safetensors.torch import save
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    tokenizer = json.loads((paths.repo_root() / "tests/data/tiny_tokenizer/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        n_layers=1,
        n_heads=2,
        dim=32,
        hidden_dim=32,
        architectures=["DistilBertForMaskedLM"],
    )
    torch.manual_seed(3)
    state = DistilBertForMaskedLM(config).state_dict()
    state.pop("vocab_projector.weight", None)  # tied, and safetensors keeps a tensor once
    return {
        "config.json": config.to_json_string().encode(),
        "model.safetensors": save({k: v.clone() for k, v in state.items()}, metadata={"format": "pt"}),
        "tokenizer_config.json": b'{"do_lower_case": true, "model_max_length": 512}',
        "vocab.txt": "".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.get)).encode(),
    }


def news_files() -> dict[str, bytes]:
    """Text, and a numbered label whose names the card has; as the real data set is laid out."""
    features = [
        {"name": "text", "dtype": "string"},
        {"name": "label", "dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(LABELS)}}}},
    ]
    card = {
        "dataset_info": {"features": features},
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in ROWS],
            }
        ],
    }
    files, draw = (
        {"README.md": f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# AG News\n".encode()},
        random.Random(4),
    )
    words = ["film", "story", "music", "scenes", "warm", "dull", "clever", "bright", "moving", "hollow"]
    for split, count in ROWS.items():
        texts = [f"{' '.join(draw.sample(words, 5))} {split} {number}" for number in range(count)]
        table = pa.table({"text": texts, "label": pa.array([i % 4 for i in range(count)], pa.int64())})
        pq.write_table(table, buffer := io.BytesIO())
        files[f"data/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict, Path]:
    """What the steps of a user answer: what is lacking before, a fetch, and the study."""
    home = tmp_path_factory.mktemp("news")
    given = {
        "processes": [1, 2], "scalings": ["strong"], "repetitions": 1, "warmup_steps": 1, "timed_steps": 2,
        "loop_blocks": 0, "batch_size": 8, "epochs": 2, "num_threads": 2, "max_length": 32, "validation_share": 0.2,
        "results_root": str(home / "results"),
    }  # fmt: skip
    with LoopbackHub() as hub:
        hub.push("models", MODEL, encoder_files(), "main")
        hub.push("datasets", DATA, news_files(), "main")
        steps = {"fetched": FETCH, "study": f"GIVEN = {given!r}\n{STUDY}"}  # after the fetch nothing is downloaded
        before = run(hub.url, home, before=LACKING)
        return before | run(hub.url, home, {"DISTILBENCH_CHECKPOINTS": str(home / "checkpoints")}, **steps), home


def test_what_the_caches_lack_is_named_and_a_fetch_brings_it(trained):
    answers, _ = trained
    assert answers["before"]["error"] == "HubError"
    assert MODEL in answers["before"]["message"]
    name, rows, model = answers["fetched"]
    assert name.startswith(DATA)
    assert (rows, model) == (sum(ROWS.values()), MODEL)


def test_the_study_runs_on_one_process_and_on_two(trained):
    found = Run(Path(trained[0]["study"]))
    found.require_ok()
    assert verify.problems(found.folder) == []
    splits = found.data["splits"]
    assert splits["test"]["labels"] == dict.fromkeys(LABELS, 5)
    assert splits["train"]["rows"] + splits["validation"]["rows"] == ROWS["train"]
    assert (found.model["name"], found.model["source"]) == (MODEL, "hub")
    assert all(cell["test_rows"] == ROWS["test"] for cell in found.summary["cells"])


def test_only_this_checkpoint_is_called_that_of_ag_news(trained):
    answers, home = trained
    run_ = Run(Path(answers["study"]))
    file = home / "checkpoints" / "distilbert_agnews.pt"
    assert file.read_bytes() == (run_.folder / "checkpoints" / "p1-b8" / "distilbert_agnews.pt").read_bytes()
    assert checkpoint.load(file)["label_names"] == list(LABELS)
    assert (home / "checkpoints" / "distilbert_agnews" / "tokenizer_config.json").is_file()
