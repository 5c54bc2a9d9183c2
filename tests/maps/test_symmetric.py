"""Products by block rows against plain ones in float64."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm.maps.symmetric import Products, cuda_products


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 40),
    k=st.integers(1, 30),
    panels=st.integers(1, 9),
    batch=st.sampled_from([(), (3,)]),
    beta=st.sampled_from([1.0, -2.5, 0.0]),
)
def test_symmetric(seed: int, m: int, k: int, panels: int, batch: tuple[int, ...], beta: float) -> None:
    """A Aᵀ, with and without β C; commuting factors R·R² + β R."""
    multiply = Products(panels)
    A = normal(seed, *batch, m, k)
    R = multiply.symmetric(A, A.mT)
    assert torch.allclose(R, A @ A.mT, rtol=1e-13, atol=1e-12)
    R = (R + R.mT) / (2 * m * k)
    square = R @ R
    assert torch.allclose(
        multiply.symmetric(R, square, R, beta=beta, alpha=0.5), 0.5 * R @ square + beta * R, atol=1e-12
    )
    assert torch.allclose(multiply(R, A, A, beta=beta), R @ A + beta * A, atol=1e-12)


def test_blocks_are_mirrored_exactly() -> None:
    A = normal(1, 33, 50).float()
    R = Products(4).symmetric(A, A.mT)
    below = torch.ones(33, 33, dtype=torch.bool).tril(-9)
    assert torch.equal(R[below], R.mT[below])


@pytest.mark.parametrize("panels", [1, 3])
def test_half(panels: int) -> None:
    """Every result is a float16 number, and the nearest to the float32 one."""
    A = normal(2, 12, 30).float()
    R = Products(panels, half=True).symmetric(A, A.mT)
    assert R.dtype == torch.float32
    assert torch.equal(R, R.half().float())
    assert torch.allclose(R, A @ A.mT, rtol=2.0**-11, atol=1e-6)


@pytest.mark.parametrize("choice", ["none", "ieee", "tf32"])
def test_the_choice_of_tf32_is_put_back(choice: str) -> None:
    """Also after an exception, and for the older of torch's two switches; no GPU is needed to hold the setting."""
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    try:
        backend.fp32_precision = choice
        for precision in ("ieee", "tf32"):
            seen = []
            with suppress(ZeroDivisionError), cuda_products(precision):
                seen.append(backend.fp32_precision)
                _ = 1 / 0
            assert seen == [precision]
            assert backend.fp32_precision == choice
    finally:
        backend.fp32_precision = before
