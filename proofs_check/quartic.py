"""Closed forms: H = c r² gives the gradient itself, H = c r⁴ one cubic for every singular value.

    Q* = nG/(2c),        σ_i³ + Dσ_i = n(n+2) g_i/(8c),   D = ½ Σ σ_j².

Source: Su, arXiv 2511.00674; docs/theory.md, section 3.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, positive, positives, reals, same, zero
from proofs_check.convexity import CONVEXITY
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, moment, power_of_form, squared_form
from proofs_check.stationarity import STATIONARITY
from proofs_check.step import cited, exact, joined, symbolic


def completed_square(n_factor: int = 1) -> str:
    """Entry by entry −qG + cq²/n = (c/n)(q − nG/2c)² − nG²/(4c)."""
    n, c = positives("n c")
    q, g = reals("q G")
    best = n_factor * n * g / (2 * c)
    zero(-q * g + c * q**2 / n - (c / n) * (q - best) ** 2 + n * g**2 / (4 * c), "F as a completed square")
    return nonnegative((c / n) * (q - best) ** 2, "F(Q) − F(nG/2c) = (c/n)‖Q − nG/2c‖²")


def second_moment(sign: int = -1) -> str:
    """E (q_iζ_i + q_jζ_j)² = (q_i² + q_j²)/n: the mean with ζ_j → −ζ_j has no mixed term, and E ζ_i² = 1/n."""
    q, r, x, y = reals("q r x y")
    (n,) = positives("n")
    mean = ((q * x + r * y) ** 2 + (q * x + sign * r * y) ** 2) / 2
    zero(mean - q**2 * x**2 - r**2 * y**2, "the mean over both signs of ζ_j")
    return same(q**2 * moment(1, n=n) + r**2 * moment(1, n=n), (q**2 + r**2) / n, "two entries of a row, symbol n")


def equation(shift: int = 2, scale: int = 8) -> str:
    """∂/∂σ_i of c((Σσ²)² + 2Σσ⁴)/(n(n+2)) − g_iσ_i vanishes exactly if σ³ + Dσ = n(n+2)g/(8c), D = ½Σσ².

    S and T are Σσ² and Σσ⁴ over the other indices.
    """
    import sympy as sp

    n, c, sigma, g, others, fourth = positives("n c sigma g S T")
    value = c * ((sigma**2 + others) ** 2 + 2 * (sigma**4 + fourth)) / (n * (n + 2))
    slope = sp.diff(value, sigma) - g
    cubic = sigma**3 + (sigma**2 + others) / 2 * sigma - n * (n + shift) * g / (scale * c)
    return zero(slope - 8 * c / (n * (n + 2)) * cubic, "the derivative is 8c/(n(n+2)) times the cubic")


def one_root(three: int = 3) -> str:
    """σ³ + Dσ rises in σ, and its root falls as D rises, dσ/dD = −σ/(3σ² + D): D − ½Σσ(D)² rises strictly."""
    import sympy as sp

    sigma, d = positives("sigma D")
    left = sigma**3 + d * sigma
    positive(sp.diff(left, sigma), "the cubic rises in σ")
    fall = -sp.diff(left, d) / sp.diff(left, sigma)
    zero(fall + sigma / (three * sigma**2 + d), "dσ/dD")
    return positive(1 - sigma * fall, "1 − σ dσ/dD > 0, each term of the sum adding to 1")


def fourth_power(n: int, cross: int = 1) -> str:
    """E s² as a sum over all monomials equals (t₁² + 2t₂)/(n(n+2)) in dimension n."""
    values = positives(" ".join(f"l{i}" for i in range(n)))
    first, second = sum(values), sum(x**2 for x in values)
    return same(power_of_form(values, 2), (cross * first**2 + 2 * second) / (n * (n + 2)), f"n = {n}")


def fourth_powers(largest: int = 6) -> str:
    for n in range(1, largest + 1):
        fourth_power(n)
    return f"polynomials in all λ_i, n ≤ {largest}"


FOURTH = (
    *MOMENTS,
    symbolic("square", "E‖Qζ‖⁴ = E s² = ((Σσ²)² + 2Σσ⁴)/(n(n+2)).", squared_form),
    exact("counted", "The same, counted over all monomials.", fourth_powers, "n ≤ 6"),
)

QUADRATIC = Proof(
    "quadratic",
    "For H = c r² the only optimum is Q* = nG/(2c).",
    "Su, arXiv 2511.00674; docs/theory.md, section 3",
    (
        *MOMENTS,
        symbolic("second-moment", "E ζζᵀ = I/n, so E‖Qζ‖² = ‖Q‖_F²/n, row by row of Q.", second_moment),
        symbolic("square", "F(Q) − F(nG/2c) = (c/n)‖Q − nG/2c‖_F².", completed_square),
    ),
)
QUARTIC = Proof(
    "quartic",
    "For H = c r⁴ the optimum has σ_i³ + Dσ_i = n(n+2)g_i/(8c), D = ½Σσ_j²; one D ≥ 0 alone fits.",
    "Su, arXiv 2511.00674; D: docs/theory.md, section 3",
    joined(
        *FOURTH,
        *STATIONARITY,
        *CONVEXITY.steps,
        symbolic("equation", "∂/∂σ_i (f(σ) − ⟨g, σ⟩) is 8c/(n(n+2)) times the cubic's residual.", equation),
        cited(
            "sufficient",
            "f is differentiable and convex: a stationary σ ≥ 0 is a minimum. Where g_i = 0, σ_i = 0 is the only root.",
            "Rockafellar, Convex Analysis, Theorem 27.1",
        ),
        symbolic("one-root", "D − ½Σσ_j(D)² rises strictly in D.", one_root),
        cited(
            "root",
            "D − ½Σσ_j(D)² is at most 0 at D = 0 and tends to ∞: it has exactly one root D ≥ 0.",
            "intermediate value theorem",
        ),
    ),
)
PROOFS = (QUADRATIC, QUARTIC)
