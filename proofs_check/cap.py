"""How far a smooth curvature can draw a spectrum together: for H = c r^{2+α} by a factor of at most 1 + α.

Gaussian integration by parts of E[z_i · z_iψ(s)], s = Σ λ_jz_j²/Σ z_j², gives

    n w_i = Eψ + 2 E[ζ_i²(λ_i − s)ψ′],      so that      (n+α) w_i = Eψ + α E[ψ λ_iζ_i²/s]      for a power,

and 0 ≤ λ_iζ_i² ≤ s. Source: docs/theory.md, section 4.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, same, zero
from proofs_check.balls import ratio_below
from proofs_check.homogenisation import FALLING, RISING
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS, GAUSSIAN_MOMENTS, power_of_form
from proofs_check.stationarity import STATIONARITY
from proofs_check.step import Step, cited, enclosed, exact, symbolic


def density(sign: int = 1) -> str:
    """z e^{−z²/2} = −(e^{−z²/2})′, which integration by parts turns into E[z F(z)] = E F′(z)."""
    import sympy as sp

    (z,) = reals("z")
    bell = sp.exp(-(z**2) / 2)
    return zero(z * bell + sign * sp.diff(bell, z), "z e^{−z²/2} + (e^{−z²/2})′")


def by_parts(sign: int = 1) -> str:
    """∂(z_iψ(s))/∂z_i = ψ + 2ζ_i²(λ_i − s)ψ′ for s = (λ_iz_i² + A)/(z_i² + B), any ψ."""
    import sympy as sp

    slope = sp.Function("psi1")

    class Psi(sp.Function):
        def fdiff(self, argindex: int = 1) -> Any:
            return slope(self.args[0])

    z, value = reals("z lambda")
    form, square = positives("A B")
    s = (value * z**2 + form) / (z**2 + square)
    found = sp.diff(z * Psi(s), z)
    claim = Psi(s) + sign * 2 * z**2 / (z**2 + square) * (value - s) * slope(s)
    return zero(found - claim, "∂(z_iψ(s))/∂z_i for any function ψ and any n")


def shift(half: int = 2) -> str:
    """|ζ_i²(λ_i − s)ψ′(t)| ≤ (λ_iζ_i² + s)|ψ′(t)| ≤ 2s·bψ/2t ≤ bψ(t) for t = s + ε, as λ_iζ_i² ≤ s and ζ_i² ≤ 1."""
    b, psi, epsilon, rest, gap = nonnegatives("b psi epsilon rest gap")
    (part,) = positives("x")  # λ_iζ_i², with s = x + rest
    s = part + rest
    t = s + epsilon
    slope = b * psi / (half * t)
    nonnegative(s - part, "s − λ_iζ_i² ≥ 0")
    # ζ_i² = 1 − gap: its share of s is at most s.
    nonnegative(s - s * (1 - gap), "s − sζ_i² ≥ 0")
    return nonnegative(b * psi - 2 * s * slope, "bψ(t) − 2s|ψ′(t)|, any ε ≥ 0")


def line(sign: int = 1) -> str:
    """Σz_j² = z_i² + B > 0 for B > 0, and (λ_1 − s)Σz_j² = Σ(λ_1 − λ_j)z_j² ≥ 0, term by term, λ_1 = λ_j + d."""
    z = reals("z")[0]
    rest, (value, d) = positives("B")[0], nonnegatives("lambda d")
    positive(z**2 + rest, "Σz_j² > 0: s is C¹ on the line")
    return nonnegative(((value + sign * d) - value) * z**2, "(λ_1 − λ_j)z_j²")


def slope_bound(factor: int = 2) -> str:
    """|ψ + 2x| ≤ (1 + 2b)ψ for |x| ≤ bψ, that is x = bψ − h and x = −bψ + h, h ≥ 0."""
    b, psi, h = nonnegatives("b psi h")
    for x, sign in ((b * psi - h, 1), (-b * psi + h, -1)):
        nonnegative((1 + factor * b) * psi - sign * (psi + 2 * x), "(1 + 2b)ψ ∓ (ψ + 2x)")
    return "both signs"


def dominated(sign: int = 1) -> str:
    """ψ(s+ε) = ψ(s+1) − d if ψ rises and ψ(s) − d if it falls: at most the sum of both, d ≥ 0."""
    here, beyond, d = nonnegatives("psi_s psi_s1 d")
    for value in (beyond - sign * d, here - sign * d):
        nonnegative(here + beyond - value, "ψ(s) + ψ(s + 1) − ψ(s + ε)")
    return "ψ rising and falling"


def integrable(edge: int = 1) -> str:
    """E s^{α/2} ≤ λ_1^{α/2} E|ζ_1|^α for α < 0, which is finite for α = b − 1, b > 0.

    E|ζ_1|^α = E|z|^α/E ρ^α = Γ(n/2)Γ((α+1)/2)/(√πΓ((n+α)/2)).
    """
    import sympy as sp

    n_less, b, x = positives("m b x")
    alpha = b - edge
    line = 2 * sp.integrate(x**alpha * sp.exp(-(x**2) / 2), (x, 0, sp.oo)) / sp.sqrt(2 * sp.pi)
    zero(line - 2 ** (alpha / 2) * sp.gamma(b / 2) / sp.gamma(sp.Rational(1, 2)), "E|z|^α converges for α > −1")
    # E ρ^α = 2^{α/2}Γ((n+α)/2)/Γ(n/2) with n = 1 + m.
    return positive(sp.gamma(b / 2) / sp.gamma((1 + n_less + alpha) / 2), "E|z|^α/E ρ^α > 0 and finite, n = 1 + m")


def on_powers(n: int, q: int, factor: int = 2) -> str:
    """n E[s^qζ_1²] = E s^q + factor q E[ζ_1²(λ_1 − s)s^{q−1}] as polynomials in the λ_i."""
    values = positives(" ".join(f"l{i}" for i in range(n)))
    first = (1,) + (0,) * (n - 1)
    inner = values[0] * power_of_form(values, q - 1, first) - power_of_form(values, q, first)
    left = n * power_of_form(values, q, first)
    return zero(left - power_of_form(values, q) - factor * q * inner, f"n = {n}, ψ = s^{q}")


def all_powers() -> str:
    for n in (1, 2, 3, 4):
        for q in (1, 2, 3):
            on_powers(n, q)
    return "polynomials in all λ_i, n ≤ 4, q ≤ 3"


def power_weights(slope: int = 1) -> str:
    """2ζ²(λ − s)ψ′ + αψζ² = αψλζ²/s for ψ = s^{α/2}; α E[ψζ²] = αw_i goes to the left side."""
    import sympy as sp

    (s,), (alpha,) = positives("s"), reals("alpha")
    square, value = nonnegatives("y lambda")
    psi = s ** (alpha / 2)
    left = 2 * square * (value - s) * sp.diff(psi, s) + alpha * psi * square
    return zero(left / psi - slope * alpha * value * square / s, "the integrands, with symbols α, s, λ, ζ²")


def share(sign: int = 1) -> str:
    """0 ≤ λ_iζ_i²/s ≤ 1, as s − λ_iζ_i² is the sum of the other λ_jζ_j² ≥ 0."""
    (one,) = positives("x")
    (others,) = nonnegatives("rest")
    s = one + sign * others
    nonnegative(one / s, "λ_iζ_i²/s ≥ 0")
    return nonnegative(1 - one / s, "1 − λ_iζ_i²/s ≥ 0")


def ratio(top: int = 1, bottom: int = 1) -> str:
    """(1 + αp_i)/(1 + αp_j) ≤ 1 + α top/bottom for p_i = 1 − d ≤ 1, p_j ≥ 0 and α ≥ 0."""
    alpha, p, d = nonnegatives("alpha p_j d")
    bound = 1 + alpha * top / bottom
    return nonnegative(bound * (1 + alpha * p) - (1 + alpha * (1 - d)), "(1+α)(1+αp_j) − (1+αp_i)")


def ratio_reversed(top: int = 1, bottom: int = 1) -> str:
    """1 + αp_i ≥ (1 + α)(1 + αp_j) for α = −a, 0 ≤ a = 1 − b < 1, p_i = 1 − d ≤ 1, p_j ≥ 0."""
    b, p, d = nonnegatives("b p_j d")
    a, p_i = 1 - b, 1 - d
    # a and b are both ≥ 0: a (d + b p_j) is the difference, and its factors have a sign.
    gap = (1 - a * p_i) - (1 - a * top / bottom) * (1 - a * p)
    zero(gap - a * (d + b * p), "(1+αp_i) − (1+α)(1+αp_j) = a(d + bp_j)")
    return nonnegative(d + b * p, "a(d + bp_j) ≥ 0, a = −α ≥ 0")


def slope_of_power(sign: int = 1) -> str:
    """ψ = h′ for h = c s^{1+α/2} is c(1+α/2)s^{α/2}, and ψ′ ≥ 0 for α ≥ 0."""
    import sympy as sp

    s, c = positives("s c")
    (alpha,) = nonnegatives("alpha")
    psi = sp.diff(c * s ** (1 + alpha / 2), s)
    same(psi, c * (1 + alpha / 2) * s ** (alpha / 2), "ψ")
    return nonnegative(sign * sp.diff(s ** (alpha / 2), s), "ψ′ ≥ 0 for α ≥ 0")


def slope_of_low_power(sign: int = 1) -> str:
    """The same for −1 < α = −a ≤ 0: ψ′ ≤ 0."""
    import sympy as sp

    (s,) = positives("s")
    (a,) = nonnegatives("a")
    return nonnegative(-sign * sp.diff(s ** (-a / 2), s), "ψ′ ≤ 0 for α ≤ 0")


def elasticity(factor: int = 2) -> str:
    """rφ′/φ = 2sψ′/ψ at s = r² for φ = H′(r)/r = 2ψ(r²)."""
    import sympy as sp

    r, s = positives("r s")
    psi = sp.Function("psi")
    phi = 2 * psi(r**2)
    left = r * sp.diff(phi, r) / phi
    right = (factor * s * sp.diff(psi(s), s) / psi(s)).subs(s, r**2).doit()
    return zero(left - right, "rφ′/φ − 2sψ′/ψ for any ψ")


def general_weights(sign: int = 1) -> str:
    """2ζ²(λ − s)ψ′ + αψζ² = ψ(βλζ²/s + (α − β)ζ²) with ψ′ = βψ/2s."""
    s, psi = positives("s psi")
    alpha, beta, square, value = nonnegatives("alpha beta y lambda")
    left = 2 * square * (value - s) * (beta * psi / (2 * s)) + alpha * psi * square
    return zero(left - psi * (beta * value * square / s + (alpha - sign * beta) * square), "the integrands")


def general_bounds(top: int = 1) -> str:
    """0 ≤ βp + (α − β)ζ² ≤ α for 0 ≤ p = 1 − d, ζ² = 1 − e ≤ 1 and α = β + c."""
    beta, c, p, y, d, e = nonnegatives("beta c p y d e")
    nonnegative(beta * p + c * y, "βp + (α − β)ζ² ≥ 0")
    return nonnegative((top * beta + c) - beta * (1 - d) - c * (1 - e), "α − βp − (α − β)ζ² = βd + ce ≥ 0")


def bounded_ratio(top: int = 1) -> str:
    """Eψ ≤ (n+α)w_i, w_j and both ≤ (1+α)Eψ: w_i/w_j ≤ 1 + α."""
    (alpha, d, e) = nonnegatives("alpha d e")
    (mean,) = positives("E")
    upper, lower = (1 + alpha) * mean - d, mean + e
    return nonnegative((1 + top * alpha) * lower - upper, "(1+α)w_j − w_i from the slacks of both bounds")


STEIN: tuple[Step, ...] = (
    GAUSS,
    GAUSSIAN_MOMENTS,
    symbolic("density", "z e^{−z²/2} = −(e^{−z²/2})′.", density),
    cited(
        "stein",
        "E[z_iF(z)] = E ∂F/∂z_i if F is C¹ on almost every line along e_i and E|∂F/∂z_i| < ∞.",
        "Stein, Annals of Statistics 9 (1981) 1135, Lemma 1",
    ),
    symbolic(
        "line",
        "F = z_iψ(s + ε) is C¹ on lines along e_i with Σ_{j≠i}z_j² > 0, that is almost all for n ≥ 2, and 0 ≤ s ≤ λ_1.",
        line,
    ),
    cited(
        "bounded",
        "ψ is bounded on [ε, λ_1 + ε].",
        "Weierstrass: a continuous function on a compact interval is bounded",
    ),
    symbolic("by-parts", "∂(z_iψ(s))/∂z_i = ψ + 2ζ_i²(λ_i − s)ψ′; and E[z_i²ψ(s)] = E ρ² · w_i = n w_i.", by_parts),
    symbolic("shift", "|ζ_i²(λ_i − s)ψ′(s+ε)| ≤ bψ(s+ε) if |2sψ′/ψ| ≤ b for all s.", shift),
    symbolic("slope-bound", "So |∂F/∂z_i| ≤ (1 + 2b)ψ(s + ε), which is bounded.", slope_bound),
    cited(
        "limit",
        "Means converge if variables do almost surely and lie below one of finite mean.",
        "dominated convergence; Rudin, Real and Complex Analysis, Theorem 1.34",
    ),
    symbolic(
        "dominated",
        "As ε → 0 the identity for ψ(s + ε) becomes that for ψ, monotone and continuous: ψ(s + ε) ≤ ψ(s) + ψ(s + 1), "
        "times 1 + b at most, by `shift`.",
        dominated,
    ),
    exact("powers", "n w_i = Eψ + 2E[ζ_i²(λ_i − s)ψ′] for ψ = s^q.", all_powers, "n ≤ 4, q ≤ 3"),
)
POWER_STEPS: tuple[Step, ...] = (
    *STATIONARITY,
    *STEIN,
    symbolic("power", "ψ = s^{α/2}: (n+α)w_i = Eψ + αE[ψλ_iζ_i²/s] = Eψ·(1 + αp_i).", power_weights),
    symbolic("share", "0 ≤ λ_iζ_i²/s ≤ 1, so that p_i = E[ψλ_iζ_i²/s]/Eψ is in [0, 1].", share),
)

CAP = Proof(
    "cap",
    "For H = c r^{2+α}, α ≥ 0: 1 ≤ (g_i/g_j)/(σ_i/σ_j) ≤ 1 + α for λ_i ≥ λ_j and g = (σ_iR(σ_i²))_i.",
    "docs/theory.md, section 4",
    (
        *POWER_STEPS,
        symbolic("ratio", "(g_i/g_j)/(σ_i/σ_j) = w_i/w_j = (1 + αp_i)/(1 + αp_j) ≤ 1 + α.", ratio),
        symbolic("slope", "ψ rises.", slope_of_power),
        *RISING,
        enclosed("instances", "1 ≤ w_1/w_n ≤ 1 + α in balls.", ratio_below, "α = ½, 1, 3 for n = 2, 3"),
    ),
)
CAP_REVERSED = Proof(
    "cap-reversed",
    "For H = c r^{2+α}, −1 < α ≤ 0: 1 + α ≤ (g_i/g_j)/(σ_i/σ_j) ≤ 1 for λ_i ≥ λ_j and g = (σ_iR(σ_i²))_i.",
    "docs/theory.md, section 4",
    (
        *POWER_STEPS,
        symbolic("ratio", "w_i/w_j = (1 + αp_i)/(1 + αp_j) ≥ 1 + α; n + α > 0 and 1 + αp_j > 0.", ratio_reversed),
        symbolic("slope", "ψ falls.", slope_of_low_power),
        symbolic("integrable", "Eψ is finite, for E|ζ_1|^α is for α > −1.", integrable),
        *FALLING,
    ),
)
CAP_ELASTICITY = Proof(
    "cap-elasticity",
    "If 0 ≤ rφ′ ≤ αφ for φ = H′/r in C¹, then 1 ≤ (g_i/g_j)/(σ_i/σ_j) ≤ 1 + α for λ_i ≥ λ_j and g = (σ_iR(σ_i²))_i.",
    "docs/theory.md, section 4",
    (
        *STATIONARITY,
        *STEIN,
        symbolic("elasticity", "β = 2sψ′/ψ is rφ′/φ at s = r², so in [0, α], and ψ rises.", elasticity),
        symbolic("weights", "(n+α)w_i = Eψ + E[ψ(βλ_iζ_i²/s + (α−β)ζ_i²)].", general_weights),
        symbolic("share", "0 ≤ λ_iζ_i²/s ≤ 1, and as much for ζ_i² = 1·ζ_i²/Σζ_j².", share),
        symbolic("bounds", "Eψ ≤ (n+α)w_i ≤ (1+α)Eψ.", general_bounds),
        symbolic("ratio", "w_i/w_j ≤ 1 + α.", bounded_ratio),
        *RISING,
    ),
)
PROOFS = (CAP, CAP_ELASTICITY, CAP_REVERSED)
