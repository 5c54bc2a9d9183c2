"""Parameters in the coordinates of the symmetry: what of them each irreducible representation moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from icm.errors import InputError
from icm.symmetry.network import Axes, Label, Network


def coordinates(tensors: Sequence[Tensor], network: Network) -> dict[Label, Tensor]:
    """{label: X (…, μ, ∏ d_l)}, μ the label's multiplicity and d_l the widths of the layers it moves.

    An isometry: along a layer in the label a parameter is centred (for signed permutations left as it is), along a
    hidden layer not in it summed and divided by √d, and its inputs or outputs number the copies. A matrix that
    commutes with the group is X ↦ M X for one M (μ, μ) per label.

    Raises InputError for tensors of other shapes than the network's.
    """
    check(tensors, network)
    return {
        label: torch.cat(
            [
                _part(tensor, axes, label, network)
                for tensor, axes in zip(tensors, network.parameters, strict=True)
                if network.carries(axes, label)
            ],
            -2,
        )
        for label in network.labels
    }


def parameters(coordinates: dict[Label, Tensor], network: Network) -> list[Tensor]:
    """The inverse of `coordinates`, for X that are centred as it gives them."""
    found: list[Tensor | None] = [None] * len(network.parameters)
    for label, X in coordinates.items():
        start = 0
        for i, axes in enumerate(network.parameters):
            if count := network.copies(axes, label):
                part = _whole(X[..., start : start + count, :], axes, label, network)
                known = found[i]
                found[i] = part if known is None else known + part
                start += count
    return [part for part in found if part is not None]


def _part(tensor: Tensor, axes: Axes, label: Label, network: Network) -> Tensor:
    """(…, copies, ∏ d_l) of one parameter."""
    lead, hidden = tensor.ndim - len(axes.shape), axes.hidden
    for axis, layer in enumerate(axes.layers):
        if layer not in hidden:
            continue
        if layer not in label:
            tensor = tensor.sum(lead + axis, keepdim=True) / network.widths[layer] ** 0.5
        elif network.group == "permutation":
            tensor = tensor - tensor.mean(lead + axis, keepdim=True)
    order = sorted(range(len(axes.layers)), key=lambda a: (axes.layers[a] in label, axes.layers[a]))
    tensor = tensor.permute(*range(lead), *(lead + a for a in order))
    return tensor.reshape(*tensor.shape[:lead], network.copies(axes, label), -1)


def _whole(X: Tensor, axes: Axes, label: Label, network: Network) -> Tensor:
    """What `_part` made, back in the parameter's shape."""
    hidden = axes.hidden
    idle = [layer in hidden and layer not in label for layer in axes.layers]
    order = sorted(range(len(axes.layers)), key=lambda a: (axes.layers[a] in label, axes.layers[a]))
    sizes = [1 if idle[a] else axes.shape[a] for a in order]
    tensor = X.reshape(*X.shape[:-2], *sizes)
    lead = X.ndim - 2
    back = [order.index(a) for a in range(len(order))]
    tensor = tensor.permute(*range(lead), *(lead + b for b in back))
    for axis, layer in enumerate(axes.layers):
        if idle[axis]:
            tensor = tensor / network.widths[layer] ** 0.5
    return tensor.expand(*tensor.shape[:lead], *axes.shape)


def check(tensors: Sequence[Tensor], network: Network) -> None:
    """Raise InputError for tensors that are not the network's parameters, with leading dimensions that agree."""
    wanted = network.parameters
    if len(tensors) != len(wanted):
        raise InputError(
            f"{len(tensors)} tensors for a network of {len(wanted)} parameters: "
            + ", ".join(f"{axes.name} {axes.shape}" for axes in wanted)
        )
    leads = set()
    for tensor, axes in zip(tensors, wanted, strict=True):
        cut = tensor.ndim - len(axes.shape)
        if cut < 0 or tuple(tensor.shape[cut:]) != axes.shape:
            raise InputError(f"{axes.name} has shape {tuple(tensor.shape)}; the network's is {axes.shape}")
        leads.add(tuple(tensor.shape[:cut]))
    if len(leads) > 1:
        raise InputError(f"leading dimensions differ between parameters: {sorted(leads)}")
