"""The symmetry equations, at initialisation and after training: exactly, on ensembles with all their images, and as far
as random ensembles can tell. What breaks the symmetry has to be caught."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from icm.errors import InputError
from icm.symmetry import group, updates
from icm.symmetry.ensembles import Data, gradients, initial
from icm.symmetry.invariance import Departure, departure, equivariance, margin, moments, scores
from icm.symmetry.network import Network
from tests.symmetry.drawn import normal

NETWORKS = [
    Network((2, 3, 2), "tanh", True),
    Network((2, 2, 2, 1), "tanh"),
    Network((2, 2, 3, 2), "relu", True),
    Network((2, 3, 2), "gelu"),
]
RULES = {
    "descent": updates.descent(0.3),
    "momentum": updates.momentum(0.1),
    "adam": updates.adam(0.02),
}


def data(network, count=15):
    return Data(normal(1, count, network.widths[0]), normal(2, count, network.widths[-1]))


def after(steps, tensors, network, rule):
    return next(itertools.islice(updates.train(tensors, data(network), network, rule), steps - 1, steps))


def shoved(seed=3, size=0.02):
    """Descent that adds one fixed random vector to every model: it knows neurons by their numbers."""

    def rule(G, state):
        drift = [size * normal(seed + i, *g.shape[1:]) for i, g in enumerate(G)]
        return [-0.3 * g + d for g, d in zip(G, drift, strict=True)], state

    return rule


def lifted(G, state):
    """Adam's second moment without its sign: all entries fall. Permutations commute with it, flipped signs do not."""
    return [-0.02 * g.abs() for g in G], state


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_symmetrised_ensembles_keep_the_equations_to_rounding_along_training(network, rule):
    start = group.images(initial(network, 2, seed=3), network)
    for steps in (0, 1, 7):
        theta = start if steps == 0 else after(steps, start, network, RULES[rule])
        for samples in (theta, gradients(theta, data(network), network)):
            off = departure(samples, network)
            assert off.mean < 1e-13
            assert off.covariance < 1e-12


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_fixed_push_is_caught_on_symmetrised_ensembles(network):
    start = group.images(initial(network, 2, seed=3), network)
    theta = after(3, start, network, shoved())
    assert departure(theta, network).mean > 1e-3
    assert departure(gradients(theta, data(network), network), network).covariance > 1e-5


def test_an_update_that_is_not_odd_is_caught_under_signs_and_passes_under_permutations():
    odd, other = Network((2, 3, 2), "tanh"), Network((2, 3, 2), "relu")
    start = group.images(initial(odd, 2, seed=3), odd)
    assert departure(after(3, start, odd, lifted), odd).mean > 1e-3
    assert departure(after(3, start, other, lifted), other).mean < 1e-13


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_random_ensembles_show_no_departure_at_the_start_and_after_steps(network, rule):
    start = initial(network, 3000, seed=5)
    theta = after(4, start, network, RULES[rule])
    for samples in (start, gradients(start, data(network), network), gradients(theta, data(network), network)):
        z = scores(samples, network)
        assert margin(z.mean) > 0
        assert margin(z.second) > 0


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_random_ensembles_refute_a_fixed_push(network):
    theta = after(4, initial(network, 3000, seed=5), network, shoved(size=0.1))
    assert margin(scores(theta, network).mean) < -1


def test_random_ensembles_refute_signs_for_an_activation_that_is_not_odd():
    """ReLU networks have the permutations alone; taken for tanh networks, their gradients give them away."""
    relu, tanh = Network((2, 3, 2), "relu"), Network((2, 3, 2), "tanh")
    G = gradients(initial(relu, 3000, seed=5), data(relu), relu)
    assert margin(scores(G, tanh).second) < -1
    assert margin(scores(G, relu).second) > 0


def test_random_ensembles_refute_one_neuron_drawn_larger():
    network = Network((2, 3, 2), "tanh")
    theta = initial(network, 3000, seed=5)
    theta[0][:, 0] *= 1.3
    assert margin(scores(theta, network).second) < 0
    assert margin(scores(theta, network).mean) > 0


def test_scores_are_those_of_a_loop_over_entries():
    network = Network((1, 2, 1), "tanh", True)
    samples = [t + 0.1 for t in initial(network, 40, seed=2)]
    z = scores(samples, network)
    v = network.join(samples)
    first, second = [], []
    for element in group.generators(network):
        w = network.join(group.act(element, samples, network))
        p = v.shape[1]
        first += [(v - w)[:, i].numpy() for i in range(p)]
        second += [(v[:, i] * v[:, j] - w[:, i] * w[:, j]).numpy() for i in range(p) for j in range(i, p)]
    for found, columns in ((z.mean, first), (z.second, second)):
        wanted = [np.mean(x) / np.std(x) * len(x) ** 0.5 for x in columns if np.abs(x).max() > 1e-14]
        assert np.allclose(found.numpy(), wanted, rtol=1e-8)


def test_the_margin_is_bonferronis():
    """One number at 4.89 is refused at 1e-6, one of a hundred needs 5.73 (normal tables)."""
    one = torch.tensor([4.8916], dtype=torch.float64)
    assert margin(one) == pytest.approx(0.0, abs=1e-4)
    assert margin(torch.full((100,), 5.7307, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-4)
    assert margin(one[:0]) == 1.0


def test_moments_are_numpys():
    network = Network((2, 3, 2), "tanh")
    samples = network.split(normal(1, 30, network.size) + 0.5)
    v = network.join(samples).numpy()
    mean, Sigma, size = moments(samples, network)
    assert np.allclose(mean, v.mean(0))
    assert np.allclose(Sigma, np.cov(v.T, bias=True))
    assert float(size) == pytest.approx(np.sqrt((v**2).sum(1).mean()))


@pytest.mark.parametrize("network", [*NETWORKS, Network((5, 20, 10, 4), "tanh", True)], ids=str)
@pytest.mark.parametrize("rule", [*RULES, "symo"])
def test_rules_commute_with_the_group(network, rule):
    chosen = updates.symo(0.01, network, cut=1e-9) if rule == "symo" else RULES[rule]
    for seed in range(3):
        assert equivariance(initial(network, 4, seed=1), data(network), network, chosen, seed=seed) < 1e-8


def test_rules_that_do_not_commute_are_told():
    network = Network((2, 3, 2), "tanh")
    start = initial(network, 4, seed=1)
    assert equivariance(start, data(network), network, shoved()) > 1e-2
    assert equivariance(start, data(network), network, lifted) > 1e-2


def test_a_group_that_moves_nothing_leaves_nothing_to_test():
    network = Network((2, 3), "tanh")
    samples = initial(network, 5, seed=1)
    assert departure(samples, network) == Departure(0.0, 0.0)
    assert margin(scores(samples, network).mean) == 1.0
    with pytest.raises(InputError, match="1 samples"):
        scores([t[:1] for t in samples], network)
