"""Is the answer r̃ UVᵀ, the polar factor at the radius of a kink or wall? Decided exactly, with the reason.

At a wall r̃ UVᵀ is optimal exactly if no singular value gains by shrinking: g_i ≥ ∂_i f there. At a kink with slopes
A < B, for n singular values g_i > 0, ‖r̃UVᵀζ‖ = r̃ for every ζ, and the subgradients of f are the averages E[ξ ζ_i²]
of multipliers A ≤ ξ(ζ) ≤ B. So r̃UVᵀ is optimal exactly if such a ξ has E[ξ ζ_i²] = g_i, that is if
B − A ≥ J(g − A/n), see `gauge`.
For fewer singular values, or zeros among them, ‖Qζ‖ has no atom and a kink never holds them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import nest
from icm.curvature import Curvature
from icm.errors import InputError
from icm.solvers.gauge import gauge, lower_bound
from icm.sphere import expect


class Reason(Enum):
    """Why Q is a multiple of the polar factor, or why not, with a sentence each."""

    WALL = "wall: no singular value gains by shrinking from it"
    EXACT = "kink: ξ = left + jump·1{Σ v_i ζ_i² > 0} between its slopes has E[ξ ζ_i²] = g_i"
    SUFFICIENT = "kink: ξ = (n/2) Σ ((n+2) g_i − Σg) ζ_i² stays between its slopes and has E[ξ ζ_i²] = g_i"
    DESCENT = "kink: no multiplier between its slopes has the averages g_i, and F falls along v"
    SHAPE = "kink: fewer than n singular values differ from zero, so that H is smooth along every Q"
    SLOPE = "the slope of H meets Σg between its kinks"
    LOOSE = "wall: some singular value gains by shrinking from it"
    ZERO = "Q = 0 or no Q at all"

    @property
    def orthogonal(self) -> bool:
        return self in (Reason.WALL, Reason.EXACT, Reason.SUFFICIENT)

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Reason.{self.name}"


@dataclass(frozen=True, eq=False)
class Orthogonality:
    """Why Q is a multiple of the polar factor, or why not; one per batch element, for H with a kink or a wall.

    radius (…) is that of the kink where H' crosses Σg, or of the wall, NaN where H' crosses Σg between kinks; left and
    right (…) are the slopes of H there. threshold (…) is the least right slope at which radius·UVᵀ is optimal, ∞ where
    there is none, NaN where it was not needed (`orthogonal_threshold` has it in every case). v (…, k), in the order of
    g, is the extremal direction of the criterion: the dual multiplier is ξ(ζ) = left + jump·1{Σ v_i ζ_i² > 0},
    jump (…) = threshold − left; for DESCENT F falls along v from radius·UVᵀ. v = 0 where it was not needed.
    pressure (…, k) holds the multipliers of a wall, g_i − ∂_i f ≥ 0 at the singular values that it stops, else 0.
    """

    reasons: tuple[Reason, ...]
    radius: Float[Tensor, "*batch"]
    left: Float[Tensor, "*batch"]
    right: Float[Tensor, "*batch"]
    threshold: Float[Tensor, "*batch"]
    jump: Float[Tensor, "*batch"]
    v: Float[Tensor, "*batch k"]
    g: Float[Tensor, "*batch k"]
    pressure: Float[Tensor, "*batch k"]

    @property
    def reason(self) -> Any:
        """The Reason, or nested tuples of them in G's batch shape."""
        return nest(iter(self.reasons), tuple(self.radius.shape))

    def multiplier(self, zeta: Float[Tensor, "*samples n"]) -> Float[Tensor, "*samples"]:
        """ξ(ζ) at directions ζ (…, n) on the unit sphere, in the basis of G's right singular vectors, unbatched:
        E[ξ ζ_i²] = g_i and left ≤ ξ ≤ right prove that radius·UVᵀ is optimal at a kink. NaN where none does.

        Raises InputError for a batch.
        """
        if self.radius.ndim:
            raise InputError(
                f"a batch of shape {tuple(self.radius.shape)} has as many multipliers: solve its elements one by one"
            )
        square = zeta.square()
        if self.reasons[0] is Reason.SUFFICIENT:
            n = self.g.shape[-1]
            return square @ ((n + 2) * self.g - self.g.sum()) * (n / 2)
        if self.reasons[0] is Reason.EXACT:
            return self.left + self.jump * (square @ self.v > 0)
        return torch.full_like(square[..., 0], math.nan)

    def descends(self, row: int) -> bool:
        """Whether F falls from radius·UVᵀ, for element `row` of an unshaped batch."""
        return self.reasons[row] is Reason.DESCENT

    def shaped(self, batch: tuple[int, ...]) -> Orthogonality:
        """With the leading dimensions of a batch."""
        k = self.v.shape[-1]
        scalars = {
            name: getattr(self, name).reshape(batch) for name in ("radius", "left", "right", "threshold", "jump")
        }
        vectors = {name: getattr(self, name).reshape(*batch, k) for name in ("v", "g", "pressure")}
        return replace(self, **vectors, **scalars)


@dataclass(frozen=True, eq=False)
class Flat:
    """Which elements are answered at once, `held` (B,); their σ (B, k) and subgradients (B, k) of f there; and why."""

    held: Tensor
    sigma: Tensor
    slopes: Tensor
    why: Orthogonality


def support(g: Tensor, outputs: int, dim: int) -> Tensor:
    """Which singular values (B, k) are more than the rounding of a decomposition."""
    return g > torch.finfo(torch.float64).eps * max(outputs, dim) * g[..., :1]


def decide_flat(g: Tensor, dim: int, H: Curvature, outputs: int, rows: Tensor) -> Flat:
    """Flat answers for g (B, k) descending, among the elements `rows`."""
    batch = len(g)
    held = torch.zeros(batch, dtype=torch.bool, device=g.device)
    nan = torch.full_like(g[:, 0], math.nan)
    why = Orthogonality(
        (), nan, nan.clone(), nan.clone(), nan.clone(), nan.clone(), torch.zeros_like(g), g, torch.zeros_like(g)
    )
    reasons = [Reason.ZERO] * batch
    sigma, slopes = torch.zeros_like(g), torch.zeros_like(g)
    if math.isfinite(H.wall) and len(rows):
        on = support(g[rows], outputs, dim)
        x = H.wall * on.to(g.dtype)
        slope = expect(H, x, dim).slopes
        holds = (g[rows] >= slope).where(on, True).all(-1)
        sigma[rows], slopes[rows], held[rows] = x, slope, holds
        left, right = (float(H.slope(H.wall, side)) for side in ("left", "right"))
        why.radius[rows], why.left[rows], why.right[rows] = H.wall, left, right
        for row, fine in zip(rows.tolist(), holds.tolist(), strict=True):
            reasons[row] = Reason.WALL if fine else Reason.LOOSE
        rows = rows[~holds]
    elif len(rows):
        for row in rows.tolist():
            reasons[row] = Reason.SLOPE
    if H.kinks and len(rows):
        _at_kinks(g, dim, H, outputs, rows, held, sigma, slopes, why, reasons)
    return Flat(held, sigma, slopes, replace(why, reasons=tuple(reasons)))


def _at_kinks(
    g: Tensor,
    dim: int,
    H: Curvature,
    outputs: int,
    rows: Tensor,
    held: Tensor,
    sigma: Tensor,
    slopes: Tensor,
    why: Orthogonality,
    reasons: list[Reason],
) -> None:
    """Fill in the elements whose Σg lies within the jump of a kink; there is at most one such kink for each."""
    radii = g.new_tensor([c for c, _ in H.kinks])
    left, right = H.slope(radii, "left"), H.slope(radii, "right")
    total = g[rows].sum(-1, keepdim=True)
    crossed = (left <= total) & (total <= right)
    mine = crossed.any(-1)
    rows, kink = rows[mine], crossed[mine].to(torch.int8).argmax(-1)
    if not len(rows):
        return
    A, B = left[kink], right[kink]
    why.radius[rows], why.left[rows], why.right[rows] = radii[kink], A, B
    full = support(g[rows], outputs, dim).all(-1) if g.shape[1] == dim else torch.zeros_like(rows, dtype=torch.bool)
    for row in rows[~full].tolist():
        reasons[row] = Reason.SHAPE
    rows, A, B = rows[full], A[full], B[full]
    if not len(rows):
        return
    low, high = closed_form(g[rows], dim)
    simple = (low >= A) & (high <= B)
    for row in rows[simple].tolist():
        reasons[row] = Reason.SUFFICIENT
    done = rows[simple]
    held[done], sigma[done], slopes[done] = True, why.radius[done, None].expand(-1, dim), g[done]
    rows, A, B = rows[~simple], A[~simple], B[~simple]
    if not len(rows):
        return
    # F falls when a σ_i alone leaves: downwards if A ≥ n min g, upwards if B < n max g.
    least, most = dim * g[rows, -1], dim * g[rows, 0]
    v = torch.zeros_like(g[rows])
    v[least <= A, -1] = -1.0
    v[(most > B) & (least > A), 0] = 1.0
    threshold = torch.full_like(A, math.nan).masked_fill(least <= A, math.inf)
    open_ = ((least > A) & (most <= B)).nonzero()[:, 0]
    if len(open_):  # most often it is clear, and cheap to see, that no multiplier is enough
        bound, direction = lower_bound(g[rows[open_]] - A[open_, None] / dim)
        clear = bound > (B - A)[open_]
        v[open_[clear]], open_ = direction[clear], open_[~clear]
    if len(open_):
        found = gauge(g[rows[open_]] - A[open_, None] / dim)
        v[open_], threshold[open_] = found.v, A[open_] + found.jump
        fits = found.jump <= B[open_] - A[open_]
        done = rows[open_[fits]]
        held[done], sigma[done] = True, why.radius[done, None].expand(-1, dim)
        slopes[done] = (A[open_, None] / dim + found.mean)[fits]
    why.v[rows], why.threshold[rows], why.jump[rows] = v, threshold, threshold - A
    for row in rows.tolist():
        reasons[row] = Reason.EXACT if bool(held[row]) else Reason.DESCENT


def closed_form(g: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The least and the greatest value (B,) of ξ(ζ) = (n/2) Σ ((n+2) g_i − Σg) ζ_i², which has E[ξ ζ_i²] = g_i."""
    total = g.sum(-1)
    low, high = ((dim + 2) * end - total for end in (g.amin(-1), g.amax(-1)))
    return dim / 2 * low, dim / 2 * high
