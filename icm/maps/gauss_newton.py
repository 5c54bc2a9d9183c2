"""The composition nearest to φ in the maximum norm: Gauss–Newton steps, with ever more weight on the worst points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.minimax import polish
from icm.maps.squares import increasing, odd, root, slopes, square, steepest, unit

Array = NDArray[np.float64]

_TAME = 1.1  # times φ(1): what p may reach just beyond 1, where rounding takes singular values in 16 bits
_BEYOND = np.linspace(1.0005, 1.01, 16)
_SEARCHED = 5  # factors at most that are searched for; longer compositions grow from shorter ones
_POWERS = (2, 6, 16, 40)  # of |p − φ|, one after the other, towards the maximum norm


def best_composition(
    phi: Callable[[Any], Any],
    lower: float,
    degrees: Sequence[int],
    monotone: bool = False,
    start: Composition | None = None,
    *,
    nodes: int = 240,
    tries: int = 100,
    progress: Callable[[str], None] | None = None,
) -> Composition:
    """A composition p of odd polynomials of these degrees with max |p − φ| on [lower, 1] least, as far as found.

    φ maps float64 tensors in [0, 1] to φ(x) ≥ 0, nondecreasing. On [0, lower) p stays within the same error of [0,
    φ(lower)], and on (1, 1.01] of [0.5 φ(1), 1.1 φ(1)]. With `monotone`, p' > 0 on [0, 1]. The problem is not convex:
    many starts, in proportion to `tries`, are screened by least squares, the best are carried on to the maximum norm,
    and the very best polished by linear programmes (`icm.maps.minimax`), a second or two in all. More than five factors
    are found by adding one at a time, seconds each, so that the error falls with each. From a `start`, the optimum for
    a similar φ, `refine` alone is run, some milliseconds. `nodes`: points of [0, 1] where φ is looked at, spread over
    x, log x, φ(x) and the bends of φ alike.

    Raises InputError for a start of other degrees.
    """
    if start is not None and start.degrees != tuple(degrees):
        raise InputError(f"start has degrees {start.degrees}, but degrees={tuple(degrees)} are asked for")
    tell = progress or (lambda line: None)
    x, y, size = _sampled(phi, lower, nodes)
    if start is not None:
        last = start.rescaled(outside=1 / size)
        factors, _ = refine(x, y, [np.array(factor) for factor in last.factors], monotone, lower)
        return _composition(factors, size)
    fine, level, _ = _sampled(phi, lower, 5 * nodes)
    first = tuple(degrees)[:_SEARCHED]
    starts = _screened(x, y, first, lower, tries)
    tell(f"{'·'.join(map(str, first))}: least squares from {5 * tries} starts")
    found: list[tuple[float, Sequence[Array]]] = []
    for length in range(len(first), len(degrees) + 1):
        if length > len(first):
            starts = [longer for _, f in found[:2] for longer in _lengthened(f, tuple(degrees)[:length])]
        ranked = _ranked(x, y, starts, monotone, lower, _POWERS, 25)[:4]
        found = sorted((_polished(fine, level, f, monotone, lower) for _, f in ranked), key=lambda end: end[0])
        tell(f"{length} factors: {ranked[0][0]:.3e}, polished {found[0][0]:.3e}")
    return _composition(found[0][1], size)


def refine(
    x: Array,
    y: Array,
    start: Sequence[Array],
    monotone: bool = False,
    lower: float = 0.0,
    powers: Sequence[int] = _POWERS,
    rounds: int = 10,
    weights: Array | None = None,
) -> tuple[list[Array], float]:
    """(factors, max w|p − y| at the points) near `start`: the lean inner call, on ascending points x and values y ≤ 1.

    Levenberg–Marquardt on Σ |w_i (p(x_i) − y_i)|^k, w = 1 without `weights`, for k = 2 and then rising powers, at most
    `rounds` steps each: the Newton step of the power is the weighted Gauss–Newton step, weights |r|^{k−2}, divided by
    k − 1. At x < lower the residual is what p lacks of [0, y(lower)], at x > 1 of [0.5 y(1), 1.1 y(1)]. Where
    `monotone` is asked, a start that is not is made so first. A start that leads nowhere has error ∞.
    """
    model = _Model(x, y, [len(factor) - 1 for factor in start], monotone, lower, weights)
    with np.errstate(all="ignore"):
        try:
            theta = model.parameters(start)
        except np.linalg.LinAlgError:  # a factor that vanishes at 1 cannot be scaled to increase
            return list(start), math.inf
        damping, best, least = 1e-3, theta, math.inf
        for power in powers:
            theta, damping = _descend(model, theta, power, damping, rounds)
            error = float(np.abs(model.residual(model.values(theta))).max())
            if error < least:
                best, least = theta, error
        return model.factors(best), least


def _screened(x: Array, y: Array, degrees: Sequence[int], lower: float, tries: int) -> list[Sequence[Array]]:
    """The best by least squares of `tries` increasing starts, kept so and not, and 3 · `tries` others."""
    ordered = _ranked(x, y, _starts(degrees, True, tries), True, lower, (2,), 10)[: max(6, tries // 10)]
    ordered += _ranked(x, y, _starts(degrees, True, tries), False, lower, (2,), 10)[: max(6, tries // 10)]
    free = _ranked(x, y, _starts(degrees, False, 3 * tries), False, lower, (2,), 10)[: max(6, tries // 5)]
    return [factors for _, factors in ordered + free]


def _lengthened(factors: Sequence[Array], degrees: Sequence[int]) -> list[Sequence[Array]]:
    """The composition with one factor more, that takes x to itself or nearly so, at each place the degrees allow."""
    out = []
    for place in range(len(degrees)):
        q = [(d - 1) // 2 for d in degrees]
        if any(len(f) > q[t + (t >= place)] + 1 for t, f in enumerate(factors)):
            continue
        longer = [np.pad(f, (0, q[t + (t >= place)] + 1 - len(f))) for t, f in enumerate(factors)]
        for weight in (0.0, 0.2):
            extra = (1 - weight) * np.eye(q[place] + 1)[0] + weight * steepest(q[place])
            out.append([*longer[:place], extra, *longer[place:]])
    return out


def _ranked(
    x: Array,
    y: Array,
    starts: Sequence[Sequence[Array]],
    monotone: bool,
    lower: float,
    powers: Sequence[int],
    rounds: int,
) -> list[tuple[float, list[Array]]]:
    """The distinct ends of `refine` with their errors, the best first."""
    ends: list[tuple[float, list[Array]]] = []
    for start in starts:
        factors, error = refine(x, y, start, monotone, lower, powers, rounds)
        if math.isfinite(error):
            ends.append((error, factors))
    ends.sort(key=lambda end: end[0])
    return [end for i, end in enumerate(ends) if i == 0 or end[0] > 1.001 * ends[i - 1][0]]


def nodes_of(phi: Callable[[Any], Any], lower: float, count: int) -> Array:
    """`count` points of (0, 1], 1 and, if positive, `lower` among them: dense near 0 and where φ rises or bends."""
    fine = np.concatenate([[0.0], np.geomspace(1e-7, 1, 4000)])
    y, _ = _values(phi, fine)
    bend = np.abs(np.diff(np.diff(y[1:]), prepend=0.0, append=0.0))  # of φ over log x
    measures = [(fine, 0.3), (np.log1p(fine / max(lower, 1e-3)), 0.3), (y, 0.25)]
    measures.append((np.concatenate([[0.0, 0.0], np.cumsum(bend[1:])]), 0.15))
    total = np.sum([weight * (m - m[0]) / max(m[-1] - m[0], 1e-300) for m, weight in measures], axis=0)
    points = np.interp(np.linspace(0, 1, count + 1)[1:], total / total[-1], fine)
    points = np.maximum.accumulate(points)
    if lower > 0:
        points[np.abs(points - lower).argmin()] = lower
    points[-1] = 1.0
    return np.unique(points[points > 0])


def _sampled(phi: Callable[[Any], Any], lower: float, count: int) -> tuple[Array, Array, float]:
    """Nodes, those beyond 1 included, φ/φ(1) there (its last value beyond), and φ(1)."""
    x = nodes_of(phi, lower, count)
    y, size = _values(phi, x)
    return np.append(x, _BEYOND), np.append(y, np.ones(len(_BEYOND))), size


def _values(phi: Callable[[Any], Any], x: Array) -> tuple[Array, float]:
    """φ(x)/φ(1) and φ(1)."""
    y = np.asarray(phi(torch.from_numpy(np.append(x, 1.0))), dtype=np.float64)
    size = float(y[-1])
    if not (math.isfinite(size) and size > 0):
        raise InputError(f"φ(1) = {size:.6g}: a map to fit is positive and finite there")
    return y[:-1] / size, size


class _Model:
    """v(θ) = p(x) and its Jacobian by the chain rule, and the target low ≤ v ≤ high: y itself on [lower, 1], below it
    what lies between 0 and y(lower), above 1 anything tame. θ: the coefficients c, or the h of monotone factors."""

    def __init__(self, x: Array, y: Array, q: list[int], monotone: bool, lower: float, weights: Array | None = None):
        self.x, self.q, self.monotone, self.weights = x, q, monotone, weights
        ends = list(itertools.accumulate(d + 1 for d in q))
        self.spans = [slice(end - d - 1, end) for end, d in zip(ends, q, strict=True)]
        below, above = int(np.searchsorted(x, lower)), int(np.searchsorted(x, 1.0, "right"))
        self.low, self.high = y.copy(), y.copy()
        self.low[:below], self.high[:below] = 0.0, y[min(below, len(y) - 1)]
        self.low[above:], self.high[above:] = 0.5 * y[above - 1], _TAME * y[above - 1]
        self.free = below > 0 or above < len(x)

    def parameters(self, factors: Sequence[Array]) -> Array:
        if self.monotone:
            factors = unit(factors)
            return np.concatenate([root(c) for c in factors])
        return np.concatenate([np.asarray(c, dtype=np.float64) for c in factors])

    def factors(self, theta: Array) -> list[Array]:
        return self._expand(theta)[0]

    def values(self, theta: Array) -> Array:
        v = self.x
        for c in self._expand(theta)[0]:
            squared = v * v
            value = c[-1]
            for k in c[-2::-1]:
                value = value * squared + k
            v = v * value
        return v

    def residual(self, v: Array) -> Array:
        """How far v is from its target, with sign, times the weights."""
        r = v - np.clip(v, self.low, self.high) if self.free else v - self.low
        return r if self.weights is None else self.weights * r

    def jacobian(self, theta: Array) -> tuple[Array, Array]:
        """v and ∂v/∂θ, (P, N), times the weights."""
        factors, inner = self._expand(theta)
        v, powers, along = self.x, [], []
        for c in factors:
            squared = v * v
            P = np.empty((len(c), len(v)))
            P[0] = 1
            for i in range(1, len(c)):
                np.multiply(P[i - 1], squared, out=P[i])
            along.append((c * odd(len(c) - 1)) @ P)
            P *= v
            powers.append(P)
            v = c @ P
        chain, J = np.ones_like(v) if self.weights is None else self.weights, []
        for t in range(len(factors) - 1, -1, -1):
            block = powers[t] * chain
            J.append(block if inner is None else inner[t].T @ block)
            chain = chain * along[t]
        return v, np.concatenate(J[::-1])

    def _expand(self, theta: Array) -> tuple[list[Array], list[Array] | None]:
        """The factors' coefficients, and their derivatives with respect to h where θ is that."""
        parts = [theta[span] for span in self.spans]
        if not self.monotone:
            return parts, None
        pairs = [square(h, t + 1 < len(parts)) for t, h in enumerate(parts)]
        return [c for c, _ in pairs], [D for _, D in pairs]


def _descend(model: _Model, theta: Array, power: int, damping: float, rounds: int) -> tuple[Array, float]:
    """Levenberg–Marquardt steps on Σ |r|^power, until one gains less than a thousandth; θ and the damping."""

    def merit(r: Array) -> float:
        top = float(np.abs(r).max())
        return top * float(np.mean((np.abs(r) / top) ** power)) ** (1 / power) if 0 < top < math.inf else top

    v, J = model.jacobian(theta)
    r = model.residual(v)
    value = merit(r)
    for _ in range(rounds):
        weight = (np.abs(r) / np.abs(r).max()) ** (power - 2) if power > 2 else np.ones_like(r)
        if model.free:
            weight = weight * (r != 0)
        A, b = (J * weight) @ J.T, J @ (weight * r)
        if not (0 < value < math.inf and np.isfinite(A).all()):
            break
        diagonal = np.diag(A) + 1e-12 * A.diagonal().max()
        for _ in range(6):
            try:
                moved = theta - np.linalg.solve(A + np.diag(damping * diagonal), b) / (power - 1)
            except np.linalg.LinAlgError:
                damping = max(10 * damping, 1e-8)
                continue
            if (after := merit(model.residual(model.values(moved)))) < value:
                break
            damping = max(6 * damping, 1e-8)
        else:
            break
        gain, theta, value, damping = 1 - after / value, moved, after, max(damping / 6, 1e-10)
        if gain < 1e-3:
            break
        v, J = model.jacobian(theta)
        r = model.residual(v)
    return theta, damping


def _polished(
    x: Array, y: Array, factors: Sequence[Array], monotone: bool, lower: float
) -> tuple[float, Sequence[Array]]:
    """The minimax solution near `factors`, by linear programmes in the coefficients, and its error."""
    model = _Model(x, y, [len(c) - 1 for c in factors], False, lower)
    if monotone:
        factors = unit(factors)

    def jacobian(theta: Array) -> tuple[Array, Array]:
        v, J = model.jacobian(theta)
        return v, J.T

    constraints = (lambda theta: slopes(model.factors(theta))) if monotone else None
    with np.errstate(all="ignore"):
        theta, error = polish(model.values, jacobian, (model.low, model.high), np.concatenate(factors), constraints)
    if monotone:
        theta = np.concatenate([increasing(c) for c in unit(model.factors(theta))])
        error = float(np.abs(model.residual(model.values(theta))).max())
    return error, model.factors(theta)


def _composition(factors: Sequence[Array], size: float) -> Composition:
    return Composition(tuple(tuple(map(float, c)) for c in factors)).rescaled(outside=size)


def _starts(degrees: Sequence[int], monotone: bool, tries: int) -> list[list[Array]]:
    """Blends of the identity with the steepest factors, by weights spread evenly over the cube (a Kronecker sequence);
    weights above 1 overshoot, as factors that need not be monotone may, scaled to stay within [−1, 1]."""
    T = len(degrees)
    golden = _plastic(T)
    out = []
    x = np.linspace(0, 1, 101)
    for k in range(tries):
        weights = ((k + 0.5) * golden) % 1.0
        weights = weights if monotone or k % 3 == 0 else 1.5 * weights
        factors = []
        for degree, weight in zip(degrees, weights, strict=True):
            q = (degree - 1) // 2
            c = (1 - weight) * np.eye(q + 1)[0] + weight * steepest(q)
            value = x * np.polynomial.polynomial.polyval(x * x, c)
            factors.append(c / max(1.0, float(np.abs(value).max())))
        out.append(factors)
    return out


def _plastic(size: int) -> Array:
    """1/g, 1/g², … modulo 1 for the root g > 1 of g^{size+1} = g + 1: the steps of a well-spread sequence."""
    g = 1.5
    for _ in range(60):
        g = (1 + g) ** (1 / (size + 1))
    return np.asarray((1 / g) ** np.arange(1.0, size + 1) % 1.0)
