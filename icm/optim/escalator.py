"""The step-size escalator of Prodigy, for steepest descent in any norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError


@dataclass(frozen=True)
class Escalator:
    """η ← max(η, ⟨G, W₀ − W⟩/N†(G)) after a step of length lr · η, from `start` on; W₀ are the weights it began with.

    For a convex loss with a minimiser W*, ⟨G, W₀ − W⟩ ≤ ⟨G, W₀ − W*⟩ ≤ N†(G) N(W₀ − W*), so that η stays below the
    larger of `start` and N(W₀ − W*), the distance to go in the norm of all tensors. In the max-entry norm this is
    Prodigy without averages (Mishchenko & Defazio, arXiv 2306.06101; Bernstein & Newhouse, arXiv 2409.20325, section
    4). With momentum the average takes the place of G, and the bound no longer holds.

    Raises InputError for a start that is not finite and positive.
    """

    start: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.start < math.inf:
            raise InputError(f"start={self.start!r}: the first step's length is finite and above 0, such as 1e-6")

    def next(self, eta: Float[Tensor, ""], against: Float[Tensor, ""], dual: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """η after a step, from ⟨G, W₀ − W⟩ and N†(G) before it."""
        return torch.maximum(eta, torch.where(dual > 0, against / dual.where(dual > 0, 1.0), 0.0))
