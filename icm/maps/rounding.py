"""What rounding does to a composition applied by matrix products: what to expect, to first order."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.maps.composition import Composition, derivative

DIGITS: dict[str, int] = {"bf16": 8, "fp16": 11, "tf32": 11, "fp32": 24, "fp64": 53}
"""Binary digits of a significand, the leading one included."""

_SUMS = 8.0  # roundings of its result that a sum in float32 is off by: √(L/3) for L = 192 terms one after the other

SAFETY = 2.0  # the expectation is within this factor of what was measured (tests/maps/test_rounding.py)


def noise(precision: str) -> float:
    """ρ: the root mean square of what round-to-nearest changes in a matrix, relative to the matrix's own.

    A significand of t digits in [1, 2) is off by at most 2^{−t}, evenly, so by 2^{−t}/√3 in the mean; entries over many
    binades have logarithmically even significands, of mean square 3/(2 log 2): ρ = 2^{−t} √(2 log 2/9) ≈ 0.39 · 2^{−t}.

    Raises InputError for an unknown precision.
    """
    if precision not in DIGITS:
        raise InputError(f"precision={precision!r}: choose one of {', '.join(map(repr, DIGITS))}")
    return 2.0 ** -DIGITS[precision] * math.sqrt(2 * math.log(2) / 9)


def expected_rounding(
    composition: Composition,
    spectrum: Float[Tensor, " k"],
    precision: str,
    aspect: float = 1.0,
    weights: Float[Tensor, " k"] | None = None,
    safety: float = 1.0,
) -> float:
    """‖Q̃ − Q‖_F/‖Q‖_F to expect of Q = U p(x) Vᵀ, X = U diag(x) Vᵀ, by products in a low precision, times `safety`.

    The iteration is A = XXᵀ, B = c_1 A + c_2 A² + …, X ← c_0 X + BX for every factor, the first X and every A, B, X
    stored in `precision` and sums taken in float32. `spectrum`: the singular values x ≥ 0, all of them or quantiles
    that stand for equally many, or for shares proportional to `weights`; `aspect`: long side over short side ≥ 1.

    *Model.* Each rounding adds independent noise, ρ times the matrix in Frobenius norm (`noise`) and spread evenly over
    its entries, symmetric for A and B. The rest P of the composition carries a change E of X on as its Fréchet
    derivative: in the singular basis E_ij splits into a symmetric and an antisymmetric part, which are multiplied by
    (P(x_i) − P(x_j))/(x_i − x_j) and (P(x_i) + P(x_j))/(x_i + x_j), columns beyond the short side by P(x_i)/x_i
    (Noferini, SIAM J. Matrix Anal. Appl. 38, 2017). Noise in A first becomes one in B by the divided differences of
    β(a) = c_1 a + c_2 a² + …, and one in B becomes E_ij = N_ij x_j.

    Two shares matter in float32 alone: the coefficients, which products take in float32 (evaluated exactly), and the
    sums themselves. Rounding every partial sum of L terms that grow evenly costs √(L/3) roundings of the result; chains
    are cut at some hundred terms by every library, and L = 192 is taken for all.

    *Limits.* A direction of X cannot be off by more than a random one of the same length: its share is cut at 2 p(x_i)²
    (or what the largest p gives). Singular values below the noise, and so outside the first order, are covered by that
    alone. Diagonals of nearly equal entries round alike rather than independently, and underflow in fp16 is not in it.

    Raises InputError for an unknown precision, a spectrum that is not a nonempty vector of finite numbers ≥ 0, an
    aspect below 1 or weights of another shape.
    """
    rho = noise(precision)
    x = np.asarray(spectrum.detach().double().cpu())
    if x.ndim != 1 or not len(x) or not (np.isfinite(x).all() and (x >= 0).all()):
        raise InputError(f"spectrum of shape {x.shape}: give a nonempty vector of finite singular values ≥ 0")
    if not 1 <= aspect < math.inf:
        raise InputError(f"aspect={aspect!r}: long side over short side, at least 1")
    share = np.ones(len(x)) if weights is None else np.asarray(weights.detach().double().cpu())
    if share.shape != x.shape or not (share >= 0).all() or not share.sum() > 0:
        raise InputError(f"weights of shape {share.shape}: one number ≥ 0 for each of the {len(x)} singular values")
    sums = _SUMS * noise("fp64" if precision == "fp64" else "fp32")
    taken = composition if precision == "fp64" else _in_float32(composition)
    return safety * _relative(composition, taken, x, share / share.sum(), aspect, rho, sums)


def _relative(
    composition: Composition,
    taken: Composition,
    x: np.ndarray,
    share: np.ndarray,
    aspect: float,
    rho: float,
    sums: float,
) -> float:
    """‖Q̃ − Q‖_F/‖Q‖_F where stored matrices are off by `rho` and products by `sums`, with `taken` for coefficients."""
    factors = composition.factors
    orbit = _orbit(composition, x)
    slopes = [np.ones_like(x)]  # of the rest of the composition at each stage, from the end
    for factor, at in zip(reversed(factors), orbit[-2::-1], strict=True):
        slopes.append(slopes[-1] * _horner(derivative(factor), at * at))
    stages, q = np.stack(orbit), orbit[-1]
    minus, plus, beyond = _gains(stages, q, np.stack(slopes[::-1]))

    # Mean squares over the short side, k of them, stand for squared Frobenius norms; each entry has its even share.
    def mean_square(values: np.ndarray) -> np.ndarray:
        return np.asarray(values**2 @ share)

    grams, products = stages[:-1] ** 2, [np.zeros_like(q)]  # products[t]: BX of the factor that made stage t
    rows = np.zeros_like(q)
    for t, factor in enumerate(factors):
        a, at, tail = grams[t], stages[t], factor[1:]
        if not tail:
            products.append(np.zeros_like(q))
            continue
        slope = _horner(tuple((i + 1) * c for i, c in enumerate(tail)), a)
        entry = (rho**2 + sums**2) * mean_square(a) * _divided(a * _horner(tail, a), a, slope) ** 2
        for j in range(len(tail) - 1):  # Horner's products: B itself, and what it is made of
            power, product = a**j, a * a * _horner(tail[j + 1 :], a)
            made = rho**2 * mean_square(product + tail[j] * a) + sums**2 * mean_square(product)
            entry = entry + made * (0.5 * (power[:, None] + power)) ** 2
        mean, half = 0.5 * (at[:, None] + at), 0.5 * (at[:, None] - at)
        rows += (entry * ((minus[t + 1] * mean) ** 2 + (plus[t + 1] * half) ** 2)) @ share
        products.append(at * a * _horner(tail, a))
    size = (rho**2 * mean_square(stages) + sums**2 * mean_square(np.stack(products))) / aspect
    rows += ((0.5 * size[:, None, None] * (minus**2 + plus**2)) @ share + (aspect - 1) * size[:, None] * beyond**2).sum(
        0
    )
    rows = np.minimum(rows, q**2 + np.max(q**2)) + (q - _orbit(taken, x)[-1]) ** 2
    norm = float(mean_square(q))
    return math.sqrt(float(rows @ share) / norm) if norm else 0.0


def _orbit(composition: Composition, x: np.ndarray) -> list[np.ndarray]:
    """x and what it is after each factor."""
    orbit = [x]
    for factor in composition.factors:
        orbit.append(orbit[-1] * _horner(factor, orbit[-1] ** 2))
    return orbit


def _in_float32(composition: Composition) -> Composition:
    return Composition(tuple(tuple(float(np.float32(c)) for c in factor) for factor in composition.factors))


def _gains(stages: np.ndarray, q: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the rest of the composition makes, at each stage, of symmetric and of antisymmetric noise (stage, i, j), and
    of noise in columns beyond the short side (stage, i)."""
    minus = _divided(q, stages, slopes)
    plus = _divided(q, stages, slopes, -1.0)
    return minus, plus, np.diagonal(plus, axis1=1, axis2=2)


def _divided(values: np.ndarray, x: np.ndarray, slopes: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """(v_i − v_j)/(x_i − x_j), of an odd function with sign −1 (v_i + v_j)/(x_i + x_j); slopes where x_i = ±x_j."""
    v = values[..., :, None] - sign * values[..., None, :]
    d = x[..., :, None] - sign * x[..., None, :]
    close = np.abs(d) <= 1e-6 * (np.abs(x[..., :, None]) + np.abs(x[..., None, :]))
    mean = 0.5 * (slopes[..., :, None] + slopes[..., None, :])
    return np.where(close, mean, v / np.where(close, 1.0, d))


def _horner(coefficients: tuple[float, ...], y: np.ndarray) -> np.ndarray:
    value = np.full_like(y, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * y + c
    return value
