"""All remainders of one layer on one batch, and how many displacements pass through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from icm.errors import InputError
from icm.measure.directions import Draw, all_positions, displaced, example_seeds, one_position, positions_of
from icm.measure.displacement import Base, Network
from icm.measure.layers import Layer
from icm.measure.memory import budget, peak
from icm.measure.row_passes import RowChoice, RowPasses
from icm.measure.tally import BatchSums, Tally

Positions = Literal["one", "all"]
Tell = Callable[[float], None]  # the share of one layer's displacements on one batch that is done

NOISE = 16.0  # roundings of the output that make the radius r₀ at which remainders are rounding alone


class Sweep:
    """Every displacement of one layer on one batch: tokens, directions and radii, as many at once as memory holds."""

    def __init__(
        self,
        radii: Tensor,
        directions: int,
        positions: Positions | str,
        tokens: int | None,
        seed: int,
        memory: int | str | None,
    ):
        self.radii, self.directions, self.positions = radii, directions, positions
        self.tokens, self.seed, self.memory = tokens, seed, memory
        self._lanes: dict[tuple[str, tuple[int, ...]], int] = {}
        self.rows = RowChoice()

    def settings(self, layers: Sequence[Layer], dtype: torch.dtype | None, random_seed: int | None) -> dict[str, Any]:
        """What decides the numbers, for the journal."""
        return {
            "layers": [[x.name, x.start, x.m, x.n] for x in layers],
            "radii": self.radii.tolist(),
            "directions": self.directions,
            "positions": self.positions,
            "tokens": self.tokens,
            "seed": self.seed,
            "dtype": str(dtype),
            "random_seed": random_seed,
        }

    def measure(
        self, network: Network, layer: Layer, batch: Any, base: Base, first: int, tell: Tell = lambda share: None
    ) -> Tally:
        """The sums of one batch whose first example has that number in the data."""
        if self.positions == "one":
            passes = self.rows.passes(network, layer, batch, base, budget(self.memory, base.y.device))
            if passes is not None:
                try:
                    return self._measure(layer, base, first, _by_rows(passes), passes.lanes, tell)
                except torch.OutOfMemoryError:
                    raise
                except (_NoRowsError, InputError) as error:  # the other way is for every model
                    self.rows.refuse(layer, base, error.why if isinstance(error, _NoRowsError) else error)
        lanes = self._at_once(network, layer, batch, base)
        return self._measure(layer, base, first, partial(network.remainders, layer, batch, base), lanes, tell)

    def _measure(
        self, layer: Layer, base: Base, first: int, remainders: Callable[..., Any], lanes: int, tell: Tell
    ) -> Tally:
        """With so many lanes at once: remainders(δ, where) as of Network.remainders."""
        B, T = base.y.shape[:2]
        seeds = example_seeds(self.seed, layer.name, first, B)
        size = float(base.y.double().square().sum(-1).mean().sqrt())
        noise_radius = NOISE * base.eps * (size or 1.0)
        radii = torch.cat([self.radii, torch.tensor([noise_radius], dtype=torch.float64)]).to(base.y.device)
        R = len(radii)
        draws, real, share = self._draws(base, seeds, max(1, lanes // R))
        token, done, sums = 0, 0, BatchSums(R, B)
        for draw in draws:
            if draw.token != token:
                sums.next()
                token = draw.token
            D = len(draw.delta)
            lengths = radii.to(draw.delta.dtype).view(-1, *[1] * (draw.delta.ndim - 1))
            parts = [
                remainders(draw.delta[lane // R].mul_(lengths[lane % R]), draw.where)
                for lane in torch.arange(D * R, device=radii.device).split(lanes)
            ]
            x, linear = (
                torch.cat(every).unflatten(0, (D, R)).transpose(0, 1).cpu() * share
                for every in zip(*parts, strict=True)
            )
            self._check(layer, x * real[token])
            sums.add(x, linear, real[token])
            done += D
            tell(done / (len(real) * self.directions))
        squares = float(base.y.double().square().sum()), float(base.u.double().square().sum())
        return sums.tally(noise_radius, (B * T, *squares))

    def _draws(self, base: Base, seeds: list[int], at_once: int) -> tuple[Iterator[Draw], Tensor, Tensor]:
        """The displacements, which tokens are real (P, B), and what remainders are multiplied by (B,)."""
        if self.positions == "one":
            chosen = positions_of(base, self.tokens, seeds)
            real = (chosen >= 0).double().T
            return one_position(base, chosen, self.directions, seeds, at_once), real, torch.ones(len(seeds))
        count = displaced(base).sum(-1).double().cpu()
        share = 1 / count.clamp(min=1)  # of the summed remainder, per displaced position
        draws = all_positions(base, self.directions, seeds, at_once) if bool(count.any()) else iter(())
        return draws, (count > 0).double()[None], share

    def _check(self, layer: Layer, x: Tensor) -> None:
        bad = ~torch.isfinite(x)
        if bool(bad.any()):
            radius = float(self.radii[min(int(bad.flatten(1).any(-1).nonzero()[0]), len(self.radii) - 1)])
            raise InputError(
                f"the loss is not finite with {layer.name} displaced by {radius:g}; leave out radii from there on, or "
                "compute in a wider dtype"
            )

    def _at_once(self, network: Network, layer: Layer, batch: Any, base: Base) -> int:
        """How many displacements pass at once within the budget: by the peaks of one and of two, and then of as many
        as these promise. A peak is convex in their number, so the line between two peaks is above those between."""
        key = layer.name, tuple(base.y.shape)
        if key not in self._lanes:
            most, B = budget(self.memory, base.y.device), len(base.y)
            shape = base.y.shape[-1:] if self.positions == "one" else base.y.shape[1:]
            where = torch.zeros(B, dtype=torch.long, device=base.y.device) if self.positions == "one" else None

            def held(lanes: int) -> int:
                nowhere = base.y.new_zeros((), dtype=base.wide).expand(lanes, B, *shape)
                return peak(lambda: network.remainders(layer, batch, base, nowhere.contiguous(), where))

            one, two = held(1), held(2)
            if one > most:
                raise InputError(
                    f"memory={self.memory!r} is {most / 2**20:.4g} MiB, and one displaced pass at {layer.name} holds "
                    f"{one / 2**20:.4g}; raise it, or give smaller batches"
                )
            lanes = min(1 + (most - one) // max(1, two - one), self.directions * (len(self.radii) + 1))
            lanes = 1 if network.looped else lanes
            if lanes > 2 and (every := held(lanes)) > most:
                lanes = 1 + (most - one) * (lanes - 1) // (every - one)
            self._lanes[key] = lanes
        return self._lanes[key]


class _NoRowsError(Exception):
    """Whatever a model makes of rows."""

    def __init__(self, why: Exception):
        super().__init__(str(why))
        self.why = why


def _by_rows(passes: RowPasses) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def remainders(delta: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return passes.remainders(delta, where)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _NoRowsError(error) from error

    return remainders
