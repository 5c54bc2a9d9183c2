"""Norms of the longest column or row: those of maps from ℓ1, and into ℓ∞ (Bernstein & Newhouse, proposition 8)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from icm.norms.norm import Norm, Rescaled
from icm.norms.vectors import dual_exponent, length, maximiser, nearest, require_exponent


@dataclass(frozen=True)
class ColumnNorm(Norm):
    """‖W‖_{1→p} = max_j ‖col_j‖_p, p in [1, ∞]; dual Σ_j ‖col_j(G)‖_q, 1/p + 1/q = 1; dualize(G) takes each column for
    itself, p = 2: col_j/‖col_j‖₂.

    Raises InputError for p < 1.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        require_exponent(self.p)

    def _norm(self, W: Tensor) -> Tensor:
        return length(W.mT, self.p).amax(-1)

    def _dual(self, G: Tensor) -> Tensor:
        return length(G.mT, dual_exponent(self.p)).sum(-1)

    def _dualize(self, G: Tensor) -> Tensor:
        return maximiser(G.mT, self.p).mT

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        return nearest(W.mT, self.p, radius[..., None].expand(*W.shape[:-2], W.shape[-1])).mT

    def __str__(self) -> str:
        return f"column({self.p:.17g})"


@dataclass(frozen=True)
class RowNorm(Norm):
    """‖W‖_{p→∞} = max_i ‖row_i‖_q, 1/p + 1/q = 1, p in [1, ∞]; dual Σ_i ‖row_i(G)‖_p; dualize(G) takes each row for
    itself, p = 2: row_i/‖row_i‖₂.

    Raises InputError for p < 1.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        require_exponent(self.p)

    def _norm(self, W: Tensor) -> Tensor:
        return length(W, dual_exponent(self.p)).amax(-1)

    def _dual(self, G: Tensor) -> Tensor:
        return length(G, self.p).sum(-1)

    def _dualize(self, G: Tensor) -> Tensor:
        return maximiser(G, dual_exponent(self.p))

    def _project(self, W: Tensor, radius: Tensor) -> Tensor:
        return nearest(W, dual_exponent(self.p), radius[..., None].expand(W.shape[:-1]))

    def __str__(self) -> str:
        return f"row({self.p:.17g})"


@dataclass(frozen=True)
class OneToRMS(Rescaled):
    """‖W‖_{1→RMS} = max_j ‖col_j‖₂/√m for m outputs: for embeddings, whose columns are the tokens' vectors; dual
    √m Σ_j ‖col_j(G)‖₂, dualize(G): columns √m col_j/‖col_j‖₂."""

    @property
    def inner(self) -> ColumnNorm:
        """‖·‖_{1→2}."""
        return ColumnNorm(2.0)

    def factor(self, m: int, n: int) -> float:
        """1/√m."""
        return m**-0.5

    def __str__(self) -> str:
        return "one-to-rms"
