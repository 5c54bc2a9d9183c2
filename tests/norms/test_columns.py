"""Norms of columns and rows: the suite, cvxpy, torch's 1 and ∞ norms, and the anthology's formulas."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import cvxpy
import pytest
import torch

from icm.errors import InputError
from icm.norms import ColumnNorm, MaxEntry, Norm, OneToRMS, RowNorm
from tests.norms.oracles import check_cvxpy, check_norm, check_projection, matrices, near

POWERS = [1.0, 1.2, 2.0, 3.0, math.inf]


def columns(X: Any, p: Any):
    return cvxpy.max(cvxpy.hstack([cvxpy.pnorm(X[:, j], p) for j in range(X.shape[1])]))


def rows(X: Any, p: float):
    return columns(X.T, math.inf if p == 1 else 1 if p == math.inf else p / (p - 1))


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("kind", [ColumnNorm, RowNorm])
def test_suite_and_cvxpy(kind: type[ColumnNorm] | type[RowNorm], p: float) -> None:
    check_norm(kind(p))
    check_projection(kind(p), ((3, 6), (5, 1), (1, 4)))
    check_cvxpy(kind(p), partial(columns if kind is ColumnNorm else rows, p=p))


def test_embeddings() -> None:
    check_norm(OneToRMS())
    check_projection(OneToRMS())
    check_cvxpy(OneToRMS(), lambda X: columns(X, 2) / X.shape[0] ** 0.5)
    for G in matrices(1, 4, 7):
        lengths = torch.linalg.vector_norm(G, dim=0)
        near(OneToRMS().dual(G), 2 * lengths.sum())
        near(OneToRMS().dualize(G), 2 * G / lengths.where(lengths > 0, 1.0))


def test_values_torch_knows() -> None:
    for W in matrices(2, 4, 6):
        near(ColumnNorm(1.0).norm(W), torch.linalg.matrix_norm(W, 1))
        near(RowNorm(math.inf).norm(W), torch.linalg.matrix_norm(W, math.inf))
        near(ColumnNorm(math.inf).norm(W), MaxEntry().norm(W))
        near(RowNorm(1.0).norm(W), MaxEntry().norm(W))
        for p in POWERS:
            near(ColumnNorm(p).norm(W), torch.linalg.vector_norm(W, p, dim=0).max())
            transposed = RowNorm(math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1))
            near(transposed.norm(W.mT), ColumnNorm(p).norm(W))
            near(transposed.dual(W.mT), ColumnNorm(p).dual(W))
            near(transposed.dualize(W.mT).mT, ColumnNorm(p).dualize(W))


@pytest.mark.parametrize("kind", [ColumnNorm, RowNorm])
@pytest.mark.parametrize("p", [0.5, math.nan])
def test_exponents_below_one_are_refused(kind: type[Norm], p: float) -> None:
    with pytest.raises(InputError, match=f"p={p}"):
        kind(p)  # pyright: ignore
