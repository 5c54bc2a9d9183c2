"""Steps of a learnt Schatten p: their shape, their derivative, and where a goes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from icm.errors import InputError
from icm.optim import Layout, SteepestDescent, Tuned
from icm.optim.scaling import length
from tests.optim.steps import drifting, far, moved, normal, parameter, polar, take, zeros

BARE: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "nesterov": False}


def shaped(G: torch.Tensor, a: float) -> torch.Tensor:
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    t = g**a / (g**a).norm()
    return length("spectral", *G.shape) * (U * t) @ Vh


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_the_step_is_the_power_of_the_gradient_of_one_length(shape: tuple[int, int], a: float) -> None:
    G = normal(1, *shape)
    step = moved(lambda p: SteepestDescent(p, norm=Tuned(start=a), **BARE), G)
    assert far(step, -shaped(G, a)) < 1e-12
    if a == 0:
        assert far(step, -math.sqrt(shape[0] / shape[1]) * polar(G)) < 1e-12
    if a == 1:
        assert far(step, -length("spectral", *shape) * G / G.norm()) < 1e-12


def test_a_follows_the_derivative_of_the_next_loss() -> None:
    """By differences of the step in a, against the change of a after the second gradient."""
    first, second, p = normal(1, 5, 8), normal(2, 5, 8), zeros(5, 8)
    optimizer = SteepestDescent([p], norm=Tuned(rate=0.01, start=0.4), **BARE)
    take(optimizer, [p], [first])
    take(optimizer, [p], [second])
    slope = (shaped(first, 0.4 + 1e-5) - shaped(first, 0.4 - 1e-5)) / 2e-5
    change = 0.01 * (second * slope).sum() / (second.norm() * length("spectral", 5, 8))
    assert float(optimizer.state[p]["shape"] - 0.4) == pytest.approx(float(change), rel=1e-6)
    (q,) = optimizer.exponents()["parameter 0"]
    assert q == pytest.approx((1.4 + float(change)) / (0.4 + float(change)), rel=1e-9)


@pytest.mark.parametrize(("towards", "end"), [("small", 0.0), ("large", 1.0)])
def test_a_goes_to_where_the_loss_falls(towards: str, end: float) -> None:
    """The gradient that a step is made of has singular values 1 and 0.1; the one that judges it sees one of them."""
    U, V = torch.linalg.qr(normal(1, 4, 4)).Q, torch.linalg.qr(normal(2, 4, 4)).Q
    made = (U * torch.tensor([1.0, 1.0, 0.1, 0.1], dtype=torch.float64)) @ V.mT
    kind = [0.0, 0.0, 1.0, 1.0] if towards == "small" else [1.0, 1.0, 0.0, 0.0]
    judged = (U * torch.tensor(kind, dtype=torch.float64)) @ V.mT
    p = zeros(4, 4)
    norm = Tuned(rate=0.5)
    optimizer = SteepestDescent([p], norm=norm, **BARE)
    for _ in range(20):
        take(optimizer, [p], [made])
        p.grad = judged
        norm.learn([judged[None]], [optimizer.state[p]])
        optimizer.state[p].pop("slope")
    assert float(optimizer.state[p]["shape"]) == end
    assert optimizer.exponents()["parameter 0"] == [math.inf if end == 0 else 2.0]


def test_every_matrix_of_a_parameter_has_its_own() -> None:
    p, q = nn.Parameter(torch.zeros(12, 6, dtype=torch.float64)), nn.Parameter(torch.zeros(12, 6, dtype=torch.float64))
    optimizer = SteepestDescent([{"params": [p, q], "layout": Layout(parts=(4, 8))}], 0.1, Tuned(rate=0.3))
    for gradients in zip(drifting(1, 6, 12, 6), drifting(2, 6, 12, 6), strict=True):
        take(optimizer, [p, q], gradients)
    found = optimizer.exponents()
    assert list(found) == ["parameter 0", "parameter 1"]
    assert len({round(x, 9) for one in found.values() for x in one}) == 4
    alone = parameter(9, 8, 6)
    other = SteepestDescent([alone], 0.1, Tuned(rate=0.3))
    for gradient in drifting(2, 6, 12, 6):
        take(other, [alone], [gradient[4:]])
    assert other.exponents()["parameter 0"][0] == pytest.approx(found["parameter 1"][1], rel=1e-9)


def test_a_gradient_of_low_rank_stays_so_and_of_0_moves_nothing() -> None:
    G = normal(1, 6, 2) @ normal(2, 2, 5)
    step = moved(lambda p: SteepestDescent(p, norm=Tuned(start=0.1), **BARE), G)
    assert int(torch.linalg.matrix_rank(step)) == 2
    assert not moved(lambda p: SteepestDescent(p, norm=Tuned(), **BARE), torch.zeros(4, 4)).any()


@pytest.mark.parametrize("options", [{"rate": -1.0}, {"start": 1.5}, {"scaling": "none"}, {"rate": math.inf}])
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Tuned(**options)


@pytest.mark.parametrize(
    "options", [{"length": "dual"}, {"mode": "constrained"}, {"combine": "rss"}, {"escalator": 1.0}]
)
def test_with_what_would_change_its_length_it_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Tuned"):
        SteepestDescent([parameter(1, 3, 3)], 0.1, Tuned(), **options)
