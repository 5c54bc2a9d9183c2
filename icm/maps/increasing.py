"""The best increasing factors: how fast a composition that keeps the order of singular values can reach 1.

The factors p here map [0, 1] onto [0, 1], increasing, p(1) = 1, degree d = 2s + 1: p' = q(x²), q ≥ 0 on [0, 1] of
degree s. The best one for a lower end ℓ has the largest p(ℓ).

*One factor.* By Lukács' theorem (Szegő, Orthogonal Polynomials, 1.21) q = h² + y(1−y) k² for even s, and
q = (1−y) h² + y k² for odd s, with polynomials h, k of the degrees that fit. So the largest p(ℓ), of all
∫₀^ℓ q(x²) dx / ∫₀¹ q(x²) dx, is the larger of two best Rayleigh quotients, one over h alone and one over k alone: each
the largest eigenvalue of a pair of Gram matrices of size about s/2, and q has double zeros but for one at an end.
Degree 3: 1.5x − .5x³; degree 5: q = (y₀ − y)²; degree 7: (1−y)(y₀ − y)²; degree 9: ((y₁ − y)(y₂ − y))².

*Near zero.* As ℓ → 0 the gain p(ℓ)/ℓ tends to p'(0) = max h(0)² / ∫₀¹ h(x²)² w dx, w = 1 or 1 − x², the inverse of
a Christoffel function at 0 (`gain_at_zero`): for even s it is Σ_{i ≤ s/2} (4i+1) P_{2i}(0)² with Legendre's P, so 9/4
for quintics and 225/64 for degree 9; 3/2 and 45/16 for degrees 3 and 7. No ℓ gains more: for ℓ ≥ 1/p'(0) since
p(ℓ) ≤ 1, and below since p(ℓ) ≤ ℓ max q over y ≤ 1/p'(0)², where no q of unit integral exceeds p'(0) (checked up to
degree 9).

*Compositions.* Let V_d(ℓ) = max p(ℓ) over factors of degree d. V_d increases in ℓ, as every p does. So of all
compositions of increasing factors of degrees d_1, …, d_T the one that takes the best factor at each step has the
largest p(ℓ) = V_{d_T}(… V_{d_1}(ℓ)): by induction any other has reached less before its last factor, which makes no
more of it. Nothing is lost by p_t(1) = 1 (rescale between the factors), nor by asking it of every factor: if a
composition increases, each factor is monotone on its range, for at a turning point of p_1 inside it p_1, and with it
the composition, takes a value twice. Divided by the middle of [p(ℓ), 1] the composition errs by (1 − p(ℓ))/(1 + p(ℓ))
from 1 on [ℓ, 1], the least of all increasing compositions of these degrees.

Rounded coefficients could let a double zero of q dip below 0 by 1e−16. The factors returned are lifted by a few units
in the last place until q ≥ 0 is a fact of exact rational arithmetic (`nonnegative`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.remez import require_odd, taylor

Polynomial = tuple[Fraction, ...]  # coefficients, constant first

_EPS = 2.0**-52


def best_increasing(lower: float, degree: int) -> tuple[tuple[float, ...], float]:
    """(c, p(lower)): the increasing p(x) = x Σ c_i x^{2i} on [0, 1] with p(1) = 1 that is largest at `lower`.

    Rounded so that p is proved to increase on [0, 1] and p(1) ≤ 1, with 1 − p(1) ≤ 1e−13 up to degree 9, 1e−11 to 17.

    Raises InputError for a lower end outside 0 < lower ≤ 1 or a degree that is not odd.
    """
    gain, q = _slope(lower, degree)
    return _provable(tuple(float(c) / (2 * i + 1) for i, c in enumerate(q)), Fraction(1)), gain


def reach(lower: float, degree: int) -> float:
    """V_d(lower), the largest p(lower) of an increasing factor of degree d; raises as `best_increasing`."""
    return _slope(lower, degree)[0]


def best_composition(lower: float, degrees: tuple[int, ...], top: float = 1.0) -> Composition:
    """The composition of these degrees, in this order, that increases on [0, top] and is nearest to 1 on [lower, top],
    0 < lower ≤ top: centred, so that its range there is [1 − E, 1 + E].

    Raises InputError as `best_increasing`, or for no degree.
    """
    if not degrees:
        raise InputError("degrees=(): give the degree of at least one factor")
    factors, reached = [], lower / top
    for degree in degrees:
        factor, reached = best_increasing(reached, degree)
        factors.append(factor)
    if top != 1:
        first = tuple(c / top ** (2 * i + 1) for i, c in enumerate(factors[0]))
        factors[0] = _provable(first, Fraction(1), Fraction(top))
    last = tuple(c * 2 / (1 + reached) for c in factors[-1])
    factors[-1] = _provable(last, None, Fraction(top if len(factors) == 1 else 1.0))
    return Composition(tuple(factors))


def gain_at_zero(degree: int) -> float:
    """The largest slope at 0 of an increasing p of this degree on [0, 1] with p(1) = 1: what a step can gain on the
    smallest singular values, 3/2, 9/4, 45/16 and 225/64 for degrees 3, 5, 7 and 9."""
    require_odd(degree)
    s = degree // 2
    moments = _moments(1.0, s // 2, (0, s % 2))
    return float(np.linalg.inv(moments)[0, 0])


def nonnegative(q: Polynomial, top: Fraction) -> bool:
    """Whether q(y) ≥ 0 for all 0 ≤ y ≤ top, decided in exact rational arithmetic: q has no zero of odd order inside
    (Sturm's theorem on the part of q that carries those), and is positive at a point that is no zero."""
    q = _trimmed(q)
    if not q:
        return True
    odd = _odd_part(q)
    if len(odd) > 1 and _zeros_inside(odd, top):
        return False
    point = next(y for i in range(len(q) + 1) if _at(q, y := top * (i + 1) / (len(q) + 2)) != 0)
    return _at(q, point) > 0


def slope_polynomial(factor: tuple[float, ...]) -> Polynomial:
    """q with p' = q(x²), exactly, for the floats of a factor."""
    return tuple((2 * i + 1) * Fraction(c) for i, c in enumerate(factor))


def _slope(lower: float, degree: int) -> tuple[float, np.ndarray]:
    """(p(lower), q) of the best factor, before rounding is dealt with."""
    if not 0 < lower <= 1:
        raise InputError(f"lower={lower!r}: the lower end of the singular values lies in 0 < lower ≤ 1")
    require_odd(degree)
    s = degree // 2
    flat = np.array([(2 * i + 1) * c for i, c in enumerate(taylor(s))])  # the limit lower → 1
    gain, q = max((_best(lower, s, ends) for ends in ((0, s % 2), (1, 1 - s % 2))), key=lambda found: found[0])
    if _primitive(flat, lower) >= gain - 1e-13:
        gain, q = _primitive(flat, lower), flat
    return min(gain, 1.0), q


def _best(lower: float, s: int, ends: tuple[int, int]) -> tuple[float, np.ndarray]:
    """(p(lower), q) for the best q = y^a (1−y)^b h² of degree s, (a, b) = ends, scaled to ∫₀¹ q(x²) dx = 1."""
    k, rest = divmod(s - sum(ends), 2)
    if k < 0 or rest:
        return -math.inf, np.zeros(s + 1)
    inner, whole = _moments(lower, k, ends), _moments(1.0, k, ends)
    root = np.linalg.inv(np.linalg.cholesky(whole))
    _, vectors = np.linalg.eigh(root @ inner @ root.T)
    h = root.T @ vectors[:, -1]
    q = np.polynomial.polynomial.polymul(h, h)
    q = np.polynomial.polynomial.polymul(q, _ends(ends))
    q = np.pad(q, (0, s + 1 - len(q)))
    q = q / _primitive(q, 1.0)
    return _primitive(q, lower), q


def _primitive(q: np.ndarray, x: float) -> float:
    """∫₀^x q(t²) dt."""
    powers = 2 * np.arange(len(q)) + 1
    return float(np.sum(q / powers * x**powers))


def _moments(upper: float, k: int, ends: tuple[int, int]) -> np.ndarray:
    """∫₀^upper x^{2i+2j} w(x) dx for i, j ≤ k, w = x^{2a} (1 − x²)^b."""
    x, weights = np.polynomial.legendre.leggauss(2 * k + 4)
    y = (upper * (1 + x) / 2) ** 2
    basis = y ** np.arange(k + 1)[:, None]
    return (basis * (weights * upper / 2 * y ** ends[0] * (1 - y) ** ends[1])) @ basis.T


def _ends(ends: tuple[int, int]) -> np.ndarray:
    """y^a (1 − y)^b as coefficients."""
    return np.polynomial.polynomial.polymul([0.0] * ends[0] + [1.0], [1.0, -1.0] if ends[1] else [1.0])


def _provable(factor: tuple[float, ...], most: Fraction | None, end: Fraction = Fraction(1)) -> tuple[float, ...]:
    """The factor lifted by units in the last place until its slope is provably ≥ 0 on [0, end], and scaled back by as
    little so that its value at `end` does not exceed `most` (None: whatever it becomes)."""
    size = sum(abs((2 * i + 1) * c) for i, c in enumerate(factor))

    def value(lifted: tuple[float, ...]) -> Fraction:
        return end * _at(tuple(map(Fraction, lifted)), end * end)

    for k in range(-4, 12):
        lifted = (factor[0] + 2.0**k * _EPS * size, *factor[1:])
        if most is not None and value(lifted) > most:
            scale = float(most / value(lifted)) * (1 - 2.0**k * _EPS * size)
            lifted = tuple(scale * c for c in lifted)
        fits = most is None or value(lifted) <= most
        if fits and nonnegative(slope_polynomial(lifted), end * end):
            return lifted
    raise InputError(f"factor {factor!r} has slope below 0 on [0, {float(end)}] by more than rounding")


def _at(q: Polynomial, y: Fraction) -> Fraction:
    value = Fraction(0)
    for c in reversed(q):
        value = value * y + c
    return value


def _trimmed(q: Polynomial) -> Polynomial:
    while q and q[-1] == 0:
        q = q[:-1]
    return q


def _derivative(q: Polynomial) -> Polynomial:
    return tuple(i * c for i, c in enumerate(q))[1:]


def _divided(a: Polynomial, b: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and remainder of a by b."""
    rest, quotient = list(a), [Fraction(0)] * max(len(a) - len(b) + 1, 0)
    for i in reversed(range(len(quotient))):
        quotient[i] = rest[i + len(b) - 1] / b[-1]
        for j, c in enumerate(b):
            rest[i + j] -= quotient[i] * c
    return tuple(quotient), _trimmed(tuple(rest[: len(b) - 1]))


def _common(a: Polynomial, b: Polynomial) -> Polynomial:
    """The greatest common divisor, with leading coefficient 1."""
    while b:
        a, b = b, _divided(a, b)[1]
    return tuple(c / a[-1] for c in a)


def _odd_part(q: Polynomial) -> Polynomial:
    """The product of y − z over the distinct zeros z of odd order (Yun's square-free factors, every second one)."""
    a = _common(q, _derivative(q)) if len(q) > 1 else (Fraction(1),)
    b, odd, order = _divided(q, a)[0], (Fraction(1),), 1
    while len(b) > 1:
        shared = _common(a, b) if len(a) > 1 else (Fraction(1),)
        simple = _divided(b, shared)[0]  # the zeros of exactly this order
        if order % 2:
            odd = tuple(
                sum(odd[i] * simple[n - i] for i in range(len(odd)) if 0 <= n - i < len(simple))
                for n in range(len(odd) + len(simple) - 1)
            )
        a, b, order = _divided(a, shared)[0], shared, order + 1
    return tuple(Fraction(c) for c in odd)


def _zeros_inside(q: Polynomial, top: Fraction) -> int:
    """How many distinct zeros a square-free q has in 0 < y < top, by Sturm's theorem."""
    for end in (Fraction(0), top):
        if _at(q, end) == 0:
            q = _divided(q, (-end, Fraction(1)))[0]
    chain = [q, _trimmed(_derivative(q))]
    while chain[-1]:
        chain.append(tuple(-c for c in _divided(chain[-2], chain[-1])[1]))

    def changes(y: Fraction) -> int:
        signs = [v > 0 for p in chain if p and (v := _at(p, y)) != 0]
        return sum(a != b for a, b in pairwise(signs))

    return changes(Fraction(0)) - changes(top)
