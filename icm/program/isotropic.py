"""The program: minimise F(Q) = −Tr(Q Gᵀ) + E_ζ H(‖Qζ‖), ζ uniform on the unit sphere of the inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import require_finite, require_nonempty, to_tensor
from icm.curvature import Curvature, as_curvature
from icm.curvature.parameter import refuse_tangent
from icm.errors import InputError
from icm.program.ellipsoidal import Ellipsoid
from icm.program.spectral import SpectralProgram
from icm.sphere import expect

if TYPE_CHECKING:
    from icm.solvers.solution import Solution


@dataclass(frozen=True, eq=False, init=False)
class Program:
    """The isotropic curvature model for a gradient G (…, m, n), outputs × inputs, and a curvature H (or its text).

    F(Q) = −Tr(Q Gᵀ) + E H(‖Qζ‖) is convex in Q; ζ lives on the input side, so the program is not invariant under
    transposition. Source: Su, arXiv 2511.00674, eq. (1).

    `input_moment` C (n, n), or (…, n, n) against G's batch: ζ = C^{1/2} ζ₀ instead, ζ₀ on the sphere, for C symmetric
    positive definite. Only its shape counts: it is scaled to trace n and kept so, in float64, where C = I is the
    isotropic program. `ellipsoid` holds what leads from one to the other (see `ellipsoidal`). None: isotropic inputs.

    Where G requires grad, `source` is G as given and solutions are differentiable in it; `G` itself is detached.

    Raises InputError for an empty, non-finite or less than two-dimensional G, DtypeError for a complex one; InputError
    for a C of another shape, not finite, not symmetric, not positive definite, or requiring grad.
    """

    G: Tensor
    H: Curvature
    source: Tensor | None = field(default=None, repr=False)
    ellipsoid: Ellipsoid | None = field(default=None, repr=False)

    def __init__(self, G: Any, H: Curvature | str, input_moment: Any = None):
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
        object.__setattr__(self, "ellipsoid", None if input_moment is None else Ellipsoid.of(input_moment, G))

    @property
    def dim(self) -> int:
        """n, the number of inputs and the dimension of ζ."""
        return self.G.shape[-1]

    @property
    def input_moment(self) -> Float[Tensor, "*b n n"] | None:
        """C (…, n, n) of trace n, float64; None for isotropic inputs."""
        return None if self.ellipsoid is None else self.ellipsoid.C

    def whitened(self, dtype: torch.dtype = torch.float64) -> Program:
        """The isotropic program of G̃ = G C^{−1/2}, up to an orthogonal matrix on the right, in `dtype`; itself where
        inputs are isotropic."""
        if self.ellipsoid is None:
            return self
        G = self.G if self.source is None else self.source
        return Program(self.ellipsoid.whiten(G).to(dtype), self.H)

    def objective(self, Q: Any) -> Float[Tensor, "*batch"]:
        """F(Q) for Q (…, m, n), evaluated as in `icm.sphere.mean`, in Q's dtype; +∞ beyond a wall of H. A Q that is
        longer than the wall by no more than rounding lies on it, see `onto_wall`."""
        Q = self._update(Q)
        linear = (Q.double() * self.G.double()).sum((-2, -1))
        X, strain = self._lengths(Q)
        sigma, factor = onto_wall(torch.linalg.svdvals(X), self.H, Q.shape[-2], self.dim, Q.dtype, strain)
        return (expect(self.H, sigma, self.dim).value - factor * linear).to(Q.dtype)

    def gradient(self, Q: Any) -> Float[Tensor, "*batch m n"]:
        """∇F(Q) = U diag(∂f/∂σ) Vᵀ − G for Q = U diag(σ) Vᵀ; with an input moment U diag(∂f/∂σ) Vᵀ C^{1/2} − G for
        Q C^{1/2} = U diag(σ) Vᵀ.

        A subgradient, with the left slopes of H, at Q = 0 if H'(0+) > 0 and where all n singular values lie on a kink
        exactly; where rounding has moved them off it, a subgradient with slopes between left and right. On a wall the
        gradient of the finite part, which is a subgradient. Raises InputError for a Q beyond a wall: F = ∞ there.
        """
        Q = self._update(Q)
        X, strain = self._lengths(Q)
        U, sigma, Vh = torch.linalg.svd(X, full_matrices=False)
        sigma, _ = onto_wall(sigma, self.H, Q.shape[-2], self.dim, Q.dtype, strain)
        if bool((sigma > self.H.wall).any()):
            longest, name = float(sigma.max()), "‖Q‖₂" if strain is None else "‖QC^(1/2)‖₂"
            raise InputError(
                f"Q has {name} = {longest:.6g} and H = {self.H} is infinite beyond {self.H.wall:.6g}, so F "
                f"has no gradient: multiply Q by {self.H.wall / longest:.6g} or less"
            )
        slopes = expect(self.H, sigma, self.dim).slopes
        slopes = (U * slopes[..., None, :]) @ Vh
        slopes = slopes if self.ellipsoid is None else slopes @ self.ellipsoid.R.mT
        return (slopes - self.G.double()).to(Q.dtype)

    def reduce(self) -> SpectralProgram:
        """The program in the singular values alone: minimise f(σ) − ⟨g, σ⟩ over σ ≥ 0 (Su, Prop. 3.1).

        The decomposition is taken in float64 whatever G's dtype, so that its error does not drown the certificate. With
        an input moment g and σ are the singular values of G C^{−1/2} and Q C^{1/2}, and `lift` leads back to Q.
        """
        if self.ellipsoid is not None:
            return replace(self.whitened().reduce(), back=self.ellipsoid.S)
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
        """`icm.solve(G, H, **options)`, with the program's own input moment."""
        from icm.solvers import solve_program

        return solve_program(self, **options)

    def _lengths(self, Q: Tensor) -> tuple[Tensor, Tensor | None]:
        """A float64 matrix X for which ‖Xζ₀‖ has the law of ‖Qζ‖, and, where it is not Q itself, how much rounding
        grows on the way to it, see `Ellipsoid.strain`."""
        if self.ellipsoid is None:
            return Q.double(), None
        X = self.ellipsoid.lengths(Q)
        return X, self.ellipsoid.strain(Q, X)

    def _update(self, Q: Any) -> Tensor:
        Q = to_tensor(Q, "Q").to(self.G.device)
        if Q.shape[-2:] != self.G.shape[-2:]:
            raise InputError(
                f"Q has shape {tuple(Q.shape)}, G {tuple(self.G.shape)}: an update is shaped like its weights"
            )
        require_finite(Q, "Q")
        return Q


def onto_wall(
    sigma: Float[Tensor, "*batch k"],
    H: Curvature,
    outputs: int,
    dim: int,
    dtype: torch.dtype,
    strain: Float[Tensor, "*batch"] | None = None,
) -> tuple[Float[Tensor, "*batch k"], Float[Tensor, "*batch"]]:
    """c·σ and c ≤ 1 (…) for the singular values σ (…, k) of an outputs × dim matrix held in `dtype`: c brings σ₁ back
    to the wall of H where it exceeds it by rounding, and is 1 elsewhere.

    Rounding is that of a decomposition, (64 + max(m, n)) eps in float32 or float64, and that of entries,
    ‖Q̃ − Q‖₂ ≤ ½ eps ‖Q‖_F ≤ ½ eps √k ‖Q‖₂. F is then its value at c·Q, which H allows. Where σ belongs to QR, with
    `strain` = ‖Q‖_F‖R‖₂/‖QR‖₂ (…), rounding of entries costs ½ eps · strain, and the product itself some of float64.
    """
    if math.isinf(H.wall):
        return sigma, torch.ones_like(sigma[..., 0])
    eps, own = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    entries: Any = 0.5 * eps * math.sqrt(sigma.shape[-1])
    if strain is not None:
        entries = (0.5 * eps + (16 + math.sqrt(dim)) * own) * strain
    slack = (64 + max(outputs, dim)) * min(eps, torch.finfo(torch.float32).eps) + entries
    longest = sigma.amax(-1)
    over = (longest > H.wall) & (longest <= H.wall * (1 + slack))
    factor = torch.where(over, H.wall / longest, 1.0)
    return torch.where(over[..., None], (sigma * factor[..., None]).clamp(max=H.wall), sigma), factor
