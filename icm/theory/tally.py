"""Counts of a batch, and of many: what travels between processes and machines, and merges in any order."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from icm.rigour import Rigour
from icm.theory.claim import Claim
from icm.theory.instances import Instances

_LARGEST = 9  # inputs of an instance that is enclosed
_SMALLEST, _BATCHES = 3, 16  # elements of a batch, and batches of a run where they are that small
_LOOKED_AT = 8  # instances of a batch among which those to enclose are chosen
_EACH = 2  # instances of a batch that are enclosed


@dataclass(frozen=True)
class Task:
    """A batch of one claim, by number: its instances follow from seed, claim and number alone. `rigorous` ones are
    those of the same batch, few and small, in ball arithmetic."""

    claim: str
    number: int
    seed: int
    size: int
    rigorous: bool = False


@dataclass(frozen=True, eq=False)
class Violation:
    """An instance that violates a claim, a batch of one, and its margin and error in the batch it was found in."""

    instance: Instances
    margin: float
    error: float


@dataclass(frozen=True)
class Tally:
    """What a task found. margin and error are those of the worst instance, NaN if none was decided; `violation` is the
    worst instance that violates the claim."""

    task: Task
    tried: int
    met: int
    open: int
    ties: int
    missed: dict[str, int]
    rigour: Rigour
    margin: float = math.nan
    error: float = math.nan
    violation: Violation | None = None
    seconds: float = field(default=0.0, compare=False)


def batch_size(claim: Claim, instances: int) -> int:
    """Elements per batch: a batch has one shape and one H, so that few instances come in many small batches."""
    return min(claim.batch, max(_SMALLEST, instances // _BATCHES), instances)


def instances_of(claim: Claim, task: Task) -> Instances:
    """The batch that a task stands for: the same on every machine."""
    rng = np.random.default_rng([task.seed, zlib.crc32(claim.name.encode()), task.number])
    return claim.draw(rng, task.size)


def tally(claim: Claim, task: Task) -> Tally:
    """The task carried out. Whatever its margin or generator raises says in a note which batch it was."""
    try:
        return _tally(claim, task)
    except Exception as error:
        error.add_note(f"in batch {task.number} of claim {task.claim!r}, {task.size} instances, seed {task.seed}")
        raise


def _tally(claim: Claim, task: Task) -> Tally:
    start = perf_counter()
    instances = instances_of(claim, task)
    if task.rigorous:
        first = instances[list(range(min(_LOOKED_AT, len(instances))))]
        few = claim.check(first).met.nonzero()[:_EACH, 0].tolist() if instances.n <= _LARGEST else []
        if not few:
            return Tally(task, 0, 0, 0, 0, {}, Rigour.ENCLOSED, seconds=perf_counter() - start)
        instances = instances[few]
    checked = claim.check(instances, task.rigorous)
    decided = checked.met & ~checked.open
    badness = checked.margin.abs() + checked.error if claim.equality else -checked.margin
    order = badness.masked_fill(~decided, -math.inf)
    worst = int(order.argmax())
    violation = None
    if bool(checked.violated.any()):
        excess = checked.margin.abs() if claim.equality else -checked.margin
        i = int((excess - checked.error).masked_fill(~checked.violated, -math.inf).argmax())
        violation = Violation(instances[[i]], float(checked.margin[i]), float(checked.error[i]))
    some = bool(decided.any())
    return Tally(
        task=task,
        tried=len(instances),
        met=int(checked.met.sum()),
        open=int(checked.open.sum()),
        ties=int(checked.tied.sum()),
        missed=checked.missed,
        rigour=checked.rigour,
        margin=float(checked.margin[worst]) if some else math.nan,
        error=float(checked.error[worst]) if some else math.nan,
        violation=violation,
        seconds=perf_counter() - start,
    )


def badness(claim: Claim, found: Tally) -> float:
    """How bad the worst margin of a tally is; larger is worse, −∞ if nothing was decided."""
    if math.isnan(found.margin):
        return -math.inf
    return abs(found.margin) + found.error if claim.equality else -found.margin
