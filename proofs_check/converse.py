"""Homogenisation where ψ is looked at only on the range of s, and what one homogenised spectrum says of ψ: little.

As Σζ_i² = 1, s and s′ are in [λ_n, λ_1], k = n: the sign of w_i − w_j follows from ψ there. So a ψ that falls anywhere
has spectra that are drawn apart. But a spectrum can be drawn together although ψ falls on a part of its range.
Source: Su, arXiv 2511.00674, Theorem 1, and this project.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, truth, zero
from proofs_check.balls import power_weights
from proofs_check.homogenisation import SWAP, falling, pointwise
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, OPEN_SETS, POSITIVE_MEAN, power_of_form
from proofs_check.stationarity import STATIONARITY
from proofs_check.step import Kind, Step, cited, enclosed, symbolic

SPECTRUM = (Fraction(1), Fraction(1, 100))  # λ of the counterexample


def inside(sign: int = 1) -> str:
    """(λ_i − λ_n)ζ_i² ≥ 0 and (λ_1 − λ_i)ζ_i² ≥ 0, the terms of s − λ_n and λ_1 − s as Σζ_i² = 1; for s′ as well."""
    least, up, more, square = nonnegatives("lambda_n a b y")
    value = least + sign * up
    nonnegative((value - least) * square, "the terms of s − λ_n")
    return nonnegative((value + more - value) * square, "the terms of λ_1 − s")


def ratios(sign: int = 1) -> str:
    """g = 2σw: g_iσ_j − g_jσ_i = 2σ_iσ_j(w_i − w_j) has the sign of w_i − w_j = ±d."""
    first, second, low = positives("s_i s_j w_j")
    (d,) = nonnegatives("d")
    for turn in (1, -1):
        difference = 2 * first * (low + turn * d) * second - 2 * second * low * first
        nonnegative(sign * turn * difference, "±(g_iσ_j − g_jσ_i)")
    return "w_i ≥ w_j and w_i ≤ w_j"


def strict(sign: int = 1) -> str:
    """−(ψ(s) − ψ(s′))(ζ_i² − ζ_j²) = m(λ_i − λ_j)(ζ_i² − ζ_j²)² > 0 for m > 0, λ_i > λ_j and ζ_i² = ζ_j² + u, u > 0."""
    m, gap, up, low = positives("m d u l_j")
    (b,) = nonnegatives("b")
    a = b + up
    difference = ((low + gap) * a + low * b) - ((low + gap) * b + low * a)
    return positive(sign * m * difference * (a - b), "the integrand with its sign turned")


def slope_at(values: tuple[Any, ...], coefficients: tuple[int, ...], place: int) -> Any:
    """w_i = E[ψζ_i²] for ψ = Σ c_q s^q, exactly."""
    weight = tuple(int(j == place) for j in range(len(values)))
    return sum(c * power_of_form(values, q, weight) for q, c in enumerate(coefficients))


def convex_hexic(middle: int = 2) -> str:
    """ψ = 1 − 2s + 3s² > 0 and H″ = 2 − 12r² + 30r⁴ > 0 for H = r² − r⁴ + r⁶."""
    import sympy as sp

    s, r = positives("s r")
    h = s - middle * s**2 / 2 + s**3
    psi, bend = sp.diff(h, s), sp.diff(h.subs(s, r**2), r, 2)
    third, fifth = sp.Rational(1, 3), sp.Rational(1, 5)
    square, other = 3 * (s - third) ** 2 + 2 * third, 30 * (r**2 - fifth) ** 2 + 4 * fifth
    zero(psi - square, "ψ = 3(s − 1/3)² + 2/3")
    positive(square, "ψ, so H′ = 2rψ")
    zero(bend - other, "H″ = 30(r² − 1/5)² + 4/5")
    return positive(other, "H′ = 2rψ > 0 and H″ > 0, each a square and a positive number")


def falls_inside(upper: Fraction = Fraction(1, 4)) -> str:
    """ψ(1/100) > ψ(1/4), both in the range [1/100, 1] of s."""
    low = SPECTRUM[1]
    values = [1 - 2 * s + 3 * s * s for s in (low, upper)]
    truth(low < upper < SPECTRUM[0], f"{low} < {upper} < {SPECTRUM[0]}")
    return truth(values[0] > values[1], f"ψ({low}) = {values[0]} > ψ({upper}) = {values[1]}")


def drawn_together(coefficients: tuple[int, ...] = (1, -2, 3)) -> str:
    """w_1 > w_2 > 0 for ψ = 1 − 2s + 3s² at λ = (1, 1/100), n = 2: g = 2σw has σ_1/σ_2 < g_1/g_2."""
    import sympy as sp

    values = tuple(sp.Rational(x.numerator, x.denominator) for x in SPECTRUM)
    first, second = (slope_at(values, coefficients, place) for place in (0, 1))
    truth(second > 0, f"w_2 = {second} > 0")
    return truth(first > second, f"w_1 = {first} > w_2 = {second}")


def in_balls(steep: Fraction = Fraction(2)) -> str:
    """The same for H = r^{3/2} + r^{2+α}, α = 2, at σ = (1, 1/10), where H′/r falls from r = 1/10 to 1/5."""
    sigma, gentle = (Fraction(1), Fraction(1, 10)), Fraction(-1, 2)
    weights = [a + b for a, b in zip(power_weights(gentle, sigma), power_weights(steep, sigma), strict=True)]
    truth(bool(weights[0] > weights[1]), f"w_1 = {weights[0]} > w_2 = {weights[1]}")
    # H′/r = (3/2)r^{−1/2} + 4r² falls by (3/2)r^{−1/2}(1 − 1/√2) − 12r² from r to 2r, and 1 − 1/√2 > 7/25.
    r, share = Fraction(1, 10), Fraction(7, 25)
    truth(2 * (1 - share) ** 2 > 1, "1 − 1/√2 > 7/25")
    truth((Fraction(3, 2) * share) ** 2 / r > (12 * r * r) ** 2, "H′/r falls from 1/10 to 1/5")
    return f"w_1 − w_2 = {weights[0] - weights[1]}"


RANGE_STEPS: tuple[Step, ...] = (
    *STATIONARITY,
    symbolic("inside", "λ_n ≤ s, s′ ≤ λ_1 for every ζ, k = n: ψ is looked at on that range only.", inside),
    *SWAP,
    symbolic("falls", "If ψ falls on it, w_i ≤ w_j for λ_i ≥ λ_j.", falling),
    symbolic("ratios", "g_i/g_j − σ_i/σ_j has the sign of w_i − w_j for g = ∇f(σ) = 2σw.", ratios),
)
SUFFICIENT = cited(
    "sufficient",
    "A stationary point of a differentiable convex function is a minimum.",
    "Rockafellar, Convex Analysis, Theorem 27.1",
)
ON_THE_RANGE = Proof(
    "homogenisation-range",
    "k = n, g = ∇f(σ) for σ > 0: g_i/g_j ≥ σ_i/σ_j for σ_i ≥ σ_j if ψ is nondecreasing on [σ_n², σ_1²], and ≤ if it is "
    "nonincreasing there.",
    "this project: Su, arXiv 2511.00674, Theorem 1, on a range",
    (*RANGE_STEPS, symbolic("rises", "If ψ rises on it, w_i ≥ w_j for λ_i ≥ λ_j.", pointwise)),
)
CONVERSE = Proof(
    "converse-all",
    "If ψ is nonincreasing on [σ_n², σ_1²], k = n, σ is the optimum for g = ∇f(σ) ≥ 0 and σ_i/σ_j ≥ g_i/g_j for "
    "σ_i ≥ σ_j. If ψ is C¹ and every spectrum is homogenised, ψ is nondecreasing.",
    "this project: the converse of Su, arXiv 2511.00674, Theorem 1, that holds",
    (
        *RANGE_STEPS,
        SUFFICIENT,
        cited(
            "mean-value",
            "If ψ(x) > ψ(y), x < y, then ψ′ < 0 somewhere between, and by continuity on an interval.",
            "mean value theorem; Rudin, Principles of Mathematical Analysis, Theorem 5.10",
        ),
        symbolic("strict", "With [λ_n, λ_1] in it, λ_i > λ_j, the integrand is < 0 wherever ζ_i² ≠ ζ_j².", strict),
        OPEN_SETS,
        POSITIVE_MEAN,
    ),
    needs=("convexity", "alignment"),
)
COUNTEREXAMPLE = Proof(
    "homogenisation-converse",
    "If σ_i/σ_j < g_i/g_j for all g_i > g_j > 0 of a spectrum, H′(r)/r is nondecreasing for all r that ‖Qζ‖ takes.",
    "the converse reading of Su, arXiv 2511.00674, Theorem 1; refuted by this project",
    (
        *MOMENTS,
        *STATIONARITY,
        symbolic("convex", "H = r² − r⁴ + r⁶ is convex and increasing.", convex_hexic),
        SUFFICIENT,
        Step("range", Kind.EXACT, "ψ = 1 − 2s + 3s² falls from 1/100 to 1/4, which s takes.", falls_inside),
        Step(
            "together", Kind.EXACT, "n = 2, λ = (1, 1/100), g = 2σw: w_1 > w_2, so σ_1/σ_2 < g_1/g_2.", drawn_together
        ),
        enclosed("powers", "A sum of powers does it too.", in_balls, "H = r^{3/2} + r⁴, σ = (1, 1/10)"),
    ),
    refutes=True,
    needs=("convexity", "alignment"),
)
PROOFS = (ON_THE_RANGE, CONVERSE, COUNTEREXAMPLE)
