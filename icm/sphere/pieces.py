"""E H(‖Qζ‖) for the piecewise part of H: Σ jump (r − c)₊ + ½ rise (r − c)₊², kinks and measured curvatures."""

from __future__ import annotations

import torch
from torch import Tensor

from icm.sphere import powers
from icm.sphere.contour import Shape, hinges
from icm.sphere.path import lower_bound
from icm.sphere.powers import Moments

Terms = tuple[tuple[float, float, float], ...]

_ROUNDING = 4e-15  # relative error of one hinge; measured, see benchmarks
_NEGLIGIBLE = -75.0  # logarithm of a probability that no sum of float64 feels, not even one that cancels
_CLOSE, _TERMS = 0.05, 12  # (r/c)² − 1 at most where it is expanded, and the terms for 1e-17
_GROWTH = 1e-16  # and its growth with n


def hinge_error(dim: int) -> float:
    """The relative error of one hinge's mean and slopes, at most."""
    return _ROUNDING + dim * _GROWTH


def piecewise(
    terms: Terms, sigma: Tensor, low: Tensor | None, x: Tensor, size: Tensor, dim: int, accuracy: float = 0.0
) -> tuple[Moments, Tensor]:
    """Moments of H = Σ jump (r − c)₊ + ½ rise (r − c)₊², terms (c, jump, rise), at σ (B, k) of size σ₁ (B,), x = σ/σ₁,
    weight and bend in units of H/σ₁; and their relative error (B,).

    `low` (B, k) holds the digits of σ below its rounding: the law of r − c depends on them near a kink. `accuracy`: a
    relative error that will do, 0 for rounding alone.
    """
    radius, jump, rise = (sigma.new_tensor(column) for column in zip(*terms, strict=True))
    d, m, pad = _levels(sigma, low, radius, size, dim)
    bottom, top = d.aminmax(dim=-1)
    beyond = (bottom >= 0) & (top > 0)
    inside = (bottom < 0) & (top > 0)
    rows, level = (inside & (d @ m > 0)).nonzero(as_tuple=True)
    if len(rows):  # a hinge so far below that the law has no mass there, to any precision
        passed = lower_bound(d[rows, level], m) < _NEGLIGIBLE
        inside[rows[passed], level[passed]], beyond[rows[passed], level[passed]] = False, True
    c = radius / size[:, None]  # (B, L), like the coefficients in units of size
    jump, rise = jump * size[:, None], rise * size[:, None].square()
    total, scale, steepness = _passed(beyond, d, m, c, jump, rise, x, dim)
    shapes: tuple[tuple[Shape, Tensor], ...] = (("kink", jump), ("rise", rise))
    for shape, coefficient in shapes:
        rows, level = (inside & (coefficient != 0)).nonzero(as_tuple=True)
        if len(rows):
            part = _times(coefficient[rows, level], _contour(d[rows, level], m, c[rows, level], shape, pad, accuracy))
            total = _add(total, rows, part)
            scale = scale.index_add(0, rows, part.value.abs())
            steepness = steepness.index_add(0, rows, (part.weight * x[rows]).norm(dim=-1))
    # Terms of either sign can cancel: what is left has the rounding of what was there.
    left = torch.maximum(scale / total.value.abs(), steepness / (total.weight * x).norm(dim=-1))
    error = (hinge_error(dim) + accuracy) * left.nan_to_num(1.0, 1.0, 1.0).clamp(min=1.0)
    unit = size[:, None]
    return Moments(total.value, total.weight / unit, total.bend / unit), error


def _levels(sigma: Tensor, low: Tensor | None, radius: Tensor, size: Tensor, dim: int) -> tuple[Tensor, Tensor, int]:
    """d = (λ − c²)/σ₁² (B, L, K) of the distinct coordinates, their multiplicities (K,), and the number of padding
    ones, which come first. λ − c² is a product: forming λ would lose the digits that say on which side of a kink it
    is."""
    pad = int(dim > sigma.shape[1])
    m = sigma.new_ones(sigma.shape[1] + pad)
    m[:pad] = dim - sigma.shape[1]
    zeros = sigma.new_zeros(len(sigma), pad)
    sigma = torch.cat([zeros, sigma], 1)[:, None, :]
    below = sigma - radius[:, None]
    if low is not None:
        below = below + torch.cat([zeros, low], 1)[:, None, :]
    unit = size[:, None, None]
    return below / unit * (sigma / unit + radius[:, None] / unit), m, pad


def _passed(
    passed: Tensor, d: Tensor, m: Tensor, c: Tensor, jump: Tensor, rise: Tensor, x: Tensor, dim: int
) -> tuple[Moments, Tensor, Tensor]:
    """The terms whose hinge lies below the whole range of r, where they add up to one polynomial a r² + b r + e; and
    the sizes (B,) of the values and of the slopes that were added."""
    jump, rise = jump * passed, rise * passed
    a, b, e = rise.sum(-1) / 2, (jump - rise * c).sum(-1), ((rise * c / 2 - jump) * c).sum(-1)
    zero = torch.zeros_like(x)
    parts = [
        _times(factor, powers.power(x, dim, p))
        if bool((factor != 0).any())
        else Moments(torch.zeros_like(e), zero, zero)
        for p, factor in ((1.0, b), (2.0, a))
    ]
    total = parts[0] + parts[1]
    value, scale = total.value + e, parts[0].value.abs() + parts[1].value.abs() + e.abs()
    steepness = (parts[0].weight * x).norm(dim=-1) + (parts[1].weight * x).norm(dim=-1)
    # A law close behind its hinges: r − c without the cancellation.
    close = ((d.abs().amax(-1) < _CLOSE * c.square()) | ((jump == 0) & (rise == 0))).all(-1) & passed.any(-1)
    if bool(close.any()):
        near = _behind(d[close], m, c[close], jump[close], rise[close], dim)
        value, scale = value.index_put((close,), near), scale.index_put((close,), near)
    return Moments(value, total.weight, total.bend), scale, steepness


def _behind(d: Tensor, m: Tensor, c: Tensor, jump: Tensor, rise: Tensor, dim: int) -> Tensor:
    """Σ jump E(r − c) + ½ rise E(r − c)² (B,) for 0 ≤ d ≪ c², by the series of r = c √(1 + δ) in δ = Σ d_i ζ_i²/c²."""
    e = d / c.clamp(min=1e-300).square()[..., None]
    sums = [(e**j) @ m for j in range(1, _TERMS + 1)]
    f, root, square = [torch.ones_like(c)], torch.zeros_like(c), torch.zeros_like(c)
    factor, binomial = 1.0, 1.0
    for k in range(1, _TERMS + 1):
        # E δ^k = k! f_k / (n/2)_k with f_k = (1/2k) Σ_j Σ_i e_i^j f_{k−j}
        f.append(torch.stack([sums[j - 1] * f[k - j] for j in range(1, k + 1)]).sum(0) / (2 * k))
        factor *= k / (dim / 2 + k - 1)
        binomial *= (0.5 - k + 1) / k
        term = binomial * factor * f[k]
        root = root + term
        square = square - 2 * term * (k > 1)
    total = jump * c * root + rise * c.square() * square / 2
    return total.where((jump != 0) | (rise != 0), 0.0).sum(-1)


def _contour(d: Tensor, m: Tensor, c: Tensor, shape: Shape, pad: int, accuracy: float) -> Moments:
    part = hinges(d, m, c, shape, accuracy=accuracy)
    return Moments(part.value, part.weight[:, pad:], part.bend[:, pad:])


def _times(factor: Tensor, part: Moments) -> Moments:
    return Moments(factor * part.value, factor[:, None] * part.weight, factor[:, None] * part.bend)


def _add(total: Moments, rows: Tensor, part: Moments) -> Moments:
    pairs = zip(vars(total).values(), vars(part).values(), strict=True)
    return Moments(*(t.index_add(0, rows, p) for t, p in pairs))
