"""`solve`: one entrance to every method, and the checks that make its answer a certified one."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.errors import InputError, SolveError
from icm.program import Program, SpectralProgram
from icm.solvers import certificate
from icm.solvers.boundedness import Decision, decide
from icm.solvers.closed_form import coefficients, solve_closed_form
from icm.solvers.solution import Solution, Status
from icm.solvers.spectral import solve_general, solve_power
from icm.sphere import expect

Method = Literal["auto", "newton", "closed-form", "matrix", "reference", "spectral-reference"]


def solve(
    G: Any,
    H: Curvature | str,
    method: Method = "auto",
    tol: float | None = None,
    *,
    max_iterations: int = 100,
    on_failure: Literal["raise", "return"] = "raise",
    samples: int = 2000,
    seed: int = 0,
) -> Solution:
    """argmin_Q −Tr(Q Gᵀ) + E H(‖Qζ‖) for G (…, m, n), outputs × inputs, with a certificate.

    method: "auto" takes the closed form for a r² + b r⁴ and Newton's method otherwise; "newton" and "closed-form"
    force one; "matrix" is quasi-Newton on the full Q, alignment with G not assumed; "reference" and
    "spectral-reference" hand the full and the reduced program with `samples` sampled ζ to cvxpy.
    tol bounds gap/⟨g, σ⟩; None means 1e−10 in float64 (1e−8 for "matrix"), 1e−5 in float32, 2e−2 in 16 bits, and no
    demand on the sampled methods, whose gap is against the exact program. `seed` starts "matrix" and the samples.

    Raises InputError for a G, method or option that cannot be used, SolveError (with the solution inside) if tol is
    missed and on_failure is "raise". An unbounded program is a status with a direction, not an error.
    Source: Su, arXiv 2511.00674.
    """
    return solve_program(
        Program(G, H),
        method=method,
        tol=tol,
        max_iterations=max_iterations,
        on_failure=on_failure,
        samples=samples,
        seed=seed,
    )


def solve_program(
    program: Program,
    method: Method = "auto",
    tol: float | None = None,
    *,
    max_iterations: int = 100,
    on_failure: Literal["raise", "return"] = "raise",
    samples: int = 2000,
    seed: int = 0,
) -> Solution:
    """`solve` for a Program."""
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: choose one of {', '.join(get_args(Method))}")
    if on_failure not in ("raise", "return"):
        raise InputError(f"on_failure={on_failure!r}: choose 'raise' or 'return'")
    if tol is not None and not tol > 0:
        raise InputError(f"tol={tol}: a relative gap is bounded by a number > 0")
    if max_iterations < 1 or samples < 1:
        raise InputError(f"max_iterations={max_iterations}, samples={samples}: both must be at least 1")
    if tol is None:
        tol = _default_tol(method, program.G.dtype)
    if method == "matrix":
        from icm.solvers.matrix import solve_matrix

        solution = solve_matrix(program, tol, max_iterations=max(max_iterations, 2000), seed=seed)
    elif method in ("reference", "spectral-reference"):
        from icm.solvers.reference import solve_reference

        solution = solve_reference(program, tol, samples=samples, seed=seed, spectral=method == "spectral-reference")
    else:
        solution = _solve_spectral(program, method, tol, max_iterations)
    if on_failure == "raise":
        _raise_failures(solution)
    return solution


def _default_tol(method: str, dtype: torch.dtype) -> float:
    if method in ("reference", "spectral-reference"):
        return math.inf
    if dtype == torch.float64:
        return 1e-8 if method == "matrix" else 1e-10
    return 1e-5 if dtype == torch.float32 else 2e-2


def _solve_spectral(program: Program, method: Method, tol: float, max_iterations: int) -> Solution:
    reduced = program.reduce()
    H, dim, k = program.H, program.dim, reduced.g.shape[-1]
    form = coefficients(H)
    if method == "closed-form" and form is None:
        raise InputError(f"H = {H} has no closed form here (a*r^2 + b*r^4 has); use method='newton'")
    closed = form is not None and method != "newton"

    g = reduced.g.reshape(-1, k)
    decision = decide(g, dim, H, max_iterations)
    sigma, rho, iterations = torch.zeros_like(g), torch.zeros_like(g[:, 0]), decision.iterations.clone()
    rows = decision.open.nonzero()[:, 0]
    if len(rows):
        active = g[rows]
        upper = None if decision.upper is None else decision.upper[rows]
        bound = certificate.reach(active, dim, H, upper)
        inner = 0.01 * tol  # quadratic convergence: at most one more iteration
        if closed:
            sigma[rows], count = solve_closed_form(active, dim, *form)
        elif isinstance(H, Power):
            sigma[rows], bound, count = solve_power(active, dim, H, inner, max_iterations)
        else:
            start = None
            if upper is not None and decision.v is not None and decision.length is not None:
                # Along the dual's maximiser, N† is balanced where H' reaches it.
                start = decision.v[rows] * (H.radius_at_slope(upper) / decision.length[rows])[:, None]
            sigma[rows], count = solve_general(active, dim, H, start, bound, inner, max_iterations)
        rho[rows] = bound
        iterations[rows] += count
    gap, value, status = _certify(program, g, sigma, rho, decision, torch.finfo(reduced.U.dtype).eps, tol)
    lost = torch.tensor([s is Status.UNBOUNDED or s is Status.OVERFLOW for s in status], device=g.device)
    sigma = sigma.masked_fill(lost[:, None], math.nan)
    return _assemble(program, reduced, sigma, value, gap, status, iterations, closed, tol, decision)


def _certify(
    program: Program, g: Tensor, sigma: Tensor, rho: Tensor, decision: Decision, eps: float, tol: float
) -> tuple[Tensor, Tensor, list[Status]]:
    """(gap, value, status) of every row: those left open are held to tol, the others keep what was decided."""
    status = list(decision.status)
    e = expect(program.H, sigma.nan_to_num(0.0, 0.0, 0.0), program.dim, level=1)
    along = (g * sigma).sum(-1)
    value = (e.value - along).masked_fill(torch.tensor([s is Status.UNBOUNDED for s in status]).to(g.device), -math.inf)
    gap = decision.gap
    if bool(decision.open.any()):
        gap = torch.where(decision.open, certificate.spectral_gap(g, sigma, e, rho, eps), gap)
        in_range = torch.isfinite(along) & (sigma.amax(-1) > 0) & (along <= torch.finfo(program.G.dtype).max)
        for row in (decision.open & ~(gap <= tol * along)).nonzero()[:, 0].tolist():
            status[row] = Status.STALLED
        for row in (decision.open & ~in_range).nonzero()[:, 0].tolist():
            status[row], value[row] = Status.OVERFLOW, math.nan
    return gap, value, status


def _assemble(
    program: Program,
    reduced: SpectralProgram,
    sigma: Tensor,
    value: Tensor,
    gap: Tensor,
    status: list[Status],
    iterations: Tensor,
    closed: bool,
    tol: float,
    decision: Decision,
) -> Solution:
    dtype, batch, k = program.G.dtype, reduced.g.shape[:-1], reduced.g.shape[-1]
    direction = None
    if Status.UNBOUNDED in status and decision.v is not None:
        direction = reduced.lift(decision.v.reshape(*batch, k)).to(dtype)
    return Solution(
        Q=reduced.lift(sigma.reshape(*batch, k)).to(dtype),
        sigma=sigma.reshape(*batch, k).to(dtype),
        g=reduced.g,
        value=value.reshape(batch),
        gap=gap.reshape(batch),
        statuses=tuple(status),
        orthogonal=_orthogonal(reduced, sigma.reshape(*batch, k)),
        iterations=iterations.reshape(batch),
        method="closed-form" if closed else "newton",
        tol=tol,
        curvature=program.H,
        direction=direction,
        margin=None if decision.margin is None else decision.margin.reshape(batch),
    )


def _orthogonal(reduced: SpectralProgram, sigma: Tensor) -> Tensor:
    """Whether σ is one positive number on G's range and 0 off it, to float64 rounding."""
    noise = torch.finfo(reduced.U.dtype).eps * max(reduced.U.shape[-2], reduced.dim)
    support = reduced.g > noise * reduced.g[..., :1]
    low = sigma.masked_fill(~support, math.inf).amin(-1)
    level = (sigma.amax(-1) - low).abs() <= 8 * torch.finfo(sigma.dtype).eps * low
    return level & (sigma.masked_fill(support, 0.0).amax(-1) <= noise * low) & support.any(-1)


def _raise_failures(solution: Solution) -> None:
    failed = [i for i, s in enumerate(solution.statuses) if s in (Status.STALLED, Status.UNDECIDED, Status.OVERFLOW)]
    if not failed:
        return
    gaps = solution.relative_gap.reshape(-1)
    where = ""
    if solution.value.ndim:
        listed = ", ".join(map(str, failed[:8])) + (", …" if len(failed) > 8 else "")
        where = f" for {len(failed)} of {len(solution.statuses)} batch elements ({listed})"
    worst = max(float(gaps[i]) for i in failed)
    raise SolveError(
        f"{solution.statuses[failed[0]].value}{where}: relative gap {worst:.2e}, tol {solution.tol:.0e}, H = "
        f"{solution.curvature}, after {int(solution.iterations.max())} iterations of {solution.method}. "
        "Raise tol, pass float64, or take the best point with on_failure='return' (also in this error's .solution)",
        solution,
    )
