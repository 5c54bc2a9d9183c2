"""Enclosed expectations: they overlap independent values, derivatives included, and stay narrow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from flint import arb, ctx

from benchmarks import reference
from benchmarks.hinge_reference import hinge_balls
from icm.solvers.enclosure import contour
from icm.solvers.enclosure.curvature import Hinge, Terms
from icm.solvers.enclosure.quadrature import BITS, Unresolved
from icm.solvers.enclosure.sphere import Moments, expectation, gradient, hessian, hinge_of_form, mean_length

SPECTRA = {
    "two": ([1.3, 0.4], 2),
    "padded": ([2.0, 1.0, 1e-3], 5),
    "full": ([2.0, 1.0, 0.5], 3),
    "decades": (np.geomspace(1, 1e-6, 8).tolist(), 8),
    "close": ((1 + 1e-3 * np.arange(6)).tolist(), 6),
    "many": (np.linspace(0.1, 3, 24).tolist(), 30),
}


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


def terms(powers=(), exponentials=(), hinges=()) -> Terms:
    def pairs(given):
        return [(arb(a), arb(b)) for a, b in given]

    return Terms(pairs(powers), pairs(exponentials), [Hinge(*map(arb, h)) for h in hinges], math.inf, arb(0))


def balls(values) -> list[arb]:
    return [arb(float(x)) for x in values]


def assert_enclosed(found: arb, exact: arb, width: float = 1e-20) -> None:
    """found and exact agree to 1e-30, beyond which some references are not proved, and found is narrow."""
    assert (found - exact).abs_lower() <= 1e-30 * abs(exact), f"{found.str(30)} does not meet {exact.str(30)}"
    assert float(found.rad()) <= width * abs(float(found.mid()))


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("p", [1.0, 2.0, 2.39, 10.5])
def test_powers_against_fifty_digits(name: str, p: float) -> None:
    sigma, dim = SPECTRA[name]
    at = expectation(terms([(p, 1)]), balls(sigma), dim, 1)
    exact = reference.power_table(sigma, dim, [p])[0]
    for found, value in zip([at.value, *gradient(balls(sigma), at)], exact, strict=True):
        assert_enclosed(found, value)


@pytest.mark.parametrize("name", ["two", "padded", "decades"])
@pytest.mark.parametrize("rate", [0.01, 12.0])
def test_exponentials_against_fifty_digits(name: str, rate: float) -> None:
    sigma, dim = SPECTRA[name]
    at = expectation(terms((), [(rate, 1)]), balls(sigma), dim, 1)
    exact = reference.exponential_row(sigma, dim, rate)
    for found, value in zip([at.value, *gradient(balls(sigma), at)], exact, strict=True):
        assert_enclosed(found, value)


@pytest.mark.parametrize(
    ("name", "c"), [("two", 0.41), ("two", 1.29), ("padded", 0.3), ("full", 1.7), ("decades", 0.01), ("close", 1.0035)]
)
def test_hinges_against_another_contour(name: str, c: float) -> None:
    """E(r − c)₊ and its slopes, and E ½(r − c)₊² = ½ E(s − c²)₊ − c E(r − c)₊."""
    sigma, dim = SPECTRA[name]
    exact = hinge_balls(sigma, dim, c)
    at = expectation(terms(hinges=[(c, 1, 0)]), balls(sigma), dim, 1)
    for found, value in zip([at.value, *at.weights], [exact.value, *exact.weights], strict=True):
        assert_enclosed(found - value + value.mid(), value.mid(), 1e-17)
    curved = expectation(terms(hinges=[(c, 0, 1)]), balls(sigma), dim)
    assert abs(curved.value - exact.hinge / 2 + c * exact.value) < 1e-20


def test_two_dimensions_by_angle() -> None:
    """n = 2, σ = (1, 0): r = |cos θ|, so E(r − c)₊ = (2/π)(√(1 − c²) − c arccos c)."""
    c = arb(3) / 8
    exact = 2 / arb.pi() * ((1 - c * c).sqrt() - c * c.acos())
    for sigma in ([arb(1)], [arb(1), arb(0)]):
        assert_enclosed(expectation(terms(hinges=[(0.375, 1, 0)]), sigma, 2).value, exact)


def test_outside_the_range_a_hinge_is_a_line_or_nothing() -> None:
    sigma = balls([2.0, 1.0, 0.5])
    line = expectation(terms([(1, 1)]), sigma, 3, 1)
    for c in (0.25, 0.5):
        assert_enclosed(expectation(terms(hinges=[(c, 1, 0)]), sigma, 3).value, line.value - c)
    for c in (2.0, 3.0):
        assert expectation(terms(hinges=[(c, 1, 0)]), sigma, 3).value.is_zero()


def test_one_dimension() -> None:
    """n = 1: f = H."""
    H = terms([(2.39, 2)], [(1.5, 3)], [(0.5, 4, 0.5)])
    at = expectation(H, [arb(0.75)], 1, 1)
    assert_enclosed(at.value, H.value(arb(0.75)))
    assert_enclosed(gradient([arb(0.75)], at)[0], H.slope(arb(0.75), right=True))


H = terms([(2.39, 0.5)], [(1.0, 0.3)], [(0.9, 2, 0.4)])


def moved(sigma: list[arb], i: int, step: arb, dim: int) -> Moments:
    """f where λ_i is λ_i + step."""
    return expectation(H, [(x * x + step).sqrt() if j == i else x for j, x in enumerate(sigma)], dim, 1)


@pytest.mark.parametrize("name", ["two", "padded", "full"])
def test_derivatives_are_those_of_the_value(name: str) -> None:
    """Central differences in every λ_i, to their own error of about step²."""
    values, dim = SPECTRA[name]
    sigma, step = balls(values), arb(2) ** -36
    at = expectation(H, sigma, dim, 2)
    for i in range(len(sigma) if name != "padded" else 2):
        ahead, behind = moved(sigma, i, step, dim), moved(sigma, i, -step, dim)
        assert abs((ahead.value - behind.value) / (2 * step) / at.weights[i] - 1) < 1e-12
        for j in range(len(sigma)):
            slope = (ahead.weights[j] - behind.weights[j]) / (2 * step)
            assert abs(slope - at.second[i][j]) < 1e-10 * (1 + abs(at.second[i][j]))


def test_second_derivatives_from_the_first() -> None:
    """f_ij = (w_i − w_j)/(2(λ_i − λ_j)) for i ≠ j, any H; Σ_j λ_j f_ij = (q − 1) w_i for H = r^{2q}."""
    sigma = balls([1.4, 1.0, 0.3, 0.2])
    at = expectation(H, sigma, 6, 2)
    lam = [x * x for x in sigma]
    for i in range(4):
        for j in range(i):
            assert_enclosed(at.second[i][j], (at.weights[i] - at.weights[j]) / (2 * (lam[i] - lam[j])))
    power = expectation(terms([(3, 1)]), sigma, 6, 2)
    for i in range(4):
        assert_enclosed(sum((x * y for x, y in zip(lam, power.second[i], strict=True)), arb(0)), power.weights[i] / 2)
        # In σ the gradient is homogeneous of degree p − 1 = 2.
        along = sum((x * y for x, y in zip(sigma, hessian(sigma, power)[i], strict=True)), arb(0))
        assert_enclosed(along, 2 * gradient(sigma, power)[i])


def test_wide_balls_hold_what_they_should() -> None:
    """The enclosure over balls σ holds the values at points of them, all derivatives too."""
    centres, radius = [1.4, 1.0, 0.3], 1e-6
    wide = expectation(H, [arb(x, radius) for x in centres], 4, 2)
    for signs in ((1, 1, 1), (-1, 1, 0), (0.5, -1, -1)):
        at = expectation(H, balls(x + 0.99 * radius * s for x, s in zip(centres, signs, strict=True)), 4, 2)
        assert wide.value.contains(at.value)
        for i in range(3):
            assert wide.weights[i].contains(at.weights[i])
            assert all(wide.second[i][j].contains(at.second[i][j]) for j in range(3))


def test_the_form_of_both_signs() -> None:
    """h(v) = E(Σ v_i ζ_i²)₊: h(v) − h(−v) = mean(v); for n = 2 and v = (a, −b) in closed form; Euler's relation."""
    v = balls([1.5, -0.25, -0.75, 0.5])
    at, opposite = hinge_of_form(v, 2), hinge_of_form([-x for x in v])
    assert_enclosed(at.value - opposite.value, sum(v, arb(0)) / 4)
    assert_enclosed(sum((x * w for x, w in zip(v, at.weights, strict=True)), arb(0)), at.value)
    assert all(abs(sum((x * y for x, y in zip(v, row, strict=True)), arb(0))) < 1e-20 for row in at.second)
    a, b = arb(2), arb(0.5)
    edge = (a / b).sqrt().atan()  # a cos²θ > b sin²θ for θ below it
    exact = 2 / arb.pi() * ((a - b) / 2 * edge + (a + b) / 4 * (2 * edge).sin())
    assert_enclosed(hinge_of_form([a, -b]).value, exact)


def test_scales() -> None:
    """E‖Qζ‖^p at σ·2^e is that at σ times 2^{ep}, far beyond float64 squared."""
    small = expectation(terms([(3, 1)]), balls([1.5, 1.0]), 3).value
    for e in (-1000, 1000):
        shifted = [arb(x) * arb(2) ** e for x in (1.5, 1.0)]
        assert_enclosed(expectation(terms([(3, 1)]), shifted, 3).value, small * arb(2) ** (3 * e))


def test_what_cannot_be_decided_is_said() -> None:
    with pytest.raises(Unresolved, match="may or may not"):
        expectation(terms(hinges=[(1.0, 1, 0)]), [arb(1, 1e-9), arb(0.5)], 2)
    with pytest.raises(Unresolved, match="no derivative"):
        expectation(terms([(3, 1)]), [arb(0)], 2, 1)
    # E ζ₂²/|ζ₁| is infinite for n = 2.
    with pytest.raises(Unresolved, match="does not converge"):
        expectation(terms([(1, 1)]), [arb(1), arb(0, 1e-9)], 2, 1)
    assert expectation(terms([(1, 1)]), [arb(1), arb(0)], 2, 1).weights[1].is_zero()


def test_mean_length() -> None:
    assert_enclosed(mean_length(2), 2 / arb.pi())
    assert_enclosed(mean_length(3), arb(1) / 2)


def test_a_forgotten_tail_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the rest of the line left out of the bound, the ball would miss the truth."""

    def nothing(line: contour.Line, x: float) -> tuple[list[arb], list[arb]]:
        return [arb(0)], [arb(1)]

    monkeypatch.setattr(contour.Line, "tail", nothing)
    sigma, dim = SPECTRA["two"]
    found = expectation(terms([(2.39, 1)]), balls(sigma), dim).value
    assert found.is_finite()
    assert not found.overlaps(reference.mean_power(sigma, dim, 2.39))
