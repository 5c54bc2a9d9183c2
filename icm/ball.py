"""Numbers with a bound on their error, batched: midpoint ± radius in float64, every rounding counted in the radius.

A margin written with these is known as well as what goes into it: `rigour` is that of the least certain operand, and a
plain tensor or number counts as exactly the floats it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm.rigour import Rigour

_EPS = torch.finfo(torch.float64).eps  # twice the error of a rounding, so that the radius's own are covered too
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Ball:
    """The real numbers within `radius` of `middle`, elementwise, both float64 tensors of one shape.

    `rigour` says what the radius rests on: ENCLOSED if it is proved in ball arithmetic, CERTIFIED if it follows from
    optimality conditions evaluated in float64 with measured error constants.
    """

    middle: Tensor
    radius: Tensor
    rigour: Rigour = Rigour.ENCLOSED

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", self.radius.broadcast_to(self.middle.shape))

    @classmethod
    def of(cls, x: Ball | Tensor | float) -> Ball:
        """x itself, or the floats it holds as exact numbers."""
        if isinstance(x, Ball):
            return x
        middle = torch.as_tensor(x, dtype=torch.float64)
        return cls(middle, torch.zeros_like(middle))

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor, rigour: Rigour = Rigour.ENCLOSED) -> Ball:
        """The numbers from lower to upper."""
        middle = 0.5 * lower + 0.5 * upper
        middle = middle.where(torch.isfinite(middle), 0.0)
        radius = torch.maximum(upper - middle, middle - lower)
        return cls(middle, radius + _EPS * radius + _TINY * (radius > 0), rigour)

    @property
    def lower(self) -> Tensor:
        """A lower bound, elementwise."""
        end = self.middle - self.radius
        return (end - _EPS * end.abs()).where(self.radius > 0, self.middle)

    @property
    def upper(self) -> Tensor:
        """An upper bound, elementwise."""
        return -(-self).lower

    @property
    def shape(self) -> torch.Size:
        return self.middle.shape

    @property
    def ndim(self) -> int:
        return self.middle.ndim

    def __getitem__(self, index: Any) -> Ball:
        return Ball(self.middle[index], self.radius[index], self.rigour)

    def __neg__(self) -> Ball:
        return Ball(-self.middle, self.radius, self.rigour)

    def __add__(self, other: Ball | Tensor | float) -> Ball:
        other = Ball.of(other)
        return _rounded(self.middle + other.middle, self.radius + other.radius, self, other)

    def __sub__(self, other: Ball | Tensor | float) -> Ball:
        return self + -Ball.of(other)

    def __mul__(self, other: Ball | Tensor | float) -> Ball:
        other = Ball.of(other)
        radius = _scaled(self.middle, other.radius) + _scaled(other.middle, self.radius)
        return _rounded(self.middle * other.middle, radius + _scaled(self.radius, other.radius), self, other)

    def __truediv__(self, other: Ball | Tensor | float) -> Ball:
        """Unbounded where the divisor may be 0."""
        other = Ball.of(other)
        ratio = self.middle / other.middle
        least = other.middle.abs() - other.radius
        radius = (self.radius + _scaled(ratio, other.radius)) / least * (1 + 4 * _EPS)
        away = (least > 0) & torch.isfinite(ratio)
        return _rounded(ratio.where(away, 0.0), radius.where(away, torch.inf), self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Tensor | float) -> Ball:
        return -self + other

    def __rtruediv__(self, other: Tensor | float) -> Ball:
        return Ball.of(other) / self

    def __pow__(self, p: float) -> Ball:
        """x^p for x ≥ 0; the part of the ball below 0 is left out."""
        if p < 0:
            return 1.0 / self**-p
        return self.increasing(lambda x: x**p)

    def root(self, p: float) -> Ball:
        """x^{1/p} for x ≥ 0 and p > 0: the exponent 1/p is rounded, which counts with |log x|/p."""
        far = max(
            (float(end.log().abs().nan_to_num(0.0, 0.0, 0.0).max()) for end in (self.lower, self.upper)), default=0
        )
        return self.increasing(lambda x: x ** (1 / p), 4 * _EPS + _EPS * far / p)

    def __abs__(self) -> Ball:
        """|x|."""
        return Ball(self.middle.abs(), self.radius, self.rigour)

    def abs(self) -> Ball:
        """|x|."""
        return abs(self)

    def log(self) -> Ball:
        """log x for x > 0, unbounded where x may be 0."""
        low, high = self.lower.log(), self.upper.log()
        slack = 4 * _EPS * (1 + torch.maximum(low.abs(), high.abs()))
        known = self.lower > 0
        return Ball.between((low - slack).where(known, -torch.inf), (high + slack).where(known, torch.inf), self.rigour)

    def sqrt(self) -> Ball:
        """√x for x ≥ 0; the part of the ball below 0 is left out."""
        return self.increasing(torch.sqrt)

    def increasing(self, function: Callable[[Tensor], Tensor], error: float = 4 * _EPS) -> Ball:
        """An increasing function of x ≥ 0 whose float64 values have at most this relative error."""
        low, high = function(self.lower.clamp(min=0)), function(self.upper.clamp(min=0))
        return Ball.between(low - error * low.abs(), high + error * high.abs(), self.rigour)

    def clamp(self, min: float) -> Ball:
        """max(x, min)."""
        lowest = self.lower.clamp(min=min)
        return Ball.between(lowest, torch.maximum(self.upper, lowest), self.rigour)

    def sum(self, dim: int = -1) -> Ball:
        """Σ x over a dimension."""
        total = self.middle.sum(dim)
        rounding = _EPS * self.middle.shape[dim] * self.middle.abs().sum(dim)
        radius = ((self.radius.sum(dim) + rounding) * (1 + 1e-12) + _TINY).where(torch.isfinite(total), torch.inf)
        return Ball(total.where(torch.isfinite(total), 0.0), radius, self.rigour)

    def amin(self, dim: int = -1) -> Ball:
        """The least of x over a dimension; unbounded if that is empty."""
        if not self.middle.shape[dim]:
            middle = self.middle.sum(dim)
            return Ball(middle, torch.full_like(middle, torch.inf), self.rigour)
        return Ball.between(self.lower.amin(dim), self.upper.amin(dim), self.rigour)

    def amax(self, dim: int = -1) -> Ball:
        """The largest of x over a dimension."""
        return -(-self).amin(dim)

    def where(self, condition: Tensor, other: Ball | Tensor | float) -> Ball:
        """x where the condition holds, `other` elsewhere."""
        other = Ball.of(other)
        middle, radius = self.middle.where(condition, other.middle), self.radius.where(condition, other.radius)
        return Ball(middle, radius, min(self.rigour, other.rigour))

    def __repr__(self) -> str:
        return f"Ball({self.middle}, ± {self.radius}, {self.rigour})"


def norm(x: Ball) -> Ball:
    """‖x‖₂ over the last dimension."""
    size = (x.middle.abs() + x.radius).amax(-1, keepdim=True)
    size = size.where((size > 0) & torch.isfinite(size), 1.0)
    scaled = x / size
    return (scaled * scaled).sum(-1).sqrt() * size[..., 0]


def stack(balls: list[Ball], dim: int = -1) -> Ball:
    """Balls of one shape along a new dimension."""
    rigour = min(ball.rigour for ball in balls)
    return Ball(torch.stack([b.middle for b in balls], dim), torch.stack([b.radius for b in balls], dim), rigour)


def _scaled(factor: Tensor, radius: Tensor) -> Tensor:
    """|factor| · radius, 0 where either is 0, whatever the other."""
    return (factor.abs() * radius).where((factor != 0) & (radius != 0), 0.0)


def _rounded(middle: Tensor, radius: Tensor, *operands: Ball) -> Ball:
    radius = radius * (1 + 4 * _EPS) + _EPS * middle.abs() + _TINY
    radius = radius.where(torch.isfinite(middle), torch.inf)
    return Ball(middle.where(torch.isfinite(middle), 0.0), radius, min(b.rigour for b in operands))
