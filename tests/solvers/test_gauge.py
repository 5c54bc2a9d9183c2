"""J(q), the least bound of a multiplier ξ ≥ 0 with E[ξ ζ_i²] = q_i: closed forms, other integrals, searches."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.hinge_reference import hinge_reference
from icm.solvers.gauge import Gauge, gauge, hinge
from tests.oracles import tensor, worst

Array = NDArray[np.float64]
few = settings(max_examples=10)


def alone(q: Tensor) -> Gauge:
    """The gauge of one q (n,)."""
    found = gauge(q[None])
    return Gauge(found.jump[0], found.v[0], found.mean[0], found.iterations[0])


def circle(q: Any) -> Any:
    """J for n = 2 by mpmath: ξ = J on |θ| < θ₀ has averages J(θ₀ ± ½ sin 2θ₀)/π."""
    with mpmath.workdps(50):
        first, second = (mpmath.mpf(float(x)) for x in q)
        total, share = first + second, (first - second) / (first + second)
        if share == 0:
            return total

        # sin x/x − share falls from 2q₂/(q₁ + q₂) at 0 to −share at π.
        low, high = mpmath.mpf(0), mpmath.pi
        for _ in range(160):
            middle = (low + high) / 2
            low, high = (middle, high) if mpmath.sin(middle) > share * middle else (low, middle)
        return total * mpmath.pi / low


def sphere(v: Any, points: int = 400) -> tuple[float, Array]:
    """h(v) = E(Σ vζ²)₊ and ∇h for n = 3, without a contour: ζ on the axis of the odd sign is uniform on [−1, 1], and
    for each angle about it the event is a range of it. The angle by double exponential quadrature."""
    v = np.asarray(v, dtype=np.float64)
    axis = int(np.argmin(v)) if (v > 0).sum() == 2 else int(np.argmax(v))
    others = [i for i in range(3) if i != axis]
    t = np.linspace(-4, 4, points)
    y = 2 * np.sinh(t)
    angle, rest = (math.pi / 2 / (1 + np.exp(end)) for end in (-y, y))
    p = angle * rest * np.cosh(t)
    zeta, p = np.stack([np.sin(rest) ** 2, np.sin(angle) ** 2]), p / p.sum()
    w = np.abs(v[others]) @ zeta / abs(v[axis])
    gradient = np.zeros(3)
    if v[axis] < 0:  # |ζ_axis| < z, where the others outweigh it
        z = np.sqrt(w / (1 + w))
        along, across = z**3 / 3, z - z**3 / 3
    else:  # |ζ_axis| > 1 − d
        d = 1 / (1 + w) / (1 + np.sqrt(w / (1 + w)))
        along, across = d - d**2 + d**3 / 3, d**2 - d**3 / 3
    gradient[axis], gradient[others] = p @ along, zeta * across @ p
    return float(gradient @ v), gradient


def through_a_kink(v: Tensor) -> tuple[float, Array]:
    """h(v) and ∇h to 25 digits for any n: Σ vζ² > 0 is Σ (1 + v/2‖v‖∞)ζ² > 1."""
    size = float(v.abs().amax())
    at = hinge_reference((1 + v / (2 * size)).sqrt().numpy(), len(v), 1.0)
    return 2 * size * at.hinge, at.hinge_weights


# --- h --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [(1.0, -0.5, -0.25), (1.0, 0.5, -0.25), (1.0, 0.3, -30.0), (0.001, -1.0, -2.0)])
def test_h_in_three_dimensions(v: tuple[float, ...]) -> None:
    """h and ∇h are those of the integral over the angle about one axis, and h = ⟨∇h, v⟩."""
    value, slope, _ = hinge(tensor(*v)[None])
    exact, gradient = sphere(v)
    assert worst(value[0], exact) < 1e-12
    assert worst(slope[0], gradient) < 1e-12
    assert worst(slope[0] @ tensor(*v), value[0]) < 1e-12


@pytest.mark.parametrize("n", [2, 4, 9])
def test_h_to_25_digits(n: int) -> None:
    """h and ∇h are those of ball arithmetic, and bend is what differences of ∇h give: f_ii = 3/2 bend_i."""
    v = torch.linspace(1, -0.6, n, dtype=torch.float64) + 0.01
    value, slope, bend = hinge(v[None])
    exact, gradient = through_a_kink(v)
    assert worst(value[0], exact) < 1e-12
    assert worst(slope[0], gradient) < 1e-12
    h = 1e-5
    for i in range(n if n > 2 else 0):  # for n = 2 the two slopes of a line have no such pieces to compare
        e = h * torch.eye(n, dtype=torch.float64)[i]
        rise = (hinge((v + e)[None])[1][0, i] - hinge((v - e)[None])[1][0, i]) / (2 * h)
        assert worst(1.5 * bend[0, i], rise) < 1e-7


# --- J against what nobody here wrote -------------------------------------------------------------------------


@pytest.mark.parametrize("second", [1 - 1e-8, 1 - 1e-5, 1 - 1e-3, 0.97, 0.9, 0.5, 0.1, 1e-3, 1e-6, 1e-12])
def test_two_dimensions_in_closed_form(second: float) -> None:
    """n = 2: sin(2θ₀)/(2θ₀) = (q₁ − q₂)/(q₁ + q₂) and J = (q₁ + q₂)π/(2θ₀), from nearly equal to one tiny entry."""
    q = tensor(1.0, second)
    found = alone(q)
    assert worst(found.jump, float(circle(q))) < 1e-11
    assert worst(found.mean, q) < 1e-9
    assert float(found.v[0]) > 0 > float(found.v[1]) or second > 0.9


@pytest.mark.parametrize(
    "q", [(1.0, 0.6, 0.3), (1.0, 0.9, 0.1), (1.0, 0.1, 0.09), (1.0, 0.99, 0.9), (1.0, 1.0, 0.01), (1.0, 0.5, 1e-5)]
)
def test_three_dimensions_by_search(q: tuple[float, ...]) -> None:
    """n = 3: SciPy's simplex search finds no v with a larger ⟨q, v⟩/h(v), h by another integral; and J∇h(v) = q at
    ours, which is what a maximiser is."""
    found = alone(tensor(*q))
    value, gradient = sphere(found.v.numpy())
    assert worst(float(tensor(*q) @ found.v) / value, float(found.jump)) < 1e-11
    assert worst(float(found.jump) * gradient, q) < 1e-9

    def negative(v: Array) -> float:
        mixed = v.max() > 0 > v.min()
        return -float(np.dot(q, v)) / sphere(v, 120)[0] if mixed else 0.0

    start = np.array([1.0, 0.2, -1.0])
    best = minimize(negative, start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-9, "fatol": 1e-11})
    assert -best.fun <= float(found.jump) * (1 + 1e-9)
    assert -best.fun > 0.99 * float(found.jump)


@pytest.mark.parametrize("q", [(1.0, 0.5, 1e-12), (1.0, 1e-9, 1e-12), (1.0, 1.0, 1e-12)])
def test_tiny_entries(q: tuple[float, ...]) -> None:
    """n = 3, twelve decades: every average J∇h(v)_i is q_i to 1e-9 of itself, by the integral over an angle."""
    found = alone(tensor(*q))
    value, gradient = sphere(found.v.numpy(), 2000)
    assert worst(float(found.jump) * gradient, q) < 1e-9
    assert worst(float(tensor(*q) @ found.v) / value, float(found.jump)) < 1e-10


@pytest.mark.parametrize("n", [4, 5, 8])
def test_optimal_to_25_digits(n: int) -> None:
    """More dimensions: J∇h(v) = q and J = ⟨q, v⟩/h(v), by ball arithmetic at the returned v."""
    q = 1 / torch.arange(1, n + 1, dtype=torch.float64)
    found = alone(q)
    value, gradient = through_a_kink(found.v)
    assert worst(float(found.jump) * gradient, q) < 1e-9
    assert worst(float(q @ found.v) / value, float(found.jump)) < 1e-11


# --- what holds for every q -----------------------------------------------------------------------------------

entries = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6)


@few
@given(values=entries, c=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_homogeneous_and_symmetric(values: list[float], c: float, seed: int) -> None:
    """J(cq) = cJ(q), and a permutation of q permutes v and the averages."""
    q = tensor(*values)
    at = torch.randperm(len(q), generator=torch.Generator().manual_seed(seed))
    found = gauge(torch.stack([q, c * q, q[at]]))
    base, scaled, turned = found.jump
    assert worst(scaled, c * base) < 1e-11
    assert worst(turned, base) < 1e-11
    assert worst(found.mean, torch.stack([q, c * q, q[at]])) < 1e-9


@few
@given(values=entries)
def test_between_its_bounds(values: list[float]) -> None:
    """n max q ≤ J(q) ≤ (n/2)((n+2) max q − Σq) where the closed form is ≥ 0, and never below Σq."""
    q = tensor(*values)
    n, jump = len(q), float(alone(q).jump)
    top, least = float(q.max()), float(q.min())
    assert jump >= n * top * (1 - 1e-12)
    assert jump >= float(q.sum()) * (1 - 1e-12)
    if (n + 2) * least >= float(q.sum()):
        assert jump <= n / 2 * ((n + 2) * top - float(q.sum())) * (1 + 1e-12)


@few
@given(n=st.integers(2, 5), seed=st.integers(0, 2**32 - 1), t=st.floats(0, 1))
def test_convex(n: int, seed: int, t: float) -> None:
    """J(tp + (1−t)q) ≤ tJ(p) + (1−t)J(q)."""
    p, q = torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.02
    first, second, between = gauge(torch.stack([p, q, t * p + (1 - t) * q])).jump
    assert float(between) <= float(t * first + (1 - t) * second) * (1 + 1e-11)


def test_equal_entries() -> None:
    """q = c·1 needs only the constant ξ = nc."""
    for n in (2, 3, 10):
        found = alone(torch.full((n,), 0.3, dtype=torch.float64))
        assert worst(found.jump, 0.3 * n) < 1e-15
        assert worst(found.mean, 0.3) < 1e-15


@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("spread", [1e-8, 1e-4, 1e-2, 0.021])
def test_nearly_equal_entries(n: int, spread: float) -> None:
    """q = 1 + spread·u: J lies between its bounds, which close in; and (J − n max q)/spread falls to 0 with the spread,
    as its complement, which has to be small, is J itself of a spread-out q."""
    u = torch.linspace(0, 1, n, dtype=torch.float64)
    q = 1 + tensor(spread, spread / 4)[:, None] * u
    found = gauge(q)
    top = n * q.amax(-1)
    width = n / 2 * ((n + 2) * q.amax(-1) - q.sum(-1)) - top
    excess = (found.jump - top) / width
    assert worst(found.mean, q) < 1e-11
    noise = float(1e-13 * n / width[1])
    assert bool((excess >= -noise).all())
    assert bool((excess <= 1 + noise).all())
    assert float(excess[1]) < float(excess[0]) + noise


def test_batches_are_rows() -> None:
    """Rows of every kind in one batch, equal, nearly equal, spread and tiny, are what they are alone."""
    rows = torch.stack([tensor(1, 1, 1), tensor(1, 1.001, 1.002), tensor(1, 0.5, 0.2), tensor(1, 1e-6, 1e-9)])
    together = gauge(rows)
    for i, row in enumerate(rows):
        assert worst(together.jump[i], alone(row).jump) < 1e-12
        assert worst(together.mean[i], row) < 1e-9


@pytest.mark.long
@pytest.mark.parametrize("n", [16, 64, 256])
def test_wide(n: int) -> None:
    """J∇h(v) = q in many dimensions, for decays of every kind, by ball arithmetic up to n = 64."""
    for q in (1 / torch.arange(1, n + 1), torch.logspace(0, -4, n), torch.linspace(1, 0.9, n)):
        found = alone(q.double())
        assert worst(found.mean, q.double()) < 1e-9
        if n <= 64:
            value, gradient = through_a_kink(found.v)
            assert worst(float(q.double() @ found.v) / value, float(found.jump)) < 1e-10
            assert worst(float(found.jump) * gradient, q.double()) < 1e-7
