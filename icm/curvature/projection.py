"""The convex nondecreasing function closest to measured values, where no such function meets them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from icm.errors import CurvatureError, MissingPackageError

_ACTIVE = 1e-6  # of the largest entry: smaller ones count as 0 at first
_ROUNDING = 1e-15


def closest_convex(x: Tensor, v: Tensor, count: Tensor) -> Tensor:
    """argmin Σ count_i (u_i − v_i)² over the values u (N,) of convex nondecreasing functions with H(0) = 0.

    x (N,) > 0 increasing; v (N,) the means of count (N,) measurements each. u = B c with hinges B_ik ∝ (x_i − x_k)₊,
    x_0 = 0, and c ≥ 0: Clarabel finds c, and which of them are positive; least squares on those give the last digits.

    Raises MissingPackageError without cvxpy, CurvatureError if Clarabel fails.
    """
    height = v.abs().amax()
    if height == 0:
        return torch.zeros_like(v)
    r, y, weight = x / x[-1], v / height, (count.double() / count.sum()).sqrt()
    knots = torch.cat([r.new_zeros(1), r[:-1]])
    B = (r[:, None] - knots).clamp(min=0) / (1 - knots)
    A, b = weight[:, None] * B, weight * y
    return height * (B @ _finished(A, b, _clarabel(A, b)))


def _clarabel(A: Tensor, b: Tensor) -> Tensor:
    """argmin ‖A c − b‖², c ≥ 0, to Clarabel's accuracy."""
    try:
        import cvxpy
        from cvxpy.error import SolverError
    except ImportError as error:
        raise MissingPackageError(
            "project=True uses cvxpy, which cannot be imported: pip install cvxpy clarabel, or give values that are "
            "convex, nondecreasing and 0 at r = 0"
        ) from error
    c = cvxpy.Variable(A.shape[1], nonneg=True)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(A.numpy() @ c - b.numpy())))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # least squares follow
        try:
            problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
        except SolverError as error:
            raise CurvatureError(f"project=True: Clarabel failed on {len(b)} points ({error}); give fewer") from error
    if c.value is None:
        raise CurvatureError(f"project=True: Clarabel ended with {problem.status!r} on {len(b)} points; give fewer")
    return torch.from_numpy(c.value).clamp(min=0)


def _finished(A: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """argmin ‖A c − b‖², c ≥ 0, to rounding, from c near it: active sets (Lawson and Hanson, Solving Least Squares
    Problems, 1974), which the start makes few. Columns of A and b are at most 1 long."""
    free = c > _ACTIVE * c.amax()
    c = c.where(free, 0.0)
    for _ in range(3 * len(c)):
        while bool(free.any()):
            target = torch.zeros_like(c)
            target[free] = torch.linalg.lstsq(A[:, free], b[:, None], driver="gelsd").solution[:, 0]
            wrong = free & (target <= 0)
            if not bool(wrong.any()):
                c = target
                break
            step = (c / (c - target))[wrong].amin()
            c = (c + step * (target - c)).clamp(min=0)
            free = free & (c > 0) & ~(wrong & (c <= _ROUNDING))
            c = c.where(free, 0.0)
        pull = (A.T @ (b - A @ c)).masked_fill(free, -torch.inf)
        if not float(pull.amax()) > _ROUNDING:
            break
        free[pull.argmax()] = True
    return c
