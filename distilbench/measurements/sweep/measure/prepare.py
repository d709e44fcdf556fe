"""What all cells of a run share: text, tokenizer and model, loaded once and checked before anything is measured."""

from __future__ import annotations

from typing import Any

from distilbench import paths
from distilbench.errors import DataError
from distilbench.machine.device import parse, software
from distilbench.measurements.sweep.measure.spec import Prepared
from distilbench.measurements.sweep.params import MIN_BATCHES, SweepParams
from distilbench.runs.folder import Run
from distilbench.sources import texts as sources_texts
from distilbench.sources.batches import cycle_samples, make_batches, most_tokens, save_inputs
from distilbench.sources.labels import MAPPINGS, mappings
from distilbench.sources.models import LoadedModel, check_fit, load_model, match_labels
from distilbench.sources.tokenizers import fits, load_tokenizer, padding_of


def load_all(params: SweepParams) -> tuple[sources_texts.TextSet, Any, dict[str, Any], LoadedModel]:
    """Loads text, tokenizer and model, and checks that they belong together.

    Returns:
        (text, tokenizer, the text's manifest, the model on the CPU).

    Raises:
        DataError, ModelError, HubError: one of them cannot be had, or their labels, ids or lengths do not fit.
    """
    texts, tokenizer = sources_texts.load_texts(params), load_tokenizer(params)
    manifest = sources_texts.manifest(texts, tokenizer)
    loaded = load_model(**params.model_arguments(**fits(tokenizer, texts.label_names)) | {"device": "cpu"})
    most = {policy: most_tokens(policy) for policy in params.length_policies}
    if "longest" in most:  # of these texts
        most["longest"] = min(manifest["tokens"]["max"], most["longest"])
    check_fit(loaded, tokenizer, max(most.values()))
    if params.model_source != "random":
        match_labels(loaded.info.label_names, texts.label_names)
    return texts, tokenizer, manifest, loaded


def prepare(params: SweepParams, run: Run) -> Prepared:
    """Loads text, tokenizer and model once, checked, and records them in data.json and model.json.

    Raises:
        RunError: the run was begun with other text or another model; both hashes are named.
    """
    parse(params.device)
    texts, tokenizer, manifest, loaded = load_all(params)
    of_this_process = ("device", "attention", "load_s")  # each repetition has its own
    model = {key: value for key, value in vars(loaded.info).items() if key not in of_this_process}
    model["label_names"] = list(loaded.info.label_names)
    run.record_once("data.json", manifest, sources_texts.MANIFEST_HASHES)
    run.record_once("model.json", model, ("sha256",))
    random_weights, names = params.model_source == "random", list(texts.label_names)
    of_model = None if random_weights else loaded.info.label_names
    paths.write_json(run.folder / MAPPINGS, mappings(of_model, names, texts.numbers))
    run.add_to_environment("torch", software())
    work = run.folder / "work"
    texts = texts.drawn(params.seed)
    token_ids = sources_texts.tokenise(tokenizer, texts.texts)
    _require_distinct(params, token_ids)
    padding = padding_of(tokenizer, loaded.family)
    save_inputs(work / "inputs.npz", token_ids, texts.samples, texts.labels, padding)
    paths.write_json(work / "texts.json", texts.texts)
    tokenizer.save_pretrained(work / "tokenizer")
    files = [str(work / name) for name in ("texts.json", "tokenizer")]
    prepared = Prepared(work / "inputs.npz", manifest, model, names, fits(tokenizer, names), *files)
    prepared.save(run)
    return prepared


def _require_distinct(params: SweepParams, token_ids: list[list[int]]) -> None:
    """Refuses text so short that a cycle repeats itself: a cache could answer.

    Raises:
        DataError: a cell has fewer than 8 distinct batches.
    """
    for policy in params.length_policies:
        for size in params.batch_sizes:
            samples = cycle_samples(params.samples_per_cycle, params.batches_per_cycle, size)
            batches = make_batches(token_ids, size, policy, samples, params.seed)
            if (distinct := len({batch.input_ids.tobytes() for batch in batches})) < MIN_BATCHES:
                raise DataError(
                    f"{policy}, batch size {size}: a cycle has {distinct} distinct batches, {MIN_BATCHES} are needed "
                    f"so that no cache can answer; the text has {len(token_ids)} sentences: take more of it, or "
                    "smaller batches"
                )
