"""The tokenizer of a model or a text. No torch: who only reads and counts the text does without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import adapters, embedded, families, hub
from distilbench.sources.batches import Padding, most_tokens
from distilbench.sources.families import Family
from distilbench.sources.parameters import SourceParams


def load_tokenizer(params: SourceParams) -> Any:
    """The fast tokenizer that belongs to the model; for random weights the one that belongs to the text."""
    if params.tokenizer_path:
        folder = paths.find_input(params.tokenizer_path)
    elif params.model_source == "local":
        folder = paths.find_input(params.model_path)
    elif "hub" in (params.model_source, params.data_source) and params.model_source != "embedded":
        folder, _ = hub.fetch_model(params.model_name, params.model_revision)
    else:
        folder = embedded.tokenizer_dir()
    folder = adapters.tokenizer_folder(folder)
    if not adapters.has_tokenizer(folder):
        raise ModelError(f"{folder} holds no tokenizer (tokenizer.json or vocab.txt)")
    try:
        return families.of_tokenizer(folder).tokenizer_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no tokenizer (tokenizer.json or vocab.txt): {error}") from error


def encoder(folder: Path, length_policy: str) -> Callable[[list[str]], Any]:
    """What turns sentences into padded token ids on the host, as a caller would: the tokenizer in one batched call.

    Args:
        folder: of a saved fast tokenizer.
        length_policy: fixed-N or longest, as in `batches.make_batches`.

    Returns:
        A function: sentences -> {input_ids, attention_mask}, int64 (batch, length).
    """
    family = families.of_tokenizer(folder)
    tokenizer = family.tokenizer_class.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left" if family.pads_left else "right"
    padding = "longest" if length_policy == "longest" else "max_length"
    how: dict[str, Any] = {"padding": padding, "max_length": most_tokens(length_policy)}
    return lambda sentences: tokenizer(sentences, truncation=True, return_tensors="pt", **how)


def padding_of(tokenizer: Any, family: Family) -> Padding:
    """How sequences of this model are filled up and cut.

    Raises:
        ModelError: the tokenizer names no token for padding.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError("the tokenizer has no pad_token: name one in its tokenizer_config.json")
    return Padding(tokenizer.pad_token_id, family.pads_left, _end_tokens(tokenizer))


def _end_tokens(tokenizer: Any) -> int:
    """Special tokens that it puts at the end of a sequence, such as [SEP]; a sequence that is cut keeps them."""
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    before = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return len(whole) - before - len(bare)


def fits(tokenizer: Any, label_names: Sequence[str]) -> dict[str, int]:
    """What tokenizer and text ask of a model, as `models.load_model` takes it.

    Returns:
        `vocab_size`: rows that the tokenizer needs, and `labels`: classes of the text, both for random weights; `pad`:
        the id that fills up batches, where there is one.
    """
    asked = {"vocab_size": table_rows(tokenizer), "labels": len(label_names)}
    return asked | ({} if tokenizer.pad_token_id is None else {"pad": tokenizer.pad_token_id})


def table_rows(tokenizer: Any) -> int:
    """Rows that an embedding table needs for the tokenizer: one more than its highest id."""
    return 1 + max(tokenizer.get_vocab().values())


def of_bytes() -> Any:
    """A tokenizer whose 256 tokens are bytes: for random weights, which know no other. Like theirs, its end is 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=alphabet[2])
