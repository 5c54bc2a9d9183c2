"""The reference: cvxpy and Clarabel on the program with sampled ζ. Slow, independent of every solver of ours.

    minimise  −Tr(Q Gᵀ) + (1/N) Σ_j H(t_j)   subject to  t_j ≥ ‖Qζ_j‖,  j = 1 … N,

over Q (m, n), or over σ ≥ 0 with Q = U diag(σ) Vᵀ. As H is nondecreasing, t_j = ‖Qζ_j‖ is optimal. A wall r̃ of H is the
constraint ‖Q‖₂ ≤ r̃, or σ ≤ r̃, for every ζ and not for the sampled ones alone. Clarabel sees G of norm 1 and lengths in
units in which the answer has size 1.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.errors import MissingPackageError, SolveError
from icm.program import Program
from icm.solvers.certificate import norm
from icm.solvers.full import begin, finish, radius_unit
from icm.solvers.solution import Solution
from icm.sphere.sampling import directions


def solve_reference(
    program: Program,
    tol: float = math.inf,
    samples: int = 2000,
    seed: int = 0,
    spectral: bool = False,
) -> Solution:
    """argmin of the program with `samples` ζ drawn by `seed`, for G (…, m, n), one Clarabel run per batch element.

    Clarabel stops at 1e−8 in the value of the sampled program. value and gap are those of the exact program at that
    Q, so the gap, of order 1/√samples, shows the sampling error. Status: SAMPLED without a tol, else OPTIMAL if
    gap ≤ tol·⟨G, Q⟩ and STALLED if not; INACCURATE if Clarabel only reached its reduced accuracy ("optimal_inaccurate")
    and no tol vouches for the point.

    With an input moment C the full program is that of Q and of ζ = Lζ₀, LLᵀ = C by Cholesky, its wall ‖QL‖₂ ≤ r̃; what
    is returned is the solution of `program.whitened()`, Q C^{1/2}.

    Raises MissingPackageError without cvxpy or Clarabel, CurvatureError for a Custom H without cvxpy_form, SolveError
    if Clarabel ends in any other way, naming its status; no other solver is tried.
    """
    cvxpy = _import_cvxpy()
    whitened = program.whitened()
    task, H, dim = begin(whitened), program.H, program.dim
    rows, Q, sigma = task.rows, task.G[task.rows], None
    size = norm(Q.flatten(1))
    targets = task.reduced.g.reshape(len(task.G), -1) if spectral else program.G.double().reshape_as(task.G)
    factors = _factors(program, len(task.G))
    radius = radius_unit(H, size, dim, task.dual)
    length = math.sqrt(dim) * radius
    zeta = math.sqrt(dim) * directions(samples, dim, seed)
    answers, exact, counts = [], [], []
    for i, row in enumerate(rows.tolist()):
        # Q = length·X and √n ζ have entries of size 1, so has t in ‖Qζ‖ = radius·t.
        scaled = H.dilate(float(radius[i])) * (1 / float(size[i] * length[i]))
        try:
            target, wall = targets[row] / size[i], H.wall / float(length[i])
            X, full_accuracy, count = _clarabel(cvxpy, scaled, target, zeta, wall, factors[row])
        except SolveError as error:
            where = f"batch element {row}: " if len(task.G) > 1 else ""
            raise SolveError(f"{where}{error}; H = {H}, {samples} samples of dimension {dim}") from error
        answers.append(X * length[i])
        exact.append(full_accuracy)
        counts.append(count)
    if answers:
        # What Clarabel leaves beyond a bound, by about 1e−9, is cut off.
        Q = torch.stack(answers)
        sigma = Q.clamp(0, H.wall) if spectral else None
        Q = _clipped(_lengths(program, Q, rows), H.wall) if sigma is None else task.lift(sigma)
    return finish(
        whitened,
        task,
        Q,
        torch.tensor(counts, dtype=torch.int64, device=Q.device),
        method="spectral-reference" if spectral else "reference",
        tol=tol,
        sigma=sigma,
        exact=torch.tensor(exact, dtype=torch.bool, device=Q.device),
    )


def _import_cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise MissingPackageError(
            "the reference methods hand the program to cvxpy, which cannot be imported: pip install cvxpy clarabel, "
            "or use method='newton' or 'matrix', which need neither"
        ) from error
    if "CLARABEL" not in cvxpy.installed_solvers():
        raise MissingPackageError(
            "the reference methods use Clarabel, and cvxpy does not find it: pip install clarabel; "
            "no other solver is taken in its place"
        )
    return cvxpy


def _factors(program: Program, count: int) -> list[Tensor | None]:
    """L (n, n), LLᵀ = C, for each of `count` matrices; None for isotropic inputs."""
    if program.ellipsoid is None:
        return [None] * count
    L = torch.linalg.cholesky(program.ellipsoid.C).expand(*program.G.shape[:-2], -1, -1)
    return list(L.reshape(count, *L.shape[-2:]))


def _lengths(program: Program, Q: Tensor, rows: Tensor) -> Tensor:
    """Q C^{1/2}, in the whitened program's own basis, for Q (rows, m, n)."""
    if program.ellipsoid is None:
        return Q
    R = program.ellipsoid.R
    return Q @ R.expand(*program.G.shape[:-2], -1, -1).reshape(-1, *R.shape[-2:])[rows]


def _clipped(Q: Tensor, wall: float) -> Tensor:
    """Q (B, m, n) with its singular values cut off at `wall`."""
    if math.isinf(wall):
        return Q
    U, sigma, Vh = torch.linalg.svd(Q, full_matrices=False)
    return (U * sigma.clamp(max=wall)[:, None, :]) @ Vh


def _clarabel(
    cvxpy: Any, H: Curvature, G: Tensor, zeta: Tensor, wall: float, L: Tensor | None = None
) -> tuple[Tensor, bool, int]:
    """The sampled optimum X, ‖X‖₂ ≤ wall, for a matrix G (m, n), or for G = diag of a vector g (k,), and ζ (N, n);
    whether Clarabel reached its full accuracy, and its iterations. For a matrix G and L (n, n) the samples are Lζ and
    the wall is for XL."""
    L = None if G.ndim == 1 or L is None else L.cpu()
    target, samples = G.cpu().numpy(), (zeta if L is None else zeta @ L.mT).numpy()
    X, t = cvxpy.Variable(target.shape, nonneg=G.ndim == 1), cvxpy.Variable(len(samples))
    images = X @ samples.T if G.ndim == 2 else cvxpy.diag(X) @ samples[:, : len(target)].T
    finite = [part.cvxpy(t) for part in H.parts if math.isinf(part.wall)]
    objective = cvxpy.sum(sum(finite, start=0 * t)) / len(samples) - cvxpy.sum(cvxpy.multiply(target, X))
    constraints = [cvxpy.SOC(t, images, axis=0)] if finite else []
    if math.isfinite(wall):
        longest = X if L is None else X @ L.numpy()
        constraints.append((cvxpy.sigma_max(longest) if G.ndim == 2 else X) <= wall)
    problem = cvxpy.Problem(cvxpy.Minimize(objective), constraints)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # the Status says so
        warnings.filterwarnings("ignore", message="Power atom with exponent")  # rational to 1e−6, below what is sampled
        try:
            problem.solve(solver=cvxpy.CLARABEL)
            status = str(problem.status)
        except cvxpy.error.SolverError:
            status = "solver_error"
    if status not in ("optimal", "optimal_inaccurate"):
        raise SolveError(
            f"Clarabel ended with status {status!r} on the sampled program: try more samples (fewer than inputs "
            "leave it unbounded), or method='newton' or 'matrix', which sample nothing"
        )
    return torch.from_numpy(X.value).to(G), status == "optimal", int(problem.solver_stats.num_iters or 0)
