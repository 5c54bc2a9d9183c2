"""Inverse square roots against scipy's, mpmath's and the equation Z C Z = I in float64."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.inverse_root import Method, Precision, inverse_root

WAYS: list[tuple[Method, Precision]] = [("eigh", "fp64"), ("products", "fp64"), ("products", "fp32")]
# ‖Z C Z − I‖₂/cond C that each may have at n = 40, for a C held in float64.
RATE = {("eigh", "fp64"): 2e-15, ("products", "fp64"): 2e-15, ("products", "fp32"): 5e-7}
FLOOR = {"fp64": 1e-12, "fp32": 5e-5}


def moment(rng: torch.Generator, n: int, condition: float, *batch: int) -> Tensor:
    X = torch.randn(*batch, n, n, generator=rng, dtype=torch.float64)
    V = torch.linalg.qr(X).Q
    C = (V * torch.logspace(0, -math.log10(condition), n, dtype=torch.float64)) @ V.mT
    return 0.5 * (C + C.mT)


def residual(Z: Tensor, C: Tensor) -> float:
    Z, C = Z.double(), C.double()
    return float(torch.linalg.matrix_norm(Z @ C @ Z - torch.eye(C.shape[-1], dtype=C.dtype), 2).max())


def ridged(C: Tensor, ridge: float) -> Tensor:
    mean = C.double().diagonal(dim1=-2, dim2=-1).mean(-1)
    return C.double() + ridge * mean[..., None, None] * torch.eye(C.shape[-1], dtype=torch.float64)


@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("condition", [1.0, 1e1, 1e2, 1e4, 1e6, 1e8])
def test_the_equation_holds_to_what_the_condition_number_allows(
    rng: torch.Generator, method: Method, precision: Precision, condition: float
) -> None:
    C = moment(rng, 40, condition)
    if precision == "fp32" and condition > 1e6:
        with pytest.raises(InputError, match=r"not positive definite to fp32.*ridge"):
            inverse_root(C, method=method, precision=precision)
        return
    Z = inverse_root(C, method=method, precision=precision)
    assert Z.dtype == torch.float64
    assert residual(Z, C) <= max(RATE[method, precision] * condition, FLOOR[precision])
    assert torch.equal(Z, Z.mT) or float((Z - Z.mT).abs().max()) <= 1e-14 * float(Z.abs().max())
    assert float(torch.linalg.eigvalsh(Z).min()) > 0


@pytest.mark.parametrize(("method", "precision"), WAYS)
def test_it_is_the_fractional_power_of_scipy(rng: torch.Generator, method: Method, precision: Precision) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    C = moment(rng, 12, 1e3)
    wanted = torch.from_numpy(linalg.fractional_matrix_power(C.numpy(), -0.5))
    found = inverse_root(C, method=method, precision=precision)
    assert float(torch.dist(found, wanted) / wanted.norm()) <= (1e-11 if precision == "fp64" else 2e-5)


def test_it_is_that_of_mpmath_at_condition_1e8(rng: torch.Generator) -> None:
    """To ε·cond, what rounding the entries of C costs."""
    C = moment(rng, 6, 1e8)
    with mpmath.workdps(40):
        values, V = mpmath.eigsy(mpmath.matrix(C.tolist()))
        root = V * mpmath.diag([1 / mpmath.sqrt(x) for x in values]) * V.T
        wanted = torch.tensor([[float(root[i, j]) for j in range(6)] for i in range(6)], dtype=torch.float64)
    for method in ("eigh", "products"):
        assert float(torch.dist(inverse_root(C, method=method), wanted) / wanted.norm()) <= 1e-7


@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("ridge", [1e-2, 1e-3, 1.0, 100.0])
def test_a_ridge_is_relative_to_the_mean_eigenvalue(
    rng: torch.Generator, method: Method, precision: Precision, ridge: float
) -> None:
    """A C of rank 3: without a ridge it has no inverse root."""
    X = torch.randn(20, 3, generator=rng, dtype=torch.float64)
    C = X @ X.mT
    Z = inverse_root(C, ridge=ridge, method=method, precision=precision)
    assert residual(Z, ridged(C, ridge)) <= (1e-11 if precision == "fp64" else 5e-3)
    with pytest.raises(InputError, match="ridge"):
        inverse_root(C, method=method, precision=precision)


@pytest.mark.parametrize(("method", "precision"), WAYS)
def test_stacks_are_their_matrices(rng: torch.Generator, method: Method, precision: Precision) -> None:
    """Of very different scales, each with its own ridge: the blocks of a block-diagonal moment."""
    C = moment(rng, 8, 1e3, 2, 3)
    C = C * torch.logspace(-10, 10, 6, dtype=torch.float64).reshape(2, 3, 1, 1)
    together = inverse_root(C, ridge=1e-3, method=method, precision=precision)
    assert together.shape == C.shape
    for i in range(2):
        for j in range(3):
            assert residual(together[i, j], ridged(C[i, j], 1e-3)) <= (1e-11 if precision == "fp64" else 2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["eigh", "products"])
def test_narrow_types_give_float32(rng: torch.Generator, dtype: torch.dtype, method: Method) -> None:
    C = moment(rng, 8, 10.0).to(dtype)
    Z = inverse_root(C, ridge=1e-2, method=method)
    assert Z.dtype == torch.float32
    assert residual(Z, ridged(C, 1e-2)) <= 2e-5


@pytest.mark.parametrize("method", ["eigh", "products"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_scale_only_scales(rng: torch.Generator, method: Method, scale: float) -> None:
    C = moment(rng, 8, 1e2).float()
    found = inverse_root(scale * C, ridge=1e-3, method=method).double() * scale**0.5
    wanted = inverse_root(C, ridge=1e-3, method=method).double()
    assert float(torch.dist(found, wanted) / wanted.norm()) <= 1e-6
    extreme = inverse_root(C.double() * 1e-290, ridge=1e-3, method=method)
    assert float(torch.dist(extreme * 1e-145, wanted) / wanted.norm()) <= 1e-4


@pytest.mark.parametrize("method", ["eigh", "products", "auto"])
def test_multiples_of_the_identity_and_single_numbers(method: Method) -> None:
    identity = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(inverse_root(4 * identity, method=method), 0.5 * identity, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        inverse_root([[9.0]], method=method), torch.tensor([[1 / 3]], dtype=torch.float64), rtol=1e-11, atol=0.0
    )


@pytest.mark.parametrize("method", ["eigh", "products"])
@pytest.mark.parametrize(
    ("C", "options", "message"),
    [
        (torch.ones(2, 3), {}, r"shape \(2, 3\)"),
        (torch.ones(3), {}, r"shape \(3,\)"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), {}, "not symmetric"),
        (torch.eye(3) * math.nan, {}, "non-finite"),
        (torch.zeros(3, 3), {"ridge": 0.1}, "exists for no ridge"),
        (torch.stack([torch.eye(3), torch.zeros(3, 3)]), {"ridge": 0.1}, r"at \[1\]"),
        (torch.diag(torch.tensor([1.0, 2.0, -0.5])), {}, r"smallest eigenvalue is -0\.25 of its largest"),
        (torch.diag(torch.tensor([1.0, 2.0, 0.0])), {}, "smallest eigenvalue is 0 "),
        (torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -0.5]))]), {"ridge": 1e-3}, r"at \[1\].*is -0\.5 "),
        (torch.eye(2), {"ridge": -1.0}, "ridge=-1.0"),
        (torch.eye(2), {"ridge": math.nan}, "ridge=nan"),
    ],
)
def test_what_has_no_inverse_root_is_refused(C: Tensor, options: dict[str, Any], message: str, method: Method) -> None:
    with pytest.raises(InputError, match=message):
        inverse_root(C, method=method, **options)


def test_options_and_types_are_checked() -> None:
    with pytest.raises(DtypeError, match="complex"):
        inverse_root(torch.eye(2, dtype=torch.complex64))


@pytest.mark.gpu
def test_on_a_gpu_products_are_ieee_whatever_is_allowed(rng: torch.Generator) -> None:
    C = moment(rng, 256, 1e3).float().cuda()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        Z = inverse_root(C, ridge=1e-4)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert Z.is_cuda
    assert residual(Z.cpu(), ridged(C.cpu(), 1e-4)) <= 1e-3
