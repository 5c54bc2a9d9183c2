"""Ensembles of networks: drawn at initialisation, with a teacher's data, their gradients and Hessians all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn import functional as F

from icm.errors import InputError
from icm.symmetry.coordinates import coordinates, parameters
from icm.symmetry.network import Label, Network
from icm.symmetry.structure import Structured

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "erf": torch.erf,
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
}


class Data(NamedTuple):
    """Inputs (N, d₀) and wanted outputs (N, d_L)."""

    x: Tensor
    y: Tensor


def initial(network: Network, models: int, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Parameters of N models as tensors (N, *shape), weights and biases of a layer drawn from N(0, 1/fan_in): a
    distribution that is invariant under the group. Drawn on the CPU; the numbers depend on `models` too."""
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(models, *axes.shape, generator=rng, dtype=dtype) / network.fan_in(axes) ** 0.5
        for axes in network.parameters
    ]


def teacher_student(
    network: Network, counts: Sequence[int], seed: int, decades: float = 5.0, dtype: torch.dtype = torch.float64
) -> list[Data]:
    """Data sets of `counts` examples: x ~ N(0, Q diag(logspace(0, −decades)) Qᵀ) with Q a random rotation, y what one
    network drawn as by `initial` gives, without noise. Rotation and teacher are those of the seed for all sets."""
    rng = torch.Generator().manual_seed(seed)
    d = network.widths[0]
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))
    Q = Q * R.diagonal().sign()
    scales = torch.logspace(0, -decades, d, dtype=torch.float64).sqrt()
    teacher = [tensor[0] for tensor in initial(network, 1, int(torch.randint(2**62, (), generator=rng)))]
    sets = []
    for count in counts:
        x = (torch.randn(count, d, generator=rng, dtype=torch.float64) * scales) @ Q.mT
        sets.append(Data(x.to(dtype), forward(teacher, x, network).to(dtype)))
    return sets


def forward(tensors: Sequence[Tensor], x: Float[Tensor, "N d0"], network: Network) -> Float[Tensor, "N dL"]:
    """What one network gives for inputs x."""
    act, tensors = _FUNCTIONS[network.activation], list(tensors)
    for layer in range(1, network.depth + 1):
        W = tensors.pop(0)
        x = x @ W.mT + tensors.pop(0) if network.biases[layer - 1] else x @ W.mT
        if layer < network.depth:
            x = act(x)
    return x


def loss(tensors: Sequence[Tensor], data: Data, network: Network) -> Float[Tensor, ""]:
    """‖Ŷ − Y‖²_F/(2N) of one network."""
    return (forward(tensors, data.x, network) - data.y).square().sum() / (2 * len(data.x))


def losses(
    tensors: Sequence[Tensor], data: Data, network: Network, chunk: int | None = None
) -> Float[Tensor, " models"]:
    """The loss of each of many networks (N, *shape), `chunk` of them at a time."""
    return vmap(lambda each: loss(each, data, network), chunk_size=chunk)(tuple(tensors))


def gradients(tensors: Sequence[Tensor], data: Data, network: Network, chunk: int | None = None) -> list[Tensor]:
    """The gradient of each of many networks, (N, *shape), `chunk` of them at a time: each holds its activations."""
    return list(vmap(grad(lambda each: loss(each, data, network)), chunk_size=chunk)(tuple(tensors)))


def hessian(
    tensors: Sequence[Tensor],
    data: Data,
    network: Network,
    probes: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
) -> Structured:
    """The Hessian of each of N networks, projected onto the structure: M_λ (N, μ, μ).

    M_λ[i, j] = tr(copy i of λ in H against copy j)/dim λ. With probes=None the trace is exact and takes p products Hv
    for each network; with k probes z of random signs, other ones for each network, it is the mean of zᵀ(·)z, unbiased,
    in k Σ μ products. `chunk` networks are looked at together; nothing of size p×p is made: k·p numbers for each of
    them, or p times the widest layer. Averaged over an ensemble (`averaged`) it estimates the global Hessian.

    Raises InputError for probes below 1.
    """
    if probes is not None and probes < 1:
        raise InputError(f"probes={probes}: at least 1, or None for exact traces by p products")
    slope = grad(lambda each: loss(each, data, network))

    def product(each: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return jvp(slope, (each,), (v,))[1]

    products = vmap(vmap(product, (None, 0)))  # of every model, with directions of its own
    rng = torch.Generator().manual_seed(seed)
    N = len(tensors[0])
    found: dict[Label, list[Tensor]] = {label: [] for label in network.labels}
    for start in range(0, N, chunk or N):
        # torch's forward mode refuses expanded tensors
        some = tuple(tensor[start : start + (chunk or N)].contiguous() for tensor in tensors)
        for label in network.labels:
            Z = _probes(network, label, probes, len(some[0]), rng).to(some[0])
            weight = network.dimension(label) * (1 if probes is None else probes)
            columns = []
            for copy in range(network.multiplicity(label)):
                HV = products(some, tuple(_direction(network, label, copy, Z)))
                columns.append(torch.einsum("nrjk,nrk->nj", coordinates(HV, network)[label], Z) / weight)
            M = torch.stack(columns, -1)
            found[label].append((M + M.mT) / 2)
    return Structured(network, {label: torch.cat(parts) for label, parts in found.items()})


def averaged(each: Structured) -> Structured:
    """The mean over an ensemble, of blocks (N, μ, μ)."""
    return each.map(lambda M: M.mean(0))


def _direction(network: Network, label: Label, copy: int, Z: Tensor) -> list[Tensor]:
    """e_copy ⊗ z of one representation, as the parameters' tensors, for each z of Z (N, r, ∏ d_l)."""
    X = {
        other: Z.new_zeros(*Z.shape[:2], network.multiplicity(other), prod(network.widths[layer] for layer in other))
        for other in network.labels
    }
    X[label][:, :, copy] = Z
    return [tensor.contiguous() for tensor in parameters(X, network)]


def _probes(network: Network, label: Label, probes: int | None, models: int, rng: torch.Generator) -> Tensor:
    """Vectors z (N, r, ∏ d_l), centred for permutations: Σ zzᵀ, or for random ones its mean, is the projection onto the
    representation."""
    shape = tuple(network.widths[layer] for layer in label)
    if probes is None:
        Z = torch.eye(prod(shape), dtype=torch.float64).reshape(-1, *shape).expand(models, -1, *shape)
    else:
        Z = torch.randint(2, (models, probes, *shape), generator=rng).double() * 2 - 1
    if network.group == "permutation":
        for axis in range(2, Z.ndim):
            Z = Z - Z.mean(axis, keepdim=True)
    return Z.reshape(models, -1, prod(shape))
