"""The odd polynomial nearest to 1 on an interval: one best step towards the polar factor."""

from __future__ import annotations

import math

import numpy as np

from icm.errors import InputError

_EXCHANGES = 60
_FLAT = 1e-11  # an error below which its extrema drown in rounding, and those of the limit serve
_NOISE = (
    1e-14  # an error below which the Taylor polynomial is as good in float64, and its coefficients are known better
)


def best_odd(lower: float, upper: float, degree: int) -> tuple[tuple[float, ...], float]:
    """(c, E): the p(x) = x Σ c_i x^{2i} of this odd degree that minimises E = max |p(x) − 1| over lower ≤ x ≤ upper.

    x, x³, …, x^{2q+1} is a Chebyshev system on an interval right of 0, so p is the one polynomial whose error takes
    its largest size at q + 2 points with signs in turn (de la Vallée Poussin, Chebyshev): the two ends and the q zeros
    of p'. The second algorithm of Remez moves those points until they stay, in float64. As lower → upper the points
    tend to those of a Chebyshev polynomial in x², and E to 0 like (1 − lower/upper)^{q+1}: for E under 1e−11 the points
    are taken from that limit, which costs a share of E of order 1 − lower/upper; where even the Taylor polynomial of
    the middle errs by no more than 1e−14, it is the answer. E is that of the coefficients before rounding, which moves
    p by about 1e−16 Σ |c_i| upper^{2i+1}.

    Raises InputError for ends that are not 0 < lower ≤ upper < ∞, an even degree or one above 25.
    """
    if not 0 < lower <= upper < math.inf:
        raise InputError(f"[lower, upper] = [{lower!r}, {upper!r}]: 1 is approached on 0 < lower ≤ x ≤ upper < ∞")
    require_odd(degree)
    q, ends = degree // 2, ((lower / upper) ** 2, 1.0)
    middle, half = (ends[0] + ends[1]) / 2, (1 - lower / upper) * (1 + lower / upper) / 2
    # r(y) ≈ 1/√y in Chebyshev polynomials of t, y = middle + half t, so that narrow intervals stay well conditioned.
    t = -np.cos(np.pi * np.arange(q + 2) / (q + 1))
    if middle > 1.5 * half:
        start = t
    else:  # for a small lower end, the points of a Chebyshev polynomial in x
        x = (lower / upper) + (1 - lower / upper) * (1 + t) / 2
        start = (x * x - middle) / half
        start[0], start[-1] = -1.0, 1.0
    narrow = _scaled(taylor(q), math.sqrt(middle))
    if half < 0.1 and (E := max(abs(_value(narrow, x) - 1) for x in (lower / upper, 1.0))) <= _NOISE:
        return _scaled(narrow, upper), E
    t, r, E = start, np.zeros(q + 1), math.inf
    for _ in range(_EXCHANGES):
        last, (r, E) = E, _levelled(t, middle, half, lower / upper)
        if abs(E - last) <= 1e-15 * max(abs(E), 1e-3) or abs(E) < _FLAT:
            break
        inner = _turns(r, middle, half)
        if len(inner) != q:
            break
        t = np.concatenate([[-1.0], inner, [1.0]])
    return _scaled(_powers(r, middle, half), upper), abs(E)


def taylor(q: int) -> tuple[float, ...]:
    """The limit lower → upper = 1: the p of degree 2q + 1 with p(1) = 1 whose first q derivatives vanish there, by
    p' ∝ (1 − x²)^q: 1.5x − .5x³ and (15x − 10x³ + 3x⁵)/8 are the steps of Newton–Schulz."""
    coefficients = [(-1) ** i * math.comb(q, i) / (2 * i + 1) for i in range(q + 1)]
    total = math.fsum(coefficients)
    return tuple(c / total for c in coefficients)


def require_odd(degree: int) -> None:
    """Raise InputError unless the degree is odd and from 1 to 25."""
    if degree % 2 == 0 or not 1 <= degree <= 25:
        raise InputError(f"degree={degree!r}: factors are odd polynomials, degree 1, 3, 5, … up to 25")


def _levelled(t: np.ndarray, middle: float, half: float, lower: float) -> tuple[np.ndarray, float]:
    """(r, E): x r(y) = 1 − E, 1 + E, … at these points in turn, r in Chebyshev polynomials of t."""
    x = np.append(lower, np.sqrt(middle + half * t[1:]))  # the first point itself: its square may be lost in `middle`
    q = len(t) - 2
    signs = (-1.0) ** np.arange(q + 2)
    matrix = np.column_stack([x[:, None] * np.polynomial.chebyshev.chebvander(t, q), signs])
    solution = np.linalg.solve(matrix, np.ones(q + 2))
    return solution[:-1], float(solution[-1])


def _turns(r: np.ndarray, middle: float, half: float) -> np.ndarray:
    """The zeros of p' = r + 2y dr/dy inside the interval, in t, ascending."""
    chebyshev = np.polynomial.chebyshev
    slope = chebyshev.chebadd(r, chebyshev.chebmul(chebyshev.chebder(r) * (2 / half), [middle, half]))
    roots = chebyshev.chebroots(slope) if len(r) > 1 else np.zeros(0)
    real = np.sort(roots.real[np.abs(roots.imag) < 1e-7])
    return real[(real > -1) & (real < 1)]


def _powers(r: np.ndarray, middle: float, half: float) -> tuple[float, ...]:
    """The coefficients of r in powers of y."""
    series = np.polynomial.Chebyshev(r, domain=[middle - half, middle + half])
    powers = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef
    return tuple(np.pad(powers, (0, len(r) - len(powers))))


def _value(coefficients: tuple[float, ...], x: float) -> float:
    """x Σ c_i x^{2i}."""
    return x * float(np.polynomial.polynomial.polyval(x * x, np.array(coefficients)))


def _scaled(coefficients: tuple[float, ...], upper: float) -> tuple[float, ...]:
    """The coefficients of p(x/upper)."""
    return tuple(float(c) / upper ** (2 * i + 1) for i, c in enumerate(coefficients))
