"""The norm that a preconditioner induces: the suite, cvxpy, Shampoo's step, factors without full rank."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from icm.errors import InputError
from icm.norms import Frobenius, KyFan, MaxEntry, Norm, Nuclear, Preconditioned, Schatten, Spectral
from tests.norms.oracles import check_cvxpy, check_norm, inner, matrices, near, normal


def positive(seed: int, k: int) -> Tensor:
    A = normal(seed, k, k)
    return A @ A.mT + torch.eye(k, dtype=torch.float64)


def root(A: Tensor, power: float) -> Tensor:
    return torch.from_numpy(np.real(scipy.linalg.fractional_matrix_power(A.numpy(), power)))


INNER: list[Norm] = [Spectral(), Frobenius(), Nuclear(), Schatten(3.0), KyFan(2), MaxEntry()]


@pytest.mark.parametrize("inner", INNER, ids=str)
def test_suite(inner: Norm) -> None:
    check_norm(Preconditioned(positive(1, 3), positive(2, 5), inner), ((3, 5),))


@pytest.mark.parametrize("power", [0.125, 0.25, 0.5])
def test_cvxpy(power: float) -> None:
    L, R = positive(3, 3), positive(4, 4)
    left, right = root(L, power).numpy(), root(R, power).numpy()
    for norm, expression in ((Spectral(), cvxpy.sigma_max), (Nuclear(), cvxpy.normNuc)):
        check_cvxpy(
            Preconditioned(L, R, norm, power), lambda X, known=expression: known(left @ X @ right), projects=False
        )


def test_shampoo() -> None:
    """Steepest descent for ‖L^{1/8} W R^{1/8}‖_F is −L^{−1/4} G R^{−1/4}, whatever G was averaged into L and R; without
    averages that is −UVᵀ."""
    G, L, R = normal(5, 4, 6), positive(6, 4), positive(7, 6)
    near(Preconditioned(L, R, Frobenius(), 1 / 8).steepest(G), -root(L, -0.25) @ G @ root(R, -0.25))
    near(Preconditioned(L, R, Frobenius()).steepest(G), -root(L, -0.5) @ G @ root(R, -0.5))
    for shape in ((4, 4), (4, 6), (6, 4)):
        G = normal(8, *shape)
        polar = Spectral().dualize(G)
        eighth = Preconditioned(G @ G.mT, G.mT @ G, Frobenius(), 1 / 8)
        near(eighth.steepest(G), -polar, 1e-11)
        near(eighth.dual(G).square(), torch.linalg.matrix_norm(G, "nuc"), 1e-11)  # ⟨G, UVᵀ⟩


def test_without_averages_at_a_quarter() -> None:
    """L^{−1/4}GR^{−1/4} = UVᵀ is its own polar factor: the spectral and Frobenius norms both give U g⁻¹ Vᵀ's direction,
    of lengths 1 and 1/√r."""
    for shape in ((4, 4), (4, 6), (6, 4)):
        G = normal(9, *shape)
        inverse = torch.linalg.pinv(G).mT
        for norm, length in ((Spectral(), 1.0), (Frobenius(), 0.5)):
            near(Preconditioned(G @ G.mT, G.mT @ G, norm).dualize(G), inverse * length, 1e-11)


def test_identities_leave_the_inner_norm() -> None:
    for norm in INNER:
        same = Preconditioned(torch.eye(3) * 16, torch.eye(5), norm)
        for W in matrices(10, 3, 5):
            near(same.norm(W), 2 * norm.norm(W))
            near(same.dualize(W), norm.dualize(W) / 2)


def test_sizes_of_the_factors() -> None:
    L, R, G = positive(11, 3), positive(12, 4), normal(13, 3, 4)
    norm = Preconditioned(L, R)
    for c in (1e200, 1e-200):
        scaled = Preconditioned(L * c, R / c**0.5)
        near(scaled.norm(G), norm.norm(G) * c**0.125)
        near(scaled.dual(G), norm.dual(G) / c**0.125)
        near(scaled.dualize(G), norm.dualize(G) / c**0.125)


def test_stacks() -> None:
    L = torch.stack([positive(14, 3), positive(15, 3)])
    G = normal(16, 2, 3, 4)
    together = Preconditioned(L, positive(17, 4))
    for i in range(2):
        near(together.dualize(G)[i], Preconditioned(L[i], positive(17, 4)).dualize(G[i]))


def test_without_full_rank() -> None:
    """On the ranges the identities hold; outside, where the dual is infinite, a G is refused, or left out unchecked."""
    A, B = normal(18, 5, 3), normal(19, 6, 2)
    norm = Preconditioned(A @ A.mT, B @ B.mT)
    W = A @ normal(20, 3, 2) @ B.mT
    T = norm.dualize(W)
    near(inner(W, T), norm.dual(W))
    near(norm.norm(T), torch.ones(()))
    G = W + normal(21, 5, 6)
    near(norm.norm(A @ torch.linalg.pinv(A) @ G @ torch.linalg.pinv(B).mT @ B.mT), norm.norm(G))
    for answer in (norm.dual, norm.dualize, norm.steepest):
        with pytest.raises(InputError, match="outside the ranges"):
            answer(G)
    onto = A @ torch.linalg.pinv(A) @ G @ torch.linalg.pinv(B).mT @ B.mT
    near(norm.dualize(G, check=False), norm.dualize(onto), 1e-11)
    with pytest.raises(InputError, match="ridge"):
        Preconditioned(A @ A.mT, torch.eye(4), MaxEntry())


def test_refusals() -> None:
    eye = torch.eye(3)
    for L, message in (
        (torch.ones(3, 4), "square"),
        (torch.diag(torch.tensor([1.0, 1.0, -1.0])), "not semidefinite"),
        (torch.ones(3, 3).tril(), "not symmetric"),
        (torch.zeros(3, 3), "L is 0"),
        (eye * float("nan"), "non-finite"),
    ):
        with pytest.raises(InputError, match=message):
            Preconditioned(L, eye)
    with pytest.raises(InputError, match="power"):
        Preconditioned(eye, eye, power=0.0)
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        Preconditioned(eye, eye).norm(torch.ones(3, 4))
    with pytest.raises(InputError, match="no projection"):
        Preconditioned(eye, eye).project(5 * eye)
