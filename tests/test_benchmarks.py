"""The project's bars on their full grids, minutes rather than seconds; a small grid of each runs every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import icm
from benchmarks import exactness, solutions
from icm.sphere import expect


def test_gaps_of_small_dimensions() -> None:
    """gap ≤ 1e−10 |value| for every spectrum and exponent > 1, n ≤ 8."""
    rows = list(solutions.gaps((1, 2, 3, 8)))
    assert len(rows) == 36
    assert [row for row in rows if not row["ok"]] == []


def test_concentration() -> None:
    """n = 1024, H = r³: R spreads by about α/srank over a Marchenko–Pastur spectrum, so Q* is G to 1 − cos of 5e−7."""
    generator = torch.Generator().manual_seed(0)
    n, G = 1024, torch.randn(1024, 1024, generator=generator, dtype=torch.float64)
    solution = icm.solve(G, "r^3")
    e = expect(icm.Power(3.0), solution.sigma, n)
    lam = solution.sigma.square()
    stable_rank = float(lam.sum() / lam[0])
    spread = float(e.weight[0] / e.weight[-1] - 1)
    assert spread == pytest.approx(1 / stable_rank, rel=0.01)
    cosine = float((solution.sigma @ solution.g) / (solution.sigma.norm() * solution.g.norm()))
    assert 4e-7 < 1 - cosine < 6e-7


@pytest.mark.long
def test_exactness_on_the_full_grid(tmp_path: Path) -> None:
    """mean and slopes within 1e−12 of 50 digits (5e−12 at n = 4096) for every n, exponent and spectrum."""
    assert exactness.main(tmp_path / "exactness.json", quick=False) == 0


@pytest.mark.long
@pytest.mark.parametrize("part", ["gaps", "matrices", "reference", "alignment", "invariance"])
def test_solutions_on_the_full_grid(part: str) -> None:
    """Every row of the benchmark `solutions` inside its bar."""
    rows = list(getattr(solutions, part)())
    assert rows
    assert [row for row in rows if not row["ok"]] == []
