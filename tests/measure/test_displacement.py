"""Remainders against plain passes of changed copies, whatever the model; and nothing of the model changes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure.displacement import Network, random_layers, widened
from icm.measure.layers import Layer, find_layers
from tests.measure.planted import GPT, by_hand, next_token, tokens

PARTS = {"c_attn": ("query", "key", "value")}


def prepared(model: nn.Module, name: str, loss: Any = next_token, **given: Any) -> tuple[Network, Layer]:
    network = Network(model, loss, given.get("dtype"), given.get("seed"), given.get("looped", False))
    return network, find_layers(model, name, PARTS if name.startswith("c_attn.") else None)[0]


def directions(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("name", ["c_attn", "c_attn.key", "c_proj", "mlp.0", "head"])
def test_remainders_are_those_of_plain_passes(name: str, looped: bool) -> None:
    model, batch = GPT().double(), tokens()
    network, layer = prepared(model, name, looped=looped)
    base = network.base(layer, batch, alone=True)
    B, T, m = base.y.shape
    assert (m, base.u.shape[-1]) == (layer.m, layer.n)
    delta = directions(3, B, T, m)
    beyond, linear = network.remainders(layer, batch, base, delta)
    where = torch.tensor([0, T - 1, -1, 1])
    at_one, _ = network.remainders(layer, batch, base, delta[:, :, 0], where)
    module, _, _ = name.partition(".query")
    module = "c_attn" if name.startswith("c_attn") else module
    for k in range(3):
        full = torch.zeros(B, T, 24 if module == "c_attn" else m, dtype=torch.float64)
        full[..., layer.start : layer.start + m] = delta[k]
        torch.testing.assert_close(beyond[k], by_hand(model, next_token, batch, module, full), atol=1e-12, rtol=1e-10)
        one = torch.zeros_like(full)
        for b, t in enumerate(where.tolist()):
            if t >= 0:
                one[b, t, layer.start : layer.start + m] = delta[k, b, 0]
        torch.testing.assert_close(at_one[k], by_hand(model, next_token, batch, module, one), atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(linear[k], (base.g * delta[k]).sum((1, 2)), atol=1e-12, rtol=1e-10)
    assert (at_one[:, 2].abs() < 1e-14).all()


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {k: v.clone() for k, v in model.state_dict().items()},
        "addresses": {k: v.data_ptr() for k, v in model.state_dict().items()},
        "grads": {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()},
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [x.training for x in model.modules()],
        "hooks": [len(x._forward_hooks) + len(x._forward_pre_hooks) + len(x._backward_hooks) for x in model.modules()],
        "rng": torch.get_rng_state(),
    }


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("looped", [False, True])
def test_nothing_of_the_model_changes(seed: int | None, looped: bool) -> None:
    model = GPT(dropout=0.5 if seed is not None else 0.0)
    model.mlp.eval()
    model.wte.weight.requires_grad_(False)
    next_token(model, tokens()).mean().backward()
    before = state(model)
    network, layer = prepared(model, "mlp.0", seed=seed, looped=looped)
    base = network.base(layer, tokens(), alone=True)
    network.remainders(layer, tokens(), base, directions(2, *base.y.shape).float())
    same(before, state(model))
    assert int(model.calls) == 1


@pytest.mark.parametrize("looped", [False, True])
def test_nothing_is_left_behind_by_an_exception(looped: bool) -> None:
    model = GPT()
    before = state(model)
    calls = 0

    def failing(model: Any, batch: Any) -> Tensor:
        nonlocal calls
        terms = next_token(model, batch)
        calls += 1
        if calls > 1:
            raise KeyError("mine")
        return terms

    network, layer = prepared(model, "c_proj", failing, looped=looped)
    base = network.base(layer, tokens())
    with pytest.raises(KeyError, match="mine"):
        network.remainders(layer, tokens(), base, directions(2, *base.y.shape).float())
    with pytest.raises(KeyError, match="mine"):
        network.base(layer, tokens())
    same(before, state(model))


class Branching(nn.Module):
    """As nn.Sequential(first, relu, second), with a branch that depends on the data."""

    def __init__(self, branch: bool):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second, self.branch = nn.Linear(4, 6), nn.Linear(6, 3), branch
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.branch and bool((x > 1e9).any()):
            x = x - 1e9
        return self.second(x)


def test_what_vmap_cannot_run_passes_one_by_one_with_one_warning():
    def loss(model: Any, x: Tensor) -> Tensor:
        return model(x).square().sum(-1)

    x, delta = directions(5, 4).float(), directions(3, 5, 1, 6).float()
    found = []
    for branch in (False, True):
        network, layer = prepared(Branching(branch), "first", loss)
        base = network.base(layer, x)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found.append(network.remainders(layer, x, base, delta)[0])
            found.append(network.remainders(layer, x, base, delta)[0])
        said = [str(w.message) for w in caught if "vmap cannot run this model" in str(w.message)]
        assert len(said) == int(branch)
        assert network.looped == branch
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[2], found[3], rtol=0, atol=0)


def test_dropout_is_the_same_in_every_pass_and_whichever_way_it_passes():
    model = GPT(dropout=0.3).double().train()
    found = []
    for looped in (False, True):
        network, layer = prepared(model, "c_attn", seed=5, looped=looped)
        base = network.base(layer, tokens(), alone=True)
        delta = directions(2, *base.y.shape)
        delta[1] = 0
        beyond, _ = network.remainders(layer, tokens(), base, delta)
        assert (beyond[1].abs() < 1e-13).all()
        assert (beyond[0].abs() > 1e-6).all()
        found.append(beyond)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_modes_without_gradients(mode: Any) -> None:
    model, batch = GPT().double(), tokens()
    network, layer = prepared(model, "mlp.0")
    base = network.base(layer, batch)
    delta = directions(2, *base.y.shape)
    wanted = network.remainders(layer, batch, base, delta)[0]
    with mode():
        made_here = {"ids": batch["ids"].clone()}
        there = widened(made_here, None) if mode is torch.no_grad else batch
        base = network.base(layer, there)
        torch.testing.assert_close(network.remainders(layer, there, base, delta)[0], wanted)


def test_parameters_that_ask_for_no_gradient():
    model = GPT().double().requires_grad_(False)
    network, layer = prepared(model, "c_attn")
    base = network.base(layer, tokens())
    delta = directions(1, *base.y.shape)
    wanted = by_hand(model, next_token, tokens(), "c_attn", delta[0])
    torch.testing.assert_close(network.remainders(layer, tokens(), base, delta)[0][0], wanted)


@pytest.mark.parametrize("compiled", ["object", "in place"])
def test_compiled_models(compiled: str) -> None:
    from icm.networks import unwrapped

    model = GPT().double()
    plain = copy.deepcopy(model)
    if compiled == "object":
        model = unwrapped(torch.compile(model, backend="eager"))  # pyright: ignore[reportArgumentType]
    else:
        model.mlp.compile(backend="eager")
    found = []
    for each in (model, plain):
        network, layer = prepared(each, "c_proj")
        base = network.base(layer, tokens())
        found.append(network.remainders(layer, tokens(), base, directions(2, *base.y.shape))[0])
    torch.testing.assert_close(*found)


def test_double_precision_on_request_leaves_the_model_alone():
    model = GPT()
    before = state(model)
    network, layer = prepared(model, "mlp.2", dtype=torch.float64)
    base = network.base(layer, tokens())
    assert (base.y.dtype, base.eps) == (torch.float64, torch.finfo(torch.float64).eps)
    delta = directions(1, *base.y.shape)
    wanted = by_hand(copy.deepcopy(model).double(), next_token, tokens(), "mlp.2", delta[0])
    torch.testing.assert_close(network.remainders(layer, tokens(), base, delta)[0][0], wanted, rtol=1e-10, atol=1e-12)
    same(before, state(model))


def test_the_coarsest_precision_is_known():
    def cast(model: Any, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return next_token(model, batch).to(model.ln.weight.dtype)

    coarse = torch.finfo(torch.bfloat16).eps
    model = GPT()
    network, layer = prepared(model, "c_proj")
    assert network.base(layer, tokens()).eps == torch.finfo(torch.float32).eps
    network, layer = prepared(model, "c_proj", cast)
    assert network.base(layer, tokens()).eps == coarse
    mixed = GPT()
    mixed.head.to(torch.bfloat16)
    mixed.head.register_forward_pre_hook(lambda module, args: (args[0].bfloat16(),))
    network, layer = prepared(mixed, "mlp.0", lambda model, batch: next_token(model, batch).float())
    base = network.base(layer, tokens())
    assert (base.y.dtype, base.eps) == (torch.float32, coarse)
    assert base.wide == torch.float32
    network, layer = prepared(model, "c_proj", cast, dtype=torch.float64)
    assert network.base(layer, tokens()).eps == torch.finfo(torch.float64).eps
    network, layer = prepared(model, "c_proj", lambda _, batch: next_token(model, batch), dtype=torch.float64)
    assert network.base(layer, tokens()).y.dtype == torch.float64
    model.c_proj.register_forward_hook(lambda module, args, y: y.float())
    with pytest.raises(InputError, match=r"c_proj still computes in torch.float32; .*nothing in the model may cast"):
        network.base(layer, tokens())


class Odd(nn.Module):
    def __init__(self, use: str):
        super().__init__()
        self.a, self.b, self.use = nn.Linear(3, 3), nn.Linear(3, 3), use
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.use == "twice":
            return self.a(self.a(x))
        if self.use == "never":
            return self.b(x)
        if self.use == "norm":
            return self.norm(self.a(x))
        if self.use == "random":
            return self.a(x) + torch.rand(())
        if self.use == "detached":
            return self.a(x).detach()
        if self.use == "alone":
            return self.a(x)
        return self.a(x).cumsum(0)  # sequence-first: each step reads those before


@pytest.mark.parametrize(
    ("use", "reduce", "said"),
    [
        ("twice", lambda y: y.sum(-1), "a is called 2 times in a forward pass, .* leave it out"),
        ("never", lambda y: y.sum(-1), "a is called 0 times .* its model takes another way to the loss"),
        ("norm", lambda y: y.square().sum(-1), "belong to others, .*batch normalisation in training mode"),
        ("before", lambda y: y.square().sum(-1), "belong to others, .*sequences along the first axis"),
        ("random", lambda y: y.sum(-1), r"draws at random in every pass.*model.eval\(\), or give random_seed"),
        ("detached", lambda y: y.sum(-1), "no differentiable function of the output of a"),
        ("detached", lambda y: y.sum(), "returned one number for the batch; return its terms"),
        ("detached", lambda y: [y], "loss returned a list, not a tensor"),
        ("detached", lambda y: y.sum(-1)[:3], "do not share a first axis of examples"),
        ("detached", lambda y: y.sum(-1) / 0, "4 terms that are not finite before anything is displaced"),
        ("alone", lambda y: (0 * y).square().sum(-1).sqrt(), "has 12 entries that are not finite; mend the model"),
    ],
)
def test_losses_and_layers_that_cannot_be_displaced(use: str, reduce: Any, said: str) -> None:
    model = Odd(use).train()
    network, layer = prepared(model, "a", lambda model, x: reduce(model(x)))
    before = state(model)
    x = torch.ones(4, 3) + torch.arange(12.0).view(4, 3)
    with pytest.raises(InputError, match=said):
        network.base(layer, x, alone=True)
    same(before, state(model))


def test_random_layers_are_those_that_draw():
    model = GPT(dropout=0.1)
    model.attention = nn.MultiheadAttention(4, 2, dropout=0.2)
    assert random_layers(model) == ["drop", "attention"]
    assert random_layers(model.eval()) == []
    assert random_layers(GPT(dropout=0.0).train()) == []


def test_batches_of_any_shape_are_widened():
    from collections import namedtuple

    Pair = namedtuple("Pair", "x n")
    x, n = torch.ones(2), torch.ones(2, dtype=torch.long)
    wide = widened({"a": [x, n], "b": Pair(x, n), "c": "text"}, torch.float64)
    assert [v.dtype for v in (*wide["a"], *wide["b"])] == [torch.float64, torch.long] * 2
    assert (wide["c"], wide["b"].n is n) == ("text", True)
    with torch.inference_mode():
        made = torch.ones(2)
    with torch.inference_mode(False):
        assert not widened((made,), None)[0].is_inference()


@pytest.mark.parametrize("pair", [(0, 2), (2, 0), (1, 5), (6, 0), (3, 4), (0, 1)])
def test_any_two_examples_that_meet_are_found(pair: tuple[int, int]) -> None:
    """The loss of one of seven examples depends on the output of one other."""
    one, other = pair

    def loss(model: Any, x: Tensor) -> Tensor:
        y = model(x).square().sum(-1)
        meets = torch.zeros(7, 7)
        meets[one, other] = 1.0
        return y + meets @ y

    network, layer = prepared(Odd("alone"), "a", loss)
    x = torch.arange(21.0).view(7, 3)
    with pytest.raises(InputError, match="the loss of one example depends on outputs of a that belong to others"):
        network.base(layer, x, alone=True)


def test_dependences_that_cancel_are_found():
    """Examples 2 and 0 depend on example 1, oppositely."""

    def loss(model: Any, x: Tensor) -> Tensor:
        y = model(x).sum(-1)
        return torch.stack([y[0] + y[1], y[1], y[2] - y[1], y[3]])

    network, layer = prepared(Odd("alone"), "a", loss)
    with pytest.raises(InputError, match="belong to others"):
        network.base(layer, torch.arange(12.0).view(4, 3), alone=True)
