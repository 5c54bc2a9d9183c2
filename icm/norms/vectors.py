"""ℓp for the vectors that rows, columns, matrices and their spectra are: lengths, where they are reached, projections.

All along the last axis, with 1/p + 1/q = 1. Every vector is divided by its largest entry before any power is
taken.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError

_TURNS = 100  # of a safeguarded Newton iteration, which takes 5 to 15


def require_exponent(p: float, name: str = "p") -> None:
    """Raise InputError for a p outside [1, ∞]."""
    if not p >= 1:
        raise InputError(f"{name}={p!r}: ‖x‖_p is a norm for p in [1, inf]")


def dual_exponent(p: float) -> float:
    """q with 1/p + 1/q = 1, for p ≥ 1."""
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


def length(x: Float[Tensor, "*b k"], p: float) -> Float[Tensor, "*b"]:
    """‖x‖_p = (Σ|x_i|^p)^{1/p}, p in (0, ∞]."""
    size = x.abs()
    if p == 1:
        return size.sum(-1)
    top = size.amax(-1)
    if p == math.inf:
        return top
    share = size / _over(top)[..., None]
    if p == 2:
        return top * share.square().sum(-1).sqrt()
    return top * (share**p).sum(-1) ** (1 / p)


def maximiser(x: Float[Tensor, "*b k"], p: float, tie: float = 0.0) -> Float[Tensor, "*b k"]:
    """The y of ‖y‖_p = 1, p in [1, ∞], with ⟨x, y⟩ = ‖x‖_q, of least ‖y‖₂ where there are several; 0 for x = 0.

        y = sign(x)|x|^{q−1}/‖x‖_q^{q−1},     p = ∞: sign(x),     p = 1: sign(x_i)/j for the j largest |x_i|,

    those within the share `tie` of the largest.
    """
    size = x.abs()
    top = size.amax(-1, keepdim=True)
    if p == math.inf:
        return x.sign()
    if p == 1:
        largest = (size >= top * (1 - tie)) & (top > 0)
        return largest * x.sign() / largest.sum(-1, keepdim=True).clamp(min=1)
    share = size / _over(top)
    y = share if p == 2 else share ** (1 / (p - 1))
    # Over its own length: what rounding the power changed of y is then of second order in ⟨x, y⟩.
    return x.sign() * y / _over(length(y, p))[..., None]


def nearest(x: Float[Tensor, "*b k"], p: float, radius: Float[Tensor, "*b"]) -> Float[Tensor, "*b k"]:
    """The y of ‖y‖_p ≤ radius nearest to x in ℓ2, p in [1, ∞].

    p = 1: soft thresholding at a level that sorting finds (Duchi, Shalev-Shwartz, Singer & Chandra, ICML 2008); p = 2:
    scaling; p = ∞: clipping; else y_i + μ y_i^{p−1} = |x_i| for the μ > 0 with ‖y‖_p = radius, by Newton's method in
    log μ and, for each, in log y.
    """
    r = radius[..., None]
    size = x.abs()
    if p == math.inf:
        return x.clamp(-r, r)
    if p == 1:
        return x.sign() * _thresholded(size, r)
    outside = length(x, p)[..., None] > r
    if p == 2:
        return torch.where(outside, x * (r / _over(length(x, 2)[..., None])), x)
    b = (size / r).double()
    z = _inner(torch.where(outside, b, 2.0 * torch.ones_like(b)), p)
    return torch.where(outside, x.sign() * (z * r).to(x.dtype), x)


def _thresholded(size: Tensor, r: Tensor) -> Tensor:
    """(size − θ)₊ with the θ ≥ 0 for which it sums to r, or 0 where the sum is less already."""
    ordered = size.sort(-1, descending=True).values
    # From the largest on: what is left of the vector lies within r of it, and differences so small are exact.
    top = ordered[..., :1]
    below = (ordered - top).cumsum(-1) - r
    count = torch.arange(1, size.shape[-1] + 1, device=size.device, dtype=size.dtype)
    last = ((ordered - top) * count > below).sum(-1, keepdim=True).clamp(min=1)
    level = below.gather(-1, last - 1) / last  # θ − top
    return torch.where(top + level > 0, ((size - top) - level).clamp(min=0.0), size)


def _inner(b: Tensor, p: float) -> Tensor:
    """z of ‖z‖_p = 1 nearest to b ≥ 0 with ‖b‖_p > 1, in float64."""
    live = b > 0
    low = (length(b, p) - 1).clamp(min=1e-300).log() - math.log(b.shape[-1]) / p  # μ^{-1}(‖b‖_p − 1) ≤ ‖z^{p−1}‖_p
    high = length(b, dual_exponent(p)).log()  # μ = ‖b − z‖_q
    log_b = b.where(live, 1.0).log()
    v = high
    u = log_b
    for _ in range(_TURNS):
        u = _root(log_b, v[..., None], p)
        A, B = u.exp() * live, (v[..., None] + (p - 1) * u).exp() * live
        total = (A**p).sum(-1)
        s = total.log() / p
        low, high = torch.where(s > 0, v, low), torch.where(s > 0, high, v)
        slope = -(A**p * B / _over(A + (p - 1) * B)).sum(-1) / _over(total)
        step = v - s / torch.where(slope < 0, slope, -1.0)
        v, before = torch.where((step > low) & (step < high), step, (low + high) / 2), v
        if bool(((s.abs() < 1e-15) | ((v - before).abs() <= 1e-15 * v.abs())).all()):
            break
    z = u.exp() * live
    return z / length(z, p)[..., None]


def _root(log_b: Tensor, v: Tensor, p: float) -> Tensor:
    """u with e^u + e^{v + (p−1)u} = b: log of the left side is convex in u, so that Newton from above only falls."""
    u = torch.minimum(log_b, (log_b - v) / (p - 1))
    for _ in range(_TURNS):
        other = v + (p - 1) * u
        f = torch.logaddexp(u, other) - log_b
        share = torch.sigmoid(other - u)
        change = f / (1 + (p - 2) * share)
        u = u - change
        if bool((change.abs() <= 1e-15 * (1 + u.abs())).all()):
            break
    return u


def _over(x: Tensor) -> Tensor:
    """x to divide by: 1 where it is 0."""
    return x.where(x > 0, 1.0)
