"""The symmetry equations μ = 𝒢μ and Σ = 𝒢Σ𝒢ᵀ of an ensemble, exact or as far as a sample can tell, and the
equivariance of an update rule, from which they follow (Bernacchia, ICML 2025, Theorem 2.2, Corollary 2.3, Lemma 2.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.symmetry import group
from icm.symmetry.commutant import generators
from icm.symmetry.ensembles import Data
from icm.symmetry.network import Network
from icm.symmetry.updates import Rule, train


class Departure(NamedTuple):
    """How far moments are from invariant, relative to their size; 0 where the equations hold."""

    mean: float
    covariance: float


class Scores(NamedTuple):
    """z-scores of the equations for the mean and for the second moments, (k,) each."""

    mean: Tensor
    second: Tensor


def departure(samples: Sequence[Tensor], network: Network) -> Departure:
    """max over generators 𝒢 of ‖μ − 𝒢μ‖/(E‖v‖²)^{1/2} and ‖Σ − 𝒢Σ𝒢ᵀ‖_F/‖Σ‖_F, μ and Σ the mean and covariance of
    vectors v given as tensors (N, *shape), gradients or parameters. For small networks: Σ is (p, p)."""
    mean, Sigma, size = moments(samples, network)
    worst = [(0.0, 0.0)]
    for P in generators(network):
        P = P.to(Sigma)
        off, moved = (mean - P @ mean).norm() / size, (Sigma - P @ Sigma @ P.mT).norm() / Sigma.norm()
        worst.append((float(off), float(moved)))
    return Departure(*(max(each) for each in zip(*worst, strict=True)))


def moments(
    samples: Sequence[Tensor], network: Network
) -> tuple[Float[Tensor, " p"], Float[Tensor, "p p"], Float[Tensor, ""]]:
    """Mean, covariance (with 1/N) and (E‖v‖²)^{1/2} of vectors given as tensors (N, *shape)."""
    v = network.join(samples)
    mean = v.mean(0)
    centred = v - mean
    return mean, centred.mT @ centred / len(v), v.square().sum(-1).mean().sqrt()


def scores(samples: Sequence[Tensor], network: Network) -> Scores:
    """√N mean/sd of v − 𝒢v and of vvᵀ − 𝒢v(𝒢v)ᵀ, entry by entry, for every generator 𝒢: standard normal for
    independent samples of an invariant distribution when N is large. Entries that are 0 in every sample are left out.

    vvᵀ is the second moment and, with the mean, the covariance. Costs O(N p²) for each generator, and p² memory.
    """
    v = network.join(samples)
    N, p = v.shape
    if N < 2:
        raise InputError(f"{N} samples: a score needs two or more, and many to be normal")
    upper = torch.triu_indices(p, p).unbind()
    first, second = [v.new_zeros(0)], [v.new_zeros(0)]
    for element in group.generators(network):
        w = network.join(group.act(element, samples, network))
        off = v - w
        size = v.square().mean(0) + w.square().mean(0)
        first.append(_score(off.mean(0), off.square().mean(0), size, N))
        mean = (v.mT @ v - w.mT @ w) / N
        cross = (v * w).mT @ (v * w)
        size = (v.square().mT @ v.square() + w.square().mT @ w.square()) / N
        square = size - 2 * cross / N
        second.append(_score(mean[upper], square[upper], size[upper], N))
    return Scores(torch.cat(first), torch.cat(second))


def margin(z: Float[Tensor, " k"], level: float = 1e-6) -> float:
    """1 − max|z|/limit, the limit that k standard normal numbers pass with probability at most `level` (Bonferroni):
    below 0 the equations are refuted at that level; 1 where there is nothing to test."""
    if not len(z):
        return 1.0
    tail = torch.tensor(level / (2 * len(z)), dtype=torch.float64)
    return 1 - float(z.abs().amax() / -torch.special.ndtri(tail))


def equivariance(
    tensors: Sequence[Tensor],
    data: Data,
    network: Network,
    rule: Rule,
    steps: int = 3,
    seed: int = 0,
) -> float:
    """The largest ‖path(𝒢θ) − 𝒢 path(θ)‖/‖path(θ) − θ‖ over `steps` steps of models θ (N, *shape), for one 𝒢 drawn:
    0 to rounding for an equivariant rule, by which an invariant distribution stays invariant."""
    element = group.drawn(network, seed)
    there = train(group.act(element, tensors, network), data, network, rule)
    here = train(tensors, data, network, rule)
    start, worst = network.join(list(tensors)), 0.0
    for one, other in itertools.islice(zip(there, here, strict=False), steps):
        moved = (network.join(other) - start).norm(dim=-1)
        off = (network.join(one) - network.join(group.act(element, other, network))).norm(dim=-1)
        worst = max(worst, float((off / moved).amax()))
    return worst


def _score(mean: Tensor, square: Tensor, size: Tensor, N: int) -> Tensor:
    """√N mean/sd where the mean square is more than the rounding of what it was subtracted from."""
    live = square > 1e-12 * size
    return mean[live] * N**0.5 / (square - mean.square())[live].sqrt()
