"""The sweep: every repetition of every cell in a fresh process, committed one by one, resumable at any point."""

from __future__ import annotations

import shutil
from typing import Any

from distilbench import data, paths, runs, summary
from distilbench.batches import load_inputs, make_batches, padding_share, save_inputs
from distilbench.bench import parts
from distilbench.bench.design import cells_of, plan
from distilbench.bench.repetitions import Prepared, measure_ceilings, measure_steps
from distilbench.device import parse, software
from distilbench.errors import DataError, Stopped
from distilbench.models import check_fit, load_model, load_tokenizer, match_labels
from distilbench.params import MIN_BATCHES, DistilbertParams, Resolved
from distilbench.records import FINAL, Cell


def prepare(params: DistilbertParams, run: runs.Run) -> Prepared:
    """Loads text, tokenizer and model once, checks that they fit, and records them in data.json and model.json.

    Raises:
        RunError: the run was begun with other text or another model; both hashes are named.
    """
    parse(params.device)
    texts, tokenizer = data.load_texts(params), load_tokenizer(params)
    manifest = data.manifest(texts, tokenizer)
    loaded = load_model(**params.model_arguments(len(tokenizer)) | {"device": "cpu"})
    fixed = [int(policy[6:]) for policy in params.length_policies if policy != "longest"]
    check_fit(loaded, tokenizer, max([*fixed, manifest["tokens"]["max"] if "longest" in params.length_policies else 0]))
    if params.model_source != "random":
        match_labels(loaded.info.label_names, texts.label_names)
    of_this_process = ("device", "attention", "load_s")  # each repetition has its own
    model = {key: value for key, value in vars(loaded.info).items() if key not in of_this_process}
    model["label_names"] = list(loaded.info.label_names)
    run.record_once("data.json", manifest, data.MANIFEST_HASHES)
    run.record_once("model.json", model, ("sha256",))
    run.add_to_environment("torch", software())
    work = run.folder / "work"
    token_ids = data.tokenise(tokenizer, texts.texts)
    _require_distinct(params, token_ids)
    save_inputs(work / "inputs.npz", token_ids, texts.samples, texts.labels)
    paths.write_json(work / "texts.json", texts.texts)
    tokenizer.save_pretrained(work / "tokenizer")
    names, files = list(texts.label_names), [str(work / name) for name in ("texts.json", "tokenizer")]
    prepared = Prepared(work / "inputs.npz", manifest, model, names, len(tokenizer), *files)
    prepared.save(run)
    return prepared


def _require_distinct(params: DistilbertParams, token_ids: list[list[int]]) -> None:
    """Refuses text so short that a cycle repeats itself: a cache could answer.

    Raises:
        DataError: a cell has fewer than 8 distinct batches.
    """
    for policy in params.length_policies:
        for size in params.batch_sizes:
            batches = make_batches(token_ids, size, policy, params.samples_per_cycle, params.seed)
            if (distinct := len({batch.input_ids.tobytes() for batch in batches})) < MIN_BATCHES:
                raise DataError(
                    f"{policy}, batch size {size}: a cycle has {distinct} distinct batches, {MIN_BATCHES} are needed "
                    f"so that no cache can answer; the text has {len(token_ids)} sentences: take more of it, or "
                    "smaller batches"
                )


def batch_table(params: DistilbertParams, prepared: Prepared) -> list[dict[str, Any]]:
    """Per length policy and batch size: batches per cycle, shapes, and the share of positions that is padding."""
    token_ids, _, _ = load_inputs(prepared.inputs)
    rows = []
    for policy in params.length_policies:
        for size in params.batch_sizes:
            batches = make_batches(token_ids, size, policy, params.samples_per_cycle, params.seed)
            lengths = [batch.input_ids.shape[1] for batch in batches]
            rows.append(
                {
                    "length_policy": policy,
                    "batch_size": size,
                    "batches": len(batches),
                    "tokens": f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)}–{max(lengths)}",
                    "padding": round(padding_share(batches), 3),
                }
            )
    return rows


def sweep(run: runs.Run, resolved: Resolved, prepared: Prepared | None = None) -> dict[str, Any]:
    """Measures what is missing in the run and derives summary.json; returns the summary.

    Ctrl-C ends the current repetition and leaves a run that can be resumed; a kill leaves one too. A run in parts is
    measured elsewhere: what its parts finished is gathered.

    Raises:
        RunError: another process works on the run, or its files are damaged.
        Stopped: the file that $DISTILBENCH_STOP_FILE names was there after a repetition.
    """
    with run.held():
        for message in run.recover():
            print(message, flush=True)
        try:
            if run.is_split:
                print(f"{parts.gather(run)} repetitions gathered from {len(parts.of(run, resolved))} parts", flush=True)
            else:
                _measure_missing(run, resolved, prepared or prepare(resolved.params, run))
        except KeyboardInterrupt:
            run.set_status("cancelled", f"interrupted; go on with: {run.go_on}")
            raise
        except Stopped as stopped:
            run.set_status("preempted", f"{stopped}; go on with: {run.go_on}")
            raise
        except Exception as error:
            run.set_status("failed", str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise
        return finish(run, resolved)


def _measure_missing(run: runs.Run, resolved: Resolved, prepared: Prepared) -> None:
    params = resolved.params
    best_only = "energy" in params.passes and params.energy_cells == "best"
    measure_ceilings(run, params)
    step = measure_steps(run, resolved, prepared, plan(resolved), run.repetitions(), extra=int(best_only))
    if best_only and (cell := _best_cell(run, params)):
        step(cell, "energy", 0)


def _best_cell(run: runs.Run, params: DistilbertParams) -> Cell | None:
    """The cell with the highest throughput, as the summary has it."""
    found = summary.best(summary.summarise(run.folder)["cells"])
    return next((cell for cell in cells_of(params) if found and cell.cell == found["cell"]), None)


def finish(run: runs.Run, resolved: Resolved) -> dict[str, Any]:
    """Derives summary.json, sets the states, clears the scratch files."""
    derived = summary.summarise(run.folder)
    paths.write_json(run.folder / "summary.json", derived)
    every = derived["cells"] + ([derived["control"]["cell"]] if derived["control"] else [])
    states = {cell["cell"]: cell["state"] for cell in every}
    if run.is_split:
        states |= parts.ends(run, resolved)
    bad = [f"{name} ({state})" for name, state in states.items() if state not in FINAL]
    run.set_status("failed" if bad else "ok", f"not measured: {', '.join(bad)}" if bad else "", states)
    if not bad:
        shutil.rmtree(run.folder / "work", ignore_errors=True)
    return derived
