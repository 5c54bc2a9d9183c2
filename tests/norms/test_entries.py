"""Norms of entries: the suite, cvxpy, NumPy and torch."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch

from icm.norms import RMS, EntrySum, Frobenius, MaxEntry, Norm
from tests.norms.oracles import Expression, check_cvxpy, check_norm, check_projection, matrices, near

CASES: list[tuple[Norm, Expression]] = [
    (Frobenius(), lambda X: cvxpy.norm(X, "fro")),
    (MaxEntry(), lambda X: cvxpy.max(cvxpy.abs(X))),
    (EntrySum(), lambda X: cvxpy.sum(cvxpy.abs(X))),
    (RMS(), lambda X: cvxpy.norm(X, "fro") / X.size**0.5),
]


@pytest.mark.parametrize(("norm", "expression"), CASES, ids=lambda x: str(x) if isinstance(x, Norm) else "")
def test_suite_and_cvxpy(norm: Norm, expression: Expression) -> None:
    check_norm(norm)
    check_projection(norm)
    check_cvxpy(norm, expression)


def test_values_torch_and_numpy_know() -> None:
    for W in matrices(1, 4, 6):
        near(Frobenius().norm(W), torch.linalg.matrix_norm(W))
        near(MaxEntry().norm(W), W.abs().max())
        near(EntrySum().norm(W), torch.tensor(np.linalg.norm(W.numpy().ravel(), 1), dtype=torch.float64))
        near(RMS().norm(W), W.square().mean().sqrt())


def test_sign_descent_and_gradient_descent() -> None:
    for G in matrices(2, 3, 5):
        assert torch.equal(MaxEntry().dualize(G), G.sign())
        near(Frobenius().steepest(G, 4.0), -G / 4)
        near(MaxEntry().steepest(G, 4.0), -G.abs().sum() / 4 * G.sign())


def test_equal_entries_share() -> None:
    G = torch.tensor([[3.0, -3.0, 1.0], [0.0, 3.0, -2.0]], dtype=torch.float64)
    near(EntrySum().dualize(G), torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64) / 3)
