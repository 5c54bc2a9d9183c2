"""A solve from a neighbour's φ is the solve from the start, and an answer that misses its gap is solved anew."""

from __future__ import annotations

import pytest
import torch

import icm
from icm.maps.scalar import ScalarMap, from_spectrum, sign
from icm.maps.warm import solve_near
from icm.solvers.spectrum import SpectralSolution, solve_spectrum


def cold(g: torch.Tensor, H: str) -> SpectralSolution:
    return solve_spectrum(g, 30, icm.parse(H), method="auto", tol=1e-9, max_iterations=100, outputs=30, largest=1e300)


@pytest.mark.parametrize(
    "H", ["r^3", "r^1.5", "r^2 + 4*r^4", "0.5*r^2 + 10*kink(1)", "0.5*r^2 + 3*kink(0.2) + wall(2)"]
)
def test_near_and_far_neighbours_lead_to_the_same(H: str, rng: torch.Generator) -> None:
    g = torch.rand(3, 30, dtype=torch.float64, generator=rng).sort(-1, descending=True).values
    wanted = cold(g, H)
    for factor in (1.05, 1.0, 1e-3, 1e3):
        near: list[ScalarMap | None] = [from_spectrum(row, factor * s) for row, s in zip(g, wanted.sigma, strict=True)]
        found = solve_near(g, 30, icm.parse(H), 1e-9, 30, 1e300, near)
        assert torch.allclose(found.sigma, wanted.sigma, rtol=1e-4)
        gain = (g * found.sigma).sum(-1)
        assert bool((found.gap <= 1e-9 * gain).all())
        assert torch.allclose(found.value, wanted.value, rtol=0, atol=2e-9 * float(gain.max()))


def test_where_there_is_no_neighbour(rng: torch.Generator) -> None:
    g = torch.rand(2, 30, dtype=torch.float64, generator=rng).sort(-1, descending=True).values
    neighbours: list[list[ScalarMap | None]] = [[None, None], [sign(), sign()], [None, sign()]]
    for near in neighbours:
        found = solve_near(g, 30, icm.parse("r^3"), 1e-9, 30, 1e300, near)
        assert torch.allclose(found.sigma, cold(g, "r^3").sigma, rtol=1e-6)


def test_unbounded_is_decided_first() -> None:
    g = torch.full((1, 4), 10.0, dtype=torch.float64)
    near: list[ScalarMap | None] = [from_spectrum(g[0], g[0])]
    found = solve_near(g, 4, icm.parse("r"), 1e-9, 4, 1e300, near)
    assert found.status == [icm.Status.UNBOUNDED]
