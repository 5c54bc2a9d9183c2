"""The figures of a Case in ball arithmetic, element by element: what python-flint proves, as Balls.

Where balls decide nothing at the highest precision the radius is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from icm.ball import Ball
from icm.curvature import Curvature
from icm.errors import InputError, MissingPackageError, SolveError
from icm.solvers import Solution, Status, enclose

if TYPE_CHECKING:
    from flint import arb


def mean(H: Curvature, sigma: Tensor, dim: int) -> Ball:
    """E H(‖Qζ‖) (B,) for sigma (B, k)."""
    return each_row(sigma, lambda row: [_expectation(H, row, dim, 0)[0]])[..., 0]


def slopes(H: Curvature, sigma: Tensor, dim: int) -> Ball:
    """∂f/∂σ_i (B, k) at sigma (B, k)."""
    return each_row(sigma, lambda row: _expectation(H, row, dim, 1)[1])


def spectrum(A: Tensor) -> Ball:
    """Singular values (B, k) of A (B, m, n)."""
    _need_flint()
    from icm.solvers.enclosure.svd import singular_values

    return _balls([singular_values(matrix.numpy()) for matrix in A])


def optimum(solution: Solution) -> Ball:
    """min F (B,) for a batch of solutions."""
    lower, upper = [], []
    for i, status in enumerate(solution.statuses):
        try:
            found = (
                enclose(solve_one(solution, i)).optimum if status.answers and status is not Status.UNBOUNDED else None
            )
        except (InputError, SolveError):  # out of the range of floats, or nothing decided
            found = None
        lower.append(found.lower if found else 0.0)
        upper.append(found.upper if found else torch.inf)
    low, high = torch.tensor(lower, dtype=torch.float64), torch.tensor(upper, dtype=torch.float64)
    return Ball.between(low, high)


def solve_one(solution: Solution, i: int) -> Solution:
    """Element i of a batch, solved on its own."""
    from icm.solvers import solve

    assert solution.gradient is not None
    return solve(solution.gradient[i], solution.curvature, on_failure="return")


def _expectation(H: Curvature, row: Tensor, dim: int, order: int) -> tuple[arb, list[arb]]:
    from flint import arb

    from icm.solvers.enclosure.curvature import decompose
    from icm.solvers.enclosure.sphere import expectation, gradient

    sigma = [arb(x) for x in row.tolist()]
    if order and not any(x > 0 for x in sigma):
        return arb(0), [arb(0)] * len(sigma)
    at = expectation(decompose(H), sigma, dim, order)
    return at.value, gradient(sigma, at) if order else []


def each_row(sigma: Tensor, function: Callable[[Tensor], list[arb]]) -> Ball:
    """A list of balls for every row of sigma (B, k), at rising precision until they resolve, as a Ball (B, …)."""
    _need_flint()
    from flint import arb, ctx

    from icm.solvers.enclosure.quadrature import BITS, Unresolved

    rows = []
    for row in sigma:
        found: list[Any] = [arb(0, float("inf"))] * max(1, len(row))
        for bits in (BITS, 2 * BITS):
            with ctx.workprec(bits):
                try:
                    found = function(row)
                    break
                except Unresolved:
                    continue
        rows.append(found)
    width = min(map(len, rows))
    return _balls([row[:width] for row in rows])


def _balls(rows: Iterable[Iterable[arb]]) -> Ball:
    from icm.solvers.enclosure.enclose import outward

    ends = [[outward(x) for x in row] for row in rows]
    both = torch.tensor(ends, dtype=torch.float64)
    low, high = both.unbind(-1)
    return Ball.between(low.where(~low.isnan(), -torch.inf), high.where(~high.isnan(), torch.inf))


def _need_flint() -> None:
    try:
        import flint  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("--rigorous computes in ball arithmetic: pip install python-flint") from error
