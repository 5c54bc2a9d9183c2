"""The symmetry written out: every matrix of the group, and the counting rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from icm.symmetry.commutant import representation
from icm.symmetry.network import Network


def group(network: Network) -> Iterator[Tensor]:
    """Every p×p matrix of the group."""
    hidden = range(1, network.depth)
    every = [list(layer_group(network.widths[layer], network.group == "signed")) for layer in hidden]
    for chosen in itertools.product(*every):
        yield representation(network, dict(zip(hidden, chosen, strict=True)))


def layer_group(d: int, signed: bool) -> Iterator[Tensor]:
    for order in itertools.permutations(range(d)):
        P = torch.eye(d, dtype=torch.float64)[list(order)]
        for signs in itertools.product((1.0, -1.0), repeat=d) if signed else [(1.0,) * d]:
            yield torch.tensor(signs, dtype=torch.float64)[:, None] * P


def counting_rule(network: Network) -> int:
    """Free factors over ordered pairs of parameters: for each hidden axis 2 if both have it (1 if signed, or if it has
    one neuron), 1 if one has it (0 if signed), and for each free axis its width."""
    total = 0
    for a, b in itertools.product(network.parameters, repeat=2):
        count = 1
        for axes in (a, b):
            for d, layer in zip(axes.shape, axes.layers, strict=True):
                count *= d if layer not in axes.hidden else 1
        for layer in set(a.hidden) | set(b.hidden):
            both = layer in a.hidden and layer in b.hidden
            if network.group == "signed":
                count *= 1 if both else 0
            else:
                count *= 2 if both and network.widths[layer] > 1 else 1
        total += count
    return total
