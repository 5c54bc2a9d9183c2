"""Subgradients of f where it has no gradient: at Q = 0, and at a multiple of the identity on a kink.

Both need the point v at which a convex function h, homogeneous of degree 1, has a given slope: t = h(v) ∇h(v) at the
minimiser of ½h(v)² − ⟨t, v⟩. It is sought in float64, and what is found there is then evaluated in balls.

At σ = c·1 with k = n every ‖Qζ‖ is c, and s is a subgradient of f exactly if s_i = E[ξ ζ_i²] for some function ξ of ζ
between A = H′(c−) and B = H′(c+). Two kinds of ξ have s in closed form, and so has every mixture of them:

    ξ = (n/2) Σ ((n+2) e_i − Σe) ζ_i²    has s = e,
    ξ = A + J·1{Σ v_i ζ_i² > 0}          has s_i = A/n + J ∂h/∂v_i,    h(v) = E(Σ v_i ζ_i²)₊.

If ξ stays strictly between A and B while s = g, then g has a neighbourhood of subgradients: σ = c·1 is the optimum,
and the only one. At σ = 0 every t ∇N(v), 0 ≤ t ≤ H′(0+), N(v) = E‖diag(v)ζ‖, is a subgradient.
Source: docs/theory.md, on kinks; E ζ_i²ζ_j² = (1 + 2δ_ij)/(n(n+2)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from icm.solvers.enclosure.curvature import Terms
from icm.solvers.enclosure.quadrature import Unresolved, norm_bound
from icm.solvers.enclosure.sphere import expectation, gradient, hessian, hinge_of_form, mean_length

_MIXTURES = (1e-3, 1e-7)  # of the constant (A + B)/2 in ξ, which leaves room to correct s
_ITERATIONS = 40
_SKETCH = 40  # bits of the evaluations in the iteration

Gauge = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Subgradient:
    """s (k balls); `exact` says that every vector near g is a subgradient too, so that the point is the optimum."""

    s: list[arb]
    exact: bool


def at_zero(terms: Terms, g: Sequence[arb], dim: int) -> Subgradient | None:
    """A subgradient at σ = 0 above g if there is one; None if H′(0+) = 0 or nothing was found."""
    slope = terms.slope(arb(0), right=True)
    if all(x.is_zero() for x in g):
        # H > 0 on r > 0, and so f > 0 off σ = 0, unless H is 0 on an interval.
        return Subgradient(list(g), any(c > 0 for _, c in (*terms.powers, *terms.exponentials)))
    if not slope > 0:
        return None
    found = dual_of_length(g, dim)
    if found is None:
        return None
    exact = bool(found[0] < slope)
    return Subgradient(list(g) if exact else [slope * x for x in found[1]], exact)


def dual_of_length(g: Sequence[arb], dim: int) -> tuple[arb, list[arb]] | None:
    """(an upper bound of N† = max ⟨g, v⟩/N(v), ∇N(v) near the maximiser), or None.

    With s = ∇N(v) every v′ has ⟨s, v′⟩ ≤ N(v′) and κ_n‖v′‖₂ ≤ N(v′), so that N† ≤ θ + ‖(g − θs)₊‖₂/κ_n for all θ ≥ 0.
    """
    line = Terms([(arb(1), arb(1))], [], [], float("inf"), arb(0))

    def gauge(v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        x = [arb(value) for value in v.tolist()]
        at = expectation(line, x, dim, 2, _SKETCH)
        return float(at.value.mid()), _floats(gradient(x, at)), np.array([_floats(row) for row in hessian(x, at)])

    t = _floats(g)
    if not t.max() > 0:
        return None
    try:
        v = np.abs(_dual_point(gauge, t, dim * t))
        x = [arb(value) for value in v.tolist()]
        at = expectation(line, x, dim, 1)
    except (Unresolved, np.linalg.LinAlgError):
        return None
    s = gradient(x, at)
    theta = (sum((a * b for a, b in zip(g, x, strict=True)), arb(0)) / at.value).mid()
    missing = norm_bound((a - theta * b).max(arb(0)) for a, b in zip(g, s, strict=True))
    return (theta + missing / mean_length(dim)).upper(), s


def at_multiple(g: Sequence[arb], left: arb, right: arb, start: np.ndarray | None = None) -> Subgradient | None:
    """A subgradient at σ = c·1, k = n, near g, for H′(c−) = left ≤ H′(c+) = right; `start` is near the v of g."""
    dim = len(g)
    low, high = _range(g)
    if low > left and high < right:
        return Subgradient(list(g), True)
    if dim == 1 or not right > left:
        return None
    middle, room, v, best = (left + right) / 2, right - left, start, None
    for share in _MIXTURES:
        t = [(x - share * middle / dim) / (1 - share) - left / dim for x in g]
        if not all(x > 0 for x in t):
            continue
        v = _form(t, v)
        if v is None:
            return best
        try:
            at = hinge_of_form([arb(x) for x in v.tolist()], 1)
        except Unresolved:
            return best
        jump = at.value.mid()
        if not jump <= room:
            clipped = [left / dim + room * w for w in at.weights]
            best = best or Subgradient(clipped, False)
            continue
        s = [(1 - share) * (left / dim + jump * w) + share * middle / dim for w in at.weights]
        low, high = _range([x - y for x, y in zip(g, s, strict=True)])
        if share * room / 2 + low > 0 and (1 - share) * (room - jump) + share * room / 2 > high:
            return Subgradient(list(g), True)
        best = Subgradient(s, False)
    return best


def _range(e: Sequence[arb]) -> tuple[arb, arb]:
    """Bounds of ξ = (n/2) Σ ((n+2) e_i − Σe) ζ_i² over the sphere."""
    n, total = len(e), sum(e, arb(0))
    values = [arb(n) / 2 * ((n + 2) * x - total) for x in e]
    return min(x.lower() for x in values), max(x.upper() for x in values)


def _form(t: Sequence[arb], start: np.ndarray | None) -> np.ndarray | None:
    """v with h(v) ∇h(v) ≈ t for h(v) = E(Σ v_i ζ_i²)₊, t > 0 not all equal; None if the search fails."""

    def gauge(v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        at = hinge_of_form([arb(value) for value in v.tolist()], 2, _SKETCH)
        return float(at.value.mid()), _floats(at.weights), np.array([_floats(row) for row in at.second])

    target = _floats(t)
    try:
        return _dual_point(gauge, target, _shifted(target) if start is None else start)
    except (Unresolved, np.linalg.LinAlgError):
        return None


def _shifted(t: np.ndarray) -> np.ndarray:
    """The best of some v_i = a − 1/t_i of both signs, by ⟨t, v⟩/h(v): a v of this kind is exact far in the tail."""
    inverse = 1 / t
    low, high = float(inverse.min()), float(inverse.max())
    trials = [(low + (high - low) * share) - inverse for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)]

    def score(v: np.ndarray) -> float:
        return float(t @ v) / float(hinge_of_form([arb(x) for x in v.tolist()], 0, _SKETCH).value.mid())

    return max(trials, key=score)


def _dual_point(gauge: Gauge, t: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The minimiser of ½h² − ⟨t, v⟩ for gauge(v) = (h, ∇h, ∇²h), by Newton's method with halved steps."""
    size = float(np.abs(t).max())
    t = t / size
    v = start / np.abs(start).max()
    h, slope, bend = gauge(v)
    v = v * (float(t @ v) / h**2) if t @ v > 0 else v
    h, slope, bend = gauge(v)
    for _ in range(_ITERATIONS):
        residual = h * slope - t
        if np.abs(residual).max() < 1e-14:
            break
        matrix = h * bend + np.outer(slope, slope)
        matrix += 1e-13 * np.trace(matrix) * np.eye(len(t))
        step, height = np.linalg.solve(matrix, residual), 0.5 * h * h - t @ v
        share = min(1.0, 2 * float(np.abs(v).max() / np.abs(step).max()))
        trial, found = v - share * step, gauge(v - share * step)
        for _ in range(20):
            drop = height - (0.5 * found[0] ** 2 - t @ trial)
            curved = bool(found[2].any())  # on v > 0 alone h is linear, and Newton's method lost
            if curved and (drop >= 0.1 * share * float(step @ residual) or abs(drop) < 1e-13 * abs(height)):
                break
            share /= 2
            trial, found = v - share * step, gauge(v - share * step)
        v, (h, slope, bend) = trial, found
        if share * np.abs(step).max() < 1e-15 * np.abs(v).max():
            break
    return v * size


def _floats(values: Sequence[arb]) -> np.ndarray:
    return np.array([float(x.mid()) for x in values])
