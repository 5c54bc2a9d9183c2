"""What the duality gap says: F(σ) − F* ≤ ⟨∇f − g, σ⟩ + ρ‖(g − ∇f)₊‖₂ for σ ≥ 0 and any ρ ≥ ‖σ*‖₂.

The reach: t = ‖σ*‖₂ satisfies H(κ_nt) ≤ ‖g‖₂t, κ_n = E|ζ_1|. Source: docs/theory.md, sections 8 and 9.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, zero
from proofs_check.convexity import DIFFERENTIATION, cauchy_schwarz
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS, LAW
from proofs_check.stationarity import gradient
from proofs_check.step import cited, symbolic


def split(sign: int = 1) -> str:
    """⟨∇f − g, σ − σ*⟩ = ⟨∇f − g, σ⟩ + ⟨g − ∇f, σ*⟩, term by term."""
    slope, g, sigma, best = reals("f_i g sigma best")
    return zero((slope - g) * (sigma - best) - (slope - g) * sigma - sign * (g - slope) * best, "the term of index i")


def positive_part(sign: int = 1) -> str:
    """x₊σ* − xσ* ≥ 0 for σ* ≥ 0: x = p − q, p = x₊, q = x₋ ≥ 0."""
    p, q, best = nonnegatives("p q best")
    return nonnegative(p * best - (p - sign * q) * best, "(x₊ − x)σ*")


def reach_of(sign: int = 1) -> str:
    """‖σ*‖₂ = ρ − d makes ‖σ*‖₂‖x₊‖₂ ≤ ρ‖x₊‖₂."""
    best, d, size = nonnegatives("best d size")
    return nonnegative((best + sign * d) * size - best * size, "(ρ − ‖σ*‖₂)‖x₊‖₂")


def concave_root(sign: int = 1) -> str:
    """Σμ_iζ_i² − (Σμ_i|ζ_i|)² = Σμ_i(|ζ_i| − m)² ≥ 0 for Σμ_i = 1, m = Σμ_i|ζ_i|.

    Term by term μ(x − m)² = μx² − 2mμx + m²μ; the sums are V = Σμx², m and 1.
    """
    mu, x, mean, square = nonnegatives("mu x m V")
    zero(mu * (x - mean) ** 2 - (mu * x**2 - 2 * mean * mu * x + mean**2 * mu), "the terms")
    nonnegative(mu * (x - mean) ** 2, "each term")
    return zero((square - 2 * mean * mean + mean**2) - (square - sign * mean**2), "their sum is V − m²")


def lengths(sign: int = 1) -> str:
    """N(σ*) ≥ Σμ_iκ_nt = κ_nt for μ_i = σ_i²/t², Σμ_i = 1: s = t²Σμ_iζ_i²."""
    import sympy as sp

    t, total, mean = positives("t V m")
    zero(sp.sqrt(t**2 * total) - t * sp.sqrt(total), "√s = t√V")
    (d,) = nonnegatives("d")
    return nonnegative(t * (mean + sign * d) - t * mean, "t√V ≥ tm, √V = m + d")


def mean_length(half: int = 2) -> str:
    """κ_n = E|z|/E ρ = Γ(n/2)/(√πΓ((n+1)/2)), as z_1 = ρζ_1."""
    import sympy as sp

    n, x = positives("n x")
    line = 2 * sp.integrate(x * sp.exp(-(x**2) / half), (x, 0, sp.oo)) / sp.sqrt(2 * sp.pi)
    density = x ** (n / 2 - 1) * sp.exp(-x / 2) / (2 ** (n / 2) * sp.gamma(n / 2))
    radius = sp.integrate(sp.sqrt(x) * density, (x, 0, sp.oo))
    claim = sp.gamma(n / 2) / (sp.sqrt(sp.pi) * sp.gamma((n + 1) / 2))
    return zero(line / radius - claim, "both integrals with symbol n")


def below(sign: int = 1) -> str:
    """F* ≤ F(0) = 0 is f(σ*) = ⟨g, σ*⟩ − d; with H(κ_nt) = f(σ*) − e and ⟨g, σ*⟩ = ‖g‖t − c: H(κ_nt) ≤ ‖g‖t."""
    size, t = positives("g t")
    c, d, e = nonnegatives("c d e")
    return nonnegative(size * t - sign * (size * t - c - d - e), "‖g‖₂t − H(κ_nt) = c + d + e")


def chain_rule(factor: int = 2) -> str:
    """d/dt h(‖(Q + tD)ζ‖²) = 2ψ(s)⟨Qζ, Dζ⟩ at t = 0, entry by entry: (x + ty)² for x = (Qζ)_i, y = (Dζ)_i."""
    import sympy as sp

    x, y, t = reals("x y t")
    rest, slope = reals("c e")
    psi = sp.Function("psi")

    class Curve(sp.Function):
        def fdiff(self, argindex: int = 1) -> Any:
            return psi(self.args[0])

    path = (x + t * y) ** 2 + rest + 2 * t * slope  # slope = Σ of x y over the other entries
    found = sp.diff(Curve(path), t).subs(t, 0)
    return zero(found - factor * psi(x**2 + rest) * (x * y + slope), "the derivative along D")


def off_diagonal(sign: int = -1) -> str:
    """E[ψ(s)ζ_iζ_j] = 0, i ≠ j: ζ_i → −ζ_i keeps s and turns the sign."""
    import sympy as sp

    psi = sp.Function("psi")
    x, y, rest, a, b = reals("x y c a b")

    def term(z: Any) -> Any:
        return psi(a * z**2 + b * y**2 + rest) * z * y

    return zero(term(x) + term(sign * x), "ψ(s)ζ_iζ_j at ζ_i and −ζ_i")


def linear(sign: int = 1) -> str:
    """⟨∇F, Q − Q*⟩ = ⟨∇F, Q⟩ + ⟨−∇F, Q*⟩ ≤ ⟨∇F, Q⟩ + ρ‖∇F‖, as ⟨−∇F, Q*⟩ = ‖∇F‖‖Q*‖ − c and ‖Q*‖ = ρ − d."""
    size, best, c, d = nonnegatives("size best c d")
    inner = reals("inner")[0]
    bound = inner + (best + sign * d) * size
    return nonnegative(bound - (inner + size * best - c), "the bound less ⟨∇F, Q − Q*⟩")


CERTIFICATE = Proof(
    "certificate",
    "F(σ) − F* ≤ ⟨∇f − g, σ⟩ + ρ‖(g − ∇f)₊‖₂ for σ ≥ 0, ρ ≥ ‖σ*‖₂; and t = ‖σ*‖₂ has H(κ_nt) ≤ ‖g‖₂t.",
    "docs/theory.md, section 9",
    (
        LAW,
        cited(
            "subgradient",
            "f is convex: F(σ) − F* ≤ ⟨∇f − g, σ − σ*⟩, ∇f a gradient or any subgradient at σ.",
            "Rockafellar, Convex Analysis, section 23",
        ),
        symbolic("split", "That is ⟨∇f − g, σ⟩ + ⟨g − ∇f, σ*⟩.", split),
        symbolic("positive-part", "⟨x, σ*⟩ ≤ ⟨x₊, σ*⟩ as σ* ≥ 0, x = g − ∇f.", positive_part),
        symbolic("inner-product", "⟨x₊, σ*⟩ ≤ ‖x₊‖₂‖σ*‖₂.", cauchy_schwarz),
        symbolic("reach", "‖x₊‖₂‖σ*‖₂ ≤ ρ‖x₊‖₂.", reach_of),
        GAUSS,
        symbolic("mean-length", "κ_n = E|ζ_1| = Γ(n/2)/(√πΓ((n+1)/2)).", mean_length),
        symbolic("concave-root", "√(Σμ_iζ_i²) ≥ Σμ_i|ζ_i| for weights μ.", concave_root),
        symbolic("lengths", "So N(σ*) = E√s ≥ κ_n‖σ*‖₂.", lengths),
        cited(
            "jensen",
            "f(σ*) = E H(√s) ≥ H(E√s) = H(N(σ*)) ≥ H(κ_nt), H being convex and nondecreasing.",
            "Jensen's inequality",
        ),
        symbolic("below", "f(σ*) ≤ ⟨g, σ*⟩ ≤ ‖g‖₂t, for F* ≤ F(0) = 0.", below),
    ),
    needs=("convexity", "alignment"),
)
MATRIX = Proof(
    "certificate-matrix",
    "F(Q) − F* ≤ ⟨∇F(Q), Q⟩ + ρ‖∇F(Q)‖_F for every Q = U diag(σ) Vᵀ and ρ ≥ ‖Q*‖_F = ‖σ*‖₂, "
    "∇F(Q) = U diag(∇f(σ)) Vᵀ − G; ρ as in `certificate`.",
    "docs/theory.md, section 9",
    (
        LAW,
        *DIFFERENTIATION,
        symbolic("chain-rule", "∂_D E H(‖Qζ‖) = E[2ψ(s)⟨Qζ, Dζ⟩] = ⟨Q E[2ψ(s)ζζᵀ], D⟩.", chain_rule),
        symbolic("gradient", "2σ_iE[ψ(s)ζ_i²] = ∂f/∂σ_i.", gradient),
        symbolic(
            "off-diagonal", "With η = Vᵀζ, E[ψ(s)η_iη_j] = 0 for i ≠ j: Q E[2ψζζᵀ] = U diag(∇f) Vᵀ.", off_diagonal
        ),
        cited(
            "subgradient",
            "F is convex: F(Q) − F* ≤ ⟨∇F(Q), Q − Q*⟩.",
            "Rockafellar, Convex Analysis, Theorem 25.1",
        ),
        symbolic("linear", "With ⟨−∇F, Q*⟩ ≤ ‖∇F‖_F‖Q*‖_F that is at most the bound.", linear),
    ),
    needs=("convexity", "alignment", "certificate"),
)
PROOFS = (CERTIFICATE, MATRIX)
