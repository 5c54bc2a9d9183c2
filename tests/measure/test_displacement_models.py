"""Displacements in models that compute in place, and in those whose passes would write into their buffers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from tests.measure.test_displacement import directions, prepared, same, state


class InPlace(nn.Module):
    """A residual, its activation and sum in place where that is asked for: the sum takes an input that a gradient in
    `up` would need."""

    def __init__(self, activation: Callable[[Tensor], Tensor], inplace: bool):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.up, self.down, self.last = (nn.Linear(4, 4) for _ in range(4))
        self.activation, self.inplace = activation, inplace

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        change = self.down(self.activation(self.up(x)))
        x = x.add_(change) if self.inplace else x + change
        return self.last(x)


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("name", ["first", "up", "down", "last"])
@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), torch.relu_])
def test_what_follows_a_layer_may_be_in_place(activation: Any, name: str, looped: bool) -> None:
    def loss(model: Any, x: Tensor) -> Tensor:
        return model(x).square().sum(-1)

    x, delta = directions(3, 5, 4), directions(2, 3, 5, 4, seed=1)
    bases, found = [], []
    for inplace in (True, False):
        model = InPlace(activation if inplace else torch.relu, inplace).double()
        network, layer = prepared(model, name, loss, looped=looped)
        bases.append(network.base(layer, x, alone=True))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="displacements pass one by one")
            found.append(network.remainders(layer, x, bases[-1], delta))
        assert network.looped == (looped or (inplace and name in ("up", "down")))  # lanes added into what all share
    torch.testing.assert_close(*found, rtol=0, atol=0)
    for what in ("y", "u", "g", "terms"):
        torch.testing.assert_close(*(getattr(base, what) for base in bases), rtol=0, atol=0)


class Normed(nn.Module):
    """Batch normalisation and dropout, in training mode; it counts its calls by a new tensor each time."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.norm, self.drop = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return self.drop(self.norm(self.a(x).mT).mT)


def by_modules(model: Any, x: Tensor) -> Tensor:
    return model.drop(model.norm(model.a(x).mT).mT).square().sum((1, 2))[:, None]


def by_forward(model: Any, x: Tensor) -> Tensor:
    return model(x).square().sum((1, 2))[:, None]


@pytest.mark.filterwarnings("ignore:displacements pass one by one")
@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("loss", [by_modules, by_forward])
def test_no_buffer_changes_however_the_loss_reaches_the_model(loss: Any, dtype: torch.dtype | None) -> None:
    model = Normed().train()
    x = directions(1, 5, 4).to(dtype or torch.float32)
    before = state(model)
    network, layer = prepared(model, "a", loss, seed=3, dtype=dtype)
    base = network.base(layer, x, alone=True)
    assert base.y.dtype == x.dtype
    first, _ = network.remainders(layer, x, base, directions(2, *base.y.shape).to(x))
    same(before, state(model))
    again, _ = network.remainders(layer, x, base, directions(2, *base.y.shape).to(x))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    two = x.repeat(2, 1, 1)
    with pytest.raises(InputError, match="batch normalisation in training mode"):
        network.base(layer, two, alone=True)
    same(before, state(model))
