"""The cap 1 + α is the supremum for every n: one dominant singular value comes as near to it as the others are small.

With p_i = λ_iζ_i²/s, ψ = s^{α/2} and P_i = E[ψp_i]/Eψ, w_1/w_j = (1 + αP_1)/(1 + αP_j) by the proof of the cap. Here
P_j ≤ 1 − P_1 ≤ δ, as ψ(1 − p_1) = s^{α/2−1} Σ_{j>1}λ_jζ_j² is small in the mean. Source: this project.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positives, zero
from proofs_check.cap import POWER_STEPS, integrable
from proofs_check.norms import corner, corner_power, largest
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS
from proofs_check.step import cited, symbolic


def exclusive(count: int = 1) -> str:
    """1 − p_1 − p_j is the share of the other terms of s."""
    (first,), (other, rest) = positives("x_1"), nonnegatives("x_j c")
    s = first + other + rest
    return nonnegative(1 - first / s - count * other / s, "1 − p_1 − p_j ≥ 0")


def remainder(power: int = 1) -> str:
    """ψ(1 − p_1) = s^{α/2−1}y for s = x + y."""
    import sympy as sp

    x, y, alpha = positives("x y alpha")
    s = sp.Symbol("s", positive=True)
    left = s ** (alpha / 2) * (1 - x / s)
    return zero(sp.powsimp(left / s ** (alpha / 2 - power)).subs(x, s - y) - y, "y = s − x = Σ_{j>1}λ_jζ_j²")


def low_power(limit: int = 1) -> str:
    """s^{a−1}y = y^a(s/y)^{a−1} ≤ y^a for 0 < a = 1 − b ≤ 1, as s ≥ y and t^{−b} falls from 1 at t = 1."""
    import sympy as sp

    y, t = positives("y t")
    (b,) = nonnegatives("b")
    a = limit - b
    zero(sp.powsimp((t * y) ** (a - 1) * y / (y**a * t ** (a - 1)), force=True) - 1, "s = ty")
    return nonnegative(-sp.diff(t ** (a - 1), t), "t^{a−1} falls")


def high_power(limit: int = 1) -> str:
    """s^{a−1} rises for a = 1 + b ≥ 1: s^{a−1}y ≤ λ_1^{a−1}y."""
    import sympy as sp

    (s,), (b,) = positives("s"), nonnegatives("b")
    return nonnegative(sp.diff(s ** (limit + b - 1), s), "(s^{a−1})′ ≥ 0 for a = 1 + b")


def delta(scale: int = 1) -> str:
    """Over Eψ ≥ λ_1^aκ, κ = E|ζ_1|^α: (Y/n)^a becomes (Y/(nλ_1))^a/κ, and λ_1^{a−1}Y/n becomes Y/(nλ_1)/κ."""
    import sympy as sp

    total, n, first, a, kappa = positives("Y n lambda_1 a kappa")
    share = total / (scale * n * first)
    low = (total / n) ** a / (first**a * kappa)
    zero(sp.powsimp(sp.expand_power_base(low * kappa / share**a, force=True)) - 1, "α ≤ 2")
    high = first ** (a - 1) * total / n / (first**a * kappa)
    return zero(sp.powsimp(high * kappa / share) - 1, "both exponents, min(1, α/2)")


def bound(sign: int = 1) -> str:
    """(1+αP_1)/(1+αP_j) ≥ (1+α(1−δ))/(1+αδ) for P_1 = 1 − δ + d, P_j = δ − e: αe(1+αP_1) + αd(1+αP_j) ≥ 0."""
    alpha, first, other, d, e = nonnegatives("alpha P_1 P_j d e")
    left = (1 + alpha * first) * (1 + alpha * (other + sign * e))
    return nonnegative(
        left - (1 + alpha * (first - d)) * (1 + alpha * other), "crosswise, 1 − δ = P_1 − d, δ = P_j + e"
    )


def limiting(end: int = 0) -> str:
    """The bound tends to 1 + α as δ = c y^b → 0 with y, b > 0."""
    import sympy as sp

    alpha, y = positives("alpha y")
    zero(sp.limit((1 + alpha * (1 - y)) / (1 + alpha * y), y, end) - (1 + alpha), "at δ → 0")
    b = sp.Symbol("b", positive=True)
    return zero(sp.limit(y**b, y, 0, "+"), "the bound at δ → 0, and y^b → 0")


ATTAINED = Proof(
    "cap-attained",
    "For H = c r^{2+α}, α > 0, n ≥ 2 and λ_1 the largest: R_1/R_j ≥ (1 + α(1−δ))/(1 + αδ), j > 1, "
    "δ = (Σ_{j>1}λ_j/(nλ_1))^{min(1,α/2)}/E|ζ_1|^α, which tends to 1 + α as the other λ_j vanish.",
    "this project: the cap of docs/theory.md, section 4, is the supremum",
    (
        *POWER_STEPS,
        *MOMENTS,
        symbolic("exclusive", "p_j ≤ 1 − p_1 for every ζ and j > 1, so P_j ≤ 1 − P_1.", exclusive),
        symbolic("remainder", "ψ(1 − p_1) = s^{α/2−1}y, y = Σ_{j>1}λ_jζ_j², E y = Σ_{j>1}λ_j/n.", remainder),
        symbolic("low", "For α ≤ 2 it is at most y^{α/2}.", low_power),
        cited("jensen", "E y^a ≤ (E y)^a for 0 < a ≤ 1, y ↦ y^a being concave.", "Jensen's inequality"),
        symbolic("largest", "s ≤ λ_1.", largest),
        symbolic("high", "So for α ≥ 2 it is at most λ_1^{α/2−1}y.", high_power),
        symbolic("corner", "s ≥ λ_1ζ_1².", corner),
        symbolic("corner-power", "So Eψ ≥ λ_1^{α/2}E|ζ_1|^α.", corner_power),
        symbolic("corner-positive", "E|ζ_1|^α is finite and > 0.", integrable),
        symbolic("delta", "1 − P_1 = E[ψ(1 − p_1)]/Eψ ≤ δ.", delta),
        symbolic("bound", "R_1/R_j = (1 + αP_1)/(1 + αP_j) is at least what is claimed.", bound),
        symbolic("limit-value", "It tends to 1 + α as δ → 0.", limiting),
    ),
)
PROOFS = (ATTAINED,)
