"""Curvatures measured at points: the convex interpolant of a table of radii and values."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from icm.arrays import to_tensor
from icm.curvature.parameter import Parameter
from icm.curvature.projection import closest_convex
from icm.curvature.shape import Curvature, Verdict, number, scaled
from icm.curvature.spline import Piece, convex_spline, excess, lower_hull
from icm.errors import CurvatureError

_ROUNDING = 1e-12  # relative; values this far from convex are rounded, further away they are wrong
_REMEDY = "average or leave out what is noise, or pass project=True for the closest convex values"


@dataclass(frozen=True)
class Tabulated(Curvature):
    """The convex nondecreasing H with H(0) = 0 through the points (radii_i, values_i), in any order.

    H is piecewise quadratic (see `spline`): H' is continuous and H'(0+) = 0, except where the points force a kink,
    namely where two straight runs of three points or more meet, or where the first run starts at r = 0. Beyond the
    last radius H goes on as a line, so the program is unbounded for large G; the data say nothing there: add a
    Wall or a Power to bound it.

    With `project`, values that no such H meets are replaced by the closest ones that some H does, in least squares
    over all measurements, repeated radii included; `distance` is the root-mean-square residual (0.0 if none moved).
    `radii` and `values` hold the points in use, as sorted tuples without the origin.

    Raises CurvatureError, naming the points, for points that are not finite, negative radii, and no radius > 0; and,
    without `project`, for values that are negative, decreasing or not convex by more than rounding, H(0) ≠ 0, and
    repeated radii with different values. Raises MissingPackageError if a projection finds no cvxpy.
    """

    radii: Any
    values: Any
    project: InitVar[bool] = False
    distance: float = field(default=0.0, init=False, compare=False)

    def __post_init__(self, project: bool) -> None:
        for name in ("radii", "values"):
            if isinstance(given := getattr(self, name), Tensor) and given.requires_grad:
                raise _no_gradient(name, f"{name}.detach()")
        x, v = _points(self.radii, self.values)
        fault = _fault(x, v)
        if fault is None:
            table = dict(zip(x.tolist(), v.tolist(), strict=True))
            table.pop(0.0, None)
            x, v = (torch.tensor(list(part), dtype=torch.float64) for part in (table.keys(), table.values()))
        elif project:
            x, v = self._projected(x, v)
        else:
            raise fault
        object.__setattr__(self, "radii", tuple(x.tolist()))
        object.__setattr__(self, "values", tuple(v.tolist()))
        if not all(math.isfinite(entry) for piece in self._pieces for entry in piece):
            raise CurvatureError(
                "Tabulated: slopes or second derivatives between these points are beyond float64; "
                "change the units of radii and values, or leave out points that nearly coincide"
            )

    def _projected(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        positive = x > 0
        radii, where, count = x[positive].unique(return_inverse=True, return_counts=True)
        height = v.abs().amax().clamp(min=torch.finfo(v.dtype).tiny)  # values may be too large to add or square
        mean = torch.zeros_like(radii).index_add(0, where, v[positive] / height) / count
        closest = closest_convex(radii, mean, count)
        residual = v / height
        residual[positive] -= closest[where]
        object.__setattr__(self, "distance", float(height * residual.square().mean().sqrt()))
        return radii, height * closest

    @cached_property
    def _pieces(self) -> list[Piece]:
        x, v = (torch.tensor((0.0, *part), dtype=torch.float64) for part in (self.radii, self.values))
        return convex_spline(x, v)

    def _at(self, r: Tensor, right: bool = True) -> Tensor:
        """Start, value, slope, second and end slope (5, …) of the piece that holds r; at a start the piece to its right
        or left."""
        columns = torch.tensor(self._pieces, dtype=torch.float64, device=r.device).T.contiguous()
        piece = torch.bucketize(r.detach().double().contiguous(), columns[0], right=right) - 1
        return columns[:, piece.clamp(min=0)]

    def _value(self, r: Tensor) -> Tensor:
        start, value, slope, second, _ = self._at(r)
        x = r.double() - start
        return (value + x * (slope + 0.5 * second * x)).to(r.dtype)

    def _slope(self, r: Tensor) -> Tensor:
        start, _, slope, second, end = self._at(r)
        return torch.minimum(slope + second * (r.double() - start), end).to(r.dtype)  # no rounding beyond the end

    def _left_slope(self, r: Tensor) -> Tensor:
        right, left = self._at(r), self._at(r, right=False)
        return torch.where(left[0] < right[0], left[4].to(r.dtype), self._slope(r))

    def _second(self, r: Tensor) -> Tensor:
        return self._at(r)[3].to(r.dtype)

    def multiply(self, factor: float) -> Tabulated:
        if isinstance(factor, Parameter):
            raise _no_gradient("multiple", "float(a)")
        return self._moved(self.radii, [scaled(v, factor) for v in self.values], self.distance * factor)

    def stretch(self, a: float) -> Tabulated:
        if isinstance(a, Parameter):
            raise _no_gradient("dilation", "float(a)")
        return self._moved([scaled(x, a, -1.0) for x in self.radii], self.values, self.distance)

    def _moved(self, radii: Any, values: Any, distance: float) -> Tabulated:
        moved = Tabulated(radii, values)
        object.__setattr__(moved, "distance", distance)
        return moved

    @property
    def hinges(self) -> tuple[tuple[float, float, float], ...]:
        first = self._pieces[0]
        steps = [(first.start, first.slope, first.second)]
        steps += [(B.start, B.slope - A.end, B.second - A.second) for A, B in pairwise(self._pieces)]
        return tuple(step for step in steps if step[1] or step[2])

    def is_superquadratic(self) -> Verdict:
        # Beyond the last radius H' is constant, so ψ(s) = H'/(2√s) falls, unless H = 0.
        return Verdict(self.recession_slope == 0, "symbolic")

    @property
    def recession_slope(self) -> float:
        return self._pieces[-1].slope

    def cvxpy(self, t: Any) -> Any:
        import cvxpy

        terms = [jump * (cvxpy.pos(t - c) if c > 0 else t) for c, jump, _ in self.hinges if jump > 0]
        for A, B in pairwise(self._pieces):
            if A.second > 0:  # ½ huber(x) is ½ x² up to x = 1 and keeps its slope beyond
                width = B.start - A.start
                x = cvxpy.pos(t - A.start) if A.start > 0 else t
                terms.append(0.5 * A.second * width**2 * cvxpy.huber(x / width))
        return sum(terms, start=0 * t)

    def sympy(self, r: Any) -> Any:
        import sympy

        forms = []
        for piece in self._pieces:
            start, value, slope, second, _ = (sympy.Rational(entry) for entry in piece)
            forms.append(value + slope * (r - start) + second * (r - start) ** 2 / 2)
        ends = [r < sympy.Rational(piece.start) for piece in self._pieces[1:]]
        return sympy.Piecewise(*zip(forms, [*ends, True], strict=True))

    def __str__(self) -> str:
        points = zip(self.radii, self.values, strict=True)
        return f"tabulated({', '.join(f'{number(x)}, {number(v)}' for x, v in points)})"


def _points(radii: Any, values: Any) -> tuple[Tensor, Tensor]:
    """Radii and values (N,) in float64, sorted by radius. Raises CurvatureError for what no projection repairs."""
    x, v = to_tensor(radii, "radii").double().cpu(), to_tensor(values, "values").double().cpu()
    if x.ndim != 1 or x.shape != v.shape:
        raise CurvatureError(
            f"Tabulated: radii of shape {tuple(x.shape)} and values of shape {tuple(v.shape)}; "
            "give two lists of one length"
        )
    order = x.argsort(stable=True)
    x, v = x[order] + 0.0, v[order] + 0.0  # −0 becomes 0
    for i in (~(x.isfinite() & v.isfinite())).nonzero()[:1, 0].tolist():
        raise _error(x, v, (i,), "is not finite", "leave it out; for H = ∞ beyond a radius add icm.Wall")
    for i in (x < 0).nonzero()[:1, 0].tolist():
        raise _error(x, v, (i,), "has a negative radius", "radii are lengths ‖Qζ‖, so give r ≥ 0")
    if not bool((x > 0).any()):
        raise CurvatureError(f"Tabulated: {len(x)} point(s), none with a radius > 0; give at least one", radius=0.0)
    return x, v


def _no_gradient(what: str, remedy: str) -> CurvatureError:
    return CurvatureError(
        f"Tabulated: its {what} requires grad, and no gradient is kept through measured points: pass {remedy}, or a "
        "family with parameters (Power, Exponential, Kink)"
    )


def _fault(x: Tensor, v: Tensor) -> CurvatureError | None:
    """What keeps the sorted points from lying on a convex nondecreasing H with H(0) = 0, if anything does."""
    for i in ((x == 0) & (v != 0)).nonzero()[:1, 0].tolist():
        return _error(x, v, (i,), "is not at 0, where H(0) = 0", "subtract H(0) from all values, or pass project=True")
    for i in ((x.diff() == 0) & (v.diff() != 0)).nonzero()[:1, 0].tolist():
        return _error(x, v, (i, i + 1), "share a radius and differ in value", _REMEDY)
    for i in (v < 0).nonzero()[:1, 0].tolist():
        return _error(x, v, (i,), "has a negative value", f"H ≥ 0 = H(0); {_REMEDY}")
    for i in (v.diff() < -_ROUNDING * v[:-1]).nonzero()[:1, 0].tolist():
        return _error(x, v, (i, i + 1), "decrease", f"H must be nondecreasing; {_REMEDY}")
    fresh = torch.cat([x[:1] > 0, x.diff() > 0])
    x, v = (torch.cat([x.new_zeros(1), part[fresh]]) for part in (x, v))
    for a, b in pairwise(lower_hull(x, v)):
        above, unit = excess(x, v, a, b)
        if bool((above > _ROUNDING * unit).any()):
            worst = a + 1 + int((above / unit).argmax())
            return _error(x, v, (a, worst, b), "are not convex", f"the middle one is above the chord; {_REMEDY}", worst)
    return None


def _error(
    x: Tensor, v: Tensor, at: tuple[int, ...], what: str, remedy: str, where: int | None = None
) -> CurvatureError:
    names = [f"({float(x[i]):.15g}, {float(v[i]):.15g})" for i in at]
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    plural = "s" if len(names) > 1 else ""
    radius = float(x[at[-1] if where is None else where])
    return CurvatureError(f"Tabulated: the point{plural} (r, H) = {text} {what}: {remedy}", radius=radius)
