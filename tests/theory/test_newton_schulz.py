"""The optimum's map is increasing, Muon's polynomial is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.ball import Ball, norm
from icm.theory.claims.newton_schulz import map_monotone, newton_schulz, newton_schulz_monotone, points, rise
from tests.theory.strategies import instances, kinked, powers, smooth
from tests.theory.strategies_matrices import batch, with_extra

WITNESS = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))


@settings(max_examples=40)
@given(
    with_extra(
        st.one_of(
            instances(st.one_of(smooth, kinked), shape="square", positive=True, least=2), instances(powers(3.0, 8.0))
        ),
        points,
    )
)
def test_the_map_increases(instance):
    assert not map_monotone.check(instance).violated.any()


def test_a_falling_map_is_noticed():
    falling = replace(map_monotone, margin=lambda case: -rise(case))
    assert falling.check(batch(map_monotone, 0)).violated.all()


@pytest.mark.parametrize("rigorous", [False, True])
def test_five_steps_exchange_two_singular_values(rigorous):
    if rigorous:
        pytest.importorskip("flint")
    assert str(newton_schulz_monotone.on(WITNESS, "r^2", rigorous=rigorous).rigour) == "refuted"


@settings(max_examples=30)
@given(instances(powers(2.0, 2.0), least=2))
def test_steps_with_an_increasing_cubic_keep_the_order(instance):
    """(3x − x³)/2 increases on [0, 1]: the margin finds nothing against it."""

    def cubic(case):
        g = case.spectrum(case.G)
        image = newton_schulz(g / norm(g)[:, None], 5, (1.5, -0.5, 0.0))
        return (image[:, :-1] - image[:, 1:]).amin(-1)

    assert not replace(newton_schulz_monotone, margin=cubic).check(instance).violated.any()


def test_the_polynomial_by_hand():
    found = newton_schulz(Ball.of(1.0), steps=1)
    assert abs(float(found.middle) - (3.4445 - 4.7750 + 2.0315)) <= 1e-15
