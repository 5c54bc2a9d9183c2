"""What a composition provably does to singular values: its distance from φ, its slope, its falls, its ends.

Everything here is a statement about the real function p whose coefficients are the floats of the composition, proved
in ball arithmetic (`icm.ball`) on a partition of [0, 1.01] that is refined where a statement needs it, and, for "p
increases", in exact rational arithmetic factor by factor. Of φ two things are assumed: that it is nondecreasing, as
`ScalarMap` demands, and that its float64 values are right to the relative `slack`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction

import torch
from torch import Tensor

from icm.ball import Ball
from icm.errors import InputError
from icm.maps.composition import Composition, derivative
from icm.maps.increasing import nonnegative, slope_polynomial
from icm.maps.scalar import ScalarMap

Bounds = tuple[float, float]

BEYOND = 1.01  # the largest singular value that rounding may make of 1
SLACK = 1e-14  # relative error granted to φ's float64 values

_NEAR = ((2e-4, 40_000), (1e-2, 60_000), (0.1, 80_000), (1.0, 160_000))  # relative width wanted, up to how many pieces
_FLOOR = 1e-13  # absolute width that always does
_EXPLODED = 1e3  # a size beyond which nobody asks for digits
_PARTS = 48  # of a piece, for φ
_ROUNDS = 60


@dataclass(frozen=True)
class Certificate:
    """Proved bounds (at least, at most) on figures of a composition p against φ.

    `error`: sup |p − φ| on [lower, 1]; `error_everywhere`: on [0, 1]. `increasing`: whether every factor is proved to
    increase on the range of those before it, in rational arithmetic. `smallest_slope`: min p' on [0, 1].
    `largest_fall`: sup p(x) − p(y) over 0 ≤ x < y ≤ 1; `total_descent`: ∫₀¹ max(−p', 0) dx; both 0 iff p increases.
    `slope_at_zero`: p'(0). `ratio_near_zero`: p(x)/x lies between these for 0 < x ≤ lower. `short_below`: on
    [1e−300, short_below) p falls short of φ by more than the error (0: nowhere near 0). `range` and `range_beyond`:
    p lies between these on [0, 1] and on [0, 1.01].
    """

    composition: Composition
    name: str
    lower: float
    error: Bounds
    error_everywhere: Bounds
    smallest_slope: Bounds
    increasing: bool
    largest_fall: Bounds
    total_descent: Bounds
    slope_at_zero: Bounds
    ratio_near_zero: Bounds
    short_below: float
    range: Bounds
    range_beyond: Bounds

    def __str__(self) -> str:
        degrees = sorted(set(self.composition.degrees))
        kind = f"{len(self.composition)} factors of degree {' and '.join(map(str, degrees))}"
        error, least = self.error, self.smallest_slope
        lines = [
            f"{kind} for {self.name}, proved:",
            f"  on [{self.lower:g}, 1] within {error[1]:.4g} of it (at least {error[0]:.4g} somewhere), "
            f"on [0, 1] within {self.error_everywhere[1]:.4g}",
        ]
        if self.increasing:
            lines.append("  increasing on [0, 1]: keeps the order of all singular values")
        elif self.total_descent[1] <= 1e-9:
            lines.append(
                f"  increasing on [0, 1] up to a slope of {least[0]:.2g} and falls of {self.total_descent[1]:.2g}"
            )
        else:
            lines.append(
                f"  not increasing on [0, 1]: falls by up to {self.largest_fall[1]:.4g} at once, by "
                f"{self.total_descent[1]:.4g} in all; smallest slope {least[0]:.4g}"
            )
        short = f"; falls short by more than the error below {self.short_below:.4g}" if self.short_below else ""
        lines.append(f"  at 0 the slope is {self.slope_at_zero[0]:.6g}{short}")
        lines.append(
            f"  values from {self.range[0]:.4g} to {self.range[1]:.4g}, "
            f"on [0, {BEYOND:g}] from {self.range_beyond[0]:.4g} to {self.range_beyond[1]:.4g}"
        )
        return "\n".join(lines)


def certify(composition: Composition, phi: ScalarMap, lower: float, slack: float = SLACK) -> Certificate:
    """Proved figures of the composition as an approximation of φ on [lower, 1]; see `Certificate`.

    On a piece [a, b] φ lies between its values at the ends of each of 48 parts, and p = p(m) + p'(…)(x − m) within what
    the slopes of its factors, enclosed along the orbit of the piece, allow. A piece is halved as long as it could move
    a figure by more than 2e−4 of it (and 1e−13); of more than 40,000 pieces less is asked, and 160,000 are the end:
    bounds are then further apart, and still proved. Compositions that explode just beyond 1 (`best_polar` with margin
    0) and are within 1e−8 or so of φ would need more; their upper bounds may say nothing.

    Raises InputError for φ that is not normalised to top = 1, or `lower` outside [0, 1).
    """
    if phi.top != 1:
        raise InputError(
            f"{phi.name} is given on [0, {phi.top:g}]; a composition acts on [0, 1]: certify ScalarMap(lambda x: "
            "phi(top * x), 1.0) or its values over top"
        )
    if not 0 <= lower < 1:
        raise InputError(f"lower={lower!r}: the lower end of the singular values lies in 0 ≤ lower < 1")
    increasing = is_increasing(composition)
    pieces = _refined(composition, phi, float(lower), slack, increasing)
    inside = pieces.of(pieces.b <= 1)
    wanted = inside.of(inside.a >= lower)
    error = _largest((wanted.least, wanted.most))
    least = float(inside.slow.min()), float(inside.middle_fast.min())
    if increasing:
        least, fall, descent = (max(least[0], 0.0), max(least[1], 0.0)), (0.0, 0.0), (0.0, 0.0)
    else:
        fall, descent = _falls(composition, inside)
    at_zero = math.prod((Ball.of(factor[0]) for factor in composition.factors), start=Ball.of(1.0))
    return Certificate(
        composition=composition,
        name=phi.name,
        lower=float(lower),
        error=error,
        error_everywhere=_largest((inside.least, inside.most)),
        smallest_slope=least,
        increasing=increasing,
        largest_fall=fall,
        total_descent=descent,
        slope_at_zero=(float(at_zero.lower), float(at_zero.upper)),
        ratio_near_zero=_ratio(composition, float(lower)),
        short_below=_short_below(composition, phi, inside, error[1], slack),
        range=(float(inside.low.min()), float(inside.high.max())),
        range_beyond=(float(pieces.low.min()), float(pieces.high.max())),
    )


def is_increasing(composition: Composition) -> bool:
    """Whether every factor is proved to increase on the range that [0, 1] has by then, in exact rational arithmetic;
    the composition then does."""
    top, grain = Fraction(1), 2**64
    for factor in composition.factors:
        if not nonnegative(slope_polynomial(factor), top * top):
            return False
        top = top * sum(Fraction(c) * top ** (2 * i) for i, c in enumerate(factor))
        top = Fraction(-((-top * grain) // 1), grain)  # rounded up, or the digits grow fivefold with every factor
    return True


def enclose(composition: Composition, x: Ball) -> tuple[Ball, Ball]:
    """(p, p') over the balls x: each factor expanded about the middle of its argument, its slope about the same."""
    slope = Ball.of(torch.ones_like(x.middle))
    for factor in composition.factors:
        rates = derivative(factor)
        bends = tuple(2 * i * c for i, c in enumerate(rates))[1:]  # p'' = x Σ bends_i y^i
        middle, offset = Ball.of(x.middle), Ball(torch.zeros_like(x.radius), x.radius)
        square = middle * middle
        rate = _horner(rates, square)
        if bends:
            rate = rate + x * _horner(bends, x * x) * offset
        x = middle * _horner(factor, square) + rate * offset
        slope = slope * rate
    return x, slope


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Intervals [a, b] with bounds on p, p' and |p − φ| over each, and on p and p' at its middle."""

    a: Tensor
    b: Tensor
    low: Tensor
    high: Tensor
    slow: Tensor
    fast: Tensor
    middle_low: Tensor
    middle_high: Tensor
    middle_slow: Tensor
    middle_fast: Tensor
    least: Tensor  # at least, at most: sup |p − φ| over the piece
    most: Tensor

    def of(self, which: Tensor) -> _Pieces:
        """Those of a mask."""
        return _Pieces(*(getattr(self, f.name)[which] for f in fields(self)))

    def and_also(self, other: _Pieces) -> _Pieces:
        """Both."""
        return _Pieces(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def descents(self) -> tuple[Tensor, Tensor]:
        """(at least, at most): of sup −p'."""
        return -self.middle_fast, -self.slow


def _evaluated(composition: Composition, phi: ScalarMap, a: Tensor, b: Tensor, slack: float) -> _Pieces:
    count, middle = len(a), 0.5 * (a + b)
    balls = Ball.between(torch.cat([a, middle]), torch.cat([b, middle]))
    value, slope = enclose(composition, balls)
    bounds = [end for ball in (value, slope) for end in (ball.lower, ball.upper)]
    low, high, slow, fast = (end[:count] for end in bounds)
    middle_low, middle_high, middle_slow, middle_fast = (end[count:] for end in bounds)
    low = torch.where((a == 0) & (slow >= 0), low.clamp(min=0), low)  # p(0) = 0
    # φ on each part of the piece lies between its ends, p between two lines through its middle.
    nodes = torch.minimum(a[:, None] + (b - a)[:, None] * torch.linspace(0, 1, _PARTS + 1, dtype=a.dtype), b[:, None])
    nodes[:, -1] = b
    f = phi(torch.cat([nodes, middle[:, None]], 1).clamp(max=1.0))
    f, centre = f[:, :-1], f[:, -1]
    step = nodes - middle[:, None]
    lines = torch.stack([slow[:, None] * step, fast[:, None] * step])
    above, below = middle_high[:, None] + lines.amax(0), middle_low[:, None] + lines.amin(0)
    above = torch.minimum(torch.maximum(above[:, 1:], above[:, :-1]), high[:, None])
    below = torch.maximum(torch.minimum(below[:, 1:], below[:, :-1]), low[:, None])
    most = torch.maximum(above - f[:, :-1] * (1 - slack), f[:, 1:] * (1 + slack) - below).amax(1)
    rounding = 2e-15 * (middle_high.abs() + middle_low.abs() + lines.abs().amax((0, 2)) + f[:, -1])
    least = torch.maximum(middle_low - centre * (1 + slack), centre * (1 - slack) - middle_high)
    least = _down(least - 1e-15 * centre).clamp(min=0)
    return _Pieces(
        a,
        b,
        low,
        high,
        slow,
        fast,
        middle_low,
        middle_high,
        middle_slow,
        middle_fast,
        least,
        _up(most + rounding).nan_to_num(nan=torch.inf, posinf=torch.inf),
    )


def _refined(composition: Composition, phi: ScalarMap, lower: float, slack: float, increasing: bool) -> _Pieces:
    """A partition of [0, 1.01], with ends at `lower` and 1, fine enough for every figure."""
    even, steps = torch.linspace(0, 1, 193, dtype=torch.float64), torch.logspace(-12, 0, 193, dtype=torch.float64)
    beyond = torch.linspace(1, BEYOND, 9, dtype=torch.float64)
    nodes = torch.cat([even, steps, beyond, even.new_tensor([lower])]).unique()
    done = _evaluated(composition, phi, nodes[:-1], nodes[1:], slack)
    for _ in range(_ROUNDS):
        split = _wanting(done, lower, increasing, next(near for near, most in _NEAR if len(done.a) < most))
        split &= (done.b - done.a) > 1e-15 * done.b
        if not bool(split.any()) or len(split) + int(split.sum()) >= _NEAR[-1][1]:
            break
        old, done = done.of(split), done.of(~split)
        middle = 0.5 * (old.a + old.b)
        halves = _evaluated(composition, phi, torch.cat([old.a, middle]), torch.cat([middle, old.b]), slack)
        done = done.and_also(halves)
    return done


def _wanting(pieces: _Pieces, lower: float, increasing: bool, near: float) -> Tensor:
    """Which pieces leave a figure open by more than it may be."""
    inside = pieces.b <= 1
    low, high = -pieces.middle_high, pieces.middle_low
    tame = inside | (pieces.middle_high < _EXPLODED) & torch.isfinite(pieces.high - pieces.low)
    goals = [
        (inside & (pieces.a >= lower), pieces.least, pieces.most, _FLOOR),
        (inside, pieces.least, pieces.most, _FLOOR),
        (inside, low, -pieces.low, _FLOOR),
        (inside, high, pieces.high, _FLOOR),
        (tame, low, -pieces.low, _FLOOR),
        (tame, high, pieces.high, _FLOOR),
    ]
    if not increasing:
        start = float(pieces.fast[pieces.a == 0][0].abs())
        steepest = [end / max(1.0, start) for end in pieces.descents()]
        goals.append((inside, steepest[0], steepest[1], 1e-12))
    split = torch.zeros_like(inside)
    for domain, at_least, at_most, floor in goals:
        best = at_least[domain].max()
        split |= domain & (at_most > best + max(near * float(best.abs()), floor))
    if not increasing:
        open_ = inside & (pieces.slow < 0) & (pieces.fast > 0)
        share = torch.maximum(-pieces.slow, pieces.fast) * (pieces.b - pieces.a)
        falls = ((-pieces.fast).clamp(min=0) * (pieces.b - pieces.a))[inside].sum()
        split |= open_ & (share > max(near * float(falls) / max(int(open_.sum()), 1), 1e-12))
    return split


def _largest(bounds: tuple[Tensor, Tensor]) -> Bounds:
    """The largest of figures that lie between these."""
    return float(bounds[0].max()), float(bounds[1].max())


def _falls(composition: Composition, pieces: _Pieces) -> tuple[Bounds, Bounds]:
    """(largest fall, total descent) on [0, 1]: where p' has a sign, extremes are at the ends of a piece."""
    pieces = pieces.of(pieces.a.argsort())
    nodes, _ = enclose(composition, Ball.of(torch.cat([pieces.a, pieces.b[-1:]])))
    low, high = nodes.lower, nodes.upper
    rising, falling = pieces.slow >= 0, pieces.fast <= 0
    top = torch.where(rising, high[1:], torch.where(falling, high[:-1], pieces.high))
    bottom = torch.where(rising, low[:-1], torch.where(falling, low[1:], pieces.low))
    own = torch.minimum(top - bottom, _up(-pieces.slow * (pieces.b - pieces.a))).where(~rising, 0.0).clamp(min=0)
    across = top.cummax(0).values[:-1] - bottom[1:]
    count = 1 + 4e-16 * len(own)
    largest = (
        float(_down(low.cummax(0).values[:-1] - high[1:]).max().clamp(min=0)),
        float(_up(torch.maximum(own.max(), across.max() if len(across) else own.max())).clamp(min=0)),
    )
    total = float((_down(low[:-1] - high[1:]).clamp(min=0)).sum() / count), float(_up(own).sum() * count)
    return (largest[0], max(largest[1], largest[0])), (total[0], max(total))


def _ratio(composition: Composition, lower: float) -> Bounds:
    """Bounds on p(x)/x for 0 < x ≤ lower: on the first piece those of p', which p(x)/x is a mean of."""
    nodes = lower * torch.logspace(-8, 0, 4096, dtype=torch.float64)
    nodes[-1] = lower
    ends = torch.cat([nodes.new_zeros(1), nodes])
    value, slope = enclose(composition, Ball.between(ends[:-1], ends[1:]))
    if lower == 0:
        return float(slope.lower[0]), float(slope.upper[0])
    ratio = value[1:] / Ball.between(ends[1:-1], ends[2:])
    least, most = ratio.lower.min(), ratio.upper.max()
    return min(float(slope.lower[0]), float(least)), max(float(slope.upper[0]), float(most))


def _short_below(composition: Composition, phi: ScalarMap, pieces: _Pieces, error: float, slack: float) -> float:
    """The largest x found with φ − p > error on [1e−300, x)."""
    order = pieces.a.argsort()
    a, b = pieces.a[order], pieces.b[order]
    reached = 0.0
    for _ in range(7):
        value, _ = enclose(composition, Ball.between(a, b))
        below = _down(phi(a.clamp(min=1e-300)) * (1 - slack)) - value.upper > error * (1 + 1e-15)
        if bool(below.all()):
            return float(b[-1])
        first = int((~below).nonzero()[0, 0])
        reached = float(a[first])
        nodes = torch.linspace(reached, float(b[first]), 65, dtype=torch.float64)
        a, b = nodes[:-1], nodes[1:]
    return reached


def _horner(coefficients: tuple[float, ...], y: Ball) -> Ball:
    value = Ball.of(torch.full_like(y.middle, coefficients[-1]))
    for c in coefficients[-2::-1]:
        value = value * y + c
    return value


def _up(x: Tensor) -> Tensor:
    """At least the exact result of up to three operations that rounding made x, without cancellation in between."""
    return x + 4e-16 * x.abs() + 1e-300


def _down(x: Tensor) -> Tensor:
    """At most that."""
    return -_up(-x)
