"""The convex problem behind orthogonal updates: which averages E[ξ(ζ) ζ_i²] a bounded multiplier ξ can have.

For targets q (n entries > 0) the least J with E[ξ ζ_i²] = q_i for some ξ: sphere → [0, J] is

    J(q) = max_v ⟨q, v⟩ / h(v),    h(v) = E(Σ v_i ζ_i²)₊,

attained by ξ = J·1{Σ v_i ζ_i² > 0}. h is convex and homogeneous, ∇h = E[ζ_i² 1{Σ vζ² > 0}], so v minimises
½h(v)² − ⟨q, v⟩. At the maximiser v has entries of either sign, unless all q_i are equal: then ξ = Σ q is constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icm.solvers.newton import Domain, Local, minimise
from icm.sphere.contour import hinges

_SHARES = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.6, 0.9, 0.98)  # starts tried, see `_start`
_WIDE = 256  # values beyond which fewer are
_RESTARTS = 4
_TOL = 1e-14
_CLOSE = 0.02  # and below which its complement is
_OUTER = 40
_LEAST = -80.0  # least logarithm of the share of the bracket
_AGREE = 1e-9
_FLOOR = 1e-10  # of the rank-one term's diagonal
_RESIDUAL = 1e-11  # of q: where the search is over
_EQUAL = 1e-10  # n times the relative spread of q below which ξ is taken from its expansion


@dataclass(frozen=True, eq=False)
class Gauge:
    """jump (B,) = J(q); v (B, n), a maximiser; mean (B, n) = E[jump·1{Σ vζ²>0} ζ_i²], which is q up to rounding; and
    the iterations (B,)."""

    jump: Tensor
    v: Tensor
    mean: Tensor
    iterations: Tensor


def hinge(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """h(v) (B,) for v (B, n), ∇h = E[ζ_i² 1{Σ vζ² > 0}] (B, n) and the parts of ∇²h: off its diagonal
    (∇h_i − ∇h_j)/(2(v_i − v_j)), and on it 3/2 bend_i, `bend` (B, n). h is +∞ here where v has no entries of either
    sign: no maximiser lies there."""
    n = v.shape[1]
    mixed = ((v.amin(1) < 0) & (v.amax(1) > 0)).nonzero()[:, 0]
    value, slope, bend = torch.full_like(v[:, 0], torch.inf), torch.full_like(v, 1 / n), torch.ones_like(v)
    if len(mixed):
        part = hinges(v[mixed], v.new_ones(n), v.new_ones(len(mixed)), "hinge")
        value[mixed], slope[mixed], bend[mixed] = part.value, part.weight, part.bend
    return value, slope, bend


def gauge(q: Tensor, max_iterations: int = 100) -> Gauge:
    """J(q) for q (B, n) > 0, float64."""
    mean = q.mean(-1, keepdim=True)
    n, p = q.shape[1], q / q.mean(-1, keepdim=True)
    jump, v, reached = p.new_full((len(q),), float(n)), torch.ones_like(q), torch.ones_like(q)
    iterations = torch.zeros_like(jump, dtype=torch.int64)
    spread = n * (p.amax(-1) - p.amin(-1))
    for mask, method in (((spread > _EQUAL) & (spread < _CLOSE), _complement), (spread >= _CLOSE, _direct)):
        rows = mask.nonzero()[:, 0]
        if len(rows):
            jump[rows], v[rows], reached[rows], iterations[rows] = method(p[rows], max_iterations)
    # All q_i to within rounding: then the bound n max q, by v = e_i, is the answer to that precision.
    jump = torch.maximum(jump, n * p.amax(-1))
    return Gauge(jump * mean[:, 0], v, reached * mean, iterations)


def lower_bound(q: Tensor) -> tuple[Tensor, Tensor]:
    """A bound J ≤ J(q) (B,) for q (B, n) > 0, not all equal, within a few per cent as a rule, and a v (B, n) that
    proves it: J = ⟨q, v⟩/h(v)."""
    v = _start(q / q.mean(-1, keepdim=True))
    return (q * v).sum(-1) / hinge(v)[0], v


def _direct(q: Tensor, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of a Gauge for q of mean 1, by minimising over v."""
    jump, v, reached = torch.zeros_like(q[:, 0]), _start(q), torch.zeros_like(q)
    iterations = torch.zeros_like(jump, dtype=torch.int64)
    rows = torch.arange(len(q), device=q.device)
    for _ in range(_RESTARTS):
        at, count = _minimise(q[rows], v[rows], max_iterations)
        value, slope, _ = hinge(at)
        J = (q[rows] * at).sum(-1) / value
        v[rows], jump[rows], reached[rows] = at, J, slope * J[:, None]
        iterations[rows] += count
        # Where h grew by orders of magnitude on the way, the objective is given a new unit.
        rows = rows[~((reached[rows] / q[rows] - 1).abs().amax(-1) < _RESIDUAL)]
        if not len(rows):
            break
    return jump, v, reached, iterations


def _complement(q: Tensor, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of a Gauge for q of mean 1 whose entries are close, so that ξ = J nearly everywhere.

    J − ξ has the averages J/n − q, so that J(q) ≤ J exactly if J(J/n − q) ≤ J. The left side falls with J, convexly,
    from ∞ at J = n max q; the closed form ξ = (n/2) Σ ((n+2)q_i − n) ζ_i² shows where it holds. Newton's method in
    between.
    """
    n, top = q.shape[1], q.amax(-1, keepdim=True)
    width = n * n / 2 * (top - 1)
    low, high = torch.full_like(top, _LEAST), torch.zeros_like(top)
    at, iterations = torch.full_like(top, -2.0), torch.zeros_like(q[:, 0], dtype=torch.int64)
    remaining = _OUTER
    while True:
        t = at.exp()  # J = n max q + t width, and both sides are near powers of t
        rest = (top - q) + t * (width / n)
        mean, J = rest.mean(-1, keepdim=True), n * top + t * width
        other, v, reached, count = _direct(rest / mean, max_iterations)
        iterations += count
        share = other[:, None] * mean / J
        slope = t * width * ((v.mean(-1) / hinge(v)[0])[:, None] / (share * J) - 1 / J)
        remaining -= 1
        if remaining == 0 or bool((share.log().abs() < _AGREE).all()):
            return J[:, 0], -v, J / n - reached * mean / share, iterations
        low, high = torch.where(share > 1, at, low), torch.where(share > 1, high, at)
        step = at - share.log() / slope
        at = torch.where((step > low) & (step < high), step, (low + high) / 2)


def _start(q: Tensor) -> Tensor:
    """The best of v = 1 − β/q, β below 1, for q of mean 1.

    Given a rare event {Σ vζ² > 0}, ζ² has averages in proportion to 1/(1 − v) for v scaled to Σ v/(1 − v) = 0 (the
    saddle point's tilt): β = 1 makes them q. An event that is not rare needs a smaller β, above min q still, for v to
    keep entries of either sign.
    """
    share = q.new_tensor(_SHARES if q.shape[1] <= _WIDE else _SHARES[::3])
    beta = 1 - (1 - q.amin(-1, keepdim=True)) * share
    V = 1 - beta[:, :, None] / q[:, None, :]
    value = hinge(V.flatten(0, 1))[0].view(len(q), -1)
    best = ((V * q[:, None, :]).sum(-1) / value).nan_to_num(-torch.inf).argmax(-1)
    return V[torch.arange(len(q), device=q.device), best]


def _minimise(q: Tensor, v: Tensor, max_iterations: int) -> tuple[Tensor, Tensor]:
    """argmin ½(h/h₀)² − ⟨q, ·⟩/⟨q, v⟩ with h₀ = h(v), from v (B, n); and the iterations (B,).

    In y = q v, as a small q_i has a large v_i: then every entry of the gradient is to be the same.
    """
    unit = hinge(v)[0]

    def evaluate(y: Tensor, low: Tensor, rows: Tensor) -> Local:
        v, scale = y / q[rows], q[rows] * unit[rows, None]
        value, slope, bend = hinge(v)
        value = value / unit[rows]
        # The part without the rank-one term is singular along v: a floor keeps rounding out of the step.
        diagonal = torch.maximum(value[:, None] * bend / (scale * q[rows]), _FLOOR * (slope / scale).square())
        return Local(
            0.5 * value.square(),
            value[:, None] * slope / scale,
            diagonal,
            value / unit[rows],
            1 / q[rows],
            v,
            slope,
            bend,
            1 / value.square(),
        )

    y = q * v
    target = (1 / y.sum(-1, keepdim=True)).expand_as(y)
    found = minimise(evaluate, target, y, Domain(4 * y.norm(dim=-1), signed=True), _TOL, max_iterations)
    return found.x / q, found.iterations
