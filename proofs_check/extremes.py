"""How far R spreads for a power, from both sides: the first-order (Σλ + αλ_1)/(Σλ + αλ_j) bounds it up to α = 2.

With v_i = E[s^{α/2−1}ζ_i²], Σλ_iv_i = Eψ =: E and (n+α)w_i = E + αλ_iv_i. By the exchange of two entries of ζ, v_i
falls in λ_i for α ≤ 2 and rises for α ≥ 2, and

    (Σλ+αλ_1)(E+αλ_jv_j) − (E+αλ_1v_1)(Σλ+αλ_j) = α[λ_1(E − v_1Σλ) + λ_j(v_jΣλ − E) + αλ_1λ_j(v_j − v_1)].

Source: this project, for docs/theory.md, section 4.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.balls import gentle_extremes, steep_extremes, steep_spread
from proofs_check.cap import POWER_STEPS, integrable, slope_of_low_power, slope_of_power
from proofs_check.concentration import lowered, shares
from proofs_check.homogenisation import RISING, SWAP, falling, pointwise
from proofs_check.proof import Proof
from proofs_check.step import Step, enclosed, symbolic


def crosswise(sign: int = 1) -> str:
    """The identity of the module, for any v."""
    total, mean, alpha, first, last, v1, vj = reals("S E alpha l_1 l_j v_1 v_j")
    left = (total + alpha * first) * (mean + alpha * last * vj) - (mean + alpha * first * v1) * (total + alpha * last)
    bracket = first * (mean - v1 * total) + last * (vj * total - mean) + sign * alpha * first * last * (vj - v1)
    return zero(left - alpha * bracket, "with symbols for all of it")


def between(sign: int = 1) -> str:
    """v_i = v_1 + a, v_j = v_i + b: the terms λ_i(v_i − v_1) and λ_i(v_j − v_i) are ≥ 0."""
    value, a, b, least = nonnegatives("lambda_i a b v_1")
    middle = least + sign * a
    nonnegative(value * (middle - least), "the terms of E − v_1Σλ")
    return nonnegative(value * ((middle + b) - middle), "the terms of v_jΣλ − E")


def gentle(sign: int = 1) -> str:
    """For α ≥ 0 and v falling the bracket is λ_1p + λ_jq + αλ_1λ_jr ≥ 0."""
    alpha, first, last, p, q, r = nonnegatives("alpha l_1 l_j p q r")
    return nonnegative(alpha * (first * p + last * q + sign * alpha * first * last * r), "α times the bracket")


def concave(own: int = 1) -> str:
    """For α = −a, a = 1 − b, E − v_1Σλ = λ_jr + p has the term of j: the bracket is bλ_1λ_jr + λ_1p + λ_jq ≥ 0."""
    b, first, last, p, q, r = nonnegatives("b l_1 l_j p q r")
    a = 1 - b
    return nonnegative(first * (own * last * r + p) + last * q - a * first * last * r, "the bracket")


def steeper(sign: int = 1) -> str:
    """For v rising p, q and r turn their signs: α times the bracket is ≤ 0."""
    alpha, first, last, p, q, r = nonnegatives("alpha l_1 l_j p q r")
    bracket = -first * p - last * q - sign * alpha * first * last * r
    return nonnegative(-alpha * bracket, "−α times the bracket")


def denominators(sign: int = 1) -> str:
    """Σλ + αλ_j and Σλ + αλ_1 are > 0 for α > −1: Σλ = λ_1 + c, α = b − 1."""
    first, b = positives("l_1 b")
    (others,) = nonnegatives("c")
    return positive(first + others + (b - sign) * first, "Σλ + αλ_1 = c + bλ_1 > 0")


def equality(power: int = 2) -> str:
    """At α = 2 s^{α/2−1} = 1: all v_i are E ζ_i² = 1/n, and the bracket is 0 with E = Σλ/n."""
    import sympy as sp

    s, n, total, first, last = positives("s n S l_1 l_j")
    zero(s ** (sp.Rational(power, 2) - 1) - 1, "s^{α/2−1}")
    mean, v = total / n, 1 / n
    return zero(first * (mean - v * total) + last * (v * total - mean), "v constant, and the bracket")


def raised(limit: int = 1) -> str:
    """s^{a−1} is nondecreasing for a = 1 + b ≥ 1."""
    import sympy as sp

    (s,), (b,) = positives("s"), nonnegatives("b")
    return nonnegative(sp.diff(s ** (limit + b - 1), s), "(s^{a−1})′ ≥ 0 for a = 1 + b")


def lower_exponent(less: int = 2) -> str:
    """ψ of r^{2+α'} for α' = α − 2 is a multiple of s^{α/2−1}: v_i is its w_i."""
    import sympy as sp

    s, alpha = positives("s alpha")
    ratio = s ** ((alpha - less) / 2) / s ** (alpha / 2 - 1)
    return zero(sp.powsimp(ratio) - 1, "s^{α'/2} = s^{α/2−1}")


def top_spread(sign: int = 1) -> str:
    """(E+αλ_iv_i)/(E+αλ_jv_j) − 1 = α(x_i − x_j)/(E + αx_j) ≤ αx_1/E for x = λv, x_i = x_1 − d ≥ 0."""
    alpha, x_i, x_j, d = nonnegatives("alpha x_i x_j d")
    (mean,) = positives("E")
    ratio = (mean + alpha * x_i) / (mean + alpha * x_j) - 1
    return nonnegative(alpha * (x_i + sign * d) / mean - ratio, "αx_1/E − (R_i/R_j − 1)")


def top_products(sign: int = 1) -> str:
    """λ_iv_i ≤ λ_1v_1 for λ_i ≤ λ_1, v_i ≤ v_1."""
    value, v, d, e = nonnegatives("lambda_i v_i d e")
    return nonnegative((value + sign * d) * (v + e) - value * v, "λ_1v_1 − λ_iv_i")


def mass(sign: int = 1) -> str:
    """E ≥ λ_1v_1 + (Σλ − λ_1)v_1/(α−1), as v_i = v_1/(α−1) + d: then αλ_1v_1/E ≤ α(α−1)/(srank + α − 2)."""
    value, d, others, more = nonnegatives("lambda_i d c m")
    v, first, gamma = positives("v_1 lambda_1 gamma")  # γ = α − 1
    nonnegative(value * (v / gamma + sign * d) - value * v / gamma, "λ_i(v_i − v_1/(α−1))")
    mean = first * v + others * v / gamma + more
    rank, alpha = (first + others) / first, gamma + 1
    return nonnegative(alpha * gamma / (rank + gamma - 1) - alpha * first * v / mean, "the bound less αλ_1v_1/E")


def at_rank_one(less: int = 2) -> str:
    """1 + α(α−1)/(srank + α − 2) = 1 + α at srank = 1, and it falls in srank."""
    import sympy as sp

    gamma, extra = positives("gamma x")
    alpha = gamma + 1
    value = 1 + alpha * (alpha - 1) / (1 + extra + alpha - less)
    zero(value.subs(extra, 0) - (1 + alpha), "srank = 1")
    return positive(-sp.diff(value, extra), "it falls in srank = 1 + x")


MEANS: tuple[Step, ...] = (
    *POWER_STEPS,
    symbolic("shares", "Σλ_iv_i = Eψ for v_i = E[s^{α/2−1}ζ_i²], and (n+α)w_i = E + αλ_iv_i.", shares),
    symbolic("crosswise", "What both ratios differ by, crosswise, is α times a bracket.", crosswise),
    symbolic("denominators", "Σλ + αλ_i > 0; E + αλ_iv_i = (n+α)w_i > 0.", denominators),
)
_SWAPPED = "By the exchange of ζ_i and ζ_j "

EXTREMES = Proof(
    "concentration-extremes",
    "For H = c r^{2+α}, 0 ≤ α ≤ 2: R_1/R_j ≤ (Σλ+αλ_1)/(Σλ+αλ_j), λ_1 the largest and λ_j > 0 the least; for "
    "−1 < α ≤ 0 R_j/R_1 is at most the inverse. α = 2 has equality.",
    "this project: sharpens docs/theory.md, section 4",
    (
        *MEANS,
        symbolic("integrable", "Eψ is finite for α > −1.", integrable),
        *SWAP,
        symbolic("slope", "ψ rises for α ≥ 0.", slope_of_power),
        symbolic("sign", _SWAPPED + "R is then largest at λ_1 and least at λ_j.", pointwise),
        symbolic("low-slope", "ψ falls for α ≤ 0, and R_j is the largest, R_1 the least.", slope_of_low_power),
        symbolic("lowered", "s^{α/2−1} falls for α ≤ 2.", lowered),
        symbolic("sign-lowered", _SWAPPED + "v_1 ≤ v_i ≤ v_j.", falling),
        symbolic("between", "So E − v_1Σλ = Σλ_i(v_i − v_1) ≥ 0 and v_jΣλ − E ≥ 0.", between),
        symbolic("gentle", "For α ≥ 0 the bracket is ≥ 0.", gentle),
        symbolic("concave", "For −1 < α ≤ 0 the bracket is ≥ 0 as well, and α times it ≤ 0.", concave),
        symbolic("equality", "At α = 2 it is 0.", equality),
        enclosed("instances", "Both bounds in balls.", gentle_extremes, "α = −½, ½, 1 for n = 2, 3"),
    ),
)
TURN = Proof(
    "concentration-turn",
    "For H = c r^{2+α}, α ≥ 2: R_1/R_j ≥ (Σλ+αλ_1)/(Σλ+αλ_j), λ_1 the largest and λ_j > 0 the least.",
    "this project, for docs/theory.md, section 4",
    (
        *MEANS,
        symbolic("raised", "s^{α/2−1} rises for α ≥ 2, as does ψ = s · s^{α/2−1}.", raised),
        *RISING,
        symbolic("between", "So v_1 ≥ v_i ≥ v_j, and v_1Σλ − E = Σλ_i(v_1 − v_i) ≥ 0 and E − v_jΣλ ≥ 0.", between),
        symbolic("steeper", "The bracket is ≤ 0.", steeper),
        enclosed("instances", "The bound in balls.", steep_extremes, "α = 3 for n = 2, 3"),
    ),
)
STEEP = Proof(
    "concentration-steep",
    "For H = c r^{2+α}, α ≥ 2: max R/min R − 1 ≤ α(α−1)/(srank + α − 2) over the λ_i > 0, at most α.",
    "this project: docs/theory.md, section 4, as a bound for steep powers",
    (
        *POWER_STEPS,
        symbolic("shares", "Σλ_iv_i = Eψ for v_i = E[s^{α/2−1}ζ_i²], and (n+α)w_i = E + αλ_iv_i.", shares),
        symbolic(
            "lower-exponent", "v_i is w_i for the exponent α − 2 ≥ 0: by the cap v_i ≤ v_1 ≤ (α−1)v_i.", lower_exponent
        ),
        symbolic("top-products", "So λ_iv_i ≤ λ_1v_1.", top_products),
        symbolic("top-spread", "R_i/R_j − 1 ≤ αλ_1v_1/E.", top_spread),
        symbolic("mass", "E ≥ λ_1v_1 + (Σλ − λ_1)v_1/(α−1), which leaves the bound.", mass),
        symbolic("rank-one", "It is α at srank = 1, and falls in srank.", at_rank_one),
        enclosed("instances", "The bound in balls.", steep_spread, "α = 3 for n = 2, 3"),
    ),
    needs=("cap",),
)
PROOFS = (EXTREMES, TURN, STEEP)
