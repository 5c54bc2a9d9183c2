"""Solving without an SVD: the true error, against the exact path, stays within the reported one on every spectrum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import icm
from icm import Program, Solution, Status
from icm.errors import SolveError
from icm.maps.compiled import Compiled
from icm.maps.planning import Plan
from icm.maps.products import plan, solve_products
from icm.maps.scalar import sign
from tests.maps.spectra import spectra, with_spectrum

K = 32
NAMES = list(spectra(8, torch.Generator().manual_seed(0)))
CURVATURES = ["r^2 + r^4", "r^1.5", "0.5*r^2 + 1e4*kink(0.02)", "wall(1)"]


def exact(G: torch.Tensor, H: str) -> torch.Tensor:
    """Q*, float64, by Newton's method and an SVD."""
    return icm.solve(G.double(), H).Q


def away(Q: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((Q.double() - wanted).norm() / wanted.norm())


def reported(solution: Solution) -> Tensor:
    assert solution.error is not None
    return solution.error


def first(made: Plan) -> Compiled:
    """What was compiled for the first matrix."""
    assert made.compiled[0] is not None
    return made.compiled[0]


@pytest.mark.parametrize("statistics", ["eigvalsh", "moments"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("H", CURVATURES)
def test_the_true_error_is_within_the_reported_one(
    H: str, dtype: torch.dtype, statistics: str, rng: torch.Generator
) -> None:
    """Spectra below any lower end, rank-deficient, of condition 1e8, of one and of two sizes; at every precision."""
    for name, g in spectra(K, rng).items():
        for shape in ((K, K),) if statistics == "moments" else ((2 * K, K),):
            G = with_spectrum(g / g.sum(), *shape, rng).to(dtype)
            wanted = exact(G, H)
            solution = solve_products(Program(G, H), tol=2e-2, statistics=statistics)  # type: ignore[arg-type]
            assert away(solution.Q, wanted) <= float(reported(solution)), (name, shape)
            assert solution.Q.dtype == dtype
            answered = solution.status is Status.OPTIMAL
            assert answered == (float(reported(solution)) <= 2e-2), (name, shape)


@pytest.mark.parametrize(
    ("H", "name"),
    [
        *((H, name) for H in ("r^3", "r^2 + r^4") for name in ("gaussian", "1/i", "outlier", "two levels", "flat")),
        *(("0.5*r^2 + 1e4*kink(0.02)", name) for name in ("gaussian", "outlier", "two levels", "flat")),
    ],
)
def test_one_in_ten_thousand_in_float32(H: str, name: str, rng: torch.Generator) -> None:
    g = spectra(K, rng)[name]
    G = with_spectrum(g / g.sum(), K, K, rng).float()
    solution = icm.solve(G, H, method="products")
    assert solution.status is Status.OPTIMAL
    assert away(solution.Q, exact(G, H)) <= 1e-4
    assert float(reported(solution)) <= 1e-4


@pytest.mark.parametrize("scale", [1e60, 1e39, 1e-60])
@pytest.mark.parametrize("H", ["r^2", "r^3", "wall(1)"])
def test_scales_beyond_float32(H: str, scale: float, rng: torch.Generator) -> None:
    G = scale * torch.randn(6, 8, dtype=torch.float64, generator=rng)
    solution = icm.solve(G, H, method="products")
    assert away(solution.Q, exact(G, H)) <= float(reported(solution)) <= 1e-4


@pytest.mark.parametrize("name", ["condition 1e8", "1/i", "gaussian", "rank one"])
@pytest.mark.parametrize("H", ["r^4", "r^6", "0.5*r^2 + 1e4*kink(0.02)"])
@pytest.mark.parametrize("k", [4, 16])
def test_steep_maps_of_few_singular_values_in_16_bits(H: str, name: str, k: int, rng: torch.Generator) -> None:
    """Where rounding is concentrated in few entries, and where factors of high degree would round most."""
    for tol in (2e-2, 5e-2):
        for dtype in (torch.float32, torch.bfloat16):
            G = with_spectrum(spectra(k, rng)[name] * 100, k, k, rng).to(dtype)
            solution = icm.solve(G, H, method="products", tol=tol, on_failure="return")
            assert away(solution.Q, exact(G, H)) <= float(reported(solution)), (tol, dtype)


def test_equal_entries_round_alike() -> None:
    for c in (1.0, 0.37, 123.4):
        G = torch.full((8, 8), c, dtype=torch.bfloat16)
        solution = icm.solve(G, "r^3", method="products", on_failure="return")
        assert away(solution.Q, exact(G, "r^3")) <= float(reported(solution))


def test_under_a_wall_what_is_brought_inside_has_the_value(rng: torch.Generator) -> None:
    G = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    for tol in (1e-2, 1e-4):
        solution = icm.solve(G, "0.1*r^2 + kink(1) + wall(1.2)", method="products", tol=tol)
        F = float(Program(G, solution.curvature).objective(solution.Q / (1 + float(reported(solution)))))
        best = float(icm.solve(G, solution.curvature).value)
        assert F - best <= float(solution.gap)
        assert float(solution.value) >= best - 1e-12


@pytest.mark.parametrize("scale", [1e20, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("H", ["r^3", "wall(1)"])
def test_scale(H: str, dtype: torch.dtype, scale: float, rng: torch.Generator) -> None:
    G = (scale * torch.randn(20, 30, dtype=torch.float64, generator=rng)).to(dtype)
    solution = icm.solve(G, H, method="products", tol=2e-2)
    assert away(solution.Q, exact(G, H)) <= float(reported(solution)) <= 2e-2


def test_zero(rng: torch.Generator) -> None:
    G = torch.randn(3, 6, 5, generator=rng)
    G[1] = 0
    solution = icm.solve(G, "r^3", method="products")
    assert torch.equal(solution.Q[1], torch.zeros(6, 5))
    assert float(reported(solution)[1]) == 0.0
    assert solution.statuses == (Status.OPTIMAL,) * 3
    assert away(solution.Q[2], exact(G[2], "r^3")) <= float(reported(solution)[2])


def test_a_batch_is_its_elements(rng: torch.Generator) -> None:
    G = torch.randn(2, 3, 12, 20, dtype=torch.float64, generator=rng)
    solution = icm.solve(G, "r^2 + r^4", method="products")
    assert solution.Q.shape == G.shape
    assert reported(solution).shape == (2, 3)
    alone = icm.solve(G[1, 2], "r^2 + r^4", method="products")
    assert torch.allclose(solution.Q[1, 2], alone.Q, rtol=1e-6, atol=1e-9)


def test_what_the_solution_says(rng: torch.Generator) -> None:
    """value is F(Q), sigma are Q's singular values, gain is ⟨G, Q⟩, and gap bounds what is left, by the exact path."""
    G = torch.randn(30, 40, dtype=torch.float64, generator=rng)
    for H in ("r^2 + r^4", "0.5*r^2 + 100*kink(1)"):
        products, newton = icm.solve(G, H, method="products"), icm.solve(G, H)
        assert products.method == "products"
        assert torch.allclose(products.sigma, torch.linalg.svdvals(products.Q), rtol=1e-4)
        assert torch.allclose(products.g, newton.g, rtol=1e-9)
        assert math.isclose(float(products.gain), float((G * products.Q).sum()), rel_tol=1e-12)
        F = float(Program(G, H).objective(products.Q))
        assert math.isclose(F, float(products.value), rel_tol=1e-6)
        assert F - float(newton.value) <= float(products.gap)


def test_the_precision_is_the_cheapest_that_will_do(rng: torch.Generator) -> None:
    G = torch.randn(1, 32, 32, generator=rng)
    used = [first(plan(G, icm.parse("r^3"), tol)).precision for tol in (3e-2, 1e-4)]
    assert used == ["bf16", "fp32"]
    assert first(plan(G.double(), icm.parse("r^3"), 1e-9)).precision == "fp64"


def test_a_neighbour_is_where_the_next_fit_begins(rng: torch.Generator) -> None:
    G = torch.randn(1, 32, 32, generator=rng)
    H = icm.parse("r^2 + 50*r^4")
    before = plan(G, H, 1e-3)
    second = plan(1.01 * G, H, 1e-3, previous=before.compiled)
    assert len(first(second).composition) == len(first(before).composition)
    assert first(second).error.total <= 1e-3


def test_a_missed_tol_raises_with_the_solution_inside(rng: torch.Generator) -> None:
    """The polar factor of singular values that float32 does not tell from 0 is not to be had by products."""
    g = torch.logspace(0, -12, 24, dtype=torch.float64)
    G = with_spectrum(g, 24, 24, rng).float()
    with pytest.raises(SolveError, match=r"relative error of Q.*method='newton'") as caught:
        icm.solve(G, "wall(1)", method="products")
    best = icm.solve(G, "wall(1)", method="products", on_failure="return")
    assert best.status is Status.STALLED
    assert torch.equal(caught.value.solution.Q, best.Q)
    assert away(best.Q, exact(G, "wall(1)")) <= float(reported(best))


def test_unbounded_and_below_the_threshold(rng: torch.Generator) -> None:
    G = torch.eye(4, dtype=torch.float64)
    unbounded = icm.solve(10 * G, "r", method="products")
    assert unbounded.status is Status.UNBOUNDED
    assert bool(unbounded.Q.isnan().all())
    small = icm.solve(1e-3 * G, "r + r^2", method="products")
    assert torch.equal(small.Q, torch.zeros_like(G))
    assert small.status is Status.OPTIMAL


def test_it_has_no_derivative(rng: torch.Generator) -> None:
    G = torch.randn(3, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    with pytest.raises(icm.errors.InputError, match="not differentiable"):
        icm.solve(G, "r^3", method="products")


def test_a_wrong_map_is_seen(rng: torch.Generator) -> None:
    """The checker of this file is no rubber stamp: with another φ the true error exceeds the one reported."""
    G = torch.randn(1, 20, 20, dtype=torch.float64, generator=rng)
    made = plan(G, icm.parse("r^2 + r^4"), 1e-3)
    wrong = first(made).composition.rescaled(outside=1.01)
    object.__setattr__(first(made), "composition", wrong)
    assert away(made(G)[0], exact(G[0], "r^2 + r^4")) > first(made).error.total
    assert sign()(0.5) == 1.0


@pytest.mark.gpu
@pytest.mark.parametrize("H", ["r^3", "0.5*r^2 + 100*kink(0.1)"])
def test_on_a_gpu(H: str, rng: torch.Generator) -> None:
    G = torch.randn(4, 64, 96, generator=rng).cuda()
    solution = icm.solve(G, H, method="products", tol=2e-2)
    wanted = exact(G.cpu(), H)
    for i in range(4):
        assert away(solution.Q[i].cpu(), wanted[i]) <= float(reported(solution)[i])
