"""Numbers that carry a gradient are floats to everyone, and every way of building an H keeps their tensors."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch

import icm
from icm.curvature.parameter import Parameter, number_of, parameters, plain, same
from icm.errors import CurvatureError, InputError


def tracked(x: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype, requires_grad=True)


def test_a_parameter_is_its_float():
    p = number_of(tracked(2.5))
    assert isinstance(p, Parameter)
    assert (p, hash(p), str(p), repr(p), f"{p:g}") == (2.5, hash(2.5), "2.5", "2.5", "2.5")
    assert (math.sqrt(p), p > 2, int(p), -p) == (math.sqrt(2.5), True, 2, -2.5)
    assert torch.equal(torch.ones(2) * p, torch.full((2,), 2.5))
    assert torch.equal(p * torch.ones(2), torch.full((2,), 2.5))


def test_numbers_without_gradient_stay_plain():
    for x in (2, 2.5, torch.tensor(2.5), torch.tensor([2.5]), torch.tensor(2), True):
        assert type(number_of(x)) is float
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        number_of(torch.ones(2, requires_grad=True))


def test_one_entry_of_any_shape_and_float32_tensors_reach_their_owner():
    x = tracked(3.0, torch.float32)
    doubled: Any = 2 * number_of(x.reshape(1, 1))
    doubled.tensor.backward()
    assert x.grad is not None
    assert (x.grad.dtype, float(x.grad)) == (torch.float32, 2.0)


@pytest.mark.parametrize(
    "form",
    [
        lambda p, q: p + q,
        lambda p, q: p + 2,
        lambda p, q: 2 + p,
        lambda p, q: p - q,
        lambda p, q: p - 2,
        lambda p, q: 2 - p,
        lambda p, q: p * q,
        lambda p, q: 3 * p,
        lambda p, q: p / q,
        lambda p, q: p / 3,
        lambda p, q: 3 / p,
        lambda p, q: p**q,
        lambda p, q: p**3.0,
        lambda p, q: 3.0**p,
        lambda p, q: -p,
    ],
)
def test_arithmetic_agrees_with_floats_and_with_autograd(form):
    x, y = tracked(1.7), tracked(0.6)
    found = form(number_of(x), number_of(y))
    assert isinstance(found, Parameter)
    assert float(found) == form(1.7, 0.6)  # the float's own digits
    ours = torch.autograd.grad(found.tensor, (x, y), allow_unused=True)
    theirs = torch.autograd.grad(form(x, y), (x, y), allow_unused=True)
    assert ours == theirs


def test_overflow_is_left_to_the_checks_of_floats():
    p: Any = number_of(tracked(1e200))
    assert p * 1e200 == math.inf
    with pytest.raises(CurvatureError, match="beyond float64"):
        icm.Power(3.0, scale=1e200) * tracked(1e200)
    with pytest.raises(ZeroDivisionError):
        p / 0.0
    with pytest.raises(TypeError):
        p + "1"


def test_copies_keep_the_tensor_and_pickles_the_number():
    H = icm.Power(tracked(3.0))
    assert copy.deepcopy(H).exponent is H.exponent
    assert copy.copy(H.exponent) is H.exponent
    again = pickle.loads(pickle.dumps(H))
    assert type(again.exponent) is float
    assert again == H


BUILDS = {
    "Power": (lambda a: icm.Power(a), 3.0, {"exponent"}),
    "a*Power": (lambda a: a * icm.Power(3.0), 0.5, {"scale"}),
    "Power*a": (lambda a: icm.Power(3.0) * a, 0.5, {"scale"}),
    "dilated": (lambda a: icm.Power(3.0).dilate(a), 0.5, {"scale"}),
    "dilated exponent": (lambda a: icm.Power(a, 2.0).dilate(0.7), 3.0, {"exponent", "scale"}),
    "Kink": (lambda a: icm.Kink(radius=a, jump=a), 0.5, {"radius", "jump"}),
    "Kink dilated": (lambda a: icm.Kink(2.0).dilate(a), 0.5, {"radius", "jump"}),
    "Wall": (lambda a: icm.Wall(a), 2.0, {"radius"}),
    "Wall dilated": (lambda a: icm.Wall(2.0).dilate(a), 2.0, {"radius"}),
    "Wall multiplied": (lambda a: a * icm.Wall(2.0), 2.0, set()),
    "Exponential": (lambda a: icm.Exponential(a, scale=a), 2.0, {"rate", "scale"}),
    "sum": (lambda a: 0.5 * icm.Power(2.0) + a * icm.Kink(1.0), 2.0, {"jump"}),
    "sum multiplied": (lambda a: a * (icm.Power(2.0) + icm.Kink(1.0)), 2.0, {"scale", "jump"}),
    "merged": (lambda a: icm.Power(2.0) + a * icm.Power(2.0), 2.0, {"scale"}),
    "Custom": (lambda a: a * icm.Custom(lambda r: r**2 + r**4).dilate(a), 2.0, {"scale", "stretch_factor"}),
}


@pytest.mark.parametrize("name", BUILDS)
def test_every_construction_keeps_the_tensor(name):
    build, value, names = BUILDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        H, number = build(tracked(value)), build(value)
    assert {field for _, field, _ in parameters(H)} == names
    r = torch.linspace(0, 1.9, 7, dtype=torch.float64)
    assert str(H) == str(number)
    if name != "Custom":  # equality of functions is identity, and `dilate` wrote its own
        assert (H, hash(H)) == (number, hash(number))
        assert icm.parse(str(H)) == H
    for found, expected in ((H(r), number(r)), (H.slope(r), number.slope(r)), (H.second(r), number.second(r))):
        assert torch.equal(found, expected)
        assert not found.requires_grad
    assert list(parameters(plain(H))) == []
    assert str(plain(H)) == str(H)
    assert (plain(H) is H) == (not names)


def test_merging_never_ties_a_moving_number_to_a_still_one():
    a = tracked(2.0)
    moving = icm.Power(a)
    assert len((moving + icm.Power(2.0)).parts) == 2
    assert len((icm.Kink(a) + icm.Kink(2.0)).parts) == 2
    assert len((icm.Exponential(a) + icm.Exponential(2.0)).parts) == 2
    assert len((moving + 3 * moving).parts) == 1  # one tensor: they move together
    assert not same(moving.exponent, icm.Power(2.0 * tracked(1.0)).exponent)
    assert same(1.5, 1.5)


def test_refusals_name_the_remedy():
    values = torch.tensor([1.0, 4.0], requires_grad=True)
    with pytest.raises(CurvatureError, match=r"values\.detach"):
        icm.Tabulated([1.0, 2.0], values)
    table = icm.Tabulated([1.0, 2.0], [1.0, 4.0])
    for build in (lambda: tracked(2.0) * table, lambda: table.dilate(tracked(2.0))):
        with pytest.raises(CurvatureError, match="no gradient is kept"):
            build()
    with pytest.raises(CurvatureError, match="convex"):
        icm.Power(tracked(0.5))
    with pytest.raises(CurvatureError, match="≥ 0"):
        tracked(-1.0) * icm.Power(2.0)
    with pytest.raises(CurvatureError, match="give a number"):
        icm.Power(torch.ones(2, requires_grad=True))
    with pytest.raises(TypeError):
        icm.Power(2.0) * torch.ones(2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_is_refused():
    from torch.autograd import forward_ad

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(2.0), torch.tensor(1.0))
        with pytest.raises(InputError, match="reverse mode"):
            icm.Power(2.0) * dual
