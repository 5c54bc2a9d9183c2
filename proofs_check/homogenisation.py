"""The optimum draws a spectrum together if ψ = h′ rises, and apart if ψ falls.

Let s′ be s with ζ_i and ζ_j exchanged. Then s − s′ = (λ_i − λ_j)(ζ_i² − ζ_j²), and by symmetry

    2(w_i − w_j) = E[(ψ(s) − ψ(s′))(ζ_i² − ζ_j²)],

which has the sign of λ_i − λ_j if ψ rises. Source: Su, arXiv 2511.00674, Theorem 1; docs/theory.md, section 3.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, zero
from proofs_check.proof import Proof
from proofs_check.sphere import power_of_form
from proofs_check.stationarity import ONE_FUNCTION_STEPS, ORDER_STEPS
from proofs_check.step import Step, cited, exact, symbolic


def swap(sign: int = 1) -> str:
    """s − s′ = (λ_i − λ_j)(ζ_i² − ζ_j²)."""
    import sympy as sp

    first, second, a, b, rest = reals("l_i l_j z_i z_j c")
    s = first * a**2 + second * b**2 + rest
    swapped = s.subs({a: b, b: a}, simultaneous=True)
    return zero(sp.expand(s - swapped - sign * (first - second) * (a**2 - b**2)), "s − s′ with symbols for all entries")


def symmetrise(sign: int = 1) -> str:
    """T = ψ(s)(ζ_i² − ζ_j²) plus T after the exchange is (ψ(s) − ψ(s′))(ζ_i² − ζ_j²), any ψ."""
    import sympy as sp

    psi = sp.Function("psi")
    first, second, a, b, rest = reals("l_i l_j z_i z_j c")
    s = first * a**2 + second * b**2 + rest
    exchange = {a: b, b: a}
    term = psi(s) * (a**2 - b**2)
    both = term + sign * term.subs(exchange, simultaneous=True)
    claim = (psi(s) - psi(s.subs(exchange, simultaneous=True))) * (a**2 - b**2)
    return zero(both - claim, "T + T′ for any function ψ")


def pointwise(slope: int = 1, rising: bool = True) -> str:
    """(ψ(s) − ψ(s′))(ζ_i² − ζ_j²) = ±m(λ_i − λ_j)(ζ_i² − ζ_j²)², with ψ(s) − ψ(s′) = ±m(s − s′), m ≥ 0.

    `rising` is what the step claims of the sign, slope = ±1 what ψ does.
    """
    m, gap = nonnegatives("m d")
    low, a, b = reals("l_j a b")
    difference = ((low + gap) * a + low * b) - ((low + gap) * b + low * a)
    claim = slope * m * difference * (a - b)
    return nonnegative(claim if rising else -claim, "the sign of the integrand, λ_i = λ_j + d, d ≥ 0")


def quotient(power: int = 2) -> str:
    """m = ±P/(s − s′)² ≥ 0 for P = (ψ(s) − ψ(s′))(s − s′) and s ≠ s′."""
    apart, change = reals("t D")
    size, gap = positives("P u")
    m = change * apart / apart**power
    zero(m * apart - change, "m(s − s′) = ψ(s) − ψ(s′)")
    return nonnegative(size / gap**power, "m = P/(s − s′)², P ≥ 0; −m for P ≤ 0")


def on_powers(n: int, q: int, slope: int = 1) -> str:
    """slope·(w_1 − w_2) ≥ 0 for ψ = s^q, λ_1 = λ_2 + d: a polynomial in d and the λ_i, no coefficient negative."""
    names = " ".join(f"l{i}" for i in range(1, n))
    values, (gap,) = nonnegatives(names), nonnegatives("d")
    spectrum = (values[0] + gap, *values)
    weights = [power_of_form(spectrum, q, tuple(int(j == i) for j in range(n))) for i in (0, 1)]
    return nonnegative(slope * (weights[0] - weights[1]), f"n = {n}, ψ = s^{q}")


def all_powers() -> str:
    for n in (2, 3, 4):
        for q in (1, 2, 3):
            on_powers(n, q)
    return "polynomials in all λ_i, n ≤ 4, q ≤ 3"


def ratio(sign: int = 1) -> str:
    """g_iσ_j − g_jσ_i = σ_iσ_j(R_i − R_j): R_i ≥ R_j says σ_i/σ_j ≤ g_i/g_j."""
    sigma, other, low = positives("s_i s_j R_j")
    (gap,) = nonnegatives("d")
    r = low + sign * gap
    return nonnegative(sigma * r * other - other * low * sigma, "g_iσ_j − g_jσ_i with g = σR, R_i = R_j + d")


def ratio_reversed(sign: int = 1) -> str:
    """With R_i = R_j − d ≥ 0 the inequality turns."""
    sigma, other, low = positives("s_i s_j R_i")
    (gap,) = nonnegatives("d")
    r = low + sign * gap
    return nonnegative(other * r * sigma - sigma * low * other, "g_jσ_i − g_iσ_j with g = σR, R_j = R_i + d")


def falling() -> str:
    return pointwise(-1, rising=False)


MONOTONE = cited(
    "monotone",
    "(ψ(s) − ψ(s′))(s − s′) is ≥ 0 if ψ is nondecreasing, ≤ 0 if it is nonincreasing, for s and s′ in its range.",
    "definition of a monotone function",
)
SWAP: tuple[Step, ...] = (
    symbolic("swap", "s − s′ = (λ_i − λ_j)(ζ_i² − ζ_j²), s′ being s with ζ_i and ζ_j exchanged.", swap),
    symbolic(
        "symmetrise", "2(w_i − w_j) = E[(ψ(s) − ψ(s′))(ζ_i² − ζ_j²)], as ζ with an exchange has its law.", symmetrise
    ),
    MONOTONE,
    symbolic("quotient", "So ψ(s) − ψ(s′) = ±m(s − s′) with m ≥ 0, m = 0 where s = s′.", quotient),
)
RISING = (
    *SWAP,
    symbolic("sign", "If ψ rises the integrand is m(λ_i − λ_j)(ζ_i² − ζ_j²)² ≥ 0: w_i ≥ w_j for λ_i ≥ λ_j.", pointwise),
    exact("rising-powers", "w_i ≥ w_j for ψ = s^q.", all_powers, "n ≤ 4, q ≤ 3"),
)
FALLING = (
    *SWAP,
    symbolic("sign", "If ψ falls the integrand is −m(λ_i − λ_j)(ζ_i² − ζ_j²)² ≤ 0: w_i ≤ w_j for λ_i ≥ λ_j.", falling),
)

HOMOGENISATION = Proof(
    "homogenisation",
    "If ψ is nondecreasing, σ with g_i = σ_iR(σ_i²) has σ_i/σ_j ≤ g_i/g_j for g_i ≥ g_j > 0.",
    "Su, arXiv 2511.00674, Theorem 1; docs/theory.md, section 3",
    (
        *ONE_FUNCTION_STEPS,
        *ORDER_STEPS,
        *RISING,
        symbolic("ratio", "g_i ≥ g_j gives λ_i ≥ λ_j, so R(λ_i) = 2w_i ≥ R(λ_j), and g_iσ_j ≥ g_jσ_i.", ratio),
    ),
)
REVERSAL = Proof(
    "reversal",
    "If ψ is nonincreasing, σ with g_i = σ_iR(σ_i²) has σ_i/σ_j ≥ g_i/g_j for g_i ≥ g_j > 0.",
    "docs/theory.md, section 3",
    (
        *ONE_FUNCTION_STEPS,
        *ORDER_STEPS,
        *FALLING,
        symbolic("ratio", "g_i ≥ g_j gives λ_i ≥ λ_j, so R(λ_i) ≤ R(λ_j), and g_jσ_i ≥ g_iσ_j.", ratio_reversed),
    ),
)
PROOFS = (HOMOGENISATION, REVERSAL)
