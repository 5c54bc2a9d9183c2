"""Expectations over the sphere to 50 digits, by a contour integral in ball arithmetic (python-flint).

ζ is uniform on the unit sphere of R^n, σ holds k ≤ n singular values (padded with zeros), λ_i = σ_i²,
s = Σ λ_i ζ_i². With z ~ N(0, I_n) and X = Σ λ_i z_i², X = ρ²s where ρ² ~ χ²_n is independent of s, and
E e^{τX} = M(τ),

    M(τ) = Π_i (1 − 2τλ_i)^{−1/2},        E X^q = Γ(q+1) (1/2πi) ∫ M(τ) τ^{−q−1} dτ,        q > 0

along a path that crosses the positive axis left of 1/(2 max λ) and encloses the negative axis (Hankel's
integral for 1/Γ(q+1), under the expectation). As E ρ^{2q} = 2^q Γ(n/2+q)/Γ(n/2) and
∂M/∂λ_i = M τ/(1 − 2τλ_i),

    E s^q       = (1/2πi) ∫ M(τ) K(τ) dτ,      K(τ) = c_q τ^{−q−1},  c_q = Γ(q+1)Γ(n/2)/(2^q Γ(n/2+q))
    ∂E s^q/∂λ_i = (1/2πi) ∫ M(τ) K(τ) τ/(1 − 2τλ_i) dτ.

A sum of powers of r = √s only changes the kernel K: E(e^{βr} − 1 − βr) has
K = Σ_{j≥2} (β^j/j!) c_{j/2} τ^{−j/2−1}.

The path is a hyperbola, τ(u) = μ(1 − a cosh u + i a sinh u) (Weideman & Trefethen, Math. Comp. 76 (2007)),
on which the trapezoid rule converges geometrically. Its step is halved until two results agree to
10^{15−digits}, so that the finer of the two carries about twice as many correct digits. The radii of the
returned balls account for all rounding; the error of the rule is what the halving shows, not part of the
radius. Floats are taken exactly. Nothing here is used by the library, whose own quadrature runs along the
real axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from flint import acb, arb, ctx
from numpy.typing import ArrayLike, NDArray

HALVINGS = 5  # of the step 3/64, at which the trapezoid error is near 1e-45 before cancellation
DOUBLINGS = 4  # of the working precision


@dataclass(frozen=True)
class Spectrum:
    """λ = (σ/2^exponent)², exact, with 2^exponent > max σ; `factors`: the distinct positive ones, counted."""

    sigma: NDArray[np.float64]
    dim: int
    exponent: int
    factors: list[tuple[arb, int]]

    @classmethod
    def of(cls, sigma: ArrayLike, dim: int) -> "Spectrum":
        """Check σ (finite, nonnegative, 1 ≤ k ≤ dim values) and scale it, at the working precision."""
        values = np.asarray(sigma, dtype=np.float64)
        if values.ndim != 1 or not 1 <= len(values) <= dim:
            raise ValueError(f"sigma must hold between 1 and dim={dim} values, got shape {values.shape}")
        if not np.all(np.isfinite(values) & (values >= 0)):
            raise ValueError("sigma must be finite and nonnegative")
        exponent = int(np.frexp(values.max())[1])
        distinct, counts = np.unique(values[values > 0], return_counts=True)
        factors = [
            (power_of_two(-2 * exponent) * arb(float(v)) ** 2, int(c)) for v, c in zip(distinct, counts, strict=True)
        ]
        return cls(values, dim, exponent, factors)

    def moment_generating(self, tau: acb) -> acb:
        """M(τ) = Π(1 − 2τλ)^{−1/2} = exp(−½ Σ log(1 − 2τλ)), principal logarithms.

        The product is formed in full precision (pairwise: balls multiplied one after another blow up), and
        its square root turned by (−1)^w, where Σ arg(1 − 2τλ), in float64, is the product's argument + 2πw.
        """
        factors = [(1 - 2 * tau * value) ** count for value, count in self.factors]
        while len(factors) > 1:
            pairs = [a * b for a, b in zip(factors[::2], factors[1::2], strict=False)]
            factors = pairs + factors[len(pairs) * 2 :]
        lam, count = self._doubles
        angle = float(count @ np.angle(1 - 2 * complex(float(tau.real.mid()), float(tau.imag.mid())) * lam))
        turns = (angle - float(factors[0].arg().mid())) / (2 * np.pi)
        if abs(turns - round(turns)) > 1e-6:
            raise ArithmeticError(f"the branch of the square root is undecided at tau = {tau}: {turns} turns")
        return factors[0].rsqrt() * (-1) ** (round(turns) % 2)

    @property
    def _doubles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lam = np.ldexp(np.unique(self.sigma[self.sigma > 0]), -self.exponent) ** 2
        return lam, np.array([count for _, count in self.factors], dtype=np.float64)


Kernel = Callable[[acb], list[acb]]
Table = list[list[arb]]


def mean_power(sigma: ArrayLike, dim: int, p: float, digits: int = 50) -> arb:
    """E‖Qζ‖^p for p > 0, with p and σ taken exactly."""
    return power_table(sigma, dim, [p], indices=[], digits=digits)[0][0]


def slopes_power(
    sigma: ArrayLike, dim: int, p: float, digits: int = 50, indices: Sequence[int] | None = None
) -> list[arb]:
    """∂/∂σ_i E‖Qζ‖^p = p σ_i E[s^{p/2−1} ζ_i²] for i in `indices` (all by default); 0 where σ_i = 0."""
    return power_table(sigma, dim, [p], indices=indices, digits=digits)[0][1:]


def power_table(
    sigma: ArrayLike,
    dim: int,
    exponents: Sequence[float],
    indices: Sequence[int] | None = None,
    digits: int = 50,
) -> Table:
    """For each exponent p the row [E‖Qζ‖^p, ∂/∂σ_i E‖Qζ‖^p for i in indices]; one path serves all."""
    if not all(p > 0 and np.isfinite(p) for p in exponents):
        raise ValueError(f"exponents must be positive and finite, got {list(exponents)}")

    def kernel(spectrum: Spectrum) -> Kernel:
        halves = [arb(float(p)) / 2 for p in exponents]
        scale = power_of_two(2 * spectrum.exponent)
        factors = [power_factor(q, dim) * scale**q for q in halves]

        def evaluate(tau: acb) -> list[acb]:
            log = tau.log()
            return [c * (-(q + 1) * log).exp() for c, q in zip(factors, halves, strict=True)]

        return evaluate

    return expectations(sigma, dim, len(exponents), kernel, indices, reach=4 + max(exponents) / 2, digits=digits)


def mean_exponential(sigma: ArrayLike, dim: int, rate: float, digits: int = 50) -> arb:
    """E(e^{rate·r} − 1 − rate·r), r = ‖Qζ‖, for rate > 0."""
    return exponential_row(sigma, dim, rate, indices=[], digits=digits)[0]


def slopes_exponential(
    sigma: ArrayLike, dim: int, rate: float, digits: int = 50, indices: Sequence[int] | None = None
) -> list[arb]:
    """∂/∂σ_i E(e^{rate·r} − 1 − rate·r) for i in `indices` (all by default); 0 where σ_i = 0."""
    return exponential_row(sigma, dim, rate, indices=indices, digits=digits)[1:]


def exponential_row(
    sigma: ArrayLike, dim: int, rate: float, indices: Sequence[int] | None = None, digits: int = 50
) -> list[arb]:
    """[E H, ∂E H/∂σ_i for i in indices], H(r) = Σ_{j=2..J} (rate·r)^j/j! up to 10^{−digits−10} of the whole.

    As r ≤ σ₁, the terms left out are below 2 (rate·σ₁)^J/J!, and E H ≥ rate² Σλ/2n, which fixes J.
    """
    if not (rate > 0 and np.isfinite(rate)):
        raise ValueError(f"rate must be positive and finite, got {rate}")
    values = np.asarray(sigma, dtype=np.float64)
    top = float(rate * values.max())
    if top > 100:
        raise ValueError(f"the power series is only meant for rate·max(sigma) <= 100, got {top:.3g}")
    order, last, floor = 2, top**2 / 2, 10.0 ** (-digits - 10) * top**2 / (2 * dim)
    while order < 2 * top or last > floor:
        order += 1
        last *= top / order

    def kernel(spectrum: Spectrum) -> Kernel:
        slope = arb(float(rate)) * power_of_two(spectrum.exponent)
        terms = [slope**j / arb(j).fac() * power_factor(arb(j) / 2, dim) for j in range(2, order + 1)]

        def evaluate(tau: acb) -> list[acb]:
            root, total = tau.rsqrt(), acb(0)
            for term in reversed(terms):
                total = total * root + term
            return [total / tau**2]

        return evaluate

    return expectations(sigma, dim, 1, kernel, indices, reach=4 + order / 2, digits=digits)[0]


def power_factor(q: arb, dim: int) -> arb:
    """c_q = Γ(q+1) Γ(n/2) / (2^q Γ(n/2+q)), so that E s^q = c_q (1/2πi) ∫ M τ^{−q−1} dτ."""
    half = arb(dim) / 2
    return (q + 1).gamma() * half.gamma() / (arb(2) ** q * (half + q).gamma())


def power_of_two(exponent: int) -> arb:
    """2^exponent, exact."""
    return arb(1) * arb(2) ** exponent


def expectations(
    sigma: ArrayLike,
    dim: int,
    rows: int,
    kernel: Callable[[Spectrum], Kernel],
    indices: Sequence[int] | None,
    reach: float,
    digits: int,
) -> Table:
    """For each of the kernel's rows [(1/2πi)∫MK dτ, its derivatives in σ_i], rounding below 10^{−digits}.

    `reach` sets how far the path stays from 0 when no λ dominates: about the largest power of s.
    Raises ArithmeticError where rounding or the step cannot be brought below the tolerance.
    """
    if digits < 20:
        raise ValueError(f"digits must be at least 20, got {digits}")
    bits = int(3.33 * digits) + 64
    for doubling in range(DOUBLINGS):
        with ctx.workprec(bits << doubling):
            spectrum = Spectrum.of(sigma, dim)
            chosen = range(len(spectrum.sigma)) if indices is None else indices
            if not spectrum.factors:
                return [[arb(0)] * (1 + len(chosen))] * rows
            scaled = [arb(float(spectrum.sigma[i])) * power_of_two(-spectrum.exponent) for i in chosen]
            positive = [x for x in scaled if x > 0]
            table = converged(spectrum, kernel(spectrum), [x**2 for x in positive], reach, digits)
            if accurate(table, digits):
                chain = 2 * power_of_two(-spectrum.exponent)
                return [[row[0], *with_zeros(scaled, row[1:], chain)] for row in table]
    raise ArithmeticError(f"rounding exceeds 1e-{digits} even at {bits << (DOUBLINGS - 1)} bits")


def with_zeros(scaled: list[arb], derivatives: list[arb], chain: arb) -> list[arb]:
    """∂/∂σ_i = 2σ_i ∂/∂λ_i, and 0 where σ_i = 0."""
    remaining = iter(derivatives)
    return [chain * x * next(remaining) if x > 0 else arb(0) for x in scaled]


def converged(spectrum: Spectrum, kernel: Kernel, lam: list[arb], reach: float, digits: int) -> Table:
    """(1/2πi) ∫ M K dτ and (1/2πi) ∫ M K τ/(1 − 2τλ_i) dτ, halving until the change is below 10^{15−digits}.

    Where rounding alone is too large no step would do: the sums come back as they are, for the caller to see.
    """
    nearest = arb(2) / 5 / spectrum.factors[-1][0]
    bulk = reach / sum((value * count for value, count in spectrum.factors), arb(0))
    path = Path(spectrum, kernel, lam, min(nearest, bulk))
    step, tolerance = arb(3) / 64, arb(10) ** (15 - digits)
    sums, count = path.until_negligible(step)
    for _ in range(HALVINGS):
        finer = sums
        for j in range(count):
            finer = plus(finer, path.terms(step * (2 * j + 1) / 2))
        pairs = [(2 * a, b) for x, y in zip(sums, finer, strict=True) for a, b in zip(x, y, strict=True)]
        sums, step, count = finer, step / 2, 2 * count
        if not accurate(sums, digits) or all(abs((a - b).mid()) < tolerance * abs(b) for a, b in pairs):
            return [[step * value for value in row] for row in sums]
    raise ArithmeticError(f"the contour integral did not settle to 1e-{digits - 15} in {HALVINGS} halvings of its step")


@dataclass(frozen=True)
class Path:
    """The integrands on τ(u) = μ(1 − a cosh u + i a sinh u), a = 11/16; u < 0 mirrors u > 0."""

    spectrum: Spectrum
    kernel: Kernel
    lam: list[arb]
    mu: arb

    def terms(self, u: arb) -> Table:
        """For each row of the kernel Re of 2MKτ'/(2πi), and of the same times τ/(1 − 2τλ_i) for each i."""
        a, cosh, sinh = arb(11) / 16, u.cosh(), u.sinh()
        tau = self.mu * acb(1 - a * cosh, a * sinh)
        weight = self.mu * a / arb.pi() * acb(cosh, sinh) * self.spectrum.moment_generating(tau)
        resolvents = [tau / (1 - 2 * tau * x) for x in self.lam]
        rows = [weight * k for k in self.kernel(tau)]
        return [[row.real, *((row * r).real for r in resolvents)] for row in rows]

    def until_negligible(self, step: arb) -> tuple[Table, int]:
        """Σ of the terms at u = 0 (half of it), step, …, count·step, where they are below rounding.

        Each factor's logarithm is concave in log|τ|, so an integrand that has fallen keeps falling; of the
        derivatives that of the smallest λ_i is the slowest. Real parts change sign: eight in a row must be
        small.
        """
        slow = 1 + min(range(len(self.lam)), key=lambda i: float(self.lam[i].mid()), default=-1)
        negligible = arb(2) ** (48 - ctx.prec)
        sums = [[value / 2 for value in row] for row in self.terms(arb(0))]
        peaks = [arb(0)] * (2 * len(sums))
        count = quiet = 0
        while quiet < 8:
            count += 1
            terms = self.terms(step * count)
            sums = plus(sums, terms)
            sizes = [abs(row[column]).mid() for row in terms for column in (0, slow)]
            peaks = [max(size, peak) for size, peak in zip(sizes, peaks, strict=True)]
            small = all(size <= negligible * peak for size, peak in zip(sizes, peaks, strict=True))
            quiet = quiet + 1 if small else 0
        return sums, count


def accurate(table: Table, digits: int) -> bool:
    """Whether every ball's radius is below 10^{−digits} of its middle."""
    return all(value.rel_accuracy_bits() > 3.33 * digits for row in table for value in row)


def plus(left: Table, right: Table) -> Table:
    """Entrywise sum."""
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(left, right, strict=True)]
