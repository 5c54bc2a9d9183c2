"""The exponent that describes an update: found where it was planted, with its interval, and refused where none is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from icm.errors import DtypeError, InputError
from icm.norms.describe import best_schatten, effective_rank, stable_rank

SHAPES = [(6, 9), (9, 6), (7, 7)]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bases(seed: int, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.linalg.qr(normal(seed, m, k)).Q, torch.linalg.qr(normal(seed + 1, n, k)).Q


def planted(seed: int, m: int, n: int, a: float) -> tuple[Tensor, Tensor]:
    """−U g^a Vᵀ and U g Vᵀ, made of U and V, not of a decomposition."""
    k = min(m, n)
    U, V = bases(seed, m, n, k)
    g = torch.linspace(3.0, 0.2, k, dtype=torch.float64)
    t = (torch.arange(k) == 0).double() if math.isinf(a) else g**a
    return -(U * t) @ V.mT, (U * g) @ V.mT


def step_of(make: Any, gradient: Tensor) -> Tensor:
    p = torch.nn.Parameter(torch.zeros_like(gradient))
    p.grad = gradient.clone()
    make([p]).step()
    return p.detach()


def cosine(A: Tensor, G: Tensor, a: float) -> float:
    """By NumPy."""
    U, g, Vh = np.linalg.svd(G.numpy(), full_matrices=False)
    T = (U * (g / g[0]) ** a) @ Vh
    return float((A.numpy() * T).sum() / np.linalg.norm(A.numpy()) / np.linalg.norm(T))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("a", [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0, 20.0, math.inf])
def test_a_planted_exponent_is_found(shape: tuple[int, int], a: float) -> None:
    found = best_schatten(*planted(3, *shape, a))
    assert float(found.exponent) == pytest.approx(a, abs=1e-10 * (1 + min(abs(a), 1e3)))
    assert float(found.cosine) == pytest.approx(1.0, abs=1e-12)
    assert float(found.aligned) == pytest.approx(1.0, abs=1e-12)
    assert float(found.low) <= a <= float(found.high)
    assert bool(found.determined & found.fits())
    assert bool(found.beyond) == (a < -0.3)
    wanted = math.inf if a <= 0 else 1.0 if math.isinf(a) else 1 + 1 / a
    if abs(a) > 1e-9:
        assert float(found.p) == pytest.approx(wanted, rel=1e-9)


def test_optimizers_are_described_as_what_they_are() -> None:
    """torch.optim's own steps: SGD p = 2, Muon nearly p = ∞ by five Newton–Schulz steps, the polar factor exactly."""
    for seed in range(3):
        G = normal(seed, 48, 64)
        sgd = best_schatten(step_of(lambda p: torch.optim.SGD(p, lr=0.1), G), G)
        assert float(sgd.exponent) == pytest.approx(1.0, abs=1e-9)
        assert str(sgd).startswith("p = 2, a = 1 [")
        options = {"lr": 0.1, "weight_decay": 0.0, "nesterov": False}
        muon = best_schatten(step_of(lambda p, o=options: torch.optim.Muon(p, **o), G.float()), G)
        assert float(muon.exponent) == pytest.approx(0.0, abs=0.15)
        assert bool(muon.fits(0.95))
        assert float(muon.low) < 0 < float(muon.high)
        U, _, Vh = torch.linalg.svd(G, full_matrices=False)
        assert float(best_schatten(-U @ Vh, G).exponent) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop])
def test_none_fits_the_signs_that_adam_begins_with(make: Any) -> None:
    G = normal(5, 60, 60)
    found = best_schatten(step_of(lambda p: make(p, lr=0.1), G), G)
    assert float(found.cosine) == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)
    assert not bool(found.fits())
    assert str(found).startswith("none fits; the nearest has a = ")


@pytest.mark.parametrize("seed", range(6))
def test_the_best_exponent_and_its_interval_are_those_of_a_search(seed: int) -> None:
    """Against scipy's bounded search of a cosine by NumPy: of an update half of which is noise."""
    A, G = planted(seed, 8, 5, 0.2 * seed)
    A = -A + normal(seed + 50, 8, 5) * float(A.norm()) / 10
    found = best_schatten(-A, G, within=0.02)
    search: Any = optimize.minimize_scalar(
        lambda a: -cosine(A, G, a), bounds=(-1, 3), method="bounded", options={"xatol": 1e-9}
    )
    assert float(found.cosine) == pytest.approx(-search.fun, abs=1e-13)
    assert float(found.exponent) == pytest.approx(search.x, abs=1e-6)
    for end in (float(found.low), float(found.high)):
        if -1 < end < math.inf:
            assert cosine(A, G, end) == pytest.approx(0.98 * float(found.cosine), rel=1e-10)
    inside = np.linspace(float(found.low), min(float(found.high), 50.0), 50)
    assert min(cosine(A, G, a) for a in inside) >= 0.98 * float(found.cosine) - 1e-12


def test_the_width_of_the_interval_is_that_of_the_logarithms() -> None:
    for spread in (0.1, 1.0):
        U, V = bases(1, 6, 6, 6)
        log = spread * torch.linspace(0, -1, 6, dtype=torch.float64)
        weights = log.exp().square() / log.exp().square().sum()
        variance = float((weights * log.square()).sum() - (weights * log).sum() ** 2)
        G = (U * log.exp()) @ V.mT
        found = best_schatten(-G, G, within=1e-6)
        for end in (float(found.low), float(found.high)):
            assert abs(end - 1) == pytest.approx(math.sqrt(2e-6 / variance), rel=0.02)


def test_singular_vectors_without_a_power_are_aligned_alone() -> None:
    U, V = bases(1, 6, 6, 6)
    g = torch.linspace(1.0, 0.1, 6, dtype=torch.float64)
    zigzag = torch.tensor([1.0, 0.1, 1.0, 0.1, 1.0, 0.1], dtype=torch.float64)
    found = best_schatten(-(U * zigzag) @ V.mT, (U * g) @ V.mT)
    assert float(found.aligned) == pytest.approx(1.0, abs=1e-12)
    assert not bool(found.fits())
    stranger = best_schatten(normal(9, 6, 6), (U * g) @ V.mT)
    assert float(stranger.aligned) < 0.9


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_scale_changes_nothing(scale: float) -> None:
    A, G = planted(3, 6, 9, 0.25)
    plain = best_schatten(A, G)
    for found in (best_schatten(A * scale, G), best_schatten(A, G * scale), best_schatten((A * scale).float(), G)):
        assert float(found.exponent) == pytest.approx(0.25, abs=1e-5)
        assert float(found.high) == pytest.approx(float(plain.high), rel=1e-4)
    single = best_schatten((A * scale).float(), (G * scale).float())
    assert float(single.exponent) == pytest.approx(0.25, abs=1e-5)
    assert single.exponent.dtype == torch.float64
    assert float(best_schatten(A.bfloat16(), G.bfloat16()).exponent) == pytest.approx(0.25, abs=0.02)


def test_zero_singular_values_are_left_out() -> None:
    U, V = bases(1, 8, 6, 3)
    g = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    for a in (-0.5, 0.0, 0.5, 1.0):
        found = best_schatten(-(U * g**a) @ V.mT, (U * g) @ V.mT)
        assert float(found.exponent) == pytest.approx(a, abs=1e-9)
    whole = torch.linalg.qr(normal(5, 8, 8)).Q[:, :6] @ torch.linalg.qr(normal(6, 6, 6)).Q.mT
    low = best_schatten(whole, (U * g) @ V.mT)
    assert float(low.aligned) <= math.sqrt(3 / 6) + 1e-12  # at most what three of six directions of one size hold
    polar = best_schatten(-torch.eye(8, 6).double(), torch.eye(8, 6).double() * (torch.arange(6) < 3))
    assert float(polar.aligned) == pytest.approx(math.sqrt(3 / 6))
    G = torch.zeros(4, 5)
    G[0, 0], G[1, 1] = 2.0, 1.0  # exact zeros
    assert float(best_schatten(-G, G).exponent) == pytest.approx(1.0, abs=1e-6)


def test_equal_singular_values_leave_the_exponent_undetermined() -> None:
    U, V = bases(1, 5, 5, 5)
    one = normal(2, 5, 1) @ normal(3, 1, 4)
    for A, G in ((-U @ V.mT, U @ V.mT), (-one, one), (-torch.ones(3, 1), torch.ones(3, 1)), (-2 * one.float(), one)):
        found = best_schatten(A, G)
        assert math.isnan(float(found.exponent))
        assert math.isnan(float(found.p))
        assert (float(found.low), float(found.high)) == (-1.0, math.inf)
        assert float(found.cosine) == pytest.approx(1.0, abs=1e-6)
        assert not bool(found.determined)
        assert str(found).startswith("undetermined: every exponent describes the update equally, cosine 1.000")


def test_nearly_equal_singular_values_show_in_the_interval() -> None:
    U, V = bases(1, 5, 5, 5)
    G = (U * torch.linspace(1.0, 0.99, 5, dtype=torch.float64)) @ V.mT
    found = best_schatten(-G, G)
    assert float(found.exponent) == pytest.approx(1.0, abs=1e-6)
    assert float(found.low) == -1.0
    assert float(found.high) > 20


def test_an_update_along_nothing_is_described_by_nothing() -> None:
    G = normal(1, 4, 6)
    up = best_schatten(G, G)
    assert math.isnan(float(up.exponent))
    assert float(up.cosine) < 0
    assert str(up).startswith("none fits: the update has no part along any")
    still, unknown = best_schatten(0 * G, G), best_schatten(-G, 0 * G)
    assert math.isnan(float(still.cosine))
    assert str(still) == "an update of 0"
    assert (float(unknown.cosine), float(unknown.aligned)) == (0.0, 0.0)
    assert not bool(still.fits() | unknown.fits() | up.fits())


def test_batches_are_described_one_by_one_and_may_share_their_gradient() -> None:
    pairs = [planted(seed, 6, 4, a) for seed, a in enumerate((0.0, 0.5, 1.0, math.inf, -0.5, 2.0))]
    A, G = (torch.stack([pair[i] for pair in pairs]).reshape(2, 3, 6, 4) for i in (0, 1))
    found = best_schatten(A, G)
    alone = torch.stack([best_schatten(*pair).exponent for pair in pairs]).reshape(2, 3)
    torch.testing.assert_close(found.exponent, alone, rtol=1e-9, atol=1e-9)
    assert found.p.shape == found.beyond.shape == (2, 3)
    assert len(str(found).splitlines()) == 6
    shared = best_schatten(torch.stack([A[0, 0], -G[0, 0]]), G[0, 0])
    torch.testing.assert_close(shared.exponent, torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-9)
    twice = best_schatten(torch.stack([A, -G]), G)
    torch.testing.assert_close(twice.exponent[0], found.exponent, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twice.exponent[1], torch.ones(2, 3).double(), rtol=0, atol=1e-9)


def test_ranks_without_a_gradient() -> None:
    W = normal(1, 3, 5, 8)
    frobenius, spectral = torch.linalg.matrix_norm(W), torch.linalg.matrix_norm(W, 2)
    torch.testing.assert_close(stable_rank(W), (frobenius / spectral) ** 2)
    gram = W @ W.mT
    torch.testing.assert_close(effective_rank(W), frobenius**4 / gram.square().sum((-2, -1)))
    U, V = bases(1, 9, 6, 4)
    for scale in (1e-30, 1.0, 1e30):
        assert float(stable_rank(scale * U @ V.mT)) == pytest.approx(4.0)
        assert float(effective_rank(scale * U[:, :1] @ V[:, :1].mT)) == pytest.approx(1.0)
    assert math.isnan(float(stable_rank(torch.zeros(2, 3))))


def test_what_cannot_be_described_is_refused() -> None:
    G = normal(1, 3, 4)
    bad = G.clone()
    bad[1, 2] = math.nan
    for wrong in ((bad, G), (G, bad), (G.mT, G), (G[0], G[0]), (torch.zeros(0, 4), torch.zeros(0, 4))):
        with pytest.raises(InputError):
            best_schatten(*wrong)
    with pytest.raises(DtypeError):
        best_schatten(G.to(torch.complex64), G)
    for within in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InputError, match="within"):
            best_schatten(G, G, within=within)
    with pytest.raises(InputError):
        stable_rank(torch.ones(3))
    with pytest.raises(InputError):
        effective_rank(bad)
    assert float(best_schatten((-G).tolist(), G.numpy()).exponent) == pytest.approx(1.0, abs=1e-9)
