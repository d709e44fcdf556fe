"""One projection in two factors per group, and how they are found.

A projection W (n_kv d x h) is cut into G groups of g = s d rows. The keys (or values) of a group are k = W_g x. Of
all matrices of rank r, the one that loses least of k over the calibration's x is U U^T W_g, where U (g x r) has the
leading eigenvectors of M_g = sum k k^T as columns (uncentred principal components). That is what PaLU and SVD-LLM
reach by a Cholesky factor of sum x x^T and a singular value decomposition (PaLU, arXiv:2407.21118; SVD-LLM,
arXiv:2403.07378), with no inverse and a matrix of g x g alone. What is lost is the sum of the eigenvalues that are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Factors:
    """The two factors of a projection.

    Attributes:
        down: (sum of ranks, h): U^T W_g of all groups, one below the other.
        up: one (g, r) per group, with orthonormal columns.
        energy: for each group, what of the calibration's squared keys or values is kept, 0 to 1.
    """

    down: torch.Tensor
    up: tuple[torch.Tensor, ...]
    energy: tuple[float, ...]


def principal(weight: torch.Tensor, moments: torch.Tensor, ranks: Sequence[int]) -> Factors:
    """The factors that lose least over a calibration.

    Args:
        weight: (G x g, h).
        moments: float64 (G, g, g), sums of k k^T over the calibration's tokens (`calibration.moments`).
        ranks: one per group.
    """
    down, up, energy = [], [], []
    for rows, moment, rank in zip(weight.chunk(len(ranks)), moments, ranks, strict=True):
        values, vectors = torch.linalg.eigh(moment)  # in rising order
        basis = vectors[:, -rank:].flip(1)  # (g, r): the latent's first dimensions have most of the energy
        down.append(basis.T @ rows.double())
        up.append(basis)
        energy.append(_share(values.clamp(min=0), rank))
    return _as_stored(down, up, energy, weight)


def plain(weight: torch.Tensor, moments: torch.Tensor, ranks: Sequence[int]) -> Factors:
    """The factors that lose least of the weights themselves, whatever is fed in: the singular value decomposition.

    What it is compared with: `principal` loses no more of keys and values. Arguments are the same; moments only give
    the energy.
    """
    down, up, energy = [], [], []
    for rows, moment, rank in zip(weight.chunk(len(ranks)), moments, ranks, strict=True):
        basis = torch.linalg.svd(rows.double(), full_matrices=False).U[:, :rank]
        down.append(basis.T @ rows.double())
        up.append(basis)
        total = moment.trace()
        energy.append(float((basis.T @ moment @ basis).trace() / total) if total > 0 else 1.0)
    return _as_stored(down, up, energy, weight)


def _share(values: torch.Tensor, rank: int) -> float:
    total = values.sum()
    return float(values[-rank:].sum() / total) if total > 0 else 1.0


def _as_stored(down, up, energy, weight: torch.Tensor) -> Factors:
    return Factors(torch.cat(down).to(weight), tuple(basis.to(weight) for basis in up), tuple(energy))


class LowRankProjection(nn.Module):
    """A projection in two factors; names of its tensors are those of the public format (`VT.weight`, `U.0.weight`).

    Attributes:
        VT: hidden states (..., h) -> latents of all groups, (..., sum of ranks). This is what is cached.
        U: for each group, latent (..., r) -> rows (..., g). A bias of the projection is added here, so that no latent
            has to hold it.
        ranks: of the groups.
    """

    def __init__(self, hidden: int, group_width: int, ranks: Sequence[int], bias: bool) -> None:
        super().__init__()
        self.ranks = tuple(ranks)
        self.VT = nn.Linear(hidden, sum(ranks), bias=False)
        self.U = nn.ModuleList(nn.Linear(rank, group_width, bias=bias) for rank in ranks)

    @classmethod
    def of(cls, original: nn.Linear, factors: Factors) -> LowRankProjection:
        """The compressed form of a projection, in its dtype and on its device."""
        ranks, has_bias = [basis.shape[1] for basis in factors.up], original.bias is not None
        with torch.device("meta"):
            made = cls(original.in_features, original.out_features // len(ranks), ranks, has_bias)
        tensors = {"VT.weight": factors.down}
        tensors |= {f"U.{group}.weight": basis.contiguous() for group, basis in enumerate(factors.up)}
        if has_bias:
            parts = original.bias.detach().chunk(len(ranks))
            tensors |= {f"U.{group}.bias": part.clone() for group, part in enumerate(parts)}
        made.load_state_dict(tensors, assign=True)
        return made.requires_grad_(False)

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, sum of ranks) of hidden states (B, T, h)."""
        return self.VT(x)

    def rebuild(self, latents: torch.Tensor) -> torch.Tensor:
        """Keys (before their rotation) or values, (B, T, n_kv x d), of latents (B, T, sum of ranks)."""
        if len(self.U) == 1:  # a step of decoding is short: each copy shows
            return self.U[0](latents)
        parts = latents.split(self.ranks, dim=-1)
        return torch.cat([up(part) for up, part in zip(self.U, parts, strict=True)], dim=-1)
