"""Moments from recorded inputs, written out in NumPy and float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(steps: Sequence[Sequence[Tensor]], decay: float = 0.0, ridge: float = 0.0) -> np.ndarray:
    """C for the inputs of each step's calls, rows along the last axis."""
    total, mass = 0.0, 0.0
    for calls in steps:
        u = np.concatenate([x.detach().double().numpy().reshape(-1, x.shape[-1]) for x in calls])
        total = decay * total + (1 - decay) * (u.T @ u) / len(u)
        mass = decay * mass + (1 - decay)
    C = np.asarray(total / mass)
    n = len(C)
    C = C + ridge * np.trace(C) / n * np.eye(n)
    return C * n / np.trace(C)


def far(C: Tensor | None, wanted: np.ndarray) -> float:
    """Largest difference of a moment in one block from the wanted one, relative to its largest entry."""
    assert C is not None
    assert C.shape == (1, *wanted.shape)
    return float(np.abs(C[0].cpu().double().numpy() - wanted).max() / np.abs(wanted).max())


def recorded(*modules: nn.Module) -> list[Tensor]:
    """The first arguments of the modules' calls from here on, in order."""
    seen: list[Tensor] = []
    for module in modules:
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen
