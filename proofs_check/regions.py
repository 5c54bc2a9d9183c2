"""The least right slope B(A) = A + J(g − A/n) as a function of the left slope: convex, and infinite at n min g.

For v = (1, …, 1, −M) the form is Σv_iζ_i² = 1 − Nζ_n², N = M + 1, and |ζ_n| has the density 2c(1−t²)^{(n−3)/2} on
(0, 1), c = Γ(n/2)/(√πΓ((n−1)/2)): h(v) ≤ (4/3)c/√M. Source: docs/theory.md, section 10, (11).
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, positives, reals, zero
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS
from proofs_check.step import cited, symbolic
from proofs_check.wide import beta_law, volume


def constant(shift: int = 1) -> str:
    """b = t² takes b^{−½}(1−b)^{(n−3)/2}db/B(½, (n−1)/2) to 2c(1−t²)^{(n−3)/2}dt, with Γ(½) = √π."""
    import sympy as sp

    t, n = positives("t n")
    c = sp.gamma(n / 2) / (sp.sqrt(sp.pi) * sp.gamma((n - shift) / 2))
    euler = sp.gamma(sp.Rational(1, 2)) * sp.gamma((n - 1) / 2) / sp.gamma(n / 2)
    return zero((t**2) ** -sp.Rational(1, 2) * sp.diff(t**2, t) / euler - 2 * c, "b^{−½}db/B(½, (n−1)/2) = 2c dt")


def form(less: int = 1) -> str:
    """Σ_{i<n}ζ_i² − Mζ_n² = 1 − (M+1)ζ_n² and ⟨q, v⟩ = S − Mq_n."""
    m, y = nonnegatives("M y")
    return zero((1 - y) - m * y - (1 - (m + less) * y), "the form, Σζ_i² = 1")


def density(excess: int = 2) -> str:
    """x^{(n−3)/2} = x^{−½}x^{(n−2)/2} ≤ x^{−½} ≤ (1−1/N)^{−½} for 1 − 1/N ≤ x = 1 − t² ≤ 1: x^{−½} falls."""
    import sympy as sp

    (x,), (e,) = positives("x"), nonnegatives("e")
    half, n = sp.Rational(1, 2), excess + 2 * e  # e = (n − 2)/2
    zero(sp.powsimp(x ** ((n - 3) / 2) / (x**-half * x**e)) - 1, "the factors, n = 2 + 2e")
    nonnegative(sp.diff(x**e, x), "x^e rises to 1 at x = 1")
    return nonnegative(-sp.diff(x**-half, x), "x^{−½} falls")


def hinge_bound(third: int = 3) -> str:
    """2c(1−1/N)^{−½}∫₀^{1/√N}(1−Nt²)dt = (4/3)c/√M, N = M + 1."""
    import sympy as sp

    m, c, size = positives("M c N")
    (t,) = reals("t")
    integral = sp.integrate(1 - size * t**2, (t, 0, 1 / sp.sqrt(size)))
    zero(integral - 2 / (third * sp.sqrt(size)), "the integral")
    bound = 2 * c / sp.sqrt(1 - 1 / size) * integral
    return zero(sp.simplify((bound**2).subs(size, m + 1)) - sp.Rational(16, 9) * c**2 / m, "h(v)² ≤ (16/9)c²/M")


def best_weight(third: int = 3) -> str:
    """(S − Mq)·3√M/(4c) at M = S/(3q) is S^{3/2}/(2c√(3q)), and → ∞ as q → 0."""
    import sympy as sp

    total, q, c = positives("S q c")
    m = total / (third * q)
    value = (total - m * q) * 3 * sp.sqrt(m) / (4 * c)
    claim = total ** sp.Rational(3, 2) / (2 * c * sp.sqrt(3 * q))
    zero(sp.simplify(value / claim) - 1, "the bound at M = S/(3q)")
    return zero(sp.limit(1 / claim, q, 0), "the bound, and its inverse at q → 0")


def quotient(sign: int = 1) -> str:
    """J ≥ x/h ≥ x/k for x = ⟨q, v⟩ ≥ 0 and 0 < h ≤ k = h + d."""
    x, d = nonnegatives("x d")
    (h,) = positives("h")
    return nonnegative(x / h - x / (h + sign * d), "x/h − x/(h + d)")


def affine(degree: int = 1) -> str:
    """A + ⟨g − A/n, v⟩/h at A_1 + s(A_2 − A_1) is the mean of its values at A_1 and A_2."""
    (h,) = positives("h")
    first, second, s, gv, mean = reals("A_1 A_2 s gv mean")

    def value(left: Any) -> Any:
        return left**degree + (gv - left * mean) / h

    between = value(first + s * (second - first))
    return zero(between - (1 - s) * value(first) - s * value(second), "one function of A, ⟨1, v⟩/n = mean")


def maximum(sign: int = 1) -> str:
    """The value of one function at A_1 and A_2 is B(A_1) − d and B(A_2) − e, and at the maximiser between, B itself."""
    d, e, s, t = nonnegatives("d e s t")  # t = 1 − s
    first, second = reals("B_1 B_2")
    between = t * (first - sign * d) + s * (second - e)
    return nonnegative(t * first + s * second - between, "(1−s)B(A_1) + sB(A_2) − B(A_1 + s(A_2 − A_1))")


def epigraph(sign: int = 1) -> str:
    """B_i ≥ B(A_i), both with a slack, leave (1−s)B_1 + sB_2 above B at the mean."""
    d, e, c, s, t = nonnegatives("d e c s t")
    first, second = reals("x y")
    between = t * first + s * second - c
    return nonnegative(t * (first + sign * d) + s * (second + e) - between, "a mean of two points above a convex B(A)")


DIVERGES = Proof(
    "threshold-diverges",
    "n ≥ 2, A < n g_n = n min g: B(A) ≥ A + S^{3/2}/(2c√(3q_n)), q = g − A/n, S = Σ_{i<n}q_i, "
    "c = Γ(n/2)/(√πΓ((n−1)/2)); it tends to ∞ as A ↑ n g_n unless all g_i are equal.",
    "docs/theory.md, section 10, with v = (1, …, 1, −M) in (11)",
    (
        GAUSS,
        symbolic("volume", "dX dY = R dR db for X = Rb, Y = R(1−b).", volume),
        symbolic("beta", "ζ_n² ~ Beta(½, (n−1)/2).", beta_law),
        cited("euler", "∫₀¹ b^{x−1}(1−b)^{y−1} db = Γ(x)Γ(y)/Γ(x+y).", "Euler; NIST Digital Library, 5.12.1"),
        symbolic("constant", "|ζ_n| has the density 2c(1−t²)^{(n−3)/2} on (0, 1).", constant),
        symbolic("form", "Σv_iζ_i² = 1 − Nζ_n² for v = (1, …, 1, −M), N = M + 1, M > 0.", form),
        symbolic("density", "(1−t²)^{(n−3)/2} ≤ (1−1/N)^{−½} where the form is > 0, t² < 1/N.", density),
        symbolic("hinge", "So h(v) ≤ (4/3)c/√M.", hinge_bound),
        symbolic("quotient", "J ≥ ⟨q, v⟩/h(v) ≥ (S − Mq_n)·3√M/(4c) if S ≥ Mq_n.", quotient),
        symbolic("weight", "M = S/(3q_n) gives the bound; S → Σ(g_i − g_n) > 0 and q_n → 0 as A ↑ n g_n.", best_weight),
    ),
    needs=("threshold-exact",),
)
CONVEX = Proof(
    "orthogonal-region-convex",
    "B(A) is convex in A < n min g, and so is the region of the (A, B), B ≥ B(A).",
    "docs/theory.md, section 10, (11): a maximum of functions affine in A",
    (
        symbolic("affine", "A + ⟨g − A/n, v⟩/h(v) is affine in A for every v; B(A) is its maximum over v.", affine),
        symbolic("maximum", "A maximum of affine functions is convex.", maximum),
        symbolic("epigraph", "What lies above a convex function is convex.", epigraph),
    ),
    needs=("threshold-exact",),
)
PROOFS = (DIVERGES, CONVEX)
