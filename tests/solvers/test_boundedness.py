"""H with a finite slope at 0 or at infinity: when Q = 0 is the answer, when there is none, and the edge between."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm import Custom, Exponential, Power, Program, Status, solve
from icm.solvers.boundedness import decide
from icm.solvers.certificate import mean_length
from icm.solvers.dual import norm_dual
from icm.sphere import mean
from tests.oracles import tensor, worst

few = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
ROOT = Custom(lambda r: r * r / (1 + (1 + r * r).sqrt()), name="hyperbola", limit_slope=1.0)


def dual(g: Tensor, dim: int) -> tuple[float, float]:
    """N†(g) = max ⟨g, v⟩/E‖diag(v)ζ‖, enclosed."""
    found = norm_dual(g[None], dim, 1.0, 1e-13, 100)
    return float(found.lower), float(found.upper)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(seed=seeds, shape=st.tuples(st.integers(1, 4), st.integers(1, 5)))
def test_the_dual_norm(seed: int, shape: tuple[int, int]) -> None:
    """lower ≤ upper within 1e-11; no direction beats upper; max(g₁/κ_n, Σg if k = n) ≤ N† ≤ ‖g‖₂/κ_n."""
    g, dim = torch.linalg.svdvals(normal(seed, *shape)), shape[1]
    lower, upper = dual(g, dim)
    assert lower <= upper <= lower * (1 + 1e-11)
    v = normal(seed + 1, 200, len(g)).abs()
    assert float(((v @ g) / mean("r", v, dim)).max()) <= upper
    kappa = mean_length(dim)
    assert float(g[0]) / kappa <= upper
    assert upper <= float(g.norm()) / kappa * (1 + 1e-11)
    if len(g) == dim:
        assert float(g.sum()) <= upper


@few
@given(seed=seeds, shape=st.tuples(st.integers(1, 4), st.integers(1, 5)), factor=st.floats(1e-6, 1e6))
def test_a_line(seed: int, shape: tuple[int, int], factor: float) -> None:
    """H = c r: Q = 0 where N†(g) < c, unbounded where N†(g) > c, with F(tD) = −t·margin·E‖Dζ‖ exactly."""
    G = normal(seed, *shape)
    lower, upper = dual(torch.linalg.svdvals(G), shape[1])
    calm = solve(G, Power(1.0, upper * (1 + factor)))
    assert calm.status is Status.OPTIMAL
    assert bool((calm.Q == 0).all())
    assert float(calm.value) == float(calm.gap) == 0.0
    H = Power(1.0, lower / (1 + factor))
    wild = solve(G, H)
    assert wild.status is Status.UNBOUNDED
    assert float(wild.value) == -math.inf
    assert float(wild.gap) == math.inf
    assert bool(wild.Q.isnan().all())
    D = wild.direction
    assert D is not None
    assert wild.margin is not None
    assert worst(torch.linalg.matrix_norm(D), 1.0) < 1e-12
    falls = Program(G, H).objective(tensor(1.0, 1e6)[:, None, None] * D)
    length = mean("r", torch.linalg.svdvals(D), shape[1])
    assert float(falls[0]) < 0
    assert worst(falls[1], 1e6 * falls[0]) < 1e-9
    if factor > 1e-3:
        assert worst(falls[0], -wild.margin * length) < 1e-9
        assert worst(wild.margin, lower - H.scale) < 1e-9


def test_the_edge_of_a_line() -> None:
    """Just below the edge the answer is 0, just above it there is none; at the edge Q = 0 is still optimal."""
    G = torch.diag(tensor(2.0, 1.0, 0.5))
    lower, upper = dual(tensor(2.0, 1.0, 0.5), 3)
    assert solve(G, Power(1.0, lower * (1 - 1e-9))).status is Status.UNBOUNDED
    assert solve(G, Power(1.0, upper * (1 + 1e-9))).status is Status.OPTIMAL
    edge = solve(G, Power(1.0, 0.5 * (lower + upper)), on_failure="return")
    assert edge.status in (Status.OPTIMAL, Status.UNDECIDED)


@few
@given(seed=seeds, shape=st.tuples(st.integers(1, 3), st.integers(1, 4)), size=st.floats(-3, 3))
def test_a_line_and_a_square(seed: int, shape: tuple[int, int], size: float) -> None:
    """H = r² + 3r: Q = 0 exactly where N†(g) ≤ 3; elsewhere F(Q*) < 0 and Q* is stationary."""
    G = 10**size * normal(seed, *shape)
    g = torch.linalg.svdvals(G)
    lower, upper = dual(g, shape[1])
    solution = solve(G, "r^2 + 3*r")
    assert solution.status is Status.OPTIMAL
    if upper < 3:
        assert bool((solution.Q == 0).all())
        assert float(solution.gap) == 0.0
    elif lower > 3 * (1 + 1e-6):
        assert float(solution.value) < 0
        assert float(solution.relative_gap) <= 1e-10
        residual = Program(G, "r^2 + 3*r").gradient(solution.Q)
        assert float(torch.linalg.norm(residual)) < 1e-4 * float(g.norm())


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2)])
def test_a_finite_slope_at_infinity(shape: tuple[int, int]) -> None:
    """H = √(1+r²) − 1: solved where N†(g) < 1, unbounded where N†(g) > 1 along a direction on which F falls."""
    G = normal(3, *shape)
    lower, upper = dual(torch.linalg.svdvals(G), shape[1])
    for share in (0.1, 0.9):
        solution = solve(share / upper * G, ROOT)
        assert solution.status is Status.OPTIMAL
        assert float(solution.relative_gap) <= 1e-10
        assert float(solution.value) < 0
    outside = solve(1.1 / lower * G, ROOT)
    assert outside.status is Status.UNBOUNDED
    assert outside.direction is not None
    falls = Program(1.1 / lower * G, ROOT).objective(tensor(1e2, 1e4)[:, None, None] * outside.direction)
    assert float(falls[1]) < float(falls[0]) < 0


def test_one_input() -> None:
    """n = 1, H = √(1+r²) − 1: σ* = g/√(1−g²) for g < 1."""
    for g in (1e-3, 0.5, 0.9, 0.999):
        solution = solve([[g]], ROOT)
        assert worst(solution.sigma, g / math.sqrt(1 - g * g)) < 1e-6
        assert worst(solution.value, math.sqrt(1 - g * g) * -1 + 1 - 2 * (1 - math.sqrt(1 - g * g))) < 1e-9
    assert solve([[1.5]], ROOT).status is Status.UNBOUNDED


def test_no_curvature_at_all() -> None:
    """H = 0 is unbounded for every G ≠ 0, and its answer is 0 for G = 0."""
    for H in (0.0 * Power(2.0), 0.0 * Exponential(1.0), 0.0 * (Power(2.0) + Power(3.0)), "0*r^2"):
        solution = solve([[3.0, 1.0], [0.0, 1.0]], H)
        assert solution.status is Status.UNBOUNDED
        assert solution.direction is not None
        assert float((solution.direction * tensor(3.0, 1.0, 0.0, 1.0).view(2, 2)).sum()) > 0
        assert solve([[0.0]], H).status is Status.OPTIMAL


def test_a_batch_of_all_kinds() -> None:
    """Zero, answered by zero, solved and unbounded members of one batch keep their own statuses and answers."""
    G = torch.stack([0 * torch.eye(2), 0.1 * torch.eye(2), 10 * torch.eye(2)]).double()
    line = solve(G, Power(1.0, 1.0))
    assert line.status == (Status.OPTIMAL, Status.OPTIMAL, Status.UNBOUNDED)
    assert bool((line.Q[:2] == 0).all())
    assert bool(line.Q[2].isnan().all())
    assert line.value.tolist() == [0.0, 0.0, -math.inf]
    mixed = solve(torch.stack([G[:2], G[1:]]), ROOT)
    assert mixed.status == ((Status.OPTIMAL, Status.OPTIMAL), (Status.OPTIMAL, Status.UNBOUNDED))
    alone = solve(G[1], ROOT)
    assert float((mixed.Q[0, 1] - alone.Q).abs().max()) < 1e-11
    assert float((mixed.Q[1, 0] - alone.Q).abs().max()) < 1e-11


def test_nothing_to_decide() -> None:
    """For H'(0+) = 0 and H'(∞) = ∞ no dual is computed: only G = 0 is closed."""
    g = tensor(1.0, 0.5, 0.0, 0.0).view(2, 2)
    for H in (Power(2.0), Exponential(1.0), Custom(lambda r: r**2 + r**3)):
        decision = decide(g, 3, H)
        assert decision.open.tolist() == [True, False]
        assert decision.upper is None, f"{H} has initial slope {H.initial_slope}"


@pytest.mark.parametrize("c", [1e-150, 1e-30, 1e30])
def test_boundedness_has_no_scale(c: float) -> None:
    """(cG, cH) has the status of (G, H)."""
    G = torch.diag(tensor(2.0, 1.0))
    for H, status in ((Power(1.0, 10.0), Status.OPTIMAL), (Power(1.0, 0.1), Status.UNBOUNDED)):
        assert solve(c * G, c * H).status is status
    base, scaled = solve(G, "r^2 + r"), solve(c * G, c * (Power(2.0) + Power(1.0)))
    assert float((base.Q - scaled.Q).abs().max()) < 1e-9 * float(base.Q.abs().max())
