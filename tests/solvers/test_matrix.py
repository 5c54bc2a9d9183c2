"""Quasi-Newton on the full matrix: from random starts it must find the alignment that the reduction assumes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from icm.curvature import Custom, Power
from icm.errors import InputError
from icm.program import Program
from icm.solvers import Status, solve
from icm.solvers.matrix import Point, minimise, solve_matrix

CURVATURES = ["r^1.5", "r^2", "r^2.39", "r^3", "r^4", "r^6", "exp(1)", "r^2 + 3*r", "0.5*r^2 + r^4"]
SHAPES = [(3, 5), (5, 5), (8, 5), (12, 16), (1, 4), (4, 1)]


def orthonormal(rows: int, columns: int, rng: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=rng, dtype=torch.float64))[0]


def rotated(m: int, n: int, rng: torch.Generator, size: float = 6.0, condition: float = 30.0) -> Tensor:
    """U diag(g) Vᵀ with random U and V and g geometric from `size` down to size/condition."""
    k = min(m, n)
    g = size * condition ** -torch.linspace(0, 1, k, dtype=torch.float64)
    return orthonormal(m, k, rng) * g @ orthonormal(n, k, rng).mT


def distance(Q: Tensor, other: Tensor) -> float:
    return float(((Q - other).norm(dim=(-2, -1)) / other.norm(dim=(-2, -1))).max())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("H", CURVATURES)
def test_finds_the_spectral_solution(H: str, shape: tuple[int, int], rng: torch.Generator):
    G = rotated(*shape, rng)
    exact = solve(G, H)
    found = solve_matrix(Program(G, H), seed=7)
    assert found.status is Status.OPTIMAL
    assert distance(found.Q, exact.Q) <= 1e-6
    assert int(found.iterations) <= 200
    torch.testing.assert_close(found.sigma, exact.sigma, rtol=0, atol=1e-6 * float(exact.sigma[0]))
    # F* lies within both gaps, so neither value can be further below the other than its rival's gap.
    assert float(found.value - exact.value) <= float(found.gap)
    assert float(exact.value - found.value) <= float(exact.gap)


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (6, 4), (1, 4)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(("jump", "size"), [(0.5, 1.0), (2.0, 1.0), (50.0, 6.0)])
def test_finds_the_spectral_solution_beside_a_kink(
    jump: float, size: float, shape: tuple[int, int], rng: torch.Generator
):
    """Where the optimum holds only some ‖Qζ‖ at the kink, F is smooth there, and L-BFGS needs no more than that."""
    G, H = rotated(*shape, rng, size), f"0.5*r^2 + {jump}*kink(1)"
    exact = solve(G, H)
    assert exact.orthogonality is not None
    assert not any(reason.orthogonal for reason in exact.orthogonality.reasons)
    found = solve_matrix(Program(G, H), seed=7)
    assert found.status is Status.OPTIMAL
    assert found.orthogonality is None
    assert distance(found.Q, exact.Q) <= 1e-6
    assert float(found.value - exact.value) <= float(found.gap)
    assert float(exact.value - found.value) <= float(exact.gap)


@pytest.mark.parametrize("shape", [(3, 3), (4, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_a_flat_optimum_is_stalled_and_its_gap_holds(shape: tuple[int, int], rng: torch.Generator):
    """Where all n singular values of Q* lie on a kink F has no gradient: L-BFGS ends at the best point it found."""
    G, H = rotated(*shape, rng, condition=2.0), "0.5*r^2 + 50*kink(1)"
    exact, found = solve(G, H), solve_matrix(Program(G, H), max_iterations=20)
    assert bool(exact.orthogonal)
    assert found.status is Status.STALLED
    assert float(found.gap) >= float(found.value - exact.value) > 0


@pytest.mark.parametrize("H", ["wall(1)", "r^2 + kink(0.5) + wall(1)"])
def test_walls_are_refused(H: str):
    with pytest.raises(InputError, match=r"wall\(1\).*constraint.*'newton', or 'reference'"):
        solve_matrix(Program(torch.eye(2), H))


def test_the_start_does_not_matter(rng: torch.Generator):
    program = Program(rotated(5, 4, rng), "r^3 + 2*r")
    answers = [solve_matrix(program, seed=seed) for seed in range(5)]
    assert all(distance(answer.Q, answers[0].Q) <= 1e-6 for answer in answers)
    assert bool((answers[0].Q == solve_matrix(program, seed=0).Q).all())


def test_singular_vectors_are_those_of_G(rng: torch.Generator):
    """Prop. 3.1 observed: Uᵀ Q V is diagonal and nonnegative, for a G of rank 3 too."""
    U, V = orthonormal(5, 5, rng), orthonormal(6, 6, rng)
    G = U[:, :3] * torch.tensor([4.0, 1.0, 0.2], dtype=torch.float64) @ V[:, :3].mT
    inner = U.mT @ solve_matrix(Program(G, "r^2.39")).Q @ V
    diagonal = torch.diag_embed(inner.diagonal())
    assert float((inner[:, :5] - diagonal).norm()) <= 1e-6 * float(inner.norm())
    assert bool((inner.diagonal()[:3] > 0).all())


@pytest.mark.parametrize("H", ["r^2.5", "r^2 + 2*r"])
def test_batched_equals_single(H: str, rng: torch.Generator):
    G = torch.stack([rotated(3, 4, rng, size) for size in (1e-2, 1.0, 6.0)] + [torch.zeros(3, 4)]).double()
    G = torch.stack([G, G.flip(0)])
    together = solve_matrix(Program(G, H))
    assert together.Q.shape == G.shape
    assert together.value.shape == together.gap.shape == together.iterations.shape == (2, 4)
    for i in range(2):
        for j in range(4):
            alone = solve_matrix(Program(G[i, j], H))
            assert alone.status is together.status[i][j] is Status.OPTIMAL
            assert float((together.Q[i, j] - alone.Q).norm()) <= 1e-7 * float(alone.Q.norm())


@pytest.mark.parametrize("c", [1e30, 1e-30])
def test_any_scale(c: float, rng: torch.Generator):
    G = rotated(3, 3, rng)
    H = 0.5 * Power(2.0) + Power(4.0)
    assert distance(solve_matrix(Program(c * G, c * H)).Q, solve_matrix(Program(G, H)).Q) <= 1e-8
    power = solve_matrix(Program(c * G, "r^3"))
    assert power.status is Status.OPTIMAL
    assert distance(power.Q / c**0.5, solve_matrix(Program(G, "r^3")).Q) <= 1e-8


@pytest.mark.parametrize(("dtype", "tol", "near"), [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 2e-2, 1e-2)])
def test_low_precision(dtype: torch.dtype, tol: float, near: float, rng: torch.Generator):
    """value and gap are those of the rounded Q that is returned."""
    G = rotated(6, 5, rng).to(dtype)
    found = solve_matrix(Program(G, "r^2.5"), tol)
    exact = solve(G.double(), "r^2.5")
    assert found.Q.dtype is found.sigma.dtype is dtype
    assert found.status is Status.OPTIMAL
    assert distance(found.Q.double(), exact.Q) <= near
    value = Program(G.double(), "r^2.5").objective(found.Q.double())
    torch.testing.assert_close(found.value, value, rtol=1e-12, atol=0)
    assert float(exact.gap) < float(found.value - exact.value) <= float(found.gap)


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_an_early_stop_is_stalled_and_its_gap_holds(iterations: int, rng: torch.Generator):
    G = rotated(4, 5, rng)
    found = solve_matrix(Program(G, "r^4"), max_iterations=iterations)
    assert found.status is Status.STALLED
    assert 0 < float(found.value - solve(G, "r^4").value) <= float(found.gap)
    assert int(found.iterations) == iterations


def test_zero_is_recognised(rng: torch.Generator):
    G = rotated(4, 3, rng, size=0.1)
    found = solve_matrix(Program(G, "r^2 + 3*r"))
    assert found.status is Status.OPTIMAL
    assert not bool(found.Q.any())
    assert float(found.value) == float(found.gap) == 0


@pytest.mark.parametrize("excess", [1e-1, 1e-2, 1e-4])
def test_just_beyond_the_cone(excess: float, rng: torch.Generator):
    """G barely too large for Q = 0: the answer is tiny beside all other lengths, and still found."""
    G = rotated(4, 3, rng)
    margin = solve(G, "r").margin  # max ⟨G, V⟩/E‖Vζ‖ − 1
    assert margin is not None
    G = G * (3 * (1 + excess) / (1 + float(margin)))
    found, exact = solve_matrix(Program(G, "r^2 + 3*r")), solve(G, "r^2 + 3*r")
    assert found.status is Status.OPTIMAL
    assert distance(found.Q, exact.Q) <= 1e-8 / excess


def test_unbounded_has_a_direction(rng: torch.Generator):
    G = torch.stack([rotated(3, 3, rng, size=100.0), rotated(3, 3, rng, size=0.01)])
    found = solve_matrix(Program(G, "r"))
    assert found.statuses == (Status.UNBOUNDED, Status.OPTIMAL)
    assert bool(found.Q[0].isnan().all())
    assert float(found.value[0]) == -torch.inf
    assert float(found.gap[0]) == torch.inf
    assert found.direction is not None
    assert float((found.direction[0] * G[0]).sum()) > 1  # ⟨G, D⟩ > ‖D‖_F ≥ E‖Dζ‖
    assert not bool(found.Q[1].any())


def test_a_custom_curvature_with_finite_recession_slope():
    """H = √(1+r²) − 1 and one input, so ‖Qζ‖ = ‖Q‖: σ = g/√(1−g²) below g = 1, unbounded above."""
    soft = Custom(lambda r: r * r / (1 + torch.sqrt(1 + r * r)), "soft", limit_slope=1.0)
    G = torch.tensor([0.3, 0.9, 1.1], dtype=torch.float64)[:, None, None] * torch.tensor([[0.6], [-0.8]]).double()
    found = solve_matrix(Program(G, soft))
    assert found.statuses == (Status.OPTIMAL, Status.OPTIMAL, Status.UNBOUNDED)
    g = found.g[:2]
    torch.testing.assert_close(found.sigma[:2], g / (1 - g.square()).sqrt(), rtol=1e-7, atol=0)
    torch.testing.assert_close(found.Q[:2] / found.sigma[:2, None], G[:2] / g[:, None], rtol=0, atol=1e-7)


def test_orthogonal_only_where_Q_is(rng: torch.Generator):
    assert bool(solve_matrix(Program(orthonormal(5, 3, rng), "r^3")).orthogonal)
    assert not bool(solve_matrix(Program(rotated(5, 3, rng), "r^3")).orthogonal)


def test_minimise_on_ill_conditioned_quadratics(rng: torch.Generator):
    """½ Σ a_i (x_i − 1)², condition 1 to 10⁴: each row stops by itself, at its own iteration."""
    condition = torch.tensor([1.0, 1e2, 1e4], dtype=torch.float64)
    a = condition[:, None] ** torch.linspace(0, 1, 12, dtype=torch.float64)

    def evaluate(x: Tensor, rows: Tensor) -> Point:
        gradient = a[rows] * (x - 1)
        value = 0.5 * (gradient * (x - 1)).sum(-1)
        return Point(value, 1e-14 * value, gradient, gradient.norm(dim=-1))

    x, iterations = minimise(evaluate, torch.randn(3, 12, generator=rng, dtype=torch.float64), 1e-9, 300)
    torch.testing.assert_close(x, torch.ones_like(x), rtol=0, atol=1e-8)
    counts = iterations.tolist()
    assert 0 < counts[0] < counts[1] < counts[2] < 300


def test_minimise_shortens_steps_out_of_range():
    """−log x + x has its minimum at 1; a step beyond 0 gives NaN and must be shortened, not taken."""

    def evaluate(x: Tensor, rows: Tensor) -> Point:
        gradient = 1 - 1 / x
        value = (x - torch.log(x)).sum(-1)
        return Point(
            value, 1e-14 * value.abs(), gradient.where(~value.isnan()[:, None], torch.nan), gradient.norm(dim=-1)
        )

    x, _ = minimise(evaluate, torch.tensor([[0.01], [30.0]], dtype=torch.float64), 1e-9, 100)
    torch.testing.assert_close(x, torch.ones_like(x), rtol=0, atol=1e-8)
