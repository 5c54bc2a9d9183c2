"""Kinks: H(r) = jump · (r − radius)₊, whose slope jumps where an update becomes too long."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature.parameter import Number, same
from icm.curvature.shape import Curvature, Verdict, check_radius, check_scale, number, scaled, set_numbers, times
from icm.errors import CurvatureError


@dataclass(frozen=True)
class Kink(Curvature):
    """H(r) = jump · (r − radius)₊, radius > 0, jump ≥ 0: H' jumps from 0 to `jump` at r = radius.

    Added to a smooth H, it holds all singular values at one radius for a range of gradients.

    Raises CurvatureError for a radius that is not finite and positive, or a negative jump.
    """

    radius: Number
    jump: Number = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, "radius", "jump")
        check_scale(self.jump, "Kink jump")
        if self.radius == 0:
            raise CurvatureError(
                f"Kink(radius=0): a slope from r = 0 on is a line; use icm.Power(1.0, scale={number(self.jump)})",
                radius=0.0,
            )
        check_radius(self)

    def _value(self, r: Tensor) -> Tensor:
        # In float64: a narrow r − radius would lose the digits that H consists of.
        return (self.jump * (r.double() - self.radius).clamp(min=0)).to(r.dtype)

    def _slope(self, r: Tensor) -> Tensor:
        return self.jump * (r >= self.radius).to(r.dtype)

    def _left_slope(self, r: Tensor) -> Tensor:
        return self.jump * (r > self.radius).to(r.dtype)

    def _second(self, r: Tensor) -> Tensor:
        return torch.zeros_like(r)

    def multiply(self, factor: float) -> Kink:
        return replace(self, jump=scaled(self.jump, factor))

    def stretch(self, a: float) -> Kink:
        return Kink(scaled(self.radius, a, -1.0), scaled(self.jump, a))

    def merge(self, other: Curvature) -> Kink | None:
        if isinstance(other, Kink) and same(other.radius, self.radius):
            return replace(self, jump=self.jump + other.jump)
        return None

    @property
    def hinges(self) -> tuple[tuple[float, float, float], ...]:
        return ((self.radius, self.jump, 0.0),)

    def is_superquadratic(self) -> Verdict:
        # ψ(s) = jump/(2√s) falls beyond the kink.
        return Verdict(self.jump == 0, "symbolic")

    @property
    def recession_slope(self) -> float:
        return self.jump

    @property
    def length_scale(self) -> float:
        return math.inf if self.jump == 0 else self.radius + 1 / self.jump

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        return torch.where(slope >= self.jump, math.inf, self.radius).to(slope)

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        # H(r) = slope · r at r = radius/(1 − slope/jump); the difference jump − slope is exact where it is small.
        crossing = self.radius * (self.jump / (self.jump - slope))
        return torch.where(slope >= self.jump, math.inf, crossing).to(slope)

    def cvxpy(self, t: Any) -> Any:
        import cvxpy

        return self.jump * cvxpy.pos(t - self.radius)

    def sympy(self, r: Any) -> Any:
        import sympy

        radius, jump = (sympy.nsimplify(x, rational=True) for x in (self.radius, self.jump))
        return jump * sympy.Max(0, r - radius)

    def __str__(self) -> str:
        return times(self.jump, f"kink({number(self.radius)})")
