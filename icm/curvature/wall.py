"""Walls: H = 0 up to a radius and +∞ beyond it, so that no update is longer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm.curvature.parameter import Number
from icm.curvature.shape import Curvature, Verdict, check_radius, number, scaled, set_numbers
from icm.errors import CurvatureError


@dataclass(frozen=True)
class Wall(Curvature):
    """H(r) = 0 for r ≤ radius and +∞ beyond, radius > 0: the constraint ‖Q‖₂ ≤ radius.

    Alone it makes the update radius · UVᵀ for G = U diag(g) Vᵀ. It is the same under every multiple, 0 included:
    c·H scales values, and the radii that H allows stay what they are.

    At r = radius the left slope is 0 and the right slope +∞. H'' counts as 0 everywhere, so that a sum with a wall
    has the second derivative of its finite part.

    Raises CurvatureError for a radius that is not finite and positive.
    """

    radius: Number

    def __post_init__(self) -> None:
        set_numbers(self, "radius")
        if self.radius == 0:
            raise CurvatureError("Wall(radius=0): only Q = 0 would be left; give a finite radius > 0", radius=0.0)
        check_radius(self)

    def _value(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r).masked_fill(r > self.radius, math.inf)

    def _slope(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r).masked_fill(r >= self.radius, math.inf)

    def _left_slope(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r).masked_fill(r > self.radius, math.inf)

    def _second(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r)

    def multiply(self, factor: float) -> Wall:
        return self

    def stretch(self, a: float) -> Wall:
        return Wall(scaled(self.radius, a, -1.0))

    def merge(self, other: Curvature) -> Wall | None:
        return min(self, other, key=lambda wall: wall.radius) if isinstance(other, Wall) else None

    @property
    def wall(self) -> float:
        return self.radius

    def is_superquadratic(self) -> Verdict:
        # ψ is 0 up to the wall, and h(s) = H(√s) is convex as the indicator of an interval.
        return Verdict(True, "symbolic")

    @property
    def recession_slope(self) -> float:
        return math.inf

    @property
    def length_scale(self) -> float:
        return self.radius

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        return torch.full_like(slope, self.radius)

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        return torch.full_like(slope, self.radius)

    def cvxpy(self, t: Any) -> Any:
        from cvxpy.transforms.indicator import indicator

        # The indicator of all constraints is one number; 0 · t gives it the shape of t.
        return 0 * t + indicator([t <= self.radius])

    def sympy(self, r: Any) -> Any:
        import sympy

        return sympy.Piecewise((0, r <= sympy.nsimplify(self.radius, rational=True)), (sympy.oo, True))

    def __str__(self) -> str:
        return f"wall({number(self.radius)})"
