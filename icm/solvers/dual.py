"""The dual of a norm of the model: N(v) = (E‖diag(v)ζ‖^p)^{1/p} and N†(g) = max ⟨g, v⟩/N(v).

N is a norm for every p ≥ 1 (Minkowski), and min ½N(v)² − ⟨g, v⟩ = −½N†(g)², attained where N(v) = N†(g). p = 1
decides boundedness; other p solve the program of a power.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from icm.curvature import Power
from icm.solvers.certificate import mean_length
from icm.solvers.newton import Domain, Local, minimise
from icm.sphere import expect, power_error


@dataclass(frozen=True, eq=False)
class NormDual:
    """N†(g) = max ⟨g, v⟩ / N(v) for N(v) = (E‖diag(v)ζ‖^p)^{1/p}: enclosed by lower and upper (B,), with a
    maximiser v (B, k), its own length N(v) (B,), which is N† too, and the iterations (B,)."""

    lower: Tensor
    upper: Tensor
    length: Tensor
    v: Tensor
    iterations: Tensor


def norm_dual(g: Tensor, dim: int, p: float, tol: float, max_iterations: int) -> NormDual:
    """The dual of N(v) = (E‖diag(v)ζ‖^p)^{1/p} at g (B, k) ≥ 0, not all zero, through min ½N² − ⟨g, v⟩ = −½N†²."""
    H = Power(p)

    def evaluate(v: Tensor, low: Tensor, rows: Tensor) -> Local:
        unit = v.amax(-1)  # ½N² is homogeneous, and E‖Qζ‖^p overflows for large p unless σ₁ = 1
        e = expect(H, v / unit[:, None], dim)
        # θ(f) = ½ f^{2/p}: ∇θ = θ'∇f and ∇²θ = θ'∇²f + θ''/θ'² ∇θ∇θᵀ.
        theta = 0.5 * e.value ** (2 / p)
        first = 2 * theta / (p * e.value)
        second = (2 / p - 1) * first / e.value
        return Local(
            unit.square() * theta,
            (unit * first)[:, None] * e.slopes,
            first[:, None] * e.stiffness,
            4 * first / e.size,
            e.x,
            e.x.square(),
            e.weight,
            e.bend,
            second / (first * unit).square(),
        )

    size = g.amax(-1, keepdim=True)
    g = g / size
    reach = g.norm(dim=-1) / mean_length(dim) ** 2
    # ½N² is homogeneous of degree 2, so Newton's first step from c·g does not depend on c; n suits a flat spectrum.
    found = minimise(evaluate, g, dim * g, Domain(reach), tol, max_iterations)
    v = found.x
    along, N = (g * v).sum(-1), (2 * found.value).sqrt()
    residual = g - found.gradient
    error = 2 * power_error(p) + 1e-15
    gap = reach * (residual.clamp(min=0).norm(dim=-1) + error * found.gradient.norm(dim=-1)) - (residual * v).sum(-1)
    size = size[:, 0]
    return NormDual(
        lower=size * along / N * (1 - error),
        upper=size * (2 * (along - found.value + gap + error * along)).sqrt(),
        length=size * N,
        v=v * size[:, None],
        iterations=found.iterations,
    )


def length_of_power(H: Power, size: Tensor, N: Tensor) -> Tensor:
    """ℓ with σ* = ℓ v for H = c r^p, p > 1, where v minimises ½N² − ⟨g/size, v⟩: there g = size N^{2−p} ∇N^p/p, so
    c p ℓ^{p−1} N(v)^{p−2} = size."""
    p = H.exponent
    return (size / (H.scale * p) / N ** (p - 2)) ** (1 / (p - 1))
