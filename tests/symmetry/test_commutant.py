"""The commutant by brute force."""

from __future__ import annotations

import pytest
import torch

from icm.symmetry.commutant import basis, generators
from icm.symmetry.network import Network
from icm.symmetry.structure import project
from tests.symmetry.by_hand import group

NETWORKS = [
    Network((2, 3, 2), "relu"),
    Network((2, 3, 2), "tanh", True),
    Network((1, 2, 2, 1), "relu", True),
    Network((2, 1, 2), "tanh"),
    Network((3, 2), "relu"),
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_basis_matrices_commute_with_the_whole_group_and_are_orthogonal(network):
    found = basis(network)
    for P in group(network):
        assert torch.equal(P @ found, found @ P)
    Gram = torch.einsum("aij,bij->ab", found, found)
    assert torch.equal(Gram, torch.diag(Gram.diagonal()))
    assert bool((Gram.diagonal() > 0).all())


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_projecting_a_basis_matrix_leaves_it_as_it_is(network):
    for B in basis(network):
        assert torch.allclose(project(B, network).dense(), B, atol=1e-13)


def test_generators_are_the_groups():
    network = Network((2, 2, 1), "tanh")
    every = {tuple(P.flatten().tolist()) for P in group(network)}
    made, new = set(), {tuple(torch.eye(network.size, dtype=torch.float64).flatten().tolist())}
    while new:
        made |= new
        products = (P @ torch.tensor(v, dtype=torch.float64).view_as(P) for P in generators(network) for v in new)
        new = {tuple(A.flatten().tolist()) for A in products} - made
    assert made == every
