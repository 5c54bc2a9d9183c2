"""Fewer outputs than inputs, as property tests, with mutilated versions that are refuted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.errors import InputError
from icm.sphere import expect
from icm.theory.claims import wide
from icm.theory.claims.orthogonalisation import orthogonalisation
from icm.theory.claims.wide import distance, never, radius_law, width
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, kinked


@settings(max_examples=20)
@given(instances(kinked, shape="wide", least=2), st.floats(-3, 0.5))
def test_nothing_holds_a_wide_matrix(instance, decades):
    radius = torch.tensor([instance.H.kinks[0][0] * (1 + 10**decades)], dtype=torch.float64)
    assert not never.check(replace(instance, extra={"radius": radius})).violated.any()


@st.composite
def pairs(draw: st.DrawFn) -> Instances:
    """σ near a kink and the gradient that it is the optimum for."""
    H, m = draw(kinked), draw(st.integers(2, 4))
    n, near = m + draw(st.integers(1, 5)), 10 ** draw(st.floats(-6, 0))
    y = sorted(draw(st.lists(st.floats(-0.9, 1), min_size=m, max_size=m)), reverse=True)
    sigma = H.kinks[0][0] * (1 + near * torch.tensor([y], dtype=torch.float64))
    return Instances(diagonal(expect(H, sigma, n).slopes, m, n), H, {"sigma": sigma})


@settings(max_examples=20)
@given(pairs())
def test_how_far_a_wide_update_stays_from_orthogonal(instance):
    assert not width.check(instance).violated.any()
    assert not radius_law.check(instance).violated.any()


def test_as_many_outputs_as_inputs_are_held():
    blind = replace(never, hypotheses={"g not all equal": never.hypotheses["g not all equal"]})
    made = orthogonalisation.draw(np.random.default_rng(2), 30)
    assert made.n > 1
    radius = torch.full((30,), made.H.kinks[0][0], dtype=torch.float64)
    assert blind.check(replace(made, extra={"radius": radius})).violated.any()


def test_the_spread_is_not_that_of_the_gradient():
    def as_spread(case):
        g, sigma = wide.pair(case)
        return sigma[:, 0] / sigma[:, -1] - g[:, 0] / g[:, -1]

    bold = replace(width, margin=as_spread)
    assert bold.check(width.draw(np.random.default_rng(0), 20)).violated.any()


def test_the_radius_lies_between_the_two(monkeypatch):
    made = radius_law.draw(np.random.default_rng(0), 20)
    assert not radius_law.check(made).violated.any()
    straight = wide.pair
    monkeypatch.setattr(wide, "pair", lambda case: tuple(x[:, list(reversed(range(case.m)))] for x in straight(case)))
    assert radius_law.check(made).violated.any()


@pytest.mark.parametrize(("m", "n"), [(3, 4), (3, 5), (2, 6)])
def test_the_distance_falls_like_a_power_of_the_jump(m, n):
    g = torch.linspace(1, 0.6, m)
    near, far = (float(distance(m, n, jump, g)) for jump in (1e2, 1e3))
    assert near > far > 0
    np.testing.assert_allclose(np.log10(far / near), -2 / (n - m), rtol=0.1)


def test_the_distance_of_a_tall_matrix_is_0():
    assert distance(4, 3, 10.0, [1.0, 0.8, 0.6]) == 0
    with pytest.raises(InputError, match="3 singular values > 0"):
        distance(4, 3, 10.0, [1.0, 0.8, 0.0])
