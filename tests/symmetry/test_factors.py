"""Factors of gradients against the formulas of the literature, loops over neurons, and averages over the group."""

from __future__ import annotations

import itertools

import pytest
import torch

from icm.errors import InputError
from icm.symmetry.factors import factors, named
from icm.symmetry.network import Network
from tests.symmetry import by_hand
from tests.symmetry.drawn import normal

NETWORKS = [
    Network((2, 3, 2), "relu", True),
    Network((2, 3, 2), "tanh", True),
    Network((1, 2, 3, 2), "relu", (True, False, True)),
    Network((2, 3, 1, 2), "relu", True),
    Network((2, 1, 1, 2), "tanh", True),
    Network((2, 2, 2, 2, 1), "relu"),
    Network((3, 2), "relu", True),
]


def samples(network, count, seed=0):
    return network.split(normal(seed, count, network.size) + 0.3)


def test_two_layers_have_the_three_factors_of_the_literature():
    network, R = Network((4, 7, 3), "tanh"), 5
    G1, G2 = samples(network, R)
    found = named(factors([G1, G2], network))
    wanted = {
        "Φ1": torch.einsum("rhi,rhj->ij", G1, G1) / (7 * R),
        "Ψ": torch.einsum("rhi,rjh->ij", G1, G2) / (7 * R),
        "Φ2": torch.einsum("rih,rjh->ij", G2, G2) / (7 * R),
    }
    assert found.keys() == wanted.keys()
    for name, F in wanted.items():
        assert torch.allclose(found[name], F, rtol=1e-13)
    one = named(factors([G1[0], G2[0]], network))
    assert torch.allclose(one["Ψ"], G1[0].mT @ G2[0].mT / 7, rtol=1e-13)


def test_hidden_blocks_of_deeper_networks_have_one_number_each():
    network = Network((4, 7, 5, 6, 3), "tanh")
    G = samples(network, 3)
    found = named(factors(G, network))
    assert set(found) == {"Φ1", "φ2", "φ3", "Φ4"}
    for name, g in (("φ2", G[1]), ("φ3", G[2])):
        assert float(found[name]) == pytest.approx(float(g.square().sum()) / (g[0].numel() * 3), rel=1e-13)
    assert torch.allclose(found["Φ4"], torch.einsum("rih,rjh->ij", G[3], G[3]) / (6 * 3), rtol=1e-13)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_named_factors_make_up_the_whole_matrix_neuron_by_neuron(network):
    """Σ between two entries: for each factor its number where the neurons kept are equal, 0 where they differ."""
    S = factors(samples(network, 4), network)
    found, dense = named(S), S.dense()
    indices = [(axes, i) for axes in network.parameters for i in itertools.product(*map(range, axes.shape))]
    wanted = torch.zeros_like(dense)
    for (r, (a, i)), (c, (b, j)) in itertools.product(enumerate(indices), repeat=2):
        if network.parameters.index(a) > network.parameters.index(b):
            continue
        shared = sorted(set(a.hidden) & set(b.hidden))
        for name, F in found.items():
            base, _, kinds = name.partition("[")
            if base not in names(network, a, b):
                continue
            kept = [
                layer
                for layer, kind in zip(shared, kinds.rstrip("]").split(","), strict=True)
                if network.group == "signed" or kind == "I"
            ] if kinds else shared if network.group == "signed" else []  # fmt: skip
            if all(i[a.layers.index(layer)] == j[b.layers.index(layer)] for layer in kept):
                wanted[r, c] += F[free(a, i), free(b, j)]
    wanted = torch.triu(wanted) + torch.triu(wanted, 1).mT
    assert torch.allclose(dense, wanted, atol=1e-13)


def names(network, a, b):
    if a == b:
        return {f"Φ{a.name[1:]}", f"φ{a.name[1:]}"} if a.name[0] == "W" else {f"{a.name},{a.name}"}
    return {f"{a.name},{b.name}"} | ({"Ψ"} if network.depth == 2 and (a.name, b.name) == ("W1", "W2") else set())


def free(axes, index):
    """Which copy an entry is of: its inputs and outputs numbered, layers ascending."""
    place, order = 0, sorted(range(len(index)), key=lambda axis: axes.layers[axis])
    for axis in order:
        if axes.layers[axis] not in axes.hidden:
            place = place * axes.shape[axis] + index[axis]
    return place


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_named_factors_are_as_many_numbers_as_the_structure_is_free(network):
    total = 0
    for name, F in named(factors(samples(network, 2), network)).items():
        total += F.numel() * (1 if name[0] in "Φφ" or len(set(name.partition("[")[0].split(","))) == 1 else 2)
        total += F.numel() if name.startswith("Ψ") else 0
    assert total == network.factor_count


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("about_mean", [False, True])
def test_factors_are_the_second_moment_or_covariance_averaged_over_the_group(network, about_mean):
    v = network.join(samples(network, 4))
    every = torch.stack(list(by_hand.group(network)))
    images = torch.einsum("gij,rj->gri", every, v).flatten(0, 1)
    mean = images.mean(0) if about_mean else torch.zeros(network.size, dtype=torch.float64)
    wanted = (images - mean).mT @ (images - mean) / len(images)
    assert torch.allclose(factors(network.split(v), network, about_mean).dense(), wanted, atol=1e-12)


def test_without_a_fixed_part_the_covariance_is_the_second_moment():
    network = Network((3, 4, 2), "tanh")
    G = samples(network, 1)
    assert torch.equal(factors(G, network).dense(), factors(G, network, about_mean=True).dense())


def test_one_gradient_has_no_covariance_along_what_the_group_leaves_fixed():
    network = Network((3, 4, 2), "relu", True)
    assert float(factors(samples(network, 1), network, about_mean=True).blocks[()].abs().max()) == 0


def test_many_sets_of_gradients_at_once_are_each_their_own():
    network = Network((2, 3, 3, 2), "relu", True)
    G = network.split(normal(1, 2, 4, network.size))
    whole = factors(G, network, about_mean=True)
    for k in range(2):
        one = factors([g[k] for g in G], network, about_mean=True)
        for label, M in one.blocks.items():
            assert torch.allclose(whole.blocks[label][k], M, atol=1e-13)


def test_gradients_of_another_network_are_refused():
    with pytest.raises(InputError, match="W2"):
        factors([torch.zeros(4, 3), torch.zeros(2, 5)], Network((3, 4, 2)))
    with pytest.raises(InputError, match="leading dimensions"):
        factors([torch.zeros(6, 4, 3), torch.zeros(5, 2, 4)], Network((3, 4, 2)))
