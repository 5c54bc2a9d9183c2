"""Small networks in float64, and their training on whole batches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.optim.steps import normal, zeros


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh, bias: bool = False, seed: int = 0) -> nn.Sequential:
    """float64, weights N(0, 1/fan_in) of the seed."""
    modules: list[nn.Module] = []
    for i, (n, m) in enumerate(pairwise(widths)):
        modules += [activation()] * bool(i) + [nn.Linear(n, m, bias=bias)]
    model = nn.Sequential(*modules).double()
    for i, p in enumerate(model.parameters()):
        p.data = normal(seed + i, *p.shape) / p.shape[-1] ** 0.5
    return model


def two(m: int, n: int, d: int, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """W1, W2 at zero: n inputs, d hidden neurons, m outputs."""
    return [zeros(d, n, dtype=dtype), zeros(m, d, dtype=dtype)]


def train(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, steps: int, schedule: Any = None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x) - y).square().sum() / (2 * len(x))).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
