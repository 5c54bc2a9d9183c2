"""Is the program bounded, and is Q = 0 its answer? Both are decided by the dual of one norm.

With N(v) = E‖diag(v)ζ‖ and N†(g) = max ⟨g, v⟩/N(v), Jensen's inequality gives H(N(σ)) ≤ f(σ), and f(tσ)/t rises
from H'(0+) N(σ) to B N(σ), B = lim H'. So Q = 0 is optimal exactly if N† ≤ H'(0+); the program is bounded and
attained if N† < B, and unbounded along the maximiser if N† > B. At N† = B it can be either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.solvers.dual import norm_dual
from icm.solvers.solution import Status

_TOL = 1e-13


@dataclass(frozen=True, eq=False)
class Decision:
    """Per batch element: its status, OPTIMAL standing for Q = 0 unless `open` (B,) says that a solve is left to do;
    the gap (B,) of Q = 0; for H with a finite slope somewhere the bound `upper` (B,) ≥ N†, the maximiser v (B, k) of
    unit length and N(v) (B,), margin (B,) = N† − B, and the iterations (B,) spent."""

    status: list[Status]
    open: Tensor
    gap: Tensor
    upper: Tensor | None
    v: Tensor | None
    length: Tensor | None
    margin: Tensor | None
    iterations: Tensor


def decide(g: Tensor, dim: int, H: Curvature, max_iterations: int = 100) -> Decision:
    """The Decision for g (B, k) ≥ 0."""
    status = [Status.OPTIMAL] * len(g)
    subnormal = (g.amax(-1) > 0) & (g.amax(-1) < torch.finfo(g.dtype).tiny)  # digits are lost, quotients overflow
    alive = (g.amax(-1) > 0) & ~subnormal
    gap = torch.zeros_like(g[:, 0]).masked_fill(subnormal, math.inf)
    for row in subnormal.nonzero()[:, 0].tolist():
        status[row] = Status.OVERFLOW
    iterations = torch.zeros_like(alive, dtype=torch.int64)
    first, last = H.initial_slope, H.recession_slope
    if (first == 0 and math.isinf(last)) or not bool(alive.any()):
        return Decision(status, alive, gap, None, None, None, None, iterations)
    dual = norm_dual(torch.where(alive[:, None], g, 1.0), dim, 1.0, _TOL, max_iterations)
    unbounded = alive & (dual.lower > last)
    # F(Q) ≥ (H'(0+) − N†) E‖Qζ‖ bounds the gap of Q = 0, and no optimum has E‖Qζ‖ beyond H.radius_at_chord(N†).
    longest = H.radius_at_chord(dual.upper)
    zero_gap = torch.where(dual.upper <= first, 0.0, (dual.upper - first) * longest)
    zero = ~unbounded & (dual.lower <= first) & torch.isfinite(zero_gap)
    undecided = alive & ~unbounded & ~zero & (dual.upper >= last)
    gap = torch.where(alive & zero, zero_gap, gap).masked_fill(unbounded | undecided, math.inf)
    for ended, mask in ((Status.UNBOUNDED, unbounded), (Status.UNDECIDED, undecided)):
        for row in mask.nonzero()[:, 0].tolist():
            status[row] = ended
    size = dual.v.norm(dim=-1)
    v = dual.v / size[:, None]
    return Decision(
        status=status,
        open=alive & ~zero & ~unbounded & ~undecided,
        gap=gap,
        upper=dual.upper,
        v=v,
        length=dual.length / size,
        margin=torch.where(alive, dual.lower - last, -math.inf),
        iterations=dual.iterations * alive,
    )
