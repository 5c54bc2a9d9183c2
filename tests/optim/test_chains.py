"""Which networks are found in a model, and which modules are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icm.errors import InputError
from icm.optim.chains import chains, of_shapes
from icm.symmetry.network import Network


class Feed(nn.Module):
    """Layers and activation as attributes, applied in their order around a residual connection."""

    def __init__(self, width: int = 6, hidden: int = 9) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.1)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(self.drop(self.act(self.fc1(x))))


class Attention(nn.Module):
    """Layers of one width that do not follow each other."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))


class Backwards(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in reversed(list(self)):
            x = module(x)
        return x


def found(model: nn.Module, **declared: tuple[str, ...]) -> dict[tuple[str, ...], Network]:
    return {tuple(name for name, _ in c.params): c.network for c in chains(model, declared or None)}


def test_a_sequence_is_one_chain_nested_ones_opened() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 5, bias=False)), nn.Dropout(0.2), nn.Linear(5, 2)
    )
    wanted = Network((3, 4, 5, 2), "tanh", (True, False, True))
    assert found(model) == {("0.weight", "0.bias", "1.1.weight", "3.weight", "3.bias"): wanted}


@pytest.mark.parametrize(
    "between",
    [nn.LayerNorm(4), nn.Softmax(-1), nn.Conv1d(4, 4, 1), nn.Flatten(), nn.Hardtanh(-1.0, 2.0), Attention(4)],
    ids=lambda m: type(m).__name__,
)
def test_other_modules_end_a_chain(between: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), between, nn.Linear(4, 5), nn.Linear(5, 2))
    assert list(found(model).values()) == [Network((3, 4, 4), "tanh", True), Network((4, 5, 2), "linear", True)]


def test_different_activations_leave_what_they_share() -> None:
    def group(*activations: nn.Module) -> str:
        one, two, after = activations
        model = nn.Sequential(nn.Linear(3, 4), one, nn.Linear(4, 4), two, nn.Linear(4, 2), after)
        return chains(model)[0].network.group

    assert group(nn.Tanh(), nn.Softsign(), nn.Identity()) == "signed"
    assert group(nn.Tanh(), nn.ReLU(), nn.Identity()) == "permutation"
    assert group(nn.Identity(), nn.Tanh(), nn.ReLU()) == "signed"  # what comes after the last layer is no neuron's


def test_attributes_with_activations_between_are_inferred_and_it_says_so() -> None:
    model = nn.ModuleDict({"a": Feed(), "b": Attention(), "c": nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])})
    (chain,) = chains(model)
    assert chain.network == Network((6, 9, 6), "gelu", True)
    assert "inferred" in chain.reason
    assert "'a'" in chain.reason


def test_layers_used_elsewhere_or_with_a_forward_of_their_own_are_left_alone() -> None:
    shared = nn.Linear(4, 4)
    assert not chains(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), shared, nn.Tanh(), shared))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 9, bias=False), nn.Embedding(9, 4))
    tied[3].weight = tied[2].weight
    assert not chains(tied)
    assert not chains(Backwards(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    parametrized = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    nn.utils.parametrizations.orthogonal(parametrized[0])
    assert not chains(parametrized)


def test_declarations_say_what_follows_what_and_leave_nothing_to_inference() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.TransformerEncoderLayer(8, 2, 16))
    assert not chains(model)
    declared = chains(model, {"?": ("linear1", "relu", "linear2")})
    assert [chain.network for chain in declared] == [Network((8, 16, 8), "relu", True)] * 2
    assert [name for name, _ in declared[1].params] == [
        "1.linear1.weight", "1.linear1.bias", "1.linear2.weight", "1.linear2.bias"
    ]  # fmt: skip
    feed = nn.Sequential(Feed())
    (chain,) = chains(feed, {"0": ("fc1", "relu", "fc2")})
    assert chain.network.activation == "relu"
    assert "declared" in chain.reason


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"*.mpl": ("fc1", "relu", "fc2")}, "'\\*.mpl' matches no module.*'mlp'"),
        ({"mlp": ("fc1", "relu", "fc3")}, "'fc3' is neither.*'fc"),
        ({"mlp": ("fc1", "relu")}, "fewer than two"),
        ({"mlp": ("fc1", "relu", "fc1")}, "takes 6 inputs"),
        ({"mlp": ("fc1", "act")}, "mlp.act is a GELU"),
        ({"mlp": ("fc1", "relu", "fc2"), "m*": ("fc1", "relu", "fc2")}, "occur nowhere else"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(declared: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        chains(nn.ModuleDict({"mlp": Feed()}), declared)


def test_a_chain_is_read_off_the_shapes_of_its_parameters() -> None:
    assert of_shapes([(4, 3), (4,), (2, 4)], "tanh") == Network((3, 4, 2), "tanh", (True, False))
    for shapes in ([(4, 3), (2, 5)], [(4,), (2, 4)], [(4, 3), (4,), (4,)], [(4, 3), (3,)], [(4, 3, 2)]):
        with pytest.raises(InputError, match="for_model"):
            of_shapes(shapes, "tanh")
