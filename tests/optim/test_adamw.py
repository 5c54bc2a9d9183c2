"""AdamW inside the optimizer against torch.optim.AdamW."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from icm.optim import ICM
from tests.optim.steps import normal, parameter, take

SHAPES = [(7,), (3, 4), (), (2, 3, 4)]


def both(dtype: torch.dtype, lr: Any, **options: Any) -> tuple[list[nn.Parameter], list[nn.Parameter], ICM, Any]:
    mine, theirs = ([parameter(i, *shape, dtype=kind) for i, shape in enumerate(SHAPES)] for kind in (dtype, dtype))
    ours = ICM([{"params": mine, "algorithm": "adamw", "lr": lr, **options}])
    return mine, theirs, ours, torch.optim.AdamW(theirs, lr=lr, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lr", [3e-3, torch.tensor(3e-3)], ids=["number", "tensor"])
def test_bitwise_torch_optim_adamw(dtype: torch.dtype, lr: Any) -> None:
    """Same lr, betas, eps and decay, twelve steps, one parameter without a gradient now and then."""
    options = {"betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.3}
    mine, theirs, ours, adamw = both(dtype, lr, **options)
    for t in range(12):
        gradients = [None if t % 3 == i else normal(10 * t + i, *shape) for i, shape in enumerate(SHAPES)]
        take(ours, mine, gradients)
        take(adamw, theirs, gradients)
        for p, q in zip(mine, theirs, strict=True):
            assert torch.equal(p, q)


def test_defaults_but_for_the_second_beta_are_torch_optim_adamw() -> None:
    p, q = parameter(1, 5), parameter(1, 5)
    ours = ICM([{"params": [p], "algorithm": "adamw"}], lr=1e-2)
    adamw = torch.optim.AdamW([q], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for t in range(5):
        take(ours, [p], [normal(t, 5)])
        take(adamw, [q], [normal(t, 5)])
    assert torch.equal(p, q)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_16_bits_take_the_step_of_float32_copies_rounded_once(dtype: torch.dtype) -> None:
    """State in float32; each step is AdamW's from the rounded parameters."""
    mine = [parameter(i, *shape, dtype=dtype) for i, shape in enumerate(SHAPES)]
    copies = [nn.Parameter(p.detach().float()) for p in mine]
    ours = ICM([{"params": mine, "algorithm": "adamw", "lr": 1e-2, "weight_decay": 0.2}])
    adamw = torch.optim.AdamW(copies, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.2)
    for t in range(10):
        gradients = [normal(10 * t + i, *shape, dtype=dtype) for i, shape in enumerate(SHAPES)]
        take(ours, mine, gradients)
        take(adamw, copies, gradients)
        for p, copy in zip(mine, copies, strict=True):
            with torch.no_grad():
                copy.copy_(copy.to(dtype))
            assert torch.equal(p.float(), copy)
            assert ours.state[p]["exp_avg_sq"].dtype == torch.float32
