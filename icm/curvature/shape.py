"""What a curvature is: H: [0, ∞) → [0, ∞], H(0) = 0, convex, nondecreasing; and what every such H can do.

ψ denotes the derivative of h(s) = H(√s), so ψ(s) = H'(√s) / (2√s). H grows super-quadratically when ψ is
nondecreasing, i.e. when h is convex (Su, arXiv 2511.00674, Theorem 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from icm.arrays import to_tensor
from icm.curvature.parameter import Number, number_of
from icm.errors import CurvatureError, InputError

Side = Literal["left", "right"]

_ROUNDING = 1e-15  # relative error of H(r)/r


@dataclass(frozen=True)
class Verdict:
    """An answer that says how it was reached; truthy when the property holds."""

    holds: bool
    how: Literal["symbolic", "grid"]

    def __bool__(self) -> bool:
        return self.holds


class Curvature(ABC):
    """A convex nondecreasing H with H(0) = 0.

    H(r), H.slope(r) and H.second(r) take radii r ≥ 0 of any shape and return a tensor of that shape and dtype
    (numbers and lists become float64). `c * H` for c ≥ 0, `H1 + H2` and `H.dilate(a)` are curvatures again. Numbers may
    be given as tensors of one entry; where one requires grad, so do the solutions of a solve with H (see `parameter`).
    """

    # --- what a family provides -------------------------------------------------------------------------------

    @abstractmethod
    def _value(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def _slope(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def _second(self, r: Tensor) -> Tensor: ...

    def _left_slope(self, r: Tensor) -> Tensor:
        """H'(r−) for r > 0; a family with kinks or a wall overrides it."""
        return self._slope(r)

    @abstractmethod
    def multiply(self, factor: float) -> Curvature:
        """r ↦ factor · H(r), factor ≥ 0."""

    @abstractmethod
    def stretch(self, a: float) -> Curvature:
        """r ↦ H(a r), a > 0, unchecked; `dilate` is the public name."""

    @abstractmethod
    def is_superquadratic(self) -> Verdict:
        """Whether ψ(s) = H'(√s)/(2√s) is nondecreasing, and how that was decided."""

    @property
    @abstractmethod
    def recession_slope(self) -> float:
        """lim H'(r) as r → ∞; the program is bounded for every G exactly when it is infinite."""

    @abstractmethod
    def cvxpy(self, t: Any) -> Any:
        """H(t) as a cvxpy expression, t affine and ≥ 0 (an epigraph variable of ‖Qζ‖ serves)."""

    @abstractmethod
    def sympy(self, r: Any) -> Any:
        """H(r) as a sympy expression in the symbol r."""

    @property
    def _log_range(self) -> float:
        """|log r| up to which H can be evaluated; searches stay inside."""
        return 690.0

    # --- what follows -----------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Curvature, ...]:
        """The summands; a family of its own is its single part."""
        return (self,)

    @property
    def hinges(self) -> tuple[tuple[float, float, float], ...]:
        """(c, jump, rise), sorted by c ≥ 0: Σ jump·(r − c)₊ + ½·rise·(r − c)₊² is the piecewise quadratic share of H.

        That share is all of a Kink or Tabulated and nothing of any other family; jump ≥ 0, rise has either sign.
        """
        return ()

    @property
    def kinks(self) -> tuple[tuple[float, float], ...]:
        """(radius, jump of H') at every kink with 0 < radius < wall, sorted; none for a smooth H."""
        return tuple((c, jump) for c, jump, _ in self.hinges if 0 < c < self.wall and jump > 0)

    @property
    def wall(self) -> float:
        """The radius beyond which H = +∞; infinite when there is none."""
        return math.inf

    def __call__(self, r: Any) -> Tensor:
        """H(r)."""
        return self._value(_radii(r))

    def slope(self, r: Any, side: Side = "right") -> Tensor:
        """The one-sided derivative H'(r±); at r = 0 the left slope is 0, since H is flat to the left by convention.

        Raises InputError for a side other than "left" or "right".
        """
        if side not in ("left", "right"):
            raise InputError(f"side={side!r}: choose 'left' or 'right'")
        r = _radii(r)
        if side == "right":
            return self._slope(r)
        slope = self._left_slope(r)
        return slope.where(r > 0, torch.zeros_like(slope))

    def second(self, r: Any) -> Tensor:
        """H''(r), from the right where the two sides differ (infinite at r = 0 for powers below 2).

        Kinks add nothing to it; from a wall on it stays what it is just inside.
        """
        return self._second(_radii(r))

    @property
    def initial_slope(self) -> float:
        """H'(0+); where it is positive, small gradients are answered by Q = 0."""
        return float(self._slope(torch.zeros((), dtype=torch.float64)))

    @property
    def length_scale(self) -> float:
        """The radius with H(r) = 1, or the wall before it: H's own unit of length, which H.dilate(a) has divided by a.

        Infinite for an H that never reaches 1.
        """
        if self.recession_slope == 0:
            return math.inf
        return min(float(_invert(self._value, torch.ones((), dtype=torch.float64), self._log_range)), self.wall)

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        """sup {r : H'(r) ≤ slope}, elementwise: the derivative of the conjugate H*; infinite where H' stays below.

        A slope within the jump of a kink gives the kink's radius to the last digit, one that H' reaches nowhere
        else the wall.
        """
        radius = self._within(_invert(self._slope, slope, self._log_range), slope)
        for c, _ in self.kinks:
            at = torch.full((), c, dtype=slope.dtype, device=slope.device)
            radius = torch.where((self._left_slope(at) <= slope) & (slope < self._slope(at)), at, radius)
        return radius

    def balancing_radius(self, slope: Tensor) -> Tensor:
        """Where H' reaches `slope`, or H's own length where it never does or does at once: a unit to solve in."""
        radius, own = self.radius_at_slope(slope), self.length_scale
        return torch.where(torch.isfinite(radius) & (radius > 0), radius, own if math.isfinite(own) else 1.0)

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        """An upper bound of sup {r : H(r) ≤ slope · r}, elementwise; infinite where H stays below the line."""
        # H(r)/r rises, from H = 0 near the origin too. The slack keeps its rounding from cutting the radius short.
        slack = slope * (1 + _ROUNDING)
        return self._within(_invert(lambda r: self._value(r) / r, slack, self._log_range), slope)

    def _within(self, radius: Tensor, slope: Tensor) -> Tensor:
        """`radius`, infinite where H' stays below `slope`, and inside the wall."""
        if self.hinges:  # H ends in a line, which may overflow before the search does
            radius = torch.where(slope >= self.recession_slope, math.inf, radius)
        return radius.clamp(max=self.wall)

    def dilate(self, a: Number) -> Curvature:
        """r ↦ H(a·r) for a > 0. Raises CurvatureError for any other a."""
        a = number_of(a)
        if not (math.isfinite(a) and a > 0):
            raise CurvatureError(f"dilate({a}): a dilation needs a finite factor > 0; for H = 0 multiply by 0")
        return self.stretch(a)

    def __mul__(self, factor: Number) -> Curvature:
        if isinstance(factor, Curvature):
            raise CurvatureError("a product of two curvatures need not be convex; add them, or use Custom")
        if not isinstance(factor, (int, float, Tensor)) or (isinstance(factor, Tensor) and factor.numel() != 1):
            return NotImplemented
        factor = number_of(factor)
        check_scale(factor, "multiple")
        return self.multiply(factor)

    __rmul__ = __mul__

    def __add__(self, other: Curvature) -> Curvature:
        if not isinstance(other, Curvature):
            return NotImplemented
        from icm.curvature.sum import add

        return add(self, other)

    def merge(self, other: Curvature) -> Curvature | None:
        """self + other as one summand where the family allows it, else None."""
        return None


def set_numbers(H: Curvature, *names: str) -> None:
    """Make the named fields of a frozen family floats, or Parameters where they require grad.

    Raises CurvatureError for what is not a number.
    """
    for name in names:
        given = getattr(H, name)
        try:
            if isinstance(given, (str, bytes)):
                raise TypeError
            object.__setattr__(H, name, number_of(given))
        except (TypeError, ValueError, OverflowError) as error:
            raise CurvatureError(f"{type(H).__name__} {name}={given!r}: give a number that float64 holds") from error


def scaled(scale: float, factor: float, power: float = 1.0) -> float:
    """scale · factor^power. Raises CurvatureError where float64 cannot hold the product: 0 or ∞ would be another H."""
    try:
        product = scale * factor**power
    except OverflowError:
        product = math.inf
    if math.isinf(product) or (abs(product) < 2.2250738585072014e-308 and scale != 0 and factor != 0):
        raise CurvatureError(
            f"scale {scale:g} times {factor:g}^{power:g} is beyond float64; change the units of G and H together"
        )
    return product


def check_scale(scale: float, name: str) -> None:
    """Raise CurvatureError unless `scale` is finite and ≥ 0."""
    if not (math.isfinite(scale) and scale >= 0):
        raise CurvatureError(f"{name}={scale}: a curvature can only be multiplied by a finite number ≥ 0")


def check_radius(H: Any) -> None:
    """Raise CurvatureError unless H.radius is finite and > 0."""
    if not (math.isfinite(H.radius) and H.radius > 0):
        raise CurvatureError(
            f"{type(H).__name__}(radius={H.radius}): radii are lengths ‖Qζ‖; give a finite radius > 0", radius=H.radius
        )


def number(x: float) -> str:
    """`x` as the grammar writes it: every digit it has, and no ".0"."""
    return str(int(x)) if x == int(x) and abs(x) < 1e15 else repr(float(x))


def times(factor: float, text: str) -> str:
    """`factor*text`, or `text` alone for a factor of 1."""
    return text if factor == 1 else f"{number(factor)}*{text}"


def superquadratic_on_grid(H: Curvature, decades: float = 6.0, points: int = 481) -> Verdict:
    """Whether ψ is nondecreasing, to rounding, on a logarithmic grid around H's own length scale and around every
    hinge, inside the wall; and whether ψ' ∝ r H'' − H' ≥ 0 right behind every hinge, where a kink makes ψ fall first.
    """
    center = H.length_scale
    center = center if math.isfinite(center) and center > 0 else 1.0
    grid = center * torch.logspace(-decades, decades, points, dtype=torch.float64)
    hinges = torch.tensor([c for c, _, _ in H.hinges if 0 < c < H.wall], dtype=torch.float64)
    steps = torch.logspace(-decades, 0, 25, dtype=torch.float64)
    near = hinges[:, None] * torch.cat([1 - steps[:-1], 1 + steps])
    r = torch.cat([grid, hinges, near.flatten()]).sort().values
    r = r[r < H.wall]
    psi = H._slope(r) / (2 * r)
    psi = psi[torch.isfinite(psi)]
    rising = bool((psi.diff() >= -1e-12 * psi[1:].abs()).all())
    slope = H._slope(hinges)
    return Verdict(rising and bool((hinges * H._second(hinges) >= slope * (1 - 1e-12)).all()), "grid")


def _radii(r: Any) -> Tensor:
    r = to_tensor(r, "r")
    if not bool((r >= 0).all()):
        raise InputError(f"r={float(r[~(r >= 0)].flatten()[0])}: radii are lengths ‖Qζ‖, so r ≥ 0 and not NaN")
    return r


def _invert(increasing: Any, target: Tensor, log_range: float) -> Tensor:
    """sup {r : increasing(r) ≤ target} by bisection in log r, |log r| ≤ log_range."""
    low = torch.full_like(target, -log_range, dtype=torch.float64)
    high = torch.full_like(target, log_range, dtype=torch.float64)
    never = increasing(high.exp()) <= target
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = increasing(middle.exp()) <= target
        low, high = middle.where(below, low), high.where(below, middle)
    return high.exp().where(~never, torch.full_like(low, math.inf))
