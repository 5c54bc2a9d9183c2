"""Moments of a uniform ζ on the unit sphere of R^n, for every n, from those of a Gaussian vector.

    z = ρζ,  z standard normal,  ρ² ~ χ²_n independent of ζ:     E Π ζ_i^{2k_i} = Π (½)_{k_i}/(n/2)_K,   K = Σ k_i,

with (·)_k the rising factorial. In particular E ζ_i² = 1/n, E ζ_i⁴ = 3/(n(n+2)) and E ζ_i²ζ_j² = 1/(n(n+2)).
Source: docs/theory.md, section 5.
"""

from __future__ import annotations

from typing import Any

from proofs_check.algebra import positives, same, zero
from proofs_check.step import cited, symbolic

LAW = cited(
    "law",
    "The law of ζ does not change under rotations, so neither under permutations and changes of sign; expectation is "
    "linear and monotone.",
    "definition of the uniform law (Haar measure); Muirhead, Aspects of Multivariate Statistical Theory, section 1.5",
)
GAUSS = cited(
    "polar",
    "z = ρζ is standard normal in R^n if ρ² ~ χ²_n is independent of ζ.",
    "Muirhead, Aspects of Multivariate Statistical Theory, Theorem 1.5.5",
)
POSITIVE_MEAN = cited(
    "positive-mean",
    "A variable X ≥ 0 has E X > 0 exactly if P(X > 0) > 0.",
    "Rudin, Real and Complex Analysis, Theorem 1.39",
)
OPEN_SETS = cited(
    "open-sets",
    "A nonempty open set of the sphere has positive measure.",
    "a property of Haar measure; Folland, Real Analysis, Proposition 11.4",
)


def moment(*exponents: Any, n: Any) -> Any:
    """E Π ζ_i^{2k_i} for the exponents k_i, as a rational function of n if they are numbers."""
    import sympy as sp

    total = sp.Integer(1)
    for k in exponents:
        total *= sp.rf(sp.Rational(1, 2), k)
    return total / sp.rf(n / sp.Integer(2), sum(exponents))


def gaussian_moments(base: int = 2) -> str:
    """E z^{2k} = base^k (½)_k and E ρ^{2q} = base^q (n/2)_q for every k and q."""
    import sympy as sp

    k, q, n, x = positives("k q n x")
    half = sp.Rational(1, 2)
    normal = 2 * sp.integrate(x ** (2 * k) * sp.exp(-(x**2) / 2), (x, 0, sp.oo)) / sp.sqrt(2 * sp.pi)
    same(normal, base**k * sp.gamma(k + half) / sp.gamma(half), "E z^{2k} = 2^k (1/2)_k")
    density = x ** (n / 2 - 1) * sp.exp(-x / 2) / (2 ** (n / 2) * sp.gamma(n / 2))
    square = sp.integrate(density * x**q, (x, 0, sp.oo))
    same(square, base**q * sp.gamma(n / 2 + q) / sp.gamma(n / 2), "E ρ^{2q} = 2^q (n/2)_q")
    return "both integrals with symbols k, q, n"


def low_moments(same_place: int = 3, other_place: int = 1) -> str:
    """E ζ_i² = 1/n, E ζ_i⁴ = 3/(n(n+2)), E ζ_i²ζ_j² = 1/(n(n+2)), and what Σ ζ_i² = 1 makes of them."""
    (n,) = positives("n")
    same(moment(1, n=n), 1 / n, "E ζ_i²")
    same(moment(2, n=n), same_place / (n * (n + 2)), "E ζ_i⁴")
    same(moment(1, 1, n=n), other_place / (n * (n + 2)), "E ζ_i²ζ_j²")
    # (Σ ζ_i²)² = 1 has n terms of the one kind and n(n − 1) of the other.
    total = (n * same_place + n * (n - 1) * other_place) / (n * (n + 2))
    return zero(total - 1, "moments of degree 2 and 4 with symbol n, and E (Σ ζ_i²)² = 1")


def squared_form(cross: int = 1) -> str:
    """E s² = (t₁² + 2t₂)/(n(n+2)) for s = Σ λ_i ζ_i², t_j = Σ λ_i^j: the pairs i ≠ j have Σ λ_iλ_j = t₁² − t₂."""
    n, first, second = positives("n t1 t2")
    found = second * moment(2, n=n) + cross * (first**2 - second) * moment(1, 1, n=n)
    return same(found, (first**2 + 2 * second) / (n * (n + 2)), "E s² with symbols n, t₁, t₂")


def dirichlet_density(shape: int = 2) -> str:
    """y = (z_i²)/ρ² and ρ² are independent, y ~ Dirichlet(½, …, ½), ρ² ~ χ²_n, from the exponents of the densities.

    With x_i = ρ²y_i and volume element (ρ²)^{n−1} the density Π x_i^{−½}e^{−x_i/2} splits: one of ρ², one of y.
    """
    import sympy as sp

    n, square, y = positives("n R y")
    exponent = sp.Rational(1, shape) - 1
    power = sp.powsimp(sp.expand_power_base((square * y) ** exponent) / y**exponent)
    return same(power**n * square ** (n - 1), square ** (n / 2 - 1), "Π x_i^{−½} (ρ²)^{n−1} = (ρ²)^{n/2−1} Π y_i^{−½}")


def indices(n: int, degree: int) -> list[tuple[int, ...]]:
    """All (k_1, …, k_n) of integers ≥ 0 with sum `degree`."""
    if n == 1:
        return [(degree,)]
    return [(k, *rest) for k in range(degree + 1) for rest in indices(n - 1, degree - k)]


def multinomial(index: tuple[int, ...]) -> Any:
    """K!/Π k_i!."""
    import sympy as sp

    total = sp.factorial(sum(index))
    for k in index:
        total /= sp.factorial(k)
    return total


def power_of_form(values: tuple[Any, ...], q: int, weight: tuple[int, ...] | None = None) -> Any:
    """E s^q Π ζ_i^{2w_i}, s = Σ λ_i ζ_i², as a polynomial in the λ_i: the sum over all monomials."""
    import sympy as sp

    n = len(values)
    weight = weight or (0,) * n
    total = sp.Integer(0)
    for index in indices(n, q):
        term = multinomial(index) * moment(*(k + w for k, w in zip(index, weight, strict=True)), n=n)
        for value, k in zip(values, index, strict=True):
            term *= value**k
        total += term
    return total


GAUSSIAN_MOMENTS = symbolic(
    "gaussian-moments",
    "E z^{2k} = 2^k (½)_k and E ρ^{2q} = 2^q (n/2)_q, E ρ² = n; by independence E Πζ_i^{2k_i} = Π(½)_{k_i}/(n/2)_K.",
    gaussian_moments,
)
MOMENTS = (
    LAW,
    GAUSS,
    GAUSSIAN_MOMENTS,
    symbolic(
        "low-moments",
        "E ζ_i² = 1/n, E ζ_i⁴ = 3/(n(n+2)) and E ζ_i²ζ_j² = 1/(n(n+2)), dividing one by the other.",
        low_moments,
    ),
)
