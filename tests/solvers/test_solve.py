"""What `solve` returns is the minimiser, whatever the shape, scale, dtype and batch; and what it refuses."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import icm
from benchmarks import reference
from icm import Custom, Exponential, Power, Program, Status, solve
from icm.curvature import Curvature
from icm.errors import CurvatureError, DtypeError, InputError, SolveError
from icm.solvers import solve_program
from icm.sphere import mean
from tests.oracles import tensor, worst

SMOOTH: dict[str, Curvature] = {
    "r^1.3": Power(1.3),
    "r^2": Power(2.0, scale=0.7),
    "r^2.39": Power(2.39),
    "r^4": Power(4.0, scale=3.0),
    "r^7": Power(7.0),
    "exp(2)": Exponential(2.0),
    "r^2 + 0.5 r^4": Power(2.0) + 0.5 * Power(4.0),
    "r^1.5 + exp(1)": Power(1.5) + Exponential(1.0),
}
SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1)]
few = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))
curvatures = st.sampled_from(sorted(SMOOTH)).map(SMOOTH.__getitem__)


def matrix(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, n: int) -> Tensor:
    return torch.linalg.qr(matrix(seed, n, n)).Q


def distance(found: Tensor, exact: Tensor) -> float:
    """‖found − exact‖_F / ‖exact‖_F."""
    return float(torch.linalg.norm(found.double() - exact.double()) / torch.linalg.norm(exact.double()))


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


# --- batches, shapes, dtypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMOOTH)
def test_batch_is_its_elements(name: str) -> None:
    """A batch of any shape, with zero and rank-deficient members of any scale, holds what each gives alone."""
    G = matrix(7, 2, 3, 3, 4)
    G[0, 1] = 0
    G[1, 0, 2] = G[1, 0, 1]
    G[1, 2] *= 1e3
    H = SMOOTH[name]
    together = solve(G, H)
    assert together.Q.shape == G.shape
    assert together.sigma.shape == (2, 3, 3)
    assert together.value.shape == together.gap.shape == together.iterations.shape == (2, 3)
    assert together.status == ((Status.OPTIMAL,) * 3,) * 2
    for i in range(2):
        for j in range(3):
            alone = solve(G[i, j], H)
            if (i, j) == (0, 1):
                assert bool((together.Q[i, j] == 0).all())
            else:
                assert distance(together.Q[i, j], alone.Q) < 1e-11
            assert worst(together.value[i, j], alone.value) < 1e-12


def test_zero_gradient() -> None:
    """G = 0 is answered by Q = 0 with value and gap 0, for every H."""
    for H in (*SMOOTH.values(), Power(1.0), 0.0 * Power(2.0)):
        for shape in SHAPES:
            solution = solve(torch.zeros(shape), H)
            assert solution.status is Status.OPTIMAL
            assert float(solution.value) == float(solution.gap) == float(solution.relative_gap) == 0.0
            assert bool((solution.Q == 0).all())
            assert solution.Q.dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMOOTH)
def test_shapes(name: str, shape: tuple[int, int]) -> None:
    """Q has G's shape, singular values σ in g's order, and shares G's singular vectors: QGᵀ and QᵀG are symmetric."""
    G = matrix(8, *shape)
    solution = solve(G, SMOOTH[name])
    k = min(shape)
    assert solution.Q.shape == G.shape
    assert solution.sigma.shape == solution.g.shape == (k,)
    assert worst(solution.g, torch.linalg.svdvals(G)) < 1e-12
    assert worst(torch.linalg.svdvals(solution.Q), solution.sigma) < 1e-10
    for product in (solution.Q @ G.T, solution.Q.T @ G):
        assert float((product - product.T).abs().max()) < 1e-13 * float(product.abs().max()) * max(shape)
    assert worst((solution.Q * G).sum(), (solution.g * solution.sigma).sum()) < 1e-13


@pytest.mark.parametrize("name", SMOOTH)
def test_degenerate_spectra(name: str) -> None:
    """Rank one, repeated and widely spread singular values: directions without gradient stay without update."""
    U, V = rotation(1, 4), rotation(2, 4)
    for g in ((2.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1e-8), (1.0, 1e-3, 1e-3, 1e-6)):
        solution = solve((U * tensor(*g)) @ V.T, SMOOTH[name])
        assert float(solution.relative_gap) <= 1e-10
        zero = tensor(*g) == 0
        assert float(solution.sigma[zero].sum()) <= 1e-6 * float(solution.sigma[0])
        same = [i for i in range(3) if g[i] == g[i + 1] > 0]
        for i in same:
            assert worst(solution.sigma[i], solution.sigma[i + 1]) < 1e-7


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 3e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("H", [Power(2.0), Power(2.39), Exponential(1.0)])
def test_narrow_dtypes(H: Curvature, dtype: torch.dtype, tol: float) -> None:
    """Q and σ have G's dtype and are the float64 answer for that G, rounded; value and gap stay float64."""
    G = matrix(3, 4, 5).to(dtype)
    narrow, wide = solve(G, H), solve(G.double(), H)
    assert narrow.Q.dtype == narrow.sigma.dtype == dtype
    assert narrow.value.dtype == narrow.gap.dtype == torch.float64
    assert distance(narrow.Q, wide.Q) < tol
    assert float(narrow.relative_gap) <= narrow.tol
    assert float(narrow.gap) >= float(Program(G.double(), H).objective(narrow.Q.double()) - wide.value)


def test_kinds_of_input() -> None:
    """Lists, NumPy arrays and integers are taken, as float64; a text is taken for H."""
    G = [[3, 1], [0, -2], [1, 1]]
    base = solve(torch.tensor(G, dtype=torch.float64), Power(3.0))
    for form in (G, np.array(G), np.array(G, dtype=np.float64), torch.tensor(G)):
        solution = solve(form, "r^3")
        assert solution.Q.dtype == torch.float64
        assert torch.equal(solution.Q, base.Q)
    assert solve(np.array(G, dtype=np.float32), "r^3").Q.dtype == torch.float32
    assert torch.equal(Program(G, "r^3").solve(tol=1e-10).Q, base.Q)


def test_the_input_is_left_alone() -> None:
    """G is not written to, keeps no graph, and the answer does not alias it."""
    G = matrix(1, 3, 3).requires_grad_()
    before = G.detach().clone()
    solution = solve(G, "r^2.5")
    assert torch.equal(G.detach(), before)
    assert not solution.Q.requires_grad
    assert not solution.value.requires_grad


# --- refusals and failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("G", "words"),
    [
        ([1.0, 2.0], "matrix"),
        (3.0, "matrix"),
        (torch.zeros(0, 3), "no entries"),
        (torch.zeros(2, 0, 3), "no entries"),
        ([[1.0, math.nan]], r"nan at index \(0, 1\)"),
        ([[1.0], [-math.inf]], r"-inf at index \(1, 0\)"),
        ([[1.0], [2.0, 3.0]], "rectangular"),
    ],
)
def test_bad_gradients(G: object, words: str) -> None:
    """Vectors, empty, ragged and non-finite gradients are refused with the place."""
    with pytest.raises(InputError, match=words):
        solve(G, "r^2")


@pytest.mark.parametrize(
    "G", [torch.ones(2, 2, dtype=torch.cfloat), torch.ones(2, 2).bool(), [["a"]], [[1j]], [[True]]]
)
def test_bad_kinds(G: object) -> None:
    """Complex, boolean and textual gradients are refused by kind."""
    with pytest.raises(DtypeError):
        solve(G, "r^2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "simplex"}, "simplex"),
        ({"tol": 0.0}, "tol=0"),
        ({"tol": -1.0}, "tol=-1"),
        ({"tol": math.nan}, "tol=nan"),
        ({"on_failure": "ignore"}, "ignore"),
        ({"samples": 0}, "samples=0"),
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"method": "closed-form"}, "r\\^3"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    """An option outside its range is named; `unwrap` goes past the annotations, which tests check first."""
    with pytest.raises(InputError, match=words):
        inspect.unwrap(solve_program)(Program([[1.0]], "r^3"), **options)


def test_bad_curvature() -> None:
    """What is neither a curvature nor a text is refused."""
    with pytest.raises(CurvatureError, match=r"r\^0.5|p ≥ 1"):
        solve([[1.0]], "r^0.5")


def test_a_missed_tolerance_raises() -> None:
    """One iteration does not reach 1e-14: the error carries the solution and names the batch elements."""
    G = matrix(1, 4, 3, 3)
    G[2] = 0
    with pytest.raises(SolveError, match=r"3 of 4 batch elements \(0, 1, 3\)") as caught:
        solve(G, "r^7", max_iterations=1, tol=1e-14)
    solution = caught.value.solution
    assert solution.status == (Status.STALLED, Status.STALLED, Status.OPTIMAL, Status.STALLED)
    assert solution.Q.shape == G.shape
    with pytest.raises(SolveError, match="relative gap") as caught:
        solve(G[0], "r^7", max_iterations=1, tol=1e-14)
    assert "batch" not in str(caught.value)


def test_a_missed_tolerance_returns() -> None:
    """on_failure="return" gives the best point, STALLED, with an honest gap."""
    G = matrix(1, 3, 3)
    short = solve(G, "r^7", max_iterations=1, tol=1e-14, on_failure="return")
    full = solve(G, "r^7")
    assert short.status is Status.STALLED
    assert float(short.relative_gap) > 1e-14
    assert float(short.gap) >= float(short.value - full.value)


def test_a_solution_describes_itself() -> None:
    """The repr names status, value, gap and method; statuses are sentences."""
    assert "optimal" in repr(solve([[1.0]], "r^3"))
    assert "relative gap" in repr(solve(torch.ones(2, 1, 1), "r^3"))
    assert all(len(s.value.split()) > 3 for s in Status)


@pytest.mark.gpu
def test_cuda_rotations() -> None:
    """On the device: same answer as on the CPU, and it stays there."""
    G = matrix(2, 3, 4)
    for H in SMOOTH.values():
        there = solve(G.cuda(), H)
        assert there.Q.is_cuda
        assert there.value.is_cuda
        assert distance(there.Q.cpu(), solve(G, H).Q) < 1e-11


@pytest.mark.gpu
def test_cuda_batches() -> None:
    """A batch on the device, float32, with a zero and an unbounded member."""
    G = torch.stack([torch.eye(3), torch.zeros(3, 3), 0.01 * torch.eye(3)])
    there, here = icm.solve(G.cuda(), "r"), icm.solve(G, "r")
    assert there.status == here.status
    assert torch.allclose(there.Q.cpu(), here.Q, equal_nan=True)
