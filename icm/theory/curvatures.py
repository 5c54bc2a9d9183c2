"""Curvatures that claims are tried with, drawn at random, all with a text that gives them back."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from icm.curvature import Curvature, Exponential, Kink, Power, Wall

_SUPER = (2.0, 2.001, 2.39, 2.5, 3.0, 3.999, 4.0, 6.0, 10.6)
_SUB = (1.02, 1.3, 1.5, 1.9, 1.999, 2.0)


def power(rng: Generator, low: float, high: float) -> Curvature:
    """c r^p with p between the two, the ends and integers among them."""
    ends = [p for p in (low, high, *_SUB, *_SUPER) if low <= p <= high]
    p = ends[rng.integers(len(ends))] if rng.random() < 0.5 else float(rng.uniform(low, high))
    return Power(round(p, 4), scale(rng))


def scale(rng: Generator) -> float:
    """A positive factor, often 1."""
    return 1.0 if rng.random() < 0.5 else float(f"{10 ** rng.uniform(-3, 3):.4g}")


def super_quadratic(rng: Generator) -> Curvature:
    """H′(r)/r nondecreasing: powers from 2 on, sums of them, exponentials."""
    kind = rng.integers(4)
    if kind == 0:
        return Power(2.0, scale(rng)) + power(rng, 2.0, 8.0)
    if kind == 1 and rng.random() < 0.3:  # slower than powers, so fewer of them
        return Power(2.0, scale(rng)) + Exponential(round(float(rng.uniform(0.1, 3)), 3), scale(rng))
    return power(rng, 2.0, 10.6)


def sub_quadratic(rng: Generator) -> Curvature:
    """H′(r)/r nonincreasing: powers between 1 and 2 and sums of them."""
    H = power(rng, 1.02, 2.0)
    return H + power(rng, 1.1, 2.0) if rng.random() < 0.4 else H


def smooth(rng: Generator) -> Curvature:
    """Differentiable beyond 0 and strictly convex: any of the above, or a sum of both kinds."""
    kind = rng.integers(3)
    if kind == 0:
        return super_quadratic(rng)
    return sub_quadratic(rng) if kind == 1 else power(rng, 1.1, 1.9) + power(rng, 2.1, 6.0)


def kinked(rng: Generator) -> Curvature:
    """A quadratic, or one with a power, and a kink at a radius near 1."""
    H = Power(2.0, float(f"{10 ** rng.uniform(-1, 1):.4g}"))
    H = H + power(rng, 2.2, 4.0) if rng.random() < 0.3 else H
    return H + Kink(float(f"{10 ** rng.uniform(-0.5, 0.5):.4g}"), float(f"{10 ** rng.uniform(-1, 2.5):.4g}"))


def walled(rng: Generator) -> Curvature:
    """A wall near 1, alone or around a power or two."""
    wall = Wall(float(f"{10 ** rng.uniform(-0.5, 0.5):.4g}"))
    return wall if rng.random() < 0.25 else power(rng, 1.3, 4.0) + wall


def nearly(family: Callable[[Generator], Curvature], low: float, high: float) -> Callable[[Generator], Curvature]:
    """The family, and now and then a power between the two, which just misses or just meets what it has to."""

    def chosen(rng: Generator) -> Curvature:
        return Power(round(float(rng.uniform(low, high)), 4)) if rng.random() < 0.08 else family(rng)

    return chosen
