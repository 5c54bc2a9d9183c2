"""The factors of the covariance of gradients, from one gradient or many, and the names they have in the literature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from math import prod

import torch
from torch import Tensor

from icm.symmetry.coordinates import check, coordinates
from icm.symmetry.network import Axes, Label, Network
from icm.symmetry.structure import Structured, outer


def factors(gradients: Sequence[Tensor], network: Network, about_mean: bool = False) -> Structured:
    """M_λ = Σ_r X_r X_rᵀ/(R dim λ): the second moment of R gradients, averaged over the group.

    gradients: the parameters' tensors in the order of `network.parameters`, (*shape) for one gradient, (R, *shape) for
    many, (…, R, *shape) for many such sets, whose factors are then (…, μ, μ).

    With `about_mean` the covariance: the mean μ = 𝒢μ moves along with no hidden layer, so that it is taken from the
    block of the label () alone, as the mean over R. Where nothing has this label, as with signed permutations without
    output bias, both are the same; for one gradient this block is 0.

    Raises InputError for tensors of other shapes than the network's.
    Source: Bernacchia (ICML 2025), equations for Φ₁, Ψ, Φ₂ and φ_l; `named` finds these.
    """
    check(gradients, network)
    if gradients[0].ndim == len(network.parameters[0].shape):
        gradients = [gradient.unsqueeze(0) for gradient in gradients]
    found = outer(gradients, gradients, network)
    if not about_mean or () not in network.labels:
        return found
    mean = coordinates(gradients, network)[()].mean(-3)
    return Structured(network, {**found.blocks, (): found.blocks[()] - mean @ mean.mT})


def named(structured: Structured) -> dict[str, Tensor]:
    """The factors as the literature writes them, {name: (…, a, b)}, a and b the inputs or outputs of two parameters.

    The block of Σ between two parameters is F ⊗ I where they share a hidden layer, entry by entry over its neurons; for
    permutations F[I] ⊗ I + F[1] ⊗ 11ᵀ, and over a hidden layer of one of them alone 1. Names: Φ1 … ΦL for weights with
    themselves, φ2 … where all their axes are hidden (1×1); Ψ for W1 with W2 in a network of two layers; all others are
    "W1,b1" and the like, in the order of the parameters. Permutations add for each shared hidden layer, ascending, I or
    1: "Φ1[I]", "φ2[I,1]". Where a layer has one neuron only 1 is listed, for I is the same.

    For tanh and two layers without bias: Φ1 = ΣG₁ᵀG₁/(d₁R) (d₀, d₀), Ψ = ΣG₁ᵀG₂ᵀ/(d₁R) (d₀, d₂),
    Φ2 = ΣG₂G₂ᵀ/(d₁R) (d₂, d₂); in deeper ones φ_l = Σ‖G_l‖²_F/(d_l d_{l−1} R).
    """
    network = structured.network
    found: dict[str, Tensor] = {}
    for i, a in enumerate(network.parameters):
        for b in network.parameters[i:]:
            for kept, F in _between(structured, a, b):
                found[_name(network, a, b, kept)] = F
    return found


def block(structured: Structured, label: Label, left: Axes, right: Axes) -> Tensor:
    """The part (…, a, b) of M_λ between the copies of a representation in two parameters that have it."""
    rows, columns = (_span(structured.network, label, axes) for axes in (left, right))
    return structured.blocks[label][..., rows, columns]


def _span(network: Network, label: Label, wanted: Axes) -> slice:
    start = 0
    for axes in network.parameters:
        count = network.copies(axes, label)
        if axes == wanted:
            return slice(start, start + count)
        start += count
    raise AssertionError(f"{wanted.name} is no parameter of {network}")


def _between(structured: Structured, a: Axes, b: Axes) -> Iterator[tuple[Label, Tensor]]:
    """(the shared layers over which it is I, F) for each factor of the block between two parameters."""
    network = structured.network
    shared = tuple(sorted(set(a.hidden) & set(b.hidden)))
    if network.group == "signed":
        if a.hidden == b.hidden:
            yield a.hidden, block(structured, a.hidden, a, b)
        return
    alone = prod(network.widths[layer] for layer in set(a.hidden) ^ set(b.hidden)) ** 0.5
    moving = tuple(layer for layer in shared if network.widths[layer] > 1)
    # On each shared layer m₁(I − 11ᵀ/d) + m₀ 11ᵀ/d is m₁ I + (m₀ − m₁)/d 11ᵀ: differences over the layers not kept.
    for kept in _subsets(moving):
        rest = tuple(layer for layer in moving if layer not in kept)
        parts = [
            (-1.0) ** len(more) * block(structured, tuple(sorted((*kept, *more))), a, b) for more in _subsets(rest)
        ]
        size = prod(network.widths[layer] for layer in shared if layer not in kept)
        yield kept, torch.stack(parts).sum(0) / (alone * size)


def _name(network: Network, a: Axes, b: Axes, kept: Label) -> str:
    name = f"{a.name},{b.name}"
    if a == b and a.name.startswith("W"):
        name = ("φ" if len(a.hidden) == len(a.shape) else "Φ") + a.name[1:]
    elif network.depth == 2 and name == "W1,W2":
        name = "Ψ"
    shared = sorted(set(a.hidden) & set(b.hidden))
    if network.group == "permutation" and shared:
        name += "[" + ",".join("I" if layer in kept else "1" for layer in shared) + "]"
    return name


def _subsets(layers: Label) -> Iterator[Label]:
    return chain.from_iterable(combinations(layers, r) for r in range(len(layers) + 1))
