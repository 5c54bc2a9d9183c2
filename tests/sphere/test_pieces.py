"""Kinked H to fewer digits than all, against the same to all of them."""

from __future__ import annotations

import math

import pytest
import torch

from icm.curvature import as_curvature
from icm.sphere.expectation import expect


@pytest.mark.parametrize("accuracy", [1e-3, 5e-6, 1e-9])
@pytest.mark.parametrize(("k", "dim"), [(5, 9), (64, 64), (30, 300)])
def test_fewer_digits_of_a_kink_where_fewer_will_do(accuracy: float, k: int, dim: int) -> None:
    H = as_curvature("0.25*r^2 + 10*kink(1)")
    for sigma in (torch.linspace(2, 0.1, k), 2 * torch.logspace(0, -3, k), torch.full((k,), 1.2)):
        sigma = sigma.double() * math.sqrt(dim / k)
        rough, fine = expect(H, sigma, dim, accuracy=accuracy), expect(H, sigma, dim)
        assert float((rough.slopes - fine.slopes).norm()) <= float(rough.error * fine.slopes.norm())
        assert abs(float(rough.value - fine.value)) <= float(rough.error * fine.value)
