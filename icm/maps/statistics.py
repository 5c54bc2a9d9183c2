"""What a solve without an SVD knows of G's singular values: all of them, roughly, and how roughly."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.maps.moments import chebyshev_moments, entries
from icm.maps.norm_bounds import shrinkage

Method = Literal["auto", "eigvalsh", "moments"]

MOMENTS = 16
_SQUARINGS = 2
_ROUNDING = 3.0  # eps of a Gram matrix and its eigenvalues, times √(k + inner dimension); measured, see the tests


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of G (…, m, n) as far as matrix products tell them, float64 on the CPU.

    g (…, k) descending; top (…) ≥ ‖G‖₂; `slack` (…) bounds |g_i² − exact|/top² by eigenvalues, for each i. From
    moments the single g_i are not known: `tau` (…, count + 1) then holds the Chebyshev sums of g²/top², which g has to
    within rounding, τ_j to slack · k · (1 + j²). `other` (…, k) is a spectrum at the edge of what is known: every
    g_i² longer by the slack, or what half of the moments give.
    """

    g: Float[Tensor, "*batch k"]
    top: Float[Tensor, "*batch"]
    slack: Float[Tensor, "*batch"]
    other: Float[Tensor, "*batch k"]
    tau: Float[Tensor, "*batch count"] | None = None

    @property
    def method(self) -> Method:
        return "eigvalsh" if self.tau is None else "moments"

    def __getitem__(self, i: int) -> Spectrum:
        """Element i of the first batch dimension."""
        tau = None if self.tau is None else self.tau[i]
        return Spectrum(self.g[i], self.top[i], self.slack[i], self.other[i], tau)


def spectrum(
    G: Float[Tensor, "*batch m n"], method: Method = "auto", moments: int = MOMENTS, dtype: torch.dtype | None = None
) -> Spectrum:
    """The spectrum of G (…, m, n), real and finite, from its Gram matrix on the smaller side.

    "eigvalsh": its eigenvalues. "moments": `moments` Chebyshev moments by moments/2 + 1 products, and the spectrum of
    k numbers that has them. "auto": eigenvalues on a CPU, where they cost less than those products, moments elsewhere.
    Products are in `dtype`: None for float64 if G is and float32 otherwise. G is scaled by a power of two first.

    Raises InputError for an unknown method or fewer than 4 moments.
    """
    if method not in ("auto", "eigvalsh", "moments"):
        raise InputError(f"statistics={method!r}: choose 'auto', 'eigvalsh' or 'moments'")
    if moments < 4:
        raise InputError(f"moments={moments}: a spectrum needs at least 4")
    if method == "auto":
        method = "eigvalsh" if G.device.type == "cpu" else "moments"
    dtype = dtype or (torch.float64 if G.dtype == torch.float64 else torch.float32)
    batch, (m, n) = G.shape[:-2], G.shape[-2:]
    k, inner = min(m, n), max(m, n)
    X = G.detach().reshape(-1, m, n)
    X = (X if m <= n else X.mT).to(dtype)
    unit = shrinkage(X, dtype)
    X, unit = X * unit, unit[:, 0, 0]
    A = X @ X.mT
    eps = torch.finfo(dtype).eps
    rounding = _ROUNDING * eps * math.sqrt(k + inner)
    unit = unit.double().cpu()
    if method == "eigvalsh":
        y = torch.linalg.eigvalsh(A).flip(-1).double().cpu()
        top = (y[:, 0] * (1 + rounding)).clamp(min=0).sqrt()
        slack = torch.full_like(top, rounding)
        g, other = y.clamp(min=0).sqrt(), (y.clamp(min=0) + rounding * y[:, :1]).sqrt()
        parts = [g / unit[:, None], top / unit, slack, other / unit[:, None]]
    else:
        largest = _largest(A, eps, k)
        A = A / largest.where(largest > 0, 1.0).to(dtype)[:, None, None]
        tau, top = chebyshev_moments(A, moments).cpu(), largest.sqrt().cpu()
        fine, coarse = (_entries(tau[:, : count + 1], k, rounding) for count in (moments, moments // 2))
        g, other = (y.sqrt() * (top / unit)[:, None] for y in (fine, coarse))
        parts = [g, top / unit, torch.full_like(top, rounding), other, tau]
    return Spectrum(*(part.reshape(batch + part.shape[1:]) for part in parts))


@functools.lru_cache(maxsize=64)
def representatives(k: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices into k descending numbers, about `count`, and how many of them each stands for: some spread evenly, some
    dense among the largest, of which every one may matter."""
    even = np.linspace(0, k - 1, min(k, 2 * count // 3))
    dense = np.geomspace(1, k, min(k, count - len(even))) - 1
    index = np.unique(np.concatenate([even, dense]).round().astype(np.int64))
    counts = np.diff(np.concatenate([[-0.5], (index[1:] + index[:-1]) / 2, [k - 0.5]]))
    return index, counts


def _largest(A: Tensor, eps: float, k: int) -> Tensor:
    """An upper bound (B,), float64, of the largest eigenvalue of A (B, k, k) ⪰ 0: ‖A^{2^j}‖_F^{1/2^j}."""
    log, weight = torch.zeros(len(A), dtype=torch.float64, device=A.device), 1.0
    for left in range(_SQUARINGS, -1, -1):
        size = torch.linalg.matrix_norm(A).double()
        alive = size > 0
        log = log + weight * size.where(alive, 1.0).log()
        A = A / size.where(alive, 1.0).to(A)[:, None, None]
        if left:
            A, weight = A @ A, weight / 2
    found = log.exp() * (1 + 4 * eps * math.sqrt(k))
    return found.where(A.diagonal(dim1=-2, dim2=-1).sum(-1) > 0, 0.0)


def _entries(tau: Tensor, k: int, noise: float) -> Tensor:
    return torch.from_numpy(np.stack([entries(row, k, noise) for row in tau.numpy()]))
