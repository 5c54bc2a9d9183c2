"""Matrices that commute with the symmetry, against averages over the whole group written out."""

from __future__ import annotations

import pytest
import torch

from icm.errors import InputError
from icm.symmetry.coordinates import coordinates, parameters
from icm.symmetry.network import Network
from icm.symmetry.structure import outer, project
from tests.symmetry.by_hand import group

NETWORKS = [
    Network((2, 3, 2), "relu", False),
    Network((2, 3, 2), "tanh", False),
    Network((2, 3, 3, 2), "relu", False),
    Network((2, 3, 3, 2), "tanh", True),
    Network((1, 2, 3, 2, 1), "relu", True),
    Network((2, 1, 3, 1), "relu", True),
    Network((2, 1, 3, 1), "tanh", False),
    Network((3, 2), "relu", True),
]
names = [f"{n.widths} {n.activation} {n.bias}" for n in NETWORKS]


def matrix(p, seed=0):
    return torch.randn(p, p, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def averaged(A, network):
    total, count = torch.zeros_like(A), 0
    for P in group(network):
        total, count = total + P @ A @ P.mT, count + 1
    return total / count


@pytest.mark.parametrize("network", NETWORKS, ids=names)
def test_projection_is_the_average_over_the_group(network):
    A = matrix(network.size)
    wanted = averaged(A, network)
    assert torch.allclose(project(A, network).dense(), wanted, atol=1e-12)
    assert torch.allclose(project(lambda V: A @ V, network, columns=5).dense(), wanted, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=names)
def test_coordinates_are_an_isometry_and_are_undone(network):
    v = matrix(network.size)[:4]
    X = coordinates(network.split(v), network)
    assert torch.allclose(torch.stack([x.square().sum((-2, -1)) for x in X.values()]).sum(0), v.square().sum(-1))
    assert torch.allclose(network.join(parameters(X, network)), v, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS, ids=names)
def test_applying_is_multiplying_by_the_dense_matrix(network):
    A, v = matrix(network.size), matrix(network.size, 1)[0]
    S = project(A, network)
    assert torch.allclose(network.join(S.apply(network.split(v))), S.dense() @ v, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=names)
@pytest.mark.parametrize("exponent", [-0.5, -1.0, 0.5, 2.0])
def test_powers_are_those_of_the_dense_matrix(network, exponent):
    A = matrix(network.size)
    A = A @ A.mT
    w, U = torch.linalg.eigh(averaged(A, network) + 0.1 * torch.eye(network.size, dtype=torch.float64))
    wanted = (U * w**exponent) @ U.mT
    found = project(A, network).power(exponent, damping=0.1).dense()
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()


@pytest.mark.parametrize("network", [Network((9, 12, 7), "relu", True), Network((8, 9, 8, 7), "tanh", True)], ids=str)
def test_inverse_roots_of_a_few_hundred_parameters(network):
    p = network.size
    assert 200 <= p <= 300
    dense = project(matrix(p) @ matrix(p).mT, network).dense()
    w, U = torch.linalg.eigh(dense)
    wanted = (U * w**-0.5) @ U.mT
    found = project(dense, network).power(-0.5).dense()
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()


def test_a_matrix_without_full_rank_has_its_pseudo_inverse_root():
    network = Network((3, 4, 2), "tanh")
    u = matrix(network.size)[:1]
    S = outer(network.split(u), network.split(u), network)
    dense = S.dense()
    w, U = torch.linalg.eigh(dense)
    live = w > 1e-12 * w.max()
    assert 0 < int(live.sum()) < len(w)
    wanted = (U[:, live] * w[live] ** -0.5) @ U[:, live].mT
    assert (S.power(-0.5).dense() - wanted).norm() <= 1e-10 * wanted.norm()


@pytest.mark.parametrize("network", NETWORKS[:4], ids=names[:4])
def test_the_algebra_is_that_of_dense_matrices(network):
    A, B = project(matrix(network.size), network), project(matrix(network.size, 1), network)
    assert torch.allclose((A @ B).dense(), A.dense() @ B.dense(), atol=1e-12)
    assert torch.allclose((A + 2.0 * B).dense(), A.dense() + 2 * B.dense(), atol=1e-12)
    assert torch.allclose(A.mT.dense(), A.dense().mT, atol=1e-12)
    assert torch.allclose(A.inner(B), (A.dense() * B.dense()).sum(), atol=1e-10)


def test_other_shapes_are_refused():
    network = Network((3, 4, 2), "tanh")
    with pytest.raises(InputError, match="20"):
        project(torch.zeros(4, 4), network)
    with pytest.raises(InputError, match="W1"):
        coordinates([torch.zeros(3, 4), torch.zeros(2, 4)], network)
    with pytest.raises(InputError, match="W2"):
        coordinates([torch.zeros(4, 3)], network)
    with pytest.raises(InputError, match="different networks"):
        _ = project(torch.zeros(20, 20), network) + project(torch.zeros(20, 20), Network((3, 4, 2), "relu"))
    with pytest.raises(InputError, match="damping"):
        project(torch.zeros(20, 20), network).power(-0.5, damping=-1.0)
