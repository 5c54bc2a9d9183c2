"""A claim on instances: what counts against it, what is a tie, what is open, and who misses which hypothesis."""

from __future__ import annotations

import math

import pytest
import torch

import icm
from icm.errors import InputError
from icm.theory import Ball, Case, Claim, Instances, Rigour
from icm.theory.claims.homogenisation import homogenisation

H = icm.Power(3.0)


def batch(*figures: float) -> Instances:
    return Instances(torch.tensor(figures, dtype=torch.float64)[:, None, None], H)


def toy(margin, **fields) -> Claim:
    return Claim("toy", "entries are at least 0", margin, **fields)


def entries(case: Case, error: float = 0.0) -> Ball:
    return Ball(case.G[:, 0, 0], torch.tensor(error, dtype=torch.float64))


def test_an_instance_counts_against_it_only_beyond_its_error():
    checked = toy(lambda case: entries(case, 1e-8)).check(batch(1.0, 1e-9, -1e-9, -1e-7))
    assert checked.violated.tolist() == [False, False, False, True]
    assert checked.tied.tolist() == [False, True, True, False]
    assert not checked.open.any()


def test_what_is_not_known_well_enough_is_open():
    checked = toy(lambda case: entries(case, 0.1)).check(batch(1.0, 0.01, -0.01, -1.0, math.nan, math.inf, -math.inf))
    assert checked.open.tolist() == [False, True, True, False, True, False, False]
    assert checked.violated.tolist() == [False, False, False, True, False, False, True]


def test_an_equality_is_a_deviation_of_either_sign():
    checked = toy(lambda case: entries(case, 1e-8), equality=True).check(batch(0.0, 1e-9, 1e-7, -1e-7))
    assert checked.violated.tolist() == [False, False, True, True]
    assert checked.tied.tolist() == [True, True, False, False]
    wide = toy(lambda case: entries(case, 0.1), equality=True).check(batch(0.0, 1.0))
    assert (wide.open.tolist(), wide.violated.tolist()) == ([True, False], [False, True])


def test_a_plain_tensor_is_known_to_the_slack_and_sampled():
    checked = toy(lambda case: case.G[:, 0, 0], slack=1e-3).check(batch(1.0, -5e-4, -2e-3, math.nan))
    assert checked.violated.tolist() == [False, False, True, False]
    assert checked.open.tolist() == [False, True, False, True]  # 1e-3 is more than the resolution
    assert checked.rigour is Rigour.SAMPLED


def test_who_misses_a_hypothesis_does_not_count():
    hypotheses = {"small": lambda case: case.G[:, 0, 0] < 1, "always": lambda case: True}
    checked = toy(entries, hypotheses=hypotheses).check(batch(-2.0, 2.0, -3.0))
    assert checked.met.tolist() == [True, False, True]
    assert checked.missed == {"small": 1, "always": 0}
    assert checked.violated.tolist() == [True, False, True]


def test_a_margin_of_the_wrong_shape_is_named():
    with pytest.raises(InputError, match=r"claim 'toy' has shape \(2, 1\) for 2 instances.*amin"):
        toy(lambda case: case.drawn).check(batch(1.0, 2.0))


def test_one_instance_of_ones_own():
    held = homogenisation.on([[2.0, 0.0], [0.0, 1.0]], "r^3")
    assert (held.rigour, held.scope) == (Rigour.CERTIFIED, "this instance")
    assert held.margin > 0.1
    enclosed = homogenisation.on([[2.0, 0.0], [0.0, 1.0]], "r^3", rigorous=True)
    assert enclosed.rigour is Rigour.ENCLOSED
    assert abs(enclosed.margin - held.margin) < 1e-12
    missed = homogenisation.on([[2.0, 0.0], [0.0, 1.0]], "r^1.5")
    assert missed.rigour is Rigour.INCONCLUSIVE
    assert "hypotheses not met: H is super-quadratic" in missed.note
    assert toy(entries).on([[-1.0]], H).rigour is Rigour.REFUTED
    with pytest.raises(InputError, match="one matrix at a time"):
        homogenisation.on(torch.ones(2, 2, 2), H)


def test_extra_data_reaches_the_margin():
    claim = toy(lambda case: Ball.of(case["t"]) - case.G[:, 0, 0])
    assert claim.on([[1.0]], H, t=2.0).margin == 1.0


def test_instances_come_back_from_their_text():
    G = torch.tensor([[[0.1, 1 / 3], [1e-300, -7.0]]], dtype=torch.float64)
    instance = Instances(G, icm.parse("0.3*r^2.5 + 2*kink(0.7)"), {"t": torch.tensor([0.1])}, ("corner",))
    back = Instances.from_dict(instance.to_dict())
    assert torch.equal(back.G, G)
    assert str(back.H) == str(instance.H)
    assert (back.origin, float(back.extra["t"])) == (("corner",), float(torch.tensor(0.1)))
    assert "2×2" in instance.describe()
    with pytest.raises(InputError, match="a batch of 2"):
        batch(1.0, 2.0).to_dict()
    custom = Instances(G, icm.Custom(lambda r: r**2, name="mine"))
    with pytest.raises(InputError, match="no text"):
        custom.to_dict()
