"""The norm that a preconditioner induces: another norm after its two factors have acted."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.errors import InputError
from icm.norms.norm import Norm
from icm.norms.schatten import Spectral

_OUTSIDE = 1e-6  # ‖(I − P)G‖_F/‖G‖_F, or float32's 1e-3, from which G is not on the ranges of L and R


@dataclass(frozen=True, eq=False)
class Preconditioned(Norm):
    """‖W‖ = ‖L^a W R^a‖_inner for symmetric positive definite L (m, m) and R (n, n), or stacks of them, a the `power`.

        dual(G) = inner.dual(L^{−a} G R^{−a}),      dualize(G) = L^{−a} inner.dualize(L^{−a} G R^{−a}) R^{−a}

    What an optimizer that averages L and R does over time is then steepest descent in a norm that it tunes. With inner
    = Frobenius(), steepest(G) = −L^{−2a} G R^{−2a}: Shampoo's L^{−1/4} G R^{−1/4} (Gupta, Koren & Singer, ICML 2018) at
    a = 1/8, and at a = 1/4 that with exponents −1/2. With inner = Spectral() and a = 1/4 it goes along
    L^{−1/4} P R^{−1/4}, P the polar factor of Shampoo's step. For L = GGᵀ and R = GᵀG those are UVᵀ, U g^{−1} Vᵀ and
    U g^{−1} Vᵀ.

    Semidefinite L and R are taken on their ranges, eigenvalues up to (8 + √m) ε of the largest as 0, ε that of L's
    dtype: W counts only as P_L W P_R, ‖·‖ is a norm on those matrices alone, and inverses are pseudo-inverses. An inner
    norm must then be one of singular values (`invariant`), so that its maximisers stay on the ranges. L^a is computed
    once, in float64.

    Raises InputError for an L or R that is not square, symmetric, finite or semidefinite, or is 0, a power that is not
    finite and above 0, a semidefinite one with another inner norm, a matrix that does not fit, and a G with a part
    outside the ranges (over 1e−6 of it, in float32 and less 1e−3), where the dual is infinite; `check=False` leaves
    that part out.
    """

    L: Float[Tensor, "*b m m"] | Any = field(repr=False)
    R: Float[Tensor, "*b n n"] | Any = field(repr=False)
    inner: Norm = field(default_factory=Spectral)
    power: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.power < float("inf"):
            raise InputError(f"power={self.power!r} must be finite and above 0")
        deficient = [name for name, factor in (("L", self._left), ("R", self._right)) if not factor.full]
        if deficient and not self.inner.invariant:
            raise InputError(
                f"{' and '.join(deficient)} not of full rank, to rounding, and maximisers of {self.inner} leave the "
                "ranges; add a ridge, such as 1e-6·tr/n on the diagonal, or take an inner norm of singular values"
            )

    @cached_property
    def _left(self) -> _Factor:
        return _Factor.of(self.L, "L", self.power)

    @cached_property
    def _right(self) -> _Factor:
        return _Factor.of(self.R, "R", self.power)

    @property
    def _unit(self) -> float:
        """What ‖L^a‖₂ ‖R^a‖₂ is over that of the factors kept: theirs, so that float32 holds them."""
        return self._left.size * self._right.size

    def _norm(self, W: Tensor) -> Tensor:
        X = self._left.up.to(W) @ W @ self._right.up.to(W)
        return self.inner.norm(X, check=False) * self._unit

    def _dual(self, G: Tensor) -> Tensor:
        return self.inner.dual(self._lowered(G), check=False) / self._unit

    def _dualize(self, G: Tensor) -> Tensor:
        return self._lowered(self.inner.dualize(self._lowered(G), check=False)) / self._unit

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        X, size, _ = self.inner._scaled(self._lowered(G), "G", False)
        dual, T = self.inner._both(X)
        return dual * size / self._unit, self._lowered(T) / self._unit

    def _lowered(self, G: Tensor) -> Tensor:
        return self._left.down.to(G) @ G @ self._right.down.to(G)

    def _admit(self, W: Tensor, name: str) -> None:
        m, n = self._left.up.shape[-1], self._right.up.shape[-1]
        if W.shape[-2:] != (m, n):
            raise InputError(f"{name} has shape {tuple(W.shape)}; L and R are for matrices ({m}, {n})")
        if name != "G" or (self._left.full and self._right.full):
            return
        X = W.double() / W.double().abs().amax((-2, -1), keepdim=True).clamp(min=1e-300)
        outside = torch.linalg.matrix_norm(X - self._left.onto.to(X) @ X @ self._right.onto.to(X))
        share = float((outside / torch.linalg.matrix_norm(X).clamp(min=1e-300)).max())
        if share > (_OUTSIDE if W.dtype == torch.float64 else 1e-3):
            raise InputError(
                f"G has a part of {share:.3g} of its length outside the ranges of L and R, where the dual norm is "
                "infinite; add a ridge to L and R, or leave that part out (check=False does)"
            )

    def __str__(self) -> str:
        return f"preconditioned({self.inner}, power={self.power:g})"


@dataclass(frozen=True, eq=False)
class _Factor:
    """A^a/size, its pseudo-inverse and the projector onto its range, float64; whether the range is everything."""

    up: Tensor
    down: Tensor
    onto: Tensor
    size: float
    full: bool

    @classmethod
    def of(cls, A: Any, name: str, power: float) -> _Factor:
        A = to_tensor(A, name)
        if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
            raise InputError(f"{name} has shape {tuple(A.shape)}; it is square, or a stack of square ones")
        require_nonempty(A, name)
        require_finite(A, name)
        eps = torch.finfo(A.dtype).eps
        A = A.double()
        top = float(A.abs().max())
        if top == 0:
            raise InputError(f"{name} is 0; where nothing is known of it, take the identity")
        A = A / top
        cut = (8 + A.shape[-1] ** 0.5) * eps
        apart = float((A - A.mT).abs().max())
        if apart > 8 * cut:
            raise InputError(
                f"{name} is not symmetric: it differs from its transpose by {apart:.3g} over its largest entry; pass "
                f"({name} + {name}.mT)/2 if that is meant"
            )
        values, V = torch.linalg.eigh((A + A.mT) / 2)
        largest = values[..., -1:]
        if bool((values[..., :1] < -8 * cut * largest.abs()).any()) or bool((largest <= 0).any()):
            raise InputError(
                f"{name} is not semidefinite: its smallest eigenvalue is {float(values.min()) * top:.3g}, its largest "
                f"{float(values.max()) * top:.3g}"
            )
        live = values > cut * largest
        raised = torch.where(live, values.where(live, 1.0) ** power, 0.0)
        lowered = torch.where(live, values.where(live, 1.0) ** -power, 0.0)
        made = ((V * x[..., None, :]) @ V.mT for x in (raised, lowered, live.double()))
        return cls(*made, size=top**power, full=bool(live.all()))
