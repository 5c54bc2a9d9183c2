"""Chebyshev moments are those of the eigenvalues, and what is read out of them is compatible with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev

from icm.maps.moments import chebyshev_moments, entries, majorant
from tests.maps.spectra import spectra, with_spectrum

COUNT = 16
NAMES = list(spectra(8, torch.Generator().manual_seed(0)))


def moments(g: torch.Tensor, count: int = COUNT) -> np.ndarray:
    """Σ T_j(2g² − 1) by NumPy's Chebyshev polynomials."""
    return chebyshev.chebvander(2 * g.numpy() ** 2 - 1, count).sum(0)


@pytest.mark.parametrize("count", [4, 5, 16, 17])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_moments_of_a_gram_matrix(count: int, dtype: torch.dtype, error: float, rng: torch.Generator) -> None:
    for name, g in spectra(30, rng).items():
        G = with_spectrum(g, 30, 50, rng)
        tau = chebyshev_moments((G @ G.mT).to(dtype)[None], count)
        assert tau.shape == (1, count + 1)
        assert tau.dtype == torch.float64
        assert np.abs(tau[0].numpy() - moments(g, count)).max() <= error * 30, name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 7, 256])
def test_entries_have_the_moments(name: str, k: int, rng: torch.Generator) -> None:
    g = 0.9 * spectra(k, rng)[name]
    y = entries(moments(g), k)
    assert y.shape == (k,)
    assert bool((np.diff(y) <= 0).all())
    assert y.min() >= 0
    assert y.max() <= 1
    found = chebyshev.chebvander(2 * y - 1, COUNT).sum(0)
    # Whole entries cannot have every sum of fractions; sums of smooth functions are what a solve needs.
    assert np.abs(found - moments(g)).max() <= 3e-3 * k
    for smooth in (np.sqrt, lambda v: np.log1p(5 * v), lambda v: v**2):
        assert smooth(y).sum() == pytest.approx(smooth(g.numpy() ** 2).sum(), rel=0.03, abs=2e-3 * k)


@pytest.mark.parametrize("name", NAMES)
def test_a_majorant_is_above_every_sum(name: str, rng: torch.Generator) -> None:
    """Σ e(g_i)² of the spectrum itself never exceeds the bound from its moments, for smooth, steep and peaked e."""
    k = 64
    places = np.linspace(0, 1, 513) ** 2
    for scale in (1.0, 0.85, 0.4):
        g = scale * spectra(k, rng)[name]
        for error in (lambda x: x, lambda x: 1 - x, lambda x: np.exp(-30 * x), lambda x: np.exp(-300 * (x - 0.5) ** 2)):
            fine = np.linspace(places[:-1], places[1:], 9)
            cells = (error(fine) ** 2).max(0)
            bound = majorant(cells, places[1:], moments(g))
            true = float((error(g.numpy()) ** 2).sum())
            assert true <= bound * (1 + 1e-6) + 1e-9
            assert bound <= k * cells.max() * (1 + 1e-9)


def test_a_majorant_uses_the_moments() -> None:
    """Nothing is near 0 in this spectrum, so an error that lives there costs next to nothing."""
    g = torch.linspace(0.7, 0.9, 50, dtype=torch.float64)
    places = np.linspace(0, 1, 513) ** 2
    assert majorant(np.exp(-20 * places), places, moments(g)) < 0.02 * 50
    assert majorant(np.zeros(513), places, moments(g)) == 0.0
