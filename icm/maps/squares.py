"""Increasing factors: their slopes as squares, as linear constraints, and as numbers that are surely positive.

A composition is monotone, p' > 0 on [0, 1], just when each factor is on its range: p' is the product of the factors'
slopes along an orbit, and each factor passes all of its range. There every factor is scaled to map [0, 1] onto [0, 1],
but for the last, and its slope is written as the square that a nonnegative polynomial on an interval is: with
y = x² = (1 + cos θ)/2,

    p_t'(x) = |h_0 + h_1 e^{iθ} + … + h_q e^{iqθ}|² + margin        (Fejér and Riesz)

so that monotone compositions are fitted without constraints, in as many unknowns h as there are coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from icm.maps.minimax import Linear

Array = NDArray[np.float64]

MARGIN = 1e-6  # the least slope of a monotone factor that maps [0, 1] onto [0, 1]
_CHEBYSHEV = 0.5 + 0.5 * np.cos(np.linspace(0, math.pi, 49))  # in y, where a factor's slope is constrained


def slopes(factors: Sequence[Array]) -> Linear:
    """The slope of each factor at least the margin at Chebyshev points and where it is least now; 1 taken to 1."""
    width, at = sum(len(c) for c in factors), 0
    A, E = [], np.zeros((len(factors) - 1, width))
    for t, c in enumerate(factors):
        y = np.concatenate([_CHEBYSHEV, turns(c)])
        A.append(np.zeros((len(y), width)))
        A[-1][:, at : at + len(c)] = odd(len(c) - 1) * y[:, None] ** np.arange(len(c))
        E[t : t + 1, at : at + len(c)] = 1
        at += len(c)
    rows = np.vstack(A)
    return Linear(rows, np.full(len(rows), MARGIN), E, np.ones(len(E)))


def turns(c: Array) -> Array:
    """The y = x² in (0, 1) where the slope of the factor is stationary."""
    roots = np.polynomial.Polynomial(c * odd(len(c) - 1)).deriv().roots()
    real = np.asarray(roots.real, dtype=np.float64)
    return real[(real > 0) & (real < 1)]


def increasing(c: Array) -> Array:
    """The factor plus the multiple of x that lifts its least slope on [0, 1] to half the margin, p(1) kept."""
    slope = np.polynomial.Polynomial(c * odd(len(c) - 1))
    lack = 0.5 * MARGIN * c.sum() - float(slope(np.concatenate([[0.0, 1.0], turns(c)])).min())
    if lack <= 0:
        return c
    lifted = c.copy()
    lifted[0] += lack * (1 + 2 * MARGIN)
    return lifted * (c.sum() / lifted.sum())


def unit(factors: Sequence[Array]) -> list[Array]:
    """The same composition, every factor but the last scaled to take 1 to 1."""
    out, inside = [], 1.0
    for t, c in enumerate(factors):
        c = np.asarray(c, dtype=np.float64) * inside ** odd(len(c) - 1)
        inside = float(c.sum()) if t + 1 < len(factors) else 1.0
        out.append(np.asarray(c / inside, dtype=np.float64))
    return out


@lru_cache
def odd(q: int) -> Array:
    """(1, 3, …, 2q + 1): the exponents of a factor."""
    return np.arange(1.0, 2 * q + 2, 2)


@lru_cache
def _integrals(q: int) -> Array:
    """Column k: coefficients c of the x Σ c_i x^{2i} whose slope is T_k(2x² − 1)."""
    double = np.polynomial.Polynomial([-1.0, 2.0])
    shifted = [np.polynomial.Polynomial(chebyshev.cheb2poly([0.0] * k + [1.0]))(double) for k in range(q + 1)]
    monomials = np.array([np.pad(p.coef, (0, q + 1 - len(p.coef))) for p in shifted], dtype=np.float64).T
    return monomials / odd(q)[:, None]


def square(h: Array, normalise: bool) -> tuple[Array, Array]:
    """c of the factor with slope |Σ h_k e^{ikθ}|² + margin, and ∂c/∂h; normalised to take 1 to 1 if asked."""
    half = _form(len(h) - 1) @ h
    c, D = half @ h, 2 * half
    c[0] += MARGIN
    if normalise:
        total = c.sum()
        c = c / total
        D = (D - np.outer(c, D.sum(0))) / total
    return c, D


@lru_cache
def _form(q: int) -> Array:
    """K (q + 1, q + 1, q + 1), symmetric in its last two: c_i = Σ K_ijk h_j h_k for the slope |Σ h_k e^{ikθ}|²."""
    lag = np.abs(np.subtract.outer(np.arange(q + 1), np.arange(q + 1)))  # |Σ h_k e^{ikθ}|² = Σ h_j h_k cos (j − k)θ
    return _integrals(q)[:, lag]


def root(c: Array) -> Array:
    """h for the factor c, its slope lifted first where it lies below the margin: by the roots within the circle."""
    c = increasing(c)
    a = np.linalg.solve(_integrals(len(c) - 1), c)
    a[0] -= 0.25 * MARGIN * c.sum()
    laurent = np.concatenate([a[:0:-1] / 2, a[:1], a[1:] / 2])
    while len(laurent) > 1 and abs(laurent[0]) < 1e-14 * np.abs(laurent).max():
        laurent = laurent[1:-1]
    roots = np.roots(laurent)
    roots = roots[np.argsort(np.abs(roots))][: len(laurent) // 2]
    h = np.atleast_1d(np.real(np.poly(roots)))
    h = np.pad(h, (0, len(c) - len(h)))
    return np.asarray(h * math.sqrt(a[0] / (h @ h)), dtype=np.float64)


@lru_cache
def steepest(q: int) -> Array:
    """The factor of [0, 1] onto itself with p' ≥ 0 and p'(0) greatest."""
    from scipy.optimize import linprog

    y = 0.5 + 0.5 * np.cos(np.linspace(0, math.pi, 400))
    A = -odd(q) * y[:, None] ** np.arange(q + 1)
    ends = {"A_eq": np.ones((1, q + 1)), "b_eq": [1.0], "bounds": (None, None)}
    return linprog(-np.eye(q + 1)[0], A, np.zeros(len(A)), **ends, method="highs").x
