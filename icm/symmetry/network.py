"""A multilayer network as its symmetry sees it: which axes of which parameters are hidden, and how they may move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import nn

from icm.errors import InputError

Group = Literal["signed", "permutation"]
Label = tuple[int, ...]

# Odd activations turn a flipped sign of the neuron's input into one of its output.
_ODD = ("linear", "identity", "tanh", "sin", "erf", "softsign", "hardtanh")
_OTHERS = ("relu", "gelu", "silu", "sigmoid", "softplus", "elu", "leaky_relu")
_MODULES = {
    nn.Identity: "identity",
    nn.Tanh: "tanh",
    nn.Softsign: "softsign",
    nn.Hardtanh: "hardtanh",
    nn.ReLU: "relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Softplus: "softplus",
    nn.ELU: "elu",
    nn.LeakyReLU: "leaky_relu",
}


# What treats all neurons alike, with either sign.
_NEUTRAL = (nn.Flatten, nn.Dropout, nn.Sequential)


def activation_of(module: nn.Module) -> str | None:
    """The name under which `Network` knows this module, None if it is no activation it knows."""
    if isinstance(module, nn.Hardtanh) and module.min_val != -module.max_val:
        return None
    return _MODULES.get(type(module))


def known(activation: str) -> bool:
    return activation in (*_ODD, *_OTHERS)


def is_odd(activation: str) -> bool:
    """Whether a(−x) = −a(x)."""
    return activation in _ODD


class Axes(NamedTuple):
    """One parameter tensor: its name, its shape, the layer of neurons each axis runs over (0: the inputs), and the
    hidden ones among them, ascending."""

    name: str
    shape: tuple[int, ...]
    layers: tuple[int, ...]
    hidden: Label


@dataclass(frozen=True)
class Network:
    """x ↦ W_L a(… a(W_1 x + b_1) …) + b_L with layers of `widths` (d₀, …, d_L) and one activation a.

    Permuting the neurons of a hidden layer, with the rows and columns of the weights on both its sides, changes
    nothing; where a is odd, neither does flipping their signs. So the group is that of permutations of every hidden
    layer, or of signed permutations (Bernacchia, ICML 2025). Inputs and outputs stay where they are.

    Parameters are listed as torch does: W₁ (d₁, d₀), b₁ (d₁), W₂, …; b only with `bias`, which may also say it of every
    layer, (True, True, False). activation: one of the names {odd} (odd), {others}.

    Raises InputError for fewer than two widths, widths below 1, an unknown activation, or biases of another count.
    """

    widths: tuple[int, ...]
    activation: str = "tanh"
    bias: bool | tuple[bool, ...] = False

    def __post_init__(self) -> None:
        widths = tuple(self.widths)
        if len(widths) < 2 or not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in widths):
            raise InputError(f"widths={self.widths!r}: give two or more whole numbers from 1 on, inputs first")
        if not known(self.activation):
            raise InputError(
                f"activation={self.activation!r} is unknown; odd ones are {', '.join(_ODD)}, others "
                f"{', '.join(_OTHERS)}"
            )
        object.__setattr__(self, "widths", widths)
        if not isinstance(self.bias, bool):
            biases = tuple(self.bias)
            if len(biases) != self.depth or not all(isinstance(one, bool) for one in biases):
                raise InputError(f"bias={self.bias!r}: True, False, or one of them for each of {self.depth} layers")
            object.__setattr__(self, "bias", biases[0] if len(set(biases)) == 1 else biases)

    @classmethod
    def of(cls, model: nn.Module) -> Network:
        """The network that a chain of nn.Linear layers with one activation between them is.

        Raises InputError where the model is anything else, and says at which of its modules.
        """
        found, activations = [], []
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                if found and found[-1].out_features != module.in_features:
                    raise InputError(
                        f"{name} takes {module.in_features} inputs and the layer before it gives "
                        f"{found[-1].out_features}: only chains of linear layers have this symmetry"
                    )
                found.append(module)
            elif (activation := activation_of(module)) is not None:
                activations.append(activation)
            elif next(module.children(), None) is None and not isinstance(module, _NEUTRAL):
                raise InputError(
                    f"{name or 'the model'} is a {type(module).__name__}: only nn.Linear layers with an activation "
                    f"between them ({', '.join(sorted(set(_MODULES.values())))}) are understood"
                )
        kinds = set(activations) - ({"identity"} if len(set(activations)) > 1 else set())
        if not found or len(kinds) > 1:
            raise InputError(
                f"a model with {len(found)} linear layers and activations {sorted(kinds)}: give one chain of linear "
                "layers with one activation"
            )
        widths = (found[0].in_features, *(module.out_features for module in found))
        return cls(widths, next(iter(kinds), "linear"), tuple(module.bias is not None for module in found))

    @property
    def group(self) -> Group:
        return "signed" if is_odd(self.activation) else "permutation"

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.widths) - 1

    @property
    def biases(self) -> tuple[bool, ...]:
        """Whether each layer has a bias."""
        return (self.bias,) * self.depth if isinstance(self.bias, bool) else self.bias

    @cached_property
    def parameters(self) -> tuple[Axes, ...]:
        listed = []
        for layer in range(1, self.depth + 1):
            listed.append(self._axes("W", (layer, layer - 1)))
            if self.biases[layer - 1]:
                listed.append(self._axes("b", (layer,)))
        return tuple(listed)

    def _axes(self, kind: str, layers: tuple[int, ...]) -> Axes:
        hidden = tuple(sorted(layer for layer in layers if 0 < layer < self.depth))
        return Axes(f"{kind}{layers[0]}", tuple(self.widths[layer] for layer in layers), layers, hidden)

    def fan_in(self, axes: Axes) -> int:
        """How many neurons feed the layer that a parameter belongs to."""
        return self.widths[axes.layers[0] - 1]

    @property
    def size(self) -> int:
        """p, the number of parameters."""
        return sum(prod(axes.shape) for axes in self.parameters)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The irreducible representations that occur in the parameters, each named by the hidden layers it moves.

        Signed permutations act irreducibly on R^d: a parameter belongs to one representation, that of its hidden axes.
        Permutations leave 11ᵀ/d R^d fixed and act irreducibly on the rest: a parameter belongs to one representation
        for each subset of its hidden axes. On a layer of one neuron a permutation moves nothing.
        """
        found: set[Label] = set()
        for axes in self.parameters:
            if self.group == "signed":
                found.add(axes.hidden)
                continue
            moving = [layer for layer in axes.hidden if self.widths[layer] > 1]
            found |= set(chain.from_iterable(combinations(moving, r) for r in range(len(moving) + 1)))
        return tuple(sorted(found, key=lambda label: (len(label), label)))

    def dimension(self, label: Label) -> int:
        """The dimension of a representation: ∏ d_l over its layers, ∏ (d_l − 1) for permutations."""
        return prod(self.widths[layer] - (self.group == "permutation") for layer in label)

    def carries(self, axes: Axes, label: Label) -> bool:
        """Whether the representation occurs in a parameter."""
        return axes.hidden == label if self.group == "signed" else set(label) <= set(axes.hidden)

    def copies(self, axes: Axes, label: Label) -> int:
        """How many times the representation occurs in a parameter: once for each of its inputs or outputs."""
        free = prod(d for d, layer in zip(axes.shape, axes.layers, strict=True) if layer not in axes.hidden)
        return free if self.carries(axes, label) else 0

    def multiplicity(self, label: Label) -> int:
        """How many times the representation occurs in all parameters."""
        return sum(self.copies(axes, label) for axes in self.parameters)

    @property
    def factor_count(self) -> int:
        """The dimension of the space of p×p matrices that commute with the group, Σ multiplicity² (Schur's lemma)."""
        return sum(self.multiplicity(label) ** 2 for label in self.labels)

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """A vector of all parameters (…, p) as the parameters' tensors."""
        sizes = [prod(axes.shape) for axes in self.parameters]
        return [
            part.reshape(*vector.shape[:-1], *axes.shape)
            for part, axes in zip(vector.split(sizes, -1), self.parameters, strict=True)
        ]

    def join(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The parameters' tensors (…, *shape) as one vector (…, p)."""
        return torch.cat([t.flatten(t.ndim - len(a.shape)) for t, a in zip(tensors, self.parameters, strict=True)], -1)


Network.__doc__ = (Network.__doc__ or "").format(odd=", ".join(_ODD), others=", ".join(_OTHERS))
