"""Moments of the sphere as contour integrals in ball arithmetic: what one kernel gives at one spectrum.

With d_i = λ_i − u over all n coordinates, M(τ) = Π (1 − 2τd_i)^{−1/2} and a kernel K, along Re τ = τ₀ > 0 where all
1 − 2τ₀d_i > 0,

    f    = (1/2πi) ∫ M K dτ,      ∂f/∂λ_i = (1/2πi) ∫ M K b_i dτ,      b_i = τ/(1 − 2τd_i),
    ∂²f/∂λ_i∂λ_j = (1 + 2δ_ij) (1/2πi) ∫ M K b_i b_j dτ,

because ∂M/∂λ_i = M b_i and ∂b_i/∂λ_i = 2b_i². The integrand is conjugate under conjugation, so that the upper half of
the line serves: τ = τ₀ + i w sinh x, 0 ≤ x ≤ X, and (1/π) Re of the integral over Im τ. Beyond Y = w sinh X every
factor is bounded by a power of y = Im τ. τ₀ is near the saddle point and w the width there; both are floats, and
whatever they are the result is a theorem. See docs/theory.md, section 5; `quadrature` bounds the error.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import acb, acb_mat, arb

from icm.solvers.enclosure.quadrature import Unresolved, integrate

_FARTHEST = 260  # of x: sinh x is beyond 1e100 by then


class Kernel(ABC):
    """K(τ), analytic off (−∞, 0]."""

    @abstractmethod
    def at(self, tau: acb) -> acb:
        """K(τ)."""

    @abstractmethod
    def bound(self, tau: acb) -> arb:
        """An upper bound of |K| on a ball off (−∞, 0]. At iY it is one of (y/Y)^decay |K| wherever Re τ > 0 and
        |τ| ≥ y ≥ Y."""

    @property
    @abstractmethod
    def decay(self) -> arb:
        """The least exponent of 1/|τ| in K."""

    @abstractmethod
    def logarithms(self) -> tuple[np.ndarray, np.ndarray]:
        """(log |c|, a) of the terms c τ^{−a} that K is near to on the positive axis, in float64."""


@dataclass(frozen=True)
class Moments:
    """f, its derivatives w_i in λ_i and second derivatives f_ij, as balls; the latter two as far as asked for."""

    value: arb
    weights: list[arb]
    second: list[list[arb]]


@dataclass(frozen=True)
class Line:
    """The path τ₀ + i w sinh x for the factors 1 − 2τd: one for each d that is differentiated in, and for those at
    `rest`, (d, count), which are not."""

    d: list[arb]
    rest: list[tuple[arb, int]]
    kernel: Kernel
    order: int
    tau0: arb
    width: arb

    def integrand(self, x: acb, analytic: bool) -> tuple[list[acb], list[acb]]:
        """(M K τ′/i · b, b) for b = (1, b_1, …, b_k); the second is 1 below order 2, and the first M K alone at 0."""
        tau, speed = self._point(x)
        if analytic:
            return self._bounds(tau, speed)
        factors = [1 - 2 * tau * d for d in self.d]
        logarithm = acb(0)
        for z in factors:
            logarithm += z.log()
        for d, count in self.rest:
            logarithm += (1 - 2 * tau * d).log() * count
        weight = (-logarithm / 2).exp() * self.kernel.at(tau) * speed
        vector = [acb(1), *(tau / z for z in factors)] if self.order else [acb(1)]
        return [weight * b for b in vector], vector if self.order == 2 else [acb(1)]

    def _point(self, x: acb) -> tuple[acb, acb]:
        """(τ, τ′/i) at a ball x, from its middle: sinh(m + δ) = sinh m cosh δ + cosh m sinh δ is sharper for wide x."""
        middle = acb(x.real.mid(), x.imag.mid())
        offset = x - middle
        sinh, cosh, ds, dc = middle.sinh(), middle.cosh(), offset.sinh(), offset.cosh()
        rise, speed = sinh * dc + cosh * ds, cosh * dc + sinh * ds
        return self.tau0 + acb(0, 1) * self.width * rise, self.width * speed

    def _bounds(self, tau: acb, speed: acb) -> tuple[list[acb], list[acb]]:
        """Balls around 0 that hold the integrand on all of the ball τ; not finite unless every factor is analytic."""
        logarithm, vector, top = arb(0), [arb(1)], tau.abs_upper()
        every = [*((d, 1) for d in self.d), *self.rest]
        factors = [1 - 2 * tau * d for d, _ in every]
        if not _off_cut([tau, *factors]):
            return [acb("nan")], [acb("nan")]
        for z, (_, count) in zip(factors, every, strict=True):
            low = z.abs_lower()
            logarithm += low.log() * count
            vector.append(top / low)
        vector = vector[: 1 + len(self.d)] if self.order else vector[:1]
        weight = (-logarithm / 2).exp() * self.kernel.bound(tau) * speed.abs_upper()
        right = vector if self.order == 2 else [arb(1)]
        return _discs([weight * b for b in vector]), _discs(right)

    def tail(self, x: float) -> tuple[list[arb], list[arb]]:
        """left, right so that left_i right_j bounds |∫_Y^∞ M K b_i b_j dy|, Y = w sinh x; infinite where nothing is
        known to converge. For y ≥ Y each |1 − 2τd| is at least its real part, a constant, and 2y|d|."""
        Y = self.width * arb(x).sinh()
        stretch = (1 + (self.tau0 / Y) ** 2).sqrt()
        # |τ| ≥ y, so that |K| ≤ (its bound at iY) (Y/y)^decay.
        product, power, vector, slowest = self.kernel.bound(acb(0, Y)), self.kernel.decay, [arb(1)], 0
        for index, (d, count) in enumerate((*((d, 1) for d in self.d), *self.rest)):
            floor = (1 - 2 * self.tau0 * d).lower()
            rising = (2 * Y * d).abs_lower()
            falls = rising >= floor
            low = rising if falls else floor
            product *= (low.log() * count / -2).exp()
            power += arb(count) / 2 if falls else 0
            vector.append(stretch * Y / low)
            slowest = slowest if falls or index >= len(self.d) else -1
        vector = vector[: 1 + len(self.d)] if self.order else vector[:1]
        power += slowest * self.order
        if not power > 1:
            return [arb("inf")] * len(vector), [arb(1)] * (len(vector) if self.order == 2 else 1)
        product *= Y / (power - 1)
        return [product * b for b in vector], vector if self.order == 2 else [arb(1)]


def moments(d: Sequence[arb], rest: Sequence[tuple[arb, int]], kernel: Kernel, order: int, bits: int = 80) -> Moments:
    """f, and up to `order` ≤ 2 its derivatives in those λ_i whose d_i are in `d`; `rest` holds the others, (d, count).

    Raises Unresolved where an integral does not converge, or the spectrum is not known well enough for a path.
    """
    line = _line(list(d), [(x, count) for x, count in rest if count], kernel, order)
    start = line.integrand(acb(0), True)
    left, right = ([x.abs_upper() for x in side] for side in start)
    if not all(x.is_finite() and x > 0 for x in (*left, *right)):
        raise Unresolved("the integrand is not bounded at the saddle point")
    far, (tail_left, tail_right) = 0, ([], [])
    allowed = arb(2) ** -bits
    while far < _FARTHEST:
        far += 1
        tail_left, tail_right = line.tail(float(far))
        worst = max((x / size).upper() for x, size in zip(tail_left, left, strict=True)) * max(
            (x / size).upper() for x, size in zip(tail_right, right, strict=True)
        )
        if worst < allowed:
            break
    else:
        raise Unresolved("the contour integral does not converge, or not fast enough: no bound on its tail")
    table = integrate(line.integrand, [float(x) for x in range(far + 1)], (left, right), bits)
    return _read(table, tail_left, tail_right, order)


def _read(table: acb_mat, tail_left: list[arb], tail_right: list[arb], order: int) -> Moments:
    """The Moments from the integral over x and the bound of the rest."""
    values, rows = table.tolist(), len(tail_left) - 1

    def entry(i: int, j: int) -> arb:
        radius = (tail_left[i] * tail_right[j]).upper()
        return (values[i][j].real + arb(0, radius)) / arb.pi()

    weights = [entry(1 + i, 0) for i in range(rows)] if order else []
    second: list[list[arb]] = [[arb(0)] * rows for _ in range(rows)] if order == 2 else []
    for i in range(len(second)):
        for j in range(i + 1):
            second[i][j] = second[j][i] = entry(1 + i, 1 + j) * (3 if i == j else 1)
    return Moments(entry(0, 0), weights, second)


def _line(d: list[arb], rest: list[tuple[arb, int]], kernel: Kernel, order: int) -> Line:
    """The line through the minimum of M K on (0, 1/(2 max d)), where log(M K) is convex: found in float64."""
    every = [(x, 1) for x in d] + rest
    known = np.array([float(x.mid()) for x, _ in every])
    count = np.array([float(c) for _, c in every])
    top = max(float(x.upper()) for x, _ in every)
    if not top > 0:
        raise Unresolved("no coordinate is known to lie beyond the level")
    logs, powers = kernel.logarithms()

    def terms(t: float) -> tuple[float, np.ndarray, np.ndarray]:
        tau = 1 / (2 * top * (1 + math.exp(-t)))
        size = logs - powers * math.log(tau)
        share = np.exp(size - size.max())
        return tau, 1 - 2 * tau * known, share

    def height(t: float) -> float:
        tau, z, share = terms(t)
        largest = (logs - powers * math.log(tau)).max()
        return float(largest + math.log(share.sum()) - 0.5 * (count * np.log(np.abs(z) + 1e-300)).sum())

    low, high, golden = -80.0, 34.0, 0.5 * (math.sqrt(5) - 1)
    inner = [high - golden * (high - low), low + golden * (high - low)]
    heights = [height(t) for t in inner]
    for _ in range(60):
        if heights[0] <= heights[1]:
            high, inner = inner[1], [inner[1] - golden * (inner[1] - low), inner[0]]
            heights = [height(inner[0]), heights[0]]
        else:
            low, inner = inner[0], [inner[1], inner[0] + golden * (high - inner[0])]
            heights = [heights[1], height(inner[1])]
    tau, z, share = terms(0.5 * (low + high))
    power = float((powers * share).sum() / share.sum())
    width = 1 / math.sqrt(float((2 * count * (known / z) ** 2).sum()) + power / tau**2)
    if not (arb(tau) > 0 and all(1 - 2 * arb(tau) * x > 0 for x, _ in every)):
        raise Unresolved("the spectrum is not known well enough for a path beside its singularities")
    return Line(d, rest, kernel, order, arb(tau), arb(width))


def _off_cut(balls: list[acb]) -> bool:
    """Whether every ball certainly avoids (−∞, 0]."""
    zero = arb(0)
    return all(z.real > 0 or not z.imag.contains(zero) for z in balls)


def _discs(radii: list[arb]) -> list[acb]:
    """For each radius a ball that holds every complex number up to this size."""
    ends = [arb(0, radius.upper()) for radius in radii]
    return [acb(end, end) for end in ends]
