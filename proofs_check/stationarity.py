"""One increasing function for the whole spectrum: g_i = σ_i R(σ_i²), R(x) = (2/n) E ψ((1−B)s + Bx), B ~ Beta(1, n/2).

∂f/∂σ_i = 2σ_iw_i with w_i = E[ψ(s)ζ_i²]. Weighting the law of (ζ_j²), which is Dirichlet(½, …, ½), with nζ_i² raises
its i-th parameter by 1, and gives the law of (1−B)(ζ_j²)_j + B e_i. Source: docs/theory.md, section 3.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import counts, nonnegative, nonnegatives, positive, positives, reals, same, zero
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS, GAUSSIAN_MOMENTS, LAW, POSITIVE_MEAN, dirichlet_density, moment, power_of_form
from proofs_check.step import cited, exact, symbolic


def gradient(factor: int = 2) -> str:
    """∂h(s)/∂σ_i = 2σ_i ζ_i² ψ(s) for s = σ_i²ζ_i² + rest and h′ = ψ."""
    import sympy as sp

    psi = sp.Function("psi")

    class Curve(sp.Function):
        def fdiff(self, argindex: int = 1) -> Any:
            return psi(self.args[0])

    sigma, square, rest = nonnegatives("sigma y c")
    s = sigma**2 * square + rest
    found = sp.diff(Curve(s), sigma)
    return zero(found - factor * sigma * square * psi(s), "∂h(s)/∂σ_i with h′ = ψ any function")


def tilt(raised: int = 1) -> str:
    """Γ(n/2+1)Γ(½)/(Γ(n/2)Γ(3/2)) = n: nζ_i² is the density of Dirichlet(½ + e_i) with respect to Dirichlet(½)."""
    import sympy as sp

    (n,) = positives("n")
    half = sp.Rational(1, 2)
    ratio: Any = sp.gamma(n / 2 + raised) * sp.gamma(half) / (sp.gamma(n / 2) * sp.gamma(half + raised))
    same(ratio, n, "the ratio of the normalising constants")
    return same(n * moment(1, n=n), 1, "the ratio of the constants is n, and E nζ_i² = 1")


def beta_moments(second: int = 2) -> str:
    """E[(1−B)^m B^l] = l! (n/2)_m/(n/2+1)_{l+m} for B ~ Beta(1, n/2), by Euler's integral."""
    import sympy as sp

    (n,) = positives("n")
    m, power = counts("m l")
    other = n / sp.Integer(second)
    euler = sp.gamma(power + 1) * sp.gamma(m + other) / sp.gamma(power + m + other + 1)
    euler /= sp.gamma(1) * sp.gamma(other) / sp.gamma(1 + other)
    half = n / 2
    claim = sp.factorial(power) * sp.gamma(half + m) / sp.gamma(half)
    claim /= sp.gamma(half + 1 + power + m) / sp.gamma(half + 1)
    quotient: Any = sp.gammasimp((euler / claim).rewrite(sp.gamma))
    return zero(quotient - 1, "with symbols n, l, m")


def series(step: int = 1) -> str:
    """(1−x)^{−a} = Σ (a)_k x^k/k!: both solve (1−x)y′ = ay, y(0) = 1, that is (k+1)c_{k+1} = (k+a)c_k."""
    import sympy as sp

    a, x = positives("a x")
    (k,) = counts("k")
    y = (1 - x) ** (-a)
    zero((1 - x) * sp.diff(y, x) - a * y, "(1−x)y′ = ay")

    def coefficient(place: Any) -> Any:
        return sp.gamma(a + place) / sp.gamma(a) / sp.gamma(place + 1)

    ratio = sp.gammasimp(coefficient(k + step) / coefficient(k))
    return zero((k + 1) * ratio - (k + a), "the recursion with symbols a, k")


def mixture(pole: int = 1) -> str:
    """Σ_l C(k,l) l! (½)_{k−l} = (3/2)_k for every k: the coefficients of (1−x)^{−½} (1−x)^{−1} = (1−x)^{−3/2}."""
    import sympy as sp

    (x,) = positives("x")
    half = sp.Rational(1, 2)
    return zero((1 - x) ** (-half) * (1 - x) ** (-pole) * (1 - x) ** (3 * half) - 1, "the generating functions")


def mixed_moments(tilted: int = 1) -> str:
    """Σ_l C(k,l) l!(½)_{k−l} in place i, times what the others have, is E Π((1−B)y_j + Bδ_ij)^{k_j}, as (n/2)_{K−l}
    cancels; and n E[ζ_i² Πy_j^{k_j}] has (3/2)_k there. All over (n/2+1)_K, K = Σk_j."""
    import sympy as sp

    (n,) = positives("n")
    k, power, more = counts("k l q")
    half, total = sp.Rational(1, 2), k + power + more  # (½)_{k−l} is (½)_k here, and K = k + l + q

    def rising(x: Any, j: Any) -> Any:
        return sp.gamma(x + j) / sp.gamma(x)

    share = sp.factorial(power) * rising(n / 2, total - power) / rising(n / 2 + 1, total)
    term = share * rising(half, k) / rising(n / 2, total - power)
    same(term, sp.factorial(power) * rising(half, k) / rising(n / 2 + 1, total), "(n/2)_{K−l} cancels")
    weighted = n * rising(half, k + tilted) / rising(n / 2, total + 1)
    claim = rising(half + 1, k) / rising(n / 2 + 1, total)
    ratio: Any = sp.gammasimp(weighted / claim)
    return zero(ratio - 1, "both moments with symbols n, k, l, K")


def counted_mixture(largest: int = 8, base: int = 2) -> str:
    """The same sum, counted."""
    import sympy as sp

    half = sp.Rational(1, base)
    for k in range(largest + 1):
        total = sum(sp.binomial(k, j) * sp.factorial(j) * sp.rf(half, k - j) for j in range(k + 1))
        same(total, sp.rf(3 * half, k), f"k = {k}")
    return f"k = 0, …, {largest}"


def form(unit: int = 1) -> str:
    """Σ λ_j ((1−B)y_j + B δ_ij) = (1−B)s + Bλ_i, with s = λ_iy_i + rest."""
    share, value, y, rest = nonnegatives("B lambda y c")
    left = value * ((1 - share) * y + share * unit) + (1 - share) * rest
    return same(left, (1 - share) * (value * y + rest) + share * value, "the form at (1−B)y + B e_i")


def on_powers(n: int, q: int, shape: int = 2) -> str:
    """E[s^qζ_1²] = (1/n) E((1−B)s + Bλ_1)^q as polynomials in λ, B ~ Beta(1, n/shape)."""
    import sympy as sp

    values = positives(" ".join(f"l{i}" for i in range(n)))
    other = sp.Rational(n, shape)
    right = sp.Integer(0)
    for power in range(q + 1):
        share = sp.factorial(power) * sp.rf(other, q - power) / sp.rf(other + 1, q)
        right += sp.binomial(q, power) * share * values[0] ** power * power_of_form(values, q - power)
    left = power_of_form(values, q, (1,) + (0,) * (n - 1))
    return zero(left - right / n, f"n = {n}, ψ = s^{q}")


def all_powers() -> str:
    for n in (1, 2, 3, 4):
        for q in (1, 2, 3):
            on_powers(n, q)
    return "polynomials in all λ_i, n ≤ 4, q ≤ 3"


def radius(sign: int = 1) -> str:
    """ρ(x) = √(c + Bx²) and x/ρ(x) are nondecreasing for x ≥ 0; their derivatives are Bx/ρ and c/ρ³."""
    import sympy as sp

    share, c, x = positives("B c x")
    rho = sp.sqrt(c + share * x**2)
    nonnegative(sp.diff(rho, x), "ρ′")
    slope = sp.simplify(sp.diff(sign * x / rho, x))
    zero(slope - c / rho**3, "(x/ρ)′ − c/ρ³")
    return positive(slope, "(x/ρ)′ = c/ρ³ > 0 for c = (1−B)s > 0")


def product(sign: int = 1) -> str:
    """u₁v₁ − u₀v₀ = (u₁ − u₀)v₁ + u₀(v₁ − v₀) ≥ 0 for u = x/ρ and v = H′(ρ), both nondecreasing and ≥ 0."""
    u, v, du, dv = nonnegatives("u v du dv")
    gain = (u + du) * (v + sign * dv) - u * v
    zero(gain - (du * (v + sign * dv) + u * sign * dv), "the split of the difference")
    return nonnegative(gain, "u₁v₁ − u₀v₀ ≥ 0 by slacks")


def strict_product(sign: int = 1) -> str:
    """The same difference is > 0 where (x/ρ) rises strictly and H′(ρ) at the upper end is > 0."""
    u, dv = nonnegatives("u dv")
    upper, du = positives("v1 du")
    return positive((u + sign * du) * upper - u * (upper - dv), "u₁v₁ − u₀v₀ = (u₁ − u₀)v₁ + u₀(v₁ − v₀) > 0")


def slope_of_h(power: int = 1) -> str:
    """x · 2ψ(ρ²) = (x/ρ) H′(ρ), as ψ(s) = dH(√s)/ds = H′(√s)/(2√s)."""
    import sympy as sp

    slope_at = sp.Function("H1")

    class Curve(sp.Function):
        def fdiff(self, argindex: int = 1) -> Any:
            return slope_at(self.args[0])

    s, x, rho = positives("s x rho")
    psi = sp.diff(Curve(sp.sqrt(s)), s).subs(s, rho**2)
    return zero(2 * x * psi - x / rho**power * slope_at(rho), "2xψ(ρ²) = (x/ρ)H′(ρ)")


def odd(power: int = 2) -> str:
    """x R(x²) is odd."""
    import sympy as sp

    (x,) = reals("x")
    r = sp.Function("R")
    return zero(x * r(x**power) + (-x) * r((-x) ** power), "xR(x²) + (−x)R((−x)²)")


def reflected(power: int = 2) -> str:
    """f is even in σ_i, as s is, and g_i|σ_i| ≥ g_iσ_i at σ_i = −x ≤ 0."""
    (sigma,) = reals("sigma")
    g, x, y, rest = nonnegatives("g x y c")

    def s(value: Any) -> Any:
        return value**power * y + rest

    zero(s(-sigma) - s(sigma), "s at −σ_i and at σ_i")
    return nonnegative(g * x - g * (-x), "f − ⟨g, ·⟩ at σ_i = −x less that at σ_i = x ≥ 0")


def positive_form(sign: int = 1) -> str:
    """s ≥ λ_1ζ_1² > 0 where ζ_1 ≠ 0, for λ_1 > 0; (1−B)s > 0 if also B < 1."""
    value, square, below = positives("lambda_1 y b")
    (rest,) = nonnegatives("c")
    return positive(below * (value * square + sign * rest), "(1−B)s with 1 − B = b > 0")


def inverse(sign: int = 1) -> str:
    """φ(b) > φ(a) for a < b: if φ(b) = φ(a) − d, d ≥ 0, the increasing function has b = a − e, e ≥ 0, so b ≤ a."""
    d, slope = nonnegatives("d m")
    (image,) = reals("a")
    # u(φ(a) − d) = a − m d for u = xR(x²), whose difference quotient m is ≥ 0.
    return nonnegative(image - (image - sign * slope * d), "a − b ≥ 0 if φ(b) ≤ φ(a)")


REFLECTED = symbolic(
    "reflected", "A minimum over σ ≥ 0 is one over all σ: f is even in every σ_i and ⟨g, |σ|⟩ ≥ ⟨g, σ⟩.", reflected
)
FERMAT = (
    REFLECTED,
    cited(
        "fermat",
        "At a minimum over an open set where f − ⟨g, ·⟩ is differentiable, ∇f = g.",
        "Fermat's rule; Rudin, Principles of Mathematical Analysis, Theorem 5.8",
    ),
)
STATIONARITY = (
    LAW,
    *DIFFERENTIATION,
    symbolic(
        "gradient", "∂h(s)/∂σ_i = 2σ_iψ(s)ζ_i², so that ∂f/∂σ_i = 2σ_iw_i and, at a minimum, g_i = 2σ_iw_i.", gradient
    ),
    *FERMAT,
)
ONE_FUNCTION_STEPS = (
    *STATIONARITY,
    GAUSS,
    GAUSSIAN_MOMENTS,
    symbolic("dirichlet", "(ζ_j²)_j has the density of Dirichlet(½, …, ½).", dirichlet_density),
    symbolic("tilt", "Weighted with nζ_i², that is Dirichlet(½, …, ½ + 1, …, ½).", tilt),
    cited("euler", "∫₀¹ b^{x−1}(1−b)^{y−1} db = Γ(x)Γ(y)/Γ(x+y).", "Euler; NIST Digital Library, 5.12.1"),
    symbolic("beta-moments", "E[(1−B)^m B^l] = l!(n/2)_m/(n/2+1)_{l+m}.", beta_moments),
    symbolic("series", "(1−x)^{−a} = Σ (a)_k x^k/k!.", series),
    symbolic(
        "mixed-moments",
        "Times (n/2+1)_K/Π_{j≠i}(½)_{k_j}, the mixed moments of (1−B)y + B e_i are Σ_l C(k,l) l!(½)_{k−l}, k = k_i, by "
        "the binomial theorem, and those of the tilted law (3/2)_k.",
        mixed_moments,
    ),
    symbolic("mixture", "Σ_l C(k,l) l!(½)_{k−l} = (3/2)_k, as coefficients of a product of series.", mixture),
    exact("counted-mixture", "The same sum, counted.", counted_mixture, "k ≤ 8"),
    cited("determinate", "A law on the simplex is determined by its moments.", "Weierstrass approximation theorem"),
    symbolic("form", "Σ λ_j((1−B)y_j + Bδ_ij) = (1−B)s + Bλ_i, so w_i = (1/n)Eψ((1−B)s + Bλ_i) = R(λ_i)/2.", form),
    exact("powers", "Both sides for ψ = s^q.", all_powers, "n ≤ 4, q ≤ 3"),
)
ORDER_STEPS = (
    symbolic("slope", "xR(x²) = (1/n) E[(x/ρ)H′(ρ)] with ρ² = (1−B)s + Bx².", slope_of_h),
    symbolic("radius", "ρ and x/ρ rise with x ≥ 0, the second strictly where (1−B)s > 0.", radius),
    symbolic("product", "H′ ≥ 0 is nondecreasing, so (x/ρ)H′(ρ) is.", product),
    GAUSS,
    cited(
        "no-atoms",
        "z_1 and B have densities: P(ζ_1 = 0) = P(z_1 = 0) = 0 and P(B = 1) = 0.",
        "definition of the normal and Beta laws",
    ),
    symbolic("positive-form", "So (1−B)s > 0 almost surely if λ_1 > 0.", positive_form),
    POSITIVE_MEAN,
    symbolic(
        "strict",
        "(x/ρ)H′(ρ) rises strictly where (1−B)s > 0 and H′(ρ) > 0 at the upper end; by `positive-mean` that has "
        "positive probability exactly where xR(x²) > 0, and xR(x²) rises strictly there.",
        strict_product,
    ),
)

ONE_FUNCTION = Proof(
    "one-function",
    "Where f is differentiable, at a minimum g_i = σ_iR(σ_i²) with one R(x) = (2/n) Eψ((1−B)s + Bx), B ~ Beta(1, n/2).",
    "docs/theory.md, section 3",
    ONE_FUNCTION_STEPS,
)
ORDER = Proof(
    "order",
    "xR(x²) is nondecreasing for every H, and strictly where positive: σ keeps the order of g = (σ_iR(σ_i²))_i > 0.",
    "docs/theory.md, section 3",
    (*ONE_FUNCTION_STEPS, *ORDER_STEPS),
)
MAP_MONOTONE = Proof(
    "map-monotone",
    "Given the law of s, one odd increasing function φ, the inverse of xR(x²), has σ_i = φ(g_i) for every g_i > 0.",
    "docs/theory.md, sections 3 and 7",
    (
        *ONE_FUNCTION_STEPS,
        *ORDER_STEPS,
        symbolic("odd", "xR(x²) is odd.", odd),
        symbolic("inverse", "The inverse of a strictly increasing function is increasing, of an odd one odd.", inverse),
    ),
)
PROOFS = (ONE_FUNCTION, ORDER, MAP_MONOTONE)
