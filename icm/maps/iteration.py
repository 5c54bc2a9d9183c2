"""The factors of a composition, one after the other, on matrices that are scaled already: the loop of products itself.

R = XXᵀ is kept 1/unit times larger than what the polynomials take, for number types of a short range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from icm.maps.symmetric import Products, scaled, weighted_sum

Factor = Sequence[Any]
"""(c_0, …, c_q) as numbers, or (None, d_1, …, d_q) as tensors for 1 + Σ d_i R^i, see `deferred`; (c,) multiplies by c,
a number or a tensor."""

_LEAST = 1e-6  # |c_0| and |c_1| that may be divided by


def iterated(
    X: Tensor,
    factors: Sequence[Factor],
    segments: Sequence[int],
    multiply: Products,
    unit: float,
    R: Tensor | None = None,
) -> Tensor:
    """X ← q_t(XXᵀ) X for the factors in turn; those of one segment on one Gram matrix. `R`: that of the X given, if
    known."""
    start = 0
    for length in segments:
        X = _stretch(X, factors[start : start + length], multiply, unit, R)
        start, R = start + length, None
        if start < len(factors) - 1 and len(factors[start]) == 1:
            X, start = multiply.stored((X * factors[start][0]).to(X.dtype)), start + 1
    return X * factors[start][0] if start < len(factors) else X


def settled(factors: Sequence[Factor]) -> float | None:
    """Π c_0 where `carried` takes these factors: cubics and quintics in numbers of an ordinary size. None elsewhere."""
    share = 1.0
    for c in factors:
        if not (2 <= len(c) <= 3 and all(isinstance(x, float) for x in c) and min(map(abs, c[:2])) > _LEAST):
            return None
        share *= c[0]
    return share if _LEAST < abs(share) < 1 / _LEAST else None


def carried(X: Tensor, factors: Sequence[Factor], share: float, multiply: Products) -> Tensor:
    """The factors one by one, in 16 bits on a CPU, on share · X, share = Π c_0, with no β but ±1: for every new β, but
    not for a new α, the library underneath prepares a product anew, six times as long as one takes.

    With Y = X · Π c_0 over the factors that are left, and R = |c_1| XXᵀ by its own α, X ← c_0 X + (c_1/|c_1| R +
    c_2/c_1² R²) X is Y ← Y + SY/c_0. Roundings are those of X.
    """
    inside = share**-2
    for c in factors:
        if len(c) == 2:
            X = multiply(multiply.symmetric(X, X.mT), X, X, alpha=c[1] * inside / c[0])
        else:
            empty = X.new_empty(*X.shape[:-1], X.shape[-2])
            R = multiply.symmetric(X, X.mT, empty, beta=0.0, alpha=abs(c[1]) * inside)
            S = multiply.symmetric(R, R, R, beta=math.copysign(1.0, c[1]), alpha=c[2] / c[1] ** 2)
            X = multiply(S, X, X, alpha=1 / c[0])
        inside *= c[0] ** 2
    return X


def growths(factors: Sequence[Factor]) -> list[float | None]:
    """c_0 of those that take products, None where it is not known."""
    return [c[0] if isinstance(c[0], float) else None for c in factors if len(c) > 1]


def deferred(c: Tensor, kept: bool = False) -> list[Factor]:
    """Factors that iterate X̂ = X/Π c_0, each with c_0 = 1, and Π c_0 at the end, for coefficients (…, T, q + 1).

    `kept`: after each factor X̂ is multiplied by the power of two next to its c_0, which rounds nothing and keeps X̂ the
    size of X; for factors one by one, not in stretches.
    """
    c = c[..., None, None]
    behind = torch.ones_like(c[..., 0, 0, :, :])  # X/X̂ so far
    factors: list[Factor] = []
    for t in range(c.shape[-4]):
        first = c[..., t, 0, :, :]
        rest = [c[..., t, i, :, :] / first * behind ** (2 * i) for i in range(1, c.shape[-3])]
        factors.append([None, *rest])
        behind = behind * first
        if kept:
            unit = torch.ldexp(torch.ones_like(first), first.abs().log2().round().int())
            factors.append([unit])
            behind = behind / unit
    return [*factors, [behind]]


def _stretch(X: Tensor, factors: Sequence[Factor], multiply: Products, unit: float, R: Tensor | None = None) -> Tensor:
    """Π q_t(R_t) X, R_{t+1} = q_t(R_t)² R_t from R_1 = XXᵀ; a single factor acts on X itself."""
    R = multiply.symmetric(X, X.mT) if R is None else R
    first = factors[0]
    if len(factors) == 1 and len(first) == 2 and first[0] is not None:
        return multiply(R, X, X, beta=first[0], alpha=first[1] * unit)
    S, c = _above(R, first, multiply, unit)
    if len(factors) == 1:
        return multiply(S, X, X, beta=c)
    W = S.clone()
    W.diagonal(dim1=-2, dim2=-1).add_(c)
    W = multiply.stored(W)
    for factor in factors[1:]:
        for _ in range(2):
            R = multiply.symmetric(S, R, R, beta=c)
        S, c = _above(R, factor, multiply, unit)
        W = multiply.symmetric(S, W, W, beta=c)
    return multiply(W, X)


def _above(R: Tensor, c: Factor, multiply: Products, unit: float) -> tuple[Tensor, float]:
    """(S, c_0) with q(R) = S + c_0 I: Σ_{i ≥ 1} c_i R^i, so that no c_0 is rounded into a diagonal."""
    if c[0] is None:
        return _horner(R, c[1:], multiply, unit), 1.0
    if len(c) == 2:
        return multiply.stored(scaled(R, c[1] * unit)), c[0]
    if len(c) == 5:
        B = multiply.symmetric(R, R)
        first, alpha = weighted_sum(B, c[4] * unit**4, R, c[3] * unit**3)
        rest, beta = weighted_sum(B, c[2] * unit**2, R, c[1] * unit)
        # (c₄B + c₃R + c₂I)B + c₁R, as α(B + (c₃/c₄)R)B + β(B + (c₁/c₂)R) or with the other ratios
        return multiply.symmetric(multiply.stored(first), B, multiply.stored(rest), beta=beta, alpha=alpha), c[0]
    S = multiply.symmetric(R, R, R, beta=c[-2] * unit, alpha=c[-1] * unit**2)
    for x in c[-3:0:-1]:
        S = multiply.symmetric(S, R, R, beta=x * unit, alpha=unit)
    return S, c[0]


def _horner(R: Tensor, d: Sequence[Tensor], multiply: Products, unit: float) -> Tensor:
    """Σ_{i ≥ 1} d_i R^i for tensors d_1, … that broadcast against R."""

    def times(a: Tensor) -> Tensor:
        return multiply.stored((R * (a * unit)).to(R.dtype))

    S = times(d[-1])
    for a in d[-2::-1]:
        S = multiply.symmetric(S, R, times(a), alpha=unit)
    return S
