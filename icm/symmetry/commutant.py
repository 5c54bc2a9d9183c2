"""The matrices that commute with the symmetry, by brute force: orbits of entries under generators of the group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from icm.symmetry import group
from icm.symmetry.network import Network


def basis(network: Network) -> Tensor:
    """Matrices (c, p, p) with entries 0, 1 and −1 that span {A: 𝒢A = A𝒢 for all 𝒢}, orthogonal to each other.

    The group moves entry (i, j) to another, or to its negative: one matrix for each orbit, but for those that hold an
    entry and its negative, where A must be 0. c is `network.factor_count`, which is counted in another way. Takes 16 p²
    bytes for each generator and 8 c p² for the result: for small networks.
    """
    p = network.size
    signs = torch.from_numpy(_orbits(network))
    entries = signs.nonzero()[:, 0]
    found = torch.zeros(int(signs.abs().max()), p * p, dtype=torch.float64)
    found[signs[entries].abs() - 1, entries] = signs[entries].sign().double()
    return found.reshape(-1, p, p)


def dimension(network: Network) -> int:
    """c alone, counted over the orbits."""
    return int(np.abs(_orbits(network)).max())


def generators(network: Network) -> Iterator[Tensor]:
    """p×p matrices that generate the group: those of `icm.symmetry.group.generators`."""
    for element in group.generators(network):
        layers = {}
        for layer, (order, signs) in element.items():
            layers[layer] = signs[:, None] * torch.eye(len(order), dtype=torch.float64)[order]
        yield representation(network, layers)


def representation(network: Network, layers: dict[int, Tensor]) -> Tensor:
    """The p×p matrix of the element of the group that does `layers[l]` (d_l, d_l) to the neurons of layer l."""
    blocks = []
    for axes in network.parameters:
        M = torch.ones(1, 1, dtype=torch.float64)
        for d, layer in zip(axes.shape, axes.layers, strict=True):
            M = torch.kron(M, layers.get(layer, torch.eye(d, dtype=torch.float64)))
        blocks.append(M)
    return torch.block_diag(*blocks)


def _orbits(network: Network) -> np.ndarray:
    """For each entry (p²,) ± the number of its orbit, from 1; 0 where A must be 0."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    p = network.size
    tails, heads = [], []
    entry = np.arange(p * p)
    for P in generators(network):  # nodes: entries, and p² further their negatives
        to, sign = P.abs().argmax(0).numpy(), P.sum(0).numpy()
        there = (to[:, None] * p + to[None]).ravel()
        turned = ((sign[:, None] * sign[None]).ravel() < 0) * p * p
        tails += [entry, entry + p * p]
        heads += [there + turned, there + (p * p - turned)]
    tail, head = (np.concatenate([*ends, entry[:0]]) for ends in (tails, heads))
    graph = coo_matrix((np.ones(len(tail), dtype=bool), (tail, head)), shape=(2 * p * p,) * 2)
    _, part = connected_components(graph, directed=False)
    plus, minus = part[: p * p], part[p * p :]
    live = plus != minus
    _, orbit = np.unique(np.minimum(plus, minus)[live], return_inverse=True)
    signs = np.zeros(p * p, dtype=np.int64)
    signs[live] = (orbit + 1) * np.where(plus[live] < minus[live], 1, -1)
    return signs
