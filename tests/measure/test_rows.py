"""Functions of rows against the same functions of every lane; a wrong or unknown rule is never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from icm.measure.row_products import RULES
from icm.measure.rows import Pass, Rows

T = 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(*shape: int, axis: int = 1, lo: int = 2, hi: int = 4, lanes: int = 3, seed: int = 0) -> Rows:
    moved = [hi - lo if i == axis else n for i, n in enumerate(shape)]
    return Rows(normal(*shape, seed=seed), normal(lanes, *moved, seed=seed + 1), lo, axis, Pass(RULES))


def lane(x: Any, k: int) -> Any:
    """Argument k of a plain call."""
    if isinstance(x, Rows):
        return x.whole()[k]
    return type(x)(lane(y, k) for y in x) if isinstance(x, list | tuple) else x


def check(func: Callable[..., Any], *args: Any) -> Any:
    """What func gives for rows, after comparison with each lane's."""
    found = func(*args)
    wanted = [func(*(lane(x, k) for x in args)) for k in range(3)]
    several = isinstance(found, tuple | list)
    for i, one in enumerate(found if several else [found]):
        each = torch.stack([w[i] if several else w for w in wanted])
        if isinstance(one, Rows):
            torch.testing.assert_close(one.whole(), each, rtol=1e-12, atol=1e-13)
            assert one.shape == each.shape[1:]
        else:
            torch.testing.assert_close(one.expand_as(each), each, rtol=1e-12, atol=1e-13)
    return found


LAST: dict[str, Any] = {"axis": -1}
W, b, mask = normal(5, 4, seed=9), normal(5, seed=8), normal(T, T, seed=7) > 0
POINTWISE: dict[str, Callable[[Any], Any]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "tanh method": lambda x: x.tanh(),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "a number": lambda x: 2 - x * 3 + x / 4,
    "powers": lambda x: (x.abs() + 1) ** 0.5,
    "a plain tensor of its shape": lambda x: x + normal(1, T, 4, seed=5),
    "a plain tensor on the left": lambda x: normal(1, T, 4, seed=5) * x,
    "a plain tensor without tokens": lambda x: x * normal(4, seed=5),
    "a plain tensor of tokens": lambda x: x * normal(T, 1, seed=5),
    "itself, elsewhere": lambda x: x + F.relu(x),
    "where": lambda x: torch.where(x > 0, x, normal(1, T, 4, seed=5)),
    "masked_fill": lambda x: x.masked_fill(normal(1, T, 1, seed=5) > 0, -1.0),
    "clamp": lambda x: x.clamp(min=-0.5, max=0.5),
    "another dtype": lambda x: x.float().to(torch.float64),
    "a plain tensor of its dtype": lambda x: x * normal(1, T, 1).float().to(x) + normal(4).float().type_as(x),
    "dropout in eval mode": lambda x: F.dropout(x, 0.5, training=False),
    "mse_loss": lambda x: F.mse_loss(x, normal(1, T, 4, seed=5), reduction="none"),
    "linear": lambda x: F.linear(x, W, b),
    "matmul": lambda x: x @ W.T,
    "layer_norm": lambda x: F.layer_norm(x, (4,), b[:4], b[1:]),
    "rms_norm": lambda x: F.rms_norm(x, (4,)),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: x.log_softmax(dim=2),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "mean by NumPy's word": lambda x: x.mean(axis=-1, keepdim=True),
    "sum": lambda x: x.sum(2),
    "variance": lambda x: x.var(-1, unbiased=False),
    "cumsum over features": lambda x: x.cumsum(-1),
    "expand": lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1),
    "unflatten": lambda x: x.unflatten(-1, (2, 2)),
    "feature slices": lambda x: torch.cat((x[..., 2:], -x[..., :2]), -1),
    "stack": lambda x: torch.stack((x, normal(1, T, 4, seed=5)), -2),
    "cat by NumPy's word": lambda x: torch.cat((x, normal(1, T, 4, seed=5)), **LAST),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "glu": lambda x: F.glu(x, -1),
    "flip": lambda x: x.flip(-1),
    "max": lambda x: x.max(-1).values,
}


@pytest.mark.parametrize("name", POINTWISE)
def test_functions_token_by_token_keep_their_rows(name: str) -> None:
    found = check(POINTWISE[name], rows(1, T, 4))
    assert (found.lo, found.hi, found.axis) == (2, 4, 1)
    assert found.dim() == found.base.ndim


SHAPES: dict[str, tuple[Callable[[Any], Any], int | None]] = {
    "flatten": (lambda x: x.flatten(0, 1), 0),
    "view": (lambda x: x.view(-1, 4), 0),
    "view back": (lambda x: x.reshape(-1, 4).view(1, T, 2, 2), 1),
    "squeeze": (lambda x: x.squeeze(0), 0),
    "transpose": (lambda x: x.transpose(1, 2), 2),
    "permute": (lambda x: x.permute(2, 0, 1), 2),
    "mT": (lambda x: x.mT, 2),
    "heads": (lambda x: x.unflatten(-1, (2, 2)).transpose(1, 2), 2),
    "None and numbers": (lambda x: x[0, None, :, 1:3], 1),
    "tokens and features together": (lambda x: x.flatten(1), None),
    "every second token": (lambda x: x[:, ::2], None),
    "one displaced token": (lambda x: x[:, 3], None),
    "sum over tokens": (lambda x: x.sum(1), None),
    "sum of all": (lambda x: x.sum(), None),
    "cumsum over tokens": (lambda x: x.cumsum(1), None),
    "roll of tokens": (lambda x: x.roll(1, 1), None),
    "tokens repeated": (lambda x: torch.cat((x, x), 1), None),
    "a product over tokens": (lambda x: normal(1, 3, T) @ x, None),
    "einsum": (lambda x: torch.einsum("btn,mn->btm", x, W), None),
    "mm": (lambda x: torch.mm(x[0], W.T), 0),
    "bmm": (lambda x: torch.bmm(x, W.T[None]), 1),
    "convolution": (lambda x: F.conv1d(x.transpose(1, 2), normal(4, 4, 3), padding=1), None),
    "softmax over tokens": (lambda x: x.softmax(1), None),
    "flip of all": (lambda x: torch.Tensor.flip(x, 2, 1), None),
    "a mean loss": (lambda x: F.mse_loss(x, normal(1, T, 4)), None),
    "group_norm": (lambda x: F.group_norm(x.transpose(1, 2), 2), None),
    "dense from then on": (lambda x: F.gelu(x.cumsum(1)) + x, None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_token_axis_is_followed_or_given_up(name: str) -> None:
    func, axis = SHAPES[name]
    assert check(func, rows(1, T, 4)).axis == axis


def test_parts_and_several_values():
    for parts in (
        check(lambda x: x.chunk(2, -1), rows(1, T, 4)),
        check(lambda x: x.split(2, dim=2), rows(1, T, 4)),
        check(lambda x: x.split([1, 3], 2), rows(1, T, 4)),
        check(lambda x: torch.unbind(x, -1), rows(1, T, 4)),
        check(lambda x: torch.var_mean(x, -1), rows(1, T, 4)),
        check(lambda x: tuple(x.unflatten(-1, (2, 1, 2)).permute(2, 0, 1, 3, 4)), rows(1, T, 4)),
    ):
        assert [(x.lo, x.hi, x.axis) for x in parts] == [(2, 4, 1)] * 2 or len(parts) == 4


def test_metadata_is_that_of_one_lane():
    x, plain = rows(1, T, 4), normal(1, T, 4)
    assert (x.shape, x.size(1), x.dim(), x.ndim, x.numel(), len(x)) == (plain.shape, T, 3, 3, T * 4, 1)
    assert (x.dtype, x.device, x.is_floating_point(), x.requires_grad) == (plain.dtype, plain.device, True, False)
    assert not isinstance(x.new_zeros(2), Rows)


def test_outside_the_changed_rows_all_lanes_are_one_plain_tensor():
    x = rows(1, T, 4, lo=2, hi=4)
    assert type(check(lambda x: x[:, :2], x)) is Tensor
    assert type(check(lambda x: x[:, 5], x)) is Tensor
    cut = check(lambda x: x[:, 1:4], x)
    assert (cut.lo, cut.hi, cut.shape[1]) == (1, 3, 3)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_two_ranges_meet_in_the_range_of_both(data: Any) -> None:
    def part(seed: int) -> Rows:
        lo = data.draw(st.integers(0, T - 1))
        return rows(1, T, 4, lo=lo, hi=data.draw(st.integers(lo + 1, T)), seed=seed)

    x, y = part(0), part(10)
    for func in (torch.add, lambda x, y: torch.cat((x, y), -1), lambda x, y: torch.where(x > 0, x, y)):
        found = check(func, x, y)
        assert (found.lo, found.hi) == (min(x.lo, y.lo), max(x.hi, y.hi))


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_attention(data: Any) -> None:
    """Any of query, key and value displaced, causal, masked or neither; rows before what changes stay out."""
    length, d = data.draw(st.sampled_from([5, 20])), 4
    which = data.draw(st.sampled_from(["q", "k", "v", "kv", "qkv", "qk"]))

    def part(name: str, seed: int) -> Tensor:
        lo = data.draw(st.integers(0, length - 1))
        hi = data.draw(st.sampled_from([lo + 1, min(length, lo + 2), length]))
        moved = rows(1, 2, length, d, axis=2, lo=lo, hi=hi, seed=seed)
        return moved if name in which else moved.base

    q, k, v = part("q", 0), part("k", 10), part("v", 20)
    kind = data.draw(st.sampled_from(["causal", "none", "bool", "float"]))
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    window = seen.triu(-3)
    options: dict[str, Any] = {"scale": data.draw(st.sampled_from([None, 0.3]))}
    if kind == "causal":
        options["is_causal"] = True
    elif kind == "bool":
        options["attn_mask"] = seen[None, None]
    elif kind == "float":
        options["attn_mask"] = torch.zeros(length, length, dtype=q.dtype).masked_fill(~window, -torch.inf)
    found = check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), q, k, v)
    first = min(x.lo for x in (q, k, v) if isinstance(x, Rows))
    if isinstance(found, Rows) and kind != "none":
        assert found.axis == 2
        assert found.lo >= first


def test_attention_of_a_query_alone_keeps_its_row():
    q, k, v = rows(1, 2, 9, 4, axis=2, lo=3, hi=4), normal(1, 2, 9, 4), normal(1, 2, 9, 4, seed=3)
    for options in ({}, {"is_causal": True}, {"attn_mask": torch.ones(9, 9, dtype=torch.bool).tril()}):
        found = check(lambda *x, options=options: F.scaled_dot_product_attention(*x, **options), q, k, v)
        assert (found.lo, found.hi) == (3, 4)


def test_explicit_attention():
    q, k, v = (rows(1, 2, T, 4, axis=2, seed=s) for s in (0, 10, 20))
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    found = check(lambda q, k, v: (q @ k.transpose(-1, -2)).masked_fill(hidden, -torch.inf).softmax(-1) @ v, q, k, v)
    assert found.axis == 2


@pytest.mark.parametrize("layout", ["flat", "classes second"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}, {"weight": normal(4).abs()}])
def test_cross_entropy(layout: str, options: dict[str, Any]) -> None:
    targets = torch.tensor([[0, 2, 1, 3, 2, 0]])

    def loss(x: Any) -> Any:
        if layout == "flat":
            return F.cross_entropy(x.flatten(0, 1), targets.flatten(), reduction="none", **options).view(targets.shape)
        return F.cross_entropy(x.transpose(1, 2), targets, reduction="none", **options)

    found = check(loss, rows(1, T, 4))
    assert (found.lo, found.hi, found.axis) == (2, 4, 1)
    assert check(lambda x: F.cross_entropy(x.flatten(0, 1), targets.flatten()), rows(1, T, 4)).axis is None


def test_conv1d_of_hugging_face():
    found = check(lambda x: torch.addmm(b, x.view(-1, x.size(-1)), W.T).view(1, T, 5), rows(1, T, 4))
    assert (found.lo, found.hi, found.axis) == (2, 4, 1)


@pytest.mark.parametrize(
    "func",
    [
        lambda x: x.add_(1),
        lambda x: x.__iadd__(1),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.leaky_relu(x, 0.1, True),
        lambda x: nn.ReLU6(inplace=True)(x),
        lambda x: torch.zeros(1, T, 4, dtype=torch.float64).copy_(x),
        lambda x: torch.zeros(1, T, 4, dtype=torch.float64).__setitem__(slice(None), x),
        lambda x: torch.add(x, 1, out=torch.zeros(1, T, 4, dtype=torch.float64)),
        lambda x: F.dropout(x, 0.5),
        lambda x: torch.rand_like(x) + x,
        lambda x: torch.bernoulli(x.sigmoid()),
        lambda x: x.tolist(),
        lambda x: x[0, 0, 0].item() if isinstance(x[0, 0, 0], Rows) else x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: torch.equal(x, x),
        lambda x: x.numpy(),
        lambda x: x.data_ptr(),
    ],
)
def test_what_is_no_function_of_each_lane_is_refused(func: Callable[[Any], Any]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError, ValueError, TypeError)):
        func(rows(1, T, 4))


def test_rows_that_fit_nowhere_are_refused():
    base = normal(1, T, 4)
    for values, lo, axis in (
        (normal(3, 1, 2, 4), 5, 1),
        (normal(3, 1, 2, 5), 0, 1),
        (normal(3, 1, 2, 4).float(), 0, 1),
    ):
        with pytest.raises(ValueError, match=r"are not in|are no lanes of"):
            Rows(base, values, lo, axis)


def test_every_rule_has_functions_of_torch():
    assert len(RULES) > 300
    assert all(callable(func) and callable(rule) for func, rule in RULES.items())
    assert nn.functional.scaled_dot_product_attention in RULES


def test_the_rules_are_constant():
    with pytest.raises(TypeError, match="does not support item assignment"):
        RULES[F.gelu] = RULES[F.relu]  # type: ignore[index]


def test_without_rules_every_lane_is_computed_in_full():
    x = rows(1, T, 4)
    for of in (Pass({}), None):
        found: Any = F.gelu(Rows(x.base, x.changed, x.lo, x.axis, of))
        assert (found.axis, found.of) == (None, of)
        torch.testing.assert_close(found.whole(), F.gelu(x.whole()))


def test_the_work_of_a_pass_is_counted():
    """Two of six rows kept through one function, and all six through another."""
    x = rows(1, T, 4)
    assert x.of is not None
    y: Any = F.gelu(x)
    assert (y.of, x.of.share) == (x.of, pytest.approx(2 / 6))
    y.cumsum(1).chunk(2, -1)
    assert x.of.share == pytest.approx((2 + 6 + 6) / 18)
