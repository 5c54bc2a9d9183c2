"""Some optimum of F shares the singular vectors of G, by von Neumann's trace inequality.

With the singular value decompositions of Q and G, Tr(QGᵀ) = Σ_ij σ_i g_j a_ij b_ij, where a and b are blocks of two
orthogonal matrices. Source: Su, arXiv 2511.00674, Proposition 3.1 and Lemma 4.1; docs/theory.md, section 2.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, reals, same, truth, zero
from proofs_check.proof import Proof
from proofs_check.sphere import LAW
from proofs_check.step import cited, exact, symbolic


def products(half: int = 2) -> str:
    """σ g ((a² + b²)/2 − ab) ≥ 0."""
    a, b = reals("a b")
    sigma, g = nonnegatives("sigma g")
    return nonnegative(sigma * g * ((a**2 + b**2) / half - a * b), "σ_i g_j (½(a² + b²) − a b) ≥ 0")


def row_sums(bound: int = 1) -> str:
    """A row of D_ij = ½(a_ij² + b_ij²) sums to 1 − ½(p + q): p, q ≥ 0 is what the rows of a and b have beyond k."""
    rest_a, rest_b = nonnegatives("p q")
    row = ((1 - rest_a) + (1 - rest_b)) / 2
    return nonnegative(bound - row, "1 − Σ_j D_ij ≥ 0, rows of orthogonal matrices having length 1")


def rearrangement(sign: int = 1) -> str:
    """σ_i ≥ σ_j, g_i ≥ g_j: putting two entries in order gains (σ_i − σ_j)(g_i − g_j) ≥ 0."""
    low, g_low, up, g_up = nonnegatives("sigma_j g_j d e")
    sigma, g = low + up, g_low + sign * g_up
    return nonnegative((sigma * g + low * g_low) - (sigma * g_low + low * g), "σ_ig_i + σ_jg_j − σ_ig_j − σ_jg_i")


def entry_sums(largest: int = 3, sign: int = 1) -> str:
    """Tr(diag(σ) b diag(g) aᵀ) = Σ_ij σ_ig_ja_ijb_ij with all entries symbols."""
    import sympy as sp

    for k in range(1, largest + 1):
        a, b = (sp.Matrix(k, k, lambda i, j, name=name: sp.Symbol(f"{name}{i}{j}")) for name in "ab")
        sigma, g = sp.symbols(f"s:{k}"), sp.symbols(f"g:{k}")
        trace = (sp.diag(*sigma) * b * sp.diag(*g) * a.T).trace()
        terms = (sigma[i] * g[j] * a[i, j] * b[i, j] for i in range(k) for j in range(k))
        zero(trace - sign * sum(terms), f"k = {k}")
    return f"k = 1, …, {largest} with symbols for all entries"


def by_summation(k: int, excess: int = 0) -> str:
    """Without Birkhoff: σ_i = Σ_{a≥i} s_a, g_j = Σ_{b≥j} t_b turn Σ σ_ig_i − Σ σ_ig_jD_ij into Σ_ab s_at_b(min(a, b) −
    Σ_{i≤a, j≤b} D_ij), and a block of a doubly substochastic matrix sums to at most the smaller of its sides."""
    import sympy as sp

    s, t = sp.symbols(f"s:{k}", nonnegative=True), sp.symbols(f"t:{k}", nonnegative=True)
    d = [[sp.Symbol(f"D{i}{j}", real=True) for j in range(k)] for i in range(k)]
    sigma = [sum(s[i:]) for i in range(k)]
    g = [sum(t[j:]) for j in range(k)]
    left = sum(x * y for x, y in zip(sigma, g, strict=True))
    left -= sum(sigma[i] * g[j] * d[i][j] for i in range(k) for j in range(k))
    right: Any = sp.Integer(0)
    for a in range(k):
        for b in range(k):
            block = sum(d[i][j] for i in range(a + 1) for j in range(b + 1))
            right += s[a] * t[b] * (min(a, b) + 1 + excess - block)
    return zero(left - right, f"k = {k}")


def summations(largest: int = 4) -> str:
    for k in range(1, largest + 1):
        by_summation(k)
    return f"k = 1, …, {largest} with symbols for all entries"


def rotations(flip: int = 1) -> str:
    """For 2 × 2 rotations U, V: ‖U diag(σ) Vᵀζ‖² = Σ σ_i² (Vᵀζ)_i², and Tr(QGᵀ) = Σ σ_ig_i if aligned."""
    import sympy as sp

    phi, theta, x, y, s1, s2, g1, g2 = reals("phi theta x y s1 s2 g1 g2")

    def turn(angle: Any) -> Any:
        return sp.Matrix([[sp.cos(angle), -flip * sp.sin(angle)], [sp.sin(angle), sp.cos(angle)]])

    left, right, point = turn(phi), turn(theta), sp.Matrix([x, y])
    q, gradient = left * sp.diag(s1, s2) * right.T, left * sp.diag(g1, g2) * right.T
    turned = right.T * point
    length, gain = (q * point).dot(q * point), (q * gradient.T).trace()
    zero(length - s1**2 * turned[0] ** 2 - s2**2 * turned[1] ** 2, "‖Qζ‖² = Σ σ_i² (Vᵀζ)_i²")
    return same(gain, s1 * g1 + s2 * g2, "2 × 2 with symbolic angles: ‖Qζ‖² and Tr(QGᵀ)")


def words() -> Any:
    """U_Q, V_Q, U, V and the diagonal σ, gᵀ as letters that do not commute; a factor's transpose is its inverse."""
    import sympy as sp

    return sp.symbols("U_Q V_Q U V S T", commutative=False)


def similar(flip: int = 1) -> str:
    """QGᵀ = U_Q · (S b T aᵀ) · U_Qᵀ with b = V_QᵀV, aᵀ = UᵀU_Q, in every dimension."""
    import sympy as sp

    left, right, u, v, s, t = words()
    product = (left * s * right**-1) * (v * t * u**-1)
    b, a_transposed = (right**-1 * v) ** flip, u**-1 * left
    claim = left * (s * b * t * a_transposed) * left**-1
    return truth(sp.expand(product - claim) == 0, "QGᵀ is similar to S b T aᵀ, as words in the factors")


def aligned_product(order: int = 1) -> str:
    """QGᵀ = U · S T · Uᵀ for Q = U S Vᵀ, and QᵀQ = V_Q · S² · V_Qᵀ for any Q."""
    import sympy as sp

    left, right, u, v, s, t = words()
    product = (u * s * v**-1) * (v * t * u**-1)
    claim = u * s * t * u**-1 if order == 1 else u * t * s * u**-1
    truth(sp.expand(product - claim) == 0, "QGᵀ = U S T Uᵀ")
    square = (right * s * left**-1) * (left * s * right**-1)
    return truth(square == right * s**2 * right**-1, "QGᵀ for Q = U S Vᵀ, and QᵀQ, as words in the factors")


def mean_at_most_largest(sign: int = 1) -> str:
    """Σw_π(L − d_π) ≤ L for w ≥ 0, Σw = 1: the terms w(L − (L − d)); and σgD ≤ σg(D + e)."""
    weight, largest, d, sigma, g, entry, e = nonnegatives("w L d sigma g D e")
    nonnegative(sigma * g * (entry + e) - sigma * g * entry, "σ_ig_jD_ij rises with D_ij")
    return nonnegative(weight * largest - weight * (largest - sign * d), "the term of one permutation")


def squeeze(sign: int = 1) -> str:
    """F(Q) − (f(σ*) − ⟨g, σ*⟩) ≥ 0: what the trace inequality loses at Q, and what σ loses against the minimiser σ*."""
    f, inner, best = reals("f inner best")
    trace_loss, loss = nonnegatives("d e")
    value = f - (inner - sign * trace_loss)
    return nonnegative(value.subs(f, best + inner + loss) - best, "F(Q) − min (f(σ) − ⟨g, σ⟩)")


SVD = cited(
    "svd",
    "Q = U_Q diag(σ) V_Qᵀ and G = U diag(g) Vᵀ with square orthogonal factors.",
    "Horn and Johnson, Matrix Analysis, Theorem 2.6.3",
)
ALIGNED = symbolic(
    "aligned-product",
    "QGᵀ = U diag(σ) diag(g)ᵀ Uᵀ, with trace Σσ_ig_i, for Q = U diag(σ) Vᵀ; QᵀQ = V_Q diag(σ)² V_Qᵀ for every Q.",
    aligned_product,
)
VON_NEUMANN_STEPS = (
    SVD,
    symbolic("similar", "QGᵀ is similar to diag(σ) b diag(g)ᵀ aᵀ, a = U_QᵀU and b = V_QᵀV orthogonal.", similar),
    cited(
        "entries",
        "Similar matrices have one trace, and that of diag(σ) b diag(g)ᵀ aᵀ is Σ_{i,j≤k} σ_i b_ij g_j a_ij.",
        "Horn and Johnson, Matrix Analysis, section 1.3; definition of the matrix product",
    ),
    exact("entry-sums", "The double sum, with symbols for all entries.", entry_sums, "k ≤ 3"),
    symbolic("products", "σ_ig_ja_ijb_ij ≤ σ_ig_jD_ij with D_ij = ½(a_ij² + b_ij²).", products),
    symbolic("row-sums", "Rows and columns of D, i, j ≤ k, sum to at most 1: D is doubly substochastic.", row_sums),
    cited(
        "birkhoff",
        "A doubly substochastic matrix lies entrywise below a doubly stochastic one, which is a mean of permutation "
        "matrices.",
        "Birkhoff; Horn and Johnson, Matrix Analysis, Theorem 8.7.2; Horn and Johnson, Topics in Matrix Analysis, "
        "Theorem 3.2.6",
    ),
    symbolic("mean", "So some permutation π has Σσ_ig_jD_ij ≤ Σσ_ig_π(i).", mean_at_most_largest),
    symbolic("rearrangement", "Each exchange that puts two entries of π in order does not lose.", rearrangement),
    cited(
        "sorting",
        "Finitely many exchanges, each of two entries that are out of order, make any permutation the identity.",
        "Knuth, The Art of Computer Programming 3, section 5.2.2",
    ),
    exact("by-summation", "The same from block sums of D instead of permutations.", summations, "k ≤ 4"),
    exact("rotations", "Equality for aligned factors, entry by entry.", rotations, "m = n = 2, all angles"),
)

VON_NEUMANN = Proof(
    "von-neumann",
    "Tr(QGᵀ) ≤ Σ σ_ig_i, with equality if Q = U diag(σ) Vᵀ for the singular vectors of G.",
    "Su, arXiv 2511.00674, Lemma 4.1; docs/theory.md, section 2",
    (*VON_NEUMANN_STEPS, ALIGNED),
)
ALIGNMENT = Proof(
    "alignment",
    "F ≥ min over σ ≥ 0 of f(σ) − ⟨g, σ⟩, which is F(U diag(σ) Vᵀ): that is optimal exactly if σ is; F(Q) ≥ "
    "F(U diag(σ(Q)) Vᵀ).",
    "Su, arXiv 2511.00674, Proposition 3.1; docs/theory.md, section 2",
    (
        LAW,
        *VON_NEUMANN_STEPS,
        ALIGNED,
        cited(
            "invariance",
            "‖Qζ‖² = ⟨η, diag(σ)²η⟩ for η = V_Qᵀζ, which has the law of ζ: E H(‖Qζ‖) = f(σ).",
            "`law`; definition of f",
        ),
        symbolic("squeeze", "F(Q) ≥ f(σ) − ⟨g, σ⟩ ≥ f(σ*) − ⟨g, σ*⟩ = F(U diag(σ*) Vᵀ).", squeeze),
    ),
)
PROOFS = (ALIGNMENT, VON_NEUMANN)
