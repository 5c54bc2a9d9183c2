"""A Schatten norm whose p each matrix learns while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.optim.scaling import Scaling, length


@dataclass(frozen=True)
class Tuned:
    """Steps T_a = ℓ U diag(g^a) Vᵀ/‖g^a‖₂ for the momentum U diag(g) Vᵀ, with an a in [0, 1] for each matrix that
    follows the loss.

    That is the direction of steepest descent in Schatten-p, a = q − 1, 1/p + 1/q = 1: a = 0 is the spectral norm's
    (p = ∞, Muon), a = 1 the Frobenius norm's (p = 2, SGD). All have the length ℓ = `icm.optim.scaling.length`, so that
    a changes the shape alone. After a step by −T_a the derivative of the next loss with respect to a is −⟨G', ∂T_a/∂a⟩,
    G' its gradient, and a moves against it, relative to the sizes of both, from `start` on, at its own `rate`:

        a ← a + rate · ⟨G', ∂T_a/∂a⟩/(‖G'‖_F ‖T_a‖_F),     kept within [0, 1].

    This looks one step ahead. At one Frobenius length no direction is better for G' = G than G itself, so that a rises
    where gradients of one step and the next agree, and falls where curvature or noise turns the large singular
    directions: which p trains best in the long run it does not ask.

    What is 0 among the g to within rounding stays 0. Each step takes an SVD. ∂T_a/∂a is kept: as much as the momentum.

    Raises InputError for a rate below 0 or infinite, a start outside [0, 1], and the scaling "none".
    """

    rate: float = 0.1
    start: float = 0.5
    scaling: Scaling = "spectral"

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf:
            raise InputError(f"rate={self.rate!r}: a finite number ≥ 0, by which a moves; 0 leaves it at its start")
        if not 0 <= self.start <= 1:
            raise InputError(f"start={self.start!r}: a lies between 0, the spectral norm's steps, and 1, Frobenius's")
        length(self.scaling, 1, 1)

    def learn(self, gradients: Sequence[Float[Tensor, "_ _ _"]], states: Sequence[dict[str, Any]]) -> None:
        """Move a of every matrix, by the new gradients, stacked as for `take`, and what that left."""
        counts = [len(G) // len(states) for G in gradients]
        for i, mine in enumerate(states):
            if "slope" not in mine:
                continue
            slopes = mine["slope"].split([count * G[0].numel() for G, count in zip(gradients, counts, strict=True)])
            moves = []
            for G, count, slope in zip(gradients, counts, slopes, strict=True):
                g = G[i * count : (i + 1) * count]
                size = torch.linalg.matrix_norm(g) * length(self.scaling, *g.shape[-2:])
                moves.append((g * slope.view_as(g)).sum((-2, -1)) / size.where(size > 0, 1.0))
            mine["shape"].add_(torch.cat(moves), alpha=self.rate).clamp_(0.0, 1.0)

    def take(
        self, G: Sequence[Float[Tensor, "_ _ _"]], states: Sequence[dict[str, Any]]
    ) -> list[Float[Tensor, "_ _ _"]]:
        """T_a of stacks of momenta, those of the first state first; leaves ∂T_a/∂a in the states, and a, one for each
        matrix."""
        counts = [len(g) // len(states) for g in G]
        for mine in states:
            if "shape" not in mine:
                mine["shape"] = torch.full((sum(counts),), self.start, dtype=G[0].dtype, device=G[0].device)
        parts = [mine["shape"].split(counts) for mine in states]
        found = [self._shaped(g, torch.cat([part[j] for part in parts])) for j, g in enumerate(G)]
        for i, mine in enumerate(states):
            own = [
                slope[i * count : (i + 1) * count].flatten() for (_, slope), count in zip(found, counts, strict=True)
            ]
            mine["slope"] = torch.cat(own)
        return [T for T, _ in found]

    def _shaped(self, G: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """T_a and ∂T_a/∂a, (b, m, n)."""
        m, n = G.shape[-2:]
        U, g, Vh = torch.linalg.svd(G, full_matrices=False)
        top = g[:, :1]
        live = g > (8 + max(m, n) ** 0.5) * torch.finfo(g.dtype).eps * top
        log = (g / top.where(top > 0, 1.0)).where(live, 1.0).log()
        s = (a[:, None] * log).exp() * live
        size = s.norm(dim=-1, keepdim=True)
        t = s / size.where(size > 0, 1.0)
        slope = t * (log - (t.square() * log).sum(-1, keepdim=True))
        ell = length(self.scaling, m, n)
        return (U * (ell * t)[:, None, :]) @ Vh, (U * (ell * slope)[:, None, :]) @ Vh


def exponents(state: Mapping[str, Any]) -> list[float]:
    """p = (1 + a)/a of a parameter's matrices, ∞ for a = 0."""
    return [math.inf if a == 0 else (1 + a) / a for a in state["shape"].tolist()]
