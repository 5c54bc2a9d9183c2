"""Norms of the entries, wherever they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from icm.norms.norm import Norm, Rescaled
from icm.norms.vectors import dual_exponent, length, maximiser, nearest


@dataclass(frozen=True)
class _Entrywise(Norm):
    """ℓp of the entries."""

    @property
    def _p(self) -> float:
        raise NotImplementedError

    def _norm(self, W: Tensor) -> Tensor:
        return length(W.flatten(-2), self._p)

    def _dual(self, G: Tensor) -> Tensor:
        return length(G.flatten(-2), dual_exponent(self._p))

    def _dualize(self, G: Tensor) -> Tensor:
        return maximiser(G.flatten(-2), self._p).unflatten(-1, G.shape[-2:])

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        return nearest(W.flatten(-2), self._p, radius).unflatten(-1, W.shape[-2:])


@dataclass(frozen=True)
class Frobenius(_Entrywise):
    """‖W‖_F = √(Σ W_ij²), its own dual: dualize(G) = G/‖G‖_F, steepest descent is gradient descent."""

    invariant = True

    @property
    def _p(self) -> float:
        return 2.0

    def __str__(self) -> str:
        return "frobenius"


@dataclass(frozen=True)
class MaxEntry(_Entrywise):
    """max|W_ij| = ‖W‖_{1→∞}; dual Σ|G_ij|, dualize(G) = sign(G): sign descent, Adam without its averages (Bernstein &
    Newhouse, proposition 2)."""

    @property
    def _p(self) -> float:
        return math.inf

    def __str__(self) -> str:
        return "max-entry"


@dataclass(frozen=True)
class EntrySum(_Entrywise):
    """Σ|W_ij|, the dual of `MaxEntry`; dualize(G): the signs of the j largest |G_ij|, equal to the last bit, over j."""

    @property
    def _p(self) -> float:
        return 1.0

    def __str__(self) -> str:
        return "entry-sum"


@dataclass(frozen=True)
class RMS(Rescaled):
    """√(Σ W_ij²/mn), the root mean square entry, for vectors as for matrices; dual √(mn) ‖G‖_F, dualize(G) = √(mn)
    G/‖G‖_F."""

    @property
    def inner(self) -> Frobenius:
        """‖·‖_F."""
        return Frobenius()

    def factor(self, m: int, n: int) -> float:
        """1/√(mn)."""
        return (m * n) ** -0.5

    def __str__(self) -> str:
        return "rms"
