"""Curvatures given as a function: any convex nondecreasing torch function, checked on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature.shape import Curvature, Verdict, check_scale, scaled, set_numbers, superquadratic_on_grid, times
from icm.errors import CurvatureError

_TOLERANCE = 1e-9  # relative slack of the grid checks: autograd slopes carry rounding
_GRID_POINTS = 601
_OVERFLOWING = 1e100  # values below this do not overflow within a grid step; then an infinity is a wall
_HALVINGS = 24  # of a grid interval, in search of kinks
_NEAREST, _NEAR = 1e-150, 1e-100  # stand for r = 0 in derivatives, where autograd of roots gives NaN


@dataclass(frozen=True)
class Custom(Curvature):
    """H(r) = scale · function(stretch_factor · r), function elementwise on float64 tensors, smooth for r > 0.

    The slopes come from autograd. On a logarithmic grid over `domain` (as far as the values stay finite) H is
    checked to be 0 at 0, nondecreasing and convex; between the grid points nothing is known, and the repr says so.
    `recession_slope` is read off the grid's end unless given. `cvxpy_form(t)` and `sympy_form(r)` supply the
    forms of `function` that the reference solver and symbolic work need.

    Raises CurvatureError, with the radius, where a check fails.
    """

    function: Callable[[Tensor], Tensor]
    name: str = "custom"
    scale: float = 1.0
    stretch_factor: float = 1.0
    domain: tuple[float, float] = (1e-6, 1e6)
    limit_slope: float | None = None
    cvxpy_form: Callable[[Any], Any] | None = None
    sympy_form: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        set_numbers(self, "scale", "stretch_factor")
        check_scale(self.scale, "Custom scale")
        low, high = self.domain
        if not (0 < low < high < math.inf):
            raise CurvatureError(f"Custom domain={self.domain}: give radii 0 < low < high to check between")
        _check(self)

    def _value(self, r: Tensor) -> Tensor:
        return (self.scale * self.function(self.stretch_factor * r.double())).to(r.dtype)

    def _slope(self, r: Tensor) -> Tensor:
        return self._derivatives(r, order=1)

    def _second(self, r: Tensor) -> Tensor:
        return self._derivatives(r, order=2)

    @property
    def _log_range(self) -> float:
        return 300.0 - abs(math.log(self.stretch_factor))  # r² must not overflow inside the user's function

    def _derivatives(self, r: Tensor, order: int) -> Tensor:
        x = self.stretch_factor * r.detach().double()
        y = _differentiate(self.function, x, order)
        if bool((undefined := ~torch.isfinite(y) & (x == 0)).any()):
            # Autograd of roots is NaN at 0: take the limit, which is 0 if it is still falling this close.
            near = _differentiate(self.function, torch.tensor([_NEAREST, _NEAR], dtype=x.dtype, device=x.device), order)
            y = torch.where(undefined, near[0].where(near[0].abs() > 0.9 * near[1].abs(), 0.0), y)
        return (self.scale * self.stretch_factor**order * y).to(r.dtype)

    def multiply(self, factor: float) -> Custom:
        return replace(self, scale=scaled(self.scale, factor))

    def stretch(self, a: float) -> Custom:
        low, high = self.domain
        return replace(self, stretch_factor=self.stretch_factor * a, domain=(low / a, high / a))

    def reaching(self, radius: float) -> Custom:
        """This curvature checked as far as `radius`: a solver asks for the radii that its solution takes in."""
        low, high = self.domain
        return self if radius <= high or not math.isfinite(radius) else replace(self, domain=(low, radius))

    def is_superquadratic(self) -> Verdict:
        return superquadratic_on_grid(self)

    @property
    def recession_slope(self) -> float:
        if self.scale == 0:
            return 0.0
        if self.limit_slope is not None:
            return self.scale * self.stretch_factor * self.limit_slope
        end = torch.tensor([1e3, 1e6], dtype=torch.float64) * self.domain[1]
        slopes = self._slope(end)
        slopes = slopes[torch.isfinite(slopes)]
        settled = len(slopes) == 2 and bool(slopes[1] - slopes[0] <= 1e-6 * slopes[0])
        return float(slopes[-1]) if settled else math.inf

    def cvxpy(self, t: Any) -> Any:
        if self.cvxpy_form is None:
            raise CurvatureError(
                f"Custom curvature {self.name!r} has no cvxpy form; pass cvxpy_form=lambda t: …, or use method='newton'"
            )
        return self.scale * self.cvxpy_form(self.stretch_factor * t)

    def sympy(self, r: Any) -> Any:
        if self.sympy_form is None:
            raise CurvatureError(f"Custom curvature {self.name!r} has no sympy form; pass sympy_form=lambda r: …")
        return self.scale * self.sympy_form(self.stretch_factor * r)

    def __str__(self) -> str:
        return times(self.scale, f"{self.name}({times(self.stretch_factor, 'r')})")

    def __repr__(self) -> str:
        low, high = self.domain
        return f"Custom({self}, checked at {_GRID_POINTS} radii in [{low:g}, {high:g}], not between them)"


def _differentiate(function: Callable[[Tensor], Tensor], x: Tensor, order: int) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        y = function(x)
        for k in range(order):
            if not y.requires_grad:  # constant from here on
                return torch.zeros_like(x).detach()
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=k + 1 < order, materialize_grads=True)
    return y.detach()


def _check(H: Custom) -> None:
    low, high = H.domain
    grid = torch.logspace(math.log10(low), math.log10(high), _GRID_POINTS, dtype=torch.float64)
    r = torch.cat([torch.zeros(1, dtype=torch.float64), grid])
    try:
        value = H.function(H.stretch_factor * r)
    except Exception as error:
        raise CurvatureError(f"Custom {H.name!r} fails on a float64 tensor of radii: {error}") from error
    if not isinstance(value, Tensor) or value.shape != r.shape:
        raise CurvatureError(f"Custom {H.name!r} must map a tensor to one of the same shape, elementwise")
    value = H.scale * value.detach().double()
    if not abs(float(value[0])) <= 1e-300:
        raise CurvatureError(f"Custom {H.name!r}: H(0) = {float(value[0]):g}, must be 0; subtract it", radius=0.0)
    finite = torch.isfinite(value)
    overflow = len(r) if bool(finite.all()) else int((~finite).to(torch.int8).argmax())
    sudden = overflow < len(r) and float(value[overflow - 1]) < _OVERFLOWING * H.scale
    if bool(torch.isnan(value).any()) or overflow < 2 or sudden:
        bad = float(r[(~finite).to(torch.int8).argmax()])
        raise CurvatureError(
            f"Custom {H.name!r}: H({bad:g}) = {float(value[~finite][0])}; continue it with finite values, "
            "and add icm.Wall(radius) if larger radii are to be ruled out",
            radius=bad,
        )
    r, value = r[:overflow], value[:overflow]
    slope = H._slope(r)
    if not slope.isfinite()[1:].all():
        bad = float(r[1:][~slope.isfinite()[1:]][0])
        raise CurvatureError(f"Custom {H.name!r}: the slope at r = {bad:g} is not finite", radius=bad)
    initial = float(slope[0])  # H'(0+) decides whether Q = 0 is optimal, so it takes part in the check
    r, value, slope = r[1:], value[1:], slope[1:]
    rounding = _TOLERANCE * slope.abs().cummax(0).values
    _refuse(H, r, slope < -rounding, "decreases", "H must be nondecreasing")
    _refuse(H, r[:1], initial > slope[:1] * (1 + _TOLERANCE), "is not convex", "its slope falls")
    _refuse(H, r[1:], slope.diff() < -rounding[1:], "is not convex", "its slope falls")
    # Chords must lie between the end slopes, or autograd does not see what the values do (steps, detached parts).
    chord = value.diff() / r.diff()
    slack = 1e-6 * slope[1:].abs() + 64 * torch.finfo(torch.float64).eps * (value[1:].abs() + H.scale) / r.diff()
    mismatch = (chord < slope[:-1] - slack) | (chord > slope[1:] + slack)
    _refuse(H, r[1:], mismatch, "changes otherwise than its autograd slope says", "is it a smooth torch function?")
    _refuse_kinks(H, r, slope)


def _refuse_kinks(H: Custom, r: Tensor, slope: Tensor) -> None:
    """A smooth slope's rise over an interval shrinks with it; a kink's stays. Halve towards the larger rise."""
    low, high = r[:-1], r[1:]
    below, above = slope[:-1], slope[1:]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        at = H._slope(middle)
        left = at - below >= above - at
        low, below = torch.where(left, low, middle), torch.where(left, below, at)
        high, above = torch.where(left, middle, high), torch.where(left, at, above)
    kink = (above - below > 2.0 ** (-_HALVINGS / 2) * slope.diff()) & (above - below > _TOLERANCE * above)
    why = "its slope jumps there, and Custom must be smooth for r > 0; take the jump out and add icm.Kink(radius, jump)"
    _refuse(H, high, kink, "has a kink", why)


def _refuse(H: Custom, r: Tensor, failed: Tensor, what: str, why: str) -> None:
    if bool(failed.any()):
        radius = float(r[failed][0])
        raise CurvatureError(f"Custom {H.name!r} {what} at r = {radius:.6g}: {why}", radius=radius)
