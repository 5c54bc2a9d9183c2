"""Gradients that cannot be used: refused or left out, with nothing changed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.errors import DtypeError, InputError
from icm.optim import ICM
from icm.optim.gradients import finite
from tests.optim.steps import normal, parameter, take, zeros

HS = ["wall(1)", "0.1*r^2 + 5*kink(1)"]


def three(H: str, **options: Any) -> tuple[list[nn.Parameter], ICM]:
    params = [parameter(0, 8, 6, dtype=torch.float32), parameter(1, 6, 8), parameter(2, 5, dtype=torch.float32)]
    groups = [{"params": params[:2]}, {"params": params[2:], "algorithm": "adamw"}]
    return params, ICM(groups, 0.1, H, refresh=3, **options)


def numbers(params: Sequence[Tensor], optimizer: ICM) -> dict[str, Any]:
    return copy.deepcopy({"params": [p.detach() for p in params], "state": optimizer.state_dict()})


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, structure and number types too."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("H", HS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_step_with_nan_or_inf_is_as_if_it_had_not_been(H: str, bad: float, where: int) -> None:
    (mine, skipping), (theirs, clean) = three(H), three(H)
    for t in range(6):
        gradients = [normal(10 * t + i, *p.shape) for i, p in enumerate(mine)]
        if t in (0, 4):
            spoilt = [g.clone() for g in gradients]
            spoilt[where].view(-1)[3] = bad
            before = numbers(mine, skipping)
            with pytest.warns(RuntimeWarning, match="NaN or infinite"):
                take(skipping, mine, spoilt)
            assert same(before, numbers(mine, skipping))
        take(skipping, mine, gradients)
        take(clean, theirs, gradients)
    assert same(numbers(mine, skipping), numbers(theirs, clean))


def test_raising_changes_nothing_either_and_ignoring_does_not_look() -> None:
    params, optimizer = three(HS[0], nonfinite="raise")
    good = [normal(i, *p.shape) for i, p in enumerate(params)]
    take(optimizer, params, good)
    before = numbers(params, optimizer)
    with pytest.raises(InputError, match="nothing was changed; nonfinite='skip'"):
        take(optimizer, params, [good[0], good[1], math.nan * good[2]])
    assert same(before, numbers(params, optimizer))
    p = zeros(3)
    ignoring = ICM([{"params": [p], "algorithm": "adamw"}], nonfinite="ignore")
    take(ignoring, [p], [torch.tensor([1.0, math.nan, 1.0])])
    assert p.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_large_entries_are_not_taken_for_infinite_ones(dtype: torch.dtype) -> None:
    """Whose sum overflows; opposite infinities, whose sum is NaN, are found too."""
    G = torch.full((30, 30), torch.finfo(dtype).max, dtype=dtype)
    assert finite([G, torch.zeros(0, 3), torch.zeros((), dtype=dtype)])
    assert not finite([G, torch.tensor([math.inf, -math.inf])])


@pytest.mark.parametrize("algorithm", ["icm", "adamw"])
def test_sparse_and_complex_gradients_are_refused_before_anything_changes(algorithm: str) -> None:
    good = parameter(1, 6, 4)
    table = nn.Embedding(9, 4, sparse=True, dtype=torch.float64)
    optimizer = ICM([{"params": [good]}, {"params": [table.weight], "algorithm": algorithm}])
    take(optimizer, [good], [normal(1, 6, 4)])
    table(torch.tensor([1, 2, 2])).sum().backward()
    before = numbers([good, table.weight], optimizer)
    with pytest.raises(InputError, match=r"shape \(9, 4\) is sparse.*sparse=False.*SparseAdam"):
        optimizer.step()
    assert same(before, numbers([good, table.weight], optimizer))

    complex_one = nn.Parameter(torch.ones(3, 4, dtype=torch.complex64))
    complex_one.grad = torch.ones_like(complex_one)
    good.grad = normal(2, 6, 4)
    optimizer = ICM([{"params": [good]}, {"params": [complex_one], "algorithm": algorithm}])
    before = good.detach().clone()
    with pytest.raises(DtypeError, match=r"shape \(3, 4\) is complex.*real and imaginary"):
        optimizer.step()
    assert torch.equal(before, good)


@pytest.mark.parametrize("H", HS)
@pytest.mark.parametrize("backend", ["products", "exact"])
def test_zero_gradients_only_decay(H: str, backend: str) -> None:
    params, optimizer = three(H, backend=backend)
    start = [p.detach().clone() for p in params]
    for _ in range(3):
        take(optimizer, params, [torch.zeros_like(p) for p in params])
    for p, q in zip(params, start, strict=True):
        torch.testing.assert_close(p.detach(), q * (1 - 0.1 * 0.1) ** 3)


@pytest.mark.parametrize("H", HS)
def test_parameters_frozen_and_thawed_midway_move_as_if_alone(H: str) -> None:
    """A parameter without a gradient stays, momentum and decay too, and goes on where it was."""
    (mine, optimizer), (theirs, clean) = three(H), three(H)
    for t in range(9):
        gradients: list[Tensor | None] = [normal(10 * t + i, *p.shape) for i, p in enumerate(mine)]
        frozen = t % 3
        mine[frozen].requires_grad_(False)
        before = mine[frozen].detach().clone()
        take(optimizer, mine, [None if i == frozen else g for i, g in enumerate(gradients)])
        assert torch.equal(mine[frozen], before)
        mine[frozen].requires_grad_(True)
        for i in range(3):
            if i != frozen:
                take(clean, theirs, [g if j == i else None for j, g in enumerate(gradients)])
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_empty_groups_and_steps_without_any_gradient() -> None:
    p = parameter(1, 4, 3)
    optimizer = ICM([{"params": []}, {"params": [p]}, {"params": [], "algorithm": "adamw"}])
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, before)
    take(optimizer, [p], [normal(1, 4, 3)])
    assert not torch.equal(p, before)
    assert "4×3" in str(optimizer)
