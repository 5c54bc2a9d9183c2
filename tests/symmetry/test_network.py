"""The symmetry of a network: how many factors its curvature has, by three counts that nobody derives from another."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import nn

from icm.errors import InputError
from icm.symmetry.commutant import dimension, generators
from icm.symmetry.network import Network
from tests.symmetry.by_hand import counting_rule, group

SMALL = [
    Network(widths, activation, bias)
    for depth in range(1, 5)
    for widths in itertools.product((1, 2, 3), repeat=depth + 1)
    for activation in ("tanh", "relu")
    for bias in (False, True)
]


def test_every_small_network_has_as_many_factors_as_the_commutant_has_dimensions():
    wrong = [n for n in SMALL if not n.factor_count == counting_rule(n) == dimension(n)]
    assert not wrong


@pytest.mark.parametrize(
    ("widths", "bias", "permutation", "signed"),
    [((2, 3, 2), False, 32, 16), ((2, 3, 3, 2), False, 44, 9), ((2, 3, 2), True, 74, 29), ((2, 2, 2, 1), True, 75, 15)],
)
def test_the_counts_known_from_elsewhere(widths, bias, permutation, signed):
    assert Network(widths, "relu", bias).factor_count == permutation
    assert Network(widths, "tanh", bias).factor_count == signed


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_count_is_the_mean_squared_trace_of_the_group(activation, bias):
    network = Network((2, 3, 2, 1), activation, bias)
    traces = torch.stack([P.trace() for P in group(network)])
    assert float(traces.square().mean()) == network.factor_count


@pytest.mark.parametrize(("activation", "module"), [("tanh", nn.Tanh()), ("relu", nn.ReLU()), ("linear", None)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_network_is_read_off_a_module(activation, module, bias):
    layers = [nn.Linear(4, 5, bias=bias), module, nn.Linear(5, 6, bias=bias), module, nn.Linear(6, 3, bias=bias)]
    network = Network.of(nn.Sequential(*[layer for layer in layers if layer is not None]))
    assert network == Network((4, 5, 6, 3), activation, bias)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(5, 2)), "takes 5 inputs"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "LayerNorm"),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), "relu"),
        (nn.Sequential(nn.Tanh()), "0 linear layers"),
        (nn.Sequential(nn.Linear(3, 4), nn.Hardtanh(-1.0, 2.0), nn.Linear(4, 2)), "Hardtanh"),
    ],
)
def test_what_is_no_chain_is_refused(model, said):
    with pytest.raises(InputError, match=said):
        Network.of(model)


def test_biases_may_differ_between_layers_and_dropout_be_between():
    model = nn.Sequential(nn.Linear(3, 4), nn.Hardtanh(-2.0, 2.0), nn.Dropout(0.1), nn.Linear(4, 2, bias=False))
    network = Network.of(model)
    assert network == Network((3, 4, 2), "hardtanh", (True, False))
    assert [axes.name for axes in network.parameters] == ["W1", "b1", "W2"]
    assert network.factor_count == counting_rule(network) == dimension(network)
    assert Network((3, 4, 2), "tanh", (True, True)) == Network((3, 4, 2), "tanh", True)
    with pytest.raises(InputError, match="each of 2 layers"):
        Network((3, 4, 2), "tanh", (True,))


@pytest.mark.parametrize("widths", [(3,), (3, 0, 2), (True, 2)])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(InputError, match="widths"):
        Network(widths)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="tanh"):
        Network((2, 3, 2), "thanh")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_flipping_or_swapping_neurons_does_not_change_what_the_network_computes(activation):
    network = Network((3, 4, 5, 2), activation, bias=True)
    rng = torch.Generator().manual_seed(0)
    theta = torch.randn(network.size, dtype=torch.float64, generator=rng)
    x = torch.randn(7, 3, dtype=torch.float64, generator=rng)

    def output(vector):
        W1, b1, W2, b2, W3, b3 = network.split(vector)
        act = torch.tanh if activation == "tanh" else torch.relu
        return act(act(x @ W1.mT + b1) @ W2.mT + b2) @ W3.mT + b3

    P = functools.reduce(torch.matmul, generators(network))
    assert torch.allclose(output(P @ theta), output(theta), atol=1e-12)
