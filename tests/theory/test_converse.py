"""The converse of Theorem 1: refuted for one spectrum, right for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.curvature import parse
from icm.rigour import Rigour
from icm.theory.claims.converse import (
    across,
    around,
    converse_all,
    falls_until,
    homogenisation_converse,
    least_rise,
    on_the_range,
    psi,
)
from icm.theory.instances import Instances
from tests.theory.strategies import instances, powers

mixed = st.builds(lambda a, b: a + b, powers(1.1, 1.9), powers(2.1, 5.0))


def test_one_spectrum_homogenises_though_psi_falls_on_its_range():
    found = homogenisation_converse.on(np.diag([6.0, 1.0]), "r^1.5 + r^2.39")
    assert found.rigour is Rigour.REFUTED
    assert found.margin < -1e-3


def test_that_counterexample_is_proved():
    pytest.importorskip("flint")
    assert homogenisation_converse.on(np.diag([6.0, 1.0]), "r^1.5 + r^2.39", rigorous=True).rigour is Rigour.REFUTED


@settings(max_examples=30)
@given(instances(mixed, shape="tall", least=2, positive=True), st.integers(0, 2**32))
def test_where_psi_falls_singular_values_draw_apart(instance, seed):
    made = Instances(instance.G, instance.H, around(np.random.default_rng(seed), instance))
    assert not converse_all.check(made).violated.any()


@settings(max_examples=30)
@given(instances(mixed, shape="tall", least=2, positive=True), st.integers(0, 2**32))
def test_only_the_range_counts(instance, seed):
    made = Instances(instance.G, instance.H, across(np.random.default_rng(seed), instance))
    assert not on_the_range.check(made).violated.any()


@settings(max_examples=30)
@given(mixed)
def test_psi_turns_once(H):
    end = falls_until(H)
    below, above = (psi(H, torch.tensor([end * x, end * y], dtype=torch.float64)) for x, y in ((0.5, 0.9), (1.1, 2.0)))
    assert below.middle[0] > below.middle[1]
    assert above.middle[0] < above.middle[1]


@pytest.mark.parametrize("H", ["r^1.9 + r^4", "3*r^2 + r^6.5", "0.5*r^1.25"])
def test_psi_is_the_slope_over_the_radius(H):
    r = torch.logspace(-3, 2, 30, dtype=torch.float64)
    found, exact = psi(parse(H), r), parse(H).slope(r) / r
    assert ((found.middle - exact).abs() <= found.radius + 1e-14 * exact).all()


def one(H, sigma):
    """σ in a 2 × 2 instance."""
    sigma = torch.tensor([sigma], dtype=torch.float64)
    return Instances(torch.eye(2, dtype=torch.float64)[None], parse(H), {"sigma": sigma})


@pytest.mark.parametrize("claim", [converse_all, on_the_range])
def test_the_reverse_is_refuted(claim):
    made = one("r^1.9 + r^4", [0.1, 0.05])
    assert not claim.check(made).violated.any()
    assert replace(claim, margin=lambda case: -claim.margin(case)).check(made).violated.all()


def test_past_the_turn_the_hypothesis_is_missed():
    assert not converse_all.check(one("r^1.9 + r^4", [0.2, 0.05])).met.any()


def test_super_quadratic_growth_meets_the_converse():
    found = homogenisation_converse.on(np.diag([6.0, 1.0]), "r^2 + r^4")
    assert found.margin > 0
    wrong = replace(homogenisation_converse, margin=lambda case: -least_rise(case))
    assert wrong.on(np.diag([6.0, 1.0]), "r^2 + r^4").rigour is Rigour.REFUTED
