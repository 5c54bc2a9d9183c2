"""Kinks: their two slopes, their inverses, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from icm.curvature import Kink, Power, Sum, parse
from icm.errors import CurvatureError
from tests.oracles import tensor, worst


@pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf, -math.inf])
def test_radii(radius: float) -> None:
    """A radius is finite and positive."""
    with pytest.raises(CurvatureError, match=f"radius={radius}.*finite radius > 0"):
        Kink(radius)


def test_radius_zero_is_a_line() -> None:
    """At radius 0 the refusal names the line that was meant, and 0 as the place."""
    with pytest.raises(CurvatureError, match=r"icm\.Power\(1\.0, scale=2\.5\)") as caught:
        Kink(0.0, jump=2.5)
    assert caught.value.radius == 0.0


@pytest.mark.parametrize("jump", [-1.0, math.nan, math.inf])
def test_jumps(jump: float) -> None:
    """A jump is finite and ≥ 0."""
    with pytest.raises(CurvatureError, match=f"jump={jump}"):
        Kink(1.0, jump)


def test_values_by_hand() -> None:
    """H, both slopes and H'' before, at and behind r = 2."""
    H, r = Kink(2.0, jump=3.0), tensor(0.0, 1.0, 2.0, 4.0)
    assert H(r).tolist() == [0.0, 0.0, 0.0, 6.0]
    assert H.slope(r).tolist() == [0.0, 0.0, 3.0, 3.0]
    assert H.slope(r, side="left").tolist() == [0.0, 0.0, 0.0, 3.0]
    assert H.second(r).tolist() == [0.0] * 4
    assert (H.kinks, H.hinges, H.wall) == (((2.0, 3.0),), ((2.0, 3.0, 0.0),), math.inf)
    assert (H.length_scale, H.recession_slope, H.initial_slope) == (2 + 1 / 3, 3.0, 0.0)


def test_algebra() -> None:
    """Multiples give the jump, equal radii merge, r ↦ H(ar) has its kink at radius/a."""
    assert 5 * Kink(1.0) == Kink(1.0, 5.0) == Kink(1.0, 2.0) + Kink(1.0, 3.0)
    assert Kink(1.0) + Kink(2.0) == Sum((Kink(1.0), Kink(2.0)))
    assert Kink(3.0, 2.0).dilate(4.0) == Kink(0.75, 8.0)
    assert parse("5*kink(1)") == Kink(1.0, 5.0)
    assert [str(Kink(1.0, jump)) for jump in (0.0, 1.0, 5.0)] == ["0*kink(1)", "kink(1)", "5*kink(1)"]
    with pytest.raises(CurvatureError, match="beyond float64"):
        Kink(1e-300).dilate(1e20)


def test_radius_formulas() -> None:
    """H' = c at the kink up to c < jump; H = cr at radius/(1 − c/jump), to the last digits below the jump too."""
    H = Kink(2.0, jump=3.0)
    assert H.radius_at_slope(tensor(0.0, 2.9, 3.0, 4.0)).tolist() == [2.0, 2.0, math.inf, math.inf]
    assert H.radius_at_chord(tensor(0.0, 1.5, 3.0, 4.0)).tolist() == [2.0, 4.0, math.inf, math.inf]
    near = 3.0 * (1 - 2.0**-40)
    assert worst(H.radius_at_chord(tensor(near)), [2.0 * 2.0**40]) < 1e-15
    assert bool(torch.isinf((0.0 * H).radius_at_slope(tensor(0.0, 1.0))).all())
    assert (0.0 * H).length_scale == math.inf


def test_narrow_radii_keep_their_digits() -> None:
    """r − radius of float32 radii is taken in float64."""
    r = torch.tensor([0.3 * (1 + 1e-5)], dtype=torch.float32)
    assert worst(Kink(0.3)(r), Kink(0.3)(r.double())) < 1e-7


def test_growth() -> None:
    """ψ falls behind a kink, by symbols; without a jump there is none."""
    assert not Kink(1.0).is_superquadratic()
    assert Kink(1.0).is_superquadratic().how == "symbolic"
    assert Kink(1.0, 0.0).is_superquadratic()
    assert (Power(4.0) + Kink(1.0)).is_superquadratic()
