"""The program: objective and gradient at any Q, the reduction to singular values, and the door."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from icm import Custom, Exponential, Kink, Power, Program, Wall
from icm.curvature import Curvature
from icm.errors import InputError
from icm.sphere.sampling import directions
from tests.oracles import COEFFICIENTS, OFFSETS, tensor, worst

CURVATURES: dict[str, Curvature] = {
    "r": Power(1.0),
    "r^1.5": Power(1.5),
    "r^2": Power(2.0),
    "r^3": Power(3.0),
    "exp(1)": Exponential(1.0),
    "sum": Power(2.0) + Power(5.0, 0.1),
}
SHAPES = [(3, 3), (2, 4), (4, 2), (1, 3), (3, 1), (1, 1)]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CURVATURES)
def test_gradient_at_any_point(name: str, shape: tuple[int, int]) -> None:
    """⟨∇F(Q), D⟩ is the derivative of F along D, at a Q that shares no singular vector with G."""
    program = Program(normal(0, *shape), CURVATURES[name])
    Q = normal(1, *shape)
    gradient = program.gradient(Q)
    step = 2e-3 * float(torch.linalg.svdvals(Q)[-1])
    for D in normal(2, 4, *shape):
        D = D / torch.linalg.norm(D)
        along = program.objective(Q + OFFSETS[:, None, None] * step * D)
        found = float((COEFFICIENTS * along).sum()) / step
        size = float(gradient.norm() + program.G.norm())
        assert abs(found - float((gradient * D).sum())) < 1e-9 * size


@pytest.mark.parametrize("name", CURVATURES)
def test_objective_by_sampling(name: str) -> None:
    """F(Q) = −Tr(QGᵀ) + mean H(‖Qζ‖) over sampled ζ on the input side, within five standard errors."""
    G, Q, H = normal(0, 2, 5), normal(1, 2, 5), CURVATURES[name]
    values = H((directions(40000, 5, seed=0) @ Q.T).norm(dim=1))
    exact = float(Program(G, H).objective(Q) + (Q * G).sum())
    assert abs(exact - float(values.mean())) < 5 * float(values.std()) / 200


def test_orientation() -> None:
    """ζ lives on the inputs: E‖Qζ‖² = ‖Q‖²/n with n the number of columns."""
    for shape in SHAPES:
        Q = normal(3, *shape)
        assert worst(Program(torch.zeros(shape), "r^2").objective(Q), Q.square().sum() / shape[1]) < 1e-14
        assert Program(torch.zeros(shape), "r^2").dim == shape[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_reduction(shape: tuple[int, int]) -> None:
    """lift(σ) has singular values σ, its objective is the reduced one, and the gradients correspond."""
    program = Program(normal(0, 2, *shape), "r^3")
    reduced = program.reduce()
    k = min(shape)
    sigma = torch.linspace(2, 1, k, dtype=torch.float64).expand(2, k)
    Q = reduced.lift(sigma)
    assert worst(torch.linalg.svdvals(Q), sigma) < 1e-14
    assert float((reduced.lift(reduced.g) - program.G).abs().max()) < 1e-14
    assert worst(reduced.objective(sigma), program.objective(Q)) < 1e-13
    assert float((reduced.lift(reduced.gradient(sigma)) - program.gradient(Q)).abs().max()) < 1e-13
    assert bool((reduced.g.diff() <= 0).all())


@pytest.mark.parametrize("c", [1e-300, 1e-200, 1e200, 1e300])
def test_reduction_at_the_ends_of_the_range(c: float) -> None:
    """Singular values scale exactly with G wherever float64 reaches."""
    G = normal(0, 3, 4)
    base, scaled = Program(G, "r^2").reduce(), Program(c * G, "r^2").reduce()
    assert worst(scaled.g, c * base.g) < 1e-14
    assert float((scaled.lift(scaled.g) / c - G).abs().max()) < 1e-14


def test_batches_and_dtypes() -> None:
    """Objective and gradient have Q's dtype and batch; a batch holds what its members give alone."""
    G, Q = normal(0, 2, 3, 2, 3), normal(1, 2, 3, 2, 3)
    program = Program(G, "r^2.5")
    assert program.objective(Q).shape == (2, 3)
    assert program.gradient(Q).shape == G.shape
    alone = Program(G[1, 2], "r^2.5")
    assert worst(program.objective(Q)[1, 2], alone.objective(Q[1, 2])) < 1e-13
    assert float((program.gradient(Q)[1, 2] - alone.gradient(Q[1, 2])).abs().max()) < 1e-13
    assert program.objective(Q.float()).dtype == program.gradient(Q.float()).dtype == torch.float32
    assert Program([[1, 2]], "r^2").objective([[1, 0]]).dtype == torch.float64


def test_zero_update() -> None:
    """F(0) = 0 and ∇F(0) = −G, a subgradient where H'(0+) > 0."""
    G = normal(0, 3, 4)
    for H in (*CURVATURES.values(), Custom(lambda r: r**2 + r**3)):
        program = Program(G, H)
        assert float(program.objective(0 * G)) == 0.0
        assert torch.equal(program.gradient(0 * G), -G)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_walls(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """F is that of its finite part inside a wall and +∞ beyond; a Q on the wall but for its own rounding is on it."""
    G = normal(0, *shape)
    program, inside = Program(G, Power(3.0) + Wall(1.3)), Program(G, Power(3.0))
    U, _, Vh = torch.linalg.svd(normal(1, *shape), full_matrices=False)
    polar, eps = U @ Vh, torch.finfo(dtype).eps
    Q = (1.2 * polar).to(dtype)
    assert torch.equal(program.objective(Q), inside.objective(Q))
    assert torch.equal(program.gradient(Q), inside.gradient(Q))
    for length in (1.3 * (1 - eps), 1.3, 1.3 * (1 + eps / 4)):
        on = (length * polar).to(dtype)
        assert worst(program.objective(on).double(), inside.objective(1.3 * polar)) < 64 * eps
        assert bool(torch.isfinite(program.gradient(on)).all())
    beyond = torch.stack([Q, (1.6 * polar).to(dtype)])
    assert program.objective(beyond).isinf().tolist() == [False, True]
    with pytest.raises(InputError, match=r"‖Q‖₂ = 1\.(6|59).*wall\(1\.3\).*multiply Q by 0\.8"):
        program.gradient(beyond)


def test_no_value_by_rounding_is_below_the_optimum() -> None:
    """On a wall −Tr(QGᵀ) falls along G: a Q that exceeds it by rounding counts with a Q that does not."""
    G = torch.eye(4)
    program = Program(G, Wall(1.0))
    for over in (0.0, 1e-7, 1e-6, 5e-6):
        assert float(program.objective(((1 + over) * torch.eye(4)).double().float()).double()) >= -4.0
    assert math.isinf(float(program.objective((1 + 1e-4) * torch.eye(4))))


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("H", [Kink(1.0, 5.0), Power(2.0) + Kink(1.0, 0.5) + Wall(2.0)])
def test_the_gradient_at_a_kink_is_a_subgradient(H: Curvature, shape: tuple[int, int]) -> None:
    """F(Q + D) ≥ F(Q) + ⟨∇F(Q), D⟩ for Q with all singular values on the kink, near and far."""
    program = Program(normal(0, *shape), H)
    U, _, Vh = torch.linalg.svd(normal(1, *shape), full_matrices=False)
    for Q in (U @ Vh, torch.eye(*shape, dtype=torch.float64)):
        value, gradient = program.objective(Q), program.gradient(Q)
        for size in (1e-6, 1e-2, 1.0):
            for D in size * normal(2, 6, *shape):
                rise = float(program.objective(Q + D) - value - (gradient * D).sum())
                assert rise >= -1e-14 * float(program.G.norm())


def test_misfits() -> None:
    """An update of another shape, or with non-finite entries, is refused."""
    program = Program(torch.ones(2, 3), "r^2")
    for bad in (torch.ones(3, 2), torch.ones(3), torch.ones(2, 4)):
        with pytest.raises(InputError, match="shape"):
            program.objective(bad)
        with pytest.raises(InputError, match="shape"):
            program.gradient(bad)
    with pytest.raises(InputError, match="non-finite"):
        program.objective(tensor(math.nan, 0, 0, 0, 0, 0).view(2, 3))


def test_programs_are_values() -> None:
    """A program cannot be changed."""
    program = Program(torch.ones(2, 3), "r^2")
    with pytest.raises(AttributeError):
        program.G = torch.zeros(2, 3)  # type: ignore[misc]
    assert program.H.parts == (Power(2.0),)
