"""Norms, their duals and steepest descent as claims: instances of hypothesis, and values by others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from icm.ball import Ball
from icm.curvature import Power
from icm.rigour import Rigour
from icm.theory.case import Case
from icm.theory.claims import operators, steepest_descent
from icm.theory.claims.lengths import LENGTHS, conjugate, kinds, others, vector
from icm.theory.claims.operators import columns_operator, max_entry_operator, rows_operator, square_loss, vectors
from icm.theory.claims.steepest_descent import (
    luxemburg_duality,
    muon_limit,
    norm_duality,
    schatten_to_muon,
    steepest_step,
)
from icm.theory.instances import Instances
from tests.theory.strategies import instances, powers, smooth
from tests.theory.strategies_matrices import batch, seeds, with_extra

CLAIMS = (*steepest_descent.CLAIMS, *operators.CLAIMS)
SQUARE = powers(2.0, 2.0)


def norm_and_others(rng, made):
    return {**kinds(rng, made), **others(rng, made)}


def vectors_and_others(rng, made):
    return {**vectors(rng, made), **others(rng, made)}


@settings(max_examples=40)
@given(with_extra(instances(SQUARE, rotated=True), norm_and_others))
def test_steps_are_steepest_in_every_norm(instance):
    assert not norm_duality.check(instance).violated.any()
    assert not steepest_step.check(instance).violated.any()


@settings(max_examples=30)
@given(with_extra(instances(SQUARE, rotated=True), vectors_and_others))
def test_norms_are_those_of_operators(instance):
    for claim in (max_entry_operator, columns_operator, rows_operator):
        assert not claim.check(instance).violated.any()


@settings(max_examples=10)
@given(with_extra(instances(smooth, rotated=True), others))
def test_luxemburg_norms_have_the_dual_that_is_found(instance):
    assert not luxemburg_duality.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(1.1, 20.0)))
def test_solved_updates_gain_nearly_as_much_as_muons(instance):
    assert not muon_limit.check(instance).violated.any()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_decided(claim, seed):
    checked = claim.check(batch(claim, seed))
    assert checked.met.any()
    assert not checked.violated.any()
    assert not checked.open.any()


@settings(max_examples=10)
@given(seeds)
def test_decided_at_any_seed(seed):
    for claim in (steepest_descent.modular_norm, operators.polar_nearest, square_loss, schatten_to_muon):
        assert not claim.check(batch(claim, seed, 5)).violated.any()


@pytest.mark.parametrize("kind", range(len(LENGTHS)))
def test_values_are_those_of_the_classes(kind):
    """Balls from entries and singular values hold what icm.norms computes in another way."""
    for p in LENGTHS[kind].choices:
        one = LENGTHS[kind]
        W = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(kind), dtype=torch.float64)
        case, made = Case(Instances(W, Power(2.0))), one.make(p)
        for found, exact in ((one.value(case, W, p), made.norm(W)), (one.dual(case, W, p), made.dual(W))):
            torch.testing.assert_close(found.middle, exact, rtol=1e-13, atol=0)
            assert float((found.radius / exact).max()) < 1e-12


@pytest.mark.parametrize("p", [1.0, 1.3, 2.0, 7.0, math.inf])
def test_vector_norms_hold_those_of_mpmath(p):
    mpmath = pytest.importorskip("mpmath")
    x = [3.0, 1e-3, 0.0, 2.5]
    found = vector(Ball.of(torch.tensor([x], dtype=torch.float64)), conjugate(p))
    with mpmath.workdps(40):
        q = mpmath.inf if p == 1 else 1 if math.isinf(p) else mpmath.mpf(p) / (mpmath.mpf(p) - 1)
        numbers = [mpmath.mpf(value) for value in x]
        exact = max(numbers) if q == mpmath.inf else mpmath.fsum(x**q for x in numbers) ** (mpmath.mpf(1) / q)
        assert abs(mpmath.mpf(float(found.middle)) - exact) <= mpmath.mpf(float(found.radius))
    assert float(found.radius) < 1e-13 * float(found.middle)


def test_the_rate_towards_muon_is_met_at_nearly_equal_values():
    """1 − t_k/t_1 comes within a part in 10⁵ of its bound, which is the first term of a series."""
    G = torch.diag(torch.tensor([1.0, 1 - 1e-4], dtype=torch.float64))
    found = schatten_to_muon.on(G, "r^2", p=torch.tensor(5.0))
    assert 0 <= found.margin < 1e-4 * 1e-4


def test_one_sample_along_the_top_direction_meets_the_square_loss_bound():
    G = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    X = torch.tensor([[math.sqrt(2.0), 0.0]], dtype=torch.float64)
    found = square_loss.on(G, "r^2", X=X, W=torch.zeros(2, 2), y=torch.zeros(1, 2))
    assert found.rigour is Rigour.CERTIFIED
    assert abs(found.margin) <= found.error


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.enclosable], ids=lambda claim: claim.name)
def test_in_ball_arithmetic_nothing_is_violated(claim):
    pytest.importorskip("flint")
    made = replace(claim, hypotheses={}).draw(np.random.default_rng(5), 1)
    if made.n <= 9:
        assert not claim.check(made, rigorous=True).violated.any()
