"""Ensembles against single models: torch's own modules, autograd and dense Hessians."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icm.errors import InputError
from icm.symmetry import ensembles
from icm.symmetry.ensembles import Data, averaged, forward, gradients, hessian, initial, losses, teacher_student
from icm.symmetry.network import Network
from tests.symmetry import by_hand
from tests.symmetry.drawn import normal

SMALL = [Network((2, 3, 2), "tanh"), Network((2, 3, 2), "relu", True), Network((2, 2, 3, 1), "softplus", True)]
MODULES = {
    "linear": nn.Identity, "tanh": nn.Tanh, "softsign": nn.Softsign, "hardtanh": nn.Hardtanh, "relu": nn.ReLU,
    "gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}  # fmt: skip


def some_data(network, count=11, seed=7):
    return Data(normal(seed, count, network.widths[0]), normal(seed + 1, count, network.widths[-1]))


def one(tensors, i):
    return [tensor[i] for tensor in tensors]


@pytest.mark.parametrize("activation", MODULES)
def test_a_network_computes_what_torchs_modules_do(activation):
    model = nn.Sequential(
        nn.Linear(3, 4), MODULES[activation](), nn.Linear(4, 5, bias=False), MODULES[activation](), nn.Linear(5, 2)
    ).double()
    network = Network.of(model)
    assert network.biases == (True, False, True)
    x = normal(1, 6, 3)
    assert torch.allclose(forward([p.detach() for p in model.parameters()], x, network), model(x), rtol=1e-14)


@pytest.mark.parametrize("network", SMALL, ids=str)
@pytest.mark.parametrize("chunk", [None, 2])
def test_losses_and_gradients_are_those_of_each_model(network, chunk):
    data, tensors = some_data(network), initial(network, 5, seed=1)
    found, values = gradients(tensors, data, network, chunk), losses(tensors, data, network, chunk)
    for i in range(5):
        mine = [t.clone().requires_grad_() for t in one(tensors, i)]
        error = (forward(mine, data.x, network) - data.y).square().sum(1).mean() / 2
        assert float(values[i]) == pytest.approx(float(error.detach()), rel=1e-13)
        for g, wanted in zip(one(found, i), torch.autograd.grad(error, mine), strict=True):
            assert torch.allclose(g, wanted, atol=1e-14)


def test_weights_at_initialisation_have_variance_one_over_fan_in():
    network = Network((4, 9, 3), "tanh", True)
    drawn = initial(network, 4000, seed=3)
    for tensor, fan_in in zip(drawn, (4, 4, 9, 9), strict=True):
        assert float(tensor.var()) * fan_in == pytest.approx(1.0, abs=5 * (2 / tensor.numel()) ** 0.5)
        assert float(tensor.mean()) == pytest.approx(0.0, abs=5 / (fan_in * tensor.numel()) ** 0.5)
    assert all(torch.equal(a, b) for a, b in zip(drawn, initial(network, 4000, seed=3), strict=True))
    assert not torch.equal(drawn[0], initial(network, 4000, seed=4)[0])


def test_data_has_the_spectrum_asked_for_and_one_teacher_for_all_sets():
    network = Network((6, 5, 3), "tanh")
    few, many = teacher_student(network, [50, 40_000], seed=2, decades=2.0)
    w = torch.linalg.eigvalsh(many.x.mT @ many.x / len(many.x)).flip(0)
    assert torch.allclose(w, torch.logspace(0, -2, 6, dtype=torch.float64), rtol=0.05)
    # One teacher: where inputs agree outputs do, and the second set's least squares map fits the first.
    linear = Network((6, 5, 3), "linear")
    few, many = teacher_student(linear, [50, 200], seed=2)
    assert torch.allclose(few.x @ (torch.linalg.pinv(many.x) @ many.y), few.y, atol=1e-9)
    again = teacher_student(linear, [50, 200], seed=2)
    assert torch.equal(again[1].y, many.y)


def dense_hessian(tensors, data, network):
    flat = network.join(tensors)
    return torch.autograd.functional.hessian(lambda v: ensembles.loss(network.split(v), data, network), flat)


@pytest.mark.parametrize("network", SMALL, ids=str)
def test_the_hessian_is_the_dense_one_averaged_over_the_group(network):
    data, tensors = some_data(network), initial(network, 2, seed=1)
    found = hessian(tensors, data, network, chunk=1)
    for i in range(2):
        H = torch.as_tensor(dense_hessian(one(tensors, i), data, network))
        every = list(by_hand.group(network))
        wanted = torch.stack([P @ H @ P.mT for P in every]).mean(0)
        mine = type(found)(network, {label: M[i] for label, M in found.blocks.items()})
        assert torch.allclose(mine.dense(), wanted, atol=1e-13)


@pytest.mark.parametrize("network", SMALL, ids=str)
def test_random_probes_are_unbiased(network):
    """The mean over 500 draws is within 6 standard errors of the exact traces, entry by entry."""
    data, tensors = some_data(network), initial(network, 1, seed=1)
    exact = hessian(tensors, data, network)
    drawn = hessian([t.expand(500, *t.shape[1:]) for t in tensors], data, network, probes=2, seed=3, chunk=250)
    for label, M in exact.blocks.items():
        error = drawn.blocks[label].std(0) / 500**0.5
        off = averaged(drawn).blocks[label] - M[0]
        assert bool((off.abs() <= 6 * error + 1e-12 * M.abs().max()).all())


def test_no_probes_are_refused():
    network = SMALL[0]
    with pytest.raises(InputError, match="probes=0"):
        hessian(initial(network, 1, 0), some_data(network), network, probes=0)
