"""A wall: H = H₀ up to r̃ and +∞ beyond adds σ ≤ r̃. H₀ = 0 gives r̃UVᵀ for every G, the polar factor.

In general r̃UVᵀ is optimal exactly if g_i ≥ ∂_if(r̃, …, r̃) for every i ≤ k. H₀ is continued beyond r̃ by a line with its
left slope there, which changes nothing inside. Source: docs/theory.md, section 10.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.alignment import SVD, VON_NEUMANN_STEPS
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.proof import Proof
from proofs_check.sphere import LAW, OPEN_SETS, POSITIVE_MEAN
from proofs_check.step import cited, symbolic


def box(sign: int = 1) -> str:
    """Σ g_i(r̃ − σ_i) ≥ 0 for 0 ≤ σ_i ≤ r̃: term by term, r̃ = σ_i + d."""
    g, sigma, d = nonnegatives("g sigma d")
    return nonnegative(g * (sigma + sign * d) - g * sigma, "g_i(r̃ − σ_i)")


def inside(sign: int = 1) -> str:
    """s ≤ r̃² Σζ_i² for σ_i ≤ r̃, term by term: (r̃² − σ_i²)ζ_i² ≥ 0."""
    sigma, d, square = nonnegatives("sigma d y")
    return nonnegative(((sigma + sign * d) ** 2 - sigma**2) * square, "(r̃² − σ_i²)ζ_i²")


def outside(sign: int = 1) -> str:
    """s − r̃² at ζ = e_1 for σ_1 = r̃ + d, d > 0."""
    (r,), (d,) = nonnegatives("r"), positives("d")
    return positive((r + sign * d) ** 2 * 1 - r**2, "σ_1²·1 − r̃²")


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


def distance(sign: int = 1) -> str:
    """2r̃Σ(r̃ − q_i) − ‖Q − r̃UVᵀ‖² = kr̃² − ‖Q‖² = Σ(r̃² − σ_i²) ≥ 0, q_i = u_iᵀQv_i: the terms of index i."""
    r, d = nonnegatives("r d")
    (q,) = reals("q")
    sigma = sign * (r - d)
    size = sigma**2
    apart = size - 2 * r * q + r**2
    zero(2 * r * (r - q) - apart - (r**2 - size), "2r̃(r̃ − q_i) − (σ_i² − 2r̃q_i + r̃²)")
    low, up = nonnegatives("s e")
    return nonnegative((low + sign * up) ** 2 - low**2, "r̃² − σ_i², r̃ = σ_i + e")


def weighted(sign: int = 1) -> str:
    """Σg_i(r̃ − q_i) ≥ g_kΣ(r̃ − q_i) for q_i = r̃ − d ≤ r̃ and g_i = g_k + e."""
    least, d, e = nonnegatives("g_k d e")
    return nonnegative((least + sign * e) * d - least * d, "(g_i − g_k)(r̃ − q_i)")


def entry(half: int = 2) -> str:
    """⟨u, x⟩ ≤ ½(r̃‖u‖² + ‖x‖²/r̃) ≤ r̃ for ‖u‖ = 1, x = Qv_i and r̃ = ‖x‖ + d."""
    size, (d,) = positives("x")[0], nonnegatives("d")
    a, b = reals("a b")
    r = size + d
    nonnegative((a**2 * r + b**2 / r) / half - a * b, "a b ≤ (a² r + b²/r)/2")
    return nonnegative(r - (r + size**2 / r) / half, "r̃ − ½(r̃ + ‖x‖²/r̃)")


def clipped(sign: int = 1) -> str:
    """F(τ) − F(σ) ≥ Σ(∂_if − g_i)(τ_i − σ_i): 0 where ∂_if = g_i, and ed for τ_i = r̃ − d, σ_i = r̃, g_i = ∂_if + e."""
    slope, r, g, move = reals("f_i r g move")
    d, e = nonnegatives("d e")
    term = (slope - g) * move
    zero(term.subs(g, slope), "σ_i < r̃")
    return nonnegative(term.subs({g: slope + sign * e, move: (r - d) - r}, simultaneous=True), "σ_i = r̃")


def minimum(sign: int = 1) -> str:
    """g_i = σ_iR(λ_i) is φ(g_i) = σ_i; g_i = r̃R(r̃²) + e, e ≥ 0, has φ(g_i) = φ(r̃R(r̃²)) + me ≥ r̃, m ≥ 0 its slope."""
    r, e, slope = nonnegatives("r e m")
    return nonnegative((r + sign * slope * e) - r, "φ(g_i) − r̃ where ∂_if ≤ g_i")


FEASIBLE = (
    symbolic("inside", "σ ≤ r̃ gives ‖Qζ‖ ≤ r̃ for every ζ.", inside),
    OPEN_SETS,
    POSITIVE_MEAN,
    symbolic("outside", "σ_1 > r̃ gives s = σ_1² > r̃² at ζ = e_1 and, s being continuous, near it: E H = ∞.", outside),
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
        *DIFFERENTIATION,
        symbolic("linear", "Along −d, d ≥ 0, the derivative of f is −Σd_i∂_if, ∂_if ≥ 0.", one_direction),
        cited(
            "subgradient",
            "f is convex, so f(σ) ≥ f(r̃1) + f′(r̃1; σ − r̃1).",
            "Rockafellar, Convex Analysis, Theorem 23.1",
        ),
        symbolic("enough", "g ≥ ∇f gives F(σ) − F(r̃1) ≥ Σ(g_i − ∂_if)(r̃ − σ_i) ≥ 0.", upper_corner),
        symbolic("needed", "g_i < ∂_if makes −e_i a descent direction.", inward),
    ),
    needs=("convexity", "alignment"),
)
SHARP = Proof(
    "wall-uniqueness",
    "H = 0 up to r̃ and +∞ beyond, G of full rank: F(Q) − F* ≥ g_k‖Q − r̃UVᵀ‖_F²/(2r̃) for ‖Q‖₂ ≤ r̃: r̃UVᵀ is the only "
    "optimum.",
    "Bernstein and Newhouse, arXiv 2409.20325, Proposition 4; docs/theory.md, section 10",
    (
        SVD,
        cited("coordinates", "⟨Q, UVᵀ⟩ = Σq_i and ⟨Q, G⟩ = Σg_iq_i for q_i = u_iᵀQv_i.", "definition of the trace"),
        symbolic("entry", "q_i ≤ ‖Q‖₂ ≤ r̃.", entry),
        symbolic("distance", "‖Q − r̃UVᵀ‖_F² = Σ(σ_i² − 2r̃q_i + r̃²) ≤ 2r̃Σ(r̃ − q_i).", distance),
        symbolic("weighted", "F(Q) − F(r̃UVᵀ) = Σg_i(r̃ − q_i) ≥ g_kΣ(r̃ − q_i).", weighted),
    ),
    needs=("wall-polar",),
)
CLIPS = Proof(
    "wall-clips",
    "H = H₀ up to r̃ and +∞ beyond, f₀ differentiable at σ ≤ r̃, ∂_if₀ = g_i where σ_i < r̃ and ∂_if₀ ≤ g_i where "
    "σ_i = r̃: σ is optimal, and σ_i = min(φ(g_i), r̃) where g_i > 0.",
    "docs/theory.md, section 10",
    (
        *FEASIBLE,
        cited(
            "subgradient",
            "f₀ is convex, so f₀(τ) ≥ f₀(σ) + Σ∂_if₀·(τ_i − σ_i).",
            "Rockafellar, Convex Analysis, Theorem 25.1",
        ),
        symbolic("clipped", "F(τ) − F(σ) ≥ Σ(g_i − ∂_if₀)(σ_i − τ_i) ≥ 0 for τ ≤ r̃.", clipped),
        symbolic("minimum", "φ, the inverse of xR(x²) = ∂_if₀ at the law of σ, has φ(g_i) = σ_i or ≥ r̃.", minimum),
    ),
    needs=("convexity", "alignment", "map-monotone"),
)
PROOFS = (POLAR, CRITERION, SHARP, CLIPS)
