"""Update rules for whole ensembles: every model steps at once, each by its own gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from icm.symmetry.ensembles import Data, gradients
from icm.symmetry.factors import factors
from icm.symmetry.network import Network
from icm.symmetry.structure import Structured

# (gradients (N, *shape), state, None at first) → (changes of the parameters, the next state)
Rule = Callable[[list[Tensor], Any], tuple[list[Tensor], Any]]
Rate = float | Callable[[int], float]


def descent(lr: Rate) -> Rule:
    """W ← W − lr G."""
    return momentum(lr, 0.0)


def momentum(lr: Rate, beta: float = 0.9) -> Rule:
    """B ← β B + G, W ← W − lr B: torch.optim.SGD."""

    def rule(G: list[Tensor], state: Any) -> tuple[list[Tensor], Any]:
        t, B = state or (0, [torch.zeros_like(g) for g in G])
        B = [beta * b + g for b, g in zip(B, G, strict=True)]
        return [-_at(lr, t) * b for b in B], (t + 1, B)

    return rule


def adam(lr: Rate, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Rule:
    """torch.optim.Adam: entry by entry and odd in the gradient, so that signed permutations commute with it."""

    def rule(G: list[Tensor], state: Any) -> tuple[list[Tensor], Any]:
        t, M, V = state or (0, [torch.zeros_like(g) for g in G], [torch.zeros_like(g) for g in G])
        M = [betas[0] * m + (1 - betas[0]) * g for m, g in zip(M, G, strict=True)]
        V = [betas[1] * v + (1 - betas[1]) * g * g for v, g in zip(V, G, strict=True)]
        first, second = (1 - beta ** (t + 1) for beta in betas)
        moves = [-_at(lr, t) * (m / first) / ((v / second).sqrt() + eps) for m, v in zip(M, V, strict=True)]
        return moves, (t + 1, M, V)

    return rule


def symo(lr: Rate, network: Network, decay: float = 0.95, cut: float | None = None) -> Rule:
    """W ← W − lr Σ^{−1/2} G, Σ the factors of each model's own gradients so far, averaged with `decay`."""

    def rule(G: list[Tensor], state: Any) -> tuple[list[Tensor], Any]:
        t, total = state or (0, None)
        new = factors([g.unsqueeze(1) for g in G], network) * (1 - decay)
        total = new if total is None else total * decay + new
        mean: Structured = total * (1 / (1 - decay ** (t + 1)))
        return [-_at(lr, t) * d for d in mean.power(-0.5, cut=cut).apply(G)], (t + 1, total)

    return rule


def train(
    tensors: Sequence[Tensor], data: Data, network: Network, rule: Rule, chunk: int | None = None
) -> Iterator[list[Tensor]]:
    """The parameters (N, *shape) after each step on the whole data, without end."""
    state = None
    tensors = list(tensors)
    while True:
        moves, state = rule(gradients(tensors, data, network, chunk), state)
        tensors = [tensor + move for tensor, move in zip(tensors, moves, strict=True)]
        yield tensors


def _at(rate: Rate, step: int) -> float:
    return rate(step) if callable(rate) else rate
