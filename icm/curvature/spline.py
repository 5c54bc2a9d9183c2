"""The smoothest convex way through convex points: quadratic pieces whose slope is continuous where it can be.

Between two neighbouring points the tangents at both meet at one extra knot, where H' equals the slope of the chord
(Schumaker, On shape preserving quadratic spline interpolation, SIAM J. Numer. Anal. 1983). Every piece is a tuple
(start, value, slope, second, end slope), in the order of their starts; the last runs on for ever as a line.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

_COLLINEAR = 1e-14  # points this close to a chord, relative to the rounding of radii and values, are on it


class Piece(NamedTuple):
    """H(r) = value + slope·(r − start) + ½·second·(r − start)² from `start` on, with H' rising to `end`."""

    start: float
    value: float
    slope: float
    second: float
    end: float


class Chord(NamedTuple):
    """The line between the points with indices a and b; straight if other points lie on it, or if it is flat."""

    a: int
    b: int
    slope: float
    straight: bool


def lower_hull(x: Tensor, v: Tensor) -> list[int]:
    """The indices of the vertices of the greatest convex function below the points (x, v) (N,), x increasing."""
    points = list(zip(x.tolist(), v.tolist(), strict=True))
    hull: list[int] = []
    for i, (xi, vi) in enumerate(points):
        while len(hull) > 1:
            (xa, va), (xb, vb) = points[hull[-2]], points[hull[-1]]
            if (vb - va) / (xb - xa) < (vi - vb) / (xi - xb):
                break
            hull.pop()
        hull.append(i)
    return hull


def excess(x: Tensor, v: Tensor, a: int, b: int) -> tuple[Tensor, Tensor]:
    """How far the points between a and b lie above their chord, and the unit of rounding there, per unit of relative
    error in radii and values."""
    inner = slice(a + 1, b)
    share = (x[inner] - x[a]) / (x[b] - x[a])
    slope = (v[b] - v[a]) / (x[b] - x[a])
    return v[inner] - v[a] - share * (v[b] - v[a]), v[inner] + slope * (x[inner] + share * x[b])


def convex_spline(x: Tensor, v: Tensor) -> list[Piece]:
    """The pieces through (x, v) (N,), x[0] = v[0] = 0, x increasing, v convex and nondecreasing to rounding."""
    chords = _chords(x, v)
    radii, values = x.tolist(), v.tolist()
    left, right = _slopes(chords, radii)
    pieces: list[Piece] = []
    for chord, m, M in zip(chords, left, right, strict=True):
        start, value, width = radii[chord.a], values[chord.a], radii[chord.b] - radii[chord.a]
        p, q = chord.slope - m, M - chord.slope
        if chord.straight or abs(q - p) * width <= _COLLINEAR * values[chord.b]:
            pieces.append(Piece(start, value, m, (M - m) / width, M))
            continue
        share = q / (p + q)  # the tangents meet at start + share · width
        knot = start + share * width
        if start < knot:  # else the first piece is shorter than the spacing of float64
            pieces.append(Piece(start, value, m, p / (share * width), chord.slope))
        if max(start, knot) < radii[chord.b]:
            height = value + 0.5 * (m + chord.slope) * share * width
            pieces.append(Piece(knot, height, chord.slope, q / (p / (p + q) * width), M))
    return [*pieces, Piece(radii[-1], values[-1], right[-1], 0.0, right[-1])]


def _chords(x: Tensor, v: Tensor) -> list[Chord]:
    """The convex chain of chords along the hull, runs of points on one line joined, slopes strictly increasing."""
    hull = lower_hull(x, v)
    ends = [0]
    for before, vertex in pairwise(hull):
        beyond, unit = excess(x, v, ends[-1], vertex)
        if before > ends[-1] and bool((beyond.abs() > _COLLINEAR * unit).any()):
            ends.append(before)
    ends.append(hull[-1])
    chords: list[Chord] = []
    for a, b in pairwise(ends):
        slope = float((v[b] - v[a]) / (x[b] - x[a]))
        while chords and slope <= chords[-1].slope:  # by rounding only
            a = chords.pop().a
            slope = float((v[b] - v[a]) / (x[b] - x[a]))
        chords.append(Chord(a, b, slope, b > a + 1 or slope == 0))
    return chords


def _slopes(chords: list[Chord], x: list[float]) -> tuple[list[float], list[float]]:
    """H' at the left and right end of every chord: the straight ones keep their own, and where two of them meet there
    is a kink; between curved ones the parabola through three points gives it, so that quadratics are reproduced."""
    first, last = chords[0], chords[-1]
    left, right = [first.slope if first.straight else 0.0], []
    for A, B in pairwise(chords):
        if A.straight or B.straight:
            right.append(A.slope if A.straight else B.slope)
            left.append(B.slope if B.straight else A.slope)
            continue
        share = (x[A.b] - x[A.a]) / (x[B.b] - x[A.a])
        m = A.slope + share * (B.slope - A.slope)
        if not A.slope < m < B.slope:
            m = 0.5 * A.slope + 0.5 * B.slope
        right.append(m)
        left.append(m)
    right.append(last.slope if last.straight else 2 * last.slope - left[-1])
    return left, right
