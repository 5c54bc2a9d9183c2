"""F(Q) = −Tr(QGᵀ) + E H(‖Qζ‖) is convex in Q.

With lengths x = ‖Pζ‖, y = ‖Qζ‖ and z = ‖(tP + (1−t)Q)ζ‖ three slacks ≥ 0 are lost on the way: a by the triangle
inequality, b by the monotonicity of H and c by its convexity. Source: docs/theory.md, section 1.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, same, zero
from proofs_check.proof import Proof
from proofs_check.sphere import LAW
from proofs_check.step import cited, symbolic


def cauchy_schwarz(half: int = 2) -> str:
    """Σ a_ib_i ≤ ‖a‖‖b‖ for every n: term by term a_ib_i ≤ ½(a_i² r + b_i²/r), and r = ‖b‖/‖a‖ makes the sum ‖a‖‖b‖."""
    a, b = reals("a b")
    r, left, right = positives("r A B")
    nonnegative((a**2 * r + b**2 / r) / half - a * b, "a b ≤ (a² r + b²/r)/2")
    bound = (left**2 * r + right**2 / r) / half
    return same(bound.subs(r, right / left), left * right, "the term a_i b_i, and the sum at r = ‖b‖/‖a‖")


def triangle(sign: int = 1) -> str:
    """‖p + q‖ ≤ ‖p‖ + ‖q‖: (‖p‖ + ‖q‖)² − ‖p + q‖² = 2(‖p‖‖q‖ − ⟨p, q⟩) ≥ 0, with ⟨p, q⟩ = ‖p‖‖q‖ − d."""
    left, right, slack = nonnegatives("P Q d")
    inner = left * right - sign * slack
    return nonnegative((left + right) ** 2 - (left**2 + right**2 + 2 * inner), "(‖p‖ + ‖q‖)² − ‖p + q‖²")


def slacks(sign: int = 1) -> str:
    """The three slacks add up: t F(P) + (1−t) F(Q) − F(tP + (1−t)Q) is b + c under E, whatever the linear term."""
    t, high, low, gain, other = reals("t H_x H_y l_p l_q")
    b, c = nonnegatives("b c")
    at_mean = t * high + (1 - t) * low - c - b
    mixed = at_mean - (t * gain + (1 - t) * other)
    ends = t * (high - gain) + (1 - t) * (low - other)
    zero(ends - mixed - (b + sign * c), "t F(P) + (1−t) F(Q) − F(tP + (1−t)Q) = b + c")
    return nonnegative(b + sign * c, "b + c ≥ 0 for slacks b, c ≥ 0")


def integrand(sign: int = 1) -> str:
    """t H(x) + (1−t) H(y) − H(z) = b + c ≥ 0 for every ζ, with the slacks of the module."""
    t, high, low = reals("t H_x H_y")
    b, c = nonnegatives("b c")
    between = t * high + (1 - t) * low - sign * c
    return nonnegative(t * high + (1 - t) * low - (between - b), "the chord of σ ↦ H(‖Qζ‖) at one ζ")


TRIANGLE = (
    symbolic("cauchy-schwarz", "⟨a, b⟩ ≤ ‖a‖‖b‖ in every dimension.", cauchy_schwarz),
    symbolic("triangle", "‖p + q‖ ≤ ‖p‖ + ‖q‖, so ‖(tP + (1−t)Q)ζ‖ ≤ t‖Pζ‖ + (1−t)‖Qζ‖.", triangle),
)

CURVATURE = cited(
    "curvature",
    "H(z) = H(tx + (1−t)y) − b with b ≥ 0 as H is nondecreasing and z ≤ tx + (1−t)y, and "
    "H(tx + (1−t)y) = tH(x) + (1−t)H(y) − c with c ≥ 0 as H is convex.",
    "definitions of nondecreasing and convex",
)
DIFFERENTIATION = (
    *TRIANGLE,
    CURVATURE,
    symbolic("integrand", "Q ↦ H(‖Qζ‖) is convex for every ζ, and so is σ ↦ H(‖diag(σ)ζ‖).", integrand),
    cited(
        "derivative",
        "If x ↦ h(x, ζ) is convex for every ζ and E h finite, E h has the one-sided derivatives E h′(x, ζ; d), and is "
        "differentiable at x exactly if h(·, ζ) is for almost every ζ.",
        "Bertsekas, JOTA 12 (1973) 218, Propositions 2.1 to 2.3",
    ),
)
CONVEXITY = Proof(
    "convexity",
    "F(Q) = −Tr(QGᵀ) + E H(‖Qζ‖) is convex in Q for H convex and nondecreasing.",
    "Su, arXiv 2511.00674; docs/theory.md, section 1",
    (
        *TRIANGLE,
        CURVATURE,
        symbolic("slacks", "tF(P) + (1−t)F(Q) − F(tP + (1−t)Q) = E(b + c) ≥ 0.", slacks),
        LAW,
    ),
)
PROOFS = (CONVEXITY,)
