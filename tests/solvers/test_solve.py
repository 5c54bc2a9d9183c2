"""What `solve` returns is the minimiser, whatever the shape, scale, dtype and batch; and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import reference
from icm import Custom, Power, Program, Status, solve
from icm.curvature import Curvature
from icm.sphere import mean
from tests.oracles import tensor, worst
from tests.solvers.problems import SHAPES, SMOOTH, curvatures, distance, few, matrix, rotation, seeds, shapes

# --- optimality -----------------------------------------------------------------------------------------------


@few
@given(seed=seeds, shape=shapes, H=curvatures, t=st.floats(0, 1))
def test_the_objective_is_convex(seed: int, shape: tuple[int, int], H: Curvature, t: float) -> None:
    """F(tA + (1−t)B) ≤ tF(A) + (1−t)F(B)."""
    program = Program(matrix(seed, *shape), H)
    A, B = matrix(seed + 1, 2, *shape)
    a, b = program.objective(A), program.objective(B)
    size = a.abs() + b.abs() + mean(H, torch.linalg.svdvals(A), shape[1]) + mean(H, torch.linalg.svdvals(B), shape[1])
    assert float(program.objective(t * A + (1 - t) * B)) <= float(t * a + (1 - t) * b + 1e-13 * size)


@few
@given(seed=seeds, shape=shapes, H=curvatures)
def test_no_perturbation_gains_more_than_the_gap(seed: int, shape: tuple[int, int], H: Curvature) -> None:
    """F(Q* + δ) ≥ F(Q*) − gap for δ of every size and direction, and the gap is within tol."""
    G = matrix(seed, *shape)
    program = Program(G, H)
    solution = program.solve()
    assert solution.status is Status.OPTIMAL
    assert 0 <= float(solution.relative_gap) <= 1e-10
    assert worst(program.objective(solution.Q), solution.value) < 1e-11
    size = torch.linalg.norm(solution.Q) * torch.logspace(-9, 1, 21, dtype=torch.float64)
    delta = size[:, None, None] * matrix(seed + 1, 21, *shape)
    around = torch.cat([solution.Q + delta, solution.Q * (1 + delta[:, :1, :1] / size[:, None, None] / 10)])
    assert bool((program.objective(around) >= solution.value - solution.gap).all())


@few
@given(seed=seeds, shape=shapes, H=curvatures)
def test_stationary(seed: int, shape: tuple[int, int], H: Curvature) -> None:
    """g_i = ∂f(σ*)/∂σ_i, the gradient by differences of the exact mean: no slope of ours is used."""
    solution = solve(matrix(seed, *shape), H)
    k, dim = min(shape), shape[1]
    keep = solution.sigma > 1e-3 * solution.sigma[0]
    step = 1e-4
    for i in range(k):
        if not bool(keep[i]):
            continue
        h = step * solution.sigma[i]
        move = torch.zeros(k, dtype=torch.float64)
        move[i] = h
        up, down = mean(H, solution.sigma + move, dim), mean(H, solution.sigma - move, dim)
        slope = (up - down) / (2 * h)
        noise = 1e-14 * float(up / h)
        assert abs(float(slope - solution.g[i])) < 1e-6 * float(solution.g[0]) + noise


@pytest.mark.parametrize("p", [1.3, 2.39, 7.0])
def test_stationary_to_fifty_digits(p: float) -> None:
    """∇E‖Qζ‖^p at σ*, by ball arithmetic, is g to 1e-12."""
    solution = solve(matrix(5, 4, 6), Power(p))
    row = reference.power_table(solution.sigma.numpy(), 6, [p], digits=25)[0]
    assert worst([float(x) for x in row[1:]], solution.g) < 1e-12


@few
@given(seed=seeds, shape=shapes, p=st.floats(1.1, 12), scale=st.floats(1e-3, 1e3))
def test_value_of_a_power(seed: int, shape: tuple[int, int], p: float, scale: float) -> None:
    """F* = −(p−1)/p ⟨g, σ*⟩ and E H = ⟨g, σ*⟩/p for H = c r^p."""
    solution = solve(matrix(seed, *shape), Power(p, scale))
    linear = float((solution.g * solution.sigma).sum())
    assert worst(solution.value, -(p - 1) / p * linear) < 1e-11
    assert worst(mean(Power(p, scale), solution.sigma, shape[1]), linear / p) < 1e-11


@few
@given(seed=seeds, shape=st.tuples(st.integers(2, 6), st.integers(2, 6)), p=st.floats(1.05, 9))
def test_order_and_homogenisation(seed: int, shape: tuple[int, int], p: float) -> None:
    """σ* keeps g's order; 1 ≤ (g_i/g_j)/(σ_i/σ_j) ≤ p − 1 for p ≥ 2, reversed for p ≤ 2."""
    solution = solve(matrix(seed, *shape), Power(p))
    g, sigma = solution.g, solution.sigma
    assert bool((sigma.diff() <= 0).all())
    shrink = (g[:-1] / g[1:]) / (sigma[:-1] / sigma[1:])
    low, high = min(1.0, p - 1), max(1.0, p - 1)
    assert bool((shrink >= low * (1 - 1e-7)).all())
    assert bool((shrink <= high * (1 + 1e-7)).all())


@few
@given(seed=seeds, H=curvatures)
def test_super_quadratic_draws_together(seed: int, H: Curvature) -> None:
    """Su, Theorem 1: σ*_i/σ*_j ≤ g_i/g_j for super-quadratic H; sub-quadratic powers do the reverse."""
    solution = solve(matrix(seed, 3, 5), H)
    g, sigma = solution.g, solution.sigma
    assert bool((sigma.diff() <= 0).all())
    shrink = (g[:-1] / g[1:]) / (sigma[:-1] / sigma[1:])
    if H.is_superquadratic():
        assert bool((shrink >= 1 - 1e-8).all())
    elif isinstance(H, Power):
        assert bool((shrink <= 1 + 1e-8).all())


def test_one_input() -> None:
    """n = 1: H'(σ) = g, so σ* = radius_at_slope(g), to 1e-10."""
    for H in (*SMOOTH.values(), Custom(lambda r: r**2 + r**3)):
        for g in (1e-3, 1.0, 30.0):
            solution = solve([[g], [0.0]], H)
            assert worst(H.slope(solution.sigma), g) < 1e-10
            assert worst(solution.sigma, float(H.radius_at_slope(tensor(g)))) < 1e-9
            assert float(solution.Q[1, 0]) == 0.0


def test_equal_singular_values() -> None:
    """G = c·(orthonormal rows or columns), k = n: Q* is a multiple of G with H'(σ)/n = c, marked orthogonal."""
    for shape in ((4, 4), (6, 4)):
        U = torch.linalg.qr(matrix(1, *shape)).Q
        for H in SMOOTH.values():
            solution = solve(0.3 * U, H)
            assert distance(solution.Q, U * solution.sigma[0]) < 1e-12
            assert worst(H.slope(solution.sigma) / 4, 0.3) < 1e-10
            assert bool(solution.orthogonal)
    assert not bool(solve(torch.diag(tensor(1.0, 0.9)), "r^3").orthogonal)


# --- invariance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMOOTH)
def test_rotations_and_permutations(name: str, shape: tuple[int, int]) -> None:
    """Q*(A G Bᵀ) = A Q*(G) Bᵀ for orthogonal A, B, permutations and signs among them."""
    G, H = matrix(2, *shape), SMOOTH[name]
    Q = solve(G, H).Q
    A, B = rotation(3, shape[0]), rotation(4, shape[1])
    assert distance(solve(A @ G @ B.T, H).Q, A @ Q @ B.T) < 1e-10
    rows, columns = torch.randperm(shape[0]), torch.randperm(shape[1])
    assert distance(solve(G[rows][:, columns], H).Q, Q[rows][:, columns]) < 1e-10
    assert distance(solve(-G, H).Q, -Q) < 1e-12


@pytest.mark.parametrize("c", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("name", SMOOTH)
def test_units_of_the_loss(name: str, c: float) -> None:
    """(cG, cH) has the same Q, and c times the value and the gap's order."""
    G, H = matrix(2, 3, 4), SMOOTH[name]
    base, scaled = solve(G, H), solve(c * G, c * H)
    assert distance(scaled.Q, base.Q) < 1e-11
    assert worst(scaled.value, c * base.value) < 1e-11
    assert float(scaled.relative_gap) <= 1e-10


@pytest.mark.parametrize("a", [1e-20, 1e20])
@pytest.mark.parametrize("name", SMOOTH)
def test_units_of_length(name: str, a: float) -> None:
    """(aG, H(a·)) has Q/a and the same value."""
    G, H = matrix(2, 3, 4), SMOOTH[name]
    base, scaled = solve(G, H), solve(a * G, H.dilate(a))
    assert distance(a * scaled.Q, base.Q) < 1e-11
    assert worst(scaled.value, base.value) < 1e-11


@pytest.mark.parametrize("c", [1e-30, 1e30])
@pytest.mark.parametrize("p", [1.5, 2.0, 2.39, 4.0, 7.0])
def test_power_law_covariance(p: float, c: float) -> None:
    """Q(cG) = c^{1/(p−1)} Q(G) for H = r^p, to 1e-13."""
    G = matrix(2, 3, 4)
    base, scaled = solve(G, Power(p)), solve(c * G, Power(p))
    assert distance(scaled.Q / c ** (1 / (p - 1)), base.Q) < 1e-13
