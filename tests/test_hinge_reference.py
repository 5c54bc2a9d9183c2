"""The 25-digit reference of tails, hinges and kinks against values known by other means, to 1e-23 relative."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from flint import acb, arb, ctx

from benchmarks import hinge_reference as module
from benchmarks import kinks
from benchmarks.gauss_fraction import hypergeometric
from benchmarks.hinge_reference import HingeBalls, hinge_balls, hinge_reference
from benchmarks.reference import power_table
from benchmarks.spectra import spectra
from icm.sphere.sampling import directions

TOLERANCE = 1e-23


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """Compare at 300 bits."""
    with ctx.workprec(300), mpmath.workdps(60):
        yield


def same(computed: arb, exact: arb | Any) -> bool:
    """|computed − exact| < 1e-23 |exact|."""
    value = exact if isinstance(exact, arb) else arb(mpmath.nstr(exact, 55))
    return bool(abs(computed - value) < TOLERANCE * abs(value))


def square(value: float) -> arb:
    """σ², exact."""
    return arb(float(value)) ** 2


def legendre(count: int) -> list[Any]:
    """Gauss–Legendre nodes of [0, 1], near enough."""
    return [mpmath.mpf(float(x) + 1) / 2 for x in np.polynomial.legendre.leggauss(count)[0]]


def interpolatory(nodes: list[Any]) -> list[arb]:
    """The weights that integrate polynomials of degree below len(nodes) over [0, 1] exactly."""
    powers = mpmath.matrix([[x**j for x in nodes] for j in range(len(nodes))])
    moments = mpmath.matrix([mpmath.mpf(1) / (j + 1) for j in range(len(nodes))])
    return [arb(mpmath.nstr(w, 55)) for w in mpmath.lu_solve(powers, moments)]


@pytest.mark.parametrize("radius", [0.9, 1.3 * (1 - 1e-9), 0.4 * (1 + 1e-9), 0.4, 0.4 * (1 - 1e-9), 0.01])
def test_two_dimensions_in_closed_form(radius: float) -> None:
    """n = 2, r² = λ₁ cos²θ + λ₂ sin²θ: an arc length, and Legendre's incomplete integrals of modulus 1 − λ₂/λ₁."""
    first, second, c = mpmath.mpf(1.3), mpmath.mpf(0.4), mpmath.mpf(radius)
    m = (first - second) * (first + second) / first**2
    inside = mpmath.sqrt((first - c) * (first + c) / m) / first
    angle = mpmath.asin(inside) if inside < 1 else mpmath.pi / 2
    E, F = mpmath.ellipe(angle, m), mpmath.ellipf(angle, m)
    balls = hinge_balls([1.3, 0.4], 2, radius)
    assert same(balls.tail, 2 * angle / mpmath.pi)
    assert same(balls.value, 2 / mpmath.pi * (first * E - c * angle))
    assert same(balls.weights[0], (E - (1 - m) * F) / (mpmath.pi * first * m))
    assert same(balls.weights[1], (F - E) / (mpmath.pi * first * m))
    assert same(balls.hinge_weights[1], (angle - mpmath.sin(2 * angle) / 2) / mpmath.pi)


@pytest.mark.parametrize(("k", "dim"), [(1, 2), (2, 3), (5, 8), (512, 4096)])
@pytest.mark.parametrize("radius", [0.1, 0.36, 1 - 1e-9])
def test_equal_values_in_closed_form(k: int, dim: int, radius: float) -> None:
    """σ = 1 on k of n: s ~ Beta(k/2, (n−k)/2), and E[s^q 1{s>u}] are incomplete beta functions."""
    a, b, c = arb(k) / 2, arb(dim - k) / 2, arb(radius)
    u, beta = c**2, a.gamma() * b.gamma() / (a + b).gamma()

    def above(q: arb) -> arb:
        with ctx.workprec(20000 if dim > 64 else 600):
            return (1 - u).beta_lower(b, a + q) / beta

    tail, root, first, density = (
        above(arb(0)),
        above(arb(1) / 2),
        above(arb(1)),
        u ** (a - 1) * (1 - u) ** (b - 1) / beta,
    )
    balls = hinge_balls(np.ones(k), dim, radius, indices=[k - 1])
    assert same(balls.tail, tail)
    assert same(balls.value, root - c * tail)
    assert same(balls.hinge, first - u * tail)
    assert same(balls.weights[0], root / (2 * k))
    assert same(balls.hinge_weights[0], first / k)
    assert same(balls.bend[0], 2 * (u**2 * density / (2 * c) - root / 4) / arb(k * (k + 2)))


@pytest.mark.parametrize("sigma", [(1.3, 0.7, 0.2), (1.3, 1.1, 0.7, 0.3, 0.0)])
@pytest.mark.parametrize("radius", [1.2, 0.7, 0.7 * (1 + 1e-8), 0.25])
def test_tails_along_the_cut(sigma: tuple[float, ...], radius: float) -> None:
    """P(s > u) = (1/π) Σ_j sin(jπ/2) ∫ (z−u)^{n/2−1} Π|z−λ_i|^{−1/2} dz where j of the λ_i exceed z."""
    lam, u, total = [mpmath.mpf(x) ** 2 for x in sigma], mpmath.mpf(radius) ** 2, mpmath.mpf(0)
    for j in range(1, len(lam) + 1, 2):
        low, high = max(u, lam[j] if j < len(lam) else u), lam[j - 1]
        if low < high:

            def integrand(angle: Any, low: Any = low, high: Any = high) -> Any:
                x, y = mpmath.sin(angle), mpmath.cos(angle)
                up, down = (high - low) * x * x, (high - low) * y * y
                others = [low + up - v for v in lam if v not in (low, high)]
                ends = (mpmath.sqrt(up) if low in lam else 1) * mpmath.sqrt(down)
                product = mpmath.fprod(mpmath.sqrt(abs(v)) for v in others) * ends
                return 2 * (high - low) * x * y * (low - u + up) ** (mpmath.mpf(len(lam)) / 2 - 1) / product

            with mpmath.workdps(40):
                tiny = [mpmath.mpf(10) ** -e for e in (4, 2)] if low - u < 1e-6 or u in lam else []
                piece = mpmath.quad(integrand, [0, *tiny, mpmath.pi / 4, mpmath.pi / 2])
            total += (-1) ** (j // 2) * piece / mpmath.pi
    assert same(hinge_balls(sigma, len(sigma), radius, indices=[]).tail, total)


@pytest.mark.parametrize(
    ("name", "dim", "radii"),
    [
        ("condition-1e4", 5, (0.044, 0.05)),
        ("marchenko-pastur", 64, (0.97, 1.03)),
        pytest.param("spike-bulk", 64, (2.5, 2.6), marks=pytest.mark.long),
        pytest.param("marchenko-pastur", 1024, (0.99, 1.01), marks=pytest.mark.long),
        pytest.param("condition-1e12", 4096, (0.13, 0.14), marks=pytest.mark.long),
    ],
)
def test_values_are_integrals_of_tails(name: str, dim: int, radii: tuple[float, float]) -> None:
    """E(r−c)₊ falls by ∫ P(r>x) dx, E(s−c²)₊ by ∫ 2x P(r>x) dx, w_i by [t/2x] − ∫ t/2x² dx with t = E[ζ_i² 1{r>x}]."""
    sigma, (low, high) = spectra(dim)[name], radii
    indices = [0, len(sigma) // 2]
    ends = [hinge_balls(sigma, dim, x, indices) for x in radii]
    value, hinge = arb(0), arb(0)
    weights = [a / (2 * arb(low)) - b / (2 * arb(high)) for a, b in zip(*(e.hinge_weights for e in ends), strict=True)]
    places = [low + (high - low) * float(y) for y in legendre(14)]
    width = mpmath.mpf(high) - mpmath.mpf(low)
    for x, share in zip(places, interpolatory([(mpmath.mpf(x) - low) / width for x in places]), strict=True):
        balls, weight = hinge_balls(sigma, dim, x, indices), share * (arb(high) - arb(low))
        value += weight * balls.tail
        hinge += weight * balls.tail * 2 * x
        weights = [w - weight * t / (2 * arb(x) ** 2) for w, t in zip(weights, balls.hinge_weights, strict=True)]
    assert same(ends[0].value - ends[1].value, value)
    assert same(ends[0].hinge - ends[1].hinge, hinge)
    for i in range(2):
        assert same(ends[0].weights[i] - ends[1].weights[i], weights[i])


def test_the_whole_value_is_an_integral_of_tails() -> None:
    """E(r−c)₊ = ∫ P(r>x) dx up to σ₁, with x = σ₁ − (σ₁−c) y², in which P is smooth."""
    sigma, total = [1.5, 0.5, 0.25, 0.125], arb(0)
    places = [1.5 - 0.5 * float(y) ** 2 for y in legendre(28)]
    nodes = [mpmath.sqrt(2 * (mpmath.mpf(1.5) - mpmath.mpf(x))) for x in places]
    for x, y, weight in zip(places, nodes, interpolatory(nodes), strict=True):
        total += weight * arb(mpmath.nstr(y, 55)) * hinge_balls(sigma, 4, x, []).tail
    assert same(total, hinge_balls(sigma, 4, 1.0, []).value)


@pytest.mark.parametrize(("name", "dim"), [(name, 8) for name in spectra(8)] + [("power-law", 64)])
def test_sums_over_all_coordinates(name: str, dim: int) -> None:
    """Σ E[ζ_i²1] = P, Σ λ_i E[ζ_i²1] = E(s−u)₊ + uP and 2 Σ λ_i w_i = E(r−c)₊ + cP, the padding included."""
    sigma = np.concatenate([spectra(dim)[name], np.zeros(dim - len(spectra(dim)[name]))])
    radius = 0.9 * float(np.sqrt((sigma**2).mean()))
    balls, u = hinge_balls(sigma, dim, radius), square(radius)
    assert same(sum(balls.hinge_weights, arb(0)), balls.tail)
    moment = sum((square(x) * w for x, w in zip(sigma, balls.hinge_weights, strict=True)), arb(0))
    assert same(moment, balls.hinge + u * balls.tail)
    length = sum((2 * square(x) * w for x, w in zip(sigma, balls.weights, strict=True)), arb(0))
    assert same(length, balls.value + radius * balls.tail)


@pytest.mark.parametrize("radius", [0.2, 0.7 * (1 + 1e-9), 1.29])
def test_bend_is_a_derivative(radius: float) -> None:
    """∂w_i/∂λ_i = (3/2) w'(λ_i), by the polynomial through 17 values between neighbouring singular values."""
    others, centre = [1.3, 0.7, 0.2, 0.1], 0.9
    places = [float(centre + 0.04 * x) for x in np.polynomial.chebyshev.chebpts1(17)]
    places[8] = centre
    values = [hinge_balls([x, *others], 5, radius, [0]).weights[0] for x in places]
    nodes = [square(x) for x in places]
    slope = arb(0)
    for j in range(17):
        if j == 8:
            slope += values[j] * sum((1 / (nodes[8] - x) for i, x in enumerate(nodes) if i != 8), arb(0))
            continue
        term = values[j] / (nodes[j] - nodes[8])
        for i in range(17):
            if i not in (j, 8):
                term *= (nodes[8] - nodes[i]) / (nodes[j] - nodes[i])
        slope += term
    bend = hinge_balls([centre, *others], 5, radius, [0]).bend[0]
    assert abs(slope - arb(3) / 2 * bend) < 1e-19 * abs(bend)


@pytest.mark.parametrize(("name", "dim"), [("condition-1e4", 8), ("marchenko-pastur", 64), ("spike", 3)])
def test_below_the_range(name: str, dim: int) -> None:
    """c < min σ: E r − c and the slopes of E r, from the first power; the tail is 1."""
    sigma = spectra(dim)[name]
    radius = float(sigma.min()) * 0.75
    balls = hinge_balls(sigma, dim, radius, [0, dim - 1])
    mean, *slopes = power_table(sigma, dim, [1.0], [0, dim - 1])[0]
    assert same(balls.tail, arb(1))
    assert same(balls.value, mean - radius)
    for w, slope, x in zip(balls.weights, slopes, sigma[[0, dim - 1]], strict=True):
        assert same(w, slope / (2 * arb(float(x))))


def everything(balls: HingeBalls) -> list[arb]:
    """All numbers of one radius."""
    return [balls.tail, balls.value, balls.hinge, *balls.weights, *balls.bend, *balls.hinge_weights]


@pytest.mark.parametrize(
    ("name", "dim", "radius"),
    [("spike-bulk", 8, 1.2), ("power-law", 64, 0.5), ("power-law", 64, 0.5 * (1 - 1e-8)), ("condition-1e12", 64, 1e-3)],
)
def test_any_path_gives_the_same(name: str, dim: int, radius: float) -> None:
    """A line, and hyperbolas bent either way."""
    sigma = spectra(dim)[name]
    paths = [everything(hinge_balls(sigma, dim, radius, [0, 1], bend=bend)) for bend in (0.0, -0.5, 0.5)]
    for values in zip(*paths, strict=True):
        assert same(values[0], values[1])
        assert same(values[0], values[2])


def test_samples() -> None:
    """Within five standard errors of 400 000 directions."""
    sigma, dim, radius = torch.tensor([1.5, 1.0, 0.4, 0.1]).double(), 6, 0.8
    squares = directions(400_000, dim, seed=3)[:, :4] ** 2
    r = (squares @ sigma**2).sqrt()
    over = (r > radius).double()
    exact = hinge_reference(sigma.numpy(), dim, radius)
    for sample, value in (
        (over, exact.tail),
        ((r - radius).clamp(min=0), exact.value),
        ((r**2 - radius**2).clamp(min=0), exact.hinge),
        *((squares[:, i] * over / (2 * r), exact.weights[i]) for i in range(4)),
        *((squares[:, i] * over, exact.hinge_weights[i]) for i in range(4)),
    ):
        assert abs(float(sample.mean()) - value) < 5 * float(sample.std()) / len(r) ** 0.5


def test_outside_and_where_nothing_bends() -> None:
    """c ≥ σ₁ gives zeros; w'(u) does not exist when only two coordinates are off u, and does with three."""
    for radius in (1.0, 2.0):
        assert everything(hinge_balls([1.0, 0.5], 4, radius)) == [arb(0)] * 9
    assert np.isnan(hinge_reference([1.0, 0.5, 0.25], 3, 0.5).bend).tolist() == [False, True, False]
    assert np.isnan(hinge_reference([1.0, 0.5, 0.25], 4, 0.5).bend).tolist() == [False, False, False]


def test_floats_are_the_nearest() -> None:
    """n = 2, σ = (1, 0), c = ½: P = 2/3 and w₁ = √3/2π."""
    values = hinge_reference([1.0, 0.0], 2, 0.5)
    assert values.tail == 2 / 3
    assert values.weights[0] == float(mpmath.sqrt(3) / (2 * mpmath.pi))
    assert hinge_reference(np.ones(512), 4096, 1 - 1e-9).tail == 0


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 64, 1024, 4096])
def test_hypergeometric(dim: int) -> None:
    """Both ways against mpmath, and balls that contain it."""
    for x in (acb(0.01, 0.02), acb(-0.5, 0.8), acb(0.3), acb(-2, 3), acb(40, 30), acb(-30, 40), acb(-1e3, 1e5)):
        with mpmath.workdps(60):
            z = mpmath.mpc(-float(x.real.mid()), -float(x.imag.mid()))
            exact = mpmath.hyp2f1(mpmath.mpf(1) / 2, 1, mpmath.mpf(dim) / 2 + 1, z)
        with ctx.workprec(150):
            value = hypergeometric(x, dim)
        reference = acb(arb(mpmath.nstr(exact.real, 50)), arb(mpmath.nstr(exact.imag, 50)))
        assert abs(value - reference) < 1e-40 * abs(reference)


def test_a_false_value_is_caught() -> None:
    """A value wrong in its 23rd digit fails, so does one without digits."""
    exact = arb(1.1) ** 3
    assert same(exact, exact)
    assert not same(exact * (1 + arb(2) / arb(10) ** 23), exact)
    assert not same(exact + arb(0, 1e-20), exact)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is named, and an integral that does not settle raises instead of returning."""
    for sigma, dim, radius in (([1.0, 2.0], 1, 1.0), ([-1.0], 1, 1.0), ([float("nan")], 1, 1.0), ([1.0], 1, 0.0)):
        with pytest.raises(ValueError, match=r"sigma|radius"):
            hinge_balls(sigma, dim, radius)
    monkeypatch.setattr(module, "HALVINGS", 0)
    with pytest.raises(ArithmeticError, match="settle"):
        hinge_balls([1.0, 0.5], 3, 0.7)


def test_the_radii_of_the_study() -> None:
    """All positions for a spectrum that has them, each radius once, and the deviations where their tails are."""
    sigma = spectra(64)["condition-1e4"]
    radii = kinks.positions(sigma, 64)
    assert len(radii) == 16 == len(set(radii.values()))
    assert 1e-21 < hinge_reference(sigma, 64, radii["deviation +9.3"], []).tail < 1e-20
    assert 1 - hinge_reference(sigma, 64, radii["deviation -3"], []).tail < 3e-3
    assert radii["value"] in sigma
    assert list(kinks.positions(np.ones(3), 3)) == ["below", "bottom −1e-9", "bottom +1e-9", "above"]
    assert "below" not in kinks.positions(np.ones(2), 3)


def test_the_cache_returns_what_was_computed(tmp_path: Path) -> None:
    """A second look reads the file, which holds 20 digits; the sum is that of all 2λ_i w_i."""
    sigma = spectra(3)["power-law"]
    first = kinks.reference(sigma, 3, folder=tmp_path)
    assert repr(kinks.reference(sigma, 3, folder=tmp_path)) == repr(first)
    assert len(list(tmp_path.iterdir())) == 1
    radius, exact = first["deviation +1"]
    balls = hinge_balls(sigma, 3, radius)
    total = sum((2 * square(x) * w for x, w in zip(sigma, balls.weights, strict=True)), arb(0))
    for digits, ball in ((exact["tail"][0], balls.tail), (exact["bend"][1], balls.bend[1]), (exact["sum"][0], total)):
        assert abs(arb(str(digits)) / ball - 1) < 1e-19


def test_the_study_reports_a_false_library() -> None:
    """A weight wrong by 1e-11, a NaN, something above the range and an exception are missed, at the right index."""
    exact, case = [Decimal("0.75"), Decimal("0.5")], (8, "flat", "below", 0.5)

    def raising() -> list[float]:
        raise RuntimeError("no answer")

    def found(values: list[float], numbers: list[Decimal] = exact) -> kinks.KinkRecord:
        return kinks.compare(case, "weights", lambda: values, numbers, numbers, [0, 7])

    assert found([0.75, 0.5]).error == 0
    wrong = found([0.75, 0.5 * (1 + 1e-11)])
    assert wrong.missed
    assert (wrong.index, wrong.error) == (7, pytest.approx(1e-11, rel=1e-4))
    assert found([float("nan"), 0.5]).missed
    assert found([0.0, 1e-300], [Decimal(0), Decimal(0)]).missed
    assert not found([0.0, 0.0], [Decimal(0), Decimal(0)]).missed
    assert not found([3.0, 0.5], [Decimal("nan"), Decimal("0.5")]).missed
    assert "no answer" in kinks.compare(case, "tail", raising, exact, exact, [0, 7]).note
