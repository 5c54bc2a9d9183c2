"""The best compositions for φ = 1 on [lower, 1]: the polar factor U Vᵀ by matrix products alone."""

from __future__ import annotations

import math

from icm.errors import InputError
from icm.maps import increasing
from icm.maps.composition import Composition
from icm.maps.remez import best_odd

_LIMIT = 200  # steps


def best_polar(
    lower: float, degrees: tuple[int, ...], monotone: bool, margin: float = 0.01, cushion: float = 0.0
) -> Composition:
    """The composition of odd factors of these degrees, in this order, nearest to 1 on [lower, 1], range [1 − E, 1 + E].

    `monotone`: the best of all that increase on [0, 1] (`icm.maps.increasing`).

    Otherwise the best of all. Each factor is the nearest to 1 on the range that the factors before it leave,
    [1 − E, 1 + E]: greedy is optimal, since the error of a best factor depends on the ratio of the ends of that range
    alone, and decreases in it (Amsel, Persson, Musco & Gower, The Polar Express, arXiv 2505.16932).
    It oscillates between 0 and 2 on the way, and leaves [lower, 1] steeply: p(x) explodes for x > 1. Hence two numbers
    that rounding asks for:

    `margin`: every factor but the last of several is made for a range whose upper end is larger by this share, so that
    the composition stays bounded on [0, 1 + margin] and forgives as much at each step; 0 is the true optimum. Of an
    increasing composition, whose factors are tame beyond 1, only the first is so widened.
    `cushion`: no factor is made for a range wider than 1 : cushion, and is then centred on the true one: values in the
    middle are not pressed down to the smallest ones, where rounding could turn their sign (ibid., with cushion
    0.024).

    Raises InputError for `lower` outside (0, 1), no or even degrees, or a margin or cushion outside [0, 1).
    """
    if not 0 < lower < 1:
        raise InputError(f"lower={lower!r}: the lower end of the singular values lies in 0 < lower < 1")
    for name, share in (("margin", margin), ("cushion", cushion)):
        if not 0 <= share < 1:
            raise InputError(f"{name}={share!r}: a share in 0 ≤ {name} < 1")
    if monotone:
        return increasing.best_composition(lower, degrees, 1 + margin)
    if not degrees:
        raise InputError("degrees=(): give the degree of at least one factor")
    factors, low, high = [], lower, 1.0
    for t, degree in enumerate(degrees, 1):
        widened = 1 + margin if t < len(degrees) or t == 1 else 1.0
        factor, low, high = _step(low, high * widened, degree, cushion)
        factors.append(factor)
    return Composition(tuple(factors))


def best_error(lower: float, degrees: tuple[int, ...], monotone: bool) -> float:
    """The error of `best_polar` with margin and cushion 0: no composition of these degrees comes nearer to 1 on
    [lower, 1], or none that increases."""
    low, high = lower, 1.0
    for degree in degrees:
        if monotone:
            low = increasing.reach(low, degree)
        else:
            _, low, high = _step(low, high, degree, 0.0)
    return (high - low) / (high + low)


def steps_needed(lower: float, error: float, degree: int, monotone: bool) -> int:
    """The fewest factors of this degree whose best composition is within `error` of 1 on [lower, 1].

    Raises InputError for ends or errors outside (0, 1), a degree below 3 or even, or more than 200 factors.
    """
    if not 0 < lower < 1 or not 0 < error < 1:
        raise InputError(f"lower={lower!r}, error={error!r}: both lie strictly between 0 and 1")
    if degree < 3:
        raise InputError(f"degree={degree!r}: a factor that gains has degree 3 or more")
    low, high = lower, 1.0
    for steps in range(_LIMIT + 1):
        if (high - low) / (high + low) <= error:
            return steps
        if monotone:
            low = increasing.reach(low, degree)
        else:
            _, low, high = _step(low, high, degree, 0.0)
    raise InputError(f"lower={lower!r}, error={error!r}: not reached by {_LIMIT} factors of degree {degree}")


def _step(low: float, high: float, degree: int, cushion: float) -> tuple[tuple[float, ...], float, float]:
    """The best factor for [low, high] with the range it leaves, [1 − E, 1 + E]."""
    factor, error = best_odd(max(low, cushion * high), high, degree)
    reached = _value(factor, low)  # by itself: in 1 − E a tiny one would lose its digits
    if low >= cushion * high:
        return factor, min(reached, 1.0), max(1 + error, 2 - reached)
    # On [low, cushion·high] p increases from p(low), so the whole range is [p(low), 1 + E]; centred on 1.
    centre = 2 / (reached + 1 + error)
    return tuple(centre * c for c in factor), centre * reached, centre * (1 + error)


def _value(factor: tuple[float, ...], x: float) -> float:
    """p(x)."""
    return x * math.fsum(c * x ** (2 * i) for i, c in enumerate(factor))
