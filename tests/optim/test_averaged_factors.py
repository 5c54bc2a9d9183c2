"""The averages and their roots against dense matrices written out."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor, nn

from icm.optim.averaged_factors import inverse_root, whitened
from icm.optim.symo import SymO
from icm.symmetry.factors import factors
from icm.symmetry.network import Network
from tests.optim.steps import normal, take, zeros

NETWORKS = [
    Network((3, 4, 2), "tanh"),
    Network((3, 4, 2), "relu", True),
    Network((2, 3, 4, 2), "relu", (True, False, True)),
]


def made(network: Network, **options: Any) -> tuple[list[nn.Parameter], SymO]:
    params = [zeros(*axes.shape) for axes in network.parameters]
    return params, SymO([{"params": params, "network": network}], 1.0, **options)


def root(Sigma: Tensor, cut: float = 1e-12) -> Tensor:
    w, U = torch.linalg.eigh(Sigma)
    live = w > cut * w[-1]
    return (U[:, live] * w[live] ** -0.5) @ U[:, live].mT


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_steps_are_those_of_the_dense_average(network: Network, damping: float) -> None:
    """Σ̂ = Σ_k (1 − β) β^{t−k} Σ_k/(1 − β^{t+1}), damped by a share of its mean eigenvalue."""
    params, optimizer = made(network, decay=0.8, damping=damping)
    total, eye = torch.zeros(network.size, network.size, dtype=torch.float64), torch.eye(network.size).double()
    for t in range(12):
        before = torch.cat([p.detach().flatten() for p in params])
        G = network.split(normal(t, network.size))
        take(optimizer, params, G)
        total = 0.8 * total + 0.2 * factors(G, network).dense()
        Sigma = total / (1 - 0.8 ** (t + 1))
        wanted = root(Sigma + damping * Sigma.trace() / network.size * eye) @ network.join(G)
        moved = before - torch.cat([p.detach().flatten() for p in params])
        assert float((moved - wanted).norm() / wanted.norm()) < 1e-8


def test_a_frozen_parameter_is_no_part_of_the_network_and_goes_on_where_it_was() -> None:
    """While W2 is frozen W1 moves by its own factor; thawed, W2's average has waited."""
    network = NETWORKS[0]
    params, optimizer = made(network, decay=0.8)
    first = [normal(1, 4, 3), normal(2, 2, 4)]
    take(optimizer, params, first)
    kept = params[1].detach().clone()
    Phi, weight = 0.2 * first[0].mT @ first[0] / 4, 0.2
    for t in range(3):
        before, G = params[0].detach().clone(), normal(10 + t, 4, 3)
        take(optimizer, params, [G, None])
        Phi, weight = 0.8 * Phi + 0.2 * G.mT @ G / 4, 0.8 * weight + 0.2
        wanted = G @ root(Phi / weight)
        assert torch.allclose(before - params[0].detach(), wanted, atol=1e-9)
        assert torch.equal(params[1], kept)
    # Thawed alone: its own average has seen the first gradient and this one.
    H = normal(20, 2, 4)
    take(optimizer, params, [None, H])
    Phi = (0.8 * 0.2 * first[1] @ first[1].mT + 0.2 * H @ H.mT) / 4 / (0.8 * 0.2 + 0.2)
    assert torch.allclose(kept - params[1].detach(), root(Phi) @ H, atol=1e-9)


def test_a_network_whose_second_layer_never_trains_is_its_first() -> None:
    network = NETWORKS[0]
    params, optimizer = made(network)
    params[1].requires_grad_(False)
    G = normal(1, 4, 3)
    take(optimizer, params, [G, normal(2, 2, 4)])
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    assert torch.allclose(params[0].detach(), -2.0 * U @ Vh, atol=1e-13)
    assert float(params[1].detach().abs().max()) == 0


@pytest.mark.parametrize("k", [3, 8, 20])
def test_whitening_is_the_inverse_root_of_the_gram_matrix(k: int) -> None:
    X = normal(1, 8, k)
    Gram = X @ X.mT / 5
    assert torch.allclose(whitened(X, 5, 0.0, 1e-20), root(Gram) @ X, atol=1e-10)
    damping = torch.tensor(0.3).double()
    eye = torch.eye(8).double()
    assert torch.allclose(whitened(X, 5, damping, 1e-20), inverse_root(Gram + damping * eye, 0.0, 0.0) @ X, atol=1e-12)


def test_the_inverse_root_has_forty_digits_behind_it() -> None:
    A = normal(1, 5, 5)
    M = A @ A.mT
    with mpmath.workdps(40):
        w, U = mpmath.eigsy(mpmath.matrix(M.tolist()))
        R = U * mpmath.diag([1 / mpmath.sqrt(x + mpmath.mpf("0.25")) for x in w]) * U.T
        wanted = torch.tensor([[float(R[i, j]) for j in range(5)] for i in range(5)], dtype=torch.float64)
    assert torch.allclose(inverse_root(M, 0.25, 0.0), wanted, rtol=1e-13, atol=1e-14)


def test_small_eigenvalues_are_cut_before_damping_and_not_inverted() -> None:
    M = torch.diag(torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64))
    assert torch.allclose(inverse_root(M, 0.0, 1e-6).diagonal(), torch.tensor([1.0, 1e-3**-0.5, 0.0]).double())
    assert torch.allclose(inverse_root(M, 0.25, 1e-2).diagonal(), torch.tensor([1.25**-0.5, 2.0, 2.0]).double())
    assert float(inverse_root(torch.zeros(3, 3).double(), 0.0, 1e-6).abs().max()) == 0
