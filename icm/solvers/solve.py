"""`solve`: one entrance to every method, and the checks that make its answer a certified one."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icm.curvature import Curvature, Custom
from icm.errors import InputError, SolveError
from icm.program import Program, SpectralProgram
from icm.solvers.certificate import inwards, rounded
from icm.solvers.ellipsoidal import from_whitened
from icm.solvers.flat import Flat
from icm.solvers.implicit import attach, needs_grad, untracked
from icm.solvers.solution import Solution, Status
from icm.solvers.spectrum import SpectralMethod, SpectralSolution, solve_spectrum

Method = Literal["auto", "newton", "closed-form", "products", "matrix", "reference", "spectral-reference"]

_SHARE = 0.25  # of tol for the whitened program


def solve(
    G: Any,
    H: Curvature | str,
    method: Method = "auto",
    tol: float | None = None,
    *,
    input_moment: Any = None,
    max_iterations: int = 100,
    on_failure: Literal["raise", "return"] = "raise",
    samples: int = 2000,
    seed: int = 0,
) -> Solution:
    """argmin_Q −Tr(Q Gᵀ) + E H(‖Qζ‖) for G (…, m, n), outputs × inputs, with a certificate.

    method: "auto" takes the closed form for a r² + b r⁴ and Newton's method otherwise; "newton" and "closed-form"
    force one; "products" uses matrix products alone, no SVD (see `icm.maps.solve_products`): fast, and as accurate as
    its `error` says; "matrix" is quasi-Newton on the full Q, alignment with G not assumed, for H without a wall;
    "reference" and "spectral-reference" hand the full and the reduced program with `samples` sampled ζ to cvxpy.
    tol bounds gap/⟨G, Q⟩; None means 1e−10 in float64 (1e−9 for H with kinks, a wall or measured points, 1e−8 for
    "matrix"), 1e−5 in float32, 2e−2 in 16 bits, and no demand on the sampled methods, whose gap is against the exact
    program. For "products" tol bounds `error` = ‖Q − Q*‖_F/‖Q*‖_F, and None means 1e−4, 2e−2 in 16 bits. `seed` starts
    "matrix" and the samples.

    input_moment: C (n, n), or (…, n, n) against G's batch, for inputs ζ = C^{1/2} ζ₀ instead of ζ₀ uniform on the
    sphere; symmetric positive definite, and scaled to trace n, so that only its shape counts. Every method solves for
    Q C^{1/2} on G C^{−1/2}, but "reference", which samples ζ and moves Q itself. Value and gap are those of the Q
    returned; rounding grows by √(cond C) on the way back, which narrow types show as a gap.

    Where G requires grad, or a number of H given as a tensor that does, the solution is differentiable once in it, by
    the implicit function theorem and at no cost to the solve; see `Solution` for where there is no derivative.

    Raises InputError for a G, method or option that cannot be used (the last four methods are not differentiable and
    refuse what requires grad), CurvatureError for a Custom H that is not convex at
    the radii of the solution, SolveError (with the solution inside) if tol is missed and on_failure is "raise". An
    unbounded program is a status with a direction, not an error.
    Source: Su, arXiv 2511.00674.
    """
    return solve_program(
        Program(G, H, input_moment),
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
    reduced: SpectralProgram | None = None,
) -> Solution:
    """`solve` for a Program; `reduced` is its `reduce()` where that is at hand, to save the decomposition."""
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: choose one of {', '.join(get_args(Method))}")
    if on_failure not in ("raise", "return"):
        raise InputError(f"on_failure={on_failure!r}: choose 'raise' or 'return'")
    if tol is not None and not (isinstance(tol, numbers.Real) and tol > 0):
        raise InputError(f"tol={tol!r}: a relative gap is bounded by a number > 0")
    for name, count, least in (("max_iterations", max_iterations, 1), ("samples", samples, 1), ("seed", seed, 0)):
        if not isinstance(count, numbers.Integral) or not least <= count < 2**63:
            raise InputError(f"{name}={count!r}: give an integer, at least {least} and below 2^63")
    if (tracked := needs_grad(program)) and method not in get_args(SpectralMethod):
        raise InputError(
            f"method={method!r} is not differentiable, and G or a number of H requires grad: use method='auto', or "
            "pass G.detach() and plain numbers"
        )
    tol = _default_tol(method, program) if tol is None else tol
    given, program, found = program, untracked(program), None
    if given.ellipsoid is not None:
        solution = _solve_ellipsoidal(given, method, tol, max_iterations, samples, seed, reduced)
        if on_failure == "raise":
            _raise_failures(solution)
        return solution
    if method == "matrix":
        from icm.solvers.matrix import solve_matrix

        solution = solve_matrix(program, tol, max_iterations=max(max_iterations, 2000), seed=seed)
    elif method == "products":
        from icm.maps.products import solve_products

        solution = solve_products(program, tol)
    elif method in ("reference", "spectral-reference"):
        from icm.solvers.reference import solve_reference

        solution = solve_reference(program, tol, samples=samples, seed=seed, spectral=method == "spectral-reference")
    else:
        reduced = reduced or program.reduce()
        solution, found = _solve_spectral(program, reduced, method, tol, max_iterations)
    _check_radii(program.H, solution.sigma)
    if on_failure == "raise":
        _raise_failures(solution)
    if tracked and reduced is not None and found is not None:
        return attach(solution, given, reduced, found)
    return solution


def _solve_ellipsoidal(
    program: Program,
    method: Method,
    tol: float,
    iterations: int,
    samples: int,
    seed: int,
    reduced: SpectralProgram | None,
) -> Solution:
    """The whitened program, solved to what leaves room for the way back, and its answer brought back."""
    within = tol if method == "products" else _SHARE * tol
    if method == "reference":
        from icm.solvers.reference import solve_reference

        found = solve_reference(program, within, samples=samples, seed=seed)
    else:
        narrow = method == "products" and program.G.dtype != torch.float64
        found = solve_program(
            program.whitened(torch.float32 if narrow else torch.float64),
            method,
            within,
            max_iterations=iterations,
            on_failure="return",
            samples=samples,
            seed=seed,
            reduced=None if reduced is None else replace(reduced, back=None),
        )
    return from_whitened(program, found, tol)


def _check_radii(H: Curvature, sigma: Tensor) -> None:
    """Convexity beyond the radii that a Custom curvature was checked at must not be taken on trust."""
    for part in H.parts:
        if isinstance(part, Custom):
            part.reaching(float(sigma.nan_to_num(0.0).amax()))


def _default_tol(method: str, program: Program) -> float:
    dtype, H = program.G.dtype, program.H
    if method in ("reference", "spectral-reference"):
        return math.inf
    if method == "products":
        return 1e-4 if dtype in (torch.float32, torch.float64) else 2e-2
    if dtype != torch.float64:
        return 1e-5 if dtype == torch.float32 else 2e-2
    if method == "matrix":
        return 1e-8
    return 1e-9 if H.hinges or math.isfinite(H.wall) else 1e-10


def _solve_spectral(
    program: Program, reduced: SpectralProgram, method: SpectralMethod, tol: float, max_iterations: int
) -> tuple[Solution, SpectralSolution]:
    batch, k, dtype = reduced.g.shape[:-1], reduced.g.shape[-1], program.G.dtype
    found = solve_spectrum(
        reduced.g.reshape(-1, k),
        program.dim,
        program.H,
        method=method,
        tol=tol,
        max_iterations=max_iterations,
        outputs=program.G.shape[-2],
        largest=torch.finfo(dtype).max,
    )
    sigma = found.sigma.reshape(*batch, k)
    Q = _assemble(reduced, sigma, found.flat)
    gain, value, gap, statuses = (reduced.g * sigma).sum(-1).reshape(-1), found.value, found.gap, list(found.status)
    if dtype != torch.float64:
        rows = torch.isfinite(value).nonzero()[:, 0]
        if len(rows):
            G, exact = (X.double().reshape(-1, *Q.shape[-2:])[rows] for X in (program.G, Q))
            at_Q = rounded(G, exact, dtype, program.H, value[rows], gap[rows])
            gain[rows], value[rows], gap[rows] = at_Q
        for i in (gap > tol * gain).nonzero()[:, 0].tolist():
            statuses[i] = Status.STALLED if statuses[i] is Status.OPTIMAL and gain[i] > 0 else statuses[i]
    direction = None if found.direction is None else reduced.lift(found.direction.reshape(*batch, k)).to(dtype)
    solution = Solution(
        Q=inwards(Q, dtype, program.H).to(dtype),
        sigma=inwards(sigma, dtype, program.H).to(dtype),
        g=reduced.g,
        gain=gain.reshape(batch),
        value=value.reshape(batch),
        gap=gap.reshape(batch),
        statuses=tuple(statuses),
        orthogonal=_orthogonal(reduced, sigma, dtype) if found.flat is None else found.flat.held.reshape(batch),
        iterations=found.iterations.reshape(batch),
        method=found.method,
        tol=tol,
        curvature=program.H,
        direction=direction,
        margin=None if found.margin is None else found.margin.reshape(batch),
        orthogonality=None if found.flat is None else found.flat.why.shaped(batch),
        gradient=program.G,
    )
    return solution, found


def _assemble(reduced: SpectralProgram, sigma: Tensor, flat: Flat | None) -> Tensor:
    """U diag(σ) Vᵀ; where the answer is flat the polar factor on G's range, times its radius as the last step."""
    if flat is None:
        return reduced.lift(sigma)
    held = flat.held.reshape(*sigma.shape[:-1], 1)
    radius = torch.where(held, sigma.amax(-1, keepdim=True), 1.0)
    return radius[..., None] * reduced.lift(torch.where(held, (sigma > 0).to(sigma.dtype), sigma))


def _orthogonal(reduced: SpectralProgram, sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether σ is one positive number on G's range, what `dtype` resolves of it, and 0 off it."""
    noise = torch.finfo(dtype).eps * max(reduced.U.shape[-2], reduced.dim)
    support = reduced.g > noise * reduced.g[..., :1]
    low = sigma.masked_fill(~support, math.inf).amin(-1)
    level = (sigma.amax(-1) - low).abs() <= 8 * noise * low
    return level & (sigma.masked_fill(support, 0.0).amax(-1) <= noise * low) & (low > 0) & support.any(-1)


def _raise_failures(solution: Solution) -> None:
    failed = [i for i, s in enumerate(solution.statuses) if not s.answers]
    if not failed:
        return
    missed = solution.relative_gap if solution.error is None else solution.error
    gaps, measure = missed.reshape(-1), "relative gap" if solution.error is None else "relative error of Q"
    where = ""
    if solution.value.ndim:
        listed = ", ".join(map(str, failed[:8])) + (", …" if len(failed) > 8 else "")
        where = f" for {len(failed)} of {len(solution.statuses)} batch elements ({listed})"
    worst = max(float(gaps[i]) for i in failed)
    remedy = "Raise tol" if solution.Q.dtype == torch.float64 else "Raise tol, pass float64"
    remedy += "" if solution.error is None else ", use method='newton'"
    raise SolveError(
        f"{solution.statuses[failed[0]].value}{where}: {measure} {worst:.2e}, tol {solution.tol:.0e}, H = "
        f"{solution.curvature}, after {int(solution.iterations.max())} iterations of {solution.method}. "
        f"{remedy}, or take the best point with on_failure='return' (also in this error's .solution)",
        solution,
    )
