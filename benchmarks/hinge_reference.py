"""Tails, hinges and kinks of the law of r = ‖Qζ‖ to 25 digits, by a contour integral in ball arithmetic.

ζ is uniform on the unit sphere of R^n, λ_i = σ_i² padded with zeros to n of them, s = r² = Σ λ_i ζ_i², u = c² for
the radius c. As s > u means Σ (λ_i − u) z_i² > 0 for a standard normal z, all that is asked are integrals of one
product,

    M(z) = Π_i ((z − λ_i)/(z − u))^{−1/2},        P(s > u) = (1/2πi) ∮ M(z) dz/(z − u),

counterclockwise on the circle with diameter [u, b], any b > max λ (the roots are 1 at infinity, and M vanishes at u;
Imhof, Biometrika 48 (1961), after the Möbius map τ = 1/2(z − u) of his line). More generally, as Σ (λ_i − u) z_i² is
s − u times an independent χ²_n, whose q-th moment is 2^q Γ(n/2+q)/Γ(n/2),

    E (s − u)₊^q = Γ(q+1)Γ(n/2)/Γ(n/2+q) (1/2πi) ∮ M(z) (z − u)^{q−1} dz,        q ≥ 0,

so that for any analytic h with h(u) = 0

    E h(s) 1{s > u} = (1/2πi) ∮ M(z) K(z) dz/(z − u),        K(z) = ∫_u^z h'(y) ((z − y)/(z − u))^{n/2−1} dy.

With h' = 1 and h' = 1/2√y, and ∂M/∂λ_i = M/2(z − λ_i),

    E (s − u)₊              = (2/n)   (1/2πi) ∮ M dz
    E[ζ_i² 1{s > u}]        = (1/n)   (1/2πi) ∮ M dz/(z − λ_i)
    E (r − c)₊              = (1/nc)  (1/2πi) ∮ M F dz,                  F = ₂F₁(½, 1; n/2+1; (u − z)/u)
    w_i = E[ζ_i² 1{r>c}/2r] = (1/2nc) (1/2πi) ∮ M F dz/(z − λ_i)
    w'(λ_i)                 = (1/2nc) (1/2πi) ∮ M F dz/(z − λ_i)²,

where w' is the derivative of λ ↦ (1/2nc) (1/2πi) ∮ M F dz/(z − λ) with M held fixed.

The circle is traversed as T = (max λ − u)/(z − u), which turns it into a vertical line, scaled so that max λ is at
T = 1. Where the bulk of the spectrum makes M spin along it, the line is bent into a hyperbola, by the angle for which
a sketch in float64 spins least. On both the trapezoid rule converges geometrically; its step is halved until two
results agree to 13 digits, so that the finer of them carries about 25. The balls account for the rounding of every
operation, the halving for the rule. Floats are taken exactly: λ_i − u = (σ_i − c)(σ_i + c) is a ball.

tests/test_hinge_reference.py holds all of it against n = 2 and equal singular values in closed form, integrals along
the cut of M, E(r − c)₊ = ∫_c^∞ P(r > x) dx, sums over all n coordinates, reference.py and samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import acb, arb, ctx
from numpy.typing import ArrayLike, NDArray

from benchmarks.gauss_fraction import hypergeometric

HALVINGS = 9  # of the step 1/8
DOUBLINGS = 3  # of the working precision
FALL = 80.0  # a sketched path ends where the integrand is e^{−80} of its value at the saddle
BENDS = (0.0, -0.4, 0.4, -0.8, 0.8)


@dataclass(frozen=True)
class HingeBalls:
    """The five families of one radius; weights, bend and hinge_weights hold one ball per chosen index.

    bend is nan where w' does not exist: at λ_i = u with at most two other coordinates off u.
    """

    tail: arb
    value: arb
    weights: list[arb]
    bend: list[arb]
    hinge: arb
    hinge_weights: list[arb]


@dataclass(frozen=True)
class HingeValues:
    """`HingeBalls` rounded to float64."""

    tail: float
    value: float
    weights: NDArray[np.float64]
    bend: NDArray[np.float64]
    hinge: float
    hinge_weights: NDArray[np.float64]


def hinge_reference(
    sigma: ArrayLike, dim: int, radius: float, indices: Sequence[int] | None = None, digits: int = 25
) -> HingeValues:
    """P(r > c), E(r − c)₊, w_i, w'(λ_i), E(s − c²)₊ and E[ζ_i² 1{s > c²}] for singular values σ (k ≤ dim), c > 0.

    i runs over `indices` (all k by default); a value that underflows is 0. Raises as `hinge_balls`.
    """
    balls = hinge_balls(sigma, dim, radius, indices, digits)
    return HingeValues(
        _float(balls.tail),
        _float(balls.value),
        np.array([_float(v) for v in balls.weights]),
        np.array([_float(v) for v in balls.bend]),
        _float(balls.hinge),
        np.array([_float(v) for v in balls.hinge_weights]),
    )


def hinge_balls(
    sigma: ArrayLike,
    dim: int,
    radius: float,
    indices: Sequence[int] | None = None,
    digits: int = 25,
    bend: float | None = None,
) -> HingeBalls:
    """The same as balls with radii below 10^{−digits}; `bend` fixes the path's bend (a test of the path).

    Raises ValueError for bad input, ArithmeticError where rounding or the step cannot be brought below the tolerance.
    """
    values = np.asarray(sigma, dtype=np.float64)
    if values.ndim != 1 or not 1 <= len(values) <= dim:
        raise ValueError(f"sigma must hold between 1 and dim={dim} values, got shape {values.shape}")
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError("sigma must be finite and nonnegative")
    if not (radius > 0 and np.isfinite(radius)):
        raise ValueError(f"radius must be positive and finite, got {radius}")
    if digits < 20:
        raise ValueError(f"digits must be at least 20, got {digits}")
    chosen = [float(values[i]) for i in (range(len(values)) if indices is None else indices)]
    if radius >= values.max():
        none = [arb(0)] * len(chosen)
        return HingeBalls(arb(0), arb(0), none, none, arb(0), none)
    bits = int(3.33 * digits) + 64
    for doubling in range(DOUBLINGS):
        with ctx.workprec(bits << doubling):
            level = Level.of(values, dim, radius)
            sums = converged(Path.through(level, chosen, bend), digits)
            if accurate(sums, digits):
                return level.balls(sums, chosen)
    raise ArithmeticError(f"rounding exceeds 1e-{digits} even at {bits << (DOUBLINGS - 1)} bits")


def _float(ball: arb) -> float:
    """The nearest float64, nan for nan."""
    return float(ball.mid())


@dataclass(frozen=True)
class Level:
    """The spectrum seen from u = c²: top = max λ − u > 0 and the distinct e = (λ − u)/top, counted, without 0."""

    dim: int
    radius: arb
    top: arb
    factors: list[tuple[arb, int]]

    @classmethod
    def of(cls, sigma: NDArray[np.float64], dim: int, radius: float) -> "Level":
        """At the working precision, for 0 < radius < max σ."""
        c, largest = arb(radius), arb(float(sigma.max()))
        top = (largest - c) * (largest + c)
        distinct, counts = np.unique(np.concatenate([sigma, np.zeros(dim - len(sigma))]), return_counts=True)
        factors = [
            ((arb(float(v)) - c) * (arb(float(v)) + c) / top, int(m))
            for v, m in zip(distinct, counts, strict=True)
            if v != radius
        ]
        return cls(dim, c, top, factors)

    def ratio(self, sigma: float) -> arb:
        """(σ² − u)/top."""
        return (arb(sigma) - self.radius) * (arb(sigma) + self.radius) / self.top

    def bends(self, sigma: float) -> bool:
        """Whether w' exists at σ²: ∮ M F dz/(z − u)² diverges where M vanishes like z − u or slower."""
        return sigma != self.radius or sum(m for _, m in self.factors) > 2

    @cached_property
    def doubles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """e and counts in float64, for where to go and for counting turns."""
        return np.array([float(e.mid()) for e, _ in self.factors]), np.array([float(m) for _, m in self.factors])

    def product(self, t: acb) -> acb:
        """M = Π(1 − Te)^{−1/2}, principal roots.

        The product is formed in full precision, pairwise, and its square root turned by (−1)^w, where Σ arg(1 − Te),
        in float64, is the product's argument + 2πw. No factor meets the negative axis, as T is real only left of 1.
        """
        one = acb(1)
        factors = [one - t * e if m == 1 else (one - t * e) ** m for e, m in self.factors]
        while len(factors) > 1:
            pairs = [a * b for a, b in zip(factors[::2], factors[1::2], strict=False)]
            factors = pairs + factors[len(pairs) * 2 :]
        e, m = self.doubles
        angle = float(m @ np.angle(1 - complex(float(t.real.mid()), float(t.imag.mid())) * e))
        turns = (angle - float(factors[0].arg().mid())) / (2 * np.pi)
        if abs(turns - round(turns)) > 1e-6:
            raise ArithmeticError(f"the branch of the square root is undecided at T = {t}: {turns} turns")
        return factors[0].rsqrt() * (-1) ** (round(turns) % 2)

    def balls(self, sums: list[arb], chosen: list[float]) -> HingeBalls:
        """From the integrals in T, in the order of `Path.terms`."""
        n, c, k = self.dim, self.radius, len(chosen)
        return HingeBalls(
            tail=sums[0],
            hinge=2 * self.top / n * sums[1],
            value=self.top / (n * c) * sums[2],
            hinge_weights=[v / n for v in sums[3 : 3 + k]],
            weights=[v / (2 * n * c) for v in sums[3 + k : 3 + 2 * k]],
            bend=[
                v / (2 * n * c * self.top) if self.bends(sigma) else arb("nan")
                for v, sigma in zip(sums[3 + 2 * k :], chosen, strict=True)
            ],
        )


@dataclass(frozen=True)
class Path:
    """T(x) = start + width (i sinh x + bend (cosh x − 1)), x ≥ 0, and its mirror image."""

    level: Level
    ratios: list[arb]
    bends: list[bool]
    start: float
    width: float
    bend: float

    @classmethod
    def through(cls, level: Level, chosen: list[float], bend: float | None) -> "Path":
        """Through the saddle of M/T^{3/2}, as wide as it, with the cheapest of `BENDS`."""
        e, m = level.doubles
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            rising = m @ (e / (1 - middle * e)) / 2 > 1.5 / middle
            low, high = (low, middle) if rising else (middle, high)
        width = (m @ (e / (1 - low * e)) ** 2 / 2 + 1.5 / low**2) ** -0.5
        ratios, bends = [level.ratio(sigma) for sigma in chosen], [level.bends(sigma) for sigma in chosen]
        paths = [cls(level, ratios, bends, low, float(width), g) for g in (BENDS if bend is None else [bend])]
        return min(paths, key=cls.sketched_cost)

    def sketched_cost(self) -> float:
        """The path's length in x times how fast M spins along it, in float64."""
        e, m = self.level.doubles
        if len(e) > 256:  # neighbours together: only the spin is of interest
            parts = np.array_split(np.arange(len(e)), 256)
            e, m = np.array([m[p] @ e[p] / m[p].sum() for p in parts]), np.array([m[p].sum() for p in parts])
        x = np.arange(0.0, 120.0, 0.1)
        t = self.start + self.width * (1j * np.sinh(x) + self.bend * (np.cosh(x) - 1))
        logs = -np.log(1 - t[:, None] * e) @ m / 2 - 1.5 * np.log(t) + x
        end = int(np.argmax(logs.real < logs.real[0] - FALL)) or len(x)
        spin = np.abs(np.diff(logs.imag[: end + 1])).max() / 0.1
        growth = max(0.0, float(logs.real[:end].max() - logs.real[0]))
        return x[min(end, len(x) - 1)] * (1 + spin) * (1 + growth)

    def terms(self, x: arb) -> list[acb]:
        """T'/πi times M/T, M/T², MF/T², and for all i M/T(1 − Te), then MF/T(1 − Te), then MF/(1 − Te)².

        Where the last has no integral, MF/T stands in for it.
        """
        cosh, sinh = x.cosh(), x.sinh()
        t = arb(self.start) + arb(self.width) * acb(arb(self.bend) * (cosh - 1), sinh)
        front = arb(self.width) * acb(cosh, -arb(self.bend) * sinh) / arb.pi() * self.level.product(t)
        # top/uT = (z − u)/u, the argument of F but for its sign
        curved = front * hypergeometric(self.level.top / (self.level.radius**2 * t), self.level.dim)
        resolvents = [1 / (1 - t * e) for e in self.ratios]
        over, curved_over = front / t, curved / t
        return [
            over,
            over / t,
            curved_over / t,
            *(over * r for r in resolvents),
            *(curved_over * r for r in resolvents),
            *(curved * r * r if real else curved / t for r, real in zip(resolvents, self.bends, strict=True)),
        ]

    def until_negligible(self, step: arb) -> tuple[list[arb], int]:
        """Σ Re of the terms at 0 (half of it), step, …, count·step, where eight in a row are below rounding."""
        negligible = arb(2) ** (48 - ctx.prec)
        first = self.terms(arb(0))
        sums, peaks = [v.real / 2 for v in first], [abs(v).mid() for v in first]
        count = quiet = 0
        while quiet < 8:
            count += 1
            terms = self.terms(step * count)
            sums = [a + b.real for a, b in zip(sums, terms, strict=True)]
            sizes = [abs(v).mid() for v in terms]
            peaks = [max(a, b) for a, b in zip(peaks, sizes, strict=True)]
            small = all(a <= negligible * b for a, b in zip(sizes, peaks, strict=True))
            quiet = quiet + 1 if small else 0
        return sums, count


def converged(path: Path, digits: int) -> list[arb]:
    """The integrals, the step halved until the change is below 10^{−digits/2−½} of each.

    Where rounding alone is too large no step would do: the sums come back as they are, for the caller to see.
    """
    step, tolerance = arb(1) / 8, arb(10) ** (-arb(digits + 1) / 2)
    sums, count = path.until_negligible(step)
    for _ in range(HALVINGS):
        finer = sums
        for j in range(count):
            finer = [a + b.real for a, b in zip(finer, path.terms(step * (2 * j + 1) / 2), strict=True)]
        settled = all(abs((2 * a - b).mid()) <= tolerance * abs(b.mid()) for a, b in zip(sums, finer, strict=True))
        sums, step, count = finer, step / 2, 2 * count
        if settled or not accurate(sums, digits):
            return [step * value for value in sums]
    raise ArithmeticError(f"the integral did not settle to {digits} digits in {HALVINGS} halvings of its step")


def accurate(values: list[arb], digits: int) -> bool:
    """Whether every ball's radius is below 10^{−digits} of its middle."""
    return all(value.rel_accuracy_bits() > 3.33 * digits for value in values)
