"""Norms of the singular values."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from icm.errors import InputError
from icm.maps import orthogonalize
from icm.maps.polynomial import Precision
from icm.norms.norm import Norm, Rescaled
from icm.norms.vectors import dual_exponent, length, maximiser, nearest

Method = Literal["exact", "products"]


@dataclass(frozen=True)
class Invariant(Norm):
    """A norm of the singular values g ≥ 0, descending (*b, k), k = min(m, n): of U diag(g) Vᵀ, dualize and project give
    U diag(·) Vᵀ for what `_maximiser` and `_nearest` make of g (von Neumann's trace inequality).

    Where G's singular values decide what is 0 or largest, they are told apart to within (8 + √max(m, n)) ε ‖G‖₂, as by
    `icm.maps.exact`: of less only noise is known.
    """

    invariant = True

    @abstractmethod
    def _length(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def _dual_length(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def _maximiser(self, g: Tensor, tie: float) -> Tensor:
        """T's singular values; those of g that are within `tie` of the largest, relatively, are equal to it."""

    def _nearest(self, g: Tensor, radius: Tensor) -> Tensor:
        raise InputError(f"{self} has no projection here; `normalize` scales onto its sphere instead")

    def _norm(self, W: Tensor) -> Tensor:
        return self._length(torch.linalg.svdvals(W))

    def _dual(self, G: Tensor) -> Tensor:
        return self._dual_length(torch.linalg.svdvals(G))

    def _dualize(self, G: Tensor) -> Tensor:
        return self._both(G)[1]

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        U, g, Vh = torch.linalg.svd(G, full_matrices=False)
        tie = (8 + max(G.shape[-2:]) ** 0.5) * torch.finfo(G.dtype).eps
        t = self._maximiser(g.where(g > tie * g[..., :1], 0.0), tie)
        return self._dual_length(g), (U * t[..., None, :]) @ Vh

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        U, g, Vh = torch.linalg.svd(W, full_matrices=False)
        return (U * self._nearest(g, radius)[..., None, :]) @ Vh


@dataclass(frozen=True)
class _Powers(Invariant):
    """ℓp of the singular values, p in [1, ∞]."""

    @property
    def _p(self) -> float:
        raise NotImplementedError

    def _length(self, g: Tensor) -> Tensor:
        return length(g, self._p)

    def _dual_length(self, g: Tensor) -> Tensor:
        return length(g, dual_exponent(self._p))

    def _maximiser(self, g: Tensor, tie: float) -> Tensor:
        return maximiser(g, self._p, tie)

    def _nearest(self, g: Tensor, radius: Tensor) -> Tensor:
        return nearest(g, self._p, radius)


@dataclass(frozen=True)
class Schatten(_Powers):
    """‖W‖_{S_p} = (Σ σ_i^p)^{1/p} of W's singular values; p = 1 nuclear, 2 Frobenius, ∞ spectral. Dual: S_q, 1/p + 1/q
    = 1, and dualize(G) = U diag(g^{q−1}) Vᵀ/‖g‖_q^{q−1}: from SGD (p = 2) to Muon (p = ∞).

    For 0 < p < 1 a quasi-norm, whose balls are not convex: their hull is the nuclear norm's, so that a dual would know
    nothing of p. `dualize` goes on with the same formula, q = p/(p − 1) < 0: T ∝ U diag(g^{−1/(1−p)}) Vᵀ with
    ‖T‖_{S_p} = 1, which enlarges the small singular values (p → 0: in proportion to 1/g); g = 0 stays 0. Among the
    U diag(t) Vᵀ of that size with t ≥ 0, ⟨G, T⟩ is there least, (Σ g^q)^{1/q}, by Hölder's inequality reversed.

    Raises InputError for p ≤ 0, and for the dual, steepest descent and projection of a p < 1.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise InputError(f"p={self.p!r}: Schatten norms have p in [1, inf], and 0 < p < 1 gives a dualiser only")

    @property
    def _p(self) -> float:
        return self.p

    def _dual(self, G: Tensor) -> Tensor:
        self._require_norm()
        return super()._dual(G)

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        self._require_norm()
        return super()._both(G)

    def _dualize(self, G: Tensor) -> Tensor:
        return super()._both(G)[1]

    def _dual_length(self, g: Tensor) -> Tensor:
        return super()._dual_length(g) if self.p >= 1 else g[..., 0]

    def _maximiser(self, g: Tensor, tie: float) -> Tensor:
        if self.p >= 1:
            return super()._maximiser(g, tie)
        least = g.where(g > 0, math.inf).amin(-1, keepdim=True)
        t = torch.where(g > 0, (least / g.where(g > 0, 1.0)) ** (1 / (1 - self.p)), 0.0)
        size = length(t, self.p)[..., None]
        return t / size.where(size > 0, 1.0)

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        self._require_norm()
        return super()._project(W, radius)

    def _require_norm(self) -> None:
        if self.p < 1:
            raise InputError(
                f"p={self.p!r}: below 1 Schatten's is no norm, its balls are not convex and its dual is that of p = 1; "
                "only norm, dualize and normalize mean something there"
            )

    def __str__(self) -> str:
        return f"schatten({self.p:.17g})"


@dataclass(frozen=True)
class Spectral(_Powers):
    """‖W‖₂, the largest singular value, ‖W‖_{2→2}; dual ‖G‖_*, dualize(G) = UVᵀ: Muon; Shampoo without its averages.

    method="products": UVᵀ roughly, by `icm.maps.orthogonalize` with its `precision` and `steps`, for training. dual(G)
    is then ⟨G, dualize(G)⟩, and ‖dualize(G)‖ is 1 only as far as those steps reach.
    """

    method: Method = "exact"
    steps: int | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.method not in ("exact", "products"):
            raise InputError(f"method={self.method!r}: choose 'exact' or 'products'")
        if self.method == "exact" and (self.steps is not None or self.precision is not None):
            raise InputError("steps and precision are those of method='products'; leave them out, or choose it")

    @property
    def _p(self) -> float:
        return math.inf

    def _dual(self, G: Tensor) -> Tensor:
        return super()._dual(G) if self.method == "exact" else self._both(G)[0]

    def _dualize(self, G: Tensor) -> Tensor:
        return super()._dualize(G) if self.method == "exact" else orthogonalize(G, self.precision, steps=self.steps)

    def _both(self, G: Tensor) -> tuple[Tensor, Tensor]:
        if self.method == "exact":
            return super()._both(G)
        T = self._dualize(G)
        return (G * T).sum((-2, -1)), T

    def __str__(self) -> str:
        return "spectral" + _options(self.method, self.steps, self.precision)


@dataclass(frozen=True)
class Nuclear(_Powers):
    """‖W‖_* = Σ σ_i, the dual of the spectral norm; dualize(G) = U₁V₁ᵀ/j for the j largest singular values, equal to
    within rounding: Frank–Wolfe's step."""

    @property
    def _p(self) -> float:
        return 1.0

    def __str__(self) -> str:
        return "nuclear"


@dataclass(frozen=True)
class RMSToRMS(Rescaled):
    """‖W‖_{RMS→RMS} = √(n/m) ‖W‖₂, for linear maps of n inputs to m outputs; dual √(m/n) ‖G‖_*, dualize(G) = √(m/n)
    UVᵀ.

    Options as of `Spectral`.
    """

    method: Method = "exact"
    steps: int | None = None
    precision: Precision | None = None

    invariant = True

    def __post_init__(self) -> None:
        _ = self.inner

    @property
    def inner(self) -> Spectral:
        """‖·‖₂."""
        return Spectral(self.method, self.steps, self.precision)

    def factor(self, m: int, n: int) -> float:
        """√(n/m)."""
        return (n / m) ** 0.5

    def __str__(self) -> str:
        return "rms-to-rms" + _options(self.method, self.steps, self.precision)


def _options(method: Method, steps: int | None, precision: Precision | None) -> str:
    """What `icm.norms.parse` reads."""
    if method == "exact":
        return ""
    said = ["products", *([f"steps={steps}"] if steps else []), *([f"precision={precision}"] if precision else [])]
    return f"({', '.join(said)})"
