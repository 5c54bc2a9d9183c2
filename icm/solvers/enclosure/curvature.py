"""A curvature as a sum of terms that ball arithmetic can average over the sphere: powers, exponentials, hinges, a wall.

A hinge is H(r) = jump (r − c)₊ + ½ rise (r − c)₊²: a kink has no rise, and a piecewise quadratic H is a sum of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from flint import arb, fmpq

from icm.curvature import Curvature, Exponential, Power
from icm.errors import InputError


class Hinge(NamedTuple):
    """jump (r − radius)₊ + ½ rise (r − radius)₊², radius > 0."""

    radius: arb
    jump: arb
    rise: arb


@dataclass(frozen=True)
class Terms:
    """H = Σ c r^p + Σ c (e^{βr} − 1 − βr) + Σ hinges for r ≤ wall: `powers` holds the (p, c), `exponentials` (β, c).

    `quadratic` is the largest a known for which H(r) − a r² is still convex and nondecreasing. A hinge from 0 on is
    among the powers, so that c may be negative.
    """

    powers: list[tuple[arb, arb]]
    exponentials: list[tuple[arb, arb]]
    hinges: list[Hinge]
    wall: float
    quadratic: arb

    def value(self, r: arb) -> arb:
        """H(r) for r ≥ 0 up to the wall."""
        total = arb(0)
        for p, c in self.powers:
            total += c * _power(r, p)
        for rate, c in self.exponentials:
            total += c * ((rate * r).expm1() - rate * r)
        for hinge in self.hinges:
            excess = (r - hinge.radius).max(arb(0))
            total += excess * (hinge.jump + hinge.rise * excess / 2)
        return total

    def slope(self, r: arb, right: bool) -> arb:
        """H′(r+) if `right`, else H′(r−), for r ≥ 0: both where a ball r meets a kink without being it."""
        total = arb(0)
        for p, c in self.powers:
            total += c * p * _power(r, p - 1)
        for rate, c in self.exponentials:
            total += c * rate * (rate * r).expm1()
        for hinge in self.hinges:
            excess = r - hinge.radius
            if excess > 0 or (right and excess.is_zero()):
                total += hinge.jump + hinge.rise * excess
            elif not (excess < 0 or excess.is_zero()):
                total += arb(0).union(hinge.jump + hinge.rise * excess.max(arb(0)))
        return total

    def kinks(self) -> list[Hinge]:
        """The hinges at which H′ jumps."""
        return [hinge for hinge in self.hinges if hinge.jump > 0]


def decompose(H: Curvature) -> Terms:
    """The Terms of H. Raises InputError for a family that has none, such as Custom."""
    powers: list[tuple[arb, arb]] = []
    exponentials: list[tuple[arb, arb]] = []
    hinges: list[Hinge] = []
    quadratic = arb(0)
    for part in H.parts:
        if isinstance(part, Power):
            powers.append((arb(part.exponent), arb(part.scale)))
            quadratic += arb(part.scale) if part.exponent == 2 else 0
        elif isinstance(part, Exponential):
            exponentials += [(arb(part.rate), arb(part.scale))] if part.scale else []
            quadratic += arb(part.scale) * arb(part.rate) ** 2 / 2
        elif getattr(part, "hinges", ()):  # a kink or a tabulated H, which is the sum of its hinges
            for radius, jump, rise in _convex(part.hinges):
                if radius > 0:
                    hinges.append(Hinge(arb(radius), arb(jump), rise))
                else:
                    powers += [(arb(1), arb(jump)), (arb(2), rise / 2)]
        elif not math.isfinite(part.wall):
            raise InputError(
                f"H contains {type(part).__name__}, {part}: bounds are proved for sums of powers, exponentials, kinks, "
                "walls and tabulated H only; approximate it by one of these, or rely on solution.gap"
            )
    return Terms([term for term in powers if not term[1].is_zero()], exponentials, hinges, H.wall, quadratic)


def _convex(hinges: Iterable[tuple[float, float, float]]) -> Iterator[tuple[float, float, arb]]:
    """The hinges, with their rises changed by what rounding made of H″ below 0: the H that is bounded is convex."""
    bend = Fraction(0)
    for radius, jump, rise in hinges:
        before, bend = bend, max(Fraction(0), bend + Fraction(rise))
        change = bend - before
        if jump or change:
            yield radius, jump, arb(fmpq(change.numerator, change.denominator))


def _power(r: arb, p: arb) -> arb:
    """r^p for r ≥ 0, p ≥ 0; a ball r with a negative part counts as [0, upper end]."""
    if p.is_zero():
        return arb(1)
    if r > 0:
        return r**p
    top = r.upper()
    return arb(0).union(top**p) if top > 0 else arb(0)
