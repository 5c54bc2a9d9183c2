"""Exponentials: their range, their small arguments, and their inverse."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from icm import Exponential
from icm.errors import CurvatureError
from tests.oracles import tensor, worst


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rates(rate: float) -> None:
    """A rate is finite and positive."""
    with pytest.raises(CurvatureError, match=str(rate)):
        Exponential(rate)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_scales(scale: float) -> None:
    """A scale is finite and ≥ 0."""
    with pytest.raises(CurvatureError, match=str(scale)):
        Exponential(1.0, scale)


def test_no_digit_is_lost() -> None:
    """e^x − 1 − x to 1e-15 from x = 1e-150 to 700, across the change of formula at ½."""
    x = torch.cat([torch.logspace(-150, 2.84, 400, dtype=torch.float64), tensor(0.4999999, 0.5, 0.5000001)])
    with mpmath.workdps(400):
        exact = [float(mpmath.expm1(v) - v) for v in map(mpmath.mpf, x.tolist())]
    assert worst(Exponential(1.0)(x), exact) < 2e-15


def test_inverse_slope() -> None:
    """H' = c at log(1 + c/(s·rate))/rate."""
    H = Exponential(2.0, 3.0)
    c = torch.logspace(-12, 12, 25, dtype=torch.float64)
    assert worst(H.slope(H.radius_at_slope(c)), c) < 1e-13
    assert bool(torch.isinf((0.0 * H).radius_at_slope(c)).all())
