"""If H has a part c r^p, p > 1, the optimum is unique, and every optimum is therefore aligned.

|x + d|^p exceeds its tangent at x by |d|^p/(2^{p−1} − 1) at least for p ≥ 2, and by ½p(p−1)M^{p−2}|d|² for p ≤ 2 and
|x|, |x + d| ≤ M; at x = Q*ζ, d = Dζ its mean is what F gains. Source: Lindqvist, Proc. Amer. Math. Soc. 109 (1990) 157.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, truth, zero
from proofs_check.alignment import words
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.proof import Proof
from proofs_check.quartic import second_moment
from proofs_check.sphere import MOMENTS
from proofs_check.step import cited, symbolic


def bend(factor: int = 1) -> str:
    """(N^{p/2})″ = p N^{p/2−2}(bN + (p−2)(c + bt)²) for N = |x + td|² = a + 2ct + bt².

    b = |d|² and c + bt = ⟨x + td, d⟩.
    """
    import sympy as sp

    p, a, b = positives("p a b")
    c, t = reals("c t")
    size = a + 2 * c * t + b * t**2
    second = sp.diff(size ** (p / 2), t, 2) / size ** (p / 2 - 2)
    claim = p * (b * size + factor * (p - 2) * (c + b * t) ** 2)
    return zero(sp.simplify(second) - claim, "the second derivative over N^{p/2−2}")


def bend_below(sign: int = 1) -> str:
    """bN + (p−2)⟨y, d⟩² ≥ (p−1)bN for p = 2 − e: ⟨y, d⟩² = bN − h, h ≥ 0, by Cauchy and Schwarz."""
    b, size, h, e = nonnegatives("b N h e")
    p = 2 - e
    return nonnegative(b * size + (p - 2) * (b * size - sign * h) - (p - 1) * b * size, "e h ≥ 0")


def falling_power(limit: int = 2) -> str:
    """N^{p/2−1} falls in N for p = 2 − e: it is at least (M²)^{p/2−1} = M^{p−2} for N ≤ M²."""
    import sympy as sp

    size, m = positives("N M")
    (e,) = nonnegatives("e")
    p = limit - e
    zero(sp.powsimp((m**2) ** (p / 2 - 1) / m ** (p - 2), force=True) - 1, "(M²)^{p/2−1} = M^{p−2}")
    return nonnegative(-sp.diff(size ** (p / 2 - 1), size), "N^{p/2−1} falls")


def smooth(start: int = 1) -> str:
    """φ′ = pN^{p/2−1}⟨y, d⟩ with ⟨y, d⟩² = bN − h ≤ bN, and N^{p−2}·bN → 0 as N → 0 for p = 1 + f."""
    import sympy as sp

    size, f, b = positives("N f b")
    (h,) = nonnegatives("h")
    p = start + f
    nonnegative(b * size - (b * size - h), "⟨y, d⟩² ≤ |y|²|d|²")
    zero(sp.powsimp(size ** (p - 2) * b * size / (b * size**f)) - 1, "N^{p−2}·bN = bN^f")
    return zero(sp.limit(b * size**f, size, 0, "+"), "(φ′/p)² ≤ bN^f → 0")


def taylor(half: int = 2) -> str:
    """∫₀¹(1−t) m dt = m/2."""
    import sympy as sp

    (m,), (t,) = positives("m"), reals("t")
    return zero(sp.integrate((1 - t) * m, (t, 0, 1)) - m / half, "the remainder for a constant second derivative m")


def gain(sign: int = 1) -> str:
    """F(Q*+D) − F* = (slope of F along D) + (excess of H₀) + (excess of c r^p), each ≥ 0, the last ≥ the modulus."""
    base, tangent, excess, slack, modulus = nonnegatives("F a b d m")
    moved = base + tangent + excess + (modulus + sign * slack)
    return nonnegative(moved - base - modulus, "F(Q*+D) − F* − modulus")


def positive_modulus(less: int = 1) -> str:
    """2^{p−1} − 1 = 2(1 + u) − 1 > 0 for p = 2 + e, 2^e = 1 + u ≥ 1; p(p−1)/2 > 0 for p = 1 + f; it is 1 at p = 2."""
    (u,), (f,) = nonnegatives("u"), positives("f")
    positive(2 * (1 + u) - less, "2^{p−1} − 1")
    zero((2 * (1 + u) - less).subs(u, 0) - 1, "at p = 2")
    return positive((1 + f) * f / 2, "both moduli are > 0")


def symmetric_product(sign: int = 1) -> str:
    """GᵀQ = V · T S · Vᵀ and GQᵀ = U · (T S)ᵀ · Uᵀ for Q = U S Vᵀ, with g_iσ_ix² ≥ 0."""
    import sympy as sp

    _, _, u, v, s, t = words()
    first = (v * t * u**-1) * (u * s * v**-1)
    truth(sp.expand(first - sign * v * t * s * v**-1) == 0, "GᵀQ = V T S Vᵀ")
    g, sigma = nonnegatives("g sigma")
    (x,) = reals("x")
    return nonnegative(sign * g * sigma * x**2, "GᵀQ and GQᵀ are symmetric with eigenvalues g_iσ_i ≥ 0")


UNIQUENESS = Proof(
    "uniqueness",
    "H = c r^p + H₀, c > 0, p > 1, H₀ convex and nondecreasing: F(Q*+D) − F* ≥ cE‖Dζ‖^p/(2^{p−1} − 1) for p ≥ 2, and "
    "≥ cp(p−1)M^{p−2}‖D‖_F²/(2n), M = max(‖Q*‖₂, ‖Q*+D‖₂), for p ≤ 2; such parts add up; the optimum is unique.",
    "the modulus of |x|^p: Lindqvist, Proc. Amer. Math. Soc. 109 (1990) 157, Lemma 4.2",
    (
        *MOMENTS,
        *DIFFERENTIATION,
        cited(
            "lindqvist",
            "|x + d|^p ≥ |x|^p + p|x|^{p−2}⟨x, d⟩ + |d|^p/(2^{p−1} − 1) for p ≥ 2.",
            "Lindqvist, Proc. Amer. Math. Soc. 109 (1990) 157, Lemma 4.2",
        ),
        symbolic("bend", "|x + td|^p has the second derivative p|y|^{p−4}(|d|²|y|² + (p−2)⟨y, d⟩²), y = x + td.", bend),
        symbolic("bend-below", "For p ≤ 2 it is at least p(p−1)|y|^{p−2}|d|².", bend_below),
        symbolic("falling-power", "And |y|^{p−2} ≥ M^{p−2} for |y| ≤ M, as |y| ≤ max(|x|, |x + d|).", falling_power),
        cited(
            "taylor",
            "φ(1) = φ(0) + φ′(0) + ∫₀¹(1−t)φ″ dt for φ in C¹, convex, and in C² but for one t.",
            "Taylor's formula with the integral remainder, on either side of that t",
        ),
        symbolic(
            "smooth", "|φ′| ≤ p|d||y|^{p−1} → 0 as y → 0: φ = |x + td|^p is in C¹, in C² but where y = 0.", smooth
        ),
        symbolic("remainder", "So |x + d|^p exceeds its tangent by ½p(p−1)M^{p−2}|d|².", taylor),
        symbolic("second-moment", "E‖Dζ‖² = ‖D‖_F²/n.", second_moment),
        cited(
            "first-order",
            "At a minimum all one-sided derivatives are ≥ 0, and a convex function lies above them: so for F, and for "
            "E H₀.",
            "Rockafellar, Convex Analysis, Theorem 23.1 and section 27",
        ),
        symbolic("gain", "F(Q*+D) − F* ≥ F′(Q*; D) + modulus ≥ modulus.", gain),
        symbolic(
            "modulus", "Both moduli are positive multiples of E‖Dζ‖^p and ‖D‖_F², so > 0 for D ≠ 0.", positive_modulus
        ),
    ),
    needs=("convexity", "norm-family"),
)
ALIGNED_FACTORS = Proof(
    "aligned-factors",
    "Where H has a part c r^p, p > 1, every optimum has GᵀQ* and GQ*ᵀ symmetric and positive semidefinite.",
    "Su, arXiv 2511.00674, Proposition 3.1",
    (symbolic("product", "Q* = U diag(σ) Vᵀ has GᵀQ* = V diag(gσ) Vᵀ, gσ ≥ 0; GQ*ᵀ alike.", symmetric_product),),
    needs=("alignment", "uniqueness"),
)
PROOFS = (UNIQUENESS, ALIGNED_FACTORS)
