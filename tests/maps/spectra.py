"""Singular values that matrix products find hard, and matrices that have them."""

from __future__ import annotations

import torch
from torch import Tensor


def spectra(k: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Named spectra (k,), descending, the largest 1."""
    i = torch.arange(k, dtype=torch.float64)
    gaussian = torch.linalg.svdvals(torch.randn(k, k, dtype=torch.float64, generator=generator))
    found = {
        "gaussian": gaussian,
        "1/i": 1 / (1 + i),
        "condition 1e8": torch.logspace(0, -8, k, dtype=torch.float64),
        "outlier": torch.where(i == 0, 1.0, 0.03).double(),
        "flat": torch.ones(k, dtype=torch.float64),
        "two levels": torch.where(i < (k + 1) // 2, 1.0, 0.2).double(),
        "rank deficient": torch.where(i < (k + 3) // 4, 1 - i / k, 0.0),
        "rank one": torch.where(i == 0, 1.0, 0.0).double(),
    }
    return {name: g / g[0] for name, g in found.items()}


def with_spectrum(g: Tensor, m: int, n: int, generator: torch.Generator) -> Tensor:
    """U diag(g) Vᵀ (m, n), float64, with random U and V."""
    k = len(g)
    U, V = (torch.linalg.qr(torch.randn(d, k, dtype=torch.float64, generator=generator))[0] for d in (m, n))
    return (U * g) @ V.mT
