"""Averages over steps, sharing, memory, states and lifetimes, against moments written out in NumPy."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure import InputMoments
from tests.measure.by_hand import by_hand, far, normal, recorded

TIGHT = 1e-6


class Attention(nn.Module):
    """q, k and v from one tensor; `split` gives v another, `only` leaves all but one out."""

    def __init__(self, n: int = 6):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(n, n) for _ in range(3))
        self.out = nn.Linear(n, n)

    def forward(self, x: Tensor, split: bool = False, only: str = "") -> Tensor:
        if only:
            return getattr(self, only)(x)
        return self.out(self.q(x) * self.k(x) + self.v(x.clone() * 2 if split else x))


def skewed(seed: int, *shape: int) -> Tensor:
    """Inputs with a moment far from the identity, and a mean."""
    n = shape[-1]
    return normal(seed, *shape) @ normal(seed + 1000, n, n) + torch.arange(n)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.5])
def test_the_average_over_steps(decay: float, ridge: float) -> None:
    """Bias-corrected from the first step on; the ridge relative to the mean eigenvalue; trace n."""
    layer = nn.Linear(6, 3)
    moments = InputMoments(layer, decay=decay, ridge=ridge)
    steps = []
    for i in range(8):
        steps.append([skewed(i, 10 + i, 6)])
        layer(steps[-1][0])
        moments.step()
        C = moments.moment(layer.weight)
        assert C is not None
        assert far(C, by_hand(steps, decay, ridge)) < TIGHT
        assert float(C.diagonal(dim1=1, dim2=2).sum()) == pytest.approx(6, abs=1e-5)
        assert torch.equal(C, C.mT)
        assert moments.version(layer.weight) == i + 1


def test_nothing_seen_is_none() -> None:
    layer = nn.Linear(6, 3)
    moments = InputMoments(layer)
    assert moments.moment(layer.weight) is None
    moments.step()
    assert moments.moment(layer.weight) is None
    layer(normal(0, 4, 6))
    assert moments.moment(layer.weight) is None  # not folded in yet
    assert moments.version(layer.weight) == 0
    moments.step()
    assert moments.version(layer.weight) == 1


def test_accumulated_batches_weigh_by_their_rows() -> None:
    """One batch of 32, four of 8 and unequal parts are the same step."""
    x = skewed(1, 32, 6)
    found = []
    for parts in ([32], [8] * 4, [1, 20, 4, 7]):
        layer = nn.Linear(6, 3)
        moments = InputMoments(layer, ridge=0.0)
        for part in x.split(parts):
            layer(part)
        moments.step()
        found.append(moments.moment(layer.weight))
        assert far(found[-1], by_hand([[x]])) < TIGHT
    assert far(found[1], found[0][0].double().numpy()) < 1e-6


def test_steps_weigh_alike_whatever_their_rows() -> None:
    layer = nn.Linear(6, 3)
    moments = InputMoments(layer, ridge=0.0, decay=0.9)
    steps = [[skewed(1, 100, 6)], [skewed(2, 2, 6)]]
    for (x,) in steps:
        layer(x)
        moments.step()
    assert far(moments.moment(layer.weight), by_hand(steps, 0.9)) < TIGHT


def test_every_third_step_collects() -> None:
    layer = nn.Linear(6, 3)
    moments = InputMoments(layer, ridge=0.0, decay=0.5, every=3)
    steps = [[skewed(i, 9, 6)] for i in range(7)]
    versions = []
    for (x,) in steps:
        layer(x)
        moments.step()
        versions.append(moments.version(layer.weight))
    assert versions == [1, 1, 1, 2, 2, 2, 3]
    assert far(moments.moment(layer.weight), by_hand(steps[::3], 0.5)) < TIGHT


def test_weights_fed_one_tensor_share_one_moment() -> None:
    model, x = Attention(), skewed(3, 9, 6)
    moments = InputMoments(model, ridge=0.0, decay=0.5)
    model(x)
    model(x + 1)
    assert moments._collector.count == 4  # products: two for q, k and v, two for out
    moments.step()
    assert moments.shares() == {"q.weight": ("q.weight", "k.weight", "v.weight"), "out.weight": ("out.weight",)}
    assert moments.key(model.v.weight) == moments.key(model.q.weight) == "q.weight"
    assert moments.bytes == 2 * 6 * 6 * 4
    assert "2 × (1, 6, 6) for 4 weights" in repr(moments)
    assert far(moments.moment(model.v.weight), by_hand([[x, x + 1]])) < TIGHT


def test_sharing_ends_where_inputs_differ() -> None:
    """First v gets another tensor, then k misses a step; all have the moments of what each saw."""
    model = Attention()
    calls = {name: [] for name in ("q", "k", "v", "out")}
    steps: dict[str, list[list[Tensor]]] = {name: [] for name in calls}
    for name in calls:
        calls[name] = recorded(getattr(model, name))
    moments = InputMoments(model, ridge=0.0, decay=0.7)
    runs: list[list[dict[str, Any]]] = [[{}, {}], [{}, {"split": True}], [{}], [{"only": "q"}], [{}, {}]]
    groups = []
    for i, forwards in enumerate(runs):
        for j, options in enumerate(forwards):
            model(skewed(10 * i + j, 9, 6), **options)
        moments.step()
        for name, seen in calls.items():
            if seen:
                steps[name].append(seen[:])
            seen.clear()
            layer = getattr(model, name)
            assert far(moments.moment(layer.weight), by_hand(steps[name], 0.7)) < TIGHT
            assert moments.version(layer.weight) == len(steps[name])
        groups.append([[name.split(".")[0] for name in names] for names in moments.shares().values()])
    qkv, split = [["q", "k", "v"], ["out"]], [["q", "k"], ["v"], ["out"]]
    assert groups == [qkv, split, split, [["q"], ["k"], ["v"], ["out"]], [["q"], ["k"], ["v"], ["out"]]]
    model(normal(0, 9, 6))
    assert moments._collector.count == 7 * 2 + 1 + 1 + 2  # one product for q, k, v even after they parted


def test_a_tensor_changed_in_place_or_gone_is_another_input() -> None:
    model: Any = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
    moments = InputMoments(model, ridge=0.0)
    x = skewed(4, 9, 6)
    kept = x.clone()
    with torch.no_grad():
        model[0](x)
        x.mul_(-2).add_(1)
        model[1](x)
    moments.step()
    assert far(moments.moment(model[0].weight), by_hand([[kept]])) < TIGHT
    assert far(moments.moment(model[1].weight), by_hand([[x]])) < TIGHT
    for i in range(20):  # freed tensors, so that addresses come again
        with torch.no_grad():
            model[0](torch.full((3, 6), 1.0 + i))
            model[1](torch.full((3, 6), -2.0 - i))
    assert moments._collector.count == 42


def test_one_module_called_twice_and_one_weight_in_two_modules_add_up() -> None:
    tied: Any = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)])
    tied[1].weight = tied[0].weight
    moments = InputMoments(tied, ridge=0.0)
    assert list(moments.shares()) == ["0.weight", "2.weight"]
    x, y, z = skewed(5, 9, 6), skewed(6, 4, 6), skewed(7, 2, 6)
    tied[2](y)
    for module, u in ((tied[0], x), (tied[0], y), (tied[1], z), (tied[1], x), (tied[2], z)):
        module(u)
    moments.step()
    assert far(moments.moment(tied[0].weight), by_hand([[x, y, z, x]])) < TIGHT
    assert far(moments.moment(tied[2].weight), by_hand([[y, z]])) < TIGHT


def test_only_the_parameters_named() -> None:
    model = Attention()
    moments = InputMoments(model, [model.v.weight, model.q.weight])
    assert [len(m._forward_pre_hooks) for m in (model.q, model.k, model.v, model.out)] == [1, 0, 1, 0]
    model(normal(0, 9, 6))
    moments.step()
    assert moments.shares() == {"q.weight": ("q.weight", "v.weight")}
    with pytest.raises(InputError, match="among those that were to be measured"):
        moments.moment(model.k.weight)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_pre_hooks_with_kwargs) for m in model.modules())


def test_removed_hooks_leave_nothing_but_the_averages() -> None:
    model = Attention()
    moments = InputMoments(model)
    assert hooks(model) == 8
    model(normal(0, 9, 6))
    moments.step()
    kept = moments.moment(model.q.weight)
    moments.remove()
    moments.remove()
    assert hooks(model) == 0
    model(normal(1, 9, 6))
    moments.step()
    assert kept is not None
    assert torch.equal(kept, moments.moment(model.q.weight))  # pyright: ignore


def test_hooks_go_with_the_moments_and_moments_do_not_hold_the_model() -> None:
    """Both without a round of the garbage collector: there is no circle."""
    gc.disable()
    try:
        model = Attention()
        moments = InputMoments(model)
        model(normal(0, 9, 6))
        del moments
        assert hooks(model) == 0
        moments = InputMoments(model)
        model(normal(0, 9, 6))
        moments.step()
        parts = [weakref.ref(model), weakref.ref(model.q), weakref.ref(model.q.weight)]
        del model
        assert [part() for part in parts] == [None] * 3
        assert moments.bytes > 0
    finally:
        gc.enable()
    fresh = [nn.Parameter(torch.zeros(6, 6)) for _ in range(50)]  # some at the addresses of the old ones
    for parameter in fresh:
        with pytest.raises(InputError, match="parameters of the model itself"):
            moments.moment(parameter)


def test_a_state_resumes_bitwise() -> None:
    """Averages, versions, sharing and the phase of `every`, in a new model, through a file."""

    def run(model: nn.Module, moments: InputMoments, steps: range) -> None:
        for i in steps:
            model(skewed(i, 9, 6), split=i == 3)
            moments.step()

    def make() -> tuple[Attention, InputMoments]:
        torch.manual_seed(0)
        model = Attention()
        return model, InputMoments(model, decay=0.8, every=3)

    for cut in (0, 1, 4, 5, 8):
        model, moments = make()
        run(model, moments, range(cut))
        file = io.BytesIO()
        torch.save(moments.state_dict(), file)
        run(model, moments, range(cut, 12))
        other, resumed = make()
        run(other, resumed, range(20, 22))  # forgotten by loading
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        run(other, resumed, range(cut, 12))
        assert resumed.shares() == moments.shares()
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            if a.ndim == 2:
                assert torch.equal(moments.moment(a), resumed.moment(b))  # pyright: ignore
                assert moments.version(a) == resumed.version(b)
        a, b = moments.state_dict(), resumed.state_dict()
        assert a.keys() == b.keys() == {"steps", "moments"}
        assert a["steps"] == b["steps"] == 12
        for one, two in zip(a["moments"], b["moments"], strict=True):
            assert one.keys() == two.keys()
            assert all(torch.equal(one[x], two[x]) if isinstance(one[x], Tensor) else one[x] == two[x] for x in one)


def test_a_state_is_a_copy_and_fits_its_own_model_only() -> None:
    layer = nn.Linear(6, 3)
    moments = InputMoments(layer)
    layer(normal(0, 9, 6))
    moments.step()
    state = moments.state_dict()
    before = moments.moment(layer.weight)
    moments.load_state_dict(state)
    state["moments"][0]["blocks"].zero_()
    assert torch.equal(before, moments.moment(layer.weight))  # pyright: ignore
    with pytest.raises(InputError, match="moment of 'weight', which is not measured here"):
        InputMoments(Attention()).load_state_dict(state)
    with pytest.raises(InputError, match=r"\(1, 6, 6\), here it is \(1, 5, 5\)"):
        InputMoments(nn.Linear(5, 3)).load_state_dict(state)
    with pytest.raises(InputError, match="same widest"):
        InputMoments(layer, widest=4).load_state_dict(state)
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match="state_dict"):
            attempt(moments)


def test_refusals() -> None:
    layer = nn.Linear(6, 3)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"decay": 1.0}, "decay=1.0"),
        ({"decay": -0.1}, "decay=-0.1"),
        ({"decay": float("nan")}, "decay=nan"),
        ({"every": 0}, "every=0"),
        ({"ridge": -1e-9}, "ridge=-1e-09"),
        ({"ridge": float("inf")}, "ridge=inf"),
        ({"widest": 0}, "widest=0"),
        ({"dtype": torch.bfloat16}, "bfloat16"),
        ({"parameters": [nn.Parameter(torch.zeros(3, 6))]}, r"\(3, 6\).*parameters of the model itself"),
        ({"parameters": [layer.bias]}, "bias: it is no weight"),
        ({"parameters": []}, "parameters is empty"),
    ]
    for options, message in bad:
        with pytest.raises(InputError, match=message):
            InputMoments(layer, **options)
    with pytest.raises(InputError, match="LayerNorm has no weights"):
        InputMoments(nn.LayerNorm(4))
    assert hooks(layer) == 0


def test_a_wrong_moment_is_seen() -> None:
    """Meta: the yardstick tells a transposed correlation, a missing row and a missing ridge."""
    layer, x = nn.Linear(6, 3), skewed(8, 40, 6)
    moments = InputMoments(layer, ridge=1e-3)
    layer(x)
    moments.step()
    C = moments.moment(layer.weight)
    assert far(C, by_hand([[x]], ridge=1e-3)) < TIGHT
    assert far(C, by_hand([[x]])) > 1e-4
    assert far(C, by_hand([[x[1:]]], ridge=1e-3)) > 1e-3
    assert far(C, np.flip(by_hand([[x]], ridge=1e-3))) > 1e-2
