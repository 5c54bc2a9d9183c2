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

    Parameters are listed as torch does: W₁ (d₁, d₀), b₁ (d₁), W₂, …; b only with `bias`. activation: one of the names
    {odd} (odd), {others}.

    Raises InputError for fewer than two widths, widths below 1, or an unknown activation.
    """

    widths: tuple[int, ...]
    activation: str = "tanh"
    bias: bool = False

    def __post_init__(self) -> None:
        widths = tuple(self.widths)
        if len(widths) < 2 or not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in widths):
            raise InputError(f"widths={self.widths!r}: give two or more whole numbers from 1 on, inputs first")
        if self.activation not in (*_ODD, *_OTHERS):
            raise InputError(
                f"activation={self.activation!r} is unknown; odd ones are {', '.join(_ODD)}, others "
                f"{', '.join(_OTHERS)}"
            )
        object.__setattr__(self, "widths", widths)

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
            elif type(module) in _MODULES:
                activations.append(_MODULES[type(module)])
            elif next(module.children(), None) is None and not isinstance(module, (nn.Flatten, nn.Sequential)):
                raise InputError(
                    f"{name or 'the model'} is a {type(module).__name__}: only nn.Linear layers with an activation "
                    f"between them ({', '.join(sorted(set(_MODULES.values())))}) are understood"
                )
        kinds = set(activations) - ({"identity"} if len(set(activations)) > 1 else set())
        biases = {module.bias is not None for module in found}
        if not found or len(kinds) > 1 or len(biases) > 1:
            raise InputError(
                f"a model with {len(found)} linear layers, activations {sorted(kinds)} and "
                f"{'some' if len(biases) > 1 else 'no'} biases: give one chain of linear layers, all with a bias or "
                "none, and one activation"
            )
        widths = (found[0].in_features, *(module.out_features for module in found))
        return cls(widths, next(iter(kinds), "linear"), biases == {True})

    @property
    def group(self) -> Group:
        return "signed" if self.activation in _ODD else "permutation"

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.widths) - 1

    @cached_property
    def parameters(self) -> tuple[Axes, ...]:
        listed = []
        for layer in range(1, self.depth + 1):
            listed.append(self._axes("W", (layer, layer - 1)))
            if self.bias:
                listed.append(self._axes("b", (layer,)))
        return tuple(listed)

    def _axes(self, kind: str, layers: tuple[int, ...]) -> Axes:
        hidden = tuple(sorted(layer for layer in layers if 0 < layer < self.depth))
        return Axes(f"{kind}{layers[0]}", tuple(self.widths[layer] for layer in layers), layers, hidden)

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
