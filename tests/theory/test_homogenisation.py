"""Theorem 1 as property tests: order, homogenisation and its reversal."""

from __future__ import annotations

from hypothesis import given, settings

from icm.theory.claims.homogenisation import homogenisation, order, reversal
from tests.theory.strategies import instances, smooth, sub_quadratic, super_quadratic


@settings(max_examples=60)
@given(instances(super_quadratic, least=2))
def test_super_quadratic_growth_homogenises(instance):
    assert not homogenisation.check(instance).violated.any()


@settings(max_examples=60)
@given(instances(sub_quadratic, least=2))
def test_sub_quadratic_growth_does_the_reverse(instance):
    assert not reversal.check(instance).violated.any()


@settings(max_examples=40)
@given(instances(smooth, least=2))
def test_order_is_kept(instance):
    assert not order.check(instance).violated.any()
