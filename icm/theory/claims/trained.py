"""Small networks trained step by step in float64, each under the gradients of its own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.random import Generator
from torch import Tensor, nn

from icm.curvature import Curvature
from icm.theory.case import Case
from icm.theory.instances import Draw, Instances, draw

STEPS = 50
_SAMPLES, _BATCH, _NOISE = 48, 16, 0.1
_FEW = 2e-4  # σ_k/σ₁ of a gradient: through GGᵀ, which squares it, its polar factor is known to ε over its square

Network = dict[str, nn.Parameter]  # W (m, n), b (m), V (m, m)
Make = Callable[[list[Network]], "Sequence[Optimizer]"]


@runtime_checkable
class Optimizer(Protocol):
    """All that a run asks of one."""

    def step(self) -> Any: ...


def networks(
    curvature: Callable[[Generator], Curvature] | str = "r^2",
    shapes: tuple[tuple[int, int], ...] = ((4, 6), (5, 5), (6, 3)),
) -> Draw:
    """Instances that say where training begins: W₁ = G (m, n), and the seed of the other weights and of the data."""

    def seeds(rng: Generator, made: Instances) -> dict[str, Tensor]:
        return {"seed": torch.from_numpy(rng.integers(0, 2**31, len(made)))}

    return draw(curvature, shapes=shapes, rotated=True, decades=0.5, extra=seeds)


def trained(case: Case, make: Make, steps: int = STEPS, look: Callable[[list[Network]], None] | None = None) -> Tensor:
    """All weights before the first step and after each, (steps + 1, B, d).

    y = V tanh(Wx + b) is fitted by squared error, 16 of 48 samples a step, to a network of the same kind with noise.
    make(networks) gives the optimizers, who have a share of the parameters each; `look` sees gradients before a step.
    """
    x, y, batches, nets = _problems(case, steps)
    optimizers, places = make(nets), [_place(nets)]
    rows = torch.arange(len(case))[:, None]
    for batch in batches:
        for p in (p for net in nets for p in net.values()):
            p.grad = None
        W, b, V = (torch.stack([net[name] for net in nets]) for name in ("W", "b", "V"))
        hidden = torch.tanh(x[rows, batch] @ W.mT + b[:, None, :])
        ((hidden @ V.mT - y[rows, batch]).square().sum((-2, -1)) / (2 * _BATCH)).sum().backward()
        if look is not None:
            look(nets)
        for optimizer in optimizers:
            optimizer.step()
        places.append(_place(nets))
    return torch.stack(places)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The largest distance of two runs (steps + 1, B, d) at any step over the longest way of the second, (B,)."""
    way = (other - other[0]).norm(dim=-1).amax(0)
    return (one - other).norm(dim=-1).amax(0) / way.where(way > 0, 1.0)


def each(*makes: Callable[[Network], Any]) -> Make:
    """Optimizers for every network by itself."""
    return lambda nets: [make(net) for net in nets for make in makes]


def every(net: Network) -> list[nn.Parameter]:
    return list(net.values())


def matrices(net: Network) -> list[nn.Parameter]:
    return [net["W"], net["V"]]


def rest(net: Network) -> Optimizer:
    """Gradient descent for what is no matrix."""
    return torch.optim.SGD([net["b"]], 0.1)


class Before:
    """An optimizer, and what is done to it or its gradients before each step."""

    def __init__(self, optimizer: Any, act: Callable[[Any], None]):
        self.optimizer, self.act = optimizer, act

    def step(self) -> None:
        self.act(self.optimizer)
        self.optimizer.step()


def conditions(case: Case, make: Make) -> Tensor:
    """The least σ_k/σ_1 of any gradient of a matrix along a run, (B,)."""
    least = torch.full((len(case),), torch.inf, dtype=torch.float64)

    def look(nets: list[Network]) -> None:
        for name in ("W", "V"):
            g = torch.linalg.svdvals(torch.stack([net[name].grad for net in nets]))  # type: ignore[arg-type]
            least.copy_(torch.minimum(least, g[:, -1] / g[:, 0]))

    trained(case, make, look=look)
    return least


def well_conditioned(make: Make) -> Callable[[Case], Tensor]:
    """The hypothesis that no gradient of a matrix comes near losing rank."""
    return lambda case: conditions(case, make) > _FEW


def _problems(case: Case, steps: int) -> tuple[Tensor, Tensor, Tensor, list[Network]]:
    """Inputs (B, N, n), targets (B, N, m), samples of each step (steps, B, batch), and the networks."""
    m, n, found = case.m, case.n, []
    for seed in case["seed"].tolist():
        generator = torch.Generator().manual_seed(int(seed))

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        x = normal(_SAMPLES, n) * torch.linspace(1.5, 0.5, n, dtype=torch.float64)
        target = torch.tanh(x @ normal(n, m)) @ normal(m, m) + _NOISE * normal(_SAMPLES, m)
        order = torch.randint(_SAMPLES, (steps, _BATCH), generator=generator)
        found.append((x, target, order, 0.3 * normal(m), normal(m, m) / m**0.5))
    x, y, order, b, V = (torch.stack(each) for each in zip(*found, strict=True))
    start = {"W": case.G, "b": b, "V": V}
    nets = [{name: nn.Parameter(value[i].clone()) for name, value in start.items()} for i in range(len(case))]
    return x, y, order.transpose(0, 1), nets


def _place(nets: list[Network]) -> Tensor:
    return torch.stack([torch.cat([p.detach().flatten() for p in net.values()]) for net in nets])
