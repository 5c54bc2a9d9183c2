"""Increasing factors: squares, their roots, and slopes that are positive."""

from __future__ import annotations

import numpy as np
import pytest

from icm.maps.squares import MARGIN, increasing, odd, root, slopes, square, steepest, turns, unit


def slope(c: np.ndarray, count: int = 20001) -> np.ndarray:
    y = np.linspace(0, 1, count)
    return np.polynomial.polynomial.polyval(y, c * odd(len(c) - 1))


@pytest.mark.parametrize("q", [1, 2, 3, 4])
def test_every_square_increases_and_has_its_derivative(q: int) -> None:
    """p' ≥ margin for any h; ∂c/∂h agrees with central differences to 1e-7."""
    rng = np.random.default_rng(q)
    for normalise in (True, False):
        for _ in range(20):
            h = rng.normal(size=q + 1)
            c, D = square(h, normalise)
            total = c.sum() if not normalise else 1.0
            raw = square(h, False)[0].sum()
            assert slope(c).min() >= 0.999 * MARGIN * (1 / raw if normalise else 1.0)
            assert c.sum() == pytest.approx(total)
            for k in range(q + 1):
                step = 1e-6 * np.eye(q + 1)[k]
                numeric = (square(h + step, normalise)[0] - square(h - step, normalise)[0]) / 2e-6
                assert D[:, k] == pytest.approx(numeric, rel=1e-6, abs=1e-6 * np.abs(c).max())


@pytest.mark.parametrize("q", [1, 2, 3, 4])
def test_the_root_of_a_factor_gives_it_back(q: int) -> None:
    """square(root(c)) = c to 1e-5 for increasing factors, with slopes that touch 0 and that do not."""
    rng = np.random.default_rng(q)
    for h in (*rng.normal(size=(20, q + 1)), np.eye(q + 1)[0], root(steepest(q))):
        c, _ = square(h, True)
        back, _ = square(root(c), True)
        assert back == pytest.approx(c, abs=2e-5 * np.abs(c).max())


def test_a_factor_that_falls_is_lifted_by_no_more_than_needed() -> None:
    """The least slope becomes positive, below twice the margin; p(1) stays; one that increases is left alone."""
    for c in (np.array([1.5, -0.51]), np.array([3.4445, -4.7750, 2.0315]), np.array([1.0, -2.0, 0.5, 2.0])):
        lifted = increasing(c)
        assert 0 < slope(lifted).min() < 2 * MARGIN
        assert lifted.sum() == pytest.approx(c.sum())
    kept = np.array([1.2, -0.3, 0.1])
    assert increasing(kept) is kept


def test_unit_is_the_same_composition() -> None:
    """Factors scaled to take 1 to 1, the composition as before."""
    factors = [np.array([2.0, -1.5, 0.7]), np.array([1.3, 0.2]), np.array([0.4, 0.3, 0.2, 0.1])]

    def p(x: np.ndarray, cs: list[np.ndarray]) -> np.ndarray:
        for c in cs:
            x = x * np.polynomial.polynomial.polyval(x * x, c)
        return x

    x = np.linspace(0, 1, 50)
    scaled = unit(factors)
    assert p(x, scaled) == pytest.approx(p(x, factors), rel=1e-14)
    assert [float(c.sum()) for c in scaled[:-1]] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("q", "gain"), [(1, 3 / 2), (2, 9 / 4), (3, 45 / 16), (4, 225 / 64)])
def test_the_steepest_factors(q: int, gain: float) -> None:
    """The greatest p'(0) of increasing odd p with p(1) = 1: 2 K(0, 0) for the kernel of Christoffel and Darboux."""
    c = steepest(q)
    assert c[0] == pytest.approx(gain, rel=1e-3)
    assert slope(c).min() > -1e-2


def test_constraints_hold_where_slopes_are_least() -> None:
    """Each row is a slope: A θ reproduces the slopes at the turning points, E θ the values at 1."""
    factors = [np.array([1.5, -1.0, 0.5]), np.array([2.0, -2.2, 1.2])]
    linear = slopes(factors)
    theta = np.concatenate(factors)
    assert (linear.A @ theta).min() == pytest.approx(min(slope(c, 200001).min() for c in factors), abs=1e-6)
    assert linear.E @ theta == pytest.approx([1.0])
    assert all(0 < y < 1 for c in factors for y in turns(c))
