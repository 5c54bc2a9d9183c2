"""The polar factor by four or five quintics: near U Vᵀ from an SVD, nearer than what is published, on any spectrum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from icm.errors import DtypeError
from icm.maps import apply, known, orthogonalize

SPECTRA = ("normal", "1e1", "1e2", "1e3", "1e5", "1/i", "spike", "rank")


def matrix(name: str, m: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """G with that spectrum, U Vᵀ on its range and g."""
    generator = torch.Generator().manual_seed(seed)
    U, g, Vh = torch.linalg.svd(torch.randn(m, n, generator=generator, dtype=torch.float64), full_matrices=False)
    k = min(m, n)
    if name == "1/i":
        g = 1 / torch.arange(1, k + 1, dtype=torch.float64)
    elif name.startswith("1e"):
        g = torch.logspace(0, -math.log10(float(name)), k, dtype=torch.float64)
    elif name == "spike":
        g[0] *= 10
    elif name == "rank":
        g[k // 4 :] = 0
    return (U * g) @ Vh, (U * (g > 0)) @ Vh, g


def far(Q: Tensor, P: Tensor) -> float:
    return float((Q.double() - P).norm() / P.norm())


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("m", "n"), [(96, 96), (64, 200), (200, 64)])
def test_is_as_near_to_the_polar_factor_as_five_published_steps(name, m, n):
    G, P, _ = matrix(name, m, n)
    published = known("polar-express")
    waves = float((published(torch.linspace(0.01, 1, 9901, dtype=torch.float64)) - 1).abs().max())  # of p about 1
    # Where the smallest are lifted less it may be 8 % farther; otherwise it is chance where on the waves the g lie.
    assert far(orthogonalize(G), P) <= max(1.08 * far(apply(published, G), P), waves)


@pytest.mark.parametrize("name", SPECTRA[:-1])
def test_is_nearer_than_torch_optim_muon_in_bfloat16(name):
    G, P, _ = matrix(name, 128, 256)
    theirs = _zeropower_via_newtonschulz(G.float(), (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert far(orthogonalize(G.float(), precision="bf16"), P) < far(theirs, P)


@pytest.mark.parametrize("name", ["normal", "1/i"])
def test_singular_vectors_are_kept(name):
    G = matrix(name, 40, 60)[0]
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    inner = U.T @ orthogonalize(G) @ Vh.T
    assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-12)
    assert bool((inner.diagonal() > 0).all())
    assert bool((inner.diagonal() < 1.2).all())


@pytest.mark.parametrize("name", ["normal", "1/i"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_size_changes_nothing(name, dtype, size):
    G = matrix(name, 48, 64)[0].to(dtype)
    unit = 2.0 ** round(math.log2(size))  # exact, so that the digits of G are the same
    bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]  # of the products' rounding
    assert far(orthogonalize(G * unit), orthogonalize(G).double()) < bound


def test_a_stack_is_treated_as_its_matrices_are():
    names = ("normal", "1/i", "1e3", "normal")
    stack = torch.stack([matrix(name, 32, 48, seed=i)[0] for i, name in enumerate(names)])
    each = torch.stack([orthogonalize(G) for G in stack])
    # One that needs five steps makes all of its stack take them: as near, not the same.
    P = torch.stack([matrix(name, 32, 48, seed=i)[1] for i, name in enumerate(names)])
    for i in range(len(names)):
        assert far(orthogonalize(stack)[i], P[i]) <= 1.15 * far(each[i], P[i])
    assert torch.allclose(orthogonalize(stack[[0, 3]]), each[[0, 3]], atol=1e-12)


def test_zero_stays_zero_and_nan_stays_with_its_matrix():
    G = torch.stack([torch.zeros(16, 24), matrix("normal", 16, 24)[0].float(), torch.full((16, 24), math.nan)])
    Q = orthogonalize(G)
    assert bool((Q[0] == 0).all())
    assert bool(torch.isfinite(Q[1]).all())
    assert bool(Q[2].isnan().all())
    assert bool((orthogonalize(torch.zeros(16, 24)) == 0).all())


def test_refuses_number_types_that_it_does_not_know():
    with pytest.raises(DtypeError, match="float8"):
        orthogonalize(torch.ones(3, 3).to(torch.float8_e4m3fn))
