"""Steepest descent in norms: duals in closed form, the step, norms of many tensors, operators, the polar factor.

Source: Bernstein & Newhouse, arXiv 2409.20325, Propositions 1 to 8; docs/norms.md.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, zero
from proofs_check.proof import Proof
from proofs_check.step import cited, symbolic

_ANTHOLOGY = "Bernstein and Newhouse, arXiv 2409.20325"


def conjugate_power(shift: int = 1) -> str:
    """x = y^{q−1} has x^p = y^q and xy = y^q for 1/p + 1/q = 1."""
    import sympy as sp

    (d,) = positives("d")
    p = 1 + d
    q = p / (p - 1)
    zero(sp.simplify((q - shift) * p - q), "(q − 1)p = q")
    return zero(sp.simplify(1 - 1 / p - 1 / q), "S^{1 − 1/p} = S^{1/q} for S = Σ y^q")


def blocks(sign: int = 1) -> str:
    """Σ_j d_j t_j ≤ (max_j t_j) Σ_j d_j, term by term: max t = t_j + e_j, e_j ≥ 0."""
    d, t, e = nonnegatives("d t e")
    return nonnegative(d * (t + sign * e) - d * t, "d_j (max t − t_j)")


def rescaled(power: int = 1) -> str:
    """c‖V‖ and ‖G‖†/c have the product ‖V‖‖G‖†."""
    c, value, dual = positives("c N D")
    return zero(c * value * dual / c**power - value * dual, "c‖V‖ · ‖G‖†/c − ‖V‖‖G‖†")


def completed(sign: int = 1) -> str:
    """⟨G, D⟩ = −‖G‖†s + e for s = ‖D‖, e ≥ 0: J(D) + ‖G‖†²/(2λ) = (λ/2)(s − ‖G‖†/λ)² + e."""
    dual, weight = positives("D l")
    s, e = nonnegatives("s e")
    J = -dual * s + e + weight / 2 * s**2
    square = weight / 2 * (s - sign * dual / weight) ** 2
    zero((J + dual**2 / (2 * weight) - square - e).expand(), "J + ‖G‖†²/(2λ) − (λ/2)(s − ‖G‖†/λ)² − e")
    return nonnegative(square + e, "(λ/2)(s − ‖G‖†/λ)² + e")


def attained(scale: int = 1) -> str:
    """D* = −(‖G‖†/λ)T: −‖G‖†²/λ + ‖G‖†²/(2λ)."""
    dual, weight = positives("D l")
    step = scale * dual / weight
    return zero(-dual * step + weight / 2 * step**2 + dual**2 / (2 * weight), "J(D*) + ‖G‖†²/(2λ)")


def largest_layer(sign: int = 1) -> str:
    """‖G_l‖†‖D_l‖ = d_l x_l with d_l = ‖G_l‖†/s_l and x_l = s_l‖D_l‖, x_l = N − e_l: Σ d_lx_l ≤ N Σ d_l."""
    (s,), (dual, size, e) = positives("s"), nonnegatives("g w e")
    d, x = dual / s, s * size
    zero(d * x - dual * size, "d_l x_l − ‖G_l‖†‖D_l‖")
    return nonnegative(d * (x + sign * e) - d * x, "d_l (N − x_l)")


def sum_of_layers(sign: int = 1) -> str:
    """Σ d_lx_l ≤ (max d) Σ x_l, term by term."""
    x, d, e = nonnegatives("x d e")
    return nonnegative((d + sign * e) * x - d * x, "(max d − d_l) x_l")


def equal_lengths(power: int = 1) -> str:
    """(η/s)T_l with ‖T_l‖ = 1 has s‖·‖ = η in every layer, and gains η‖G_l‖†/s."""
    s, eta, dual = positives("s eta g")
    size = eta / s**power
    zero(s * size - eta, "s_l · η/s_l − η")
    return zero(size * dual - eta * (dual / s), "⟨G_l, ηT_l/s_l⟩ − η d_l")


def below_tangent(sign: int = 1) -> str:
    """G = μ∇f(T), f(V) = f(T) + ⟨∇f(T), V − T⟩ + e ≤ f(T) = 1: ⟨G, T⟩ − ⟨G, V⟩ = μ(1 − f(V) + e)."""
    (mu,), (e, a) = positives("mu"), nonnegatives("e a")
    value = 1 - a  # f(V), in the unit ball
    slope = value - 1 - sign * e  # ⟨∇f(T), V − T⟩
    return nonnegative((-mu * slope).expand(), "⟨G, T − V⟩")


def share_of_muon(sign: int = 1) -> str:
    """⟨G, Q*⟩ = N†·N(Q*), N† = ‖G‖_* + d, N(Q*) = κ‖Q*‖₂ + e."""
    nuclear, kappa, top, d, e = nonnegatives("S k q d e")
    return nonnegative(((nuclear + sign * d) * (kappa * top + e) - kappa * nuclear * top).expand(), "⟨G, Q*⟩ − κSq")


def dual_of_polar(sign: int = 1) -> str:
    """N† ≥ ⟨G, UVᵀ⟩/N(UVᵀ) = S/(1 − a) ≥ S, N(UVᵀ) = 1 − a ≤ ‖UVᵀ‖₂ = 1; a = b/(1 + b)."""
    nuclear, b = nonnegatives("S b")
    a = b / (1 + b)
    return nonnegative((nuclear / (1 - a) - sign * nuclear).simplify(), "S/(1 − a) − S")


def schatten_ratio(shift: int = 1) -> str:
    """t_k/t_1 = (g_k/g_1)^{q−1} = e^{−x}, x = log(g_1/g_k)/(p − 1): q − 1 = 1/(p − 1)."""
    import sympy as sp

    (d,) = positives("d")
    p = 1 + d
    return zero(sp.simplify(p / (p - 1) - shift - 1 / (p - 1)), "q − 1 − 1/(p − 1)")


def exponential(sign: int = 1) -> str:
    """e^{−x} − (1 − x) is 0 at 0 and its derivative 1 − e^{−x} is so too, with derivative e^{−x} > 0."""
    import sympy as sp

    (x,) = nonnegatives("x")
    f = sp.exp(-x) - (1 - sign * x)
    zero(f.subs(x, 0), "f(0)")
    zero(sp.diff(f, x).subs(x, 0), "f′(0)")
    return nonnegative(sp.diff(f, x, 2), "f″ = e^{−x}")


def entry_of_image(sign: int = 1) -> str:
    """|Σ_j M_ij x_j| ≤ Σ|M_ij||x_j|, |M_ij| = M − e: term by term M|x_j|."""
    top, x, e = nonnegatives("a x e")
    return nonnegative((top + sign * e) * x - top * x, "(max|M| − |M_ij|)|x_j|")


def basis_vector(power: int = 1) -> str:
    """‖Me_j‖ = ‖col_j‖ and ‖e_j‖₁ = 1."""
    (size,) = positives("c")
    return zero(size / 1 - size**power, "‖Me_j‖/‖e_j‖₁ − ‖col_j‖")


def nearer(sign: int = 1) -> str:
    """o_i = ⟨u_i, Ov_i⟩ = 1 − a_i ≤ 1, g_i = g_k + d_i: 2g_i(1 − o_i) ≥ g_k · 2(1 − o_i)."""
    low, d, a = nonnegatives("g_k d a")
    return nonnegative((2 * (low + sign * d) * a - low * 2 * a).expand(), "2(g_i − g_k)(1 − o_i)")


def expanded(sign: int = 1) -> str:
    """‖G − O‖² = ‖G‖² − 2⟨G, O⟩ + k, for each singular direction: the difference for O and P is 2g(1 − o)."""
    g, o = reals("g o")
    return zero(((g**2 - 2 * g * o + 1) - (g**2 - 2 * g + 1) - sign * 2 * g * (1 - o)).expand(), "… − 2g(1 − o)")


def turned(value: int = 0) -> str:
    """g = 0 and o = −1 for o = 1: 2g(1 − o) = 0."""
    g, o = reals("g o")
    return zero((2 * g * (1 - o)).subs({g: value, o: -1}), "2g(1 − o) at g = 0, o = −1")


def square_expanded(factor: int = 1) -> str:
    """(r + c)²/2 − r²/2 − rc = c²/2, r the residual and c an entry of ΔWx."""
    r, c = reals("r c")
    return zero(((r + c) ** 2 / 2 - r**2 / 2 - r * c - factor * c**2 / 2).expand(), "… − c²/2")


def square_bounded(sign: int = 1) -> str:
    """‖ΔWx‖ = ‖ΔW‖₂‖x‖ − e, ‖x‖² = n: ‖ΔWx‖²/m ≤ (n/m)‖ΔW‖₂²."""
    (m,), (y, e) = positives("m"), nonnegatives("y e")
    bound = y + sign * e  # ‖ΔW‖₂ √n
    return nonnegative((bound**2 / m - y**2 / m).expand(), "(n/m)‖ΔW‖₂² − ‖ΔWx‖²/m")


HOELDER = (
    cited("hoelder", "Σ|x_iy_i| ≤ ‖x‖_p‖y‖_q for 1/p + 1/q = 1, 1 ≤ p ≤ ∞.", "Rudin, Real and Complex Analysis, 3.8"),
    symbolic("conjugate-power", "Equality at x = sign(y)|y|^{q−1}, whose x^p and xy are |y|^q.", conjugate_power),
)
SQUARE = (
    symbolic("completed", "J(D) + ‖G‖†²/(2λ) = (λ/2)(‖D‖ − ‖G‖†/λ)² + e.", completed),
    symbolic("attained", "It is 0 at −(‖G‖†/λ)T.", attained),
)
POLAR = (
    symbolic(
        "expanded", "‖G − O‖² − ‖G − UVᵀ‖² = Σ 2g_i(1 − o_i), o_i = ⟨u_i, Ov_i⟩; at G = UVᵀ: ‖O − UVᵀ‖².", expanded
    ),
)

PROOFS = (
    Proof(
        "norm-duality",
        "‖G‖† = max ⟨G, T⟩ over ‖T‖ ≤ 1 in closed form: ℓp of entries or singular values, columns, rows, Ky Fan.",
        f"{_ANTHOLOGY}, section 1; docs/norms.md",
        (
            *HOELDER,
            symbolic("blocks", "Σ_j ‖G_j‖_q‖T_j‖_p ≤ max_j‖T_j‖_p Σ_j‖G_j‖_q, for columns and for rows.", blocks),
            symbolic("rescaled", "c‖·‖ has the dual ‖·‖†/c: RMS → RMS, ℓ1 → RMS.", rescaled),
            cited("ky-fan", "σ_1 + … + σ_k has the dual max(g_1, Σg/k).", "Bhatia, Matrix Analysis, exercise IV.2.12"),
        ),
        needs=("von-neumann",),
    ),
    Proof(
        "steepest-step",
        "min ⟨G, D⟩ + (λ/2)‖D‖² = −‖G‖†²/(2λ), at −(‖G‖†/λ)T, ⟨G, T⟩ = ‖G‖†, ‖T‖ = 1, for every norm.",
        f"{_ANTHOLOGY}, Proposition 1",
        SQUARE,
    ),
    Proof(
        "modular-norm",
        "N = max s_l‖W_l‖_l has N† = Σ ‖G_l‖_l†/s_l and the steps −(N†/(λs_l))T_l; Σ and ‖·‖₂ likewise.",
        f"{_ANTHOLOGY}, Propositions 3, 5 and 7",
        (
            *HOELDER,
            symbolic("largest-layer", "Σ_l‖G_l‖†‖D_l‖ ≤ N(D) Σ_l d_l for the largest.", largest_layer),
            symbolic(
                "sum-of-layers", "Σ_l d_lx_l ≤ (max d) Σ_l x_l for the sum; Hölder's at p = 2 for ‖·‖₂.", sum_of_layers
            ),
            symbolic("equal-lengths", "ηT_l/s_l is η long in every layer and gains Σ η d_l.", equal_lengths),
            *SQUARE,
        ),
    ),
    Proof(
        "luxemburg-duality",
        "f(V) = E H(‖Vζ‖) ≤ 1 implies ⟨G, V⟩ ≤ ⟨G, T⟩ where f(T) = 1 and G = μ∇f(T), μ > 0.",
        "docs/norms.md",
        (
            cited(
                "multiplier",
                "A maximiser T of ⟨G, V⟩ over f(V) ≤ 1, f convex and f(0) < 1, has G in μ∂f(T), and f(T) = 1.",
                "Rockafellar, Convex Analysis, Theorem 28.3",
            ),
            symbolic("below-tangent", "⟨G, T⟩ − ⟨G, V⟩ = μ(1 − f(V) + e) ≥ 0.", below_tangent),
        ),
        needs=("convexity",),
    ),
    Proof(
        "muon-limit",
        "H = c r^p: ⟨G, Q*⟩ ≥ (E|ζ_1|^p)^{1/p}‖G‖_*‖Q*‖₂, and the factor tends to 1.",
        "docs/norms.md",
        (
            symbolic("dual-of-polar", "N† ≥ ‖G‖_*, by UVᵀ, as N(UVᵀ) ≤ 1.", dual_of_polar),
            symbolic("share", "⟨G, Q*⟩ = N†N(Q*) and N(Q*) ≥ κ‖Q*‖₂.", share_of_muon),
        ),
        needs=("norm-family", "norm-limit", "norm-steepest"),
    ),
    Proof(
        "schatten-to-muon",
        "t = g^{q−1} has t_k/t_1 ≥ 1 − log(g_1/g_k)/(p − 1).",
        "docs/norms.md",
        (
            symbolic("ratio", "t_k/t_1 = exp(−log(g_1/g_k)/(p − 1)).", schatten_ratio),
            symbolic("exponential", "e^{−x} ≥ 1 − x for x ≥ 0.", exponential),
        ),
        needs=("norm-duality",),
    ),
    Proof(
        "max-entry-operator",
        "max|M_ij| = max ‖Mx‖_∞/‖x‖₁; its dual is Σ|G_ij| and its maximiser sign(G).",
        f"{_ANTHOLOGY}, Proposition 2",
        (
            symbolic("entry-of-image", "|Σ_j M_ijx_j| ≤ max|M| ‖x‖₁.", entry_of_image),
            symbolic("basis-vector", "Equality at e_j.", basis_vector),
            *HOELDER,
            *SQUARE,
        ),
    ),
    Proof(
        "columns-operator",
        "max ‖Mx‖_p/‖x‖₁ = max_j‖col_j‖_p.",
        f"{_ANTHOLOGY}, Proposition 8",
        (
            cited("triangle-p", "‖Σ x_jcol_j‖_p ≤ Σ|x_j|‖col_j‖_p.", "Rudin, Real and Complex Analysis, Theorem 3.5"),
            symbolic("longest-column", "Σ|x_j|‖col_j‖_p ≤ max_j‖col_j‖_p ‖x‖₁.", blocks),
            symbolic("basis-vector", "Equality at e_j.", basis_vector),
        ),
    ),
    Proof(
        "rows-operator",
        "max ‖Mx‖_∞/‖x‖_p = max_i‖row_i‖_q.",
        f"{_ANTHOLOGY}, Proposition 8",
        HOELDER,
    ),
    Proof(
        "polar-nearest",
        "‖G − O‖² − ‖G − UVᵀ‖² ≥ g_k‖O − UVᵀ‖² for semi-orthogonal O.",
        f"{_ANTHOLOGY}, Proposition 4",
        (
            cited("unit-vectors", "o_i = ⟨u_i, Ov_i⟩ ≤ 1 as ‖O‖₂ = 1.", "the inequality of Cauchy and Schwarz"),
            *POLAR,
            symbolic("nearer", "2g_i(1 − o_i) ≥ g_k · 2(1 − o_i), term by term.", nearer),
        ),
    ),
    Proof(
        "polar-ties",
        "g_i = 0: −u_iv_iᵀ for u_iv_iᵀ in UVᵀ leaves the distance to G.",
        f"{_ANTHOLOGY}, Proposition 4",
        (*POLAR, symbolic("turned", "2g_i(1 − o_i) = 0 at g_i = 0, o_i = −1.", turned)),
    ),
    Proof(
        "square-loss-bound",
        "L(W + ΔW) ≤ L(W) + ⟨∇L, ΔW⟩ + ½(n/m)‖ΔW‖₂² for L = (1/2N) Σ ‖y − Wx‖²/m, ‖x‖² = n.",
        f"{_ANTHOLOGY}, Proposition 6",
        (
            symbolic("square-expanded", "The loss less its linearisation is the mean of ‖ΔWx‖²/(2m).", square_expanded),
            symbolic("square-bounded", "‖ΔWx‖² ≤ n‖ΔW‖₂².", square_bounded),
        ),
    ),
)
