"""How f(σ) = E H(‖Qζ‖) and ∇f(σ) move with a number θ of H, at fixed σ.

    θ a factor (scale, jump)          H = θ K          ∂f = E K
    θ a dilation (rate)               H(r) = K(θ r)    θ ∂f = ⟨∇f, σ⟩             θ ∂∇f = ∇f + ∇²f σ
    θ the radius of a kink            (r − θ)₊         θ ∂f = f − ⟨∇f, σ⟩         θ ∂∇f = −∇²f σ
    θ the exponent of a power         c r^θ            ∂ log of E (r/σ₁)^θ by central differences

The middle two are Euler's relations for a function of θσ, and for one homogeneous of degree 1 in (σ, θ).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icm.curvature import Curvature, Custom, Exponential, Kink, Power, Wall
from icm.errors import InputError
from icm.sphere import Expectation, expect, powers

_STEP = 0.05  # of the exponent; eighth order, so 4e−11 are cut off and 1e−12 are rounded
_CENTRAL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
_ROUNDING = 3e-14  # relative error of a weight
_FACTORS = {Power: "scale", Exponential: "scale", Kink: "jump", Custom: "scale"}
_DILATIONS = {Exponential: "rate", Custom: "stretch_factor"}
LEVEL = 2  # of the general rule for Custom curvatures


@dataclass(frozen=True, eq=False)
class Curving:
    """∇²f and the slopes of g = σ R(σ²) at σ (B, k), in a unit (B,): ∇²f = unit · hessian, and for two singular values
    (g_i − g_j)/(σ_i − σ_j) = unit · rise_ij, its limit where they are equal; hessian and rise (B, k, k)."""

    unit: Tensor
    hessian: Tensor
    rise: Tensor


def curving(e: Expectation) -> Curving:
    """The Curving of an Expectation; every entry is finite, and rise ≥ 0 for convex H."""
    x, weight, bend = e.x, e.weight.nan_to_num(0.0, 0.0, 0.0), e.bend.nan_to_num(0.0, 0.0, 0.0)
    top = weight.amax(-1, keepdim=True)
    top = top.where(top > 0, 1.0)
    weight, bend = weight / top, bend / top
    L = _divided(x, weight, bend)
    both = x[:, :, None] * x[:, None, :]
    hessian = 2 * both * L + torch.diag_embed(2 * weight + 4 * x.square() * bend)
    pair = (x[:, :, None] + x[:, None, :]).square() * L
    rise = (weight[:, :, None] + weight[:, None, :] + pair).clamp(min=0)
    return Curving(top[:, 0] / e.size.where(e.size > 0, 1.0), hessian, rise)


def _divided(x: Tensor, weight: Tensor, bend: Tensor) -> Tensor:
    """(w_i − w_j)/(λ_i − λ_j) (B, k, k) for λ = x², or the mean of w' where the quotient would round off more than the
    mean, whose error is about (w'_i − w'_j)²/(12 |w'|), cuts off."""
    gap = (x[:, :, None] - x[:, None, :]) * (x[:, :, None] + x[:, None, :])
    size = bend.abs()
    lost = _ROUNDING * (weight[:, :, None] + weight[:, None, :]) * 6 * (size[:, :, None] + size[:, None, :])
    near = lost >= (bend[:, :, None] - bend[:, None, :]).square() * gap.abs()
    near |= gap == 0
    rise = (weight[:, :, None] - weight[:, None, :]) / gap.masked_fill(near, 1.0)
    return torch.where(near, 0.5 * (bend[:, :, None] + bend[:, None, :]), rise)


def sensitivity(part: Any, name: str, sigma: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """∂f/∂θ (B,) and ∂∇f/∂θ (B, k) at fixed σ (B, k) for the number `name` of the summand `part` of H.

    The radius of a wall moves nothing at fixed σ inside it. Raises InputError for a number that has no derivative here.
    """
    if isinstance(part, Wall):
        return torch.zeros_like(sigma[:, 0]), torch.zeros_like(sigma)
    if name == _FACTORS.get(type(part)):
        e = _expect(replace(part, **{name: 1.0}), sigma, dim)
        return e.value, e.slopes
    if name == _DILATIONS.get(type(part)):
        e, theta = _expect(part, sigma, dim), getattr(part, name)
        return (e.slopes * sigma).sum(-1) / theta, (e.slopes + _second(e, sigma)) / theta
    if isinstance(part, Kink):
        e = _expect(part, sigma, dim)
        return (e.value - (e.slopes * sigma).sum(-1)) / part.radius, -_second(e, sigma) / part.radius
    if isinstance(part, Power):
        return _by_exponent(part, sigma, dim)
    raise InputError(f"{type(part).__name__} {name} requires grad, and f has no derivative in it: pass it as a float")


def _expect(part: Curvature, sigma: Tensor, dim: int) -> Expectation:
    return expect(part, sigma, dim, LEVEL, estimate=False)


def _second(e: Expectation, sigma: Tensor) -> Tensor:
    """∇²f σ (B, k)."""
    c = curving(e)
    return c.unit[:, None] * (c.hessian @ sigma[:, :, None])[:, :, 0]


def _by_exponent(part: Power, sigma: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    e, p = expect(part, sigma, dim), part.exponent
    value, weight = torch.zeros_like(e.size), torch.zeros_like(e.x)
    for k, c in enumerate(_CENTRAL, start=1):
        above, below = (powers.power(e.x, dim, p + sign * k * _STEP) for sign in (1, -1))
        value = value + c / _STEP * (above.value.log() - below.value.log())
        weight = weight + c / _STEP * (above.weight.log() - below.weight.log()).nan_to_num(0.0, 0.0, 0.0)
    size = e.size.where(e.size > 0, 1.0).log()
    return e.value * (size + value), e.slopes * (size[:, None] + weight)
