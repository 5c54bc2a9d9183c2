"""Walls: what is finite, what is not, and what multiples leave."""

from __future__ import annotations

import math

import cvxpy
import pytest
import sympy
import torch

from icm.curvature import Kink, Power, Wall, parse
from icm.errors import CurvatureError
from tests.oracles import tensor


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_radii(radius: float) -> None:
    """A radius is finite and positive."""
    with pytest.raises(CurvatureError, match=f"radius={radius:g}.*finite radius > 0"):
        Wall(radius)


def test_values_by_hand() -> None:
    """H, both slopes and H'' inside, at and beyond r = 2."""
    H, r = Wall(2.0), tensor(0.0, 1.0, 2.0, 4.0, math.inf)
    assert H(r).tolist() == [0.0, 0.0, 0.0, math.inf, math.inf]
    assert H.slope(r).tolist() == [0.0, 0.0, math.inf, math.inf, math.inf]
    assert H.slope(r, side="left").tolist() == [0.0, 0.0, 0.0, math.inf, math.inf]
    assert H.second(r).tolist() == [0.0] * 5
    assert (H.wall, H.length_scale, H.recession_slope, H.initial_slope) == (2.0, 2.0, math.inf, 0.0)
    assert (H.kinks, H.hinges) == ((), ())


def test_a_narrow_radius_is_at_its_wall() -> None:
    """The float32 next to 0.1 is the wall at 0.1, not beyond it, alone and in a sum."""
    r = torch.tensor([0.1, 0.11], dtype=torch.float32)
    for H in (Wall(0.1), Power(2.0) + Wall(0.1)):
        assert torch.isfinite(H(r)).tolist() == [True, False]


@pytest.mark.parametrize("factor", [0.0, 1e-300, 3.0])
def test_multiples_leave_it(factor: float) -> None:
    """c · wall is the wall, for c = 0 too: the domain stays."""
    assert factor * Wall(3.0) == Wall(3.0)
    assert (factor * (Power(2.0) + Wall(3.0))).wall == 3.0


def test_algebra() -> None:
    """The nearer of two walls is left, and r ↦ H(ar) has it at radius/a."""
    assert Wall(3.0) + Wall(2.0) == Wall(2.0) == Wall(2.0) + Wall(3.0)
    assert Wall(3.0).dilate(4.0) == Wall(0.75)
    assert (Power(2.0) + Wall(3.0) + Kink(1.0) + Wall(1.5)).wall == 1.5
    assert parse("wall(3)") == Wall(3.0)
    assert str(Wall(2.5)) == "wall(2.5)"


def test_every_slope_and_chord_ends_at_the_wall() -> None:
    """sup {r : H'(r) ≤ c} = sup {r : H(r) ≤ cr} = radius."""
    c = tensor(0.0, 1.0, 1e300)
    assert Wall(2.0).radius_at_slope(c).tolist() == [2.0] * 3
    assert Wall(2.0).radius_at_chord(c).tolist() == [2.0] * 3


def test_the_program_is_held_by_it() -> None:
    """min ½Σt² + wall(2) − Σ c t = at min(c, 2), as cvxpy solves it."""
    t = cvxpy.Variable(3, nonneg=True)
    H = 0.5 * Power(2.0) + Wall(2.0)
    c = tensor(1.0, 1.5, 5.0)
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(H.cvxpy(t)) - c.numpy() @ t)).solve(solver=cvxpy.CLARABEL)
    assert t.value == pytest.approx([1.0, 1.5, 2.0], abs=1e-6)


def test_symbols() -> None:
    """0 up to and at the wall, ∞ beyond."""
    r = sympy.Symbol("r", nonnegative=True)
    assert [Wall(2.0).sympy(r).subs(r, x) for x in (1, 2, 3)] == [0, 0, sympy.oo]


def test_growth() -> None:
    """A wall is super-quadratic, by symbols."""
    assert Wall(1.0).is_superquadratic()
    assert Wall(1.0).is_superquadratic().how == "symbolic"
