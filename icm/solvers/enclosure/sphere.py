"""E H(‖Qζ‖) and its derivatives in the singular values of Q, enclosed in balls.

With λ_i = σ_i², s = Σ λ_i ζ_i² and the contour integrals of `contour`, the kernels are

    E s^q         u = 0:   K = c_q τ^{−q−1},   c_q = Γ(q+1) Γ(n/2)/(2^q Γ(n/2+q)),   q > 0,
    E (s − u)₊             K = τ^{−2}/n,
    E (√s − c)₊   u = c²:  K = τ^{−2} F(τ)/(2nc),   F(τ) = ₂F₁(½, 1; n/2+1; −1/(2uτ)),

the last two for min λ < u < max λ. F(τ) = (n/2) ∫₀¹ (1−t)^{n/2−1} (1 + t/(2uτ))^{−1/2} dt, so that |F| ≤ 1 for
Re τ ≥ 0 and |F| ≤ (|τ|/|Im τ|)^{1/2} elsewhere: |1 + tz| ≥ |Im z|/|z| for Re z < 0. An exponential is its series in
powers of √s, with a bound on the terms left out. On r > c, ½ (r − c)² = ½ (s − u) − c (r − c).
Source: docs/theory.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import acb, arb, ctx

from icm.solvers.enclosure.contour import Kernel, Moments, moments
from icm.solvers.enclosure.curvature import Hinge, Terms
from icm.solvers.enclosure.quadrature import Unresolved

_LONGEST_SERIES = 4000
_FEWEST_BITS = 90  # that ₂F₁ must keep
_DIGITS = 110  # bits below the leading term at which an exponential series ends


@dataclass(frozen=True)
class PowerKernel(Kernel):
    """K(τ) = Σ coefficient τ^{−exponent} + Σ_j series[j] τ^{−j/2−2}, principal branches."""

    terms: list[tuple[arb, arb]]
    series: list[arb]

    def at(self, tau: acb) -> acb:
        log, total = tau.log(), acb(0)
        if self.series:
            root = tau.rsqrt()
            for coefficient in reversed(self.series):
                total = total * root + coefficient
            total /= tau * tau
        for coefficient, exponent in self.terms:
            total += coefficient * (-exponent * log).exp()
        return total

    def bound(self, tau: acb) -> arb:
        low = tau.abs_lower()
        if not low > 0:
            return arb("inf")
        root, total = low.rsqrt(), arb(0)
        for coefficient in reversed(self.series):
            total = total * root + coefficient.abs_upper()
        total /= low * low
        for coefficient, exponent in self.terms:
            total += coefficient.abs_upper() * (-exponent * low.log()).exp()
        return total.upper()

    @property
    def decay(self) -> arb:
        return min(
            [exponent for _, exponent in self.terms] + ([arb(2)] if self.series else []), key=lambda x: x.lower()
        )

    def logarithms(self) -> tuple[np.ndarray, np.ndarray]:
        both = self.terms + [(c, arb(j) / 2 + 2) for j, c in enumerate(self.series)]
        return _logarithms(both)


@dataclass(frozen=True)
class HingeKernel(Kernel):
    """K(τ) = τ^{−2} (plain + bent F(τ)) for a level u > 0 in dimension n."""

    plain: arb
    bent: arb
    u: arb
    dim: int

    def at(self, tau: acb) -> acb:
        total = acb(self.plain)
        if not self.bent.is_zero():
            total += self.bent * _hypergeometric(-1 / (2 * self.u * tau), self.dim)
        return total / (tau * tau)

    def bound(self, tau: acb) -> arb:
        low = tau.abs_lower()
        factor = arb(1)
        if not tau.real >= 0:
            side = tau.imag.abs_lower()
            factor = (tau.abs_upper() / side).sqrt() if side > 0 else arb("inf")
        return ((self.plain.abs_upper() + self.bent.abs_upper() * factor) / (low * low)).upper()

    @property
    def decay(self) -> arb:
        return arb(2)

    def logarithms(self) -> tuple[np.ndarray, np.ndarray]:
        return _logarithms([(self.plain.abs_upper() + self.bent.abs_upper(), arb(2))])


def expectation(
    terms: Terms, sigma: Sequence[arb], dim: int, order: int = 0, bits: int = 80, fixed: Sequence[bool] | None = None
) -> Moments:
    """f(σ) = E H(‖Qζ‖) for singular values `sigma` (k ≤ dim balls), w_i = ∂f/∂λ_i for order ≥ 1 and
    f_ij = ∂²f/∂λ_i∂λ_j for order 2. The wall is not looked at. The derivatives of f in σ are `gradient` and `hessian`.

    Each ball σ_i may hold 0 or negative numbers; f is a function of σ_i². Derivatives in the λ_i that are `fixed`, by
    default those with σ_i exactly 0, are left out, and stand as 0: there they may not exist while ∂f/∂σ_i = 0 does.

    Raises Unresolved where a derivative does not exist or its integral diverges, and where σ is not known well enough
    to say whether a hinge lies inside the range of ‖Qζ‖.
    """
    k = len(sigma)
    top = max((x.abs_upper() for x in sigma), default=arb(0))
    if top.is_zero():
        if order:
            raise Unresolved("f has no derivative in λ at σ = 0 that serves every H")
        return Moments(arb(0), [], [])
    scale = arb(2) ** _exponent(top)
    x = [value / scale for value in sigma]
    powers = [(p, c * scale**p) for p, c in terms.powers]
    moving = [i for i in range(k) if not (x[i].is_zero() if fixed is None else fixed[i])]
    lam = [value * value for value in x]
    constant = arb(0)
    found: list[Moments] = []
    for hinge in terms.hinges:
        inside, more, added = _hinge(Hinge(hinge.radius / scale, hinge.jump * scale, hinge.rise * scale**2), x, dim)
        powers += more
        constant += added
        if inside is not None:
            d = [value - inside.u for value in lam]
            rest = [(d[i], 1) for i in range(k) if i not in moving]
            found.append(moments([d[i] for i in moving], [*rest, (-inside.u, dim - k)], inside, order, bits))
    series, remainders = _exponential_series([(rate * scale, c) for rate, c in terms.exponentials], dim)
    a, b = (sum((c for p, c in powers if p == even), arb(0)) for even in (2, 4))
    found.append(_even(lam, moving, dim, a, b, order))
    kernel = PowerKernel(
        [(c * _factor(p / 2, dim), p / 2 + 1) for p, c in powers if not (p in (2, 4) or c.is_zero())], series
    )
    if kernel.terms or series:
        rest = [(lam[i], 1) for i in range(k) if i not in moving and not x[i].is_zero()]
        found.append(moments([lam[i] for i in moving], rest, kernel, order, bits))
    total = constant + remainders[0] + sum((part.value for part in found), arb(0))
    weights = [arb(0)] * k if order else []
    second = [[arb(0)] * k for _ in range(k)] if order == 2 else []
    unit = scale**-2
    for row, i in enumerate(moving if order else []):
        weights[i] = unit * sum((part.weights[row] for part in found), remainders[1])
        for column, j in enumerate(moving if order == 2 else []):
            second[i][j] = unit**2 * sum((part.second[row][column] for part in found), remainders[2])
    return Moments(total, weights, second)


def gradient(sigma: Sequence[arb], at: Moments) -> list[arb]:
    """∂f/∂σ_i = 2 σ_i w_i."""
    return [2 * x * w for x, w in zip(sigma, at.weights, strict=True)]


def hessian(sigma: Sequence[arb], at: Moments) -> list[list[arb]]:
    """∂²f/∂σ_i∂σ_j = 4 σ_i σ_j f_ij + 2 δ_ij w_i."""
    return [
        [4 * x * y * at.second[i][j] + (2 * at.weights[i] if i == j else 0) for j, y in enumerate(sigma)]
        for i, x in enumerate(sigma)
    ]


def hinge_of_form(v: Sequence[arb], order: int = 0, bits: int = 80) -> Moments:
    """h(v) = E(Σ v_i ζ_i²)₊ for v in R^n of any signs, with ∂h/∂v_i = E[ζ_i² 1{Σ v_jζ_j² > 0}] and its derivatives."""
    dim, one = len(v), arb(1)
    if all(x >= 0 for x in v):
        mean = sum(v, arb(0)) / dim
        return Moments(mean, [one / dim] * dim if order else [], [[arb(0)] * dim] * dim if order == 2 else [])
    if not any(x < 0 for x in v):
        raise Unresolved("the sign of the form is undecided")
    scale = arb(2) ** _exponent(max(x.abs_upper() for x in v))
    at = moments([x / scale for x in v], [], HingeKernel(one / dim, arb(0), one, dim), order, bits)
    return Moments(scale * at.value, at.weights, [[x / scale for x in row] for row in at.second])


def mean_length(dim: int) -> arb:
    """κ_n = E|ζ₁| = Γ(n/2)/(√π Γ((n+1)/2))."""
    half = arb(dim) / 2
    return half.gamma() / (arb.pi().sqrt() * (half + arb(1) / 2).gamma())


def _hinge(hinge: Hinge, x: Sequence[arb], dim: int) -> tuple[HingeKernel | None, list[tuple[arb, arb]], arb]:
    """The kernel of a hinge inside the range of √s, or else the powers (p, c) and the constant that H is on it."""
    c, jump, rise = hinge
    full = len(x) == dim
    if all(value.abs_upper() <= c for value in x):
        return None, [], arb(0)
    if full and all(value.abs_lower() >= c for value in x):
        return None, [(arb(1), jump - rise * c), (arb(2), rise / 2)], c * (rise * c / 2 - jump)
    if not any(value.abs_lower() > c for value in x) or not (not full or any(value.abs_upper() < c for value in x)):
        raise Unresolved(f"a singular value may or may not pass the radius {float(c.mid()):.17g} (scaled) of a hinge")
    return HingeKernel(rise / (2 * dim), (jump - rise * c) / (2 * dim * c), c * c, dim), [], arb(0)


def _even(lam: list[arb], moving: list[int], dim: int, a: arb, b: arb, order: int) -> Moments:
    """E(a s + b s²) = a t₁/n + b (t₁² + 2t₂)/(n(n+2)), t_j = Σ λ_i^j, which needs no contour; derivatives in the λ_i
    that are `moving`."""
    first, second, c = sum(lam, arb(0)), sum((x * x for x in lam), arb(0)), b / (dim * (dim + 2))
    return Moments(
        a * first / dim + c * (first * first + 2 * second),
        [a / dim + c * (2 * first + 4 * lam[i]) for i in moving] if order else [],
        [[c * (6 if i == j else 2) for j in moving] for i in moving] if order == 2 else [],
    )


def _exponential_series(parts: list[tuple[arb, arb]], dim: int) -> tuple[list[arb], tuple[arb, arb, arb]]:
    """Coefficients of τ^{−j/2} τ^{−2}, j = 0, 1, …, for Σ c (e^{βr} − 1 − βr), and what is left out for r ≤ 1: the
    intervals [0, bound] that hold the rest of f, of every w_i and of every f_ij.

    With t_j = β^j/j! the rest of f is Σ_{j>J} t_j E s^{j/2}; of w_i it is at most Σ ½ j t_j, of f_ij Σ ¼ j (j−1) t_j.
    For J ≥ 2β + 1 each sum is at most twice its first term.
    """
    series: list[arb] = []
    rests = [arb(0), arb(0), arb(0)]
    for rate, c in parts:
        size = float(rate.upper())
        last = max(8, math.ceil(2 * size + 1))
        if last > _LONGEST_SERIES:
            raise Unresolved(f"rate·σ₁ is up to {size:.3g}: an exponential of that is beyond the series")
        log = last * math.log(size) - math.lgamma(last + 1) if size > 0 else -math.inf
        floor = 2 * math.log(size) - _DIGITS * math.log(2) if size > 0 else 0.0
        while log > floor:
            last += 1
            log += math.log(size / last)
        term = rate
        for j in range(2, last + 1):
            term = term * rate / j
            if len(series) <= j - 2:
                series.append(arb(0))
            series[j - 2] += c * term * _factor(arb(j) / 2, dim)
        first, j = c * term * rate / (last + 1), last + 1
        for index, bound in enumerate((2 * first, first * j, first * j * (j - 1) / 2)):
            rests[index] += arb(0).union(bound.upper())
    return series, (rests[0], rests[1], rests[2])


def _factor(q: arb, dim: int) -> arb:
    """c_q = Γ(q+1) Γ(n/2)/(2^q Γ(n/2+q)); from logarithms where the functions are huge."""
    half = arb(dim) / 2
    return ((q + 1).lgamma() + half.lgamma() - (half + q).lgamma() - q * arb(2).log()).exp()


def _hypergeometric(z: acb, dim: int) -> acb:
    """₂F₁(½, 1; n/2+1; z), at a precision raised until enough of it survives."""
    value = acb("nan")
    for doubling in range(4):
        with ctx.workprec(ctx.prec << doubling):
            value = z.hypgeom_2f1(arb(1) / 2, 1, arb(dim) / 2 + 1)
        if value.rel_accuracy_bits() >= _FEWEST_BITS:
            break
    return value


def _exponent(top: arb) -> int:
    """e with 2^e ≥ top > 0, and not much more."""
    mantissa, exponent = top.upper().man_exp()
    return int(exponent) + int(mantissa).bit_length()


def _logarithms(terms: list[tuple[arb, arb]]) -> tuple[np.ndarray, np.ndarray]:
    kept = [(float(c.abs_upper().log().mid()), float(a.mid())) for c, a in terms if c.abs_upper() > 0]
    return np.array([log for log, _ in kept]), np.array([a for _, a in kept])
