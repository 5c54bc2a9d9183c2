"""Passes of changed rows against passes of all rows, in whole models; where wrong or refused, all rows pass."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from icm.demo import load_example
from icm.errors import InputError
from icm.measure import curvature, row_passes
from icm.measure.displacement import Network
from icm.measure.layers import find_layers
from icm.measure.memory import peak
from icm.measure.row_passes import RowChoice, RowPasses, only
from icm.measure.row_products import RULES
from icm.measure.rows import Rows
from icm.measure.sweep import Sweep
from tests.measure.planted import GPT, next_token, tokens

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

PLENTY = 2**30


class Mixer(nn.Module):
    """Residual layers with something between them that may mix tokens; (B, T, 6) to (B, T, 3)."""

    def __init__(self, mix: Callable[[Any, Tensor], Tensor] | None = None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.norm = nn.LayerNorm(8)
            self.gru = nn.GRU(8, 8, batch_first=True)
            self.conv = nn.Conv1d(8, 8, 3, padding=1)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.a(x))
        x = x + (self.mix(self, self.norm(x)) if self.mix else 0)
        return self.c(x + F.silu(self.b(x)))


def attention(causal: bool) -> Callable[[Any, Tensor], Tensor]:
    def mix(model: Any, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (model.query, model.key, model.value))
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(-2)

    return mix


def explicit(model: Any, x: Tensor) -> Tensor:
    q, k, v = model.query(x), model.key(x), model.value(x)
    hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return torch.bmm((q @ k.mT).masked_fill(hidden, -torch.inf).softmax(-1), v)


MIXERS: dict[str, Callable[[Any, Tensor], Tensor] | None] = {
    "tokens apart": None,
    "causal attention": attention(True),
    "attention both ways": attention(False),
    "explicit attention": explicit,
    "convolution": lambda model, x: model.conv(x.transpose(1, 2)).transpose(1, 2),
    "cumsum": lambda model, x: model.query(x).cumsum(1).tanh(),
    "mean over tokens": lambda model, x: model.query(x).mean(1, keepdim=True),
    "encoder layer": lambda model, x: model.layer(x),
}


def squares(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["x"]) - batch["y"]).square().sum(-1)


def data(B: int = 3, length: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(B, length, n, generator=generator, dtype=torch.float64) for n in (6, 3))
    return {"x": x, "y": y}


def both(model: nn.Module, loss: Any, batch: Any, name: str, parts: Any = None) -> RowPasses:
    """Passes by rows, after comparison with passes of all rows at early, middle and late tokens."""
    network, layer = Network(model, loss, None, None, False), find_layers(model, name, parts)[0]
    base = network.base(layer, batch)
    B, length, m = base.y.shape
    generator = torch.Generator().manual_seed(2)
    delta = torch.randn(5, B, m, generator=generator, dtype=torch.float64)
    passes = RowPasses(network, layer, batch, base, 3, 0.0)
    for first in (0, length // 2, length - 1):
        where = torch.tensor([first, -1, (first + 3) % length, length - 1 - first][:B])
        wanted = network.remainders(layer, batch, base, delta, where)
        for x, y in zip(passes.remainders(delta, where), wanted, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    return passes


@pytest.mark.parametrize("name", ["a", "b", "c", "value"])
@pytest.mark.parametrize("mix", MIXERS)
def test_models_that_mix_tokens_in_every_way(mix: str, name: str) -> None:
    if name == "value" and mix not in ("causal attention", "attention both ways", "explicit attention"):
        name = "b"
    both(Mixer(MIXERS[mix]).double().eval(), squares, data(), name)


@pytest.mark.parametrize("name", ["blocks.0.attention.key", "blocks.0.mlp.up", "blocks.1.attention.output", "head"])
def test_the_small_transformer(name: str) -> None:
    example = load_example()
    config = example.Config(layers=2, width=16, heads=2, context=20, vocab=30)
    ids = torch.randint(30, (3, 21), generator=torch.Generator().manual_seed(0))
    passes = both(example.SmallLM(config).double(), example.loss, (ids[:, :-1], ids[:, 1:]), name)
    passes.one(0, 10, torch.ones(2, passes.layer.m, dtype=torch.float64))
    assert passes.share < 0.6


@pytest.mark.parametrize("name", ["c_attn", "c_attn.key", "c_proj", "mlp.0", "mlp.2", "head"])
def test_a_block_of_gpt2(name: str) -> None:
    parts = {"c_attn": ("query", "key", "value")} if name.startswith("c_attn.") else None
    both(GPT().double(), next_token, tokens(4, 9), name, parts)


def choice(
    model: nn.Module, loss: Any = squares, batch: Any = None, name: str = "a", **given: Any
) -> tuple[RowPasses | None, str]:
    network = Network(model, loss, None, given.get("seed"), given.get("looped", False))
    layer, chosen = find_layers(model, name)[0], RowChoice()
    batch = data() if batch is None else batch
    passes = chosen.passes(network, layer, batch, network.base(layer, batch), given.get("budget", PLENTY))
    return passes, next(iter(chosen.why_not.values()), "")


def wrong(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    found = RULES[F.silu](func, args, kwargs)
    found.changed.mul_(1.001)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_rule_is_noticed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = Mixer(attention(True)).to(dtype).eval(), {k: v.to(dtype) for k, v in data().items()}
    assert choice(model, batch=batch)[0] is not None
    monkeypatch.setattr(row_passes, "RULES", {**RULES, F.gelu: wrong})
    passes, why = choice(model, batch=batch)
    assert passes is None
    assert "remainders are off by" in why


def test_a_wrong_rule_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mixer(attention(True)).double().eval()
    options: dict[str, Any] = {"directions": 3, "tokens": 2, "progress": False}
    right = curvature(model, squares, [data()], "a", [0.1, 1.0], **options)["a"]
    for rule in (wrong, lambda *_: 1 / 0):
        monkeypatch.setattr(row_passes, "RULES", {**RULES, F.gelu: rule})
        found = curvature(model, squares, [data()], "a", [0.1, 1.0], **options)["a"]
        torch.testing.assert_close(found.mean, right.mean, rtol=1e-10, atol=0)


def test_a_model_that_refuses_rows_later_passes_all_rows_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mixer(attention(True)).double().eval()
    network, layer = Network(model, squares, None, None, False), find_layers(model, "a")[0]
    base = network.base(layer, data())

    def measured(sweep: Sweep) -> Tensor:
        return sweep.measure(network, layer, data(), base, 0).total[:2]  # the last is rounding

    sweep = Sweep(torch.tensor([0.1, 1.0], dtype=torch.float64), 3, "one", 2, 0, None)
    by_rows = measured(sweep)
    assert not sweep.rows.why_not
    monkeypatch.setattr(row_passes, "RULES", {**RULES, F.gelu: lambda *_: 1 / 0})
    torch.testing.assert_close(measured(sweep), by_rows, rtol=1e-10, atol=1e-14)
    assert "ZeroDivisionError" in sweep.rows.why_not["a", tuple(base.y.shape)]


@pytest.mark.filterwarnings("ignore:displacements pass one by one")
def test_recurrent_models_pass_all_rows_one_by_one():
    model = Mixer(lambda model, x: model.gru(x)[0]).double().eval()
    network, layer = Network(model, squares, None, None, False), find_layers(model, "a")[0]
    base = network.base(layer, data())
    sweep = Sweep(torch.tensor([0.1, 1.0], dtype=torch.float64), 2, "one", 2, 0, None)
    found = sweep.measure(network, layer, data(), base, 0)
    assert "gru" in sweep.rows.why_not["a", tuple(base.y.shape)]
    network = Network(model, squares, None, None, True)
    wanted = Sweep(torch.tensor([0.1, 1.0], dtype=torch.float64), 2, "one", 2, 0, None).measure(
        network, layer, data(), base, 0
    )
    torch.testing.assert_close(found.total, wanted.total, rtol=0, atol=0)


class Inplace(Mixer):
    """Its activation, and what is added after it, in place where that is asked for."""

    def __init__(self, inplace: bool = True):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x), inplace=self.inplace)
        z = self.b(y)
        return self.c(z.add_(y) if self.inplace else z + y)


class Greedy(Mixer):
    """Asks for more memory than any machine has, where a tensor is displaced so that at least so many entries change;
    from then on always, if asked."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if isinstance(y, Rows) and y.changed.numel() >= self.most:
            torch.empty(2**50)
        return self.c(y)


class Early(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.gelu(self.b(self.a(x).cumsum(1))).tanh())


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"seed": 3}, "pass as they are"),
        ({"looped": True}, "pass as they are"),
        ({"model": Inplace()}, "relu in place"),
        ({"budget": 5000}, "lanes hold"),
        ({"model": Early()}, "of all that passes of all rows compute"),
        ({"loss": lambda model, batch: squares(model, batch) * batch["x"].shape[0]}, "another loss than in its batch"),
        ({"batch": data(3, 1)}, "single rows"),
        ({"model": Greedy(1)}, "DefaultCPUAllocator"),
    ],
)
def test_where_rows_are_not_for_a_layer_it_is_known_why(what: dict[str, Any], why: str) -> None:
    model = what.pop("model", Mixer(attention(True))).double().eval()
    passes, said = choice(model, **what)
    assert passes is None
    assert why in said


def test_no_memory_for_many_lanes_is_not_taken_for_a_model_that_refuses_rows():
    model = Greedy(8 * 5).double().eval()
    network, layer = Network(model, squares, None, None, False), find_layers(model, "a")[0]
    base = network.base(layer, data())
    sweep = Sweep(torch.tensor([0.1, 1.0], dtype=torch.float64), 3, "one", 2, 0, None)
    with pytest.raises(InputError, match=r"no memory is left for \d+ displacements of a at once .* smaller memory="):
        sweep.measure(network, layer, data(), base, 0)
    assert not sweep.rows.why_not


def test_activations_in_place_change_no_result():
    options: dict[str, Any] = {"directions": 3, "tokens": 2, "progress": False}
    found = []
    for inplace in (True, False):
        model = Inplace(inplace).double().eval()
        for name in ("a", "b"):
            found.append(curvature(model, squares, [data()], name, [0.1, 1.0], **options)[name].mean)
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-10, atol=1e-13)


def test_compiled_modules_pass_all_rows():
    model = Mixer().double().eval()
    model.b.compile(backend="eager")
    assert "compiled modules" in choice(model)[1]


def test_lanes_hold_no_more_than_the_budget():
    model, batch = Mixer(attention(True)).double().eval(), data(2, 40)
    for budget in (300_000, 2_000_000):
        passes, _ = choice(model, batch=batch, budget=budget)
        assert passes is not None
        delta = torch.ones(passes.lanes, 2, 8, dtype=torch.float64)
        for t in (0, 20, 39):
            where = torch.tensor([t, t])
            assert peak(lambda passes=passes, delta=delta, where=where: passes.remainders(delta, where)) <= budget
        assert 2 * passes.lanes * passes.bytes_each > budget / 4


@dataclass
class Example:
    x: Tensor
    y: Tensor


def test_batches_of_any_kind_pass_by_rows():
    def loss(model: Any, batch: Example) -> Tensor:
        return squares(model, {"x": batch.x, "y": batch.y})

    passes, why = choice(Mixer(attention(True)).double().eval(), loss, Example(**data()))
    assert (passes is None, why) == (False, "")


def test_one_example_of_a_batch_in_any_nest():
    x = torch.arange(6).view(3, 2)
    found = only({"a": [x, x[:2]], "b": (x, "text", torch.tensor(1))}, 1, 3)
    assert [t.tolist() for t in found["a"]] == [[[2, 3]], [[0, 1], [2, 3]]]
    assert found["b"][0].tolist() == [[2, 3]]
    assert found["b"][1:] == ("text", torch.tensor(1))
    mapping = only(UserDict(x=x, n=3), 1, 3)
    assert isinstance(mapping, UserDict)
    assert (mapping["x"].tolist(), mapping["n"]) == ([[2, 3]], 3)
    assert only(found, 0, 1) is found
