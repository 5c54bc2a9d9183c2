"""A counterexample made small: fewer rows, columns and singular values, rounder numbers, a plainer curvature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor

from icm.curvature import Curvature, Power
from icm.theory.claim import Checked, Claim
from icm.theory.evidence import Witness
from icm.theory.instances import Instances, diagonal
from icm.theory.tally import Violation

_MOST = 200  # candidates tried, fewer of a claim whose instances cost more
_CLEAR = 0.1  # of the worst margin


def shrink(claim: Claim, violations: Sequence[Violation], seed: int, deadline: float = math.inf) -> Witness | None:
    """The smallest witness that these violations lead to: candidates simpler than the best so far replace it as long
    as they meet the hypotheses and violate the claim by a tenth at least of what the worst does, so that it stays
    plain to see. None if no violation is one by itself; no candidate is tried after `deadline`. But for that the same
    input gives the same witness."""
    clear = _CLEAR * max(abs(v.margin) for v in violations)
    starts = sorted(violations, key=lambda v: (abs(v.margin) < clear, _size(v.instance)))
    found = next((start for v in starts if (start := _alone(claim, v.instance)) is not None), None)
    if found is None:
        return None
    best, checked, rigorous = found
    steps, tried, improved = 0, 0, True
    most = max(1, _MOST // claim.cost)
    while improved and tried < most and perf_counter() <= deadline:
        improved = False
        for candidate in _simpler(best):
            tried += 1
            smaller = _attempt(claim, candidate, rigorous, clear)
            if smaller is not None and _size(candidate) < _size(best):
                best, checked, improved = candidate, smaller, True
                steps += 1
                break
            if tried >= most or perf_counter() > deadline:
                break
    return Witness(claim.name, best, float(checked.margin), float(checked.error), checked.rigour, seed, steps)


def _alone(claim: Claim, instance: Instances) -> tuple[Instances, Checked, bool] | None:
    """How the instance violates the claim by itself, and whether that takes ball arithmetic; None if it does not."""
    for rigorous in (False, True) if claim.enclosable else (False,):
        checked = claim.check(instance, rigorous)
        if bool(checked.violated):
            return instance, checked, rigorous
    return None


def _attempt(claim: Claim, candidate: Instances, rigorous: bool, clear: float) -> Checked | None:
    """How the candidate violates the claim, by `clear` at least; None if it does not, or the margin cannot see it."""
    try:
        checked = claim.check(candidate, rigorous)
    except Exception:  # a margin of one's own may rest on anything that was taken away
        return None
    return checked if bool(checked.violated) and abs(float(checked.margin)) >= clear else None


def _size(instance: Instances) -> tuple[float, ...]:
    """What smaller means: entries, then parts of H and its figures, then digits of G."""
    entries = instance.m * instance.n + sum(value[0].numel() for value in instance.extra.values())
    digits = sum(len(f"{x:.17g}".replace("0.", "").rstrip("0")) for x in instance.G.flatten().tolist() if x)
    return entries, len(str(instance.H)), digits


def _simpler(instance: Instances) -> Iterator[Instances]:
    """Candidates, the boldest first."""
    G, H = instance.G, instance.H
    for i in reversed(range(instance.m)):
        if instance.m > 1 and (smaller := _without(instance, 1, i)) is not None:
            yield smaller
    for j in reversed(range(instance.n)):
        if instance.n > 1 and (smaller := _without(instance, 2, j)) is not None:
            yield smaller
    if instance.m > 1 and instance.n > 1 and (smaller := _without_pair(instance)) is not None:
        yield smaller
    if not torch.equal(G, diagonal(G.diagonal(dim1=1, dim2=2), instance.m, instance.n)):
        yield _with(instance, diagonal(torch.linalg.svdvals(G), instance.m, instance.n))
    for plainer in _plainer(H):
        yield replace(instance, H=plainer)
    size = float(G.abs().max())
    if size > 0:
        yield _with(instance, G / size)
        for digits in (1, 2, 3):
            yield _with(instance, _rounded(G, digits))


def _with(instance: Instances, G: Tensor) -> Instances:
    return replace(instance, G=G)


def _without(instance: Instances, dim: int, index: int) -> Instances | None:
    """Without a row (dim 1) or column (dim 2) of G and all that is shaped like it; None if `extra` cannot follow."""
    keep = [i for i in range(instance.G.shape[dim]) if i != index]
    shape = instance.G.shape
    extra = {}
    for name, value in instance.extra.items():
        if value.ndim >= 2 and value.shape != shape:
            return None
        extra[name] = value.index_select(dim, torch.tensor(keep)) if value.shape == shape else value
    return replace(instance, G=instance.G.index_select(dim, torch.tensor(keep)), extra=extra)


def _without_pair(instance: Instances) -> Instances | None:
    smaller = _without(instance, 1, instance.m - 1)
    return None if smaller is None else _without(smaller, 2, instance.n - 1)


def _plainer(H: Curvature) -> Iterator[Curvature]:
    """H with fewer parts, and powers with rounder figures."""
    parts = H.parts
    if len(parts) > 1:
        for i in range(len(parts)):
            rest = [part for j, part in enumerate(parts) if j != i]
            yield sum(rest[1:], rest[0])
    for i, part in enumerate(parts):
        if isinstance(part, Power):
            for plain in (Power(part.exponent), Power(float(round(part.exponent)), part.scale)):
                if plain != part and plain.exponent >= 1:
                    rest = [plain if j == i else other for j, other in enumerate(parts)]
                    yield sum(rest[1:], rest[0])


def _rounded(G: Tensor, digits: int) -> Tensor:
    """G to so many significant digits."""
    entries = [float(f"{x:.{digits}g}") for x in G.flatten().tolist()]
    return torch.tensor(entries, dtype=G.dtype).reshape(G.shape)
