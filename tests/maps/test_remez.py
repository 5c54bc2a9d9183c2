"""The odd polynomial nearest to 1: its error oscillates, linear programs find it too, and nothing breaks down."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from icm.errors import InputError
from icm.maps.remez import best_odd, taylor

LOWERS = (1e-8, 1e-6, 1e-3, 0.03, 0.3, 0.9, 0.99)


def grid(lower: float, upper: float, count: int = 20001) -> np.ndarray:
    return np.unique(np.concatenate([np.geomspace(lower, upper, count), np.linspace(lower, upper, count)]))


def value(coefficients, x: np.ndarray) -> np.ndarray:
    return x * np.polynomial.polynomial.polyval(x * x, np.array(coefficients))


@pytest.mark.parametrize(("degree", "lower"), list(itertools.product((1, 3, 5, 7, 9), LOWERS)))
def test_the_error_is_equal_with_signs_in_turn_at_q_plus_two_points(degree: int, lower: float) -> None:
    c, E = best_odd(lower, 1.0, degree)
    x = grid(lower, 1.0)
    error = value(c, x) - 1
    rounding = 1e-15 * sum(map(abs, c))
    assert np.abs(error).max() == pytest.approx(E, rel=1e-7, abs=rounding)
    if 100 * rounding < E:
        # Near a small lower end 1 − E is what counts, and all of it is in p(lower) itself.
        peaks = np.sign(error[np.abs(error) > (1 - 1e-5 if E < 0.99 else 1 - 1e-3) * E])
        turns = 1 + int((peaks[1:] != peaks[:-1]).sum())
        assert turns >= degree // 2 + 1
        if E < 0.99:
            assert turns == degree // 2 + 2
            assert (np.sign(error[0]), np.sign(error[-1])) == (-1, -((-1) ** (degree // 2 + 1)))


@pytest.mark.parametrize(("degree", "lower"), [(3, 0.01), (5, 0.001), (5, 0.2), (7, 0.05), (9, 0.02), (9, 0.3)])
def test_a_linear_program_finds_the_same(degree: int, lower: float) -> None:
    """min E with |p(x) − 1| ≤ E at 3000 points: at most the E on the interval, and nearly that."""
    from scipy.optimize import linprog

    x = grid(lower, 1.0, 1500)
    basis = np.stack([x ** (2 * i + 1) for i in range(degree // 2 + 1)], 1)
    ones = np.ones((len(x), 1))
    found = linprog(
        np.append(np.zeros(basis.shape[1]), 1.0),
        A_ub=np.block([[basis, -ones], [-basis, -ones]]),
        b_ub=np.concatenate([np.ones(len(x)), -np.ones(len(x))]),
        bounds=[(None, None)] * (basis.shape[1] + 1),
    )
    c, E = best_odd(lower, 1.0, degree)
    assert found.success
    assert found.fun <= E * (1 + 1e-7)
    assert found.fun == pytest.approx(E, rel=2e-4)
    np.testing.assert_allclose(c, found.x[:-1], rtol=2e-2)


def test_the_first_published_factor_of_polar_express() -> None:
    """arXiv 2505.16932: made for [0.02407…, 1] and centred on [1e−3, 1]."""
    published = (8.28721201814563, -23.595886519098837, 17.300387312530933)
    c, E = best_odd(0.02407327424182761, 1.0, 5)
    centre = 2 / (float(value(c, np.array(1e-3))) + 1 + E)
    np.testing.assert_allclose(np.array(c) * centre, published, rtol=1e-13)


@pytest.mark.parametrize("degree", [1, 3, 5, 7, 9, 13])
@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 1e-15, 0.0])
def test_narrow_intervals_tend_to_newton_schulz(degree: int, gap: float) -> None:
    c, E = best_odd(1 - gap, 1.0, degree)
    assert 0 <= E <= max(2 * gap ** (degree // 2 + 1), 2e-14)
    assert np.abs(value(c, np.linspace(1 - gap, 1, 101)) - 1).max() == pytest.approx(E, rel=1e-6, abs=2e-14)
    # Beyond the interval it is tame too: near the limit, whose slope at 0 is that of Newton–Schulz.
    assert c[0] == pytest.approx(taylor(degree // 2)[0], rel=20 * degree * gap + 1e-9)


def test_known_limits() -> None:
    assert taylor(1) == pytest.approx((1.5, -0.5))
    assert taylor(2) == pytest.approx((15 / 8, -10 / 8, 3 / 8))
    c, E = best_odd(0.5, 1.0, 1)
    assert (c[0], E) == (pytest.approx(4 / 3), pytest.approx(1 / 3))
    # As lower → 0, p(lower)/lower tends to the slope of the best polynomial, and 1 − E to that times lower.
    slopes = [best_odd(10.0**-k, 1.0, 5)[0][0] for k in (5, 6, 7, 8)]
    assert slopes == sorted(slopes)
    assert slopes[-1] == pytest.approx(slopes[-2], rel=1e-5)


@pytest.mark.parametrize("upper", [1e-6, 0.3, 2.0, 1e5])
def test_only_the_ratio_of_the_ends_matters(upper: float) -> None:
    c, E = best_odd(0.1, 1.0, 7)
    scaled, same = best_odd(0.1 * upper, upper, 7)
    assert same == pytest.approx(E, rel=1e-12)
    np.testing.assert_allclose([s * upper ** (2 * i + 1) for i, s in enumerate(scaled)], c, rtol=1e-10)


@pytest.mark.parametrize(
    ("lower", "upper", "degree", "named"),
    [(0.0, 1.0, 5, "lower"), (2.0, 1.0, 5, "2.0"), (0.1, math.inf, 5, "inf"), (math.nan, 1.0, 5, "nan"),
     (0.1, 1.0, 4, "degree=4"), (0.1, 1.0, -1, "degree=-1"), (0.1, 1.0, 27, "degree=27")],
)  # fmt: skip
def test_what_cannot_be_used_is_named(lower: float, upper: float, degree: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        best_odd(lower, upper, degree)
