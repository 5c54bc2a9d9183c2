"""What cannot be measured is found, named and remedied: options, layers not called, losses of whole batches."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icm.errors import InputError
from icm.measure import curvature
from icm.measure.checks import check_options
from tests.measure.planted import GPT, next_token, tokens

OPTIONS: dict[str, Any] = {
    "model": GPT(), "loss": next_token, "data": [tokens()], "directions": 100, "positions": "one", "tokens": 8,
    "seed": 0, "dtype": None, "random_seed": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"directions": 2.5}, "directions=2.5 must be a whole number, at least 1"),
        ({"directions": None}, "directions=None must be a whole number, at least 1"),
        ({"tokens": 1.5}, "tokens=1.5 must be a whole number, at least 1, or None for all"),
        ({"tokens": False}, "tokens=False must be"),
        ({"seed": "a"}, "seed='a' must be a whole number"),
        ({"random_seed": 0.5}, "random_seed=0.5 must be a whole number, or None"),
        ({"data": None}, r"data=None holds no batches; give an iterable of what loss\(model, batch\) takes"),
        ({"data": 3}, "data=3 holds no batches"),
        ({"data": "text"}, "data is one str; give an iterable of batches"),
        ({"data": torch.zeros(3)}, "data is one Tensor; give an iterable of batches"),
        ({"loss": None}, r"loss=None cannot be called; give a function loss\(model, batch\)"),
        ({"model": None}, r"model is a NoneType; give a torch\.nn\.Module"),
        ({"dtype": "int8"}, "dtype='int8' is no precision"),
        ({"dtype": 64}, "dtype=64 is no precision"),
    ],
)
def test_options_of_a_wrong_kind_are_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_options(**(OPTIONS | changed))


@pytest.mark.parametrize("dtype", ["float64", "torch.float64", torch.float64])
def test_precisions_by_name_or_by_torchs_own(dtype: Any) -> None:
    assert check_options(**(OPTIONS | {"dtype": dtype})) == torch.float64
    found = curvature(GPT(), next_token, [tokens()], "mlp.0", (0.1,), directions=1, dtype=dtype)["mlp.0"]
    assert found.eps == torch.finfo(torch.float64).eps


def padded(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Tokens whose labels are ignored from these places on."""
    made = tokens(len(lengths), 7, seed)
    labels = made["ids"][:, 1:].clone()
    labels[torch.arange(6) >= torch.tensor(lengths)[:, None]] = -100
    return made | {"labels": labels}


def plain(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return cross_entropy(model(batch["ids"][:, :-1]).transpose(1, 2), batch["labels"], reduction="none")


def averaged(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return plain(model, batch) / (batch["labels"] >= 0).sum()


def dropped(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return plain(model, batch)[batch["labels"] >= 0]


def centred(model: Any, batch: dict[str, Tensor]) -> Tensor:
    terms = plain(model, batch)
    return terms - terms.mean(0)


def measured(loss: Any, data: list[Any], model: nn.Module | None = None, layers: Any = "c_proj", **options: Any) -> Any:
    settings: dict[str, Any] = {"directions": 2, "tokens": 2, "progress": False} | options
    return curvature(model or GPT(), loss, data, layers, (0.1, 1.0), **settings)


ALONE, EVEN, UNEVEN = padded([6]), padded([3, 3, 3, 3], 1), padded([6, 2, 3, 1], 2)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("data", [[ALONE, UNEVEN], [EVEN], [UNEVEN], [ALONE, EVEN, EVEN, UNEVEN]])
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (averaged, r"the loss of an example depends on the batch that it is in: by itself its terms are [\d.]+ times"),
        (dropped, r"by itself it has \d terms, and 3 in its batch|do not share a first axis|belong to others"),
        (centred, "the loss of one example depends on outputs of c_proj that belong to others"),
    ],
)
def test_losses_of_the_whole_batch_are_refused_wherever_it_shows(loss: Any, said: str, data: Any, double: bool) -> None:
    """`dropped` is right where every example has as many labels."""
    model = GPT().double() if double else GPT()
    if loss is dropped and data[0] is EVEN:
        measured(loss, data, model)
        return
    with pytest.raises(InputError, match=said):
        measured(loss, data, model)


@pytest.mark.parametrize("data", [[ALONE, UNEVEN], [EVEN]])
def test_losses_of_each_example_by_itself_pass(data: Any) -> None:
    for model in (GPT(), GPT().bfloat16(), GPT().double()):
        measured(plain, data, model)
        measured(lambda model, batch: plain(model, batch).sum(1), data, model)
        measured(lambda model, batch: plain(model, batch) / 6e4, data, model)


class Pair(nn.Module):
    """A model that takes batches of two or more, or knows of shared tensors beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError("two at least")
        return self.layer(x).tanh()


def test_where_a_batch_of_one_cannot_be_had_nothing_is_refused():
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    measured(lambda model, x: model(x).square().sum(-1), [x], Pair(), "layer")
    turned = {"x": x.transpose(0, 1), "y": torch.ones(4, 5)}  # no example along the first axis of x

    def loss(model: Any, batch: Any) -> Tensor:
        return model(batch["x"].transpose(0, 1)).square().sum(-1) * batch["y"]

    measured(loss, [turned], Pair(), "layer")


class Odd(nn.Module):
    """Layers that a pass calls twice, never, or on the tokens that fall to them."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(0, -2)[:, 0] > 0
        flat = self.twice(self.twice(self.whole(x))).flatten(0, -2)
        out = flat.clone()
        for which, expert in zip((first, ~first), self.experts, strict=True):
            out[which] = expert(flat[which])
        return out.view(x.shape)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["whole", "twice"], "twice is called 2 times in a forward pass, and one output is displaced"),
        (["whole", "never"], "never is called in no forward pass of the loss"),
        (["whole", "experts.*"], r"experts.0 has 1\d rows of outputs for 4 examples: .* \(and so for 1 more\)"),
        ("*", r"twice is called 2 times .* \(and so for 3 more\)"),
    ],
)
def test_layers_that_no_pass_calls_once_on_every_example(layers: Any, said: str) -> None:
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))

    def loss(model: Any, x: Tensor) -> Tensor:
        return model(x).square().sum(-1)

    with pytest.raises(InputError, match=said) as refused:
        measured(loss, [x], Odd(), layers)
    remedy = re.search(r"leave it out: layers=(\[.*\])$", str(refused.value))
    assert remedy is not None
    assert list(measured(loss, [x], Odd(), ast.literal_eval(remedy[1]))) == ["whole"]
    with pytest.raises(InputError, match=r"name layers that see every token once$"):
        measured(loss, [x], Odd(), "never")


def test_parametrized_weights_are_measured_as_plain_ones():
    """A weight-normed layer computes what a plain one of the same weight does."""
    model, normed = GPT().double(), GPT().double()
    nn.utils.parametrizations.weight_norm(normed.mlp[0])
    wanted = measured(next_token, [tokens()], model, "mlp.0")["mlp.0"]
    found = measured(next_token, [tokens()], normed, "mlp.0")["mlp.0"]
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-9, atol=0)
