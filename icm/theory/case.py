"""What a claim looks at: a batch of instances, solved when asked, with every figure as a Ball.

The pair (g, sigma) is one that fits: σ is the computed optimum, as exactly the floats it holds, and g is the gradient
spectrum that it is the exact optimum for, g = ∇f(σ), with the error of evaluating that. So a statement about σ*(g) is
tested on an instance that is known, beside the one that was drawn, whatever the solver did; `shift` says how far
beside. Where a wall or a kink holds σ, g is the drawn one. Statements about values use `optimum` instead, which the
duality gap bounds for the drawn G.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature, as_curvature
from icm.errors import InputError
from icm.rigour import Rigour
from icm.solvers import Reason, Solution, Status, solve
from icm.solvers.certificate import decomposition_error
from icm.sphere import expect
from icm.theory import rigorous as proofs
from icm.theory.instances import Instances

Found = TypeVar("Found")
_EPS = torch.finfo(torch.float64).eps
_NEAR = 1e-6  # relative shift of g beyond which the pair no longer stands for the drawn instance
_HELD = 1e-9  # relative distance from its threshold within which a kink's hold is not taken on trust


def remembered(function: Callable[[Case], Found]) -> Callable[[Case], Found]:
    """A function of a case that is evaluated once for each: for what hypotheses and margin both need."""

    @wraps(function)
    def once(case: Case) -> Found:
        if function not in case.memory:
            case.memory[function] = function(case)
        return case.memory[function]

    return once


def least_value(solution: Solution) -> Ball:
    """min F (B,): no further below the value than its gap, and no further above it than the error of evaluating it,
    which the gap contains."""
    value, gap = solution.value, solution.gap
    known = torch.isfinite(value) & torch.isfinite(gap)
    return Ball(value.where(known, 0.0), (gap * (1 + 2 * _EPS)).where(known, torch.inf), Rigour.CERTIFIED)


class Case:
    """A batch of B instances as a claim sees it: G (B, m, n), H, and by index what else was drawn, case["name"].

    With `rigorous` every Ball is proved in ball arithmetic (python-flint), one instance at a time.
    """

    def __init__(self, instances: Instances, rigorous: bool = False):
        self.instances, self.rigorous = instances, rigorous
        self.G, self.H = instances.G, instances.H
        self.m, self.n, self.k = instances.m, instances.n, instances.k
        self.memory: dict[Callable[..., Any], Any] = {}

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.instances.extra:
            raise InputError(
                f"the claim looks at {name!r}, which comes with the instances it draws and not with this one: pass it "
                f"too, as in claim.on(G, H, {name}=…)"
            )
        return self.instances.extra[name]

    @cached_property
    def solution(self) -> Solution:
        """`icm.solve(G, H)`, with what could be reached where a tolerance was missed."""
        return solve(self.G, self.H, on_failure="return")

    @cached_property
    def solved(self) -> Tensor:
        """Whether there is an optimum and it was found (B,)."""
        return torch.tensor([s is Status.OPTIMAL for s in self.solution.statuses])

    @cached_property
    def drawn(self) -> Tensor:
        """The singular values of G as computed (B, k), descending."""
        return self.solution.g

    @cached_property
    def sigma(self) -> Ball:
        """σ (B, k), in the order of g, unbounded where the solver found none."""
        radius = torch.where(self.usable[:, None], 0.0, torch.inf)
        return Ball(self.solution.sigma.nan_to_num(0.0), radius, self._stationary[0].rigour)

    @cached_property
    def g(self) -> Ball:
        """The singular values (B, k) for which sigma is the optimum."""
        slopes, held = self._stationary
        g = slopes.where(~held, self.drawn)
        return Ball(g.middle, g.radius.where(self.usable[:, None], torch.inf), slopes.rigour)

    @cached_property
    def shift(self) -> Tensor:
        """The largest relative distance of a singular value in g from the drawn one (B,)."""
        slopes, held = self._stationary
        away = (slopes.middle - self.drawn).abs() / self.drawn.where(self.drawn > 0, 1.0)
        return away.where(~held, 0.0).amax(-1)

    @cached_property
    def usable(self) -> Tensor:
        """Whether (g, sigma) fits and is near the drawn instance (B,)."""
        return self.solved & (self.shift <= _NEAR)

    @cached_property
    def stationary(self) -> Tensor:
        """Whether g = ∇f(σ) (B,): no wall and no kink holds σ*."""
        return ~self._stationary[1].any(-1)

    @cached_property
    def _stationary(self) -> tuple[Ball, Tensor]:
        """∇f(σ), and which entries (B, k) a wall or a kink holds: there g may be anything on one side."""
        sigma = self.solution.sigma.nan_to_num(0.0)
        slopes = self.slopes(sigma)
        held = (sigma >= self.H.wall) & (slopes.upper <= self.drawn)
        why = self.solution.orthogonality
        if why is not None:
            kinds = torch.tensor([r in (Reason.EXACT, Reason.SUFFICIENT) for r in why.reasons])
            sure = (why.right >= why.threshold * (1 + _HELD)) | why.threshold.isnan()
            held = held | (kinds & sure)[:, None]
        return slopes, held

    @cached_property
    def optimum(self) -> Ball:
        """min F (B,) for the drawn G: within the gap of the value, or as `icm.enclose` proves it."""
        return proofs.optimum(self.solution) if self.rigorous else least_value(self.solution)

    def mean(self, sigma: Ball | Tensor, H: Curvature | str | None = None, dim: int | None = None) -> Ball:
        """E H(‖Qζ‖) (B,) for Q with singular values sigma (B, k) and `dim` inputs; H and n are the instance's own by
        default. Unbounded where sigma may be beyond a wall of H, and the mean infinite."""
        H, dim = self.H if H is None else as_curvature(H), dim or self.n
        sigma = Ball.of(sigma)
        inside = torch.isfinite(sigma.radius).all(-1) & (sigma.upper <= H.wall).all(-1)
        ends = [sigma.lower.clamp(min=0), sigma.upper] if bool((sigma.radius > 0).any()) else [sigma.middle]
        balls = [self._mean(torch.where(torch.isfinite(end), end, 0.0), H, dim) for end in ends]
        found = Ball.between(balls[0].lower, balls[-1].upper, min(sigma.rigour, balls[0].rigour))
        return Ball(found.middle.where(inside, 0.0), found.radius.where(inside, torch.inf), found.rigour)

    def _mean(self, sigma: Tensor, H: Curvature, dim: int) -> Ball:
        if self.rigorous:
            return proofs.mean(H, sigma, dim)
        e = expect(H, sigma, dim, level=1)
        return Ball(e.value, (e.error + 4 * _EPS) * e.value, Rigour.CERTIFIED)

    def slopes(self, sigma: Ball | Tensor, H: Curvature | str | None = None, dim: int | None = None) -> Ball:
        """∂f/∂σ_i (B, k) at sigma (B, k) ≥ 0, known exactly; H and n are the instance's own by default. At a kink the
        left slopes, at a wall those of H without it.

        Raises InputError for a sigma with a radius: slopes do not grow with sigma, so that its ends bound nothing."""
        H, dim = self.H if H is None else as_curvature(H), dim or self.n
        if isinstance(sigma, Ball):
            if bool(((sigma.radius > 0) & torch.isfinite(sigma.radius)).any()):
                raise InputError("slopes are known at exact spectra only: pass a tensor, such as sigma.middle")
            known = (sigma.radius == 0).all(-1, keepdim=True)
            at = self.slopes(sigma.middle, H, dim)
            return Ball(at.middle, at.radius.where(known, torch.inf), min(at.rigour, sigma.rigour))
        if self.rigorous:
            return proofs.slopes(H, sigma, dim)
        e = expect(H, sigma, dim, level=1)
        return Ball(e.slopes, (e.error[..., None] + 4 * _EPS) * e.slopes, Rigour.CERTIFIED)

    def spectrum(self, A: Tensor) -> Ball:
        """The singular values (B, k) of A (B, m, n), descending; unbounded where A is not finite."""
        known = torch.isfinite(A).all(-1).all(-1)[:, None]
        A = A.where(known[..., None], 0.0)
        if self.rigorous:
            found = proofs.spectrum(A)
            return Ball(found.middle, found.radius.where(known, torch.inf), found.rigour)
        values = torch.linalg.svdvals(A)
        error = decomposition_error(*A.shape[-2:]) * torch.linalg.matrix_norm(A)[:, None]
        return Ball(values, error.where(known, torch.inf), Rigour.CERTIFIED)

    def inner(self, A: Tensor, B: Tensor) -> Ball:
        """⟨A, B⟩ (B,) for matrices (B, m, n)."""
        return (Ball.of(A) * B).sum().sum()

    def objective(self, Q: Tensor) -> Ball:
        """F(Q) (B,) for Q (B, m, n) inside the wall."""
        return self.mean(self.spectrum(Q)) - self.inner(Q, self.G)
