"""Bounds of ‖G‖₂ against the SVD in float64, on matrices made to break them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.norm_bounds import bound, leading, lower_bound, power_of_two, probe, shrinkage

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def norm(G: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(G.double(), 2)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def adversaries() -> dict[str, Tensor]:
    """Equality in the bounds, rounding in one direction only, cancellation, flat and spiked spectra."""
    orthogonal = torch.linalg.qr(normal(0, 96, 96)).Q
    third = torch.full((64, 300), 1 / 3, dtype=torch.float64)
    spiked = orthogonal * torch.cat([torch.tensor([1.0]), torch.full((95,), 1e-9)]).double()
    return {
        "one entry": torch.zeros(9, 7, dtype=torch.float64).index_put(
            (torch.tensor(3), torch.tensor(5)), torch.tensor(0.7).double()
        ),
        "constant": third,
        "identity": torch.eye(50, dtype=torch.float64),
        "orthogonal": orthogonal,
        "rank one": normal(1, 80, 1) @ normal(2, 1, 130),
        "spiked": spiked,
        "signs": (third[:, :64].new_tensor([[(-1.0) ** bin(i & j).count("1") for j in range(64)] for i in range(64)])),
        "normal": normal(3, 200, 90),
        "just below one": torch.full((33, 65), 1 - 2.0**-24, dtype=torch.float64),
        "row": normal(4, 1, 257),
        "mixed sizes": normal(5, 40, 60) * torch.logspace(0, -18, 60, dtype=torch.float64),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", adversaries())
def test_both_sides(name: str, dtype: torch.dtype) -> None:
    G = adversaries()[name].to(dtype)
    exact = float(norm(G)) if G.dtype != torch.float64 else None
    slack = 0.0
    if exact is None:  # then the SVD itself is no better than its rounding
        exact, slack = float(norm(G)), 1e-14 * float(norm(G))
    slack += 1e-15 * exact
    uppers = [float(bound(G, products)) for products in range(6)]
    assert all(upper >= exact - slack for upper in uppers)
    assert float(lower_bound(G)) <= exact + slack
    assert uppers[0] <= float(torch.linalg.matrix_norm(G.double())) * (1 + 1e-4)
    assert uppers[5] <= 1.2 * exact
    assert float(lower_bound(G, steps=30)) >= 0.8 * exact
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in itertools.pairwise(uppers))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(1, 1), (1, 6), (6, 1), (5, 9), (3, 2, 8, 4)]),
    size=st.sampled_from([1.0, 1e-30, 1e30, 1e-44, 3e37, 1e-7]),
    products=st.integers(0, 5),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_size(seed: int, shape: tuple[int, ...], size: float, products: int, dtype: torch.dtype) -> None:
    G = (normal(seed, *shape) * size).to(dtype)
    exact = norm(G)
    above, below = bound(G, products), lower_bound(G)
    assert above.shape == below.shape == shape[:-2]
    assert bool((above.double() >= exact * (1 - 1e-14)).all())
    assert bool((below.double() <= exact * (1 + 1e-14)).all())
    if size > 1e-40:
        assert bool((above.double() <= exact * min(shape[-2:]) ** 0.5 * (1 + 1e-4)).all())


def test_float64_range() -> None:
    for size in (1e150, 1e-150, 1e300, 1e-300):
        G = normal(8, 4, 12, 20) * size
        exact = norm(G / size)
        assert bool((bound(G, 4) / size >= exact * (1 - 1e-14)).all())
        assert bool((bound(G, 4) / size <= 1.2 * exact).all())


@pytest.mark.parametrize("size", [1e-35, 1e-6, 1.0, 1e6, 1e35])
def test_a_probe_of_a_few_steps_comes_near_the_norm_from_below_whatever_its_size(size: float) -> None:
    for seed, shape in enumerate([(1, 1), (30, 50), (50, 30), (4, 20, 25)]):
        G = normal(seed, *shape).float()
        largest = norm(G.double())
        found, v = probe(G * size, leading(G * size), 12)
        assert bool((found <= size * largest * (1 + 1e-5)).all())
        assert bool((found > 0.97 * size * largest).all())
        once = leading(G * size)
        for _ in range(3):
            _, once = probe(G * size, once)
        torch.testing.assert_close(once, probe(G * size, leading(G * size), 3)[1])
        assert bool((v.abs().amax((-2, -1)) < 2).all())
    assert bool(probe(torch.full((3, 4), torch.nan), torch.ones(4, 1))[0].isnan())


def test_what_the_docstring_says() -> None:
    """k equal singular values in general position: without products √k too large, then k^{1/4p} for p = 1, 2, 4."""
    k = 64
    G = torch.linalg.qr(normal(0, 300, k)).Q @ torch.linalg.qr(normal(1, 300, k)).Q.mT
    for products, factor in enumerate([k**0.5, k**0.25, k**0.125, k**0.0625]):
        assert 0.9 * factor < float(bound(G, products)) < factor * (1 + 1e-9)  # row sums may do a little better


def test_zeros_and_numbers_that_are_none() -> None:
    G = normal(3, 3, 4, 5)
    G[1] = 0
    for products in range(4):
        assert float(bound(G, products)[1]) == 0
    assert float(lower_bound(G)[1]) == 0
    G[2, 0, 0] = torch.nan
    assert bool(bound(G, 2)[2].isnan())


def test_powers_of_two() -> None:
    for dtype, reach in ((torch.float32, 126), (torch.float64, 1022)):
        exponents = torch.arange(-reach, reach + 1, dtype=dtype)
        assert power_of_two(exponents).tolist() == [2.0**k for k in range(-reach, reach + 1)]
    G = normal(1, 5, 3, 3) * torch.tensor([1e-20, 1e-3, 1.0, 77.0, 1e20]).double()[:, None, None]
    top = (G * shrinkage(G, torch.float64)).abs().amax((-2, -1))
    assert bool(((top >= 0.5) & (top < 1)).all())


def test_the_start_is_the_same_every_time() -> None:
    G = normal(2, 30, 40)
    assert torch.equal(lower_bound(G, 2), lower_bound(G, 2))
    assert not torch.equal(lower_bound(G, 2), lower_bound(G, 2, seed=1))


def test_meta_a_bound_without_widening_fails() -> None:
    """Where every rounding of a float32 product goes down, its plain norm lies below ‖G‖₂; the widened one must not."""
    G = torch.full((2, 4096), 1 / 3, dtype=torch.float32)
    candidates = [G * (1 + k * 2.0**-12) for k in range(200)]
    plain = [float(torch.linalg.matrix_norm(X @ X.mT).double().sqrt() / norm(X)) for X in candidates]
    assert min(plain) < 1
    assert all(float(bound(X, 1)) >= float(norm(X)) for X in candidates)


def test_refusals() -> None:
    with pytest.raises(InputError, match="products=-1"):
        bound(torch.ones(2, 2), -1)
    with pytest.raises(InputError, match="steps=-1"):
        lower_bound(torch.ones(2, 2), -1)
    with pytest.raises(InputError, match="at least one entry"):
        bound(torch.ones(0, 2))
    with pytest.raises(DtypeError, match="float8"):
        bound(torch.ones(2, 2).to(torch.float8_e4m3fn))
