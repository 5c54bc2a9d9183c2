"""The certificate of matrices that share no singular vectors with the gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.ball import Ball
from icm.curvature import Power
from icm.rigour import Rigour
from icm.theory.claims.certificate_matrix import certificate_matrix, frames, margin, product, unorthonormal
from icm.theory.instances import Instances
from tests.theory.strategies import instances, smooth


def with_frames(instance, seed):
    """The instance with drawn singular vectors."""
    return Instances(instance.G, instance.H, frames(np.random.default_rng(seed), instance))


@settings(max_examples=30)
@given(instances(smooth), st.integers(0, 2**32))
def test_no_matrix_is_further_off_than_its_gap(instance, seed):
    assert not certificate_matrix.check(with_frames(instance, seed)).violated.any()


def test_without_its_second_term_it_is_refuted(monkeypatch):
    """At ρ = 0 the bound fails somewhere."""
    from icm.theory.claims import certificate_matrix as room

    made = certificate_matrix.draw(np.random.default_rng(3), 50)
    assert not certificate_matrix.check(made).violated.any()
    monkeypatch.setattr(room, "reach", lambda g, n, H: torch.zeros(len(g), dtype=torch.float64))
    assert replace(certificate_matrix, margin=margin).check(made).violated.any()


def test_a_smaller_gap_is_refuted():
    made = certificate_matrix.draw(np.random.default_rng(5), 50)
    wrong = replace(certificate_matrix, margin=lambda case: margin(case) - 0.2)
    assert wrong.check(made).violated.any()


def test_products_and_frames():
    A, B = (torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    found = product(Ball.of(A), B)
    assert ((found.middle - A @ B).abs() <= found.radius).all()
    Q = torch.linalg.qr(A).Q
    assert (unorthonormal(Q).upper < 1e-14).all()
    assert torch.allclose(unorthonormal(2 * Q).middle, torch.full((2,), 3 * 3**0.5, dtype=torch.float64))


def test_it_is_enclosed():
    pytest.importorskip("flint")
    G = torch.diag(torch.tensor([1.0, 0.3], dtype=torch.float64))[None]
    made = with_frames(Instances(G, Power(3.0)), 4)
    assert certificate_matrix.here(made, rigorous=True).rigour is Rigour.ENCLOSED
