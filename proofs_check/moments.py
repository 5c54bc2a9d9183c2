"""Even moments of ‖Qζ‖: E s^q = q! c_q/(n/2)_q with Σ c_q x^q = Π (1 − xλ_i)^{−½}, and the first three in power sums.

    E s = t₁/n,   E s² = (t₁² + 2t₂)/(n(n+2)),   E s³ = (t₁³ + 6t₁t₂ + 8t₃)/(n(n+2)(n+4)),   t_j = Σ λ_i^j.

Source: docs/theory.md, section 5.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import counts, positives, same, zero
from proofs_check.proof import Proof
from proofs_check.sphere import MOMENTS, power_of_form
from proofs_check.stationarity import series
from proofs_check.step import cited, exact, symbolic


def one_place(base: int = 1) -> str:
    """λ^k (½)_k/k!, the share of one place, is the coefficient of x^k in (1 − xλ)^{−½}, by its recursion in k."""
    import sympy as sp

    value, x = positives("lambda x")
    (k,) = counts("k")
    half = sp.Rational(base, 2)
    y = (1 - x * value) ** (-sp.Rational(1, 2))
    zero((1 - x * value) * sp.diff(y, x) - value / 2 * y, "(1 − xλ)y′ = ½λy")

    def coefficient(place: Any) -> Any:
        return value**place * sp.gamma(half + place) / sp.gamma(half) / sp.gamma(place + 1)

    ratio = sp.gammasimp(coefficient(k + 1) / coefficient(k))
    return zero((k + 1) * ratio - (k + sp.Rational(1, 2)) * value, "(k+1)c_{k+1} = (k+½)λc_k with symbols k, λ")


def terms(power: int = 1) -> str:
    """q!/(k!r) λ^kμ · (½)_k m/(n/2)_q, one index split off and r, μ, m the products of the others."""
    import sympy as sp

    n, value, rest, mu, m = positives("n lambda r mu m")
    k, q = counts("k q")
    share = sp.gamma(sp.Rational(1, 2) + k) / sp.gamma(sp.Rational(1, 2))
    over = sp.gamma(n / 2 + q) / sp.gamma(n / 2)
    term = sp.factorial(q) / (sp.factorial(k) * rest) * (value**k * mu) ** power * (share * m / over)
    claim = sp.factorial(q) / over * (value**k * share / sp.factorial(k)) * (mu * m / rest)
    return zero(term / claim - 1, "one term of the sum with symbols k, q, n")


def coefficients(highest: int, t: tuple[Any, ...]) -> list[Any]:
    """c_0 … c_q from q c_q = ½ Σ_{j=1..q} t_j c_{q−j}."""
    import sympy as sp

    c: list[Any] = [sp.Integer(1)]
    for q in range(1, highest + 1):
        c.append(sp.expand(sum(t[j - 1] * c[q - j] for j in range(1, q + 1)) / (2 * q)))
    return c


def recursion(half: int = 2) -> str:
    """x (log Π(1 − xλ_i)^{−½})′ = ½ Σ_i xλ_i/(1 − xλ_i) = ½ Σ_j t_j x^j: term by term, and geometrically."""
    import sympy as sp

    value, x = positives("lambda x")
    term = x * sp.diff(-sp.log(1 - x * value) / 2, x)
    same(term, x * value / (1 - x * value) / half, "one factor")
    # The geometric series y = xλ + xλ y.
    y = x * value / (1 - x * value)
    return zero(y - (x * value + x * value * y), "one factor, and y = xλ + xλ·y")


def low_powers(eight: int = 8, six: int = 6) -> str:
    """q!c_q/(n/2)_q for q = 1, 2, 3 as stated."""
    import sympy as sp

    n, t1, t2, t3 = positives("n t1 t2 t3")
    c = coefficients(3, (t1, t2, t3))
    found = [sp.factorial(q) * c[q] / sp.rf(n / 2, q) for q in range(4)]
    same(found[1], t1 / n, "E s")
    same(found[2], (t1**2 + 2 * t2) / (n * (n + 2)), "E s²")
    third = (t1**3 + six * t1 * t2 + eight * t3) / (n * (n + 2) * (n + 4))
    return same(found[3], third, "E s, E s², E s³ with symbols n, t₁, t₂, t₃")


def counted(n: int, q: int, shift: int = 0) -> str:
    """E s^q as a sum over all monomials against q! c_q/(n/2)_q in dimension n."""
    import sympy as sp

    values = positives(" ".join(f"l{i}" for i in range(n)))
    sums = tuple(sum(x**j for x in values) for j in range(1, q + 1))
    right = sp.factorial(q) * coefficients(q, sums)[q] / sp.rf(sp.Rational(n + shift, 2), q)
    return zero(power_of_form(values, q) - right, f"n = {n}, q = {q}")


def all_counted() -> str:
    for n in (1, 2, 3, 4):
        for q in (1, 2, 3, 4):
            counted(n, q)
    for n in (5, 6):
        counted(n, 3)
    return "polynomials in all λ_i, n ≤ 4 and q ≤ 4, n ≤ 6 and q = 3"


STEPS = (
    *MOMENTS,
    cited(
        "multinomial",
        "s^q = Σ q!/(Πk_i!) Π (λ_iζ_i²)^{k_i} over Σk_i = q.",
        "multinomial theorem",
    ),
    symbolic("terms", "So E s^q = (q!/(n/2)_q) Σ Π λ_i^{k_i}(½)_{k_i}/k_i!.", terms),
    symbolic("series", "(1−x)^{−a} = Σ (a)_k x^k/k!.", series),
    symbolic("one-place", "λ^k(½)_k/k! is the coefficient of x^k in (1 − xλ)^{−½}.", one_place),
    cited("cauchy", "The sum over Σk_i = q is the coefficient c_q of x^q in the product over i.", "product of series"),
    symbolic("recursion", "x C′ = ½ Σ_j t_jx^j · C for C = Π(1 − xλ_i)^{−½}, so q c_q = ½ Σ_j t_jc_{q−j}.", recursion),
    symbolic("low-powers", "q = 1, 2, 3 in power sums.", low_powers),
    exact("counted", "E s^q counted over all monomials.", all_counted, "n ≤ 6, q ≤ 4"),
)

MOMENT_FORMULAS = Proof(
    "moments",
    "E s^q = q!c_q/(n/2)_q with Σc_qx^q = Π(1 − xλ_i)^{−½}; E s, E s², E s³ are power sums over n(n+2)(n+4).",
    "docs/theory.md, section 5",
    STEPS,
)
PROOFS = (MOMENT_FORMULAS,)
