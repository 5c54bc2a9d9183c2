"""In a wide layer without a dominant singular value a smooth curvature hardly moves the spectrum.

    Var s/(E s)² = 2/(n+2) · (n/r_eff − 1),       max R/min R − 1 ≤ α/srank   for H = c r^{2+α}, 0 ≤ α ≤ 2,

r_eff = (Σλ)²/Σλ² and srank = Σλ/λ₁; and a small spread of R is a small angle between Q* and G, by Kantorovich.
Source: docs/theory.md, section 4, where the spread is an estimate to first order; here it is a bound.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, zero
from proofs_check.balls import spread_below
from proofs_check.cap import POWER_STEPS, slope_of_power
from proofs_check.homogenisation import RISING, falling
from proofs_check.proof import Proof
from proofs_check.quartic import FOURTH
from proofs_check.step import cited, enclosed, symbolic


def variance(factor: int = 2) -> str:
    """E s²/(E s)² − 1 = 2/(n+2)(n/r_eff − 1) from both moments."""
    n, first, second = positives("n t1 t2")
    square = (first**2 + 2 * second) / (n * (n + 2))
    left = square / (first / n) ** 2 - 1
    return zero(left - factor / (n + 2) * (n * second / first**2 - 1), "with symbols n, t₁ = Σλ, t₂ = Σλ²")


def shares(sign: int = 1) -> str:
    """Σ λ_iζ_i²/s = 1: split off one index; so Σ p_i = 1."""
    one, rest = positives("x rest")
    return zero(one / (one + sign * rest) + rest / (one + rest) - 1, "x/s + rest/s = 1 for s = x + rest")


def difference(sign: int = 1) -> str:
    """(1 + αp_i)/(1 + αp_j) − 1 = α(p_i − p_j)/(1 + αp_j) ≤ αp_1 for p_i = p_1 − d."""
    alpha, p_i, p_j, d = nonnegatives("alpha p_i p_j d")
    zero((1 + alpha * p_i) / (1 + alpha * p_j) - 1 - alpha * (p_i - p_j) / (1 + alpha * p_j), "the quotient")
    top = p_i + sign * d
    return nonnegative(alpha * top - alpha * (p_i - p_j) / (1 + alpha * p_j), "αp_1 − α(p_i − p_j)/(1 + αp_j)")


def lowered(limit: int = 1) -> str:
    """s^{a−1} is nonincreasing for a ≤ limit = 1, a = limit − b."""
    import sympy as sp

    (s,) = positives("s")
    (b,) = nonnegatives("b")
    return nonnegative(-sp.diff(s ** (limit - b - 1), s), "−(s^{a−1})′ ≥ 0 for a = 1 − b, b ≥ 0")


def top_share(sign: int = 1) -> str:
    """p_1 = λ_1e_1/Σλ_je_j ≤ λ_1/Σλ for e_j = e_1 + d_j, d_j ≥ 0; D = Σλ_jd_j."""
    first, total, least = positives("lambda_1 S e_1")
    (gain,) = nonnegatives("D")
    return nonnegative(first / total - first * least / (least * total + sign * gain), "λ_1/Σλ − p_1")


def reverse_holder(four: int = 4) -> str:
    """m = E x, x in [a, b]: E x² ≤ (a+b)m − ab by E (x−a)(b−x) ≥ 0, and (a+b)²m² − 4ab((a+b)m − ab) is a square."""
    a, b, x = positives("a b x")
    (mean,) = reals("m")
    zero((x - a) * (b - x) - ((a + b) * x - a * b - x**2), "(x−a)(b−x) = (a+b)x − ab − x²")
    square = (a + b) ** 2 * mean**2 - four * a * b * ((a + b) * mean - a * b)
    return nonnegative(square, "((a+b)m − 2ab)² ≥ 0, so m²/E x² ≥ 4ab/(a+b)²")


def product_of_gaps(sign: int = 1) -> str:
    """(x − a)(b − x) ≥ 0 for a ≤ x ≤ b."""
    a, low, high = nonnegatives("a d e")
    x = a + low
    b = x + sign * high
    return nonnegative((x - a) * (b - x), "x = a + d, b = x + e")


def cosine(power: int = 2) -> str:
    """cos(g, σ) = m/√(E x²) for weights σ_i²/Σσ² and g = xσ: ⟨g, σ⟩ = Σxσ², ‖g‖² = Σx²σ²."""
    x, sigma = positives("x sigma")
    zero((x * sigma) * sigma - x * sigma**power, "the terms of ⟨g, σ⟩")
    inner, square, size = positives("M N S")
    return zero(inner**2 / (square * size) - (inner / size) ** 2 / (square / size), "cos² = m²/E x²")


def small_angle(eight: int = 8) -> str:
    """4ab/(a+b)² = 4(1+ε)/(2+ε)² at b = a(1+ε), and 1 − 2√(1+ε)/(2+ε) ≤ ε²/8 by ε = t² − 1, t = 1 + u."""
    a, epsilon = positives("a epsilon")
    b = a * (1 + epsilon)
    zero(4 * a * b / (a + b) ** 2 - 4 * (1 + epsilon) / (2 + epsilon) ** 2, "Kantorovich's constant")
    (u,) = nonnegatives("u")
    t = 1 + u
    left = (t**2 - 1) ** 2 * (t**2 + 1) - eight * (t**2 + 1 - 2 * t)
    zero((t**2 + 1) * (1 - 2 * t / (t**2 + 1)) - (t**2 + 1 - 2 * t), "1 − 2t/(t²+1) over its denominator")
    return nonnegative(left, "ε²/8 − (1 − 2√(1+ε)/(2+ε)) ≥ 0 for ε ≥ 0")


VARIANCE = Proof(
    "concentration-variance",
    "Var s/(E s)² = 2/(n+2) · (n/r_eff − 1), r_eff = (Σλ)²/Σλ².",
    "docs/theory.md, section 4",
    (*FOURTH, symbolic("variance", "E s = Σλ/n and E s² give the quotient.", variance)),
)
SPREAD = Proof(
    "concentration-spread",
    "For H = c r^{2+α}, 0 ≤ α ≤ 2: max R/min R − 1 ≤ α/srank over the λ_i, srank = Σλ/λ_1.",
    "bound for the estimate of docs/theory.md, section 4",
    (
        *POWER_STEPS,
        symbolic("shares", "Σ p_i = 1 for p_i = E[ψλ_iζ_i²/s]/Eψ.", shares),
        symbolic("slope", "ψ rises.", slope_of_power),
        *RISING,
        symbolic("difference", "R_1 is the largest R, so p_1 the largest p, and R_i/R_j − 1 ≤ αp_1.", difference),
        symbolic("lowered", "ψ/s is a multiple of s^{a−1}, a = α/2 ≤ 1, and nonincreasing.", lowered),
        symbolic("swap-lowered", "So e_j = E[s^{a−1}ζ_j²] ≥ e_1 for every j, by the same exchange.", falling),
        symbolic("top-share", "p_1 = λ_1e_1/Σλ_je_j ≤ λ_1/Σλ = 1/srank, for E s^a = Σλ_je_j over λ_j > 0.", top_share),
        enclosed("instances", "The bound in balls.", spread_below, "α = ½, 1, 2 for n = 2, 3"),
    ),
)


def monotone_angle(sign: int = 1) -> str:
    """cos² = 4(1+ε)/(2+ε)² falls in ε, its derivative being −4ε/(2+ε)³, and is 1 − (ε/(2+ε))²."""
    import sympy as sp

    (epsilon,) = nonnegatives("epsilon")
    square = 4 * (1 + epsilon) / (2 + epsilon) ** 2
    zero(sp.diff(square, epsilon) + sign * 4 * epsilon / (2 + epsilon) ** 3, "the derivative")
    nonnegative(4 * epsilon / (2 + epsilon) ** 3, "it falls")
    return zero(1 - square - (epsilon / (2 + epsilon)) ** 2, "cos² falls in ε, and sin = ε/(2+ε)")


ANGLE = Proof(
    "ratios-angle",
    "If x_i = g_i/σ_i lie in [a, a(1+ε)], then cos(g, σ) ≥ 2√(1+ε)/(2+ε), and 1 − cos(g, σ) ≤ ε²/8.",
    "Kantorovich's inequality; docs/theory.md, section 4",
    (
        symbolic("cosine", "cos² = m²/E x² in the weights σ_i²/Σσ².", cosine),
        symbolic("gaps", "(x − a)(b − x) ≥ 0.", product_of_gaps),
        cited("mean", "So E(x−a)(b−x) ≥ 0.", "a mean of terms ≥ 0 is ≥ 0"),
        symbolic("kantorovich", "m²/E x² ≥ 4ab/(a+b)².", reverse_holder),
        symbolic("angle", "That is 4(1+ε)/(2+ε)², and 1 − 2√(1+ε)/(2+ε) ≤ ε²/8.", small_angle),
    ),
)
UPDATE_ANGLE = Proof(
    "concentration-angle",
    "For H = c r^{2+α}, 0 ≤ α ≤ 2, and ε = α/srank: cos(g, σ) ≥ 2√(1+ε)/(2+ε), that is sin(g, σ) ≤ ε/(2+ε).",
    "Kantorovich's inequality; docs/theory.md, section 4",
    (
        symbolic(
            "falls",
            "2√(1+ε)/(2+ε) falls in ε: max R/min R − 1 ≤ α/srank may stand for ε; and sin² = (ε/(2+ε))².",
            monotone_angle,
        ),
    ),
    needs=("concentration-spread", "ratios-angle"),
)
PROOFS = (VARIANCE, SPREAD, ANGLE, UPDATE_ANGLE)
