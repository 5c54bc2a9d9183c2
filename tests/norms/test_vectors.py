"""Lengths, maximisers and projections of vectors, against torch, scipy and their own optimality conditions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.norms.vectors import dual_exponent, length, maximiser, nearest
from tests.norms.oracles import near, normal

POWERS = [1.0, 1.0001, 1.05, 1.5, 2.0, 2.5, 10.0, 500.0, 1e6, math.inf]
powers = st.sampled_from(POWERS) | st.floats(1.001, 50)
vectors = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=6).filter(any)


@settings(max_examples=60)
@given(x=vectors, p=powers)
def test_lengths_are_torch_s(x: list[float], p: float) -> None:
    """Where torch does not overflow: of vectors whose largest entry is 1."""
    X = torch.tensor(x, dtype=torch.float64)
    X = X / X.abs().max()
    near(length(X, p), torch.linalg.vector_norm(X, p))


@settings(max_examples=60)
@given(x=vectors, p=powers)
def test_maximisers_reach_the_dual_length(x: list[float], p: float) -> None:
    X = torch.tensor(x, dtype=torch.float64)
    y = maximiser(X, p)
    near(length(y, p), torch.ones(()))
    near((X * y).sum(), length(X, dual_exponent(p)))


@settings(max_examples=60)
@given(x=vectors, p=powers, share=st.floats(1e-6, 0.999999))
def test_projections_are_optimal(x: list[float], p: float, share: float) -> None:
    """r‖x − y‖_q ≤ ⟨x − y, y⟩ with ‖y‖_p ≤ r: no z of the ball does better."""
    X = torch.tensor(x, dtype=torch.float64)
    r = share * length(X, p)
    y = nearest(X, p, r)
    assert float(length(y, p)) <= float(r) * (1 + 1e-12)
    gap = r * length(X - y, dual_exponent(p)) - ((X - y) * y).sum()
    assert float(gap) <= 1e-12 * float(r * length(X, dual_exponent(p)))


@pytest.mark.parametrize("p", [1.3, 3.0])
def test_projections_are_scipy_s(p: float) -> None:
    from scipy.optimize import NonlinearConstraint, minimize

    X = normal(1, 5) * 3
    ball = NonlinearConstraint(lambda z: (np.abs(z) ** p).sum(), -np.inf, 1.0)
    start = (X / length(X, p) / 2).numpy()
    found = minimize(lambda z: ((z - X.numpy()) ** 2).sum(), start, method="SLSQP", constraints=[ball], tol=1e-13)
    near(nearest(X, p, torch.tensor(1.0, dtype=torch.float64))[None], torch.from_numpy(found.x)[None], 1e-5)


def test_vectors_inside_stay() -> None:
    X = normal(2, 4, 3)
    for p in POWERS:
        r = length(X, p) * torch.tensor([0.5, 2.0, 1.0, 0.1])
        Y = nearest(X, p, r)
        assert torch.equal(Y[1], X[1])
        near(length(Y, p)[[0, 3]], r[[0, 3]])


def test_sizes_far_apart_cost_no_digit() -> None:
    X = normal(3, 5)
    for p in (1.5, 2.0, 7.0):
        for c in (1e-300, 1e-200, 1e200):
            near(length(X * c, p) / c, length(X, p))
            near(maximiser(X * c, p), maximiser(X, p))
    assert bool((maximiser(torch.zeros(3), 3.0) == 0).all())
