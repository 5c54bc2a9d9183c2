"""Newton's steps from a neighbour's φ end where the solve from nothing does, or say that they did not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import icm
from icm.maps.scalar import ScalarMap, from_spectrum, sign
from icm.maps.warm import Near, solve_near
from icm.solvers.spectrum import SpectralSolution, solve_spectrum

SHAPES = ["r^3", "r^1.5", "r^2 + 4*r^4", "0.5*r^2 + 10*kink(1)", "0.5*r^2 + 3*kink(0.2) + wall(2)"]


def cold(g: Tensor, H: str) -> SpectralSolution:
    return solve_spectrum(g, 30, icm.parse(H), method="auto", tol=1e-12, max_iterations=100, outputs=30, largest=1e300)


def spectra(rng: torch.Generator, count: int = 3) -> Tensor:
    return torch.rand(count, 30, dtype=torch.float64, generator=rng).sort(-1, descending=True).values


def from_neighbours(g: Tensor, other: Tensor, H: str, tol: float, drift: Tensor) -> Near:
    """Begun from the φ of g · drift."""
    before = (g * drift).sort(-1, descending=True).values
    near = [from_spectrum(row, sigma) for row, sigma in zip(before, cold(before, H).sigma, strict=True)]
    return solve_near(g, other, 30, icm.parse(H), tol, [*near])


@pytest.mark.parametrize("H", SHAPES)
@pytest.mark.parametrize("tol", [2e-2, 1e-4])
def test_what_may_be_missing_bounds_what_is(H: str, tol: float, rng: torch.Generator) -> None:
    g = spectra(rng, 8)
    drift = 1 + 0.1 * (torch.rand(30, dtype=torch.float64, generator=rng) - 0.5)
    found, wanted = from_neighbours(g, g, H, tol, drift), cold(g, H).sigma
    assert bool(found.found.any())
    missing = (found.sigma - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert bool((missing <= found.moved + 1e-9)[found.found].all())
    assert bool((found.moved <= 0.1 * tol)[found.found].all())


@pytest.mark.parametrize("H", SHAPES)
def test_the_other_spectrum_is_answered_to_first_order(H: str, rng: torch.Generator) -> None:
    g = spectra(rng)
    one = torch.ones(30, dtype=torch.float64)
    for small in (1e-3, 1e-4):
        other = g * (1 + small * torch.linspace(0, 1, 30, dtype=torch.float64))
        found, wanted = from_neighbours(g, other, H, 1e-9, one), cold(other, H).sigma
        assert bool(found.found.all())
        shift = (wanted - found.sigma).norm(dim=-1)
        assert bool(((found.other - wanted).norm(dim=-1) <= 0.1 * shift + 1e-9).all())


def test_a_neighbour_from_far_away_is_refused_or_still_right(rng: torch.Generator) -> None:
    g = spectra(rng)
    for H in SHAPES:
        for factor in (1e-3, 1e3):
            found, wanted = from_neighbours(g, g, H, 1e-2, torch.tensor(factor)), cold(g, H).sigma
            missing = (found.sigma - wanted).norm(dim=-1) / wanted.norm(dim=-1)
            assert bool((missing <= 1e-3)[found.found].all())


def test_nothing_is_found_without_a_neighbour_or_from_a_sign(rng: torch.Generator) -> None:
    g = spectra(rng, 2)
    neighbours: list[list[ScalarMap | None]] = [[None, None], [sign(), sign()], [None, sign()]]
    for near in neighbours:
        assert not bool(solve_near(g, g, 30, icm.parse("r^3"), 1e-2, near).found.any())


def test_one_without_a_neighbour_leaves_the_others_alone(rng: torch.Generator) -> None:
    g = spectra(rng, 2)
    wanted = cold(g, "r^3").sigma
    found = solve_near(g, g, 30, icm.parse("r^3"), 1e-6, [None, from_spectrum(g[1], wanted[1])])
    assert found.found.tolist() == [False, True]
    assert torch.allclose(found.sigma[1], wanted[1], rtol=1e-9)


def test_linear_growth_is_left_to_the_solver_that_decides_boundedness() -> None:
    g = torch.full((1, 4), 10.0, dtype=torch.float64)
    near: list[ScalarMap | None] = [from_spectrum(g[0], g[0])]
    assert not bool(solve_near(g, g, 4, icm.parse("r"), 1e-2, near).found.any())
