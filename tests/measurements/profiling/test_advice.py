"""What is advised follows from measured shares, with figures that one can compute by hand."""

from __future__ import annotations

import pytest

from distilbench.measurements.profiling.show.advice import advice
from distilbench.measurements.profiling.summary.verdict import COMPUTE, MEMORY, OVERHEAD
from distilbench.report import defaults


def cell(size, bound, policy="fixed-32", **shares):
    return {"batch_size": size, "length_policy": policy, "dtype": "float32", "verdict": bound} | shares


def summary(*cells, **rates):
    return {"cells": list(cells), "ceilings": {"matrix_flops_per_s": {"float32": 100e9} | rates}}


def test_overhead_can_be_saved_and_no_more():
    one, four = cell(1, OVERHEAD, dispatch_share=0.75), cell(4, OVERHEAD, dispatch_share=0.5)
    (said,) = advice(summary(four, one))
    assert said.startswith(
        "Overhead-bound at fixed-32, batch sizes 4, 1. Dispatch takes 75% of a forward at batch size 1."
    )
    assert "at most 4 times as fast" in said


def test_memory_gains_by_narrower_values():
    (said,) = advice(summary(cell(8, MEMORY, memory_share=0.8, memory_ceiling_share=0.9)))
    assert "wait for memory take 80% of a forward at batch size 8, at 90% of the measured bandwidth" in said
    assert "half the bytes: at most 1.7 times as fast; int8 weights move a quarter: at most 2.5 times as fast" in said


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({}, "its ceiling was not measured here"),
        ({"bfloat16": 50e9}, "bfloat16 gains nothing: this machine multiplies 2 times slower in it"),
        ({"bfloat16": 400e9}, "bfloat16 has a ceiling 4 times as high: at most 2.5 times as fast"),
    ],
)
def test_arithmetic_gains_by_what_the_machine_was_measured_in(rates, says):
    (said,) = advice(summary(cell(32, COMPUTE, compute_share=0.8, compute_ceiling_share=0.5), **rates))
    assert "Matrix products take 80% of a forward at batch size 32, at 50% of the measured ceiling" in said
    assert "nearer to it: at most 1.7 times as fast. Half of the weights pruned" in said
    assert said.endswith(says + ".")


def test_what_is_at_the_ceiling_has_no_room():
    (said,) = advice(summary(cell(32, COMPUTE, compute_share=0.9, compute_ceiling_share=1.02)))
    assert "nothing is left there" in said


def test_each_bound_and_length_is_told_and_nothing_follows_from_nothing():
    lone = cell(2, None)
    long = cell(1, MEMORY, "fixed-128", memory_share=0.6, memory_ceiling_share=0.5)
    short = cell(1, MEMORY, memory_share=0.6, memory_ceiling_share=0.5)
    said = advice(summary(cell(1, OVERHEAD, dispatch_share=0.6), long, short, lone))
    assert [line.partition(".")[0] for line in said] == [
        "Overhead-bound at fixed-32, batch size 1",
        "Memory-bound at fixed-128, batch size 1; fixed-32, batch size 1",
    ]
    assert advice(summary(lone)) == []
    assert defaults.advice(summary(lone)) == []
