"""When is orthogonalisation optimal? The region of slopes (A, B) left and right of a kink at r̃ for which r̃ UVᵀ is.

For n singular values g_i > 0 of an m × n gradient, m ≥ n, the region is {A ≤ n min g, B ≥ A + J(g − A/n)}, with J the
gauge of `gauge`: convex in A, and independent of r̃ and of H elsewhere. Bounds that need no search:

    necessary    A ≤ n min g,  B ≥ n max g                                   (F leaves along one coordinate otherwise)
    sufficient   A ≤ (n/2)((n+2) min g − Σg),  B ≥ (n/2)((n+2) max g − Σg)   (ξ(ζ) = (n/2) Σ ((n+2) g_i − Σg) ζ_i²)

With fewer than n singular values, or zeros among them, ‖Qζ‖ has no atom and no finite B is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icm.arrays import require_finite, to_tensor
from icm.errors import InputError
from icm.solvers.flat import closed_form
from icm.solvers.gauge import gauge
from icm.sphere import spectrum


@dataclass(frozen=True, eq=False)
class OrthogonalRegion:
    """Where r̃ UVᵀ is optimal for a gradient with singular values g (n,), at left slopes left (A,), ascending.

    threshold (A,) is the least right slope, ∞ beyond n min g; the region is convex, and everything above the threshold.
    largest_left = n min g and least_right = n max g bound it; at sufficient_left and sufficient_right, and below and
    above them, the closed form proves it (sufficient_left is negative where it never does for a nondecreasing H).
    """

    g: Float[Tensor, " n"]
    left: Float[Tensor, " a"]
    threshold: Float[Tensor, " a"]
    largest_left: float
    least_right: float
    sufficient_left: float
    sufficient_right: float

    def contains(self, left_slope: Any, right_slope: Any) -> Bool[Tensor, "..."]:
        """Whether r̃ UVᵀ is optimal for a kink with these slopes (broadcast), decided exactly and not from the grid."""
        left, right = torch.broadcast_tensors(_slopes(left_slope), _slopes(right_slope))
        return (right >= orthogonal_threshold(self.g, left, len(self.g))) & (right >= left)

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure of the region with the bounds beside it; saved if `path` is given."""
        from icm.plots import plot_region

        return plot_region(self, path=path)


def orthogonal_threshold(g: Any, left_slope: Any, dim: int) -> Float[Tensor, "..."]:
    """The least right slope B of a kink at any r̃ with left slope A ≥ 0 for which r̃ UVᵀ is optimal; ∞ if none is enough.

    g (k,) are G's singular values in any order, left_slope any shape, dim = n; the result has left_slope's shape,
    float64, accurate to 1e−11 relative. B(A) = A + max_v ⟨g − A/n, v⟩/E(Σ v_i ζ_i²)₊.

    Raises InputError for negative or non-finite g or slopes, and for k > dim.
    """
    g = _singular_values(g, dim)
    A = _slopes(left_slope).to(g.device)
    flat = A.reshape(-1)
    threshold = torch.full_like(flat, math.inf)
    if len(g) == dim and float(g.min()) > 0:
        q = g - flat[:, None] / dim
        equal = bool((g == g[0]).all())
        rows = (q.amin(-1) > 0).nonzero()[:, 0]
        if len(rows):
            threshold[rows] = flat[rows] + gauge(q[rows]).jump
        if equal:  # ξ = n g is constant, and a left slope that reaches it needs no jump at all
            threshold = torch.where(flat <= dim * g[0], dim * g[0], threshold)
    return threshold.reshape(A.shape)


def orthogonal_bounds(g: Any, left_slope: Any, dim: int) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """(necessary, sufficient): right slopes below which r̃ UVᵀ is never, and from which on it is always optimal.

    Both have left_slope's shape, float64, ∞ where there is none; the exact `orthogonal_threshold` lies between them.
    Raises as `orthogonal_threshold`.
    """
    g = _singular_values(g, dim)
    A = _slopes(left_slope).to(g.device)
    never = torch.full_like(A, math.inf)
    if len(g) < dim or float(g.min()) == 0:
        return never, never.clone()
    low, high = closed_form(g, dim)
    necessary = torch.where(dim * g.min() >= A, (dim * g.max()).clamp(min=g.sum()), never)
    return necessary, torch.where(low >= A, high, never)


def orthogonal_region(g: Any, dim: int, points: int = 65) -> OrthogonalRegion:
    """The OrthogonalRegion of g (k,), at `points` left slopes from 0 to n min g, closer together towards its end.

    Raises InputError for bad g as `orthogonal_threshold`, and where the region is empty: fewer than n singular values,
    or zeros among them.
    """
    g = _singular_values(g, dim)
    if len(g) < dim or float(g.min()) == 0:
        positive = int((g > 0).sum())
        raise InputError(
            f"g has {positive} positive singular values for {dim} inputs: no kink holds fewer than {dim} of them at "
            "one radius (a wall does); solve with H + icm.Wall(radius) instead"
        )
    if points < 2:
        raise InputError(f"points={points}: a region needs at least 2 left slopes")
    largest = float(dim * g.min())
    # Evenly spaced in the square root of the distance to the end, where the threshold runs to infinity.
    left = largest * (1 - torch.linspace(1, 0, points, dtype=torch.float64, device=g.device).square())
    low, high = closed_form(g, dim)
    return OrthogonalRegion(
        g=g,
        left=left,
        threshold=orthogonal_threshold(g, left, dim),
        largest_left=largest,
        least_right=float(dim * g.max()),
        sufficient_left=float(low),
        sufficient_right=float(high),
    )


def _singular_values(g: Any, dim: int) -> Tensor:
    g = spectrum(g, dim)
    if g.ndim != 1:
        raise InputError(f"g has shape {tuple(g.shape)}; give the singular values (k,) of one gradient")
    return g.double().sort(descending=True).values


def _slopes(slope: Any) -> Tensor:
    slope = to_tensor(slope, "slope").double()
    require_finite(slope, "slope")
    if bool((slope < 0).any()):
        raise InputError(f"slope={float(slope.min())}: H is nondecreasing, so its slopes are ≥ 0")
    return slope
