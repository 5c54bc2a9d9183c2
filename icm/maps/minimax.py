"""The p(θ) nearest to its target in the maximum norm: sequential linear programmes in a trust region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DECIMATION = 6  # of the rows that are no local extremes of |r|


@dataclass(frozen=True, eq=False)
class Linear:
    """The constraints A θ ≥ b and E θ = e."""

    A: Array
    b: Array
    E: Array
    e: Array


def polish(
    values: Callable[[Array], Array],
    jacobian: Callable[[Array], tuple[Array, Array]],
    target: tuple[Array, Array],
    theta: Array,
    constraints: Callable[[Array], Linear] | None = None,
    *,
    radius: float = 0.02,
    rounds: int = 40,
    tolerance: float = 1e-4,
) -> tuple[Array, float]:
    """(θ, error) near `theta` such that the error, how far v(θ) leaves low ≤ v ≤ high at the worst, is least locally.

    `values` gives v (N), `jacobian` v and ∂v/∂θ as (N, P), N points in order; `target` (low, high). Each round solves

        min t   over d, t:   low − t ≤ v + J d ≤ high + t,   |d_k| ≤ Δ (|θ_k| + 1/10),   A (θ + d) ≥ b,   E (θ + d) = e

    and takes θ + d if the error falls by a twentieth of what the programme promised at least; Δ grows where it kept its
    promise, shrinks where not. Rows: every local extreme of the error with its neighbours, and each sixth point
    besides. As many extremes as parameters end level (Chebyshev's equioscillation), and there convergence is quadratic.
    It ends when the promise is below `tolerance` of the error, which never rises. `constraints` gives A, b, E, e anew
    at each θ, which meets them, so that a constraint at infinitely many places can add the rows that bind there.

    Method: Madsen & Schjær-Jacobsen, Linearly constrained minimax optimization, Math. Programming 14 (1978).
    """
    from scipy.optimize import linprog

    low, high = target

    def excess(v: Array) -> Array:
        return np.maximum(v - high, low - v)

    size = len(theta)
    cost = np.append(np.zeros(size), 1.0)
    error = float(excess(values(theta)).max())
    for _ in range(rounds):
        v, J = jacobian(theta)
        rows = _rows(excess(v))
        c = constraints(theta) if constraints is not None else None
        unit = np.abs(theta) + 0.1
        after, promised, moved = error, 0.0, None
        while radius > 1e-10 and error > 0:
            # In units of the trust region and the error, so that the solver's absolute tolerances suit any precision.
            slope = J[rows] * (unit * radius / error)
            ones = np.ones((len(slope), 1))
            A = [np.hstack([slope, -ones]), np.hstack([-slope, -ones])]
            b = [(high - v)[rows] / error, (v - low)[rows] / error]
            equal: dict[str, Array] = {}
            if c is not None:
                A.append(np.hstack([-c.A * (unit * radius), np.zeros((len(c.A), 1))]))
                b.append(c.A @ theta - c.b)
                if len(c.E):
                    E = np.hstack([c.E * (unit * radius), np.zeros((len(c.E), 1))])
                    equal = {"A_eq": E, "b_eq": c.e - c.E @ theta}
            bounds = [(-1.0, 1.0)] * size + [(0.0, None)]
            step = linprog(cost, np.vstack(A), np.concatenate(b), bounds=bounds, method="highs-ds", **equal)
            if step.x is None:
                radius /= 4
                continue
            trial = theta + unit * radius * step.x[:size]
            promised = error * (1 - step.x[-1])
            after = float(excess(values(trial)).max())
            if error - after >= max(0.05 * promised, 1e-15 * error):
                moved = trial
                break
            radius *= 0.3 * float(np.abs(step.x[:size]).max())
        if moved is None:
            break
        theta = moved
        radius = min(2 * radius, 0.3) if error - after > 0.7 * promised else radius
        ended = promised < tolerance * error
        error = after
        if ended:
            break
    return theta, error


def _rows(size: Array) -> NDArray[np.bool_]:
    """Local maxima of the error with their neighbours, the ends, and every few points."""
    top = np.zeros(len(size), dtype=bool)
    top[1:-1] = (size[1:-1] >= size[:-2]) & (size[1:-1] >= size[2:])
    top[[0, -1]] = True
    rows = top.copy()
    rows[1:] |= top[:-1]
    rows[:-1] |= top[1:]
    rows[::_DECIMATION] = True
    return rows
