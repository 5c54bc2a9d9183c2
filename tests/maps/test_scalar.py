"""φ out of a solution goes through it, in order, and what cannot be a φ is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator

import icm
from icm.errors import InputError
from icm.maps.scalar import Curve, ScalarMap, monotone_cubic, sign


@pytest.mark.parametrize("H", ["r^2", "r^3", "r^1.5", "r^2 + 5*r^4", "0.5*r^2 + 10*kink(1)", "exp(2)"])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (1, 5)])
def test_through_the_solution(H: str, shape: tuple[int, int], rng: torch.Generator) -> None:
    solution = icm.solve(torch.randn(*shape, dtype=torch.float64, generator=rng), H)
    phi = ScalarMap.from_solution(solution)
    assert torch.allclose(phi(solution.g), solution.sigma, rtol=1e-12, atol=0)
    assert phi.top == float(solution.g[0])
    x = torch.linspace(-phi.top, phi.top, 1001, dtype=torch.float64)
    assert bool((phi(x).diff() >= -1e-14 * phi(x).abs().max()).all())
    assert torch.equal(phi(-x), -phi(x))
    assert float(phi(0.0)) == 0.0


def test_between_the_singular_values_it_is_the_map_of_the_program(rng: torch.Generator) -> None:
    """For r² + r⁴, σ³ + D σ = c g at every g, with the D and c of the spectrum: φ, known at 40, has the others."""
    solution = icm.solve(torch.randn(40, 40, dtype=torch.float64, generator=rng), "r^2 + 20*r^4")
    phi, s, g = ScalarMap.from_solution(solution), solution.sigma, solution.g
    # c g = s³ + D s at two singular values gives c and D.
    A = torch.stack([g[[0, -10]], -s[[0, -10]]], 1)
    c, D = torch.linalg.solve(A, s[[0, -10]] ** 3)
    between = (g[:-10] + g[1:-9]) / 2
    assert torch.allclose(phi(between) ** 3 + D * phi(between), c * between, rtol=1e-4, atol=0)


def test_of_an_orthogonal_answer_it_is_a_multiple_of_the_sign(rng: torch.Generator) -> None:
    phi = ScalarMap.from_solution(icm.solve(torch.randn(5, 8, dtype=torch.float64, generator=rng), "wall(2)"))
    assert phi([-1e-9, 0.0, 1e-9, phi.top]).tolist() == pytest.approx([-2.0, 0.0, 2.0, 2.0])


def test_many_singular_values_are_thinned(rng: torch.Generator) -> None:
    solution = icm.solve(torch.randn(1500, 1500, dtype=torch.float64, generator=rng), "r^3")
    phi = ScalarMap.from_solution(solution)
    assert torch.allclose(phi(solution.g), solution.sigma, rtol=1e-7, atol=0)


def test_the_sign() -> None:
    assert sign()([-0.3, 0.0, 1.0]).tolist() == [-1.0, 0.0, 1.0]
    assert sign().scaling == "invariant"
    assert "sign" in repr(sign())


@pytest.mark.parametrize("top", [0.0, -1.0, math.inf, math.nan, "1"])
def test_a_range_that_is_none(top: object) -> None:
    with pytest.raises(Exception, match="top"):
        ScalarMap(lambda x: x, top=top)  # type: ignore[arg-type]


def test_what_is_no_map() -> None:
    with pytest.raises(InputError, match="falls from"):
        ScalarMap(lambda x: torch.sin(3 * x))
    with pytest.raises(InputError, match="finite"):
        ScalarMap(lambda x: x - 0.5)
    with pytest.raises(Exception, match="scaling"):
        ScalarMap(lambda x: x, scaling="relative")  # type: ignore[arg-type]


def test_solutions_that_are_no_map(rng: torch.Generator) -> None:
    with pytest.raises(InputError, match="batch"):
        ScalarMap.from_solution(icm.solve(torch.randn(2, 3, 3, dtype=torch.float64, generator=rng), "r^2"))
    with pytest.raises(InputError, match="Q = 0"):
        ScalarMap.from_solution(icm.solve(torch.zeros(3, 3, dtype=torch.float64), "r^2"))
    with pytest.raises(InputError, match="unbounded"):
        ScalarMap.from_solution(icm.solve(10 * torch.eye(3, dtype=torch.float64), "r"))


def test_the_cubic_between_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 4, 48, 256):
        for level in (False, True):  # stretches where y stays as it is
            x = np.cumsum(random.exponential(size=count) ** 3 + 1e-9)
            y = np.cumsum(random.exponential(size=count) ** 3 * ((random.random(count) > 0.3) | (not level)))
            places = np.linspace(x[0], x[-1], 999)
            wanted, found = PchipInterpolator(x, y), monotone_cubic(x, y)
            np.testing.assert_allclose(found(places), wanted(places), rtol=0, atol=1e-12 * y[-1])
            np.testing.assert_allclose(found(x[-1], 1), wanted(x[-1], 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0, 2.0], [2.0, 1.0]), ([2.0, 1.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0, math.nan])],
)
def test_a_curve_that_does_not_increase_is_none(x: list[float], y: list[float]) -> None:
    with pytest.raises(InputError, match="φ increases"):
        Curve(torch.tensor(x).double(), torch.tensor(y).double())
