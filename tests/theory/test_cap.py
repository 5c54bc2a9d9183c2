"""The cap as property tests, and that it is sharp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.curvature import Power, parse
from icm.rigour import Rigour
from icm.sphere import slopes
from icm.theory.claims.cap import alpha, attained, below_cap, cap, dominated, elasticity, reverse, rising, spread
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, powers


@settings(max_examples=30)
@given(instances(powers(2.0, 8.0), least=2))
def test_a_power_is_capped(instance):
    assert not cap.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(st.builds(lambda a, b: a + b, powers(2.0, 3.0), powers(2.0, 6.0)), least=2))
def test_a_sum_of_powers_is_capped_by_its_largest(instance):
    assert not elasticity.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(1.05, 2.0), least=2))
def test_a_power_below_two_is_capped_the_other_way(instance):
    assert not reverse.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(2.0, 8.0), least=2), st.integers(0, 2**32))
def test_the_cap_is_approached(instance, seed):
    made = Instances(instance.G, instance.H, dominated(np.random.default_rng(seed), instance))
    assert not attained.check(made).violated.any()


@pytest.mark.parametrize("n", [2, 3, 12])
@pytest.mark.parametrize("p", [2.4, 3.0, 6.0])
def test_the_cap_is_the_supremum_for_every_n(n, p):
    sigma = torch.full((n,), 1e-8, dtype=torch.float64)
    sigma[0] = 1.0
    R = slopes(Power(p, 2.0), sigma, n) / sigma
    assert (R[0] / R[1]).item() == pytest.approx(p - 1, rel=1e-3)


def spiked(H):
    """Two gradients with a dominant singular value."""
    g = torch.tensor([[1.0, 1e-6, 1e-7], [1.0, 1e-4, 0.0]], dtype=torch.float64)
    return Instances(diagonal(g, 3, 3), parse(H))


@pytest.mark.parametrize(
    ("claim", "wrong", "H"),
    [
        (cap, lambda case: 1.0 - spread(case) / (1.0 + alpha(case) * 0.5), "r^3"),
        (elasticity, lambda case: 1.0 - spread(case) / (1.0 + alpha(case) * 0.5), "r^2 + 100*r^4"),
        (reverse, lambda case: 1.0 - spread(case) * (1.0 + alpha(case) * 0.5), "r^1.5"),
        (reverse, lambda case: -rising(case), "r^1.5"),
        (cap, lambda case: below_cap(case) - 0.01, "r^3"),
    ],
)
def test_a_wrong_cap_is_refuted(claim, wrong, H):
    assert not claim.check(spiked(H)).violated.any()
    assert replace(claim, margin=wrong).check(spiked(H)).violated.any()


def test_a_supremum_beyond_the_cap_is_refuted():
    sigma = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    made = Instances(diagonal(sigma, 2, 2), parse("r^4"), {"sigma": sigma})
    assert attained.check(made).tied.all()
    assert replace(attained, margin=lambda case: attained.margin(case) - 1e-3).check(made).violated.all()


def test_other_curvatures_do_not_count():
    for H in ("exp(1)", "wall(1)", "r^1.5 + r^3"):
        assert not cap.check(spiked(H)).met.any()


@pytest.mark.parametrize("claim", [cap, reverse, attained])
def test_the_cap_is_enclosed(claim):
    pytest.importorskip("flint")
    sigma = torch.tensor([1.0, 0.01], dtype=torch.float64)
    found = claim.on(np.diag([1.0, 0.3]), "r^1.5" if claim is reverse else "r^3", rigorous=True, sigma=sigma)
    assert found.rigour is Rigour.ENCLOSED
