"""Powers: H(r) = scale · r^p, p ≥ 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature.parameter import Number, same
from icm.curvature.shape import Curvature, Verdict, check_scale, number, scaled, set_numbers, times
from icm.errors import CurvatureError


@dataclass(frozen=True)
class Power(Curvature):
    """H(r) = scale · r^exponent, exponent ≥ 1, scale ≥ 0.

    Exponent 2 gives gradient descent (Q* = n G / (2 scale)); larger ones pull the singular values together,
    by a factor of at most exponent − 1 in the condition number; smaller ones push them apart.

    Raises CurvatureError for an exponent below 1 (then H is not convex at any radius) or a negative scale.
    """

    exponent: Number
    scale: Number = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, "exponent", "scale")
        if not (math.isfinite(self.exponent) and self.exponent >= 1):
            raise CurvatureError(
                f"Power(exponent={self.exponent}): r^p is convex only for finite p ≥ 1; "
                "below 1 convexity fails at every radius, first at r = 0",
                radius=0.0,
            )
        check_scale(self.scale, "Power scale")

    def _value(self, r: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.zeros_like(r)  # not 0 · ∞
        return self.scale * r**self.exponent

    def _slope(self, r: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.zeros_like(r)
        return self.scale * self.exponent * r ** (self.exponent - 1)

    def _second(self, r: Tensor) -> Tensor:
        p = self.exponent
        if p == 1 or self.scale == 0:
            return torch.zeros_like(r)
        return self.scale * p * (p - 1) * r ** (p - 2)

    def multiply(self, factor: float) -> Power:
        return replace(self, scale=scaled(self.scale, factor))

    def stretch(self, a: float) -> Power:
        return replace(self, scale=scaled(self.scale, a, self.exponent))

    def merge(self, other: Curvature) -> Power | None:
        if isinstance(other, Power) and same(other.exponent, self.exponent):
            return replace(self, scale=self.scale + other.scale)
        return None

    def is_superquadratic(self) -> Verdict:
        return Verdict(self.exponent >= 2 or self.scale == 0, "symbolic")

    @property
    def recession_slope(self) -> float:
        if self.scale == 0:
            return 0.0
        return math.inf if self.exponent > 1 else self.scale

    @property
    def length_scale(self) -> float:
        return math.inf if self.scale == 0 else self.scale ** (-1 / self.exponent)

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        p = self.exponent
        if p == 1 or self.scale == 0:
            return torch.where(slope >= self.recession_slope, math.inf, 0.0).to(slope)
        return (slope / (self.scale * p)) ** (1 / (p - 1))

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        return self.radius_at_slope(self.exponent * slope) if self.exponent > 1 else self.radius_at_slope(slope)

    def cvxpy(self, t: Any) -> Any:
        import cvxpy

        # approx=False: power cones carry any real p, second-order cones only rational ones.
        return self.scale * cvxpy.power(t, self.exponent, approx=False)

    def sympy(self, r: Any) -> Any:
        import sympy

        return sympy.nsimplify(self.scale, rational=True) * r ** sympy.nsimplify(self.exponent, rational=True)

    def __str__(self) -> str:
        return times(self.scale, "r" if self.exponent == 1 else f"r^{number(self.exponent)}")
