"""What SymO owes as a torch optimizer: states, refusals, closures, and everything that is no network's."""

from __future__ import annotations

import copy
import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import DtypeError, InputError
from icm.optim.symo import SymO
from icm.symmetry import Network
from tests.optim.models import ViT
from tests.optim.networks import mlp, two
from tests.optim.steps import normal, parameter, take, zeros
from tests.optim.test_gradients import same


def numbers(params: list[nn.Parameter], optimizer: SymO) -> dict[str, Any]:
    return copy.deepcopy({"params": [p.detach() for p in params], "state": optimizer.state_dict()})


def test_weights_decay_apart_from_the_step() -> None:
    params = [parameter(1, 8, 5), parameter(2, 3, 8)]
    before = [p.detach().clone() for p in params]
    take(SymO(params, 0.1, activation="relu", weight_decay=0.5), params, [torch.zeros_like(p) for p in params])
    for p, b in zip(params, before, strict=True):
        assert torch.allclose(p.detach(), 0.95 * b, rtol=1e-14)


def test_everything_else_is_torchs_adamw() -> None:
    model, twin = (ViT(12, 1) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    options: dict[str, Any] = {"betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.3}
    with pytest.warns(UserWarning, match="no chain of layers.*networks="):
        mine = SymO.for_model(model, 1e-2, adamw_lr=3e-3, **options)
    theirs = torch.optim.AdamW(twin.parameters(), 3e-3, **options)
    for t in range(5):
        for i, (p, q) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
            p.grad = normal(100 * t + i, *p.shape, dtype=torch.float32)
            q.grad = p.grad.clone()
        mine.step()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert {group["algorithm"] for group in mine.param_groups} == {"adamw"}


def mixed() -> nn.Sequential:
    """A network between layers that are AdamW's."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 7, bias=False), nn.ReLU(), nn.Linear(7, 6))
    return nn.Sequential(nn.Embedding(11, 6), nn.LayerNorm(6), body, nn.LayerNorm(6), nn.Linear(6, 11))


def test_a_models_parameters_are_all_there_once_and_printed() -> None:
    model = mixed()
    optimizer = SymO.for_model(model, 1e-2, adamw_lr=1e-3)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    (network,) = [g["network"] for g in optimizer.param_groups if g["algorithm"] == "symo"]
    assert network == Network((6, 9, 7, 6), "relu", (True, False, True))
    assert {g["lr"] for g in optimizer.param_groups if g["algorithm"] == "adamw"} == {1e-3}
    text = str(optimizer)
    for part in (
        "W2 of 6–9–7–6 relu, in sequence in the model",
        "embeddings",
        "norms",
        "decay=0.95",
        "AdamW",
        "blocks up to",
    ):
        assert part in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120
    with pytest.warns(UserWarning, match="no chain"):
        large = SymO.for_model(model, 1e-2, largest=10)
    assert all(group["algorithm"] == "adamw" for group in large.param_groups)
    assert "largest=10" in " ".join(str(large).split())


def resumed(optimizer: SymO, fresh: SymO) -> None:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_state_dicts_resume_bitwise(dtype: torch.dtype) -> None:
    model = mixed().to(dtype)
    optimizer = SymO.for_model(model, 1e-2, damping=1e-3)

    def steps(one: nn.Module, by: SymO, start: int) -> None:
        for t in range(start, start + 4):
            for i, p in enumerate(one.parameters()):
                p.grad = normal(100 * t + i, *p.shape).to(dtype)
            by.step()

    steps(model, optimizer, 0)
    other = copy.deepcopy(model)
    fresh = SymO.for_model(other, 1.0)
    resumed(optimizer, fresh)
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    for one, by in ((model, optimizer), (other, fresh), (copied, copied_optimizer)):
        steps(one, by, 10)
    for p, q, r in zip(model.parameters(), other.parameters(), copied.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)
    assert same(optimizer.state_dict(), fresh.state_dict())


def test_states_of_another_network_are_refused_and_change_nothing() -> None:
    one, other = mlp(3, 5, 2), mlp(4, 5, 2)
    source, target = SymO.for_model(one, 0.1), SymO.for_model(other, 0.2)
    take(source, list(one.parameters()), [normal(1, 5, 3), normal(2, 2, 5)])
    take(target, list(other.parameters()), [normal(1, 5, 4), normal(2, 2, 5)])
    before = numbers(list(other.parameters()), target)
    with pytest.raises(InputError, match=r"factor 1 of shape \(5, 5\)"):
        target.load_state_dict(source.state_dict())
    assert same(before, numbers(list(other.parameters()), target))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 2])
def test_a_step_with_nan_or_inf_is_as_if_it_had_not_been(bad: float, where: int) -> None:
    def fresh(**options: Any) -> tuple[list[nn.Parameter], SymO]:
        params = [*two(3, 4, 6), zeros(5)]
        chain = {"params": params[:2], "activation": "tanh"}
        return params, SymO([chain, {"params": params[2:], "algorithm": "adamw"}], 0.1, **options)

    (mine, skipping), (theirs, clean), (others, raising) = fresh(), fresh(), fresh(nonfinite="raise")
    for t in range(3):
        gradients = [normal(10 * t + i, *p.shape) for i, p in enumerate(mine)]
        spoilt = [g.clone() for g in gradients]
        spoilt[where].view(-1)[1] = bad
        before = numbers(others, raising)
        with pytest.raises(InputError, match="nothing was changed"):
            take(raising, others, spoilt)
        assert same(before, numbers(others, raising))
        with pytest.warns(RuntimeWarning, match="NaN or infinite"):
            take(skipping, mine, spoilt)
        take(skipping, mine, gradients)
        take(clean, theirs, gradients)
    assert same(numbers(mine, skipping), numbers(theirs, clean))


def test_sparse_and_complex_gradients_are_refused_before_anything_changes() -> None:
    params = two(3, 4, 6)
    optimizer = SymO(params, 0.1, activation="tanh")
    before = numbers(params, optimizer)
    params[0].grad, params[1].grad = normal(1, 6, 4), normal(2, 3, 6).to_sparse()
    with pytest.raises(InputError, match="sparse"):
        optimizer.step()
    params[1].grad = None
    assert same(before, numbers(params, optimizer))
    one = nn.Parameter(torch.zeros(2, 3, dtype=torch.complex64))
    one.grad = torch.zeros_like(one)
    with pytest.raises(DtypeError, match="complex"):
        SymO([{"params": [one], "algorithm": "adamw"}], 0.1).step()


def test_closures_are_called_with_gradients_on_and_their_loss_returned() -> None:
    model = mlp(3, 5, 2)
    optimizer = SymO.for_model(model, torch.tensor(0.01))
    x = normal(1, 7, 3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    optimizer.zero_grad()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()  # no gradients at all
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decay": 1.0}, "decay=1.0"), ({"damping": -1.0}, "damping=-1.0"), ({"cut": 1.0}, "cut=1.0"),
        ({"lr": -1.0}, "lr=-1.0"), ({"weight_decay": True}, "weight_decay=True"), ({"nonfinite": "fix"}, "nonfinite"),
        ({"activation": None}, "activation=None.*for_model"), ({"activation": "thanh"}, "tanh"),
        ({"lr": torch.zeros(2)}, "2 numbers"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises((InputError, TypeError), match=said):
        SymO(two(3, 4, 6), **{"lr": 0.1, "activation": "tanh", **options})


def test_groups_that_are_no_network_are_refused_and_not_kept() -> None:
    optimizer = SymO(two(3, 4, 6), 0.1, activation="tanh")
    for group, said in (
        ({"params": [zeros(3, 4), zeros(5, 6)]}, "no chain of layers"),
        ({"params": two(3, 4, 6), "network": Network((4, 5, 3))}, "W1"),
        ({"params": two(3, 4, 6)[:1], "network": Network((4, 6, 3))}, "1 parameters"),
        ({"params": [zeros(3)], "algorithm": "muon"}, "'symo' or by 'adamw'"),
        ({"params": [zeros(3)], "algorithm": "adamw", "betas": (0.9, 1.0)}, "betas"),
    ):
        with pytest.raises(InputError, match=said):
            optimizer.add_param_group({"activation": "tanh", "network": None, **group})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(InputError, match="'momentum' is no option"):
        SymO.for_model(mixed(), 0.1, momentum=0.9)


COMPILED = """
import torch
from icm.optim.symo import SymO
from tests.optim.steps import far, normal, parameter
ends = []
for compiled in (False, True):
    params = [parameter(0, 9, 6), parameter(1, 4, 9)]
    optimizer = SymO(params, 0.1, activation="tanh", nonfinite="ignore")
    step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
    for t in range(4):
        for i, p in enumerate(params):
            p.grad = normal(10 * t + i, *p.shape)
        step()
    ends.append(torch.cat([p.detach().flatten() for p in params]))
print(far(ends[1], ends[0]))
"""


@pytest.mark.long
def test_torch_compile_takes_the_same_steps() -> None:
    run = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-10
