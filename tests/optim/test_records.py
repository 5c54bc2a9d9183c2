"""State dicts that resume bitwise, copies, pickles, torch.optim.Muon's state, and how much memory the state takes."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import icm
from icm.errors import InputError
from icm.optim import ICM, Layout
from tests.optim.steps import drifting, normal, parameter, take

KINKED = "0.1*r^2 + 5*kink(1)"
SHAPES = [(6, 10), (10, 6), (9, 4), (9,)]


def build(dtype: torch.dtype, **options: Any) -> tuple[list[nn.Parameter], ICM]:
    params = [parameter(i, *shape, dtype=dtype) for i, shape in enumerate(SHAPES)]
    groups: list[dict[str, Any]] = [
        {"params": params[:2]},
        {"params": params[2:3], "layout": Layout(parts=(3, 3, 3)), "lr": 0.03},
        {"params": params[3:], "algorithm": "adamw", "lr": 1e-3},
    ]
    return params, ICM(groups, lr=0.05, **options)


def advance(params: list[nn.Parameter], optimizer: ICM, first: int, last: int) -> None:
    for t in range(first, last):
        take(optimizer, params, [normal(100 * t + i, *p.shape) for i, p in enumerate(params)])


def through_a_file(content: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"curvature": "wall(1)"},
        {"curvature": KINKED},
        {"curvature": "r^4", "backend": "exact"},
        {"curvature": "r^2 + wall(1)", "units": "loss", "cautious": True},
        {"curvature": lambda step: KINKED if step < 5 else "r^4"},
    ],
    ids=["wall", "kink", "exact", "loss", "function"],
)
def test_a_run_that_resumes_is_bitwise_the_run_that_went_on(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Four steps, amid two refreshes; the state through torch.save and torch.load(weights_only=True), loaded twice."""
    params, optimizer = build(dtype, refresh=3, **options)
    advance(params, optimizer, 0, 4)
    state = through_a_file(optimizer.state_dict())
    weights = [p.detach().clone() for p in params]
    advance(params, optimizer, 4, 8)
    again, other = build(dtype, refresh=3, **options)
    for _ in range(2):
        with torch.no_grad():
            for p, w in zip(again, weights, strict=True):
                p.copy_(w)
        other.load_state_dict(state)
        advance(again, other, 4, 8)
        for p, q in zip(params, again, strict=True):
            assert torch.equal(p, q)


def test_a_loaded_state_is_the_one_that_was_saved() -> None:
    params, optimizer = build(torch.float32, curvature=KINKED)
    advance(params, optimizer, 0, 3)
    _, other = build(torch.float32, curvature="r^3")
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    one, two = (pickle.dumps(through_a_file(each.state_dict())["param_groups"]) for each in (optimizer, other))
    assert one == two
    assert icm.parse(str(other.param_groups[0]["curvature"])) == icm.parse(KINKED)
    assert other.errors().keys() == optimizer.errors().keys()


def test_input_moments_resume_bitwise_too() -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))

    def train(model: nn.Module, optimizer: ICM, first: int, last: int) -> None:
        for t in range(first, last):
            optimizer.zero_grad()
            model(normal(t, 20, 12, dtype=torch.float32)).square().sum().backward()
            optimizer.step()

    options: dict[str, Any] = {"curvature": KINKED, "refresh": 3, "input_moments": {"every": 2, "widest": 8}}
    model, resumed = net(), net()
    optimizer = ICM.for_model(model, 1e-2, **options)
    train(model, optimizer, 0, 7)
    state, weights = through_a_file(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, 7, 12)
    resumed.load_state_dict(weights)
    other = ICM.for_model(resumed, 1e-2, **options)
    other.load_state_dict(state)
    train(resumed, other, 7, 12)
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
    without = ICM.for_model(resumed, 1e-2, input_moments=False)
    with pytest.raises(InputError, match="does not measure input moments and the state has some"):
        without.load_state_dict(state)


@pytest.mark.parametrize("H", ["wall(1)", KINKED])
def test_loading_into_an_optimizer_of_other_parameters_changes_nothing(H: str) -> None:
    params, optimizer = build(torch.float32, curvature=H)
    advance(params, optimizer, 0, 2)
    state = optimizer.state_dict()
    others = [parameter(i, *shape, dtype=torch.float32) for i, shape in enumerate([(6, 10), (10, 5), (9, 4), (9,)])]
    groups: list[dict[str, Any]] = [
        {"params": others[:2]},
        {"params": others[2:3], "layout": Layout(parts=(3, 3, 3))},
        {"params": others[3:], "algorithm": "adamw"},
    ]
    for other in (ICM(groups, 0.7, curvature="r^2"), ICM(others[:2], 0.7), ICM(groups[:2], 0.7)):
        before = pickle.dumps(other.state_dict())
        with pytest.raises(ValueError, match=r"shape|group"):
            other.load_state_dict(state)
        assert pickle.dumps(other.state_dict()) == before


def test_a_state_of_torch_optim_muon_goes_on_with_its_momentum() -> None:
    """lr, decay, momentum and adjust_lr_fn too; then both take the same steps but for their polar factors."""
    params = [parameter(i, 24, 16, dtype=torch.float32) for i in range(2)]
    muon = torch.optim.Muon(params, lr=0.02, weight_decay=0.2, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for t in range(4):
        take(muon, params, [normal(10 * t + i, 24, 16) for i in range(2)])
    mine = [nn.Parameter(p.detach().clone()) for p in params]
    optimizer = ICM(mine, lr=1.0, scaling="original", backend="exact")
    optimizer.load_state_dict(through_a_file(muon.state_dict()))
    group = optimizer.param_groups[0]
    assert [group[name] for name in ("lr", "weight_decay", "momentum", "nesterov")] == [0.02, 0.2, 0.9, True]
    assert group["scaling"] == "match-rms-adamw"
    for t in range(4, 6):
        gradients = [normal(10 * t + i, 24, 16) for i in range(2)]
        take(muon, params, gradients)
        take(optimizer, mine, gradients)
    for p, q in zip(params, mine, strict=True):
        assert torch.equal(muon.state[p]["momentum_buffer"], optimizer.state[q]["momentum_buffer"])
        assert optimizer.state[q]["momentum_buffer"] is not muon.state[p]["momentum_buffer"]


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("H", ["wall(1)", KINKED])
def test_model_and_optimizer_are_copied_together(how: str, H: str) -> None:
    model = nn.ParameterList(build(torch.float32)[0])
    params = list(model)
    optimizer = ICM([{"params": params[:3]}, {"params": params[3:], "algorithm": "adamw"}], 0.1, H, nonfinite="raise")
    advance(params, optimizer, 0, 3)
    both = (model, optimizer)
    twin, other = copy.deepcopy(both) if how == "deepcopy" else pickle.loads(pickle.dumps(both))
    assert other.nonfinite == "raise"
    assert str(other) == str(optimizer)
    advance(params, optimizer, 3, 6)
    advance(list(twin), other, 3, 6)
    for p, q in zip(params, twin, strict=True):
        assert p is not q
        assert torch.equal(p, q)


def test_an_optimizer_with_hooks_says_why_it_is_not_copied() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2))
    optimizer = ICM.for_model(model, 1e-2)
    for act in (copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match=r"hooks and cannot be copied or pickled: keep its state_dict"):
            act(optimizer)


def test_lr_as_a_tensor_comes_back_as_one() -> None:
    p = parameter(1, 6, 5)
    optimizer = ICM([p], lr=torch.tensor(0.25))
    take(optimizer, [p], [normal(1, 6, 5)])
    other = ICM([parameter(1, 6, 5)], lr=torch.tensor(1.0))
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    assert torch.equal(other.param_groups[0]["lr"], torch.tensor(0.25))


def held(x: Any, seen: set[int]) -> int:
    """Bytes of every array within."""
    if id(x) in seen:
        return 0
    seen.add(id(x))
    if isinstance(x, Tensor):
        return x.untyped_storage().nbytes()
    if isinstance(x, np.ndarray):
        return x.nbytes
    if isinstance(x, dict):
        return sum(held(one, seen) for one in x.values())
    if isinstance(x, (list, tuple)):
        return sum(held(one, seen) for one in x)
    if dataclasses.is_dataclass(x) or type(x).__module__.startswith(("icm", "scipy")):
        return sum(held(one, seen) for one in getattr(x, "__dict__", {}).values())
    return 0


@pytest.mark.parametrize("H", ["wall(1)", KINKED])
def test_state_takes_a_twentieth_more_than_the_momentum_at_most(H: str) -> None:
    """Of 256×256 matrices in float32, two refreshes on; arrays in maps, curves and interpolants counted."""
    params = [parameter(i, 256, 256, dtype=torch.float32) for i in range(2)]
    optimizer = ICM(params, 0.01, H, refresh=2)
    for gradients in zip(*(drifting(i, 5, 256, 256) for i in range(2)), strict=True):
        take(optimizer, params, gradients)
    total = held(dict(optimizer.state), set())
    assert 2 * 256 * 256 * 4 <= total <= 1.05 * 2 * 256 * 256 * 4


def test_checkpoints_are_small_and_readable_on_disk(tmp_path: Path) -> None:
    params, optimizer = build(torch.float32, curvature=KINKED)
    advance(params, optimizer, 0, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["param_groups"][0]["curvature"] == KINKED
