"""Options: every refusal names the value and the remedy; learning rates as tensors and under torch's schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import icm
from icm.errors import GrammarError, InputError
from icm.optim import ICM
from tests.optim.steps import normal, parameter, take

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1.0}, r"lr=-1\.0: a number ≥ 0"),
    ({"lr": math.nan}, r"lr=nan: a number ≥ 0"),
    ({"lr": torch.ones(2)}, r"lr is a tensor of 2 numbers: it holds one"),
    ({"momentum": 1.0}, r"momentum=1\.0: a number ≥ 0 and < 1"),
    ({"weight_decay": -0.1}, r"weight_decay=-0\.1: a number ≥ 0"),
    ({"tol": -1.0}, r"tol=-1\.0"),
    ({"refresh": 0}, r"refresh=0: an integer ≥ 1"),
    ({"products": 2}, r"products=2: allow 9 matrix products or more"),
    ({"nonfinite": "stop"}, r"nonfinite='stop': choose 'skip', 'raise' or 'ignore'"),
    ({"scaling": "foo"}, r"scaling='foo': choose one of 'match-rms-adamw', 'spectral', 'original', 'none'"),
    ({"units": "foo"}, r"units='foo': choose one of 'relative', 'loss'"),
    ({"backend": "svd"}, r"backend='svd': choose one of 'products', 'exact'"),
    ({"precision": "fp8"}, r"precision='fp8': choose one of"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS, ids=lambda x: str(x)[:40])
def test_a_bad_option_of_a_group_is_named_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    """As options of the group; where names are of a fixed choice, shape checks refuse them at the door too."""
    p = parameter(1, 4, 3)
    if "nonfinite" in options:
        with pytest.raises((InputError, TypeError), match="stop"):
            ICM([p], **options)
        return
    with pytest.raises(InputError, match=message):
        ICM([{"params": [p], **options}])
    optimizer = ICM([p])
    with pytest.raises(InputError, match=message):
        optimizer.add_param_group({"params": [parameter(2, 4, 3)], **options})
    assert len(optimizer.param_groups) == 1


def test_other_refusals() -> None:
    p, vector, cube = parameter(1, 4, 3), parameter(2, 4), parameter(3, 4, 3, 2)
    with pytest.raises(InputError, match=r"shape \(4,\) and is no matrix: sort the model with icm\.optim\.groups"):
        ICM([p, vector])
    with pytest.raises(InputError, match=r"conv has shape \(4, 3, 2\) and is no matrix"):
        ICM([("fine", p), ("conv", cube)])
    with pytest.raises(GrammarError, match="kinc"):
        ICM([p], curvature="r^2 + kinc(1)")
    with pytest.raises(InputError, match=r"scaling='match-rms-adamw': pass adamw_lr"):
        ICM([{"params": [p]}, {"params": [vector], "algorithm": "adamw"}], scaling="spectral")
    ICM([{"params": [p]}, {"params": [vector], "algorithm": "adamw"}], scaling="spectral", adamw_lr=1e-3)
    with pytest.raises(InputError, match=r"betas=\(0\.9, 1\.0\)"):
        ICM([{"params": [vector], "algorithm": "adamw", "betas": (0.9, 1.0)}])
    with pytest.raises(InputError, match=r"algorithm='sgd': a group is trained by 'icm' or by 'adamw'"):
        ICM([{"params": [p], "algorithm": "sgd"}])
    with pytest.raises(InputError, match=r"layout='matrix': an icm\.optim\.Layout"):
        ICM([{"params": [p], "layout": "matrix"}])


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("options", [{}, {"cautious": True}, {"curvature": "r^4"}, {"backend": "exact"}], ids=str)
def test_lr_as_a_tensor_is_lr_as_a_number(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Also where it is changed in place."""
    params = [[parameter(i, 8, 5), parameter(9, 4, 6, dtype=torch.bfloat16)] for i in (0, 0)]
    rate = torch.full(shape, 0.5, dtype=torch.float64)
    tensors, plain = ICM(params[0], lr=rate, **options), ICM(params[1], lr=0.5, **options)
    for t in range(4):
        rate.mul_(0.5)
        plain.param_groups[0]["lr"] *= 0.5
        for mine, optimizer in zip(params, (tensors, plain), strict=True):
            take(optimizer, mine, [normal(t, 8, 5), normal(t, 4, 6)])
    for p, q in zip(*params, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12 if p.dtype == torch.float64 else 1e-2)


def test_schedulers_of_torch_set_every_groups_rate() -> None:
    matrix, vector = parameter(1, 6, 4), parameter(2, 4)
    groups = [{"params": [matrix], "lr": 0.5}, {"params": [vector], "algorithm": "adamw", "lr": 1e-3}]
    for rate in (None, torch.tensor(0.5)):
        optimizer = ICM([groups[0] | ({} if rate is None else {"lr": rate}), groups[1]])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 0.5**t, lambda t: 1 / (1 + t)])
        for t in range(3):
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.5 * 0.5**t)
            assert float(optimizer.param_groups[1]["lr"]) == pytest.approx(1e-3 / (1 + t))
            take(optimizer, [matrix, vector], [normal(t, 6, 4), normal(t, 4)])
            scheduler.step()


def test_one_cycle_cycles_rates_and_betas() -> None:
    """torch's scheduler takes betas where an optimizer has them, and leaves the momentum of matrices alone."""
    p, vector = parameter(1, 6, 4), parameter(2, 4)
    optimizer = ICM([{"params": [p]}, {"params": [vector], "algorithm": "adamw"}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10)
    seen = []
    for t in range(9):
        seen.append([(group["lr"], group["betas"][0], group["momentum"]) for group in optimizer.param_groups])
        take(optimizer, [p, vector], [normal(t, 6, 4), normal(t, 4)])
        scheduler.step()
    for group in zip(*seen, strict=True):
        rates, betas, momenta = zip(*group, strict=True)
        assert max(rates) == pytest.approx(0.5)
        assert min(betas) < max(betas) == pytest.approx(0.95)
        assert set(momenta) == {0.95}


def test_curvature_as_text_as_an_object_and_as_a_function_are_one() -> None:
    ends = []
    for H in ("0.5*r^2 + 5*kink(1)", icm.parse("0.5*r^2 + 5*kink(1)"), lambda step: "0.5*r^2 + 5*kink(1)"):
        p: nn.Parameter = parameter(1, 8, 6)
        optimizer = ICM([p], 0.1, H)
        for t in range(3):
            take(optimizer, [p], [normal(t, 8, 6)])
        ends.append(p.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
