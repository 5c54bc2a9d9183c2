"""The program is convex, whatever the gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm
from icm.curvature import Curvature
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import kinked, smooth
from icm.theory.instances import Instances, draw

_EPS = torch.finfo(torch.float64).eps


def segments(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Two matrices P, Q and a share t: far, near, on a ray through 0, one of them 0, of low rank, both sides of 0."""
    size, m, n = len(made), made.m, made.n
    length = made.H.length_scale * 10 ** rng.uniform(-1, 1, (size, 1, 1))
    P = rng.standard_normal((size, m, n)) * length
    thin = rng.standard_normal((size, m, 1)) * rng.standard_normal((size, 1, n)) * length
    step = rng.standard_normal((size, m, n)) * length
    others = (step, P + 10 ** rng.uniform(-9, -1, (size, 1, 1)) * step, rng.uniform(-2, 2, (size, 1, 1)) * P, 0 * P)
    kind = rng.integers(6, size=size)[:, None, None]
    Q = sum((kind == i) * other for i, other in enumerate(others)) + (kind >= 4) * thin
    P = P * (kind != 5)
    t = torch.from_numpy(rng.uniform(0, 1, size))
    return {"P": torch.from_numpy(P), "Q": torch.from_numpy(Q), "t": t}


def chord(case: Case) -> Ball:
    """(1−t)F(P) + tF(Q) − F((1−t)P + tQ) over the first two; what is linear in Q cancels, E H(‖Qζ‖) is left.

    The point between is rounded: its singular values move by at most the rounding's Frobenius norm."""
    P, Q, t = case["P"], case["Q"], case["t"]
    share = t[:, None, None]
    between = (1 - share) * P + share * Q
    ends = [case.spectrum(P), case.spectrum(Q)]
    rounding = 4 * _EPS * (norm(ends[0]) + norm(ends[1])).upper[:, None]
    middle = case.spectrum(between)
    middle = Ball(middle.middle, middle.radius + rounding, middle.rigour)
    low, high = ((1.0 - Ball.of(t)) * case.mean(ends[0])), t * case.mean(ends[1])
    size = (low + high).middle
    return (low + high - case.mean(middle)) / size.where(size > 0, 1.0)


def any_curvature(rng: Generator) -> Curvature:
    """Smooth, or with a kink."""
    return smooth(rng) if rng.random() < 0.6 else kinked(rng)


convexity = Claim(
    name="convexity",
    statement="F is convex: F((1−t)P + tQ) ≤ (1−t)F(P) + tF(Q) for 0 ≤ t ≤ 1, for smooth H and for H with kinks.",
    latex=r"F((1-t)P + tQ) \le (1-t)F(P) + tF(Q)",
    source="Su, arXiv 2511.00674; docs/theory.md, section 1",
    margin=chord,
    draw=draw(any_curvature, extra=segments),
    proof="convexity",
)

CLAIMS = (convexity,)
