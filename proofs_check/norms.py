"""Powers as norms: N_p(Q) = (E‖Qζ‖^p)^{1/p} joins the Frobenius norm over √n at p = 2 to the spectral norm at p = ∞.

For H = c r^p the optimum is a step of steepest descent in N_p, of length N_p(Q*) = (N_p†(G)/(cp))^{1/(p−1)}.
Source: docs/theory.md, section 7.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.cap import integrable
from proofs_check.convexity import TRIANGLE
from proofs_check.proof import Proof
from proofs_check.quartic import second_moment
from proofs_check.sphere import LAW, MOMENTS
from proofs_check.step import cited, symbolic


def homogeneous(power: int = 1) -> str:
    """N_p(tQ) = tN_p(Q): (E t^p X)^{1/p} = t(E X)^{1/p}."""
    import sympy as sp

    t, p, mean = positives("t p M")
    ratio = (t ** (power * p) * mean) ** (1 / p) / (t * mean ** (1 / p))
    return zero(sp.expand_log(sp.log(ratio), force=True), "the logarithm of the quotient")


def convex_power(sign: int = 1) -> str:
    """x^{q/p} is convex for q = p + d: its second derivative is ≥ 0."""
    import sympy as sp

    x, p = positives("x p")
    (d,) = nonnegatives("d")
    second = sp.diff(x ** ((p + sign * d) / p), x, 2)
    return nonnegative(sp.simplify(second), "(x^{q/p})″ ≥ 0")


def largest(sign: int = 1) -> str:
    """λ_1 − s = Σ(λ_1 − λ_i)ζ_i² ≥ 0, term by term."""
    value, d, square = nonnegatives("lambda d y")
    return nonnegative((value + sign * d) * square - value * square, "(λ_1 − λ_i)ζ_i²")


def corner(sign: int = 1) -> str:
    """s − λ_1ζ_1² = Σ_{i>1}λ_iζ_i² ≥ 0, and 0 if λ_1 alone is not 0."""
    top, value, square, other = nonnegatives("lambda_1 lambda_i y x")
    s = top * square + sign * value * other
    zero(s.subs(value, 0) - top * square, "s = λ_1ζ_1² at rank one")
    return nonnegative(s - top * square, "λ_iζ_i², the terms of s − λ_1ζ_1²")


def corner_power(sign: int = 1) -> str:
    """(λζ²)^{p/2} = (σ|ζ|)^p for λ = σ²; and x^p rises: (x + d)^p ≥ x^p by its derivative."""
    import sympy as sp

    sigma, y, p, x = positives("sigma y p x")
    zero(sp.log(((sigma * y) ** 2) ** (p / 2) / (sigma**p * y**p)).expand(force=True), "(λ_1ζ_1²)^{p/2} = σ_1^p|ζ_1|^p")
    return positive(sign * sp.diff(x**p, x), "x^p rises")


def rising_power(sign: int = 1) -> str:
    """x^p and m^{1/p} rise."""
    import sympy as sp

    x, p = positives("x p")
    positive(sign * sp.diff(x**p, x), "(x^p)′ > 0")
    return positive(sp.diff(x ** (1 / p), x), "(m^{1/p})′ > 0")


def corner_moment(share: int = 1) -> str:
    """E|ζ_1|^{p+2}/E|ζ_1|^p = (p+1)/(p+n) for every n and p, and tends to 1."""
    import sympy as sp

    p, n = positives("p n")
    # E|ζ_1|^p = Γ(n/2)Γ((p+1)/2)/(√πΓ((n+p)/2)).
    upper = sp.gamma((p + 3) / 2) / sp.gamma((n + p) / 2 + 1)
    lower = sp.gamma((p + 1) / 2) / sp.gamma((n + p) / 2)
    zero(sp.gammasimp(upper / lower) - (p + share) / (p + n), "the ratio of neighbouring moments")
    return zero(sp.limit((p + share) / (p + n), p, sp.oo) - 1, "the ratio with symbols n, p, and its limit")


def squeezed(sign: int = 1) -> str:
    """N_p lies between σ_1κ and σ_1 for κ = (E|ζ_1|^p)^{1/p} ≤ 1: its distance from σ_1 is at most σ_1(1 − κ)."""
    sigma, kappa, d = nonnegatives("sigma kappa d")
    return nonnegative(sigma * (1 - kappa) - (sigma - (sigma * kappa + sign * d)), "σ_1(1 − κ) − (σ_1 − N_p)")


def on_the_level(sign: int = 1) -> str:
    """F(V) = F* + d with F = mean − gain, and the mean at V that at Q* less e: ⟨G, Q*⟩ − ⟨G, V⟩ = d + e."""
    mean, gain = reals("h q")
    d, e = nonnegatives("d e")
    other = mean - sign * e
    return nonnegative(gain - (other - (mean - gain + d)), "⟨G, Q*⟩ − ⟨G, V⟩ = d + e")


def best_length(shift: int = 1) -> str:
    """c t^p − N†t has derivative 0 at t = (N†/(cp))^{1/(p−1)}; p = 1 + d, d > 0."""
    import sympy as sp

    t, c, d, dual = positives("t c d D")
    p = 1 + d
    slope = sp.simplify(sp.diff(c * t**p - dual * t, t))
    return zero(slope.subs(t, (dual / (c * p)) ** (shift / d)), "the derivative at t = (N†/(cp))^{1/(p−1)}")


def convex_in_length(sign: int = 1) -> str:
    """c t^p is strictly convex in t > 0 for p = 1 + d."""
    import sympy as sp

    t, c, d = positives("t c d")
    return nonnegative(sign * sp.simplify(sp.diff(c * t ** (1 + d), t, 2)), "(c t^p)″ ≥ 0")


def along(sign: int = 1) -> str:
    """⟨G, Q⟩ = N†N − e with e ≥ 0: F(Q) = cN^p − N†N + e ≥ c N^p − N†N, and e = 0 on the ray of the maximiser."""
    power, dual, size = positives("P D N")
    (e,) = nonnegatives("e")
    return nonnegative(power - (dual * size - sign * e) - (power - dual * size), "F(Q) − (cN^p − N†N)")


def value(sign: int = 1) -> str:
    """F* = −(p−1)/p ⟨G, Q*⟩ with ⟨G, Q*⟩ = N†t and N† = cp t^{p−1}."""
    import sympy as sp

    t, c, d = positives("t c d")
    p = 1 + d
    dual = c * p * t ** (p - 1)
    return zero(sp.simplify(c * t**p - dual * t + sign * (p - 1) / p * dual * t), "F* + (p−1)/p ⟨G, Q*⟩")


def steepest(scale: int = 1) -> str:
    """min over t of −N†t + (l/2)t² is at t = N†/l: steepest descent in N_p goes along the same maximiser."""
    import sympy as sp

    dual, weight = positives("D l")
    t = reals("t")[0]
    slope = sp.diff(-dual * t + weight / 2 * t**2, t)
    return zero(slope.subs(t, scale * dual / weight), "the derivative at t = N†/l")


MINKOWSKI = (
    LAW,
    *TRIANGLE,
    cited(
        "minkowski",
        "‖X + Y‖_p ≤ ‖X‖_p + ‖Y‖_p for p ≥ 1, here for X = ‖Pζ‖ and Y = ‖Qζ‖.",
        "Minkowski's inequality; Rudin, Real and Complex Analysis, Theorem 3.5",
    ),
    symbolic("rising-power", "‖(P + Q)ζ‖^p ≤ (X + Y)^p, as x^p rises: N_p(P + Q) ≤ ‖X + Y‖_p.", rising_power),
)
CORNER = (
    *MOMENTS,
    symbolic("corner", "s ≥ λ_1ζ_1², with equality at rank one.", corner),
    symbolic("corner-power", "So ‖Qζ‖^p ≥ σ_1^p|ζ_1|^p, and N_p(Q) ≥ σ_1(E|ζ_1|^p)^{1/p}.", corner_power),
    symbolic("corner-positive", "E|ζ_1|^p is finite and > 0.", integrable),
)
LIMIT = (
    *CORNER,
    symbolic("largest", "s ≤ λ_1 for every ζ: N_p(Q) ≤ ‖Q‖₂.", largest),
    symbolic("corner-moment", "E|ζ_1|^{p+2}/E|ζ_1|^p = (p+1)/(p+n) → 1.", corner_moment),
    cited(
        "roots",
        "If a_{j+1}/a_j → 1, a_j > 0, then a_j^{1/j} → 1: (E|ζ_1|^p)^{1/p} → 1 along p = 2j.",
        "Rudin, Principles of Mathematical Analysis, Theorem 3.37",
    ),
    symbolic("squeezed", "σ_1 − N_p ≤ σ_1(1 − (E|ζ_1|^p)^{1/p}).", squeezed),
)
RISING = (
    symbolic("convex-power", "x ↦ x^{q/p} is convex for q ≥ p.", convex_power),
    cited("jensen", "So (E X)^{q/p} ≤ E X^{q/p} with X = ‖Qζ‖^p: N_p ≤ N_q.", "Jensen's inequality"),
)
ALONG = (
    LAW,
    cited(
        "dual",
        "N†(G) = max ⟨G, Q⟩/N_p(Q), the dual norm, is attained: ⟨G, Q⟩ ≤ N†·N_p(Q), with equality at some Q.",
        "Horn and Johnson, Matrix Analysis, section 5.4: a continuous function on a compact set attains its maximum",
    ),
    symbolic("along", "F(Q) = cN_p^p − ⟨G, Q⟩ ≥ cN_p^p − N†N_p, with equality on the maximiser's ray.", along),
    symbolic("best-length", "c t^p − N†t is stationary where cp t^{p−1} = N†.", best_length),
    symbolic("convex", "It is strictly convex in t, so that this is its only minimum.", convex_in_length),
)

TRIANGLE_INEQUALITY = Proof(
    "norm-triangle",
    "N_p(P + Q) ≤ N_p(P) + N_p(Q) for p ≥ 1.",
    "docs/theory.md, section 7",
    MINKOWSKI,
)
FAMILY = Proof(
    "norm-family",
    "For p ≥ 1 N_p is a norm, nondecreasing in p, ‖·‖_F/√n at p = 2, at most ‖·‖₂ and tending to it as p → ∞.",
    "docs/theory.md, section 7",
    (
        *MINKOWSKI,
        symbolic("homogeneous", "N_p(tQ) = tN_p(Q).", homogeneous),
        *RISING,
        symbolic("frobenius", "E‖Qζ‖² = ‖Q‖_F²/n.", second_moment),
        *LIMIT,
    ),
)
NORM_LIMIT = Proof(
    "norm-limit",
    "N_p(Q) ≥ ‖Q‖₂(E|ζ_1|^p)^{1/p}, with equality at rank one; N_p(Q) → ‖Q‖₂ as p → ∞.",
    "docs/theory.md, section 7",
    (*LIMIT, *RISING),
)
STEEPEST = Proof(
    "norm-steepest",
    "H = c r^p, p > 1, G ≠ 0: Q* is along steepest descent in N_p, ⟨G, V⟩/N_p(V) ≤ ⟨G, Q*⟩/N_p(Q*) = N_p†(G).",
    "docs/theory.md, section 7; Bernstein and Newhouse, arXiv 2409.20325",
    (*ALONG, symbolic("steepest", "−⟨G, Q⟩ + (l/2)N_p² is least on the same ray, at the length N†/l.", steepest)),
    needs=("norm-family",),
)
LENGTH = Proof(
    "norm-length",
    "H = c r^p, p > 1, G ≠ 0: N_p(Q*) = (N_p†(G)/(cp))^{1/(p−1)}, and F* = −(p−1)/p ⟨G, Q*⟩.",
    "docs/theory.md, section 7",
    (*ALONG, symbolic("value", "F* = −(p−1)/p ⟨G, Q*⟩.", value)),
    needs=("norm-family",),
)
LEVEL_SET = Proof(
    "level-set",
    "For every H: E H(‖Vζ‖) ≤ E H(‖Q*ζ‖) implies ⟨G, V⟩ ≤ ⟨G, Q*⟩.",
    "docs/theory.md, section 7",
    (symbolic("level", "F(V) ≥ F(Q*) and E H(‖Vζ‖) ≤ E H(‖Q*ζ‖) leave ⟨G, Q*⟩ − ⟨G, V⟩ ≥ 0.", on_the_level),),
)
PROOFS = (TRIANGLE_INEQUALITY, FAMILY, NORM_LIMIT, STEEPEST, LENGTH, LEVEL_SET)
