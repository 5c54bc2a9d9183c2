"""Sequential linear programmes: the minimax solutions that theory knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from icm.maps.minimax import Linear, polish


def polynomial(degree: int, x: np.ndarray):
    V = x[:, None] ** np.arange(degree + 1.0)
    return (lambda theta: V @ theta), (lambda theta: (V @ theta, V))


@pytest.mark.parametrize("degree", [3, 6, 9])
def test_the_best_polynomial_for_a_power_is_chebyshevs(degree: int) -> None:
    """x^{d+1} is nearest to x^{d+1} − T_{d+1}(x)/2^d on [−1, 1], at distance 2^{−d}."""
    x = np.sort(np.cos(np.linspace(0, math.pi, 120 * (degree + 1) + 1)))
    values, jacobian = polynomial(degree, x)
    y = x ** (degree + 1)
    theta, error = polish(values, jacobian, (y, y), np.zeros(degree + 1), radius=0.3)
    exact = -chebyshev.cheb2poly([0.0] * (degree + 1) + [1.0])[:-1] / 2**degree
    assert error == pytest.approx(2.0**-degree, rel=1e-4)
    assert np.abs(theta - exact).max() < 2e-2 * np.abs(exact).max()


def test_a_nonlinear_fit_ends_level() -> None:
    """a·tanh(bx) nearest to x on [0, 1]: its error takes its largest size, signs in turn, at three points or more."""
    x = np.linspace(0, 1, 2001)

    def jacobian(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = theta
        t = np.tanh(b * x)
        return a * t, np.stack([t, a * x * (1 - t * t)], axis=1)

    target = np.sqrt(x)
    theta, error = polish(lambda t: t[0] * np.tanh(t[1] * x), jacobian, (target, target), np.array([1.0, 1.0]))
    r = theta[0] * np.tanh(theta[1] * x) - target
    extremes = r[np.abs(r) > 0.99 * error]
    assert len(extremes) >= 3
    assert np.count_nonzero(np.diff(np.sign(extremes))) >= 2
    near = [
        abs(a * np.tanh(b * x) - target).max()
        for a in theta[0] * np.linspace(0.9, 1.1, 41)
        for b in theta[1] * np.linspace(0.9, 1.1, 41)
    ]
    assert error <= min(near) * (1 + 1e-6)


def test_a_band_and_constraints_are_kept() -> None:
    """A line within 1/10 of x² on [0, 1/2] and anywhere in [−1, 2] beyond; then with its slope ≥ 1 and its value 1."""
    x = np.linspace(0, 1, 501)
    values, jacobian = polynomial(1, x)
    low, high = np.where(x <= 0.5, x**2, -1.0), np.where(x <= 0.5, x**2, 2.0)
    _, error = polish(values, jacobian, (low, high), np.array([0.0, 1.0]))
    assert error == pytest.approx(1 / 32, rel=1e-3)  # half the sagitta of x² over [0, 1/2]
    constraints = Linear(np.array([[0.0, 1.0]]), np.array([1.0]), np.array([[1.0, 1.0]]), np.array([1.0]))
    theta, error = polish(values, jacobian, (low, high), np.array([-1.0, 2.0]), lambda _: constraints)
    assert theta == pytest.approx([-1 / 6, 7 / 6], rel=1e-3)  # a(x − 1) + 1 as far from 0 at 0 as from 1/4 at 1/2
    assert error == pytest.approx(1 / 6, rel=1e-3)
    steep = Linear(np.array([[0.0, 1.0]]), np.array([1.5]), np.array([[1.0, 1.0]]), np.array([1.0]))
    theta, error = polish(values, jacobian, (low, high), np.array([-1.0, 2.0]), lambda _: steep)
    assert theta == pytest.approx([-0.5, 1.5], rel=1e-3)
    assert error == pytest.approx(0.5, rel=1e-3)


def test_the_error_never_rises() -> None:
    """From an optimum nothing moves; from elsewhere, every allowance of rounds ends no worse than a smaller one."""
    x = np.linspace(0, 1, 301)
    values, jacobian = polynomial(4, x)
    y = np.exp(x)
    errors = [polish(values, jacobian, (y, y), np.ones(5), rounds=k)[1] for k in range(8)]
    assert errors == sorted(errors, reverse=True)
    theta, error = polish(values, jacobian, (y, y), np.ones(5))
    again, same = polish(values, jacobian, (y, y), theta)
    assert same <= error
    assert again == pytest.approx(theta, rel=1e-2)
