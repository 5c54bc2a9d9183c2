"""Compositions of odd polynomials: what matrix products alone can apply to singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError


@dataclass(frozen=True)
class Composition:
    """p = p_T ∘ … ∘ p_1 on [0, 1], p_t(x) = x (c_0 + c_1 x² + … + c_q x^{2q}) for factors[t] = (c_0, …, c_q).

    Applied to a matrix, U p(g) Vᵀ for G = U diag(g) Vᵀ with ‖G‖₂ ≤ 1, by matrix products (`icm.maps.apply`). Odd, so
    p(−x) = −p(x) and p(0) = 0. Values are frozen and hashable.

    Raises InputError for no factor, a factor without coefficients or a coefficient that is not finite.
    """

    factors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        factors = tuple(tuple(float(c) for c in factor) for factor in self.factors)
        if not factors or not all(factors):
            raise InputError(f"factors={self.factors!r}: give at least one factor, each with at least one coefficient")
        if not all(math.isfinite(c) for factor in factors for c in factor):
            raise InputError(f"factors={self.factors!r}: coefficients are finite numbers")
        object.__setattr__(self, "factors", factors)

    def __len__(self) -> int:
        """T, the number of factors."""
        return len(self.factors)

    def __call__(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """p(x), elementwise, in x's dtype."""
        for factor in self.factors:
            x = x * horner(factor, x.square())
        return x

    def slope(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """p'(x), elementwise: the product of the factors' slopes along the orbit of x."""
        slope = torch.ones_like(x)
        for factor in self.factors:
            y = x.square()
            slope = slope * horner(derivative(factor), y)
            x = x * horner(factor, y)
        return slope

    @property
    def degrees(self) -> tuple[int, ...]:
        """The degree of each factor, 2q + 1."""
        return tuple(2 * len(factor) - 1 for factor in self.factors)

    @property
    def slope_at_zero(self) -> float:
        """p'(0) = Π c_0."""
        return math.prod(factor[0] for factor in self.factors)

    def rescaled(self, inside: float = 1.0, outside: float = 1.0) -> Composition:
        """x ↦ outside · p(inside · x)."""
        factors = [list(factor) for factor in self.factors]
        factors[0] = [c * inside ** (2 * i + 1) for i, c in enumerate(factors[0])]
        factors[-1] = [c * outside for c in factors[-1]]
        return Composition(tuple(tuple(factor) for factor in factors))

    def then(self, last: Composition) -> Composition:
        """last ∘ self."""
        return Composition((*self.factors, *last.factors))


def products(degrees: Sequence[int]) -> int:
    """Matrix products of one application: (d + 1)/2 for factors of degree d up to 7, 4 for degree 9."""
    return sum(4 if degree == 9 else (degree + 1) // 2 for degree in degrees)


def horner(coefficients: tuple[float, ...], y: Tensor) -> Tensor:
    """Σ c_i y^i, elementwise."""
    value = torch.full_like(y, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * y + c
    return value


def derivative(factor: tuple[float, ...]) -> tuple[float, ...]:
    """Coefficients in y = x² of d/dx x Σ c_i x^{2i} = Σ (2i + 1) c_i y^i."""
    return tuple((2 * i + 1) * c for i, c in enumerate(factor))
