"""Powers: which exponents and scales there are."""

from __future__ import annotations

import math

import pytest
import torch

from icm import Power
from icm.errors import CurvatureError
from tests.oracles import tensor, worst


@pytest.mark.parametrize("p", [0.5, 0.999999, 0.0, -2.0, math.nan, math.inf, -math.inf])
def test_exponents_below_one(p: float) -> None:
    """r^p is convex for finite p ≥ 1 only; the refusal names the exponent and the radius 0."""
    with pytest.raises(CurvatureError, match=str(p)) as caught:
        Power(p)
    assert caught.value.radius == 0.0
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_scales(scale: float) -> None:
    """A scale is finite and ≥ 0."""
    with pytest.raises(CurvatureError, match=str(scale)):
        Power(2.0, scale)


def test_radius_formulas() -> None:
    """H' = c at (c/(sp))^{1/(p−1)} and H = cr at (c/s)^{1/(p−1)}; a line jumps from 0 to ∞ at its slope."""
    c = tensor(0.1, 1.0, 30.0)
    assert worst(Power(3.0, 2.0).radius_at_slope(c), (c / 6).sqrt()) < 1e-15
    assert worst(Power(3.0, 2.0).radius_at_chord(c), (c / 2).sqrt()) < 1e-15
    for method in (Power(1.0, 2.0).radius_at_slope, Power(1.0, 2.0).radius_at_chord):
        assert method(tensor(1.9, 2.0, 2.1)).tolist() == [0.0, math.inf, math.inf]
    assert bool(torch.isinf(Power(3.0, 0.0).radius_at_slope(c)).all())


def test_growth() -> None:
    """Super-quadratic from p = 2 on, by symbols."""
    assert [bool(Power(p).is_superquadratic()) for p in (1.0, 1.999, 2.0, 5.0)] == [False, False, True, True]
    assert Power(2.5).is_superquadratic().how == "symbolic"
    assert not (Power(1.5) + Power(4.0)).is_superquadratic()
    assert (Power(2.5) + Power(4.0)).is_superquadratic()
