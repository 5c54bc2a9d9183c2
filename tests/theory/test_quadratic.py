"""H = c r² gives the gradient itself."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings

from icm.ball import Ball
from icm.theory.claims.quadratic import quadratic
from tests.theory.strategies import instances, powers
from tests.theory.strategies_matrices import batch


@settings(max_examples=40)
@given(instances(powers(2.0, 2.0), rotated=True))
def test_the_update_is_the_gradient(instance):
    assert not quadratic.check(instance).violated.any()


def test_another_factor_is_refuted():
    """m instead of n, as for Gᵀ."""

    def transposed(case):
        return 1.0 - case.m * case.g[:, 0] / (2.0 * Ball.of(case.H.scale) * case.sigma[:, 0])

    G = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]], dtype=torch.float64)
    assert str(replace(quadratic, margin=transposed).on(G, "3*r^2").rigour) == "refuted"
    assert str(quadratic.on(G, "3*r^2").rigour) == "certified"


def test_other_curvatures_are_not_counted():
    assert "hypotheses not met" in quadratic.on(torch.eye(2), "r^3").note
    assert not quadratic.check(batch(quadratic, 0, 50)).open.any()
