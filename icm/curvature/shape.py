"""What a curvature is: H: [0, ∞) → [0, ∞], H(0) = 0, convex, nondecreasing; and the algebra of such functions.

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
from icm.errors import CurvatureError, InputError

Side = Literal["left", "right"]


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
    (numbers and lists become float64). `c * H` for c ≥ 0, `H1 + H2` and `H.dilate(a)` are curvatures again.
    """

    # --- what a family provides -------------------------------------------------------------------------------

    @abstractmethod
    def _value(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def _slope(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def _second(self, r: Tensor) -> Tensor: ...

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
    def kinks(self) -> tuple[tuple[float, float], ...]:
        """(radius, jump of H') at every kink with radius > 0; none for a smooth H."""
        return ()

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
        slope = self._slope(r)
        return slope.where(r > 0, torch.zeros_like(slope)) if side == "left" else slope

    def second(self, r: Any) -> Tensor:
        """H''(r) away from kinks; the limit from the right at r = 0 (infinite for powers below 2)."""
        return self._second(_radii(r))

    @property
    def initial_slope(self) -> float:
        """H'(0+); where it is positive, small gradients are answered by Q = 0."""
        return float(self._slope(torch.zeros((), dtype=torch.float64)))

    @property
    def length_scale(self) -> float:
        """The radius with H(r) = 1, H's own unit of length: H.dilate(a) has it divided by a."""
        return float(_invert(self._value, torch.ones((), dtype=torch.float64), self._log_range))

    def radius_at_slope(self, slope: Tensor) -> Tensor:
        """sup {r : H'(r) ≤ slope}, elementwise: the derivative of the conjugate H*; infinite where H' stays below."""
        return _invert(self._slope, slope, self._log_range)

    def balancing_radius(self, slope: Tensor) -> Tensor:
        """Where H' reaches `slope`, or H's own length where it never does or does at once: a unit to solve in."""
        radius, own = self.radius_at_slope(slope), self.length_scale
        return torch.where(torch.isfinite(radius) & (radius > 0), radius, own if math.isfinite(own) else 1.0)

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        """An upper bound of sup {r : H(r) ≤ slope · r}, elementwise; infinite where H stays below the line."""
        return _invert(lambda r: self._value(r) / r, slope, self._log_range)

    def dilate(self, a: float) -> Curvature:
        """r ↦ H(a·r) for a > 0. Raises CurvatureError for any other a."""
        if not (math.isfinite(a) and a > 0):
            raise CurvatureError(f"dilate({a}): a dilation needs a finite factor > 0; for H = 0 multiply by 0")
        return self.stretch(float(a))

    def __mul__(self, factor: float) -> Curvature:
        if isinstance(factor, Curvature):
            raise CurvatureError("a product of two curvatures need not be convex; add them, or use Custom")
        if not isinstance(factor, (int, float)):
            return NotImplemented
        check_scale(factor, "multiple")
        return self.multiply(float(factor))

    __rmul__ = __mul__

    def __add__(self, other: Curvature) -> Curvature:
        if not isinstance(other, Curvature):
            return NotImplemented
        return add(self, other)

    def merge(self, other: Curvature) -> Curvature | None:
        """self + other as one summand where the family allows it, else None."""
        return None


@dataclass(frozen=True)
class Sum(Curvature):
    """H = Σ parts, made by `+`; it is flat (no sums inside) and like parts are merged."""

    summands: tuple[Curvature, ...]

    @property
    def parts(self) -> tuple[Curvature, ...]:
        return self.summands

    @property
    def _log_range(self) -> float:
        return min(part._log_range for part in self.parts)

    def _value(self, r: Tensor) -> Tensor:
        return _total(part._value(r) for part in self.parts)

    def _slope(self, r: Tensor) -> Tensor:
        return _total(part._slope(r) for part in self.parts)

    def _second(self, r: Tensor) -> Tensor:
        return _total(part._second(r) for part in self.parts)

    def multiply(self, factor: float) -> Curvature:
        return Sum(tuple(part.multiply(factor) for part in self.parts))

    def stretch(self, a: float) -> Curvature:
        return Sum(tuple(part.stretch(a) for part in self.parts))

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        # H ≥ each part, so each part's radius bounds the sum's; a linear part takes its share of the slope first.
        linear = sum(part.initial_slope for part in self.parts)
        radii = [part.radius_at_chord((slope - linear + part.initial_slope).clamp(min=0)) for part in self.parts]
        return torch.stack(radii).amin(0)

    @property
    def kinks(self) -> tuple[tuple[float, float], ...]:
        jumps: dict[float, float] = {}
        for part in self.parts:
            for radius, jump in part.kinks:
                jumps[radius] = jumps.get(radius, 0.0) + jump
        return tuple(sorted(jumps.items()))

    @property
    def wall(self) -> float:
        return min(part.wall for part in self.parts)

    @property
    def recession_slope(self) -> float:
        return sum(part.recession_slope for part in self.parts)

    def is_superquadratic(self) -> Verdict:
        """Sums of super-quadratic parts are; otherwise ψ is decided by the singular part, or on a grid."""
        verdicts = [part.is_superquadratic() for part in self.parts]
        if all(verdicts):
            return Verdict(True, "grid" if any(v.how == "grid" for v in verdicts) else "symbolic")
        if all(v.how == "symbolic" for v in verdicts):
            # A failing power r^p, p < 2, has ψ' ~ −s^{p/2−2}, more singular at 0 than any ψ' > 0 among the families.
            return Verdict(False, "symbolic")
        return superquadratic_on_grid(self)

    def cvxpy(self, t: Any) -> Any:
        return sum(part.cvxpy(t) for part in self.parts)

    def sympy(self, r: Any) -> Any:
        return sum(part.sympy(r) for part in self.parts)

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.parts)


def add(first: Curvature, second: Curvature) -> Curvature:
    """first + second, flattened, like parts merged."""
    parts = list(first.parts)
    for new in second.parts:
        for i, old in enumerate(parts):
            if (merged := old.merge(new)) is not None:
                parts[i] = merged
                break
        else:
            parts.append(new)
    return parts[0] if len(parts) == 1 else Sum(tuple(parts))


def set_numbers(H: Curvature, *names: str) -> None:
    """Make the named fields of a frozen family floats. Raises CurvatureError for what is not a number."""
    for name in names:
        given = getattr(H, name)
        try:
            if isinstance(given, (str, bytes)):
                raise TypeError
            object.__setattr__(H, name, float(given))
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


def number(x: float) -> str:
    """`x` as the grammar writes it: every digit it has, and no ".0"."""
    return str(int(x)) if x == int(x) and abs(x) < 1e15 else repr(float(x))


def times(factor: float, text: str) -> str:
    """`factor*text`, or `text` alone for a factor of 1."""
    return text if factor == 1 else f"{number(factor)}*{text}"


def superquadratic_on_grid(H: Curvature, decades: float = 6.0, points: int = 481) -> Verdict:
    """Whether ψ is nondecreasing on a logarithmic grid around H's own length scale, to rounding."""
    center = H.length_scale
    center = center if math.isfinite(center) and center > 0 else 1.0
    r = center * torch.logspace(-decades, decades, points, dtype=torch.float64)
    psi = H._slope(r) / (2 * r)
    psi = psi[torch.isfinite(psi)]
    return Verdict(bool((psi.diff() >= -1e-12 * psi[1:].abs()).all()), "grid")


def _radii(r: Any) -> Tensor:
    r = to_tensor(r, "r")
    if not bool((r >= 0).all()):
        raise InputError(f"r={float(r[~(r >= 0)].flatten()[0])}: radii are lengths ‖Qζ‖, so r ≥ 0 and not NaN")
    return r


def _total(terms: Any) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first


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
