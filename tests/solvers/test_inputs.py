"""`solve` on every kind of input: batches, shapes, dtypes, devices, and what it refuses."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

import icm
from icm import Exponential, Power, Program, Status, solve
from icm.curvature import Curvature
from icm.errors import CurvatureError, DtypeError, InputError, SolveError
from icm.solvers import solve_program
from tests.oracles import tensor, worst
from tests.solvers.problems import SHAPES, SMOOTH, distance, matrix, rotation

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 2), (6, 4), (3, 4), (12, 12)], ids=str)
def test_narrow_dtypes_at_kinks_and_walls(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Rounded towards the inside of the kink or wall, where nothing costs the jump: OPTIMAL, and σ is that of Q."""
    G = matrix(5, *shape)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    for text in ("2*kink(0.7)", "10000*kink(0.7) + wall(0.71)", "wall(0.37)")[:: 1 if shape[0] >= shape[1] else 2]:
        H = 0.1 * Power(2.0) + icm.parse(text)
        for gradient in (G.to(dtype), (3 * U @ Vh).to(dtype)):
            narrow, wide = solve(gradient, H), solve(gradient.double(), H)
            assert narrow.status is Status.OPTIMAL
            assert worst(narrow.value, Program(gradient.double(), H).objective(narrow.Q.double())) < 1e-12
            assert float(narrow.gap) >= float(narrow.value - wide.value)
            sigma, eps = torch.linalg.svdvals(narrow.Q.double()), torch.finfo(dtype).eps
            assert float(sigma[0]) <= H.wall
            assert float((sigma - narrow.sigma.double()).abs().max()) <= 2 * eps * float(sigma[0])


def test_rounding_outwards_would_cost_the_jump() -> None:
    """What `inwards` avoids: at a kink with a jump of 1e4 plain rounding of the optimum to float32 misses tol."""
    G, H = 0.2 * rotation(1, 6).float(), 0.1 * Power(2.0) + 1e4 * icm.Kink(1.0)
    narrow, wide = solve(G, H), solve(G.double(), H)
    plain = Program(G.double(), H).objective(wide.Q.float().double())
    assert float(plain - wide.value) > 2 * narrow.tol * float(wide.gain)
    assert float(narrow.value - wide.value) < 0.1 * narrow.tol * float(wide.gain)


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
    """G is not written to and gets no gradient, and what is detached of the answer keeps no graph."""
    G = matrix(1, 3, 3).requires_grad_()
    before = G.detach().clone()
    solution = solve(G, "r^2.5")
    assert torch.equal(G.detach(), before)
    assert G.grad is None
    assert not solution.detach().Q.requires_grad
    assert not solution.detach().value.requires_grad
    with torch.no_grad():
        assert not solve(G, "r^2.5").Q.requires_grad


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


def test_the_matrix_method_refuses_walls() -> None:
    """With the method that takes them."""
    with pytest.raises(InputError, match=r"wall\(2\).*method='newton'"):
        solve(torch.eye(2), "r^2 + wall(2)", method="matrix")


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
