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
from icm.solvers.closed_form import coefficients, solve_closed_form
from icm.solvers.solution import Solution, Status
from icm.solvers.spectral import norm_dual, solve_general, solve_power
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
    H, dim = program.H, program.dim
    batch, k = reduced.g.shape[:-1], reduced.g.shape[-1]
    g = reduced.g.reshape(-1, k)
    eps = torch.finfo(reduced.U.dtype).eps
    form = coefficients(H)
    if method == "closed-form" and form is None:
        raise InputError(f"H = {H} has no closed form here (a*r^2 + b*r^4 has); use method='newton'")

    sigma = torch.zeros_like(g)
    rho = torch.zeros_like(g[:, 0])
    gap = torch.zeros_like(rho)
    direction = torch.zeros_like(g)
    margin = torch.full_like(rho, -math.inf)
    iterations = torch.zeros(len(g), dtype=torch.int64, device=g.device)
    status = [Status.OPTIMAL] * len(g)

    rows = (g[:, 0] > 0).nonzero()[:, 0]
    bound: Tensor | None = None
    start: Tensor | None = None
    if len(rows) and (H.initial_slope > 0 or math.isfinite(H.recession_slope)):
        # ⟨g, v⟩ against E‖diag(v)ζ‖ decides both whether Q = 0 is optimal and whether the program is bounded.
        dual = norm_dual(g[rows], dim, 1.0, 1e-13, max_iterations)
        iterations[rows] = dual.iterations
        direction[rows] = dual.v / dual.v.norm(dim=-1, keepdim=True)
        margin[rows] = dual.lower - H.recession_slope
        unbounded, undecided, rest = [], [], []
        longest = H.radius_at_chord(dual.upper)
        for i, (row, lower, upper) in enumerate(zip(rows.tolist(), dual.lower.tolist(), dual.upper.tolist(), strict=True)):
            if lower > H.recession_slope:
                unbounded.append(row)
            elif upper <= H.initial_slope:
                pass
            elif lower <= H.initial_slope and math.isfinite(float(longest[i])):
                gap[row] = (upper - H.initial_slope) * longest[i]  # F ≥ (H'(0+) − N†) E‖Qζ‖, and Q* is no longer than this
            elif upper >= H.recession_slope:
                undecided.append(row)
            else:
                rest.append(i)
        for row in unbounded:
            status[row] = Status.UNBOUNDED
        for row in undecided:
            status[row] = Status.UNDECIDED
        sigma[unbounded], gap[unbounded], gap[undecided] = math.nan, math.inf, math.inf
        keep = torch.tensor(rest, dtype=torch.int64, device=g.device)
        rows, bound, start = rows[keep], dual.upper[keep], dual.v[keep]

    if len(rows):
        active = g[rows]
        rho[rows] = certificate.reach(active, dim, H, bound)
        inner = 0.1 * tol
        if form is not None and method != "newton":
            sigma[rows], count = solve_closed_form(active, dim, *form)
            method_used = "closed-form"
        elif isinstance(H, Power):
            sigma[rows], count = solve_power(active, dim, H, inner, max_iterations)
            method_used = "newton"
        else:
            sigma[rows], count = solve_general(active, dim, H, rho[rows], inner, max_iterations, start)
            method_used = "newton"
        iterations[rows] += count
    else:
        method_used = "closed-form" if form is not None and method != "newton" else "newton"

    e = expect(H, sigma.nan_to_num(0.0), dim, level=1)
    value = e.value - (g * sigma.nan_to_num(0.0)).sum(-1)
    value = torch.where(sigma[:, 0].isnan(), -math.inf, value)
    if len(rows):
        found = certificate.spectral_gap(g, sigma, e, rho, eps)
        gap[rows] = found[rows]
        scale = (g * sigma).sum(-1)
        for row in rows[~(found[rows] <= tol * scale[rows])].tolist():
            status[row] = Status.STALLED
    return _assemble(program, reduced, sigma, value, gap, status, iterations, method_used, tol, direction, margin, batch)


def _assemble(
    program: Program,
    reduced: SpectralProgram,
    sigma: Tensor,
    value: Tensor,
    gap: Tensor,
    status: list[Status],
    iterations: Tensor,
    method: str,
    tol: float,
    direction: Tensor,
    margin: Tensor,
    batch: torch.Size,
) -> Solution:
    dtype = program.G.dtype
    k = sigma.shape[-1]
    support = reduced.g.reshape(-1, k) > reduced.g.reshape(-1, k)[:, :1] * torch.finfo(reduced.U.dtype).eps * max(program.G.shape[-2:])
    low = sigma.masked_fill(~support, math.inf).amin(-1)
    rest = sigma.masked_fill(support, 0.0).amax(-1)
    orthogonal = (sigma.amax(-1) - low <= 8 * torch.finfo(torch.float64).eps * low) & (rest <= 1e-8 * low)
    has_direction = Status.UNBOUNDED in status
    return Solution(
        Q=reduced.lift(sigma.reshape(*batch, k)).to(dtype),
        sigma=sigma.reshape(*batch, k).to(dtype),
        g=reduced.g,
        value=value.reshape(batch),
        gap=gap.reshape(batch),
        statuses=tuple(status),
        orthogonal=orthogonal.reshape(batch),
        iterations=iterations.reshape(batch),
        method=method,
        tol=tol,
        curvature=program.H,
        direction=reduced.lift(direction.reshape(*batch, k)).to(dtype) if has_direction else None,
        margin=margin.reshape(batch) if has_direction else None,
    )


def _raise_failures(solution: Solution) -> None:
    failed = [i for i, s in enumerate(solution.statuses) if s in (Status.STALLED, Status.UNDECIDED)]
    if not failed:
        return
    gaps = solution.relative_gap.reshape(-1)
    where = ""
    if solution.value.ndim:
        where = f" for {len(failed)} of {len(solution.statuses)} batch elements, {failed[:8]}{'…' if len(failed) > 8 else ''}"
    worst = max(float(gaps[i]) for i in failed)
    raise SolveError(
        f"{solution.statuses[failed[0]].value}{where}: relative gap {worst:.2e}, tol {solution.tol:.0e}, H = "
        f"{solution.curvature}, after {int(solution.iterations.max())} iterations of {solution.method}. "
        "Raise tol, pass float64, or take the best point with on_failure='return' (also in this error's .solution)",
        solution,
    )
