"""Bounds of F(Q) and of min F in balls, and of the singular values at the minimum: what `icm.enclose` rests on.

F(Q) = f(σ(Q)) − ⟨G, Q⟩, and f is nondecreasing in each singular value. For any σ̃ ≥ 0 and any subgradient s of f at it
convexity gives f(σ) ≥ f(σ̃) + ⟨s, σ − σ̃⟩, so that

    F* ≥ f(σ̃) − ⟨s, σ̃⟩ − max ⟨g − s, σ⟩ ≥ f(σ̃) − ⟨s, σ̃⟩ − ρ‖(g − s)₊‖₂,      or − r̃ Σ (g_i − s_i)₊ under a wall r̃,

for any ρ ≥ ‖σ*‖₂. As f(σ) ≥ H(κ_n‖σ‖₂), every t with H(κ_n t) > ‖g‖₂ t is such a ρ: the quotient H(r)/r increases.
As f(σ) ≥ H(N(σ)) for N(σ) = E‖diag(σ)ζ‖ ≥ κ_n‖σ‖₂, so is t/κ_n for every t with H(t) > N†(g) t.
If H(r) − a r² is convex and nondecreasing, F(σ̃) − F* ≥ (a/n) ‖σ̃ − σ*‖₂². Source: docs/theory.md, on certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from icm.solvers.enclosure.curvature import Terms
from icm.solvers.enclosure.gauge import Subgradient, at_multiple, at_zero, dual_of_length
from icm.solvers.enclosure.moment import whitened_values
from icm.solvers.enclosure.newton import Point, enclose_optimum, improve
from icm.solvers.enclosure.quadrature import norm_bound
from icm.solvers.enclosure.sphere import expectation, mean_length
from icm.solvers.enclosure.svd import matrix, singular_values

_FLAT = 1e-6  # spread of a spectrum that is also tried as a multiple of the identity
_LEVEL = 1e-12  # spread of singular values for which H(σ₁) bounds f well enough
_DOUBLINGS = 2200  # from the least float to the largest
_SHARPER = 12


@dataclass(frozen=True)
class Support:
    """A point σ̃, f(σ̃) and a subgradient s there; if `exact` the point is the only optimum and s = g."""

    sigma: list[arb]
    value: arb
    s: list[arb]
    exact: bool


@dataclass(frozen=True)
class Bounds:
    """Balls of F(θQ) and of F*, 1 − θ, and per singular value of the optimum a ball and what proves it."""

    value: tuple[arb, arb]
    optimum: tuple[arb, arb]
    shrink: arb
    sigma: list[arb]
    how: list[str]


def bounds(
    terms: Terms,
    G: np.ndarray,
    Q: np.ndarray,
    sigma: np.ndarray,
    v: np.ndarray | None,
    moment: tuple[np.ndarray, np.ndarray] | None = None,
) -> Bounds:
    """The Bounds for G, Q (m, n) float64, taken exactly. `sigma` (k,) is near the spectrum of the optimum and v (k,)
    near the extremal form at a kink, if there is one: both only guide the search. `moment` = (C, S), (n, n) float64:
    inputs of second moment C, exactly, and an S near an inverse square root of it."""
    dim, wall = G.shape[1], arb(terms.wall)
    g, own = (singular_values(G), singular_values(Q)) if moment is None else whitened_values(G, Q, *moment)
    theta = arb(1)
    if (longest := max(x.upper() for x in own)) > wall:
        theta = (wall / longest).lower()
        while not longest * theta <= wall:
            theta = (theta * (1 - arb(2) ** -100)).lower()
    inner = theta * (matrix(G.reshape(1, -1)) * matrix(Q.reshape(-1, 1)))[0, 0]
    low, high = mean_bounds(terms, [theta * x for x in own], dim)
    value = ((low - inner).lower(), (high - inner).upper())
    start = np.minimum(np.abs(sigma), terms.wall)
    supports, point = _supports(terms, g, dim, start, v)
    exact = next((support for support in supports if support.exact), None)
    lower, upper = arb("-inf"), value[1]
    length = _longest(terms, g, dim, start)
    for support in supports:
        lower = max(lower, _from_support(support, g, terms.wall, length))
        along = sum((a * x for a, x in zip(g, support.sigma, strict=True)), arb(0))
        upper = min(upper, (support.value - along).upper())
    if exact is not None:
        return Bounds(value, (lower, upper), 1 - theta, exact.sigma, ["exact"] * len(g))
    optimum, how = _spectrum(terms, g, dim, point, supports, lower)
    return Bounds(value, (lower, upper), 1 - theta, optimum, how)


def mean_bounds(terms: Terms, sigma: Sequence[arb], dim: int) -> tuple[arb, arb]:
    """A lower and an upper bound of f(σ) for σ in the balls, from their ends; and H(σ₁), and for k = n H(σ_n)."""
    low, high = [x.lower().max(arb(0)) for x in sigma], [x.upper() for x in sigma]
    largest, smallest = max(high), min(low) if len(sigma) == dim else arb(0)
    lower, upper = terms.value(smallest).lower(), terms.value(largest).upper()
    if largest - smallest > _LEVEL * largest:
        lower = max(lower, expectation(terms, low, dim).value.lower())
        upper = min(upper, expectation(terms, high, dim).value.upper())
    return lower, upper


def _supports(
    terms: Terms, g: list[arb], dim: int, sigma: np.ndarray, v: np.ndarray | None
) -> tuple[list[Support], Point | None]:
    """Points of support near σ with their subgradients, and the one that Newton's method ends at."""
    k, found, point = len(g), [], None
    level = len(g) == dim and next(
        (hinge.radius for hinge in terms.kinks() if np.abs(sigma - float(hinge.radius)).max() <= _FLAT * sigma.max()),
        None,
    )
    if level and level <= terms.wall:
        left, right = terms.slope(level, right=False), terms.slope(level, right=True)
        if (sub := at_multiple(g, left, right, v)) is not None:
            found.append(Support([level] * k, terms.value(level), sub.s, sub.exact))
    if not any(support.exact for support in found) and (sub := at_zero(terms, g, dim)) is not None:
        found.append(_at_zero(k, sub))
    if not any(support.exact for support in found):
        point = improve(terms, sigma.tolist(), g, dim) if sigma.max() > 0 else None
        if point is not None:
            found.append(Support(point.sigma, point.at.value, point.slopes, False))
        elif not found:  # f ≥ 0 = f(0), and 0 is a subgradient there
            found.append(_at_zero(k, Subgradient([arb(0)] * k, False)))
    return found, point


def _at_zero(k: int, sub: Subgradient) -> Support:
    return Support([arb(0)] * k, arb(0), sub.s, sub.exact)


def _from_support(support: Support, g: Sequence[arb], wall: float, length: arb) -> arb:
    """The lower bound of F* that one point of support gives."""
    slopes = g if support.exact else support.s
    base = support.value - sum((s * x for s, x in zip(slopes, support.sigma, strict=True)), arb(0))
    if support.exact:
        return base.lower()
    missing = [(a - s).max(arb(0)).upper() for a, s in zip(g, support.s, strict=True)]
    size = norm_bound(missing)
    if size.is_zero():
        return base.lower()
    worst = (length * size).upper()
    if arb(wall).is_finite():
        worst = min(worst, (wall * sum(missing, arb(0))).upper())
    found = (base - worst).lower()
    return found if found.is_finite() else arb("-inf")


def _longest(terms: Terms, g: Sequence[arb], dim: int, sigma: np.ndarray) -> arb:
    """ρ ≥ ‖σ*‖₂ for every optimum, infinite if none was found."""
    kappa, size = mean_length(dim), norm_bound(g)
    start = float(np.linalg.norm(sigma))
    rho = _beyond(lambda t: bool(terms.value(kappa * t) > size * t), start)
    if rho is None and not arb(terms.wall).is_finite():
        dual = dual_of_length(g, dim)
        t = None if dual is None else _beyond(lambda t: bool(terms.value(t) > dual[0] * t), start)
        rho = None if t is None else t / kappa
    wall = arb(terms.wall) * arb(len(g)).sqrt()
    return wall.upper() if rho is None else min(rho.upper(), wall.upper())


def _beyond(holds: Callable[[arb], bool], start: float) -> arb | None:
    """A t for which `holds` is true, near the least one from `start` on; None if there is none among the floats."""
    t = arb(start) if start > 0 else arb(2) ** -1074
    for doubling in range(_DOUBLINGS):
        if holds(t):
            low = t / 2
            for _ in range(_SHARPER if doubling else 0):
                middle = ((low + t) / 2).mid()
                low, t = (low, middle) if holds(middle) else (middle, t)
            return t
        t *= 2
    return None


def _spectrum(
    terms: Terms, g: list[arb], dim: int, point: Point | None, supports: list[Support], lower: arb
) -> tuple[list[arb], list[str]]:
    """A ball for each singular value of the optimum, and how it was found."""
    k = len(g)
    if point is not None and (found := enclose_optimum(terms, point, g, dim)) is not None:
        return found, ["wall" if i in point.walled else "interval Newton" for i in range(k)]
    if terms.quadratic > 0:
        best = min((_excess(support, g, lower), i) for i, support in enumerate(supports))
        radius = (dim * best[0] / terms.quadratic).sqrt().upper()
        if radius.is_finite():
            middle = supports[best[1]].sigma
            return [x + arb(0, radius) for x in middle], ["strong convexity"] * k
    if not arb(terms.wall).is_finite():
        return [arb("nan")] * k, ["none"] * k
    # Where H is 0 up to the wall, every coordinate with g_i > 0 goes there, whatever the others do.
    free = not (terms.powers or terms.exponentials or terms.hinges)
    held = [free and bool(x > 0) for x in g]
    end = arb(terms.wall)
    return [end if at else arb(0).union(end) for at in held], ["wall" if at else "none" for at in held]


def _excess(support: Support, g: Sequence[arb], lower: arb) -> arb:
    """An upper bound of F(σ̃) − F*."""
    along = sum((a * x for a, x in zip(g, support.sigma, strict=True)), arb(0))
    return (support.value - along - lower).max(arb(0)).upper()
