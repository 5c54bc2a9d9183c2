"""A wall: H = H₀ up to r̃ and +∞ beyond adds σ ≤ r̃. H₀ = 0 gives r̃UVᵀ for every G, the polar factor.

In general r̃UVᵀ is optimal exactly if g_i ≥ ∂_if(r̃, …, r̃) for every i ≤ k. Source: docs/theory.md, section 10.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.alignment import VON_NEUMANN_STEPS
from proofs_check.convexity import TRIANGLE
from proofs_check.proof import Proof
from proofs_check.sphere import DIFFERENTIATION, LAW
from proofs_check.step import cited, symbolic


def box(sign: int = 1) -> str:
    """Σ g_i(r̃ − σ_i) ≥ 0 for 0 ≤ σ_i ≤ r̃: term by term, r̃ = σ_i + d."""
    g, sigma, d = nonnegatives("g sigma d")
    return nonnegative(g * (sigma + sign * d) - g * sigma, "g_i(r̃ − σ_i)")


def inside(sign: int = 1) -> str:
    """s ≤ r̃² Σζ_i² for σ_i ≤ r̃, term by term: (r̃² − σ_i²)ζ_i² ≥ 0."""
    sigma, d, square = nonnegatives("sigma d y")
    return nonnegative(((sigma + sign * d) ** 2 - sigma**2) * square, "(r̃² − σ_i²)ζ_i²")


def one_direction(sign: int = 1) -> str:
    """Along σ = r̃1 − td the length √s moves by −Σσ_id_iζ_i²/√s ≤ 0, linear in d: one index, and c for the others."""
    import sympy as sp

    r, y, rest, t = positives("r y c t")
    d, others = nonnegatives("d e")
    # s = (r − td)² y + rest − 2te + O(t²), e = r Σ d_jζ_j² over the others.
    length = sp.sqrt((r - t * d) ** 2 * y + rest - 2 * t * others)
    slope = sp.diff(length, t).subs(t, 0)
    claim = -sign * (r * d * y + others) / sp.sqrt(r**2 * y + rest)
    zero(slope - claim, "the derivative, the sum of those along −d_ie_i")
    return nonnegative(-claim, "no length grows, so that one derivative of H₀, the left one, enters")


def upper_corner(sign: int = 1) -> str:
    """F(σ) − F(r̃1) ≥ Σ(∂_if − g_i)(σ_i − r̃) = Σ(g_i − ∂_if)(r̃ − σ_i) ≥ 0, σ_i = r̃ − d, g_i = ∂_if + e."""
    slope, r = reals("f_i r")
    d, e = nonnegatives("d e")
    g = slope + sign * e
    term = (slope - g) * ((r - d) - r)
    zero(term - (g - slope) * d, "the term of index i")
    return nonnegative(term, "(g_i − ∂_if)(r̃ − σ_i) ≥ 0")


def inward(sign: int = 1) -> str:
    """Where g_i < ∂_if the derivative of f − ⟨g, ·⟩ along −e_i, −(∂_if − g_i), is negative."""
    g = reals("g")[0]
    (excess,) = positives("e")
    slope = g + sign * excess
    return positive(slope - g, "∂_if − g_i > 0, so that the derivative along −e_i is negative")


FEASIBLE = (
    symbolic("inside", "σ ≤ r̃ gives ‖Qζ‖ ≤ r̃ for every ζ.", inside),
    cited(
        "outside",
        "σ_1 > r̃ gives ‖Qζ‖ > r̃ near the first right singular vector, on a set of positive measure: E H = ∞.",
        "continuity; open sets of the sphere have positive measure",
    ),
)

POLAR = Proof(
    "wall-polar",
    "H = 0 up to r̃ and +∞ beyond: r̃UVᵀ is optimal for every G.",
    "docs/theory.md, section 10",
    (
        LAW,
        *FEASIBLE,
        *VON_NEUMANN_STEPS,
        symbolic("box", "So −Tr(QGᵀ) ≥ −Σg_iσ_i ≥ −r̃Σg_i, which r̃UVᵀ attains.", box),
    ),
)
CRITERION = Proof(
    "wall-criterion",
    "H = H₀ up to r̃ and +∞ beyond: r̃UVᵀ is optimal iff g_i ≥ ∂_if(r̃, …, r̃) for every i ≤ k, ∂_i from inside.",
    "docs/theory.md, section 10",
    (
        LAW,
        *FEASIBLE,
        *VON_NEUMANN_STEPS,
        *TRIANGLE,
        DIFFERENTIATION,
        symbolic("linear", "Along −d, d ≥ 0, the derivative of f is −Σd_i∂_if, ∂_if ≥ 0.", one_direction),
        cited(
            "subgradient",
            "f is convex, so f(σ) ≥ f(r̃1) + f′(r̃1; σ − r̃1) = f(r̃1) + Σ∂_if·(σ_i − r̃) for σ ≤ r̃.",
            "Rockafellar, Convex Analysis, Theorem 23.1",
        ),
        symbolic("enough", "g ≥ ∇f gives F(σ) − F(r̃1) ≥ Σ(g_i − ∂_if)(r̃ − σ_i) ≥ 0.", upper_corner),
        symbolic("needed", "g_i < ∂_if makes −e_i a descent direction.", inward),
    ),
)
PROOFS = (POLAR, CRITERION)
