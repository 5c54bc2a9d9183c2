"""Sampling the sphere: an independent reference for the exact expectations, never used by a solver of ours."""

from __future__ import annotations

import torch
from torch import Tensor

from icm.curvature import Curvature


def directions(samples: int, dim: int, seed: int) -> Tensor:
    """ζ (samples, dim), independent and uniform on the unit sphere, float64, reproducible by seed."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True)


def mean_sampled(H: Curvature, sigma: Tensor, dim: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """The sample mean of H(‖Qζ‖) for sigma (k,), and its standard error."""
    zeta = directions(samples, dim, seed)[:, : sigma.shape[-1]]
    values = H((zeta * sigma).norm(dim=1))
    return values.mean(), values.std() / samples**0.5


def slopes_sampled(H: Curvature, sigma: Tensor, dim: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sample means (k,) of H'(‖Qζ‖) σ_i ζ_i²/‖Qζ‖, and their standard errors."""
    zeta = directions(samples, dim, seed)[:, : sigma.shape[-1]]
    r = (zeta * sigma).norm(dim=1)
    values = (H.slope(r) / r)[:, None] * sigma * zeta.square()
    return values.mean(0), values.std(0) / samples**0.5
