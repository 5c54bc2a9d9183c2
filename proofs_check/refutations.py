"""False statements, each refuted by one exact counterexample in rational arithmetic.

Source: this project; the statements are readings of docs/theory.md, sections 4 and 7, and of Bernstein and Newhouse,
arXiv 2409.20325, Proposition 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from proofs_check.algebra import truth
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, power_of_form
from proofs_check.stationarity import STATIONARITY
from proofs_check.step import Kind, Step

Spectrum = tuple[Fraction, ...]
STEEP: Spectrum = (Fraction(1), Fraction(1, 2), Fraction(1, 1000))
PAIR: Spectrum = (Fraction(1), Fraction(1, 4))


def weights(values: Spectrum, coefficients: dict[int, int]) -> list[Any]:
    """w_i = E[ψζ_i²] for ψ = Σ c_q s^q, exactly."""
    import sympy as sp

    exact = tuple(sp.Rational(x.numerator, x.denominator) for x in values)
    places = [tuple(int(i == j) for j in range(len(values))) for i in range(len(values))]
    return [sum(c * power_of_form(exact, q, place) for q, c in coefficients.items()) for place in places]


def steep_spread(half: int = 2) -> str:
    """max R/min R − 1 > α/srank for H = r^{2+α}, α = 4, at λ = (1, ½, 10⁻³), n = 3; α = 2·half."""
    w = weights(STEEP, {half: 1})
    spread, bound = max(w) / min(w) - 1, 2 * half * max(STEEP) / sum(STEEP)
    return truth(spread > bound, f"max R/min R − 1 = {float(spread):.4f} > α/srank = {float(bound):.4f}")


def two_optima(low: Fraction = Fraction(0)) -> str:
    """r̃ = 1, G = diag(1, low), low = 0: Q = I has F(Q) = −Tr(QGᵀ) = −1 = F*, but UVᵀ is diag(1, 0)."""
    g, q, polar = (Fraction(1), low), (Fraction(1), Fraction(1)), (Fraction(1), Fraction(int(low > 0)))
    lost = sum(g) - sum(a * b for a, b in zip(q, g, strict=True))
    apart = sum((a - b) ** 2 for a, b in zip(q, polar, strict=True))
    return truth(lost < Fraction(1, 100) * g[0] * apart / 2, f"F(Q) − F* = {lost} at ‖Q − r̃UVᵀ‖_F² = {apart}")


def turns_with_scale(fourth: int = 1) -> str:
    """H = r² + r⁴, ψ = 1 + 2s: w_1/w_2 at tσ, t > 0, is that at σ = (1, ½) for t = 1 alone."""
    import sympy as sp

    t = sp.Symbol("t", positive=True)
    square, plain = weights(PAIR, {1: 2 * fourth}), weights(PAIR, {0: 1})
    first, second = (a + t**2 * b for a, b in zip(plain, square, strict=True))
    cross = sp.factor(first * second.subs(t, 1) - second * first.subs(t, 1))
    rest = sp.cancel(cross / (t**2 - 1))
    return truth(bool(rest.is_number and rest != 0), f"w_1(tσ)w_2(σ) − w_2(tσ)w_1(σ) = {cross}")


STEEP_SPREAD = Proof(
    "concentration-spread-steep",
    "For H = c r^{2+α}, α > 2: max R/min R − 1 ≤ α/srank.",
    "docs/theory.md, section 4, read as a bound; refuted by this project",
    (*MOMENTS, *STATIONARITY, Step("spread", Kind.EXACT, "H = r⁶, λ = (1, ½, 10⁻³), n = 3.", steep_spread)),
    refutes=True,
)
WALL = Proof(
    "a-wall-has-one-optimum",
    "Under a lone wall r̃, whatever the rank of G: F(Q) − F* ≥ 10⁻²g_1‖Q − r̃UVᵀ‖_F²/(2r̃) for ‖Q‖₂ ≤ r̃.",
    "Bernstein and Newhouse, arXiv 2409.20325, Proposition 4: unique if and only if the rank is full",
    (Step("two-optima", Kind.EXACT, "G = diag(1, 0), r̃ = 1: Q = I is optimal, beside diag(1, 0).", two_optima),),
    refutes=True,
    needs=("wall-polar",),
)
SCALES = Proof(
    "one-norm-for-all-scales",
    "For every super-quadratic H the direction of Q* does not depend on the scale of G.",
    "docs/theory.md, section 7, read for every super-quadratic H; refuted by this project",
    (
        *MOMENTS,
        *STATIONARITY,
        Step(
            "turns",
            Kind.EXACT,
            "H = r² + r⁴, σ = (1, ½), g = ∇f(σ) = 2σw: an optimum tσ, t > 0, for 2g has w_1/w_2 as at σ, so t = 1; but "
            "∇f(σ) is g.",
            turns_with_scale,
        ),
    ),
    refutes=True,
    needs=("convexity", "alignment"),
)
PROOFS = (STEEP_SPREAD, WALL, SCALES)
