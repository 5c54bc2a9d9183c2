"""The program: minimise F(Q) = −Tr(Q Gᵀ) + E_ζ H(‖Qζ‖), ζ uniform on the unit sphere of the inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.curvature import Curvature, as_curvature
from icm.curvature.parameter import refuse_tangent
from icm.errors import InputError
from icm.program.spectral import SpectralProgram
from icm.sphere import expect

if TYPE_CHECKING:
    from icm.solvers.solution import Solution


@dataclass(frozen=True, eq=False, init=False)
class Program:
    """The isotropic curvature model for a gradient G (…, m, n), outputs × inputs, and a curvature H (or its text).

    F(Q) = −Tr(Q Gᵀ) + E H(‖Qζ‖) is convex in Q; ζ lives on the input side, so the program is not invariant under
    transposition. Source: Su, arXiv 2511.00674, eq. (1).

    Where G requires grad, `source` is G as given and solutions are differentiable in it; `G` itself is detached.

    Raises InputError for an empty, non-finite or less than two-dimensional G, DtypeError for a complex one.
    """

    G: Tensor
    H: Curvature
    source: Tensor | None = field(default=None, repr=False)

    def __init__(self, G: Any, H: Curvature | str):
        if isinstance(G, Tensor):
            refuse_tangent(G, "G")
            object.__setattr__(self, "source", G if G.requires_grad else None)
        G = to_tensor(G, "G")
        if G.ndim < 2:
            raise InputError(
                f"G has shape {tuple(G.shape)}; a gradient is a matrix (…, outputs, inputs): "
                "reshape a vector to (1, n) for one output or (m, 1) for one input"
            )
        require_nonempty(G, "G")
        require_finite(G, "G")
        object.__setattr__(self, "G", G)
        object.__setattr__(self, "H", as_curvature(H))

    @property
    def dim(self) -> int:
        """n, the number of inputs and the dimension of ζ."""
        return self.G.shape[-1]

    def objective(self, Q: Any) -> Float[Tensor, "*batch"]:
        """F(Q) for Q (…, m, n), evaluated as in `icm.sphere.mean`, in Q's dtype; +∞ beyond a wall of H. A Q that is
        longer than the wall by no more than rounding lies on it, see `onto_wall`."""
        Q = self._update(Q)
        linear = (Q.double() * self.G.double()).sum((-2, -1))
        sigma, factor = onto_wall(torch.linalg.svdvals(Q.double()), self.H, Q.shape[-2], self.dim, Q.dtype)
        return (expect(self.H, sigma, self.dim).value - factor * linear).to(Q.dtype)

    def gradient(self, Q: Any) -> Float[Tensor, "*batch m n"]:
        """∇F(Q) = U diag(∂f/∂σ) Vᵀ − G for Q = U diag(σ) Vᵀ.

        A subgradient, with the left slopes of H, at Q = 0 if H'(0+) > 0 and where all n singular values lie on a kink
        exactly; where rounding has moved them off it, a subgradient with slopes between left and right. On a wall the
        gradient of the finite part, which is a subgradient. Raises InputError for a Q beyond a wall: F = ∞ there.
        """
        Q = self._update(Q)
        U, sigma, Vh = torch.linalg.svd(Q.double(), full_matrices=False)
        sigma, _ = onto_wall(sigma, self.H, Q.shape[-2], self.dim, Q.dtype)
        if bool((sigma > self.H.wall).any()):
            raise InputError(
                f"Q has ‖Q‖₂ = {float(sigma.max()):.6g} and H = {self.H} is infinite beyond {self.H.wall:.6g}, so F "
                f"has no gradient: multiply Q by {self.H.wall / float(sigma.max()):.6g} or less"
            )
        slopes = expect(self.H, sigma, self.dim).slopes
        return ((U * slopes[..., None, :]) @ Vh - self.G.double()).to(Q.dtype)

    def reduce(self) -> SpectralProgram:
        """The program in the singular values alone: minimise f(σ) − ⟨g, σ⟩ over σ ≥ 0 (Su, Prop. 3.1).

        The decomposition is taken in float64 whatever G's dtype, so that its error does not drown the certificate.
        """
        G = self.G.double()
        low, high = torch.aminmax(G.flatten(-2), dim=-1)
        exponent = torch.frexp(torch.maximum(high, -low))[1]
        if bool((exponent.abs() <= 128).all()):
            U, g, Vh = torch.linalg.svd(G, full_matrices=False)
            return SpectralProgram(g, self.dim, self.H, U, Vh)
        # Far from 1 a power of two, which costs no digit, keeps squares inside the decomposition from overflowing.
        exponent = exponent.clamp(-960, 1022)
        scale = torch.ldexp(torch.ones_like(high), -exponent)
        U, g, Vh = torch.linalg.svd(G * scale[..., None, None], full_matrices=False)
        return SpectralProgram(torch.ldexp(g, exponent[..., None]), self.dim, self.H, U, Vh)

    def solve(self, **options: Any) -> Solution:
        """`icm.solve(G, H, **options)`."""
        from icm.solvers import solve_program

        return solve_program(self, **options)

    def _update(self, Q: Any) -> Tensor:
        Q = to_tensor(Q, "Q").to(self.G.device)
        if Q.shape[-2:] != self.G.shape[-2:]:
            raise InputError(
                f"Q has shape {tuple(Q.shape)}, G {tuple(self.G.shape)}: an update is shaped like its weights"
            )
        require_finite(Q, "Q")
        return Q


def onto_wall(
    sigma: Float[Tensor, "*batch k"], H: Curvature, outputs: int, dim: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch k"], Float[Tensor, "*batch"]]:
    """c·σ and c ≤ 1 (…) for the singular values σ (…, k) of an outputs × dim matrix held in `dtype`: c brings σ₁ back
    to the wall of H where it exceeds it by rounding, and is 1 elsewhere.

    Rounding is that of a decomposition, (64 + max(m, n)) eps in float32 or float64, and that of entries,
    ‖Q̃ − Q‖₂ ≤ ½ eps ‖Q‖_F ≤ ½ eps √k ‖Q‖₂. F is then its value at c·Q, which H allows.
    """
    if math.isinf(H.wall):
        return sigma, torch.ones_like(sigma[..., 0])
    eps, entries = torch.finfo(dtype).eps, 0.5 * math.sqrt(sigma.shape[-1])
    slack = (64 + max(outputs, dim)) * min(eps, torch.finfo(torch.float32).eps) + entries * eps
    longest = sigma.amax(-1)
    over = (longest > H.wall) & (longest <= H.wall * (1 + slack))
    factor = torch.where(over, H.wall / longest, 1.0)
    return torch.where(over[..., None], (sigma * factor[..., None]).clamp(max=H.wall), sigma), factor
