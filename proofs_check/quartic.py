"""Closed forms: H = c r² gives the gradient itself, H = a r² + b r⁴ one cubic for every singular value.

    Q* = nG/(2c),        σ_i³ + Dσ_i = n(n+2) g_i/(8b),   D = ½ Σ σ_j² + a(n+2)/(4b).

Source: Su, arXiv 2511.00674; docs/theory.md, section 3.
"""

from __future__ import annotations

from proofs_check.algebra import nonnegative, nonnegatives, positive, positives, reals, same, zero
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, moment, power_of_form, squared_form
from proofs_check.stationarity import STATIONARITY
from proofs_check.step import cited, exact, symbolic


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


def equation(shift: int = 2, scale: int = 8, square: int = 0, quarter: int = 4) -> str:
    """∂/∂σ_i of aΣσ²/n + b((Σσ²)² + 2Σσ⁴)/(n(n+2)) − g_iσ_i is 8b/(n(n+2)) times the residual of σ³ + Dσ =
    n(n+2)g/(8b), D = ½Σσ² + a(n+2)/(4b).

    S and T are Σσ² and Σσ⁴ over the other indices; `square` = 0 leaves out a.
    """
    import sympy as sp

    n, b, sigma, g, others, fourth = positives("n b sigma g S T")
    a = square * nonnegatives("a")[0]
    value = a * (sigma**2 + others) / n + b * ((sigma**2 + others) ** 2 + 2 * (sigma**4 + fourth)) / (n * (n + 2))
    slope = sp.diff(value, sigma) - g
    factor = (sigma**2 + others) / 2 + a * (n + 2) / (quarter * b)
    cubic = sigma**3 + factor * sigma - n * (n + shift) * g / (scale * b)
    return zero(slope - 8 * b / (n * (n + 2)) * cubic, "the derivative is 8b/(n(n+2)) times the cubic")


def equation_with_square() -> str:
    return equation(square=1)


def one_root(three: int = 3) -> str:
    """σ³ + Dσ rises in σ, and its root falls as D rises, dσ/dD = −σ/(3σ² + D): D − ½Σσ(D)² rises strictly."""
    import sympy as sp

    sigma, d = positives("sigma D")
    left = sigma**3 + d * sigma
    positive(sp.diff(left, sigma), "the cubic rises in σ")
    fall = -sp.diff(left, d) / sp.diff(left, sigma)
    zero(fall + sigma / (three * sigma**2 + d), "dσ/dD")
    return positive(1 - sigma * fall, "1 − σ dσ/dD > 0, each term of the sum adding to 1")


def only_root(sign: int = 1) -> str:
    """σ³ + Dσ > 0 for σ > 0 and D ≥ 0: at g_i = 0 only σ_i = 0 is left."""
    (sigma,), (d,) = positives("sigma"), nonnegatives("D")
    return positive(sigma * (sigma**2 + sign * d), "σ³ + Dσ")


def ends(sign: int = 1) -> str:
    """D − ½Σσ(D)² is −½Σσ(0)² ≤ 0 at D = 0 and at least D − ½Σσ(0)², as σ(D)² = σ(0)² − d, d ≥ 0, term by term."""
    d, least, start = nonnegatives("D d sigma_0")
    nonnegative(-(0 - start**2 / 2), "½σ(0)², the term at D = 0")
    return nonnegative((d - (start**2 - sign * least) / 2) - (d - start**2 / 2), "half of σ(0)² − σ(D)²")


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
QUARTIC_STEPS = (
    *FOURTH,
    *STATIONARITY,
    cited(
        "sufficient",
        "A stationary point of a differentiable convex function is a minimum.",
        "Rockafellar, Convex Analysis, Theorem 27.1",
    ),
    symbolic("only-root", "Where g_i = 0, σ_i = 0 is the only root.", only_root),
)
QUARTIC = Proof(
    "quartic",
    "For H = c r⁴ the optimum has σ_i³ + Dσ_i = n(n+2)g_i/(8c), D = ½Σσ_j²; one D ≥ 0 alone fits.",
    "Su, arXiv 2511.00674; D: docs/theory.md, section 3",
    (
        *QUARTIC_STEPS,
        symbolic("equation", "∂/∂σ_i (f(σ) − ⟨g, σ⟩) is 8c/(n(n+2)) times the cubic's residual.", equation),
        symbolic("one-root", "σ_j(D) falls in D, and D − ½Σσ_j(D)² rises strictly.", one_root),
        symbolic("ends", "It is at most 0 at D = 0, and at least D − ½Σσ_j(0)², which tends to ∞.", ends),
        cited(
            "root",
            "A continuous function that rises strictly from a value ≤ 0 to ∞ has exactly one root.",
            "intermediate value theorem",
        ),
    ),
    needs=("convexity", "alignment"),
)
QUARTIC_WITH_SQUARE = Proof(
    "quartic-with-square",
    "For H = a r² + b r⁴ the optimum has σ_i³ + Dσ_i = n(n+2)g_i/(8b) with D = ½Σσ_j² + a(n+2)/(4b).",
    "docs/theory.md, section 3, (4)",
    (
        *QUARTIC_STEPS,
        symbolic("second-moment", "E‖Qζ‖² = ‖Q‖_F²/n = Σσ²/n.", second_moment),
        symbolic(
            "equation",
            "∂/∂σ_i (f(σ) − ⟨g, σ⟩) is 8b/(n(n+2)) times the cubic's residual.",
            equation_with_square,
        ),
    ),
    needs=("convexity", "alignment"),
)
PROOFS = (QUADRATIC, QUARTIC, QUARTIC_WITH_SQUARE)
