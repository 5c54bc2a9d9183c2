"""Remainders of one displaced token by passes over the rows that it changes, where they prove right and pay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from icm.measure.displacement import Base, Network
from icm.measure.layers import Layer
from icm.measure.memory import peak
from icm.measure.nest import with_tensors
from icm.measure.row_products import RULES
from icm.measure.rows import Pass, Rows
from icm.measure.surroundings import enough_memory

ROUNDINGS = 64.0  # of the root of the sum of squared loss terms, that the two ways may differ by
PAYS = 0.8  # with a larger share of all entries computed, rows are not worth it
CACHED = 64 * 2**20  # bytes of lanes at once on a CPU: with more, memory is got anew for every tensor
LANES = 4  # of trial passes; with fewer at once, the undisplaced pass costs more than rows save


class RowPasses:
    """Displaced passes of one layer on one batch, one example at a time, of which only changed rows are computed."""

    def __init__(self, network: Network, layer: Layer, batch: Any, base: Base, lanes: int, bytes_each: float):
        self.network, self.layer, self.base, self.lanes, self.bytes_each = network, layer, base, lanes, bytes_each
        self.share = 0.0  # of the last pass: the entries of a lane that were computed
        self.singles = [only(batch, b, len(base.terms)) for b in range(len(base.terms))]

    def remainders(self, delta: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """(K, B) remainders and linear terms of δ (K, B, m) at the tokens `where` (B,), none where that is negative: as
        Network.remainders."""
        found = torch.zeros(2, *delta.shape[:2], dtype=torch.float64, device=delta.device)
        for b, t in enumerate(where.tolist()):
            if t >= 0:
                parts = delta[:, b].tensor_split(-(-len(delta) // self.at_once(t)))
                found[:, :, b] = torch.cat([self.one(b, t, part) for part in parts], 1)
        return found[0], found[1]

    def at_once(self, t: int) -> int:
        """How many lanes: on a CPU, fewer than memory holds, by the rows that a causal model changes."""
        if self.base.y.device.type != "cpu" or not self.bytes_each:
            return self.lanes
        T = self.base.y.shape[1]
        return max(1, min(self.lanes, int(CACHED * T / (T - t) / self.bytes_each)))

    @torch.no_grad()
    def one(self, b: int, t: int, delta: Tensor) -> Tensor:
        """(2, K): remainders and linear terms of example b with δ (K, m) at token t."""
        layer, T = self.layer, self.base.y.shape[1]
        rows = Pass(RULES)
        linear: list[Tensor] = []

        def displace(module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
            if y.ndim < 2 or y.shape[-2] != T or math.prod(y.shape[:-2]) != 1:
                raise NotImplementedError(f"outputs {tuple(y.shape)} of one example are not {T} rows")
            part = slice(layer.start, layer.start + layer.m)
            values = y[..., t : t + 1, :].repeat(len(delta), *[1] * y.ndim)
            old = values[..., part].clone()
            values[..., part] += delta.view(len(delta), *[1] * (y.ndim - 1), layer.m).to(y.dtype)
            moved = (values[..., part].double() - old.double()).view(len(delta), layer.m)
            linear.append(moved @ self.base.g[b, t])
            return Rows(y, values, t, y.ndim - 2, rows)

        what = f"{len(delta)} displacements of {layer.name} at once"
        with self.network.through(layer, displace), enough_memory(what):
            terms = self.network.terms(self.singles[b])
        (first,) = linear
        self.share = rows.share
        return torch.stack([self._change(terms, b, len(delta)) - first, first])

    def _change(self, terms: Tensor, b: int, lanes: int) -> Tensor:
        """(K,) what the loss terms of one example have changed by."""
        plain, wanted = (terms.base if isinstance(terms, Rows) else terms), self.base.terms[b]
        known = plain.double().flatten()
        if len(known) != len(wanted) or not bool((known - wanted).norm() <= self.tolerance(b)):
            raise NotImplementedError("an example alone has another loss than in its batch")
        if not isinstance(terms, Rows):
            return known.new_zeros(lanes)
        same = terms.base if terms.axis is None else terms.base.narrow(terms.axis, terms.lo, terms.hi - terms.lo)
        return (terms.changed.double() - same.double()).flatten(1).sum(1)

    def tolerance(self, b: int) -> float:
        return ROUNDINGS * self.base.eps * (1 + float(self.base.terms[b].double().norm()))


class RowChoice:
    """Which layers pass by rows, decided where one is first seen. `why_not`: of those that do not, by the layer's name
    and the shape of its outputs."""

    def __init__(self) -> None:
        self.why_not: dict[tuple[str, tuple[int, ...]], str] = {}
        self._lanes: dict[tuple[str, tuple[int, ...]], tuple[int, float]] = {}

    def passes(self, network: Network, layer: Layer, batch: Any, base: Base, budget: int) -> RowPasses | None:
        key = layer.name, tuple(base.y.shape)
        if key in self.why_not:
            return None
        try:
            if key not in self._lanes:
                self._lanes[key] = trial(network, layer, batch, base, budget)
            return RowPasses(network, layer, batch, base, *self._lanes[key])
        except Exception as error:  # whatever a model makes of rows: passes of all rows are for every model
            self.refuse(layer, base, error)
            return None

    def refuse(self, layer: Layer, base: Base, error: Exception) -> None:
        """From here on all rows."""
        self.why_not[layer.name, tuple(base.y.shape)] = f"{type(error).__name__}: {error}"


def trial(network: Network, layer: Layer, batch: Any, base: Base, budget: int) -> tuple[int, float]:
    """How many lanes pass at once within so many bytes, and how many one takes.

    Raises an error that says why rows are not for this layer: what a pass raises, remainders that are not those of
    passes of all rows at an early, a middle and a late token, more memory than there is, or as much work.
    """
    B, T, m = base.y.shape
    if network.seed is not None or network.looped or T < 2:
        raise NotImplementedError("random layers, models that vmap cannot run and single rows pass as they are")
    if any(x._compiled_call_impl is not None for x in network.model.modules()):
        raise NotImplementedError("compiled modules do not take rows")
    passes = RowPasses(network, layer, batch, base, LANES, 0.0)
    size = float(base.y.double().square().sum(-1).mean().sqrt()) or 1.0
    unit = torch.randn(LANES, m, generator=torch.Generator().manual_seed(0))
    unit = (unit / unit.norm(dim=-1, keepdim=True)).to(base.y.device, base.wide)
    delta = unit * size * torch.logspace(0, -1, LANES).to(unit)[:, None]
    loudest = int(base.g.flatten(1).norm(dim=1).argmax())  # an example without a loss would prove nothing
    found, most, shares = [], 0, []
    for t in (0, T // 2, T - 1):
        here: list[Tensor] = []

        def run(t: int = t, here: list[Tensor] = here) -> None:
            here.append(passes.one(loudest, t, delta))

        if not shares:
            most = peak(run)
        else:
            run()
            if passes.share > max(shares):  # wider here than where it was measured
                most = max(most, peak(run))
        if most > budget:
            raise NotImplementedError(f"{LANES} lanes hold {most} bytes")
        found.append(here[0])
        shares.append(passes.share)
    if shares[1] > PAYS:
        raise NotImplementedError(f"{shares[1]:.0%} of all that passes of all rows compute is computed")
    _compare(passes, network, layer, delta, torch.stack(found), loudest)
    # Memory is affine in lanes, c + s K with c ≥ 0: that of LANES bounds that of more, in proportion. With their draws.
    each = most / LANES
    lanes = int(budget // (each + 2 * B * m * delta.element_size()))
    if lanes < LANES:
        raise NotImplementedError(f"only {lanes} lanes fit at once")
    return lanes, each


def _compare(passes: RowPasses, network: Network, layer: Layer, delta: Tensor, found: Tensor, b: int) -> None:
    """Refuse what (3, 2, K) remainders and linear terms of example b at an early, a middle and a late token are not
    those of passes of all rows: one lane of each, two of the middle."""
    every, own = passes.base, slice(b, b + 1)
    base = Base(every.y[own], every.u[own], every.g[own], every.terms[own], every.eps)
    T = base.y.shape[1]
    which = ((0, 0, 0), (1, 0, T // 2), (1, 1, T // 2), (2, 1, T - 1))
    moved = delta.new_zeros(len(which), *base.y.shape)
    for k, (_, lane, t) in enumerate(which):
        moved[k, 0, t] = delta[lane]
    wanted = torch.stack(network.remainders(layer, passes.singles[b], base, moved))[..., 0]
    mine = torch.stack([found[i, :, lane] for i, lane, _ in which], 1)
    off = (mine - wanted).abs()
    if not bool((off <= passes.tolerance(b) + ROUNDINGS * base.eps * wanted.abs().sum(0)).all()):
        raise NotImplementedError(f"remainders are off by {float(off.max()):.3g} at most")


def only(batch: Any, b: int, count: int) -> Any:
    """Example b of a batch of so many: of each tensor whose first axis has that size."""
    if count == 1:
        return batch
    return with_tensors(batch, lambda x: x[b : b + 1] if x.ndim and len(x) == count else x)
