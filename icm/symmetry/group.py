"""The group itself: its elements as orders and signs of neurons, and what they do to parameters, without rounding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from math import factorial, prod

import torch
from torch import Tensor

from icm.errors import InputError
from icm.symmetry.coordinates import check
from icm.symmetry.network import Network

# Hidden layer → (order, signs), both (d_l,): neuron i becomes signs[i] times what neuron order[i] was.
Element = Mapping[int, tuple[Tensor, Tensor]]

_MOST = 100_000


def order(network: Network) -> int:
    """How many elements the group has: ∏ d_l!, times 2^{d_l} each for signed permutations."""
    signs = 2 if network.group == "signed" else 1
    return prod(factorial(d) * signs**d for d in network.widths[1:-1])


def elements(network: Network) -> Iterator[Element]:
    """Every element once, the one that moves nothing first."""
    hidden = range(1, network.depth)
    for chosen in itertools.product(
        *(list(_moves(network.widths[layer], network.group == "signed")) for layer in hidden)
    ):
        yield dict(zip(hidden, chosen, strict=True))


def generators(network: Network) -> Iterator[Element]:
    """Elements that generate the group: swaps of two neighbours in one hidden layer, and for signed permutations the
    flip of one sign in each."""
    for layer in range(1, network.depth):
        d = network.widths[layer]
        for i in range(d - 1):
            swapped = torch.arange(d)
            swapped[i], swapped[i + 1] = i + 1, i
            yield {layer: (swapped, torch.ones(d, dtype=torch.float64))}
        if network.group == "signed":
            flipped = torch.ones(d, dtype=torch.float64)
            flipped[0] = -1
            yield {layer: (torch.arange(d), flipped)}


def drawn(network: Network, seed: int) -> Element:
    """An element drawn uniformly."""
    rng = torch.Generator().manual_seed(seed)
    found = {}
    for layer in range(1, network.depth):
        d = network.widths[layer]
        signs = torch.randint(2, (d,), generator=rng).double() * 2 - 1
        found[layer] = (torch.randperm(d, generator=rng), signs if network.group == "signed" else signs.abs())
    return found


def act(element: Element, tensors: Sequence[Tensor], network: Network) -> list[Tensor]:
    """𝒢 v for v given as the parameters' tensors (…, *shape): rows and columns moved and their signs changed."""
    check(tensors, network)
    moved = []
    for tensor, axes in zip(tensors, network.parameters, strict=True):
        for axis, layer in enumerate(axes.layers):
            if layer in element and layer in axes.hidden:
                at, (chosen, signs) = axis - len(axes.layers), element[layer]
                tensor = tensor.index_select(at, chosen.to(tensor.device))
                tensor = tensor * signs.to(tensor)[(...,) + (None,) * (-at - 1)]
        moved.append(tensor)
    return moved


def images(tensors: Sequence[Tensor], network: Network) -> list[Tensor]:
    """All images of N parameters (N, *shape) under the group, (N·order, *shape): a distribution that is exactly
    invariant. For tiny widths.

    Raises InputError for more than 100,000 elements.
    """
    if order(network) > _MOST:
        raise InputError(
            f"the group of {network} has {order(network):,} elements: images are for networks of up to {_MOST:,}, "
            "such as hidden layers of 2 to 4 neurons; draw elements with icm.symmetry.group.drawn for others"
        )
    moved = [act(element, tensors, network) for element in elements(network)]
    return [torch.cat(each) for each in zip(*moved, strict=True)]


def _moves(d: int, signed: bool) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in itertools.permutations(range(d)):
        for signs in itertools.product((1.0, -1.0), repeat=d) if signed else [(1.0,) * d]:
            yield torch.tensor(chosen), torch.tensor(signs, dtype=torch.float64)
