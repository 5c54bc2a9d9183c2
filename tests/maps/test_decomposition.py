"""U φ(g) Vᵀ against matrices whose singular vectors are known, mpmath's SVD and the polar factor's own equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.maps.decomposition import Method, exact
from icm.maps.scalar import ScalarMap, Scaling, sign

METHODS: list[Method] = ["svd", "gram", "auto"]


def smooth(width: float, scaling: Scaling = "invariant", top: float = 1.0) -> ScalarMap:
    return ScalarMap(lambda x: x / (x * x + (width * top) ** 2).sqrt(), top, scaling, "smooth")


SIGN = sign()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(seed: int, m: int, n: int, g: Tensor, phi: ScalarMap) -> tuple[Tensor, Tensor]:
    """(G, Q) with U and V drawn first: no decomposition of G."""
    k = min(m, n)
    U = torch.linalg.qr(normal(seed, m, k)).Q
    V = torch.linalg.qr(normal(seed + 1, n, k)).Q
    return (U * g) @ V.mT, (U * phi(g / g.amax())) @ V.mT


def far(Q: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.matrix_norm(Q.double() - wanted, 2) / torch.linalg.matrix_norm(wanted, 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (20, 20), (20, 50), (50, 20)])
@pytest.mark.parametrize("phi", [SIGN, smooth(0.05), smooth(1e-3)])
def test_known_vectors(method: Method, shape: tuple[int, int], phi: ScalarMap) -> None:
    """Condition 100: to rounding in float64, and to float32's own."""
    g = torch.logspace(0, -2, min(shape), dtype=torch.float64)
    G, Q = known(1, *shape, g, phi)
    assert far(exact(phi, G, method), Q) < 1e-12
    found = exact(phi, G.float(), method)
    assert found.dtype == torch.float32
    assert far(found, Q) < 1e-4
    if not (phi is SIGN and method == "svd"):  # there a float32 SVD is what rounding G does, times 100
        assert far(found, exact(phi, G.float().double(), "svd")) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_condition_1e8(method: Method) -> None:
    """Full rank: the sign loses no more than G's own rounding does, ε·cond; φ of finite slope L no more than ε L."""
    g = torch.logspace(0, -8, 24, dtype=torch.float64)
    G, Q = known(2, 24, 40, g, SIGN)
    assert far(exact(SIGN, G, method), Q) < 10 * 2.2e-16 * 1e8
    for width in (1e-2, 1e-4):
        G, Q = known(2, 24, 40, g, smooth(width))
        assert far(exact(smooth(width), G, method), Q) < 10 * 2.2e-16 / width
    # orthonormal to rounding, whatever the direction of the small vectors
    Q = exact(SIGN, G, method)
    assert float((Q @ Q.mT - torch.eye(24, dtype=Q.dtype)).abs().max()) < 1e-14


def test_float32_of_high_condition_goes_to_the_svd() -> None:
    """What the Gram matrix in float64 cannot tell apart is noticed: nothing comes out worse than by the SVD."""
    for decades in range(6):  # at 1e-6 float32 no longer knows that a singular value is there
        g = torch.logspace(0, -decades, 24, dtype=torch.float64)
        G = known(3, 24, 40, g, SIGN)[0].float()
        wanted = exact(SIGN, G.double(), "svd")
        assert far(exact(SIGN, G, "gram"), wanted) < 2e-6 * 10**decades
        orthogonal = exact(SIGN, G, "gram").double()
        assert far(orthogonal @ orthogonal.mT, torch.eye(24, dtype=torch.float64)) < 3e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rank_deficient(method: Method, dtype: torch.dtype) -> None:
    """The sign of a matrix of rank r is its partial isometry; repeated singular values and zeros in a batch."""
    g = torch.cat([torch.ones(5), torch.full((4,), 0.5), torch.zeros(7)]).double()
    tolerance = 100 * torch.finfo(dtype).eps
    for phi in (SIGN, smooth(0.1)):
        G, Q = known(4, 16, 30, g, phi)
        batch = torch.stack([G, torch.zeros_like(G), 3 * G]).to(dtype)
        found = exact(phi, batch, method)
        assert far(found[0], Q) < tolerance
        assert far(found[2], Q) < tolerance
        assert bool((found[1] == 0).all())
    assert exact(SIGN, torch.zeros(0, 3, 2), method).shape == (0, 3, 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float64, 1e150), (torch.float64, 1e-150), (torch.float32, 1e30), (torch.float32, 1e-30)]
)
def test_any_size(method: Method, dtype: torch.dtype, size: float) -> None:
    """Invariant maps do not see the size, equivariant ones multiply by it, absolute ones are φ(g) itself."""
    g = torch.logspace(0, -1.5, 12, dtype=torch.float64)
    tolerance = 200 * torch.finfo(dtype).eps
    G, Q = known(5, 12, 20, g, smooth(0.2))
    G = (G * size).to(dtype)
    s = float(torch.linalg.matrix_norm(G.double() / size, 2))
    assert far(exact(smooth(0.2), G, method), Q) < tolerance
    assert far(exact(smooth(0.2, "equivariant"), G, method) / size, s * Q) < tolerance
    assert far(exact(smooth(0.2, "equivariant", 3.0), G, method).double() / size, s / 3 * Q) < tolerance
    absolute = smooth(0.2, "absolute")
    if size > 1:
        assert (
            far(
                exact(ScalarMap(lambda x: x / 2, size * 1.01, "absolute"), G, method).double() / size,
                G.double() / size / 2,
            )
            < tolerance
        )
    else:
        assert far(exact(absolute, G, method).double() / size, G.double() / size / 0.2) < tolerance


def test_a_scale_handed_over() -> None:
    G = normal(6, 2, 5, 8)
    s = 2 * torch.linalg.matrix_norm(G, 2)
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    phi = smooth(0.1, "equivariant", 2.0)
    wanted = (U * (s[:, None] / 2 * phi(2 * g / s[:, None]))[..., None, :]) @ Vh
    for method in METHODS:
        assert float((exact(phi, G, method, s) - wanted).abs().max()) < 1e-13


def test_against_mpmath() -> None:
    """Forty digits: a graded 4×6 matrix, condition 1e6."""
    import mpmath

    G = normal(7, 4, 6) * torch.logspace(0, -6, 4, dtype=torch.float64)[:, None]
    with mpmath.workdps(40):
        U, S, V = mpmath.svd_r(mpmath.matrix(G.tolist()))
        Q = U * V
        wanted = torch.tensor([[float(Q[i, j]) for j in range(6)] for i in range(4)], dtype=torch.float64)
        condition = float(S[0] / S[3])
    for method in METHODS:
        assert far(exact(SIGN, G, method), wanted) < 2.2e-16 * condition


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(1, 1), (2, 7), (7, 2), (6, 6), (2, 3, 4, 5)]))
def test_methods_agree_and_transpose(seed: int, shape: tuple[int, ...]) -> None:
    G = normal(seed, *shape)
    phi = smooth(0.1)
    Q = exact(phi, G, "svd")
    assert float((exact(phi, G, "gram") - Q).abs().max()) < 1e-13
    assert float((exact(phi, G.mT, "gram").mT - Q).abs().max()) < 1e-13
    assert float((exact(phi, -G, "auto") + Q).abs().max()) < 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    G = normal(8, 12, 20).to(dtype)
    Q = exact(SIGN, G)
    assert Q.dtype == dtype
    wanted = exact(SIGN, G.double())
    assert float(((Q.double() - wanted).abs() - torch.finfo(dtype).eps * wanted.abs()).max()) < 1e-6


def test_a_wrong_map_is_seen() -> None:
    """Meta: a φ that is 1e-10 off at one end is told from the right one."""
    g = torch.logspace(0, -1, 6, dtype=torch.float64)
    G, Q = known(9, 6, 9, g, smooth(0.1))
    assert far(exact(smooth(0.1 * (1 + 1e-9)), G), Q) > 1e-12


def test_refusals() -> None:
    with pytest.raises(InputError, match="non-finite"):
        exact(SIGN, torch.tensor([[1.0, math.nan]]))
    with pytest.raises((InputError, TypeError), match="fast"):
        exact(SIGN, torch.ones(2, 2), "fast")  # pyright: ignore
    with pytest.raises(DtypeError, match="float8"):
        exact(SIGN, torch.ones(2, 2).to(torch.float8_e4m3fn))


@pytest.mark.gpu
def test_cuda() -> None:
    G = normal(10, 3, 20, 33)
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        for method in METHODS:
            found = exact(smooth(0.1), G.to(dtype).cuda(), method)
            assert found.is_cuda
            assert float((found.cpu() - exact(smooth(0.1), G, "svd")).abs().max()) < tolerance
