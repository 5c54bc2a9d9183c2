"""The random displacements: which positions of which examples, and where to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.measure.displacement import Base

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Draw:
    """Displacements of length 1 in D directions: δ (D, B, m) of the positions `where` (B,), −1 for an example that has
    none left, or, where that is None, of all positions, δ (D, B, T, m). `token`: which of an example's tokens it is."""

    token: int
    delta: Tensor
    where: Tensor | None


def eligible(g: Tensor) -> Tensor:
    """(B, T): the positions that the loss depends on, those with a gradient; all of an example that has none."""
    felt = (g != 0).any(-1)
    return felt | ~felt.any(-1, keepdim=True)


def positions_of(base: Base, tokens: int | None, seeds: list[int]) -> Tensor:
    """(B, P) positions to displace, drawn without replacement, −1 where an example has fewer."""
    fit = eligible(base.g)
    most = int(fit.sum(-1).amax())
    count = most if tokens is None else min(tokens, most)
    chosen = torch.full((len(fit), count), -1, dtype=torch.long)
    for b, seed in enumerate(seeds):
        where = fit[b].cpu().nonzero()[:, 0]
        order = torch.randperm(len(where), generator=_generator(seed, "positions"))
        chosen[b, : len(where)] = where[order[:count]]
    return chosen


def one_position(base: Base, chosen: Tensor, directions: int, seeds: list[int], at_once: int) -> Iterator[Draw]:
    """For each chosen position so many directions, uniform on the sphere: what δW u/‖δW u‖ is for a Gaussian δW."""
    m = base.y.shape[-1]
    for p in range(chosen.shape[1]):
        drawn = [torch.randn(directions, m, generator=_generator(seed, "one", p)) for seed in seeds]
        unit = torch.stack(drawn, 1).double()
        unit = (unit / unit.norm(dim=-1, keepdim=True)).to(base.y.device, base.wide)
        where = chosen[:, p].to(base.y.device)
        for part in unit.split(at_once):
            yield Draw(p, part, where)


def all_positions(base: Base, directions: int, seeds: list[int], at_once: int) -> Iterator[Draw]:
    """δ_t = δW u_t/‖δW u_t‖ at all positions at once, one Gaussian δW for each example and direction.

    δW u_t over t is Gaussian with covariance u_s·u_t in every output, and with u = L Zᵀ, Z orthonormal, L z has the
    same law for a Gaussian z (min(T, n), m): no m × n matrix is drawn. A u_t of 0 is displaced nowhere.
    """
    m = base.y.shape[-1]
    L = torch.linalg.qr(base.u.double().mT)[1].mT  # (B, T, min(T, n))
    fit = eligible(base.g)

    def unit(d: int) -> Tensor:
        drawn = torch.stack([torch.randn(L.shape[-1], m, generator=_generator(seed, "all", d)) for seed in seeds])
        moved = L @ drawn.to(L)
        length = moved.norm(dim=-1, keepdim=True)
        return (torch.where(length > 0, moved / length.clamp(min=_TINY), 0.0) * fit[..., None]).to(base.wide)

    for first in range(0, directions, at_once):
        yield Draw(0, torch.stack([unit(d) for d in range(first, min(first + at_once, directions))]), None)


def example_seeds(seed: int, layer: str, first: int, count: int) -> list[int]:
    """A seed for each example of a batch whose first example has this number in the data."""
    return [_hash(seed, layer, first + b) for b in range(count)]


def _generator(seed: int, *what: object) -> torch.Generator:
    return torch.Generator().manual_seed(_hash(seed, *what))


def _hash(*what: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big") >> 1
