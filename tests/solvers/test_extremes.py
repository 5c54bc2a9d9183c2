"""What a careful reader broke once: corners where an answer could claim more than it knows."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import icm
from icm.errors import CurvatureError, DtypeError, InputError
from icm.solvers import Method, Status


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(n: int) -> Tensor:
    return torch.linalg.qr(gaussian(n, n)).Q


def test_a_slope_that_falls_from_zero_is_refused() -> None:
    """H'(0+) decides whether Q = 0 is optimal, so it is part of the convexity check."""
    with pytest.raises(CurvatureError, match="not convex"):
        icm.Custom(lambda r: r**2 + 1e-10 * r / (r + 1e-9))


@pytest.mark.parametrize("n", [4, 32, 128])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_multiple_of_an_orthogonal_matrix_is_seen_as_one(n: int, dtype: torch.dtype) -> None:
    """G = 3U gives Q ∝ U, in every size and precision; a graded G does not."""
    assert bool(icm.solve((3 * orthogonal(n)).to(dtype), "r^3").orthogonal)
    graded = orthogonal(n) * torch.linspace(1.0, 1.1, n, dtype=torch.float64)
    assert not bool(icm.solve(graded.to(dtype), "r^3").orthogonal)


@pytest.mark.parametrize("method", ["auto", "matrix"])
@pytest.mark.parametrize("H", ["r^2.5 + r^3", "r^2", "r^4", "exp(1)"])
def test_a_gain_that_underflows_certifies_nothing(H: str, method: Method) -> None:
    """⟨G, Q⟩ below float64: gap ≤ tol·gain would be 0 ≤ 0."""
    solution = icm.solve(1e-300 * gaussian(4, 4), H, method=method, on_failure="return")
    assert solution.status is Status.OVERFLOW
    assert float(solution.gap) == math.inf


def test_an_update_below_float32_is_out_of_range() -> None:
    """Q* = (⅔G)² or so is 1e−60: zero in float32, and not a stalled solve."""
    solution = icm.solve((1e-30 * gaussian(3, 3)).float(), "r^1.5", on_failure="return")
    assert solution.status is Status.OVERFLOW


@pytest.mark.parametrize("method", ["newton", "matrix"])
def test_custom_is_checked_where_the_solution_is(method: Method) -> None:
    """Convex up to the radius 2 that was checked, not at 2.6 where the solution goes: refused by every method."""

    def bump(r: Tensor) -> Tensor:
        soft = torch.nn.functional.softplus
        return r**2 - 6 * soft((r - 3) * 8) / 8 + 6 * soft(torch.tensor(-24.0, dtype=r.dtype)) / 8

    H = icm.Custom(bump, domain=(1e-3, 2.0))
    with pytest.raises(CurvatureError, match="not convex"):
        icm.solve([[5.5]], H, method=method)


def test_a_noisy_custom_ends() -> None:
    """eʳ − 1 − r as one would write it has few digits at 1e−6: the solve ends in seconds, near the optimum, and its gap
    knows more than the true loss."""
    G = 1e-6 * gaussian(3, 3)
    H = icm.Custom(lambda r: torch.exp(r) - 1 - r, domain=(1e-3, 1e2))
    solution, exact = icm.solve(G, H, on_failure="return", max_iterations=20), icm.solve(G, "exp(1)")
    torch.testing.assert_close(solution.Q, exact.Q, rtol=0, atol=1e-6 * float(exact.Q.norm()))
    loss = float(icm.Program(G, "exp(1)").objective(solution.Q) - exact.value)
    assert loss <= float(solution.gap)


@pytest.mark.parametrize(
    "change",
    [
        lambda: icm.Power(10.5).dilate(1e-40),
        lambda: icm.Power(10.5).dilate(1e40),
        lambda: 1e-200 * (1e-200 * icm.Power(2.0)),
        lambda: icm.Exponential(1e300).dilate(1e300),
    ],
)
def test_scales_beyond_float64_are_refused(change: Callable[[], object]) -> None:
    """A coefficient that under- or overflows would silently be another H."""
    with pytest.raises(CurvatureError, match="beyond float64"):
        change()


def test_a_product_in_range_of_factors_out_of_range() -> None:
    """1e−300·r³: ‖Q‖ ~ 1e150, whose cube alone overflows."""
    G = gaussian(4, 3)
    tiny, plain = icm.solve(G, "1e-300*r^3"), icm.solve(G, "r^3")
    torch.testing.assert_close(tiny.Q * 1e-150, plain.Q, rtol=1e-12, atol=0)
    assert float(tiny.value) == pytest.approx(float(plain.value) * 1e150, rel=1e-12)


def test_singular_values_whose_squares_underflow() -> None:
    """They are zeros to float64: solved, not stalled."""
    G = torch.diag(torch.tensor([1.0, 1e-160], dtype=torch.float64))
    assert icm.solve(G, "0.1*r + r^2").status is Status.OPTIMAL


@pytest.mark.parametrize("bad", ["3", None, 10**400])
def test_parameters_that_are_no_numbers(bad: object) -> None:
    """Named by value, whichever way the annotation checks are set."""
    from inspect import unwrap

    H = object.__new__(icm.Power)
    object.__setattr__(H, "exponent", bad)
    object.__setattr__(H, "scale", 1.0)
    with pytest.raises(CurvatureError, match="give a number"):
        unwrap(icm.Power.__post_init__)(H)


def test_tensors_without_plain_numbers() -> None:
    """Sparse and meta tensors are refused with the remedy; 8-bit floats are read."""
    with pytest.raises(DtypeError, match="to_dense"):
        icm.solve(torch.eye(3).to_sparse(), "r^2")
    with pytest.raises(InputError, match="meta"):
        icm.solve(torch.empty(2, 2, device="meta"), "r^2")
    assert icm.solve(torch.eye(3).to(torch.float8_e4m3fn), "r^2").Q.dtype == torch.float32


def test_a_seed_out_of_range() -> None:
    """Refused before anything is computed."""
    with pytest.raises(InputError, match="seed"):
        icm.solve(gaussian(2, 2), "r^2", method="matrix", seed=2**64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_gap_of_a_rounded_update(dtype: torch.dtype, rank: int) -> None:
    """F(Q) − F* at the rounded Q, from power sums in 50 digits for H = r⁴ + r⁶ and any rank, is within the gap."""
    import mpmath

    m, n = 5, 4
    g = torch.tensor([4.0, 4.0, 1.0, 0.25], dtype=torch.float64)[:rank]
    G = (orthogonal(m)[:, :rank] * g @ orthogonal(n)[:rank]).to(dtype)
    found, exact = icm.solve(G, "r^4 + r^6"), icm.solve(G.double(), "r^4 + r^6", tol=1e-12)

    def F(Q: Tensor):
        with mpmath.workdps(50):
            A = mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in Q.double()])
            B = mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in G.double()])
            S = A.T * A
            S2 = S * S
            t1, t2, t3 = (sum(M[i, i] for i in range(n)) for M in (S, S2, S2 * S))
            fourth = (t1**2 + 2 * t2) / (n * (n + 2))
            sixth = (t1**3 + 6 * t1 * t2 + 8 * t3) / (n * (n + 2) * (n + 4))
            linear = sum(A[i, j] * B[i, j] for i in range(m) for j in range(n))
            return fourth + sixth - linear

    assert float(F(found.Q) - F(exact.Q)) <= float(found.gap)
    assert float(F(found.Q)) == pytest.approx(float(found.value), rel=1e-12)
