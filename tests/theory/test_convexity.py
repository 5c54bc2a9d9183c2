"""Convexity of F as a property test."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from icm.theory.claims.convexity import chord, convexity, segments
from tests.theory.strategies import instances, kinked, smooth
from tests.theory.strategies_matrices import batch, with_extra


@settings(max_examples=40)
@given(with_extra(instances(smooth), segments))
def test_smooth_programs_are_convex(instance):
    assert not convexity.check(instance).violated.any()


@settings(max_examples=20)
@given(with_extra(instances(kinked), segments))
def test_programs_with_kinks_are_convex(instance):
    assert not convexity.check(instance).violated.any()


def test_a_chord_that_is_a_little_too_low_is_noticed():
    lowered = replace(convexity, margin=lambda case: chord(case) - 1e-9)
    assert any(lowered.check(batch(convexity, seed, 100)).violated.any() for seed in range(4))


def test_ends_with_each_others_weight_are_no_bound():
    def swapped(case):
        P, Q, t = case["P"], case["Q"], case["t"]
        between = (1 - t)[:, None, None] * P + t[:, None, None] * Q
        first, second, there = (case.mean(case.spectrum(X)) for X in (P, Q, between))
        return t * first + (1 - t) * second - there

    assert replace(convexity, margin=swapped).check(batch(convexity, 2, 50)).violated.any()
