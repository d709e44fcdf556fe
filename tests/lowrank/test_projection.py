"""Factors: they lose what they must, and no more than any other factors of that rank."""

from __future__ import annotations

import pytest
import torch

from distilbench.lowrank.projection import LowRankProjection, plain, principal

GROUPS, WIDTH, HIDDEN = 2, 12, 20


@pytest.fixture
def weight():
    torch.manual_seed(1)
    return torch.randn(GROUPS * WIDTH, HIDDEN, dtype=torch.float64)


@pytest.fixture
def inputs():
    """Hidden states with directions of very different size, as real ones have."""
    torch.manual_seed(2)
    mixing = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, dtype=torch.float64)).Q
    return torch.randn(500, HIDDEN, dtype=torch.float64) * torch.logspace(1, -2, HIDDEN, dtype=torch.float64) @ mixing


def moments_of(weight, inputs):
    outputs = (inputs @ weight.T).unflatten(-1, (GROUPS, WIDTH)).transpose(0, 1)
    return outputs.transpose(1, 2) @ outputs


def lost(weight, inputs, factors):
    """Squared error of each group's outputs."""
    latents = (inputs @ factors.down.T).split([basis.shape[1] for basis in factors.up], dim=-1)
    rebuilt = torch.cat([part @ basis.T for part, basis in zip(latents, factors.up, strict=True)], dim=-1)
    return ((inputs @ weight.T - rebuilt) ** 2).unflatten(-1, (GROUPS, WIDTH)).sum((0, 2))


def test_what_is_lost_is_the_sum_of_the_eigenvalues_left_out(weight, inputs):
    moments, ranks = moments_of(weight, inputs), (5, 8)
    factors = principal(weight, moments, ranks)
    for group, error in enumerate(lost(weight, inputs, factors)):
        values = torch.linalg.eigvalsh(moments[group])
        assert float(error) == pytest.approx(float(values[: -ranks[group]].sum()), rel=1e-6)
        assert factors.energy[group] == pytest.approx(1 - float(error / values.sum()), abs=1e-12)


@pytest.mark.parametrize("rank", [1, 4, 8, 11])
def test_principal_components_lose_less_than_a_decomposition_of_the_weights(weight, inputs, rank):
    moments = moments_of(weight, inputs)
    ours, theirs = (find(weight, moments, (rank, rank)) for find in (principal, plain))
    assert (lost(weight, inputs, ours) < lost(weight, inputs, theirs)).all()
    kept = 1 - lost(weight, inputs, theirs) / moments.diagonal(dim1=1, dim2=2).sum(1)
    assert theirs.energy == pytest.approx(kept.tolist(), abs=1e-9)


@pytest.mark.parametrize("find", [principal, plain])
def test_full_rank_loses_nothing(weight, inputs, find):
    factors = find(weight, moments_of(weight, inputs), (WIDTH, WIDTH))
    assert float(lost(weight, inputs, factors).max()) < 1e-15
    assert factors.energy == pytest.approx((1, 1))


def test_a_calibration_that_saw_few_directions_is_no_obstacle(weight, inputs):
    few = inputs[:3]
    factors = principal(weight, moments_of(weight, few), (3, 3))
    assert float(lost(weight, few, factors).max()) < 1e-15


def test_a_text_that_gives_nothing_is_kept_whole(weight):
    assert principal(weight, torch.zeros(GROUPS, WIDTH, WIDTH, dtype=torch.float64), (2, 2)).energy == (1.0, 1.0)


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_in_two_factors_is_the_projection(inputs, bias):
    torch.manual_seed(3)
    original = torch.nn.Linear(HIDDEN, GROUPS * WIDTH, bias=bias).double()
    moments = moments_of(original.weight.detach(), inputs)
    whole = LowRankProjection.of(original, principal(original.weight.detach(), moments, (WIDTH, WIDTH)))
    assert torch.allclose(whole.rebuild(whole.latents(inputs[None])), original(inputs[None]), atol=1e-10)
    assert whole.latents(inputs[None]).shape == (1, 500, 2 * WIDTH)
    ragged = LowRankProjection.of(original, principal(original.weight.detach(), moments, (3, 7)))
    assert {name: tuple(tensor.shape) for name, tensor in ragged.state_dict().items() if "weight" in name} == {
        "VT.weight": (10, HIDDEN), "U.0.weight": (WIDTH, 3), "U.1.weight": (WIDTH, 7),
    }  # fmt: skip
    assert not any(tensor.requires_grad for tensor in ragged.parameters())
