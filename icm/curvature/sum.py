"""Sums: H = Σ parts, of any families; the algebra that `+` makes of curvatures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icm.curvature.shape import Curvature, Verdict, superquadratic_on_grid


@dataclass(frozen=True)
class Sum(Curvature):
    """H = Σ parts, made by `+`; it is flat (no sums inside) and like parts are merged.

    Beyond the wall of any part H is +∞, whatever the others are there.
    """

    summands: tuple[Curvature, ...]

    @property
    def parts(self) -> tuple[Curvature, ...]:
        return self.summands

    @property
    def _log_range(self) -> float:
        return min(part._log_range for part in self.parts)

    def _value(self, r: Tensor) -> Tensor:
        inside = r.clamp(max=self.wall)
        return _total(part._value(inside) for part in self.parts).masked_fill(r > self.wall, math.inf)

    def _slope(self, r: Tensor) -> Tensor:
        inside = r.clamp(max=self.wall)
        return _total(part._slope(inside) for part in self.parts).masked_fill(r >= self.wall, math.inf)

    def _left_slope(self, r: Tensor) -> Tensor:
        inside = r.clamp(max=self.wall)
        return _total(part._left_slope(inside) for part in self.parts).masked_fill(r > self.wall, math.inf)

    def _second(self, r: Tensor) -> Tensor:
        inside = r.clamp(max=self.wall)
        return _total(part._second(inside) for part in self.parts)

    def multiply(self, factor: float) -> Curvature:
        return Sum(tuple(part.multiply(factor) for part in self.parts))

    def stretch(self, a: float) -> Curvature:
        return Sum(tuple(part.stretch(a) for part in self.parts))

    def radius_at_chord(self, slope: Tensor) -> Tensor:
        # H ≥ each part, so each part's radius bounds the sum's; a linear part takes its share of the slope first.
        linear = sum(part.initial_slope for part in self.parts)
        radii = [part.radius_at_chord((slope - linear + part.initial_slope).clamp(min=0)) for part in self.parts]
        radius = torch.stack(radii).amin(0)
        # A kink or wall is far from its neighbours in shape: the sum as a whole gives a sharper bound.
        cornered = bool(self.hinges) or math.isfinite(self.wall)
        return torch.minimum(radius, super().radius_at_chord(slope)) if cornered else radius

    @property
    def hinges(self) -> tuple[tuple[float, float, float], ...]:
        merged: dict[float, tuple[float, float]] = {}
        for part in self.parts:
            for c, jump, rise in part.hinges:
                before = merged.get(c, (0.0, 0.0))
                merged[c] = (before[0] + jump, before[1] + rise)
        return tuple((c, *merged[c]) for c in sorted(merged))

    @property
    def wall(self) -> float:
        return min(part.wall for part in self.parts)

    @property
    def recession_slope(self) -> float:
        return sum(part.recession_slope for part in self.parts)

    def is_superquadratic(self) -> Verdict:
        """Sums of super-quadratic parts are; a part with ψ(0+) = ∞ decides against; otherwise a grid decides."""
        verdicts = [part.is_superquadratic() for part in self.parts]
        if all(verdicts):
            return Verdict(True, "grid" if any(v.how == "grid" for v in verdicts) else "symbolic")
        for part, verdict in zip(self.parts, verdicts, strict=True):
            # ψ(0+) = lim H'(r)/2r is infinite for a power below 2 or a slope at 0, and ψ is finite further out.
            infinite = part.initial_slope > 0 or math.isinf(float(part.second(0.0)))
            if verdict.how == "symbolic" and infinite:
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


def _total(terms: Iterable[Tensor]) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
