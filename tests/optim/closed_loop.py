"""The small language model in float64, trained step by step by optimizers that each see the gradients of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from icm.demo import load_example


@functools.cache
def _example() -> tuple[Any, Tensor]:
    example = load_example()
    return example, example.corpus(20_000)


def small_lm(seed: int = 0) -> nn.Module:
    """One block of width 16, two heads; 256 tokens, of which a batch holds some."""
    example, _ = _example()
    return example.SmallLM(example.Config(layers=1, width=16, heads=2, context=16), seed=seed).double()


def trained(
    make: Callable[[nn.Module], Any],
    steps: int = 50,
    seed: int = 0,
    after: Callable[[nn.Module, Any], None] | None = None,
) -> Tensor:
    """All weights after each step, (steps, d). `make` gives one optimizer, or several that each have a share."""
    example, data = _example()
    model, generator, places = small_lm(seed), torch.Generator().manual_seed(1), []
    made = make(model)
    optimizers = made if isinstance(made, (list, tuple)) else [made]
    for _ in range(steps):
        batch = example.draw(data, model.config, 8, generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        example.loss(model, batch).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        if after is not None:
            after(model, made)
        places.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return torch.stack(places)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference of any weight at any step."""
    return float((one - other).abs().max())
