"""∂f/∂θ, ∂∇f/∂θ and ∇²f at fixed σ against differences of `icm.sphere`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import icm
from icm.errors import InputError
from icm.solvers.sensitivity import curving, sensitivity
from icm.sphere import expect
from tests.solvers.problems import distance

SIGMA = torch.tensor([[1.7, 1.2, 1.2, 0.4], [3.0, 0.9, 0.2, 0.0], [1.0, 1.0, 1.0, 0.5]], dtype=torch.float64)
NUMBERS: dict[str, tuple[Callable[[Any], icm.Curvature], str, float]] = {
    "Power scale": (lambda a: icm.Power(2.7, a), "scale", 0.6),
    "exponent 1": (lambda p: icm.Power(p + 0.02, 2.0), "exponent", 1.0),
    "exponent 1.6": (lambda p: icm.Power(p, 2.0), "exponent", 1.6),
    "exponent 2": (lambda p: icm.Power(p, 2.0), "exponent", 2.0),
    "exponent 9.3": (lambda p: icm.Power(p, 2.0), "exponent", 9.3),
    "Exponential scale": (lambda a: icm.Exponential(2.0, a), "scale", 0.6),
    "Exponential rate": (lambda a: icm.Exponential(a, 0.6), "rate", 2.0),
    "Kink jump": (lambda b: icm.Kink(0.8, b), "jump", 3.0),
    "Kink radius": (lambda c: icm.Kink(c, 3.0), "radius", 0.8),
}


def derivative(f: Callable[[float], Tensor], h: float) -> Tensor:
    """f'(0) by central differences of sixth order."""
    return (45 * (f(h) - f(-h)) - 9 * (f(2 * h) - f(-2 * h)) + f(3 * h) - f(-3 * h)) / (60 * h)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dim", [4, 9])
def test_sensitivities_are_those_of_differences(name, dim):
    build, field, at = NUMBERS[name]
    value, slopes = sensitivity(build(at), field, SIGMA, dim)
    h = 2e-3 * at
    assert distance(value, derivative(lambda t: icm.sphere.mean(build(at + t), SIGMA, dim), h)) < 3e-9
    assert distance(slopes, derivative(lambda t: icm.sphere.slopes(build(at + t), SIGMA, dim), h)) < 3e-9


def test_a_wall_moves_nothing_inside_and_what_has_no_derivative_is_refused():
    assert not any(t.any() for t in sensitivity(icm.Wall(9.0), "radius", SIGMA, 4))
    with pytest.raises(InputError, match="distance requires grad"):
        sensitivity(icm.Tabulated([1.0, 2.0], [1.0, 4.0]), "distance", SIGMA, 4)


@pytest.mark.parametrize("H", ["r^3", "r^1.5", "exp(1)", "0.5*r^2 + 5*kink(0.8)", "r^2 + r^4"])
def test_second_derivatives_are_those_of_differences(H):
    e = expect(icm.parse(H), SIGMA, 5)
    found = curving(e)
    hessian = found.unit[:, None, None] * found.hessian
    for i in range(4):
        if bool((SIGMA[:, i] == 0).any()):
            continue
        step = torch.zeros(4, dtype=torch.float64)
        step[i] = 1.0
        column = derivative(lambda t, step=step: icm.sphere.slopes(H, SIGMA + t * step, 5), 1e-3)
        assert distance(hessian[:, :, i], column) < 1e-7
    rise = found.unit[:, None, None] * found.rise
    for i, j in ((0, 1), (0, 3), (1, 3)):
        quotient = (e.slopes[:, i] - e.slopes[:, j]) / (SIGMA[:, i] - SIGMA[:, j])
        differ = SIGMA[:, i] != SIGMA[:, j]
        assert distance(rise[differ, i, j], quotient[differ]) < 1e-12
