"""The spectrum of a Gram matrix from Chebyshev moments: matrix products and traces, no decomposition.

For a symmetric A with spectrum y in [0, 1], τ_j = tr T_j(2A − I) = Σ_i T_j(2y_i − 1). Of two consecutive T_j the
traces of products give two more moments: T_a T_b = ½ (T_{a+b} + T_{|a−b|}), so K − 1 products give 2K moments.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_GRID = 400  # candidate places of the nonnegative fit
_POLISH = 15  # steps of the entries towards the moments, at most


def chebyshev_moments(A: Float[Tensor, "*batch k k"], count: int) -> Float[Tensor, "*batch count1"]:
    """τ_0 … τ_count (…, count + 1), float64, of symmetric A (…, k, k) with spectrum in [0, 1], by ⌈count/2⌉ − 1
    products in A's dtype. The traces are summed in float64."""
    k = A.shape[-1]
    one = torch.eye(k, dtype=A.dtype, device=A.device)
    B = 2 * A - one
    last, T = one.expand_as(B), B
    tau = [torch.full(A.shape[:-2], float(k), dtype=torch.float64, device=A.device)]
    tau.append(B.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64))
    while True:
        tau.append(2 * (T * T).sum((-2, -1), dtype=torch.float64) - tau[0])
        if len(tau) > count:
            return torch.stack(tau[: count + 1], -1)
        last, T = T, 2 * (B @ T) - last
        tau.append(2 * (last * T).sum((-2, -1), dtype=torch.float64) - tau[1])
        if len(tau) > count:
            return torch.stack(tau[: count + 1], -1)


def entries(tau: np.ndarray, k: int, noise: float = 1e-10) -> np.ndarray:
    """k numbers y (k,) in [0, 1], descending, whose Chebyshev sums are as near to τ (count + 1,) as can be reached, or
    within `noise` per entry: to follow the moments' own errors further would spread them over the entries.

    A nonnegative fit on a grid gives their distribution, a few least-norm Newton steps on the entries the rest.
    """
    from scipy.optimize import nnls

    orders = np.arange(len(tau))
    angle = np.linspace(0.0, math.pi, _GRID)
    # Where y is small, g = √y still needs telling apart: places in log y join the Chebyshev ones.
    grid = np.unique(np.concatenate([(1 - np.cos(angle)) / 2, np.logspace(-8, -1, _GRID // 4)]))
    weights, _ = nnls(_chebyshev(grid, orders).T, tau)
    atoms = np.repeat(grid, _counts(weights, k))
    # A quadrature rule's distribution function passes through the middle of its own steps.
    held = weights > 0
    middle = (np.cumsum(weights) - weights / 2)[held] * (k / weights.sum())
    spread = np.interp(np.arange(k) + 0.5, middle, grid[held])
    found = [_polished(start, tau, orders, noise) for start in (spread, atoms)]
    return np.sort(min(found, key=lambda y: _missing(y, tau, orders)))[::-1]


def _polished(y: np.ndarray, tau: np.ndarray, orders: np.ndarray, noise: float) -> np.ndarray:
    """y moved towards the moments by Newton's method with the least change of entries, damped, inside [0, 1]."""
    damping = 1e-10
    for _ in range(_POLISH):
        missing = tau - _chebyshev(y, orders).sum(0)
        if np.abs(missing).max() <= noise * tau[0]:
            break
        J = _chebyshev_slopes(y, orders)[:, 1:]
        free, new = np.ones_like(y), y
        for _ in range(3):  # entries that would leave [0, 1] stay at its ends, and the others make up for them
            held = J * free[:, None]
            normal = held.T @ held
            normal[np.diag_indices_from(normal)] += damping * np.trace(normal)
            new = y + held @ np.linalg.lstsq(normal, missing[1:], rcond=1e-14)[0]
            free = free * ((new >= 0) & (new <= 1))
        new = np.clip(new, 0.0, 1.0)
        if _missing(new, tau, orders) < np.abs(missing).max():
            y, damping = new, 0.1 * damping
        else:
            damping *= 100.0
    return y


def _missing(y: np.ndarray, tau: np.ndarray, orders: np.ndarray) -> float:
    return float(np.abs(tau - _chebyshev(y, orders).sum(0)).max())


def majorant(error: np.ndarray, x: np.ndarray, tau: np.ndarray, noise: np.ndarray | None = None) -> float:
    """An upper bound of Σ_i e(x_i)² over every spectrum y = x² in [0, 1] whose Chebyshev sums are τ ± `noise`, for e²
    given as `error` on the cells that end at the places `x` ascending: the least τ-sum of a polynomial above e²."""
    from scipy.optimize import linprog

    size, k = float(error.max()), float(tau[0])
    if size == 0.0 or not math.isfinite(size):
        return size
    noise = np.zeros_like(tau) if noise is None else noise
    T = _chebyshev(x * x, np.arange(len(tau)))
    # The coefficients c = a − b, a, b ≥ 0: Σ a (τ + noise) − b (τ − noise) is the largest sum that they can have.
    cost = np.concatenate([tau + noise, noise - tau]) / k
    found = linprog(cost, A_ub=np.hstack([-T, T]), b_ub=-error / size, bounds=(0, None), method="highs")
    if found.x is None:
        return k * size
    c = found.x[: len(tau)] - found.x[len(tau) :]
    # Polynomials this smooth hardly dip between the places; by as much as they do there, they are lifted.
    between = _chebyshev(np.linspace(x[:-1], x[1:], 5).ravel() ** 2, np.arange(len(tau))) @ c
    lift = max(
        0.0, float((error / size - T @ c).max()), float((error[1:] / size - between.reshape(5, -1).min(0)).max())
    )
    return min(k * size, k * size * (float(found.fun) + lift))


def _counts(weights: np.ndarray, k: int) -> np.ndarray:
    """Whole numbers that sum to k and whose running totals are nearest to those of the weights."""
    total = np.cumsum(weights) * (k / weights.sum())
    return np.diff(np.round(total), prepend=0.0).astype(np.int64)


def _chebyshev(y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    return np.cos(np.arccos(np.clip(2 * y - 1, -1, 1))[:, None] * orders)


def _chebyshev_slopes(y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """d T_j(2y − 1)/dy = 2 j U_{j−1}(2y − 1), by the recurrence: finite at the ends too."""
    z = 2 * y - 1
    U = [np.zeros_like(z), np.ones_like(z)]
    for _ in orders[2:]:
        U.append(2 * z * U[-1] - U[-2])
    return 2 * orders * np.stack(U, -1)
