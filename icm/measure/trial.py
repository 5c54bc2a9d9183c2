"""One layer put to the test: its gradient on some batches, and what moving its weight does to the loss on others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.measure.directions import displaced
from icm.measure.displacement import Base, Network, widened
from icm.measure.layers import Layer
from icm.measure.memory import budget, peak

MOST = 2.0**20  # times its length: the longest that a step is made
_LENGTHS = tuple(2.0**i for i in range(-16, 4))
_LONGER = 6  # doublings at a time where the longest was the best
_FINER = 9  # between the neighbours of the best


class Trial:
    """A layer: the gradient G (m, n) of the mean loss per position, the second moment C (n, n) of its inputs, both
    float64, on `batches`, and what moving its weight does on `others`, whose positions are counted alike.

    Positions are those of `icm.measure.curvature`: with a gradient, in examples that have a loss. G and C are 0 where
    there are none. One batch is held at a time, and displaced as often at once as `memory` bears.
    """

    def __init__(
        self,
        network: Network,
        layer: Layer,
        batches: Sequence[Any],
        others: Sequence[Any],
        memory: int | str | None = None,
    ):
        self.network, self.layer, self.memory = network, layer, memory
        self._others = others
        self._lanes: dict[tuple[int, ...], int] = {}
        G, C = torch.zeros(layer.m, layer.n, dtype=torch.float64), torch.zeros(layer.n, layer.n, dtype=torch.float64)
        count = 0
        for i, batch in enumerate(batches):
            base = network.base(layer, widened(batch, network.dtype), alone=i == 0)
            fit = displaced(base)
            g, u = base.g[fit], base.u[fit].double()
            G += (g.T @ u).cpu()
            C += (u.T @ u).cpu()
            count += len(g)
        self.G, self.C = G / max(1, count), C / max(1, count)

    def decreases(
        self, tries: Sequence[tuple[Float[Tensor, "m n"], Sequence[float]]]
    ) -> list[Float[Tensor, " factors"]]:
        """L(W) − L(W − c Q) per position, for each Q and each of its factors c; one pass over the batches for all."""
        totals = [torch.zeros(len(factors), dtype=torch.float64) for _, factors in tries]
        count = 0
        for batch in self._others:
            batch = widened(batch, self.network.dtype)
            base = self.network.base(self.layer, batch)
            count += int(displaced(base).sum())
            for (Q, factors), total in zip(tries, totals, strict=True):
                if not factors:
                    continue
                moved = (base.u.double() @ Q.T.to(base.u.device)).to(base.wide)
                at_once = self._at_once(batch, base, moved)
                for first in range(0, len(factors), at_once):
                    part = slice(first, first + at_once)
                    total[part] -= self._changes(batch, base, moved, factors[part])
        return [total / max(1, count) for total in totals]

    def _changes(self, batch: Any, base: Base, moved: Tensor, factors: Sequence[float]) -> Tensor:
        """Of the summed loss, for each factor."""
        c = torch.tensor(factors, dtype=torch.float64).to(moved)
        beyond, linear = self.network.remainders(self.layer, batch, base, -c[:, None, None, None] * moved)
        return (beyond + linear).sum(-1).cpu()

    def _at_once(self, batch: Any, base: Base, moved: Tensor) -> int:
        """How many factors pass at once within the budget: by the peaks of one and of two, and then of as many as these
        promise. A peak is convex in their number, so the line between two peaks is above those between."""
        shape = tuple(moved.shape)
        if shape not in self._lanes:
            most = budget(self.memory, moved.device)

            def held(lanes: int) -> int:
                return peak(lambda: self._changes(batch, base, moved, [0.0] * lanes))

            one, two = held(1), held(2)
            if one > most:
                raise InputError(
                    f"memory={self.memory!r} is {most / 2**20:.4g} MiB, and one pass with {self.layer.name} moved "
                    f"holds {one / 2**20:.4g}; raise it, or give smaller batches"
                )
            lanes = 1 if self.network.looped else min(1 + (most - one) // max(1, two - one), 1 + len(_LENGTHS))
            if lanes > 2 and (every := held(lanes)) > most:
                lanes = 1 + (most - one) * (lanes - 1) // (every - one)
            self._lanes[shape] = lanes
        return self._lanes[shape]


def best_lengths(trial: Trial, Q: Sequence[Float[Tensor, "m n"]]) -> list[tuple[float, float, float]]:
    """For each Q the decrease that it gives, the most that a multiple of it gives, and the factor of that multiple: 0
    where none that is tried gives any, MOST where longer ones may give more still.

    Factors are powers of 2 from 2⁻¹⁶ to 8, and on while the last is the best, and then finer around the best.
    """
    factors = [[1.0, *_LENGTHS] for _ in Q]
    gains = [_finite(x) for x in trial.decreases(list(zip(Q, factors, strict=True)))]
    given = [float(x[0]) for x in gains]

    def more(extra: list[list[float]]) -> None:
        if any(extra):
            found = trial.decreases(list(zip(Q, extra, strict=True)))
            for i, x in enumerate(found):
                gains[i] = torch.cat([gains[i], _finite(x)])
                factors[i] += extra[i]

    while any(longer := [_longer(f, x) for f, x in zip(factors, gains, strict=True)]):
        more(longer)
    more([_between(f, x) for f, x in zip(factors, gains, strict=True)])
    found = []
    for value, f, x in zip(given, factors, gains, strict=True):
        i = int(x.argmax())
        most, factor = float(x[i]), f[i]
        found.append((value, most, factor) if most > 0 else (value, 0.0, 0.0))
    return found


def _finite(gains: Tensor) -> Tensor:
    """A step that leaves numbers behind is the worst there is."""
    return gains.nan_to_num(nan=-math.inf, posinf=-math.inf)


def _longer(factors: list[float], gains: Tensor) -> list[float]:
    last, best = max(factors), int(gains.argmax())
    if factors[best] < last or float(gains[best]) <= 0:
        return []
    return [last * 2.0**i for i in range(1, _LONGER + 1) if last * 2.0**i <= MOST]


def _between(factors: list[float], gains: Tensor) -> list[float]:
    """Around the best of powers of 2, unless none gives anything."""
    i = int(gains.argmax())
    if float(gains[i]) <= 0:
        return []
    low, high = max(min(factors), factors[i] / 2), min(max(factors), factors[i] * 2)
    return torch.logspace(math.log10(low), math.log10(high), _FINER, dtype=torch.float64).tolist()[1:-1]
