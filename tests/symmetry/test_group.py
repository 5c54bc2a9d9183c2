"""Elements of the group, as moves of neurons, against the matrices written out."""

from __future__ import annotations

import pytest
import torch

from icm.errors import InputError
from icm.symmetry import group
from icm.symmetry.network import Network
from tests.symmetry import by_hand
from tests.symmetry.drawn import normal

NETWORKS = [Network((2, 3, 2), "tanh", True), Network((1, 2, 3, 2), "relu", True), Network((2, 2, 2, 1), "tanh")]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_elements_are_those_of_the_group_written_out_each_once(network):
    v = normal(1, network.size)
    found = [network.join(group.act(element, network.split(v), network)) for element in group.elements(network)]
    wanted = [P @ v for P in by_hand.group(network)]
    assert len(found) == len(wanted) == group.order(network)
    assert {tuple(w.tolist()) for w in found} == {tuple(w.tolist()) for w in wanted}
    assert len({tuple(w.tolist()) for w in found}) == len(found)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_images_are_all_of_them_model_after_model(network):
    v = normal(2, 3, network.size)
    found = network.join(group.images(network.split(v), network))
    wanted = {tuple((P @ one).tolist()) for P in by_hand.group(network) for one in v}
    assert {tuple(w.tolist()) for w in found} == wanted
    assert torch.equal(found[:3], v)


def test_drawn_elements_are_of_the_group_and_reach_all_of_it():
    network = Network((1, 3, 1), "tanh")
    v = normal(3, network.size)
    every = {tuple((P @ v).tolist()) for P in by_hand.group(network)}
    drawn = (group.act(group.drawn(network, seed), network.split(v), network) for seed in range(600))
    assert {tuple(network.join(one).tolist()) for one in drawn} == every


def test_a_group_too_large_to_list_is_refused_with_its_size():
    network = Network((2, 9, 2), "tanh")
    with pytest.raises(InputError, match="185,794,560"):
        group.images(network.split(normal(1, 1, network.size)), network)
