"""The singular values of the optimum, enclosed: Newton's method for a middle, Krawczyk's test for the proof.

φ(σ) = f(|σ|) − ⟨g, σ⟩ is convex on all of R^k, for f(|σ|) = E H(‖diag(σ)ζ‖) is. Let X be a box around σ̃, C a matrix.
If K = σ̃ − C∇φ(σ̃) + (I − C∇²φ(X))(X − σ̃) lies inside X, then ∇φ has exactly one zero in X, it is in K, and ∇²φ(X) is
nonsingular (Krawczyk; Neumaier, Interval Methods for Systems of Equations, 1990, chapter 5). g is a ball, so this holds
for every g in it. A zero is a minimum of φ, and as it is isolated and minima form a convex set, it is the only one;
at it σ ≥ 0, because ∂f/∂σ_i has the sign of σ_i. So σ(Q*) for every optimal Q* of F is this σ.

Under a wall r̃ the coordinates said to be at it are fixed there and the test is made in the others. If g_i − ∂f/∂σ_i > 0
on the whole box for each that is fixed, the zero satisfies the conditions of optimality over σ ≤ r̃, strictly.

Where g_i may be 0, the second derivative in σ_i need not be bounded near 0. Such coordinates are parameters t in
[0, δ]: the test is made for all t at once, and the minimum over the others is a convex function of t. As its slope in
t_i, ∂f/∂σ_i − g_i, is positive on the face t_i = δ, for each i, its minimum over the cube is that over all t ≥ 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flint import arb, arb_mat

from icm.solvers.enclosure.curvature import Terms
from icm.solvers.enclosure.quadrature import Unresolved
from icm.solvers.enclosure.sphere import Moments, expectation, gradient, hessian

_STEPS = 6
_AT_WALL = 1e-9  # of the radius: as close as this to the wall counts as at it
_WIDER = (2, 16, 512)
_SETTLED = 2.0**-66  # of g₁: a residual as small as this is not worth another step
_NOISE = 2.0**-50  # of g₁: smaller g_i are as good as 0
_SMALL = 64  # bits below σ₁ of the bound on singular values whose g may be 0


@dataclass(frozen=True)
class Point:
    """σ̃ (k exact numbers), f(σ̃) with its first derivatives and, where they exist, second ones. Of the coordinates some
    are held at the wall, some rest at 0 because g_i may be 0, and the others are `free`."""

    sigma: list[arb]
    at: Moments
    walled: list[int]
    resting: list[int]
    free: list[int]

    @property
    def slopes(self) -> list[arb]:
        """∂f/∂σ_i at σ̃."""
        return gradient(self.sigma, self.at)

    def residual(self, g: Sequence[arb]) -> list[arb]:
        """∂f/∂σ_i − g_i in the free coordinates."""
        slopes = self.slopes
        return [slopes[i] - g[i] for i in self.free]

    def moved(self, terms: Terms, sigma: list[arb], dim: int) -> Point | None:
        """The Point at another σ̃, None where f has no gradient."""
        for order in (2, 1):
            try:
                return replace(self, sigma=sigma, at=expectation(terms, sigma, dim, order))
            except Unresolved:
                continue
        return None


def improve(terms: Terms, sigma: Sequence[float], g: Sequence[arb], dim: int) -> Point | None:
    """The Point reached from `sigma` by Newton steps, while they shorten the residual; None where f has no gradient."""
    k = len(g)
    size = max(range(k), key=lambda i: float(g[i].mid()))
    resting = [i for i in range(k) if not g[i] > _NOISE * g[size]]
    walled = [i for i in range(k) if sigma[i] >= terms.wall * (1 - _AT_WALL) and i not in resting]
    start = [arb(x) for x in sigma]
    for i in walled:
        start[i] = arb(terms.wall)
    for i in resting:
        start[i] = arb(0)
    free = [i for i in range(k) if i not in (*walled, *resting)]
    for i in free:
        start[i] = start[i] if start[i] > 0 else (start[size] * g[i] / g[size]).mid()
    best = Point(start, Moments(arb(0), [], []), walled, resting, free).moved(terms, start, dim)
    for _ in range(_STEPS if free and best is not None else 0):
        assert best is not None
        residual = best.residual(g)
        before = _largest(residual)
        if not best.at.second or before < _SETTLED * max(g[i].abs_upper() for i in free):
            break
        try:
            step = _inverse(hessian(best.sigma, best.at), free) * _column(residual)
        except ZeroDivisionError:
            break
        moved = list(best.sigma)
        for row, i in enumerate(free):
            moved[i] = (moved[i] - step[row, 0]).mid().max(arb(0)).min(arb(terms.wall))
        trial = best.moved(terms, moved, dim)
        if trial is None or not _largest(trial.residual(g)) < before:
            break
        best = trial
    return best


def enclose_optimum(terms: Terms, point: Point, g: Sequence[arb], dim: int) -> list[arb] | None:
    """Balls around the singular values of the optimum, in the order of g; None where the test does not succeed."""
    if not point.free and not point.resting:
        return list(point.sigma) if _pressed(point, point.slopes, g) else None
    fixed = [i in point.resting for i in range(len(g))]
    try:
        small = _small(terms, point, g, dim)
        for wider in _WIDER:
            found = _krawczyk(terms, point, g, dim, wider, small, fixed)
            if found is not None:
                inside = all(found[i].upper() <= terms.wall for i in point.free)
                return found if inside and _small_enough(terms, found, point, g, dim, small) else None
    except (Unresolved, ZeroDivisionError):
        return None
    return None


def _krawczyk(
    terms: Terms, point: Point, g: Sequence[arb], dim: int, wider: int, small: arb, fixed: list[bool]
) -> list[arb] | None:
    """Krawczyk's test in the free coordinates, for every value up to `small` of those at rest: the balls, or None."""
    free, box = point.free, list(point.sigma)
    for i in point.resting:
        box[i] = arb(0).union(small)
    parameters, here = list(box), point.at
    if point.resting or not here.second:
        here = expectation(terms, parameters, dim, 2, fixed=fixed)
    slopes = gradient(parameters, here)
    radii, found = [arb(0)] * len(free), list(box)
    if free:
        C = _inverse(hessian(parameters, here), free)
        step = C * _column([slopes[i] - g[i] for i in free])
        floor = arb(2) ** -70 * max(x.abs_upper() for x in point.sigma)
        radii = [(wider * step[row, 0].abs_upper() + floor).upper() for row in range(len(free))]
        for row, i in enumerate(free):
            box[i] = point.sigma[i] + arb(0, radii[row])
        around = expectation(terms, box, dim, 2, fixed=fixed)
        slope = _submatrix(hessian(box, around), free)
        identity = arb_mat([[arb(int(i == j)) for j in range(len(free))] for i in range(len(free))])
        offset = (identity - C * slope) * _column([arb(0, radius) for radius in radii]) - step
        if not all(offset[row, 0].abs_upper() < radius for row, radius in enumerate(radii)):
            return None
        for row, i in enumerate(free):
            found[i] = point.sigma[i] + offset[row, 0]
        slopes = gradient(box, around)
    return found if _pressed(point, slopes, g) else None


def _small(terms: Terms, point: Point, g: Sequence[arb], dim: int) -> arb:
    """δ: about four times what g_i = 2σ_i w_i allows the resting coordinates, and not less than 2^{−64} σ₁."""
    floor = arb(2) ** -_SMALL * max(x.abs_upper() for x in point.sigma)
    if not point.resting:
        return floor
    w = _weight(terms, list(point.sigma), point.resting[0], floor, dim)
    size = max(g[i].upper() for i in point.resting)
    return (floor + 2 * size / w).mid() if w > 0 else floor


def _weight(terms: Terms, sigma: list[arb], index: int, value: arb, dim: int) -> arb:
    """w_i where σ_i, i = index, is `value`."""
    sigma[index] = value
    return expectation(terms, sigma, dim, 1, fixed=[i != index for i in range(len(sigma))]).weights[index]


def _small_enough(terms: Terms, found: list[arb], point: Point, g: Sequence[arb], dim: int, small: arb) -> bool:
    """Whether every resting coordinate is certainly at most `small`: there ∂f/∂σ_i > g_i, whatever the others are."""
    if not point.resting:
        return True
    # All of them have the same ball, so that one speaks for all.
    w = _weight(terms, list(found), point.resting[0], small, dim)
    return bool(2 * small * w > max(g[i].upper() for i in point.resting))


def _pressed(point: Point, slopes: Sequence[arb], g: Sequence[arb]) -> bool:
    """Whether every coordinate held at the wall would grow further."""
    return all(g[i] - slopes[i] > 0 for i in point.walled)


def _largest(values: Sequence[arb]) -> arb:
    return max(x.abs_upper() for x in values)


def _column(values: Sequence[arb]) -> arb_mat:
    return arb_mat([[x] for x in values])


def _submatrix(rows: list[list[arb]], free: list[int]) -> arb_mat:
    return arb_mat([[rows[i][j] for j in free] for i in free])


def _inverse(rows: list[list[arb]], free: list[int]) -> arb_mat:
    """A matrix near the inverse, exact."""
    return _submatrix(rows, free).mid().inv().mid()
