"""Maps on matrices, against torch's SVD."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from icm.errors import InputError
from icm.maps.composition import Composition
from icm.maps.map import PolynomialMap, frobenius
from icm.maps.norm_bounds import leading, probe
from icm.maps.scalar import ScalarMap, Scaling

P = Composition(((1.9, -1.2, 0.4), (1.4, -0.3)))
SHAPES = [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (1, 1), (3, 6, 4), (2, 3, 4, 9)]


def made(scaling: Scaling, top: float = 1.0) -> PolynomialMap:
    """p itself as φ: then map(G) = U φ(g) Vᵀ up to rounding."""
    return PolynomialMap(P, ScalarMap(lambda x: P(x / top), top, scaling, "p"), 1e-3)


def applied(function, G: Tensor) -> Tensor:
    U, g, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return (U * function(g)[..., None, :]) @ Vh


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("top", [1.0, 5.0])
def test_each_scaling_is_what_its_formula_says(shape: tuple[int, ...], top: float, rng: torch.Generator) -> None:
    """U p(g/s) Vᵀ, s = ‖G‖_F or the top, times s/top for the equivariant one: to 1e-13 of the size."""
    G = torch.randn(shape, dtype=torch.float64, generator=rng)
    G = 0.9 * top * G / torch.linalg.matrix_norm(G, 2)[..., None, None]
    size = torch.linalg.matrix_norm(G)[..., None]
    wanted = {
        "absolute": applied(lambda g: P(g / top), G),
        "invariant": applied(lambda g: P(g / size), G),
        "equivariant": applied(lambda g: P(g / size) * size / top, G),
    }
    for scaling, Q in wanted.items():
        found = made(scaling, top)(G)  # pyright: ignore[reportArgumentType]
        assert found.shape == G.shape
        assert float((found - Q).abs().max()) < 1e-13 * float(Q.abs().max() + 1)


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_scale_is_undone(factor: float, rng: torch.Generator) -> None:
    """map(cG) is map(G) for the invariant map, c·map(G) for the equivariant one; map(−G) = −map(G)."""
    G = torch.randn(6, 4, dtype=torch.float64, generator=rng)
    once = made("invariant")(G)
    assert float((made("invariant")(factor * G) - once).abs().max()) < 1e-13
    once = made("equivariant")(G)
    assert float((made("equivariant")(-factor * G) / factor + once).abs().max()) < 1e-13 * float(once.abs().max())


@pytest.mark.parametrize("scaling", ["absolute", "invariant", "equivariant"])
def test_zero_views_and_batches(scaling: Scaling, rng: torch.Generator) -> None:
    """0 goes to 0, alone and inside a batch; transposed, strided and expanded views as their copies."""
    map = made(scaling, 10.0)
    assert not map(torch.zeros(3, 5)).any()
    G = torch.randn(4, 6, 8, dtype=torch.float64, generator=rng)
    G[1] = 0
    together = map(G)
    assert not together[1].any()
    for k in range(4):
        assert float((together[k] - map(G[k])).abs().max()) < 1e-13
    for view in (G.mT, G[:, ::2], G[..., 1::3], G[0].expand(3, 6, 8)):
        assert float((map(view) - map(view.contiguous())).abs().max()) < 1e-13
    assert float((map(G.mT) - together.mT).abs().max()) < 1e-13
    assert map(G[:0]).shape == (0, 6, 8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize("scaling", ["absolute", "invariant", "equivariant"])
def test_every_dtype(scaling: Scaling, dtype: torch.dtype, tolerance: float, rng: torch.Generator) -> None:
    """G's dtype comes back, within a few of its roundings; a precision can be named at the call or kept."""
    G = torch.randn(12, 20, generator=rng).to(dtype)
    map = made(scaling, 12.0)
    exact = map(G.double())
    found = map(G)
    assert found.dtype == dtype
    assert float((found.double() - exact).norm() / exact.norm()) < tolerance
    kept = map.with_precision("fp64")
    assert torch.equal(kept(G), map(G, precision="fp64"))
    assert float((kept(G).double() - exact).norm() / exact.norm()) < min(tolerance, 0.005)


def test_an_absolute_map_refuses_what_lies_beyond_its_top(rng: torch.Generator) -> None:
    """‖G‖₂ 1.001 top is refused and both named, top itself is not; unless no check is wanted."""
    for shape in ((30, 20), (1, 9), (2, 8, 8)):
        G = torch.randn(shape, dtype=torch.float64, generator=rng)
        G = G / torch.linalg.matrix_norm(G, 2)[..., None, None]
        U, g, Vh = torch.linalg.svd(G, full_matrices=False)
        g = g / (1 + torch.arange(g.shape[-1]))  # one that leads, which four power iterations find
        G = (U * g[..., None, :]) @ Vh
        map = made("absolute", 2.0)
        map(2 * G)
        map((2 * G).to(torch.bfloat16))
        with pytest.raises(InputError, match=r"‖G‖₂ ≥ 2\.0.* top=2 "):
            map(2.01 * G)
        assert map(2.01 * G, check=False).isfinite().all()


def test_bounds_of_the_norm(rng: torch.Generator) -> None:
    """probe ≤ ‖G‖₂ ≤ frobenius, to rounding, at any size; equal for rank one; 0 for 0."""
    for size in (1e-30, 1.0, 1e30):
        for shape in ((5, 9), (40, 3), (3, 6, 6)):
            G = (size * torch.randn(shape, dtype=torch.float64, generator=rng)).float()
            exact = torch.linalg.matrix_norm(G.double(), 2)
            assert bool((probe(G, leading(G))[0] <= exact * (1 + 1e-6)).all())
            assert bool((probe(G, leading(G))[0] >= 0.8 * exact).all())
            assert bool((frobenius(G).double() >= exact).all())
    rank = torch.outer(torch.arange(1.0, 5), torch.arange(2.0, 9)).double()
    assert float(probe(rank, leading(rank))[0]) == pytest.approx(float(frobenius(rank)))
    assert float(frobenius(torch.zeros(3, 4))) == 0
    assert float(probe(torch.zeros(3, 4), torch.ones(4, 1))[0]) == 0


def test_scalar_and_text() -> None:
    """p in φ's units; degrees, products and the certificate in the table."""
    map = made("absolute", 4.0)
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    assert float((map.scalar(x) - map.phi(x)).abs().max()) < 1e-15
    assert map.products == 5
    assert "5 products" in str(map)
    table = map.table()
    assert "degree 5" in table
    assert "proved" in table
    assert map.certificate.error[1] < 1e-3
    assert map.certificate is map.certificate


def test_text_that_gives_the_map_back() -> None:
    """to_json and back: the same composition, lower and precision; damage and another φ are refused."""
    map = made("absolute", 4.0).with_precision("bf16")
    back = PolynomialMap.from_json(map.to_json(), map.phi)
    assert (back.composition, back.lower, back.precision) == (map.composition, map.lower, map.precision)
    with pytest.raises(InputError, match="top=4, absolute"):
        PolynomialMap.from_json(map.to_json(), made("absolute", 3.0).phi)
    damaged = {**json.loads(map.to_json()), "composition": "{}"}
    for text in ("", "[]", map.to_json()[:-20], json.dumps(damaged)):
        with pytest.raises(InputError, match="no map"):
            PolynomialMap.from_json(text, map.phi)
