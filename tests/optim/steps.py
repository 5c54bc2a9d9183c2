"""What the tests of the optimizer share: numbers from seeds, gradients that drift, steps under given gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameter(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(0.1 * normal(seed, *shape, dtype=dtype))


def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    """Where the first step ends is −ΔW itself, without a rounding to the size of W."""
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def drifting(seed: int, count: int, *shape: int, dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
    """Gradients of a slowly changing low-rank signal, with new noise in each."""
    signal = normal(seed, *shape) * torch.logspace(0, -1.5, shape[-1], dtype=torch.float64)
    for t in range(count):
        signal = 0.98 * signal + 0.02 * normal(seed + 1000 + t, *shape)
        yield (signal + 0.1 * normal(seed + 2000 + t, *shape)).to(dtype)


def spectrum_of(seed: int, m: int, n: int, g: Tensor) -> Tensor:
    """U diag(g) Vᵀ with U, V drawn first."""
    k = min(m, n)
    U, V = (torch.linalg.qr(normal(s, rows, k)).Q for s, rows in ((seed, m), (seed + 1, n)))
    return (U * g) @ V.mT


def polar(G: Tensor) -> Tensor:
    """U Vᵀ by torch's SVD in float64."""
    U, _, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return U @ Vh


def take(optimizer: torch.optim.Optimizer, params: Sequence[Tensor], gradients: Iterable[Tensor | None]) -> None:
    """One step under these gradients."""
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = None if gradient is None else gradient.to(p.dtype).clone()
    optimizer.step()


def moved(make: Callable[[list[nn.Parameter]], Any], gradient: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """ΔW of the first step from W = 0, in float64."""
    p = zeros(*gradient.shape, dtype=dtype or gradient.dtype)
    take(make([p]), [p], [gradient])
    return p.detach().double()


def far(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖_F/‖wanted‖_F."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm())
