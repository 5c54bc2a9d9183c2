"""H = a r² + b r⁴ and its one equation in D."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icm.theory.claims.quartic import deviation, quartic, quartic_with_square
from tests.theory.strategies import instances, powers
from tests.theory.strategies_matrices import batch

both = st.builds(lambda a, b: a + b, powers(2.0, 2.0), powers(4.0, 4.0))


@settings(max_examples=30)
@given(instances(powers(4.0, 4.0)))
def test_the_fourth_power(instance):
    assert not quartic.check(instance).violated.any()


@settings(max_examples=30)
@given(instances(both))
def test_with_a_square(instance):
    assert not quartic_with_square.check(instance).violated.any()


@pytest.mark.parametrize("claim", [quartic, quartic_with_square])
def test_a_D_off_by_one_percent_is_refuted(claim):
    wrong = replace(claim, margin=lambda case: deviation(case, 0.505))
    assert wrong.check(batch(claim, 0, 50)).violated.any()


def test_hypotheses():
    assert "hypotheses not met" in quartic.on(torch.eye(2), "r^2 + r^4").note
    assert "hypotheses not met" in quartic_with_square.on(torch.eye(2), "r^2 + r^3").note
