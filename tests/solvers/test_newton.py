"""Newton's method on the singular values: quadratic convergence, its Hessian model, and its stopping rule."""

from __future__ import annotations

import pytest
import torch

from icm import Exponential, Power, Status, solve
from icm.solvers.newton import Domain, Local, _low_rank, minimise, newton_step
from icm.sphere import expect
from tests.oracles import tensor, worst


def local(H, sigma: torch.Tensor, dim: int) -> Local:
    """f near σ, as the solver sees it, without a rank-one term."""
    e = expect(H, sigma, dim)
    return Local(
        e.value, e.slopes, e.stiffness, 4 / e.size, e.x, e.x.square(), e.weight, e.bend, torch.zeros_like(e.size)
    )


def hessian(H, sigma: torch.Tensor, dim: int) -> torch.Tensor:
    """The k × k Hessian from divided differences of the weights."""
    e = expect(H, sigma, dim)
    lam = e.x.square()
    gap = lam[:, None] - lam
    L = 0.5 * (e.weight[:, None] - e.weight) / gap.where(gap != 0, 1.0)
    L = L + torch.diag(0.5 * e.bend)
    return torch.diag(e.stiffness) + 4 * e.x[:, None] * L * e.x / e.size


@pytest.mark.parametrize("H", [Power(1.2), Power(2.39), Power(8.0), Exponential(2.0)])
def test_the_step_solves_the_newton_equation(H) -> None:
    """(∇²f) step = residual, with the columns chosen by pivoting standing for all of ∇²f: to 1e-6."""
    sigma = torch.linspace(1.0, 0.1, 12, dtype=torch.float64)
    residual = torch.linspace(-1, 1, 12, dtype=torch.float64)
    step = newton_step(local(H, sigma[None], 15), residual[None], None)[0]
    exact = torch.linalg.solve(hessian(H, sigma, 15), residual)
    assert float((step - exact).norm() / exact.norm()) < 1e-6


@pytest.mark.parametrize("H", [Power(1.2), Power(2.39), Power(8.0), Exponential(2.0)])
def test_few_columns_suffice(H) -> None:
    """X diag(signs) Xᵀ is the coupling of the Hessian to 1e-6 of its diagonal, equal singular values included."""
    sigma = torch.cat([torch.linspace(1.0, 0.1, 30), tensor(0.5, 0.5, 0.5)]).double()
    near = sigma + 1e-7 * torch.arange(33)
    here = local(H, near[None], 40)
    X, signs = _low_rank(here)
    assert X.shape[1] <= 20
    model = torch.einsum("rk,r,rl->kl", X[0], signs[0], X[0]) + torch.diag(here.diagonal[0])
    exact = hessian(H, near, 40)
    scale = here.diagonal[0].sqrt()
    assert float(((model - exact) / (scale[:, None] * scale)).abs().max()) < 1e-6


@pytest.mark.parametrize("p", [1.05, 1.5, 2.39, 6.0, 12.0])
@pytest.mark.parametrize("n", [1, 6, 50])
def test_a_handful_of_iterations(p: float, n: int) -> None:
    """Powers take at most 12 iterations at any exponent, spectrum and scale."""
    for g in (torch.ones(n), torch.logspace(0, -8, n), torch.cat([tensor(1e5), torch.ones(n - 1)])):
        solution = solve(torch.diag(1e5 * g.double()), Power(p), method="newton")
        assert solution.status is Status.OPTIMAL
        assert int(solution.iterations) <= 12


def test_a_quadratic_takes_one_step() -> None:
    """½⟨x, Ax⟩ − ⟨g, x⟩ with diagonal A is minimised at A⁻¹g at once."""
    A, g = tensor(1.0, 3.0, 10.0), tensor(1.0, 1.0, 5.0)

    def evaluate(x: torch.Tensor, low: torch.Tensor, rows: torch.Tensor) -> Local:
        zero = torch.zeros_like(x)
        value, one = 0.5 * (A * x * x).sum(-1), torch.ones(len(x)).double()
        return Local(value, A * x, A.expand_as(x), one, x, x.square(), zero, zero, zero[:, 0])

    found = minimise(evaluate, g[None], torch.ones(1, 3, dtype=torch.float64), Domain(tensor(10.0)), 1e-12, 50)
    assert worst(found.x[0], g / A) < 1e-14
    assert int(found.iterations[0]) == 1


def test_rows_stop_on_their_own() -> None:
    """A batch of easy and hard members reports each one's iterations, as alone."""
    G = torch.stack([torch.eye(4), torch.diag(torch.logspace(0, -6, 4)), torch.zeros(4, 4)]).double()
    together = solve(G, "r^9").iterations
    assert together.tolist() == [int(solve(one, "r^9").iterations) for one in G]
    assert together[0] < together[1]
    assert together[2] == 0
