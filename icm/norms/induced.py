"""‖W‖_{α→β} = max ‖Wx‖_β/‖x‖_α, where it can be computed, and bounds elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.norms.columns import ColumnNorm, RowNorm
from icm.norms.induced_bounds import lower, slack, upper
from icm.norms.norm import Norm
from icm.norms.schatten import Spectral
from icm.norms.vectors import dual_exponent, length, require_exponent

_SIGNS = 16  # of so many entries all sign vectors are tried, 2^15 up to a sign
_MET = 1e-9  # relative distance of bounds that are taken as one


@dataclass(frozen=True)
class Induced(Norm):
    """‖W‖_{α→β} = max ‖Wx‖_β over ‖x‖_α ≤ 1, α and β in [1, ∞].

    - α = 1, β = ∞, α = β = 2, single rows and columns: `ColumnNorm`, `RowNorm` and `Spectral`, with all that they know.
    - α = ∞ with n ≤ 16, or β = 1 with m ≤ 16: the value, from all sign vectors (of the other side, as ‖W‖_{α→β} =
      ‖Wᵀ‖_{β*→α*}); no dual.
    - elsewhere the value is NP-hard in general (Hendrickx & Olshevsky, SIAM J. Matrix Anal. Appl. 31, 2010): `bounds`;
      the value where they meet to 1e−9, as for nonnegative W with α ≥ β and for rank 1.

    Raises InputError for α or β < 1, for a value where the bounds do not meet, and where no dual is known.
    """

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        require_exponent(self.alpha, "alpha")
        require_exponent(self.beta, "beta")

    def bounds(self, W: Float[Tensor, "*b m n"] | Any) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
        """(lower, upper), float64, with lower ≤ ‖W‖ ≤ upper, rounding included; equal up to rounding where the value is
        known. `icm.norms.induced_bounds` says by which vectors and inequalities.

        upper/lower on normal 20 × 30 matrices, median of ten:

            2→1   4→2   ∞→2   4→4/3  3→6   ∞→1   2→4   3→3   3/2→2  4→3   3/2→3/2  4/3→4
            1.02  1.02  1.04  1.07   1.12  1.16  1.17  1.21  1.23   1.24  1.25     1.44
        """
        W, size, _ = self._scaled(W, "W", True)
        known = self._known(*W.shape[-2:])
        flat = W.double().reshape(-1, *W.shape[-2:])
        found = []
        for X in flat:
            if known is not None or self._enumerable(*W.shape[-2:]):
                value = float(self._enumerated(X) if known is None else known._norm(X))
                found.append((value * (1 - slack(X)), value * (1 + slack(X))))
            else:
                found.append((lower(X, self.alpha, self.beta), upper(X, self.alpha, self.beta)))
        pairs = torch.tensor(found, dtype=torch.float64, device=W.device).reshape(*W.shape[:-2], 2)
        low, high = (pairs * size.double()[..., None]).unbind(-1)
        return low, high

    def _norm(self, W: Tensor) -> Tensor:
        known = self._known(*W.shape[-2:])
        if known is not None:
            return known._norm(W)
        if self._enumerable(*W.shape[-2:]):
            values = [self._enumerated(X) for X in W.reshape(-1, *W.shape[-2:])]
            return torch.stack(values).reshape(W.shape[:-2])
        low, high = self.bounds(W)
        if bool((high > low * (1 + _MET)).any()):
            apart = float((high / low).nan_to_num(1.0).amax()) - 1
            raise InputError(
                f"{self} of a {W.shape[-2]} × {W.shape[-1]} matrix is known to {100 * apart:.2g} % only: take "
                "bounds(W), or a norm that can be computed, with alpha = 1, beta = inf or alpha = beta = 2"
            )
        return ((low + high) / 2).to(W.dtype)

    def _dual(self, G: Tensor) -> Tensor:
        return self._require(G)._dual(G)

    def _dualize(self, G: Tensor) -> Tensor:
        return self._require(G)._dualize(G)

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        return self._require(G)._both(G)

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        return self._require(W)._project(W, radius)

    def _require(self, G: Tensor) -> Norm:
        known = self._known(*G.shape[-2:])
        if known is None:
            raise InputError(
                f"no algorithm for the dual and projection of {self} is known here, other than for alpha = 1, beta = "
                "inf, alpha = beta = 2 and single rows or columns"
            )
        return known

    def _known(self, m: int, n: int) -> Norm | None:
        if self.alpha == 1 or n == 1:
            return ColumnNorm(self.beta)
        if self.beta == math.inf or m == 1:
            return RowNorm(self.alpha)
        return Spectral() if self.alpha == self.beta == 2 else None

    def _enumerable(self, m: int, n: int) -> bool:
        return (self.alpha == math.inf and n <= _SIGNS) or (self.beta == 1 and m <= _SIGNS)

    def _enumerated(self, W: Tensor) -> Tensor:
        """max ‖Wx‖_β over sign vectors x, or ‖Wᵀu‖_{α*} over sign vectors u, whichever are fewer."""
        m, n = W.shape
        if self.alpha == math.inf and (self.beta != 1 or n <= m):
            return length(_sign_vectors(n, W) @ W.mT, self.beta).amax()
        return length(_sign_vectors(m, W) @ W, dual_exponent(self.alpha)).amax()

    def __str__(self) -> str:
        return f"induced({self.alpha:.17g}, {self.beta:.17g})"


def _sign_vectors(k: int, like: Tensor) -> Tensor:
    """(2^{k−1}, k): all up to a sign."""
    bits = torch.arange(2 ** (k - 1), device=like.device)[:, None] >> torch.arange(k, device=like.device)
    return 1.0 - 2.0 * (bits & 1).to(like.dtype)
