"""What products tell of the singular values, against torch's SVD."""

from __future__ import annotations

import pytest
import torch

from icm.errors import InputError
from icm.maps.statistics import spectrum
from tests.maps.spectra import spectra, with_spectrum

NAMES = list(spectra(8, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(40, 40), (40, 90), (90, 40), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-20])
def test_eigenvalues(name: str, shape: tuple[int, int], dtype: torch.dtype, scale: float, rng: torch.Generator) -> None:
    k = min(shape)
    G = (scale * with_spectrum(spectra(k, rng)[name], *shape, rng)).to(dtype)
    exact = torch.linalg.svdvals(G.double())
    found = spectrum(G, "eigvalsh")
    assert found.method == "eigvalsh"
    assert float(exact[0]) <= float(found.top) <= float(exact[0]) * (1 + 1e-4)
    away = (found.g.square() - exact.square()).abs() / found.top.square()
    assert float(away.max()) <= float(found.slack)
    assert bool((found.other >= exact * (1 - 1e-12)).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(48, 48), (48, 90), (90, 48), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moments(name: str, shape: tuple[int, int], dtype: torch.dtype, rng: torch.Generator) -> None:
    k = min(shape)
    G = (1e12 * with_spectrum(spectra(k, rng)[name], *shape, rng)).to(dtype)
    exact = torch.linalg.svdvals(G.double())
    found = spectrum(G, "moments")
    assert found.method == "moments"
    assert float(exact[0]) * (1 - 1e-12) <= float(found.top) <= 1.4 * float(exact[0])
    y = (exact / found.top).square()
    tau = torch.special.chebyshev_polynomial_t(2 * y[:, None] - 1, torch.arange(17)).sum(0)
    assert found.tau is not None
    assert bool(((found.tau - tau).abs() <= found.slack * k * (1 + torch.arange(17) ** 2)).all())
    # Single values are not known, their sums are: the first is ‖G‖_F², known to rounding.
    assert float(found.g.square().sum()) == pytest.approx(float(exact.square().sum()), rel=0.02)


def test_more_moments_say_more(rng: torch.Generator) -> None:
    G = torch.randn(200, 200, dtype=torch.float64, generator=rng)
    exact = torch.linalg.svdvals(G)
    away = [float((spectrum(G, "moments", count).g - exact).norm() / exact.norm()) for count in (4, 8, 32)]
    assert away[2] < away[0]
    assert away[2] < 0.01


@pytest.mark.parametrize("method", ["eigvalsh", "moments"])
def test_batches_are_single_ones_and_zeros_are_zero(method: str, rng: torch.Generator) -> None:
    G = torch.randn(2, 3, 6, 9, dtype=torch.float64, generator=rng)
    G[1, 2] = 0
    found = spectrum(G, method)  # type: ignore[arg-type]
    assert found.g.shape == (2, 3, 6)
    assert found.top.shape == (2, 3)
    assert torch.equal(found.g[1, 2], torch.zeros(6, dtype=torch.float64))
    assert float(found.top[1, 2]) == 0.0
    alone = spectrum(G[0, 1], method)  # type: ignore[arg-type]
    assert torch.allclose(alone.g, found.g[0, 1], rtol=1e-9, atol=1e-9)
    assert torch.equal(found[1].g, found.g[1])


def test_refusals(rng: torch.Generator) -> None:
    G = torch.randn(3, 3, generator=rng)
    with pytest.raises(InputError, match="at least 4"):
        spectrum(G, "moments", 2)
