"""Matrices over parameters that commute with the symmetry, as one small matrix for each irreducible representation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.errors import InputError
from icm.symmetry.coordinates import coordinates, parameters
from icm.symmetry.network import Label, Network


@dataclass(frozen=True, eq=False)
class Structured:
    """A p×p matrix Σ with 𝒢Σ𝒢ᵀ = Σ for every 𝒢 of the network's group: ⊕ M_λ ⊗ I over representations λ, M_λ (…, μ, μ)
    with μ the multiplicity of λ (Schur's lemma). Functions of Σ are those of the M_λ, exactly, at a cost that knows the
    widths of inputs and outputs and the depth, and not the number p of parameters.
    """

    network: Network
    blocks: Mapping[Label, Tensor]

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Σ v for v given as the parameters' tensors (…, *shape)."""
        X = coordinates(tensors, self.network)
        return parameters({label: self.blocks[label] @ X[label] for label in self.network.labels}, self.network)

    def dense(self) -> Tensor:
        """Σ as a matrix (p, p), parameters in the order of `network.parameters`; for small networks."""
        some = next(iter(self.blocks.values()))
        eye = torch.eye(self.network.size, dtype=some.dtype, device=some.device)
        return self.network.join(self.apply(self.network.split(eye))).mT

    def map(self, function: Callable[[Tensor], Tensor]) -> Structured:
        """⊕ f(M_λ) ⊗ I for a matrix function f."""
        return Structured(self.network, {label: function(M) for label, M in self.blocks.items()})

    def power(self, exponent: float, damping: float = 0.0, cut: float | None = None) -> Structured:
        """(Σ + damping·I)^exponent for symmetric positive semidefinite Σ.

        Eigenvalues up to `cut` times the largest of all, by default 8 μ ε, are taken as 0, and powers below 0 of those
        as 0 too (the pseudo-inverse), unless `damping` lifts them.
        """
        if not damping >= 0:
            raise InputError(f"damping={damping!r} must be at least 0: it is added to every eigenvalue")
        values = {label: torch.linalg.eigh((M + M.mT) / 2) for label, M in self.blocks.items()}
        largest = torch.stack([w[..., -1] for w, _ in values.values()]).amax(0).clamp(min=0.0)
        blocks = {}
        for label, (w, U) in values.items():
            limit = (8 * w.shape[-1] * torch.finfo(w.dtype).eps if cut is None else cut) * largest[..., None]
            lifted = w.where(w > limit, 0.0) + damping
            live = lifted > 0
            powered = lifted.where(live, 1.0).pow(exponent).where(live, 0.0 if exponent else 1.0)
            blocks[label] = (U * powered[..., None, :]) @ U.mT
        return Structured(self.network, blocks)

    def __add__(self, other: Structured) -> Structured:
        if other.network != self.network:
            raise InputError(f"structures of different networks, {self.network} and {other.network}, cannot be added")
        return Structured(self.network, {label: M + other.blocks[label] for label, M in self.blocks.items()})

    def __mul__(self, factor: float | Tensor) -> Structured:
        return self.map(lambda M: factor * M)

    __rmul__ = __mul__

    def __matmul__(self, other: Structured) -> Structured:
        return Structured(self.network, {label: M @ other.blocks[label] for label, M in self.blocks.items()})

    @property
    def mT(self) -> Structured:
        return self.map(lambda M: M.mT)

    def inner(self, other: Structured) -> Tensor:
        """tr(ΣᵀΣ′) over all p×p entries."""
        return torch.stack([
            self.network.dimension(label) * (M * other.blocks[label]).sum((-2, -1)) for label, M in self.blocks.items()
        ]).sum(0)  # fmt: skip


def outer(left: Sequence[Tensor], right: Sequence[Tensor], network: Network) -> Structured:
    """The projection of the mean of u_r v_rᵀ onto the structure, for R pairs given as tensors (…, R, *shape): the
    average over the group of 𝒢uvᵀ𝒢ᵀ, M_λ = Σ_r X_r Y_rᵀ/(R dim λ), for each of the dimensions before R."""
    X, Y = coordinates(left, network), coordinates(right, network)
    blocks = {}
    for label in network.labels:
        x, y = (side[label].movedim(-3, -2).flatten(-2) for side in (X, Y))
        blocks[label] = x @ y.mT / (X[label].shape[-3] * network.dimension(label))
    return Structured(network, blocks)


def project(matrix: Tensor | Callable[[Tensor], Tensor], network: Network, columns: int = 64) -> Structured:
    """The Reynolds average ∫ 𝒢A𝒢ᵀ of any p×p matrix A, the nearest structured one in the Frobenius norm.

    A: a tensor (p, p), or a function giving A @ V for V (p, c) with at most `columns` columns, of which p/columns calls
    are made and no p×p matrix is kept.
    """
    p = network.size
    if isinstance(matrix, Tensor):
        if tuple(matrix.shape) != (p, p):
            raise InputError(
                f"a matrix of shape {tuple(matrix.shape)} for a network of {p} parameters: give ({p}, {p})"
            )
        return outer(network.split(matrix.mT), network.split(_eye(p, 0, p, matrix)), network) * p
    total = None
    for start in range(0, p, columns):
        stop = min(p, start + columns)
        V = _eye(p, start, stop, torch.zeros((), dtype=torch.float64))
        part = outer(network.split(matrix(V.mT).mT), network.split(V), network) * (stop - start)
        total = part if total is None else total + part
    assert total is not None
    return total


def _eye(p: int, start: int, stop: int, like: Tensor) -> Tensor:
    """Rows start to stop of the unit matrix (stop − start, p)."""
    rows = torch.zeros(stop - start, p, dtype=like.dtype, device=like.device)
    rows[:, start:stop].fill_diagonal_(1.0)
    return rows
