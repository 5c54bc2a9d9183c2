"""How much R varies over a spectrum, and how near that leaves the update to the gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from icm.curvature import Custom, Power, parse
from icm.rigour import Rigour
from icm.sphere import mean, slopes
from icm.theory.claims.cap import alpha, spread
from icm.theory.claims.concentration import (
    above_extremes,
    angle,
    below_angle,
    below_extremes,
    below_rank,
    below_steep,
    concentration_angle,
    concentration_extremes,
    concentration_spread,
    concentration_spread_steep,
    concentration_steep,
    concentration_turn,
    concentration_variance,
    kantorovich,
    layers,
    shares,
    variance,
)
from icm.theory.instances import Instances, diagonal
from tests.theory.strategies import instances, powers, smooth


@settings(max_examples=20)
@given(instances(smooth))
def test_the_variance_of_the_law(instance):
    assert not concentration_variance.check(instance).violated.any()


@pytest.mark.parametrize(("n", "sigma"), [(2, [1.0, 0.5]), (5, [1.0, 0.9, 0.3, 0.1, 0.0]), (9, [1.0, 0.7])])
def test_the_variance_by_a_rule_that_knows_no_powers(n, sigma):
    x = torch.tensor(sigma, dtype=torch.float64)
    first, second = (float(mean(Custom(lambda r, q=q: r**q), x, n)) for q in (2, 4))
    rank = float((x**2).sum() ** 2 / (x**4).sum())
    assert second / first**2 - 1 == pytest.approx(2 / (n + 2) * (n / rank - 1), rel=1e-9)


@settings(max_examples=25)
@given(instances(powers(2.0, 4.0)))
def test_gentle_powers_spread_by_less_than_alpha_over_srank(instance):
    for claim in (concentration_spread, concentration_extremes, concentration_angle):
        assert not claim.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(4.0, 8.0)))
def test_steep_powers_spread_by_less_than_their_own_bound(instance):
    assert not concentration_steep.check(instance).violated.any()
    assert not concentration_turn.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(powers(1.05, 2.0)))
def test_powers_below_two_spread_by_no_more_either(instance):
    assert not concentration_extremes.check(instance).violated.any()


@settings(max_examples=20)
@given(instances(smooth))
def test_ratios_bound_the_angle(instance):
    assert not angle.check(instance).violated.any()


def test_steep_powers_spread_by_more_than_alpha_over_srank():
    found = concentration_spread_steep.on(np.diag([1.0, 0.1, 0.01]), "r^8")
    assert found.rigour is Rigour.REFUTED
    assert found.margin == pytest.approx(-0.141, abs=1e-3)


def test_the_quartic_attains_the_bound_for_the_extremes():
    found = concentration_extremes.on(np.diag([1.0, 0.7, 0.2, 1e-3]), "3*r^4")
    assert found.ties == 1


def test_a_wide_layer():
    made = layers(lambda rng: Power(3.0), share=1.0)(np.random.default_rng(0), 2)
    assert made.n >= 64
    for claim in (concentration_spread, concentration_extremes, concentration_angle):
        checked = claim.check(made)
        assert (checked.margin > checked.error).all()


def spiked(H):
    """Gradients of one, two and three sizes."""
    g = torch.tensor([[1.0, 1e-4, 1e-5], [1.0, 1.0, 1e-4], [1.0, 0.5, 0.1]], dtype=torch.float64)
    return Instances(diagonal(g, 3, 3), parse(H))


def bulk(H):
    """One large singular value and √3 as much ‖Q‖² in the others: it nearly attains the bounds for the quartic."""
    H, sigma = parse(H), torch.full((256,), (3**0.5 / 255) ** 0.5, dtype=torch.float64)
    sigma[0] = 1.0
    return Instances(diagonal(slopes(H, sigma, 256)[None], 256, 256), H)


@pytest.mark.parametrize(
    ("claim", "wrong", "H"),
    [
        (concentration_variance, lambda case: variance(case) + 1e-6, "r^3"),
        (concentration_spread, lambda case: 0.9 * alpha(case) / shares(case)[1] - (spread(case) - 1.0), "r^3"),
        (concentration_spread, lambda case: below_rank(case) - 0.01, "r^4"),
        (concentration_extremes, lambda case: below_extremes(case) - 0.01, "r^4"),
        (concentration_extremes, lambda case: below_extremes(case) - 0.5, "r^1.5"),
        (concentration_turn, lambda case: above_extremes(case) - 0.01, "r^4"),
        (concentration_steep, lambda case: below_steep(case) - 0.01, "r^6"),
    ],
)
def test_a_wrong_bound_is_refuted(claim, wrong, H):
    assert not claim.check(spiked(H)).violated.any()
    assert replace(claim, margin=wrong).check(spiked(H)).violated.any()


@pytest.mark.parametrize(("claim", "bound"), [(concentration_angle, below_angle), (angle, kantorovich)])
def test_a_smaller_angle_is_refuted(claim, bound):
    assert not claim.check(bulk("r^4")).violated.any()
    assert replace(claim, margin=lambda case: bound(case) - 0.03).check(bulk("r^4")).violated.all()


def test_the_angle_is_attained_by_two_ratios():
    """Ratios 1 and 1+ε that share ⟨g, σ⟩ equally attain ε/(2+ε), so only the spread leaves room."""
    ratio = torch.tensor([1.5, 1.0], dtype=torch.float64)
    sigma = ratio**-0.5
    g = ratio * sigma
    cosine = (g * sigma).sum() / (g.norm() * sigma.norm())
    assert (1 - cosine**2).sqrt().item() == pytest.approx(0.5 / 2.5, rel=1e-12)


def test_it_is_enclosed():
    pytest.importorskip("flint")
    assert concentration_spread.on(np.diag([1.0, 0.3]), "r^3", rigorous=True).rigour is Rigour.ENCLOSED
