"""Certificates against ball arithmetic that is not ours, against what is known in closed form, and against lies."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from icm.errors import InputError
from icm.maps.certificate import Certificate, certify, enclose, is_increasing
from icm.maps.composition import Composition, derivative
from icm.maps.greedy import best_error, best_polar
from icm.maps.increasing import nonnegative
from icm.maps.iterations import known
from icm.maps.scalar import ScalarMap, sign

KINK = ScalarMap(lambda x: (x / 0.05).clamp(max=1.0), name="min(1, x/.05)")
SOFT = ScalarMap(lambda x: x / (x.square() + 0.0025).sqrt(), name="x/√(x² + .05²)")
MONOTONE = best_polar(1e-3, (5,) * 9, monotone=True)
CASES = {
    "newton-schulz": (known("newton-schulz"), sign(), 1e-2),
    "polar-express": (known("polar-express"), sign(), 1e-3),
    "you": (known("you"), sign(), 1e-2),
    "cubic": (known("cubic"), sign(), 0.0),
    "increasing": (MONOTONE, sign(), 1e-3),
    "degree 9": (best_polar(1e-2, (9, 7, 9), monotone=True), sign(), 1e-2),
    "kink": (best_polar(0.05, (5,) * 4, monotone=True), KINK, 0.0),
    "soft": (best_polar(0.05, (7, 3, 5), monotone=False), SOFT, 0.01),
}
CHEBYSHEV = Composition(((5.0, -20.0, 16.0),))  # T_5


def violations(certificate: Certificate, phi: ScalarMap, points: int = 4001) -> list[str]:
    """Which statements of a certificate fail at points, p evaluated by mpmath to 40 digits where it is close."""
    import mpmath

    p, slack = certificate.composition, 1e-12
    x = torch.cat([torch.logspace(-9, 0, points, dtype=torch.float64), torch.linspace(0, 1, points).double()])
    x = torch.cat([x, x.new_tensor([certificate.lower])]).unique()

    def precise(at: float) -> tuple[float, float]:
        with mpmath.workdps(60):
            value, slope = mpmath.mpf(at), mpmath.mpf(1)
            for factor in p.factors:
                y = value**2
                slope *= sum(mpmath.mpf(c) * y**i for i, c in enumerate(derivative(factor)))
                value *= sum(mpmath.mpf(c) * y**i for i, c in enumerate(factor))
            return float(value), float(slope)

    far, value, slope = (p(x) - phi(x)).abs(), p(x), p.slope(x)
    found = []

    def check(what: str, measured: float, bounds: tuple[float, float], reached: float) -> None:
        """A measured supremum is at most the upper bound, and, points being dense, not far below the lower one."""
        if not bounds[0] <= bounds[1]:
            found.append(f"{what}: {bounds} is no interval")
        if measured > bounds[1] * (1 + slack) + slack:
            found.append(f"{what}: {measured} found, {bounds[1]} claimed at most")
        if measured < bounds[0] - reached:
            found.append(f"{what}: {measured} found, {bounds[0]} claimed at least")

    inside = x >= certificate.lower
    at = float(x[inside][far[inside].argmax()])
    error = abs(precise(at)[0] - float(phi(torch.tensor([at]))[0]))
    check("error", error, certificate.error, 1e-3 * error)
    check("everywhere", float(far[x > 0].max()), certificate.error_everywhere, 1e-3)
    least = precise(float(x[slope.argmin()]))[1]
    check("slope", -least, (-certificate.smallest_slope[1], -certificate.smallest_slope[0]), 0.01 * abs(least) + 1e-6)
    fall = float((value.cummax(0).values - value).max())
    check("fall", fall, certificate.largest_fall, 0.01 * fall + 1e-12)
    descent = float((-value.diff()).clamp(min=0).sum())
    check("descent", descent, certificate.total_descent, 0.01 * descent + 1e-12)
    if certificate.increasing and (least < -1e-12 or descent > 1e-12):
        found.append(f"increasing: slope {least}")
    if not certificate.range[0] - slack <= float(value.min()) <= float(value.max()) <= certificate.range[1] + slack:
        found.append(f"range: {float(value.min())} to {float(value.max())}, {certificate.range} claimed")
    beyond = p(torch.linspace(0, 1.01, points, dtype=torch.float64))
    low, high = certificate.range_beyond
    if not low - slack <= float(beyond.min()) <= float(beyond.max()) <= high + slack:
        found.append(f"beyond: {float(beyond.max())}, {certificate.range_beyond} claimed")
    if not certificate.slope_at_zero[0] <= precise(0.0)[1] * (1 + slack) <= certificate.slope_at_zero[1] * (1 + 2e-12):
        found.append("slope at zero")
    ratio = (value / x)[(x > 0) & (x <= max(certificate.lower, 1e-9))]
    if float(ratio.min()) < certificate.ratio_near_zero[0] * (1 - slack) or float(ratio.max()) > (
        certificate.ratio_near_zero[1] * (1 + slack)
    ):
        found.append(f"ratio: {float(ratio.min())} to {float(ratio.max())}, {certificate.ratio_near_zero} claimed")
    short = (x > 0) & (x < certificate.short_below)
    if bool((phi(x) - value < certificate.error[1] * (1 - slack))[short].any()):
        found.append("short below")
    return found


@pytest.mark.parametrize("name", CASES)
def test_nothing_claimed_fails_at_points(name: str) -> None:
    p, phi, lower = CASES[name]
    assert violations(certify(p, phi, lower), phi) == []


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_tight(name: str) -> None:
    certificate = certify(*CASES[name])
    for bounds in (certificate.error, certificate.error_everywhere):
        assert bounds[1] <= bounds[0] * (1 + 1e-3)
    if not certificate.increasing:
        for bounds in (certificate.largest_fall, certificate.total_descent):
            assert bounds[1] <= bounds[0] * (1 + 1e-3)
        least = certificate.smallest_slope
        assert least[1] - least[0] <= 1e-3 * abs(least[0])


@pytest.mark.parametrize("name", CASES)
def test_enclosures_hold_what_arb_finds(name: str) -> None:
    """p and p' over wide and narrow balls hold arb's enclosures at 200 bits of points inside."""
    flint = pytest.importorskip("flint")
    from icm.ball import Ball

    p, _, _ = CASES[name]
    generator = np.random.default_rng(3)
    middle = torch.from_numpy(generator.uniform(0, 1, 300) ** 3)
    radius = torch.from_numpy(10.0 ** generator.uniform(-14, -2, 300)).minimum(middle)
    value, slope = enclose(p, Ball(middle, radius))
    share = generator.integers(-8, 9, 300)
    before, flint.ctx.prec = flint.ctx.prec, 200
    try:
        for i in range(300):
            x, rate = flint.arb(float(middle[i])) + flint.arb(float(radius[i])) * int(share[i]) / 8, flint.arb(1)
            for factor in p.factors:
                y = x * x
                rate *= sum((flint.arb(c) * y**j for j, c in enumerate(derivative(factor))), flint.arb(0))
                x *= sum((flint.arb(c) * y**j for j, c in enumerate(factor)), flint.arb(0))
            for ball, exact in ((value, x), (slope, rate)):
                if torch.isfinite(ball.radius[i]):
                    assert abs(exact - flint.arb(float(ball.middle[i]))) <= flint.arb(float(ball.radius[i]))
    finally:
        flint.ctx.prec = before


def test_chebyshev_polynomials_have_known_falls() -> None:
    """T_5 falls once, by 2, T_25 = T_5 ∘ T_5 six times by 2; T_5' is least, −6.25, where x² = 3/8."""
    once = certify(CHEBYSHEV, sign(), 0.5)
    assert once.largest_fall == pytest.approx((2, 2), rel=1e-4)
    assert once.total_descent == pytest.approx((2, 2), rel=1e-3)
    assert once.smallest_slope == pytest.approx((-6.25, -6.25), rel=1e-3)
    assert once.slope_at_zero == pytest.approx((5, 5))
    assert once.error == pytest.approx((2, 2), rel=1e-3)
    assert once.range == pytest.approx((-1, 1), rel=1e-3)
    twice = certify(CHEBYSHEV.then(CHEBYSHEV), sign(), 0.5)
    assert twice.largest_fall == pytest.approx((2, 2), rel=1e-3)
    assert twice.total_descent == pytest.approx((12, 12), rel=1e-3)
    assert twice.total_descent[0] <= 12 <= twice.total_descent[1]
    assert twice.largest_fall[0] <= 2 <= twice.largest_fall[1]
    assert not once.increasing
    assert not twice.increasing


def test_one_cubic_in_closed_form() -> None:
    p = Composition(((1.5, -0.5),))
    certificate = certify(p, sign(), 0.25)
    worst = 1 - float(Fraction(3, 2) * Fraction(1, 4) - Fraction(1, 2) * Fraction(1, 64))
    assert certificate.error[0] <= worst <= certificate.error[1]
    assert certificate.increasing
    assert certificate.smallest_slope == pytest.approx((0, 0), abs=1e-2)
    assert certificate.largest_fall == certificate.total_descent == (0.0, 0.0)
    assert certificate.short_below == pytest.approx(0.25, rel=1e-3)
    assert certificate.range_beyond[1] == pytest.approx(1, abs=1e-3)


def test_the_known_iterations_are_not_monotone_and_say_so() -> None:
    """Newton–Schulz falls by more than half of what it should keep at once: a fact that no rounding can change."""
    text = str(certify(*CASES["newton-schulz"]))
    assert "not increasing on [0, 1]: falls by up to 0.52" in text
    assert "slope is 484.876" in text
    assert not is_increasing(known("newton-schulz"))
    assert not is_increasing(known("polar-express"))
    assert is_increasing(known("cubic"))
    assert is_increasing(known("quintic"))
    assert is_increasing(MONOTONE)
    assert "increasing on [0, 1]: keeps the order" in str(certify(MONOTONE, sign(), 1e-3))


def test_a_double_zero_that_rounding_lowers_is_reported_with_its_depth() -> None:
    """q = (y − z)² with rounded coefficients, 1e−17 below 0 for some z: not proved, and the dip is bounded."""
    for z in np.linspace(0.3, 0.7, 50):
        q = (float(z * z), float(-2 * z), 1.0)
        exact = tuple((2 * i + 1) * Fraction(c) for i, c in enumerate((q[0], q[1] / 3, q[2] / 5)))
        p = Composition(((q[0], q[1] / 3, q[2] / 5),))
        assert is_increasing(p) is nonnegative(exact, Fraction(1))
        if not is_increasing(p):
            certificate = certify(p, sign(), 0.1)
            assert -1e-11 < certificate.smallest_slope[0] <= 0
            assert 0 <= certificate.total_descent[0] <= certificate.total_descent[1] < 1e-9
            assert "up to a slope" in str(certificate)
            return
    raise AssertionError("none of fifty dipped")


def test_lies_are_caught() -> None:
    """The checker of this module, fed certificates that are slightly false, names what is false in each."""
    for name in ("newton-schulz", "increasing", "kink"):
        p, phi, lower = CASES[name]
        true = certify(p, phi, lower)
        lies = {
            "error": {"error": tuple(0.99 * e for e in true.error)},
            "everywhere": {"error_everywhere": tuple(0.98 * e for e in true.error_everywhere)},
            "range": {"range": (true.range[0], 0.99 * true.range[1])},
            "beyond": {"range_beyond": (true.range_beyond[0], 0.99 * true.range_beyond[1])},
            "slope at zero": {"slope_at_zero": tuple(1.001 * s for s in true.slope_at_zero)},
            "ratio": {"ratio_near_zero": (0.5 * true.ratio_near_zero[0], 0.9 * true.ratio_near_zero[1])},
        }
        if name == "newton-schulz":
            lies |= {
                "increasing": {"increasing": True},
                "fall": {"largest_fall": (0.0, 0.9 * true.largest_fall[0])},
                "descent": {"total_descent": (0.0, 0.9 * true.total_descent[0])},
                "slope": {"smallest_slope": (0.9 * true.smallest_slope[0],) * 2},
                "short below": {"short_below": 2 * true.short_below},
            }
        for what, lie in lies.items():
            assert any(v.startswith(what) for v in violations(dataclasses.replace(true, **lie), phi)), (name, what)


def test_an_arithmetic_without_the_remainder_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were p over a piece taken at its middle alone, some figure would be wrong, and the checker would see it."""
    from icm.ball import Ball
    from icm.maps import certificate as module

    honest = module.enclose

    def careless(p: Composition, x: Ball) -> tuple[Ball, Ball]:
        return honest(p, Ball.of(x.middle))

    monkeypatch.setattr(module, "enclose", careless)
    p, phi, lower = CASES["newton-schulz"]
    assert violations(certify(p, phi, lower), phi) != []


def test_a_changed_coefficient_changes_the_error_as_it_should() -> None:
    p, phi, lower = CASES["increasing"]
    x = torch.cat([torch.logspace(-3, 0, 100_001, dtype=torch.float64), torch.linspace(1e-3, 1, 100_001).double()])
    before = certify(p, phi, lower).error
    for t, i, change in ((0, 0, 1e-3), (8, 2, -1e-3)):
        factors = [list(factor) for factor in p.factors]
        factors[t][i] *= 1 + change
        changed = Composition(tuple(map(tuple, factors)))
        error = certify(changed, phi, lower).error
        measured = float((changed(x.clamp(min=1e-3)) - 1).abs().max())
        assert error[0] * (1 - 1e-9) <= measured * (1 + 1e-6)
        assert measured <= error[1] * (1 + 1e-9)
        assert abs(error[1] - before[1]) > 2e-4 * before[1]


def test_of_the_optimum_all_is_known() -> None:
    """The best composition of five quintics from 1e−3: its error is E at both ends of [1 − E, 1 + E]."""
    p = best_polar(1e-3, (5,) * 5, monotone=False, margin=0)
    certificate = certify(p, sign(), 1e-3)
    best = best_error(1e-3, (5,) * 5, monotone=False)
    assert certificate.error[0] * (1 - 1e-9) <= best <= certificate.error[1]
    assert certificate.short_below == pytest.approx(1e-3, rel=1e-3)
    assert certificate.short_below <= 1e-3
    assert certificate.range[1] == pytest.approx(1 + best, rel=1e-3)
    assert certificate.largest_fall == pytest.approx((2 * best, 2 * best), rel=1e-3)
    assert certificate.range_beyond[1] > 1e50


def test_a_tiny_error_against_a_steep_function_is_still_bounded() -> None:
    """φ = p(x)(1 + 1e−6 x), which is steep and within 1e−6 of p; and a polar map that has converged."""
    p = best_polar(0.05, (5,) * 4, monotone=True)
    near = ScalarMap(lambda x: p(x) * (1 + 1e-6 * x), name="nearly p")
    error = certify(p, near, 0.0).error
    assert error[0] <= 1e-6 * float(p(torch.ones(1, dtype=torch.float64))) * (1 + 1e-9)
    assert 1e-6 <= error[1] < 1.2e-6
    done = certify(best_polar(0.1, (5,) * 12, monotone=True, margin=0), sign(), 0.1).error
    assert 0 <= done[0] <= 1e-14
    assert done[1] < 1e-12


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(InputError, match="top"):
        certify(MONOTONE, ScalarMap(torch.ones_like, top=2.0, name="wide"), 0.1)
    for lower in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="lower="):
            certify(MONOTONE, sign(), lower)
