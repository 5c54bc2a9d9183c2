"""One function R for the whole spectrum, from means in dimension n + 2."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.ball import Ball
from icm.curvature import Power, parse
from icm.theory.claims.one_function import R, one_function, weights
from tests.theory.strategies import instances, powers, smooth
from tests.theory.strategies_matrices import batch

G = torch.diag(torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64))


@settings(max_examples=30)
@given(instances(st.one_of(powers(3.0, 8.0), st.builds(lambda a, b: a + b, powers(2.0, 2.0), powers(3.0, 6.0)))))
def test_powers_have_one_function(instance):
    assert not one_function.check(instance).violated.any()


@settings(max_examples=30)
@given(instances(smooth, shape="tall", positive=True))
def test_smooth_curvatures_have_one_function(instance):
    assert not one_function.check(instance).violated.any()


def test_both_ways_to_the_mean_agree(monkeypatch):
    """Means of powers, and sums over all weights, for an H that has both."""
    one = one_function.on(G, "r^2 + r^5")
    monkeypatch.setattr("icm.theory.claims.one_function.weights", lambda H: None)
    other = one_function.on(G, "r^2 + r^5")
    assert one.ties == other.ties == 1
    assert one.margin != other.margin


def test_the_beta_law_matters():
    """One more coordinate instead of two is another law, and another R unless ψ is constant."""

    def with_one(case):
        sigma, x = case.sigma.middle, case.sigma.middle[:, :1]
        mean = case.mean(torch.cat([sigma, x], -1), Power(2.0, 2.0), dim=case.n + 1)
        return 1.0 - 2.0 / Ball.of(float(case.n)) * mean * x[:, 0] / case.g[:, 0]

    assert str(replace(one_function, margin=with_one).on(G, "r^4").rigour) == "refuted"
    assert str(one_function.on(G, "r^4").rigour) == "certified"


def test_a_relative_error_of_1e_10_is_noticed():
    def moved(case):
        return (1.0 - 1.0000000001 * case.sigma * R(case, case.sigma.middle) / case.g).abs().amax(-1)

    assert replace(one_function, margin=moved).check(batch(one_function, 3)).violated.any()


@pytest.mark.parametrize(("text", "count"), [("3*r^2", 1), ("r^2 + r^3", 2), ("r^2.5", None), ("exp(1)", None)])
def test_what_counts_as_powers(text, count):
    found = weights(parse(text))
    assert (None if found is None else len(found)) == count
