"""Norms of singular values: the suite, cvxpy, torch and NumPy, Muon's and SGD's ends, the quasi-norms' dualiser."""

from __future__ import annotations

import math

import cvxpy
import numpy as np
import pytest
import torch

from icm.errors import InputError
from icm.maps import exact, sign
from icm.norms import Frobenius, Norm, Nuclear, RMSToRMS, Schatten, Spectral
from tests.norms.oracles import Expression, check_cvxpy, check_norm, check_projection, inner, matrices, near, normal

CASES: list[tuple[Norm, Expression]] = [
    (Spectral(), cvxpy.sigma_max),
    (Nuclear(), cvxpy.normNuc),
    (RMSToRMS(), lambda X: (X.shape[1] / X.shape[0]) ** 0.5 * cvxpy.sigma_max(X)),
    (Schatten(1.0), cvxpy.normNuc),
    (Schatten(2.0), lambda X: cvxpy.norm(X, "fro")),
    (Schatten(math.inf), cvxpy.sigma_max),
]


@pytest.mark.parametrize(("norm", "expression"), CASES, ids=lambda x: str(x) if isinstance(x, Norm) else "")
def test_suite_and_cvxpy(norm: Norm, expression: Expression) -> None:
    check_norm(norm)
    check_projection(norm)
    check_cvxpy(norm, expression)


@pytest.mark.parametrize("p", [1.001, 1.3, 4.0, 1000.0])
def test_suite_between(p: float) -> None:
    check_norm(Schatten(p))
    check_projection(Schatten(p), ((3, 6), (5, 1), (4, 4)))


def test_values_torch_and_numpy_know() -> None:
    for W in matrices(1, 5, 4):
        near(Spectral().norm(W), torch.linalg.matrix_norm(W, 2))
        near(Nuclear().norm(W), torch.tensor(np.linalg.norm(W.numpy(), "nuc"), dtype=torch.float64))
        near(Schatten(2.0).norm(W), torch.linalg.matrix_norm(W))
        # Σσ⁴ = ‖WᵀW‖_F² without singular values
        near(Schatten(4.0).norm(W), torch.linalg.matrix_norm(W.mT @ W).sqrt())


def test_from_sgd_to_muon() -> None:
    """p = 2 is the gradient's direction, p = ∞ the polar factor, and between them p moves from one to the other."""
    for G in matrices(2, 4, 6):
        near(Schatten(2.0).dualize(G), G / torch.linalg.matrix_norm(G))
        near(Spectral().dualize(G), exact(sign(), G))
        near(Schatten(1e9).dualize(G), exact(sign(), G), 1e-7)
    G = normal(3, 4, 6)
    ends = [float(inner(Schatten(p).dualize(G), G) / Frobenius().norm(Schatten(p).dualize(G))) for p in (2.0, 3.0, 9.0)]
    assert ends == sorted(ends, reverse=True)


def test_muon_s_own_orthogonalization() -> None:
    """torch.optim.Muon's Newton–Schulz brings singular values to within 0.32 of 1, besides bfloat16's rounding."""
    from torch.optim._muon import _zeropower_via_newtonschulz

    U, V = torch.linalg.qr(normal(4, 8, 8)).Q, torch.linalg.qr(normal(5, 16, 8)).Q
    G = (U * torch.linspace(0.3, 1, 8)) @ V.mT
    theirs = _zeropower_via_newtonschulz(G, (3.4445, -4.7750, 2.0315), 5, 1e-7).double()
    assert float(torch.linalg.matrix_norm(theirs - Spectral().dualize(G), 2)) < 0.35


@pytest.mark.parametrize("kind", [Spectral, RMSToRMS])
def test_products_come_near_the_polar_factor(kind: type[Spectral] | type[RMSToRMS]) -> None:
    rough, fine = kind("products"), kind()
    G = normal(6, 2, 32, 64)
    T = rough.dualize(G)
    far = torch.linalg.matrix_norm(T - fine.dualize(G)) / torch.linalg.matrix_norm(fine.dualize(G))
    assert float(far.max()) < 0.15
    near(rough.dual(G), inner(G, T))
    near(rough.dual(G), fine.dual(G), 0.05)
    near(rough.steepest(G, 2.0), -(inner(G, T) / 2)[:, None, None] * T)
    assert kind("products", precision="bf16").dualize(G.bfloat16()).dtype == torch.bfloat16
    near(kind("products", steps=5).dualize(G * 1e-30), kind("products", steps=5).dualize(G), 1e-5)


def test_equal_singular_values_share() -> None:
    U, V = torch.linalg.qr(normal(7, 5, 4)).Q, torch.linalg.qr(normal(8, 6, 4)).Q
    G = (U * torch.tensor([2.0, 2.0, 2.0, 0.5])) @ V.mT
    near(Nuclear().dualize(G), (U * torch.tensor([1.0, 1.0, 1.0, 0.0])) @ V.mT / 3)
    near(Spectral().dualize(G @ torch.diag(torch.tensor([1.0, 1, 1, 1, 1, 0]).double())).norm() ** 2, torch.tensor(4.0))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_quasi_norms_dualize_only(p: float) -> None:
    """⟨G, T⟩ = (Σ g^q)^{1/q}, q = p/(p − 1), least over U diag(t) Vᵀ of that size (Hölder's inequality reversed)."""
    U, V = torch.linalg.qr(normal(9, 4, 4)).Q, torch.linalg.qr(normal(10, 6, 4)).Q
    g = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    G, norm, q = (U * g) @ V.mT, Schatten(p), p / (p - 1)
    T = norm.dualize(G)
    near(T, (U * g ** (q - 1)) @ V.mT / (g**q).sum() ** ((q - 1) / q))
    near(norm.norm(T), torch.ones(()))
    near(inner(G, T), (g**q).sum() ** (1 / q))
    for seed in range(20):
        t = normal(seed, 4).exp()
        other = norm.normalize((U * t) @ V.mT)
        assert float(inner(G, other)) >= float(inner(G, T)) * (1 - 1e-12)
    assert bool((norm.dualize(torch.zeros(2, 3)) == 0).all())
    near(norm.dualize(G * torch.tensor([1e30])), T)
    for refused in (norm.dual, norm.steepest, lambda G: norm.project(3 * G)):
        with pytest.raises(InputError, match="no norm"):
            refused(G)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"p=0\.0"):
        Schatten(0.0)
    with pytest.raises(InputError, match="steps"):
        Spectral(steps=4)
    with pytest.raises(InputError, match="steps"):
        RMSToRMS(steps=4)


@pytest.mark.gpu
def test_cuda() -> None:
    G = normal(11, 3, 20, 33).cuda()
    for norm in (Spectral(), Nuclear(), Schatten(3.0), RMSToRMS("products")):
        near(norm.dualize(G).cpu(), norm.dualize(G.cpu()), 0.2 if isinstance(norm, RMSToRMS) else 1e-11)
