"""Exponentials: H(r) = scale · (e^{rate·r} − 1 − rate·r), quadratic near 0 and steep beyond 1/rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature.parameter import Number, same
from icm.curvature.shape import Curvature, Verdict, check_scale, number, scaled, set_numbers, times
from icm.errors import CurvatureError

_SERIES = 0.5  # below this rate·r the direct formula cancels; 14 Taylor terms reach 1e-16 there


@dataclass(frozen=True)
class Exponential(Curvature):
    """H(r) = scale · (e^{rate·r} − 1 − rate·r) = scale · Σ_{k≥2} (rate·r)^k / k!, rate > 0, scale ≥ 0.

    Raises CurvatureError for a rate that is not finite and positive, or a negative scale.
    """

    rate: Number
    scale: Number = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, "rate", "scale")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise CurvatureError(f"Exponential(rate={self.rate}): H increases only for a finite rate > 0")
        check_scale(self.scale, "Exponential scale")

    def _value(self, r: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.zeros_like(r)  # not 0 · ∞
        x = self.rate * r
        small = x.clamp(max=_SERIES)
        series = torch.zeros_like(x)
        for k in range(15, 1, -1):
            series = (series + 1) * small / k if k > 2 else (series + 1) * small * small / 2
        return self.scale * series.where(x < _SERIES, torch.expm1(x) - x)

    def _slope(self, r: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.zeros_like(r)
        return self.scale * self.rate * torch.expm1(self.rate * r)

    def _second(self, r: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.zeros_like(r)
        return self.scale * self.rate**2 * torch.exp(self.rate * r)

    def multiply(self, factor: float) -> Exponential:
        return replace(self, scale=scaled(self.scale, factor))

    def stretch(self, a: float) -> Exponential:
        return replace(self, rate=scaled(self.rate, a))

    def merge(self, other: Curvature) -> Exponential | None:
        if isinstance(other, Exponential) and same(other.rate, self.rate):
            return replace(self, scale=self.scale + other.scale)
        return None

    def is_superquadratic(self) -> Verdict:
        # h(s) = Σ_{k≥2} rate^k s^{k/2}/k! is a sum of convex powers.
        return Verdict(True, "symbolic")

    @property
    def recession_slope(self) -> float:
        return math.inf if self.scale > 0 else 0.0

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        if self.scale == 0:
            return torch.full_like(slope, math.inf)
        return torch.log1p(slope / (self.scale * self.rate)) / self.rate

    def cvxpy(self, t: Any) -> Any:
        import cvxpy

        return self.scale * (cvxpy.exp(self.rate * t) - 1 - self.rate * t)

    def sympy(self, r: Any) -> Any:
        import sympy

        rate, scale = (sympy.nsimplify(x, rational=True) for x in (self.rate, self.scale))
        return scale * (sympy.exp(rate * r) - 1 - rate * r)

    def __str__(self) -> str:
        return times(self.scale, f"exp({number(self.rate)})")
