"""How well one model's factors know those of the ensemble: Table 1 of Bernacchia (ICML 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.symmetry.factors import factors, named
from icm.symmetry.network import Network
from icm.symmetry.structure import Structured


def correlation(one: Structured, other: Structured) -> dict[str, Tensor]:
    """Pearson's correlation over the entries of each named factor, {name: (…)}; factors of fewer than three entries,
    such as φ2 and Φ1 of one input, have none and are left out. Gradients' covariance against the Hessian, for one."""
    if one.network != other.network:
        raise InputError(f"factors of different networks, {one.network} and {other.network}, have nothing to compare")
    left, right = named(one), named(other)
    return {
        name: pearson(left[name].flatten(-2), right[name].flatten(-2))
        for name in left
        if left[name].shape[-1] * left[name].shape[-2] > 2
    }


def agreement(each: Structured, leave_out: bool = True) -> dict[str, Tensor]:
    """The correlation (N,) of each model's factors, given as blocks (N, μ, μ), with the mean of the ensemble's: of the
    other N − 1 models, or with leave_out=False of all N, which puts 1/N of the model itself on both sides."""
    N = len(next(iter(each.blocks.values())))
    if N < 2:
        raise InputError("an ensemble of one model has no others to compare it with")
    if leave_out:
        others = each.map(lambda M: (M.sum(0, keepdim=True) - M) / (N - 1))
    else:
        others = each.map(lambda M: M.mean(0, keepdim=True).expand_as(M))
    return correlation(each, others)


def factors_of_each(gradients: Sequence[Tensor], network: Network) -> Structured:
    """The factors of each of N gradients (N, *shape) by itself: blocks (N, μ, μ)."""
    return factors([gradient.unsqueeze(1) for gradient in gradients], network)


def joined(parts: Sequence[Structured]) -> Structured:
    """Blocks (N₁ + N₂ + …, μ, μ) of ensembles that were computed one after another."""
    return Structured(
        parts[0].network, {label: torch.cat([part.blocks[label] for part in parts]) for label in parts[0].blocks}
    )


def pearson(x: Float[Tensor, "*b k"], y: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    """Pearson's correlation along the last dimension."""
    x, y = (each - each.mean(-1, keepdim=True) for each in (x.double(), y.double()))
    x, y = (each / each.abs().amax(-1, keepdim=True) for each in (x, y))
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()
