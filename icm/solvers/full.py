"""What the methods on the full matrix share: how they begin, and how their Q, aligned with G or not, is certified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.program import Program, SpectralProgram
from icm.solvers.boundedness import Decision, decide
from icm.solvers.certificate import in_range, inwards, matrix_gap, rounded
from icm.solvers.solution import Solution, Status

_POLAR = 1e-6  # distance from a multiple of the polar factor, relative, below which Q counts as one


@dataclass(frozen=True, eq=False)
class Task:
    """A program laid out for a method on the full matrix: G (B, m, n) in float64, what is decided of every batch
    element before any method starts, and the `rows` that are left to it."""

    reduced: SpectralProgram
    G: Tensor
    decision: Decision
    rows: Tensor

    @property
    def dual(self) -> Tensor | None:
        """An upper bound (rows,) of max ⟨G, V⟩/E‖Vζ‖, known where H has a finite slope at 0 or infinity."""
        upper = self.decision.upper
        return None if upper is None else upper[self.rows]

    def lift(self, sigma: Tensor) -> Tensor:
        """U diag(σ) Vᵀ (rows, m, n) in float64 for sigma (rows, k)."""
        k = sigma.shape[-1]
        U = self.reduced.U.reshape(-1, self.G.shape[-2], k)[self.rows]
        Vh = self.reduced.Vh.reshape(-1, k, self.G.shape[-1])[self.rows]
        return (U * sigma[:, None, :]) @ Vh


def begin(program: Program) -> Task:
    """The Task of a program; boundedness and Q* = 0 are decided from g as for every method."""
    reduced = program.reduce()
    decision = decide(reduced.g.reshape(-1, reduced.g.shape[-1]), program.dim, program.H)
    G = program.G.double().reshape(-1, *program.G.shape[-2:])
    return Task(reduced, G, decision, decision.open.nonzero()[:, 0])


def finish(
    program: Program,
    task: Task,
    Q: Tensor,
    iterations: Tensor,
    method: str,
    tol: float,
    sigma: Tensor | None = None,
    exact: Tensor | None = None,
) -> Solution:
    """The Solution with Q (rows, m, n), float64, for the rows of the task; sigma (rows, k), if given, its singular
    values in the order of g. `exact` (rows,) says which have the full accuracy of their method. `orthogonal` is what Q
    itself shows; the criterion at kinks and walls belongs to the methods on singular values."""
    G, dtype, batch, shape = task.G, program.G.dtype, task.reduced.g.shape[:-1], program.G.shape
    decision, rows = task.decision, task.rows
    status, gap, count = list(decision.status), decision.gap.clone(), decision.iterations.clone()
    lost = torch.tensor([s is Status.UNBOUNDED for s in status], device=G.device)
    gain, value = torch.zeros_like(gap), torch.zeros_like(gap).masked_fill(lost, -math.inf)
    full, spectrum = torch.zeros_like(G), torch.zeros_like(task.reduced.g.reshape(len(G), -1))
    if len(rows):
        count[rows] += iterations
        full[rows], spectrum[rows] = Q, torch.linalg.svdvals(Q) if sigma is None else sigma
        at_Q = matrix_gap(G[rows], Q, program.dim, program.H, task.dual)
        gain[rows], value[rows], gap[rows] = rounded(G[rows], Q, dtype, program.H, *at_Q)
        largest = torch.finfo(dtype).max
        fits = in_range((Q * G[rows]).sum((-2, -1)), Q.abs().amax((-2, -1)), largest)
        for row, found in zip(rows.tolist(), _statuses(gain[rows], gap[rows], fits, tol, exact), strict=True):
            status[row] = found
        over = torch.tensor([s is Status.OVERFLOW for s in status], device=G.device)
        value, gap, lost = value.masked_fill(over, math.nan), gap.masked_fill(over, math.inf), lost | over
    orthogonal = _is_polar(task.reduced, full) & ~lost
    full, spectrum = (inwards(X, dtype, program.H) for X in (full, spectrum))
    direction = None
    if Status.UNBOUNDED in status and decision.v is not None:
        direction = task.reduced.lift(decision.v.reshape_as(task.reduced.g)).to(dtype)
    return Solution(
        Q=full.masked_fill(lost[:, None, None], math.nan).reshape(shape).to(dtype),
        sigma=spectrum.masked_fill(lost[:, None], math.nan).reshape(task.reduced.g.shape).to(dtype),
        g=task.reduced.g,
        gain=gain.masked_fill(lost, math.nan).reshape(batch),
        value=value.reshape(batch),
        gap=gap.reshape(batch),
        statuses=tuple(status),
        orthogonal=orthogonal.reshape(batch),
        iterations=count.reshape(batch),
        method=method,
        tol=tol,
        curvature=program.H,
        direction=direction,
        margin=None if decision.margin is None else decision.margin.reshape(batch),
        gradient=program.G,
    )


def _statuses(gain: Tensor, gap: Tensor, fits: Tensor, tol: float, exact: Tensor | None) -> list[Status]:
    """The Status of every row from its gap, or, without a tol, from the word of its method."""
    sampled = math.isinf(tol)
    good = gap <= tol * gain
    if sampled:
        good = torch.ones_like(good) if exact is None else exact
    best, worst = (Status.SAMPLED, Status.INACCURATE) if sampled else (Status.OPTIMAL, Status.STALLED)
    return [
        (best if fine else worst) if holds else Status.OVERFLOW
        for fine, holds in zip(good.tolist(), fits.tolist(), strict=True)
    ]


def _is_polar(reduced: SpectralProgram, Q: Tensor) -> Tensor:
    """Whether Q (B, m, n) ≠ 0 is a multiple of the polar factor of G on its range, to _POLAR."""
    g = reduced.g.reshape(len(Q), -1)
    support = g > g[:, :1] * torch.finfo(torch.float64).eps * max(Q.shape[-2:])
    polar = reduced.lift(support.to(g.dtype).reshape_as(reduced.g)).double().reshape_as(Q)
    largest = Q.abs().amax((-2, -1), keepdim=True)
    Q = Q / largest.where(largest > 0, 1.0)
    multiple = (Q * polar).sum((-2, -1)) / support.sum(-1).clamp(min=1)
    distance = torch.linalg.matrix_norm(Q - multiple[:, None, None] * polar)
    return distance < _POLAR * torch.linalg.matrix_norm(Q)


def radius_unit(H: Curvature, size: Tensor, dim: int, dual: Tensor | None) -> Tensor:
    """The unit of ‖Qζ‖ (B,) for ‖G‖_F = size: a law concentrated at its mean has ‖Qζ‖ = ‖Q‖_F/√n, needing
    H' = √n ‖G‖_F there, or H' = max ⟨G, V⟩/E‖Vζ‖ = dual where that is known."""
    return H.balancing_radius(math.sqrt(dim) * size if dual is None else dual)
