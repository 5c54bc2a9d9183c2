"""Powers as norms, and updates as steepest descent in them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import icm
from icm.curvature import parse
from icm.rigour import Rigour
from icm.sphere import mean
from icm.theory.claims.norms import (
    above_limit,
    chain,
    competitor,
    directions,
    factors,
    gain,
    gained,
    length,
    level_set,
    lower_gain,
    norm_family,
    norm_length,
    norm_limit,
    norm_steepest,
    norm_triangle,
    one_norm_for_all_scales,
    second,
    steepest,
    step,
    triangle,
)
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, powers, smooth

SEEDS = st.integers(0, 2**32)


def with_more(instance, extra, seed):
    """The instance with what else its claim looks at."""
    return Instances(instance.G, instance.H, extra(np.random.default_rng(seed), instance), instance.origin)


@settings(max_examples=20)
@given(instances(powers(1.0, 8.0), rotated=True), SEEDS)
def test_the_triangle_inequality(instance, seed):
    assert not norm_triangle.check(with_more(instance, second, seed)).violated.any()


@settings(max_examples=20)
@given(instances(powers(1.0, 8.0), rotated=True))
def test_the_family_rises_to_the_spectral_norm(instance):
    assert not norm_family.check(instance).violated.any()
    assert not norm_limit.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(1.1, 8.0)), SEEDS)
def test_powers_descend_steepest_in_their_norm(instance, seed):
    assert not norm_steepest.check(with_more(instance, directions, seed)).violated.any()
    assert not norm_length.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(smooth), SEEDS)
def test_updates_maximise_over_their_level_set(instance, seed):
    assert not level_set.check(with_more(instance, directions, seed)).violated.any()


def test_a_competitor_on_the_level_set_is_found():
    made = level_set.draw(np.random.default_rng(1), 20)
    checked = level_set.check(made)
    assert int(checked.open.sum()) == 0


@settings(max_examples=15)
@given(instances(powers(2.0, 8.0)), SEEDS)
def test_a_power_has_one_norm_for_all_scales(instance, seed):
    assert not one_norm_for_all_scales.check(with_more(instance, factors, seed)).violated.any()


def test_a_square_and_a_quartic_have_none():
    found = one_norm_for_all_scales.on(np.diag([4.0, 2.0, 1.0, 0.5]), "r^2 + r^4", stretch=torch.tensor(8.0))
    assert found.rigour is Rigour.REFUTED


def test_the_direction_turns_with_the_scale():
    G = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    found = [icm.solve(s * G, "r^2 + r^4").sigma for s in (1e-3, 1.0, 1e3)]
    assert [round(float(sigma[1] / sigma[0]), 3) for sigma in found] == [0.5, 0.661, 0.693]


def test_the_norm_tends_to_the_spectral_norm():
    sigma = torch.tensor([1.0, 0.8, 0.1], dtype=torch.float64)
    found = [float(mean(parse(f"r^{p}"), sigma, 3)) ** (1 / p) for p in (2, 10, 100, 400)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_factor_of_rank_one(n):
    one = torch.tensor([1.0], dtype=torch.float64)
    p = 3.7
    exact = math.gamma((p + 1) / 2) * math.gamma(n / 2) / (math.sqrt(math.pi) * math.gamma((n + p) / 2))
    assert float(mean(parse("r^3.7"), one, n)) == pytest.approx(exact, rel=1e-13)


def pair(H):
    """Two gradients with all that the claims look at: a parallel matrix, and a competitor close to the optimum."""
    G = diagonal(torch.tensor([[1.0, 0.4], [1.0, 0.0]], dtype=torch.float64), 2, 2)
    W = torch.tensor([[[0.3, 0.1], [-0.2, 0.5]]], dtype=torch.float64).expand(2, 2, 2)
    mix = torch.full((2,), 1e-4, dtype=torch.float64)
    return Instances(G, parse(H), {"other": 2 * G, "W": W, "mix": mix})


def longer_level(case):
    """The competitor on a level that is 1% too high."""
    return lower_gain(case) - 0.01


def another_norm(case):
    """Q* against descent in the norm of another exponent."""
    V, p = competitor(case), 4.0
    theirs = gained(case, V) / length(case, case.spectrum(V), p)
    return 1.0 - theirs * (length(case, case.sigma, p) / gain(case))


@pytest.mark.parametrize(
    ("claim", "wrong"),
    [
        (norm_triangle, lambda case: triangle(case) - 1e-3),
        (norm_family, lambda case: -chain(case) - 0.02),
        (norm_limit, lambda case: above_limit(case) - 1e-3),
        (norm_steepest, lambda case: steepest(case) - 1e-3),
        (norm_steepest, another_norm),
        (norm_length, lambda case: step(case) + 1e-4),
        (level_set, longer_level),
    ],
)
def test_a_wrong_statement_is_refuted(claim, wrong):
    made = pair("r^3")
    assert not claim.check(made).violated.any()
    assert replace(claim, margin=wrong).check(made).violated.any()


def test_it_is_enclosed():
    pytest.importorskip("flint")
    made = pair("r^3")[[0]]
    for claim in (norm_triangle, norm_steepest, level_set):
        assert claim.here(made, rigorous=True).rigour is Rigour.ENCLOSED
