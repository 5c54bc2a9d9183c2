"""Expectations under the law of ‖Qζ‖ for a spectrum: E H(‖Qζ‖), its slopes and second derivatives.

Q has singular values σ (k of them, padded with dim − k zeros) and ζ is uniform on the unit sphere of R^dim, so
‖Qζ‖² = s = Σ σ_i² ζ_i². Everything is computed in float64 for σ divided by its largest entry.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.curvature import Curvature, Exponential, Kink, Power, Tabulated, Wall, as_curvature
from icm.errors import InputError
from icm.sphere import powers
from icm.sphere.pieces import piecewise
from icm.sphere.powers import Moments
from icm.sphere.rule import Rule, rule

_NEGLIGIBLE = 1e-150  # of σ₁: squares below would underflow; such values are zeros
_PIECEWISE = (Kink, Tabulated, Wall)  # what their `hinges` and `wall` say of them is all there is
_ROUNDING = 4e-15  # relative error of a closed or trapezoid expectation, per unit of (8 + p); measured, see benchmarks


@dataclass(frozen=True, eq=False)
class Expectation:
    """f(σ) = E H(‖Qζ‖) with all that Newton's method and a certificate need, in float64.

    size (…) is σ₁ and x (…, k) = σ/σ₁; value (…) is f; weight and bend (…, k) are w_i and w'(λ_i) in units with
    ∂f/∂σ_i = 2 x_i weight_i. error (…) bounds the relative error of value and slopes, by constants measured against 25
    and 50 digits; for a Custom H it is an estimate from two levels of the general rule.
    """

    size: Float[Tensor, "*batch"]
    x: Float[Tensor, "*batch k"]
    value: Float[Tensor, "*batch"]
    weight: Float[Tensor, "*batch k"]
    bend: Float[Tensor, "*batch k"]
    error: Float[Tensor, "*batch"]

    @property
    def slopes(self) -> Float[Tensor, "*batch k"]:
        """∇f (…, k)."""
        return 2 * (self.x * self.weight).where(self.x > 0, torch.zeros_like(self.x))

    @property
    def stiffness(self) -> Float[Tensor, "*batch k"]:
        """d(σ R(σ²))/dσ at every σ_i (…, k), R = 2w: the diagonal D of
        ∇²f = D + 4 diag(x) L diag(x)/σ₁ with L_ij = ½ (w_i − w_j)/(λ_i − λ_j) in normalised λ = x²."""
        return (2 * self.weight + 4 * self.x.square() * self.bend) / self.size[..., None]


def expect(
    H: Curvature,
    sigma: Float[Tensor, "*batch k"],
    dim: int,
    level: int = 0,
    estimate: bool = True,
    low: Float[Tensor, "*batch k"] | None = None,
    accuracy: float = 0.0,
) -> Expectation:
    """E H(‖Qζ‖), its slopes and second derivatives for sigma (…, k) ≥ 0, float64, in any order.

    `level` refines the general rule, which integrates Custom curvatures; above 0, `estimate` adds its error, from
    the level below, to `error`. `low` holds digits of sigma below its rounding, which decide the law near a kink. At
    σ = 0 the slopes are 0, a subgradient, and where all n singular values lie on a kink they are those to its left.
    Beyond a wall the value is infinite, and the slopes are those of H without it. `accuracy`: a relative error of
    hinges that will do, as Newton's steps need no more digits than what is asked of their end; 0 for rounding alone.
    """
    batch, k = sigma.shape[:-1], sigma.shape[-1]
    sigma = sigma.reshape(-1, k)
    size = sigma.amax(-1)
    alive = size > 0
    x = torch.where(alive[:, None], sigma / size.where(alive, torch.ones_like(size))[:, None], 1.0)
    x = x.where(x > _NEGLIGIBLE, 0.0)
    total = Moments(torch.zeros_like(size), torch.zeros_like(x), torch.zeros_like(x))
    error = torch.zeros_like(size)
    for part in H.parts:
        if not isinstance(part, _PIECEWISE):
            moments, part_error = _part(part, x, size, dim, level, estimate)
            total, error = total + moments, torch.maximum(error, part_error)
    if terms := tuple(term for term in H.hinges if term[1:] != (0.0, 0.0)):
        low = None if low is None else low.reshape(-1, k)
        moments, part_error = piecewise(terms, sigma, low, x, size.where(alive, torch.ones_like(size)), dim, accuracy)
        total, error = total + moments, torch.maximum(error, part_error)
    value = total.value.masked_fill(size > H.wall, math.inf)
    zero = torch.zeros((), dtype=sigma.dtype, device=sigma.device)
    return Expectation(
        size.reshape(batch),
        x.reshape(*batch, k),
        torch.where(alive, value, zero).reshape(batch),
        torch.where(alive[:, None], total.weight, zero).reshape(*batch, k),
        torch.where(alive[:, None], total.bend, zero).reshape(*batch, k),
        error.reshape(batch),
    )


def _product(scale: float, size: Tensor, p: float) -> Tensor:
    """scale · size^p, also where one factor leaves float64 and the product does not."""
    direct = scale * size**p
    if p == 0 or scale == 0 or bool((torch.isfinite(direct) & ((direct > 0) | (size == 0))).all()):
        return direct
    return (scale ** (0.5 / p) * size * scale ** (0.5 / p)) ** p


def _part(H: Curvature, x: Tensor, size: Tensor, dim: int, level: int, estimate: bool) -> tuple[Moments, Tensor]:
    """Moments of one summand, weight and bend in units of H/σ₁, and their relative error."""
    if isinstance(H, Power):
        moments = powers.power(x, dim, H.exponent)
        value, slope = _product(H.scale, size, H.exponent), _product(H.scale, size, H.exponent - 1)
        moments = Moments(value * moments.value, slope[:, None] * moments.weight, slope[:, None] * moments.bend)
        return moments, torch.full_like(size, power_error(H.exponent))
    if isinstance(H, Exponential):
        moments = powers.exponential(x, dim, H.rate * size)
        slope = (H.scale / size.clamp(min=torch.finfo(size.dtype).tiny))[:, None]
        moments = Moments(H.scale * moments.value, slope * moments.weight, slope * moments.bend)
        return moments, _ROUNDING * (8 + H.rate * size)
    fine = _by_rule(H, x, size, rule(x, dim, level))
    error = torch.full_like(size, 1e-12)
    if level > 0 and estimate:
        coarse = _by_rule(H, x, size, rule(x, dim, level - 1))
        slope_error = ((fine.weight - coarse.weight) * x).norm(dim=-1) / (fine.weight * x).norm(dim=-1)
        value_error = (fine.value - coarse.value).abs() / fine.value.abs()
        # nan_to_num: an H that vanishes on the whole range has no relative error.
        error = error + torch.maximum(slope_error, value_error).nan_to_num(0.0)
    return fine, error


def uses_rule(H: Curvature) -> bool:
    """Whether some summand of H is integrated by the general rule, whose levels refine."""
    return not all(isinstance(part, (Power, Exponential, *_PIECEWISE)) for part in H.parts)


def power_error(p: float) -> float:
    """The relative error of E‖Qζ‖^p and of its slopes, at most."""
    return _ROUNDING * (8 + p)


def _by_rule(H: Curvature, x: Tensor, size: Tensor, law: Rule) -> Moments:
    r = law.nodes.sqrt()
    radius = size[:, None] * r
    value, slope, second = H(radius), H.slope(radius), H.second(radius)
    psi = torch.where(r > 0, slope / (2 * r), 0.5 * size[:, None] * second)
    # ψ'(u) = (σ₁ r H'' − H') / 4r³; nodes at r = 0 carry no weight.
    dpsi = torch.where(r > 0, (radius * second - slope) / (4 * r**3), 0.0)
    return Moments(
        (law.p * value).sum(-1),
        torch.einsum("bu,buk->bk", psi, law.second),
        torch.einsum("bu,buk->bk", dpsi, law.fourth) * (2 / 3),
    )


def mean(H: Curvature | str, sigma: Any, dim: int) -> Float[Tensor, "*batch"]:
    """E H(‖Qζ‖) for singular values sigma (…, k ≤ dim), ζ uniform on the unit sphere of R^dim; no sampling.

    Powers and exponentials by the integrals of `sphere.powers`, kinks and tabulated H by those of `sphere.contour`
    (relative error below 1e−12, 5e−12 at dim 4096), Custom H by the rule of `sphere.rule` at its first level; +∞ beyond
    a wall. The result has sigma's dtype and device.

    Raises InputError for negative, non-finite or empty sigma, and for k > dim.
    """
    H, sigma = as_curvature(H), spectrum(sigma, dim)
    return expect(H, sigma.double(), dim).value.to(sigma.dtype)


def slopes(H: Curvature | str, sigma: Any, dim: int) -> Float[Tensor, "*batch k"]:
    """∂ E H(‖Qζ‖) / ∂σ_i = E[H'(‖Qζ‖) σ_i ζ_i² / ‖Qζ‖], shaped and ordered like sigma (…, k). Raises as `mean`."""
    H, sigma = as_curvature(H), spectrum(sigma, dim)
    return expect(H, sigma.double(), dim).slopes.to(sigma.dtype)


def spectrum(sigma: Any, dim: int) -> Tensor:
    """`sigma` (…, k) checked as singular values of a matrix with `dim` inputs."""
    sigma = to_tensor(sigma, "sigma")
    if sigma.ndim == 0:
        raise InputError("sigma is a single number; give a list of singular values, e.g. [1.0]")
    require_nonempty(sigma, "sigma")
    require_finite(sigma, "sigma")
    if bool((sigma < 0).any()):
        raise InputError(f"sigma has the negative entry {float(sigma.min())}; singular values are ≥ 0")
    try:
        valid = not isinstance(dim, bool) and operator.index(dim) >= 1
    except TypeError:
        valid = False
    if not valid:
        raise InputError(f"dim={dim!r}: the dimension of ζ is an integer ≥ 1")
    if sigma.shape[-1] > dim:
        raise InputError(
            f"sigma has {sigma.shape[-1]} singular values but dim={dim}: a matrix with {dim} inputs has at most {dim}"
        )
    return sigma
