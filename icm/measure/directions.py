"""The random displacements: which positions of which examples, and where to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.measure.displacement import Base

BLOCK = 32  # directions drawn from one seed: memory for these, however many there are
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Draw:
    """Displacements of length 1 in D directions: δ (D, B, m) of the positions `where` (B,), −1 for an example that has
    none left, or, where that is None, of all positions, δ (D, B, T, m). `token`: which of an example's tokens it is."""

    token: int
    delta: Tensor
    where: Tensor | None


def eligible(g: Tensor) -> Tensor:
    """(B, T): the positions that the loss depends on, those with a gradient; all where the whole batch has none."""
    felt = (g != 0).any(-1)
    return felt | ~felt.any()


def displaced(base: Base) -> Tensor:
    """(B, T): the eligible positions of examples that have a loss. One whose terms and gradient are all 0, as with
    every label ignored, would enter with remainders of 0."""
    lossy = (base.terms != 0).any(-1).to(base.g.device) | (base.g != 0).flatten(1).any(-1)
    return eligible(base.g) & lossy[:, None]


def positions_of(base: Base, tokens: int | None, seeds: list[int]) -> Tensor:
    """(B, P) positions to displace, drawn without replacement, −1 where an example has fewer."""
    fit = displaced(base)
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

    def block(p: int, k: int) -> Tensor:
        drawn = [torch.randn(BLOCK, m, generator=_generator(seed, "one", p, k)) for seed in seeds]
        unit = torch.stack(drawn, 1)[: directions - k * BLOCK].double()  # whole ones: randn's numbers go by its size
        return (unit / unit.norm(dim=-1, keepdim=True)).to(base.y.device, base.wide)

    for p in range(chosen.shape[1]):
        where = chosen[:, p].to(base.y.device)
        left = torch.zeros(0, len(seeds), m, dtype=base.wide, device=base.y.device)
        for k in range(-(-directions // BLOCK)):
            left = torch.cat([left, block(p, k)])
            while len(left) >= at_once:
                yield Draw(p, left[:at_once], where)
                left = left[at_once:]
        if len(left):
            yield Draw(p, left, where)


def all_positions(base: Base, directions: int, seeds: list[int], at_once: int) -> Iterator[Draw]:
    """δ_t = δW u_t/‖δW u_t‖ at all positions at once, one Gaussian δW for each example and direction.

    δW u_t over t is Gaussian with covariance u_s·u_t in every output, and with u = L Zᵀ, Z orthonormal, L z has the
    same law for a Gaussian z (min(T, n), m): no m × n matrix is drawn. A u_t of 0 is displaced nowhere.
    """
    m = base.y.shape[-1]
    L = torch.linalg.qr(base.u.double().mT)[1].mT  # (B, T, min(T, n))
    L = L * torch.where(L.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None]  # signs alike on every device
    fit = displaced(base)

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
