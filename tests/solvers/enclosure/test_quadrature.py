"""The panel integrator: its balls hold the integral, and it is the flag `analytic` that makes them do so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import pytest
from flint import acb, arb, ctx

from icm.solvers.enclosure import quadrature
from icm.solvers.enclosure.quadrature import BITS, Unresolved, integrate, norm_bound

ONE = [arb(1)]

# name: the integrand with its flag, the interval, the same integrand for mpmath
CASES: dict[str, tuple[Callable[[acb, bool], acb], tuple[float, float], Callable[[Any], Any]]] = {
    "polynomial": (lambda x, _: x**5 - 3 * x, (-1, 2.5), lambda x: x**5 - 3 * x),
    "exponential": (lambda x, _: x.exp(), (-3, 4), mpmath.exp),
    "oscillating": (lambda x, _: (20 * x).cos() * x, (0, 5), lambda x: mpmath.cos(20 * x) * x),
    "pole beside": (lambda x, _: 1 / (x * x + 0.015625), (-1, 3), lambda x: 1 / (x * x + mpmath.mpf(0.015625))),
    "root beside": (lambda x, a: (x * x + 0.0625).sqrt(analytic=a), (-2, 1), lambda x: mpmath.sqrt(x * x + 0.0625)),
    "root near its end": (lambda x, a: x.sqrt(analytic=a), (0.0078125, 3), mpmath.sqrt),
    "logarithm": (lambda x, a: x.log(analytic=a) ** 2, (0.25, 8), lambda x: mpmath.log(x) ** 2),
    "power": (lambda x, a: (x + 1).pow(acb(0.3), analytic=a), (-0.5, 6), lambda x: (x + 1) ** mpmath.mpf(0.3)),
    "gaussian": (lambda x, _: (-x * x).exp(), (-8, 8), lambda x: mpmath.exp(-x * x)),
}


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


def single(f: Callable[[acb, bool], acb], edges: list[float]) -> acb:
    return integrate(lambda x, analytic: ([f(x, analytic)], [acb(1)]), edges, (ONE, ONE))[0, 0]


def known(f: Callable, low: float, high: float) -> arb:
    """To 35 digits and a little ball around it, from tanh-sinh quadrature in pieces."""
    with mpmath.workdps(45):
        value = mpmath.quad(f, [low + (high - low) * mpmath.mpf(i) / 16 for i in range(17)])
        return arb(mpmath.nstr(value, 40)) + arb(0, 1e-33)


@pytest.mark.parametrize("name", CASES)
def test_holds_the_integral(name: str) -> None:
    f, (low, high), plain = CASES[name]
    found = single(f, [low, high])
    assert found.real.overlaps(known(plain, low, high))
    assert found.imag.contains(arb(0))
    assert float(found.real.rad()) < 1e-20 * max(1.0, abs(float(found.real.mid())))


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_adaptive_integration(name: str) -> None:
    """acb.integral bounds the same error with other rules and other ellipses."""
    f, (low, high), _ = CASES[name]
    assert single(f, [low, (low + high) / 2, high]).overlaps(acb.integral(f, low, high))


def test_products_share_their_nodes() -> None:
    """∫ left rightᵀ, entry by entry."""
    left, right = (lambda x: [x.exp(), x * x]), (lambda x: [acb(1), x.sin(), x])
    found = integrate(lambda x, _: (left(x), right(x)), [0.0, 2.0], (ONE * 2, ONE * 3))
    for i in range(2):
        for j in range(3):
            exact = acb.integral(lambda x, _, i=i, j=j: left(x)[i] * right(x)[j], 0, 2)
            assert found[i, j].overlaps(exact)
            assert float(found[i, j].real.rad()) < 1e-20


def test_each_panel_keeps_its_error_in_the_ball() -> None:
    """With a coarse goal the error is visible, and inside the radius."""
    f, (low, high), plain = CASES["oscillating"]
    for bits in (4, 12, 24):
        found = integrate(lambda x, a: ([f(x, a)], [acb(1)]), [low, high], (ONE, ONE), bits)[0, 0]
        assert found.real.overlaps(known(plain, low, high))
        assert float(found.real.rad()) < 40 * 2.0**-bits


def test_bound_covers_the_ellipse() -> None:
    """|f| on a grid of the ellipse is below the bound, which for |x − 5| at ρ = 3 is attained at its far end."""
    for rho in (1.5, 3.0):
        found = quadrature.bound(lambda x, _: ([(x * x).exp()], [x - 5]), 0.5, 2.0, rho)
        assert found is not None
        sup = [0.0, 0.0]
        for k in range(400):
            z = acb(arb(rho), 0) * acb(0, 2 * arb.pi() * k / 400).exp()
            x = arb(1.25) + arb(0.75) * (z + 1 / z) / 2
            sup = [max(s, float(abs(v).mid())) for s, v in zip(sup, ((x * x).exp(), x - 5), strict=True)]
        for bound, seen in zip(found, sup, strict=True):
            assert seen <= float(bound[0].mid()) < 40 * seen


def test_unbounded_integrand_is_refused() -> None:
    with pytest.raises(Unresolved, match="no bound"):
        single(lambda x, _: 1 / x, [-1.0, 2.0])


def test_norm_bound_is_above_the_norm_of_any_ball() -> None:
    assert norm_bound([arb(3), arb(-4)]) >= 5
    assert norm_bound([arb(0, 1), arb(0)]) >= 1
    assert norm_bound([]).is_zero()


# The flag, and what becomes of a proof without it.

STEP = 0.5**6


def root(x: acb, analytic: bool) -> acb:
    """√(x² + ε²), cut along the imaginary axis from ±iε on: any ellipse wider than that meets the cut."""
    return (x * x + STEP**2).sqrt(analytic=analytic)


def forgetful(x: acb, analytic: bool) -> acb:
    return root(x, False)


def truth() -> arb:
    """∫ √(x² + ε²) over [−1, 1] is √(1 + ε²) + ε² asinh(1/ε)."""
    square = arb(STEP) ** 2
    return (1 + square).sqrt() + square * (1 / arb(STEP)).asinh()


def test_the_flag_is_what_proves_it() -> None:
    """With the flag the panels shrink around the cut; without it a confident ball misses the truth."""
    assert single(root, [-1.0, 1.0]).real.overlaps(truth())
    wrong = single(forgetful, [-1.0, 1.0]).real
    assert wrong.is_finite()
    assert not wrong.overlaps(truth())


def test_a_helper_that_drops_the_flag_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were `bound` to call its integrand without the flag, the test above would fail."""
    sound = quadrature.bound
    monkeypatch.setattr(quadrature, "bound", lambda f, a, b, rho: sound(lambda x, _: f(x, False), a, b, rho))
    assert not single(root, [-1.0, 1.0]).real.overlaps(truth())


def test_a_bound_that_looks_only_at_the_panel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supremum must be that of the ellipse: that of the panel alone gives a ball that misses a nearby pole."""
    sound = quadrature.bound
    monkeypatch.setattr(quadrature, "bound", lambda f, a, b, rho: sound(f, a, b, 1.0001))
    f, (low, high), plain = CASES["pole beside"]
    assert not single(f, [low, high]).real.overlaps(known(plain, low, high))
