"""Instances in ball arithmetic: weights w_i = E[ψ(s)ζ_i²] and the hinge h(v) = E(Σ v_iζ_i²)₊, every rounding enclosed.

Source: docs/theory.md, sections 5 and 10, for the integrals.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from proofs_check.algebra import truth

BITS = 128  # of working precision

Rationals = tuple[Fraction, ...]

SPECTRA: tuple[Rationals, ...] = (
    (Fraction(1), Fraction(1, 4)),
    (Fraction(2), Fraction(1), Fraction(1, 10)),
)
ALPHAS = (Fraction(1, 2), Fraction(1), Fraction(3))


def ball(x: Fraction | int) -> Any:
    from flint import arb, fmpq

    x = Fraction(x)
    return arb(fmpq(x.numerator, x.denominator))


def power_weights(alpha: Fraction, sigma: Rationals) -> list[Any]:
    """w_i for H = r^{2+α} at singular values σ, k = n."""
    from flint import ctx

    from icm.solvers.enclosure.curvature import Terms
    from icm.solvers.enclosure.sphere import expectation

    terms = Terms([(ball(2 + alpha), ball(1))], [], [], float("inf"), ball(0))
    with ctx.workprec(BITS):
        return list(expectation(terms, [ball(x) for x in sigma], len(sigma), 1).weights)


def hinge(v: Rationals) -> tuple[Any, list[Any]]:
    """(h(v), ∇h(v)) for h(v) = E(Σ v_iζ_i²)₊."""
    from flint import ctx

    from icm.solvers.enclosure.sphere import hinge_of_form

    with ctx.workprec(BITS):
        at = hinge_of_form([ball(x) for x in v], 1)
        return at.value, list(at.weights)


def ratio_below(share: Fraction | int = 1) -> str:
    """1 ≤ w_1/w_n ≤ 1 + share·α on the instances."""
    for alpha in ALPHAS:
        for sigma in SPECTRA:
            w = power_weights(alpha, sigma)
            where = f"α = {alpha}, σ = {tuple(map(str, sigma))}: w_1/w_n = {w[0] / w[-1]}"
            truth(bool(w[0] >= w[-1]), where)
            truth(bool(w[0] <= (1 + ball(share) * ball(alpha)) * w[-1]), where)
    return f"{len(ALPHAS) * len(SPECTRA)} instances"


def spread_below(factor: Fraction | int = 1) -> str:
    """w_1/w_n − 1 ≤ factor·αλ_1/Σλ on the instances with α ≤ 2."""
    count = 0
    for alpha in (Fraction(1, 2), Fraction(1), Fraction(2)):
        for sigma in SPECTRA:
            w = power_weights(alpha, sigma)
            bound = ball(factor * alpha * max(sigma) ** 2 / sum(x**2 for x in sigma))
            where = f"α = {alpha}, σ = {tuple(map(str, sigma))}: spread {w[0] / w[-1] - 1} against {bound}"
            truth(bool(w[0] / w[-1] - 1 <= bound), where)
            count += 1
    return f"{count} instances"


def extremes(alphas: tuple[Fraction, ...], scale: Fraction | int = 1) -> str:
    """w_1/w_n to the sign of α below (Σλ+αλ_1)/(Σλ+αλ_n) to that power for α < 2, and above it for α > 2, on the
    instances; `scale` multiplies the α of the bound."""
    for alpha in alphas:
        for sigma in SPECTRA:
            w, squares, a = power_weights(alpha, sigma), [x**2 for x in sigma], scale * alpha
            bound = (sum(squares) + a * squares[0]) / (sum(squares) + a * squares[-1])
            found, claim = (w[0] / w[-1], ball(bound)) if alpha > 0 else (w[-1] / w[0], ball(1 / bound))
            where = f"α = {alpha}, σ = {tuple(map(str, sigma))}: {found} against {claim}"
            truth(bool(found <= claim if alpha < 2 else found >= claim), where)
    return f"{len(alphas) * len(SPECTRA)} instances"


def gentle_extremes() -> str:
    return extremes((Fraction(-1, 2), Fraction(1, 2), Fraction(1)))


def steep_extremes() -> str:
    return extremes((Fraction(3),))


def steep_spread(scale: Fraction | int = 1) -> str:
    """w_1/w_n − 1 ≤ scale·α(α−1)/(srank + α − 2) at α = 3 on the instances."""
    alpha = Fraction(3)
    for sigma in SPECTRA:
        w, rank = power_weights(alpha, sigma), sum(x**2 for x in sigma) / max(sigma) ** 2
        bound = ball(scale * alpha * (alpha - 1) / (rank + alpha - 2))
        where = f"σ = {tuple(map(str, sigma))}: spread {w[0] / w[-1] - 1} against {bound}"
        truth(bool(w[0] / w[-1] - 1 <= bound), where)
    return f"{len(SPECTRA)} instances"


def duality(scale: Fraction | int = 1) -> str:
    """With q = scale·∇h(v): ⟨q, v⟩ = h(v) to 12 digits, and ⟨q, v′⟩ < h(v′) for other v′."""
    forms: tuple[Rationals, ...] = (
        (Fraction(1), Fraction(-1, 2)),
        (Fraction(1), Fraction(1, 3), Fraction(-1)),
        (Fraction(2), Fraction(-1), Fraction(-1, 2), Fraction(1, 3)),
    )
    for v in forms:
        value, slope = hinge(v)
        q = [ball(scale) * x for x in slope]
        euler = sum((a * ball(b) for a, b in zip(q, v, strict=True)), ball(0))
        truth(
            bool(abs(euler - value) < ball(Fraction(1, 10**12))), f"⟨q, v⟩ = h(v) = {value} at v = {tuple(map(str, v))}"
        )
        for i in range(len(v)):
            other = tuple(x + Fraction(1, 5) * (j == i) for j, x in enumerate(v))
            gain = sum((a * ball(b) for a, b in zip(q, other, strict=True)), ball(0))
            truth(bool(gain < hinge(other)[0]), f"⟨q, v′⟩ < h(v′) at v′ = {tuple(map(str, other))}")
    return f"{len(forms)} forms, n = 2, 3, 4"
