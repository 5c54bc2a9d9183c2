"""The sum of the k largest singular values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icm.errors import InputError
from icm.norms.schatten import Invariant
from icm.norms.vectors import nearest


@dataclass(frozen=True)
class KyFan(Invariant):
    """‖W‖_(k) = σ_1 + … + σ_k, between the spectral norm (k = 1) and the nuclear (k ≥ min(m, n)).

    dual(G) = max(g_1, Σg/k) (Bhatia, Matrix Analysis, 1997, exercise IV.2.12). dualize(G) is UVᵀ/k where Σg/k is the
    larger, U₁V₁ᵀ/j for the j largest singular values where g_1 is, and where both are equal, to within rounding, the
    mixture of the two of least Frobenius norm.

    Raises InputError for a k that is not a whole number ≥ 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1 or self.k != int(self.k):
            raise InputError(f"k={self.k!r}: how many singular values are summed, a whole number of at least 1")

    def _length(self, g: Tensor) -> Tensor:
        return g[..., : self.k].sum(-1)

    def _dual_length(self, g: Tensor) -> Tensor:
        return torch.maximum(g[..., 0], g.sum(-1) / self.k)

    def _maximiser(self, g: Tensor, tie: float) -> Tensor:
        k = self.k
        top, mean = g[..., :1], g.sum(-1, keepdim=True) / k
        support = g > 0
        largest = (g >= top * (1 - tie)) & support
        j, r = (x.sum(-1, keepdim=True).to(g.dtype) for x in (largest, support))
        j = j.clamp(min=1.0)
        # b·sign/k + (1 − b)·largest/j: the b of least length where both reach the dual
        apart = 1 / j - 1 / k
        weight = j * apart**2 + (r - j) / k**2
        b = (apart / weight.where(weight > 0, 1.0)).clamp(0.0, 1.0)
        b = torch.where(mean > top * (1 + tie), 1.0, torch.where(mean < top * (1 - tie), 0.0, b))
        return b * support / k + (1 - b) * largest / j

    def _nearest(self, g: Tensor, radius: Tensor) -> Tensor:
        """g − clamp(g − τ, 0, λ), with τ and λ ≥ 0 such that the k largest sum to the radius and the clamps to kλ, or
        at τ = 0 to less (proximal map of λ times the norm).

        In order, i of the clamps are λ and those up to l are between 0 and λ. For each i < k ≤ l that leaves two linear
        equations: all are solved, and the pair is taken whose (i, l) is that of its τ and λ.
        """
        k, size = min(self.k, g.shape[-1]), g.shape[-1]
        plain = nearest(g, 1.0, radius)
        level = (g - plain).amax(-1, keepdim=True)
        enough = torch.minimum(g, level).sum(-1, keepdim=True) <= k * level
        sums = torch.cat([torch.zeros_like(g[..., :1]), g.cumsum(-1)], -1)
        i = torch.arange(k, device=g.device)[:, None]
        end = torch.arange(k, size + 1, device=g.device)[None]
        head, body = sums[..., :k, None], sums[..., None, k:] - sums[..., :k, None]
        # head − iλ + (k − i)τ = radius and body − (l − i)τ = (k − i)λ
        a, c = (k - i).to(g.dtype), (end - i).to(g.dtype)
        level2 = (a * body + c * (head - radius[..., None, None])) / (a * a + c * i)
        tau = (body - a * level2) / c
        inf = torch.full_like(g[..., :1], torch.inf)
        padded = torch.cat([inf, g, torch.zeros_like(inf)], -1)  # g_0 … g_{size + 1}
        above = tau + level2
        wrong = torch.stack([
            padded[..., 1 : k + 1, None] - above,  # the first not cut by all of λ
            above - padded[..., :k, None],
            padded[..., None, k + 1 : size + 2] - tau,  # the first not cut at all
            tau - padded[..., None, k : size + 1],
            -tau,
            -level2,
        ])  # fmt: skip
        best = wrong.amax(0).flatten(-2).argmin(-1, keepdim=True)
        tau, level2 = (x.flatten(-2).gather(-1, best) for x in (tau, level2))
        cut = torch.minimum((g - tau).clamp(min=0.0), level2.clamp(min=0.0))
        return torch.where(enough, plain, g - cut)

    def __str__(self) -> str:
        return f"ky-fan({self.k})"
