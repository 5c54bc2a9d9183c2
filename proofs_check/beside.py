"""Fewer outputs than inputs, H = a r² + J(r − r̃)₊: how far σ* stays from flat, and where it stays. u = r̃², λ = σ².

ψ = a + (J/2r̃)1{s > u} − χ(s) with χ nondecreasing, whose share of w_1 − w_m has the sign of the exchange. For a
Lipschitz ψ, integrating over the angle of (ζ_1, ζ_m) by parts gives w_1 − w_m = 2(λ_1 − λ_m)E[ψ′ζ_1²ζ_m²], and the
density of s = bT, b ~ Beta(m/2, (n−m)/2), T in [λ_m, λ_1], does the rest. Source: this project.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, zero
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.homogenisation import FALLING
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS, LAW, MOMENTS
from proofs_check.stationarity import gradient
from proofs_check.step import cited, symbolic
from proofs_check.wide import beta_law, volume


def parts(half: int = 2) -> str:
    """ψ = H′(√s)/(2√s) is a, and a + J/(2√s) beyond u: that is a + J/2r̃ − χ, χ = (J/2)(1/r̃ − 1/√s), which rises."""
    import sympy as sp

    a, jump, r, x, s = positives("a J r x s")
    slope = sp.diff(a * x**2 + jump * (x - r), x).subs(x, sp.sqrt(s))
    chi = jump / half * (1 / r - 1 / sp.sqrt(s))
    zero(slope / (2 * sp.sqrt(s)) - (a + jump / (2 * r) - chi), "ψ beyond u")
    zero(chi.subs(s, r**2), "χ at u")
    return nonnegative(sp.diff(chi, s), "χ′ ≥ 0")


def angle(factor: int = 2) -> str:
    """d/dθ [ψ(s)ζ_1ζ_m] = ψ(s)(ζ_1² − ζ_m²) − 2(λ_1 − λ_m)ψ′(s)ζ_1²ζ_m² for (ζ_1, ζ_m) = ρ(cos θ, sin θ)."""
    import sympy as sp

    psi1 = sp.Function("psi1")

    class Psi(sp.Function):
        def fdiff(self, argindex: int = 1) -> Any:
            return psi1(self.args[0])

    theta, first, last, rho, rest = reals("theta l_1 l_m rho c")
    x, y = rho * sp.cos(theta), rho * sp.sin(theta)
    s = first * x**2 + last * y**2 + rest
    claim = Psi(s) * (x**2 - y**2) - factor * (first - last) * psi1(s) * x**2 * y**2
    return zero(sp.expand(sp.diff(Psi(s) * x * y, theta) - claim), "the derivative, any ψ")


def quarter(four: int = 4) -> str:
    """(x + y + c)²/4 − xy = ((x − y)² + 2c(x + y) + c²)/4 ≥ 0 with x + y + c = 1."""
    x, y, c = nonnegatives("x y c")
    squares = ((x - y) ** 2 + 2 * c * (x + y) + c**2) / 4
    zero((x + y + c) ** 2 / four - x * y - squares, "¼ − xy as squares")
    return nonnegative(squares, "¼ − xy ≥ 0")


def between(sign: int = 1) -> str:
    """λ_mb ≤ s ≤ λ_1b, term by term: (λ_i − λ_m)ζ_i² and (λ_1 − λ_i)ζ_i², i ≤ m, b = Σ_{i≤m}ζ_i²."""
    least, up, more, square = nonnegatives("l_m d e y")
    value = least + sign * up
    nonnegative((value - least) * square, "s − λ_mb")
    return nonnegative((value + more - value) * square, "λ_1b − s")


def density(start: int = 2) -> str:
    """x^{m/2−1} ≤ 1 and (1−x)^e falls for 0 ≤ x ≤ 1, m ≥ 2, e ≥ 0; 1/T ≤ 1/λ_m and v/T ≥ u/λ_1 for T = λ_m + d,
    λ_1 = T + f, v = u + w."""
    import sympy as sp

    x, last, u = positives("x l_m u")
    p, e, d, f, w = nonnegatives("p e d f w")
    m = start + 2 * p
    nonnegative(sp.diff(x ** (sp.Rational(1, 2) * m - 1), x), "x^{m/2−1} rises to 1 at x = 1, m = 2 + 2p")
    nonnegative(sp.diff(x**e, x), "(1−x)^e rises with 1 − x")
    share = last + d
    nonnegative(1 / last - 1 / share, "1/λ_m − 1/T")
    return nonnegative((u + w) / share - u / (share + f), "v/T − u/λ_1")


def change(sign: int = 1) -> str:
    """At fixed T, v = Tx has dv = T dx: a density β(x) of b is one of β(v/T)/T at v."""
    v, t = positives("v T")
    import sympy as sp

    return zero(sp.diff(v / t, v) - t ** (-sign), "dx/dv = 1/T")


def widths(quarter_inverse: int = 4) -> str:
    """2(w_1 − w_m) ≤ 2·(J/2r̃)·2(λ_1−λ_m)·¼·E/λ_m = (λ_1−λ_m)K/λ_m, K = (J/2r̃)E; and x ≥ (g_1−g_m)/(g_m+D).

    σ_1 = σ_m(1+x), g_1/σ_1 = g_m/σ_m + (λ_1−λ_m)K/λ_m − d, D = Kσ_1(σ_1+σ_m)/σ_m.
    """
    last, jump, r, end, g = positives("s_m J r E g_m")
    x, d = nonnegatives("x d")
    first = last * (1 + x)
    k = jump / (2 * r) * end
    gap = first**2 - last**2
    bound = 2 * jump / (2 * r) * 2 * gap / quarter_inverse * end / last**2
    zero(bound - gap * k / last**2, "2(w_1 − w_m)")
    top = first * (g / last + bound - d)
    stiff = k * first * (first + last) / last
    zero(x - (top - g) / (g + stiff) - first * d / (g + stiff), "x − (g_1−g_m)/(g_m+D) = σ_1d/(g_m+D)")
    return nonnegative(first * d / (g + stiff), "σ_1d/(g_m+D) ≥ 0")


def gain(factor: int = 2) -> str:
    """Σσ_i·2σ_iζ_i²ψ = 2sψ = H′(r)r, r = √s: 2as, and J√s more beyond u."""
    import sympy as sp

    a, jump, one, rest, s = positives("a J x c s")
    psi = a + jump / (2 * sp.sqrt(s))
    terms = factor * one * psi + factor * rest * psi
    return zero(terms.subs(rest, s - one) - (2 * a * s + jump * sp.sqrt(s)), "2sψ beyond u; J = 0 below")


def tails(sign: int = 1) -> str:
    """λ_mb > u gives s > u, and s > u gives λ_1b > u; r̃² ≤ s ≤ λ_1b ≤ λ_1 there: with slacks."""
    u, excess = positives("u e")
    d, first, c = nonnegatives("d l_1 c")
    positive((u + excess + sign * d) - u, "s = λ_mb + d, λ_mb = u + e; λ_1b = s + d, s = u + e")
    return nonnegative(first - (first * (1 - d) - c), "λ_1 − s, s = λ_1b − c, b = 1 − d")


BETA = (
    LAW,
    GAUSS,
    symbolic("volume", "dX dY = R dR db for X = Rb, Y = R(1−b).", volume),
    symbolic("beta", "b = Σ_{i≤m}ζ_i² ~ Beta(m/2, (n−m)/2), which has a density.", beta_law),
    symbolic("between", "λ_mb ≤ s ≤ λ_1b.", between),
    *DIFFERENTIATION,
    cited(
        "independent",
        "s = bT for T = Σλ_iω_i², and b is independent of the direction ω of (z_1, …, z_m).",
        "Muirhead, Aspects of Multivariate Statistical Theory, Theorem 1.5.5",
    ),
    symbolic("change", "At a fixed T, bT has the density β(v/T)/T, β that of b.", change),
    cited("fubini", "So s has the density E[β(v/T)/T], and P(s = u) = 0.", "Fubini's theorem"),
    symbolic("gradient", "So f is differentiable at σ, g_i = ∂f/∂σ_i = 2σ_iw_i.", gradient),
)

DISTANCE = Proof(
    "wide-distance",
    "H = a r² + J(r − r̃)₊, 2 ≤ m ≤ n − 2, g = ∇f(σ), σ_1 ≥ … ≥ σ_m > 0: σ_1/σ_m − 1 ≥ (g_1 − g_m)/(g_m + D), "
    "D = Jσ_1(σ_1+σ_m)/(2r̃σ_m) · ((1 − u/λ_1)₊)^{(n−m)/2−1}/B(m/2, (n−m)/2).",
    "this project; docs/theory.md, sections 6 and 10",
    (
        *BETA,
        symbolic("parts", "ψ = a + (J/2r̃)1{s > u} − χ(s), χ nondecreasing.", parts),
        *FALLING,
        cited(
            "uniform-angle",
            "(ζ_1, ζ_m) = ρ(cos θ, sin θ) with θ uniform given ρ and the other ζ_i.",
            "`law` for rotations of (ζ_1, ζ_m)",
        ),
        cited(
            "period",
            "The derivative of a Lipschitz function has mean 0 over a period.",
            "Rudin, Real and Complex Analysis, Theorem 7.20",
        ),
        symbolic(
            "angle",
            "ψ(s)(ζ_1² − ζ_m²) − 2(λ_1 − λ_m)ψ′ζ_1²ζ_m² is the derivative of ψζ_1ζ_m in θ, so that w_1 − w_m = "
            "2(λ_1 − λ_m)E[ψ′ζ_1²ζ_m²] for a Lipschitz ψ.",
            angle,
        ),
        symbolic("quarter", "ζ_1²ζ_m² ≤ ¼: at most ½(λ_1 − λ_m)P(u < s < u+ε)/ε for ψ_ε = min((s−u)₊/ε, 1).", quarter),
        symbolic(
            "density", "At v ≥ u the density of s is at most ((1 − u/λ_1)₊)^{(n−m)/2−1}/(B(m/2, (n−m)/2)λ_m).", density
        ),
        cited(
            "dominated",
            "ψ_ε → 1{s > u} as ε → 0, and 0 ≤ ψ_ε ≤ 1: means converge.",
            "dominated convergence; Rudin, Real and Complex Analysis, Theorem 1.34",
        ),
        symbolic("widths", "With g_i = 2σ_iw_i that is the bound.", widths),
    ),
)
RADIUS = Proof(
    "wide-radius",
    "H = a r² + J(r − r̃)₊, m < n, g = ∇f(σ), σ_1 ≥ … ≥ σ_m > 0: J r̃ P(b > u/λ_m) ≤ ⟨g, σ⟩ − 2a‖σ‖²/n ≤ "
    "J σ_1 P(b > u/λ_1), b ~ Beta(m/2, (n−m)/2).",
    "this project; docs/theory.md, section 10",
    (
        *MOMENTS,
        *BETA,
        symbolic("gain", "⟨g, σ⟩ = E[2sψ] = 2aE s + J E[√s 1{s > u}], and E s = ‖σ‖²/n.", gain),
        symbolic("tails", "b > u/λ_m gives √s > r̃, which gives b > u/λ_1; and √s ≤ σ_1.", tails),
    ),
)
PROOFS = (DISTANCE, RADIUS)
