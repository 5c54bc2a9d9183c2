"""Ky Fan norms: the suite, cvxpy's lambda_sum_largest, their ends, and the mixtures at ties."""

from __future__ import annotations

from functools import partial

import cvxpy
import pytest
import torch

from icm.errors import InputError
from icm.norms import KyFan, Nuclear, Spectral
from tests.norms.oracles import check_cvxpy, check_norm, check_projection, matrices, near, normal


def largest(X: cvxpy.Variable, k: int):
    """Singular values are the positive eigenvalues of [[0, X], [Xᵀ, 0]]."""
    m, n = X.shape
    block = cvxpy.bmat([[torch.zeros(m, m).numpy(), X], [X.T, torch.zeros(n, n).numpy()]])
    return cvxpy.lambda_sum_largest(block, k)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_suite(k: int) -> None:
    check_norm(KyFan(k))
    check_projection(KyFan(k))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_cvxpy(k: int) -> None:
    check_cvxpy(KyFan(k), partial(largest, k=k))


def test_ends() -> None:
    for G in matrices(1, 4, 6):
        for k, end in ((1, Spectral()), (4, Nuclear()), (7, Nuclear())):
            for answer in ("norm", "dual", "dualize"):
                near(getattr(KyFan(k), answer)(G), getattr(end, answer)(G))
            r = 0.3 * float(end.norm(G))
            near(KyFan(k).project(G, r), end.project(G, r))


def test_the_mixture_at_a_tie() -> None:
    """g = (1, ½, ½), k = 2: both reach 1; of (1 − b)(1, 0, 0) + b(½, ½, ½) the shortest is b = ⅔."""
    U, V = torch.linalg.qr(normal(2, 5, 3)).Q, torch.linalg.qr(normal(3, 4, 3)).Q
    G = (U * torch.tensor([1.0, 0.5, 0.5])) @ V.mT
    near(KyFan(2).dualize(G), (U * torch.tensor([2.0, 1.0, 1.0])) @ V.mT / 3)
    near(KyFan(2).dualize(G + 0.1 * U[:, 1:] @ V[:, 1:].mT), U @ V.mT / 2)
    near(KyFan(2).dualize(G - 0.1 * U[:, 1:] @ V[:, 1:].mT), U[:, :1] @ V[:, :1].mT)
    near(KyFan(2).dualize(G.float()).double(), (U * torch.tensor([2.0, 1.0, 1.0])) @ V.mT / 3, 1e-6)


def test_wide_spectra_are_projected() -> None:
    """64 singular values, with and without ties, for every k."""
    for seed, k in enumerate((1, 5, 17, 63, 64)):
        for W in (normal(seed, 64, 80), normal(seed, 64, 80).sign(), torch.eye(64, 80, dtype=torch.float64)):
            norm = KyFan(k)
            r = 0.4 * float(norm.norm(W))
            P = norm.project(W, r)
            assert float(norm.norm(P)) <= r * (1 + 1e-12)
            assert float(r * norm.dual(W - P) - ((W - P) * P).sum()) <= 1e-11 * float(r * norm.dual(W))


def test_k_is_a_whole_number() -> None:
    with pytest.raises(InputError, match="k=0"):
        KyFan(0)
