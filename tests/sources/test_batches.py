"""Batches: the same sentences in every cell, padded as told, and a hash that notices any change."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from distilbench.errors import StorageError
from distilbench.sources.batches import (
    Batch,
    Padding,
    batches_sha256,
    load_inputs,
    load_padding,
    make_batches,
    padding_share,
    sample_order,
    save_inputs,
    truncated_shares,
)

CLS, SEP, PAD = 101, 102, 0


def sentences(n: int, seed: int = 0, longest: int = 30) -> list[list[int]]:
    """n token lists of different lengths, [CLS] first and [SEP] last, no [PAD] within."""
    chance = random.Random(seed)
    return [[CLS, *(chance.randrange(1000, 2000) for _ in range(chance.randrange(longest))), SEP] for _ in range(n)]


def rows_of(made: list[Batch]) -> list[int]:
    return [int(row) for batch in made for row in batch.rows]


# ------------------------------------------------------------------ padding


def test_longest_pads_to_the_longest_of_each_batch():
    tokens = [[CLS, 7, SEP], [CLS, SEP], [CLS, 8, 9, SEP]]
    made = make_batches(tokens, 3, "longest", 3, seed=0)
    (batch,) = made
    for i, row in enumerate(batch.rows):
        n = len(tokens[row])
        assert batch.input_ids[i].tolist() == tokens[row] + [PAD] * (4 - n)
        assert batch.attention_mask[i].tolist() == [1] * n + [0] * (4 - n)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


def test_a_fixed_length_pads_and_cuts_and_a_cut_sentence_still_ends_with_sep():
    (batch,) = make_batches([[CLS, 7, SEP], [CLS, 1, 2, 3, 4, SEP]], 2, "fixed-4", 2, seed=0)
    by_row = {int(row): batch.input_ids[i].tolist() for i, row in enumerate(batch.rows)}
    assert by_row == {0: [CLS, 7, SEP, PAD], 1: [CLS, 1, 2, SEP]}


@pytest.mark.parametrize("policy", ["longest", "fixed-4", "fixed-16", "fixed-128"])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_what_holds_for_every_batch(policy, batch_size):
    for seed in range(5):
        tokens = sentences(13, seed)
        made = make_batches(tokens, batch_size, policy, 20, seed)
        for batch in made:
            limit = batch.input_ids.shape[1]
            assert batch.input_ids.shape == batch.attention_mask.shape == (len(batch.rows), limit)
            assert limit == (int(policy[6:]) if policy != "longest" else max(len(tokens[row]) for row in batch.rows))
            for ids, mask, row in zip(batch.input_ids, batch.attention_mask, batch.rows, strict=True):
                kept = min(limit, len(tokens[row]))
                assert mask.tolist() == [1] * kept + [0] * (limit - kept), "tokens first, then padding"
                assert ids[: kept - 1].tolist() == tokens[row][: kept - 1]
                assert ids[kept - 1] == SEP
                assert (ids[kept:] == PAD).all()


# ------------------------------------------------------------------ which sentences


def test_the_last_batch_is_smaller_when_the_size_does_not_divide():
    made = make_batches(sentences(10), 4, "longest", 10, seed=1)
    assert [len(batch.rows) for batch in made] == [4, 4, 2]


@pytest.mark.parametrize(("n", "cycle"), [(7, 7), (7, 20), (7, 3), (1, 5), (100, 64)])
def test_a_cycle_begins_again_when_the_sentences_are_too_few(n, cycle):
    order = sample_order(n, cycle, seed=17)
    assert len(order) == cycle
    assert sorted(order[:n]) == sorted(set(order[:n])), "each once before any comes twice"
    assert all(0 <= row < n for row in order)
    assert all(order[i] == order[i - n] for i in range(n, cycle))


def test_the_order_is_that_of_the_seed():
    assert sample_order(50, 50, 17) == sample_order(50, 50, 17) != sample_order(50, 50, 18)
    assert sorted(sample_order(50, 50, 17)) == list(range(50)) != sample_order(50, 50, 17), "shuffled"


def test_every_cell_goes_over_the_same_sentences_in_the_same_order():
    tokens = sentences(30)
    seen = {
        tuple(rows_of(make_batches(tokens, size, policy, 32, seed=17)))
        for size in (1, 2, 5, 32)
        for policy in ("longest", "fixed-8", "fixed-64")
    }
    assert len(seen) == 1


def test_the_order_does_not_change_between_versions():
    """Recorded runs name inputs by hash: a library that shuffles otherwise must not go unnoticed."""
    assert sample_order(10, 12, 17) == [7, 3, 0, 5, 1, 9, 2, 4, 6, 8, 7, 3]
    assert batches_sha256(make_batches([[CLS, 5, SEP], [CLS, SEP]], 2, "fixed-4", 3, 17)) == (
        "d2ffd88db6e659ffae8770a9938306fda1f7cf91e9041472a7cb59ccde3aeff9"
    )


# ------------------------------------------------------------------ the hash


def test_the_hash_is_that_of_the_content():
    assert batches_sha256(make_batches(sentences(9), 4, "longest", 9, 1)) == batches_sha256(
        make_batches(sentences(9), 4, "longest", 9, 1)
    )


def test_the_hash_changes_with_any_token_and_any_mask():
    made = make_batches(sentences(5, longest=4), 2, "longest", 5, seed=1)
    seen = {batches_sha256(made)}
    changes = 0
    for number, batch in enumerate(made):
        for name in ("input_ids", "attention_mask"):
            for place in np.ndindex(batch.input_ids.shape):
                other = getattr(batch, name).copy()
                other[place] ^= 1
                seen.add(batches_sha256([*made[:number], replace(batch, **{name: other}), *made[number + 1 :]]))
                changes += 1
    assert len(seen) == changes + 1


def test_the_hash_changes_with_order_shape_and_cut():
    tokens = sentences(8)
    made = make_batches(tokens, 4, "fixed-8", 8, 1)
    flat = [
        replace(b, input_ids=b.input_ids.reshape(8, -1), attention_mask=b.attention_mask.reshape(8, -1)) for b in made
    ]
    variants = [
        made,
        made[::-1],
        made[:1],
        flat,
        make_batches(tokens, 2, "fixed-8", 8, 1),
        make_batches(tokens, 4, "fixed-9", 8, 1),
        make_batches(tokens, 4, "fixed-8", 8, 2),
    ]
    assert len({batches_sha256(variant) for variant in variants}) == len(variants)


# ------------------------------------------------------------------ padding share


def test_the_share_of_padding_by_hand():
    """3 + 2 + 4 tokens in a batch of 3 x 4: 3 of 12 positions are padding."""
    tokens = [[CLS, 7, SEP], [CLS, SEP], [CLS, 8, 9, SEP]]
    assert padding_share(make_batches(tokens, 3, "longest", 3, seed=0)) == pytest.approx(3 / 12)
    assert padding_share(make_batches(tokens, 1, "longest", 3, seed=0)) == 0
    assert padding_share(make_batches(tokens, 3, "fixed-10", 3, seed=0)) == pytest.approx(21 / 30)


def test_padding_grows_with_batch_and_length():
    tokens = sentences(64)
    by_size = [padding_share(make_batches(tokens, size, "longest", 64, 0)) for size in (1, 4, 64)]
    by_length = [padding_share(make_batches(tokens, 8, f"fixed-{n}", 64, 0)) for n in (32, 64, 128)]
    assert by_size[0] == 0
    assert by_size == sorted(by_size)
    assert by_length == sorted(by_length)


# ------------------------------------------------------------------ what is cut


def test_the_shares_of_what_is_cut_by_hand():
    """Of 3, 2, 6 and 5 tokens 4 are kept at most: two of four sentences are cut, 3 of 16 tokens are lost."""
    tokens = [[CLS, *[7] * n, SEP] for n in (1, 0, 4, 3)]
    assert truncated_shares(tokens, "fixed-4", 4, seed=0) == (pytest.approx(2 / 4), pytest.approx(3 / 16))
    assert truncated_shares(tokens, "fixed-4", 16, seed=0) == (0.5, 3 / 16), "a sentence that comes again counts once"
    assert truncated_shares(tokens, "fixed-6", 4, seed=0) == (0, 0)
    assert truncated_shares(tokens, "longest", 4, seed=0) == (0, 0)


def test_only_the_sentences_of_the_cycle_count():
    tokens = [[CLS, SEP]] * 15 + [[CLS, *[7] * 30, SEP]]
    (first,) = sample_order(16, 1, seed=3)
    assert truncated_shares(tokens, "fixed-4", 1, seed=3)[0] == float(first == 15)
    assert truncated_shares(tokens, "fixed-4", 16, seed=3)[0] == 1 / 16


def test_what_is_said_to_be_cut_is_cut():
    """Against the batches: as many masks lack a token as sentences are said to be cut, also beyond BERT's positions."""
    tokens = [*sentences(30), [CLS, *[7] * 600, SEP]]
    for policy, most in (("fixed-8", 8), ("fixed-512", 512), ("longest", 512)):
        made = make_batches(tokens, 4, policy, 31, 0)
        kept = {
            row: int(mask.sum()) for batch in made for row, mask in zip(batch.rows, batch.attention_mask, strict=True)
        }
        cut = [row for row, n in kept.items() if n < len(tokens[row])]
        assert truncated_shares(tokens, policy, 31, 0)[0] == pytest.approx(len(cut) / 31)
        assert max(kept.values()) == most
        assert cut


# ------------------------------------------------------------------ the file


def test_inputs_are_loaded_as_they_were_saved(tmp_path):
    tokens, samples, labels = sentences(6), [f"sätz-{i}" for i in range(6)], [0, 1, 1, 0, 1, 0]
    save_inputs(tmp_path / "work" / "inputs.npz", tokens, samples, labels)
    assert load_inputs(tmp_path / "work" / "inputs.npz") == (tokens, samples, labels)
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["inputs.npz"]


def test_inputs_on_a_full_disk_are_a_clear_error_and_the_old_ones_stay(small_disk):
    file = small_disk.folder / "inputs.npz"
    old, new = sentences(2), sentences(500)
    save_inputs(file, old, ["a", "b"], [0, 1])
    with small_disk.full(room=2000), pytest.raises(StorageError, match="cannot write"):
        save_inputs(file, new, [str(i) for i in range(500)], [0] * 500)
    assert load_inputs(file)[0] == old


def test_a_decoder_is_padded_on_the_left_and_cut_where_no_token_closes_it():
    padding = Padding(pad=7, left=True, end_tokens=0)
    (batch,) = make_batches([[1, 2], [1, 2, 3, 4, 5]], 2, "fixed-4", 2, 0, padding)
    short, cut = batch.rows.tolist().index(0), batch.rows.tolist().index(1)
    assert batch.input_ids[[short, cut]].tolist() == [[7, 7, 1, 2], [1, 2, 3, 4]]
    assert batch.attention_mask[[short, cut]].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_the_padding_goes_with_the_inputs(tmp_path):
    file, padding = tmp_path / "inputs.npz", Padding(pad=151643, left=True, end_tokens=0)
    save_inputs(file, [[1]], ["a"], [0], padding)
    assert load_padding(file) == padding
    with np.load(file) as stored:
        np.savez(tmp_path / "early.npz", **{name: stored[name] for name in stored if name != "padding"})
    assert load_padding(tmp_path / "early.npz") == Padding(), "of a run that was begun before there were others"
