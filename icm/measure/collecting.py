"""Sums of u uᵀ over the forwards of one step, one for all weights that were fed the very same tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icm.measure.inputs import Feed, Reader


@dataclass(frozen=True, eq=False)
class Sum:
    """Σ u uᵀ, in blocks, and the number of rows u. Never changed: adding gives a new one, with a new number."""

    total: Tensor
    rows: Tensor
    number: int


@dataclass(frozen=True, eq=False)
class Average:
    """The bias-corrected average of blocks, the mass Σ_t (1 − decay) decay^(T−t) in it, and its changes."""

    blocks: Tensor
    mass: Tensor
    version: int


@dataclass(eq=False)
class Weight:
    """What is known of the inputs of one weight."""

    name: str
    parameter: weakref.ref[nn.Parameter]
    shape: tuple[int, int, int]  # of the blocks
    average: Average | None = None
    pending: Sum | None = None  # since the last step


@dataclass(eq=False)
class Collector:
    """What the hooks write to. It refers to no module, so a model and its hooks make no circle with it."""

    dtype: torch.dtype
    collecting: bool = True
    # From (number of the sum before, tensor, its version, reader) to that tensor and the sum with it added.
    recent: dict[tuple[int, int, int, Reader], tuple[weakref.ref[Tensor], weakref.ref[Sum]]] = field(
        default_factory=dict
    )
    count: int = 0

    def collect(self, entries: tuple[tuple[Weight, tuple[Feed, ...]], ...], args: tuple, kwargs: Mapping) -> None:
        """Add the rows of one call of a module to the sums of its weights."""
        # Inside the backward pass a forward is a checkpoint's recomputation. PyTorch has no public question for that.
        if torch._C._current_graph_task_id() != -1:
            return
        for weight, inputs in entries:
            parameter = weight.parameter()
            if parameter is not None and not parameter.requires_grad:
                continue
            given = [args[feed.place] if feed.place < len(args) else kwargs.get(feed.name) for feed in inputs]
            once = all(x is given[0] for x in given)  # self-attention: three times the same rows have the same mean
            for feed, x in zip(inputs[:1] if once else inputs, given, strict=False):
                # Numbers inside vmap or grad may not outlive their transform; torch.func has no public question either.
                if isinstance(x, Tensor) and not torch._C._functorch.is_functorch_wrapped_tensor(x):  # pyright: ignore
                    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                        self._add(weight, x, feed.read)

    def _add(self, weight: Weight, x: Tensor, read: Reader) -> None:
        before = weight.pending
        key = None
        if not x.is_inference():  # such tensors have no version that would tell of changes in place
            key = (0 if before is None else before.number, id(x), x._version, read)
            source, found = self.recent.get(key, (None, None))
            known = found() if found is not None else None
            if source is not None and source() is x and known is not None:
                weight.pending = known
                return
        if before is None:
            zeros = torch.zeros(weight.shape, dtype=self.dtype, device=x.device)
            total, rows = zeros, zeros.new_zeros(())
        else:
            total, rows = before.total.to(x.device), before.rows.to(x.device)
        added, count = total, 0
        for u in read(x.detach()):
            added = _with(added, u)
            count += u.shape[0]
        if not count:
            return
        finite = added.diagonal(dim1=-2, dim2=-1).sum().isfinite()  # one bad entry spoils a square on the diagonal
        self.count += 1
        weight.pending = Sum(torch.where(finite, added, total), torch.where(finite, rows + count, rows), self.count)
        if key is not None:
            self.recent[key] = weakref.ref(x), weakref.ref(weight.pending)


class Hook:
    """A forward pre-hook. Copies and pickles of it, with their module, do nothing: their moments are not ours."""

    def __init__(
        self,
        collector: Collector | None = None,
        collect: Callable[..., Any] | None = None,
        entries: tuple[tuple[Weight, tuple[Feed, ...]], ...] = (),
    ):
        self.collector, self.collect, self.entries = collector, collect, entries

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Traced by torch.compile, which guards on both flags; `collect` itself is not.
        if self.collector is not None and self.collector.collecting and module.training:
            self.collect(self.entries, args, kwargs)  # pyright: ignore[reportOptionalCall]

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()


def fold(average: Average | None, seen: Sum, decay: float) -> Average:
    """The average with the mean of `seen` added; unchanged but for its version if no row of it was finite."""
    if average is None:
        blocks, mass, version = torch.zeros_like(seen.total), torch.zeros_like(seen.rows), 0
    else:
        device = seen.total.device
        blocks, mass, version = average.blocks.to(device), average.mass.to(device), average.version
    live = seen.rows > 0
    # By masses, so that a first step counts in full and a dropped one not at all.
    heavier = torch.where(live, decay * mass + (1 - decay), mass)
    share = torch.where(live, (1 - decay) / heavier.where(live, 1.0), 0.0)
    mean = seen.total / seen.rows.clamp(min=1)
    return Average(torch.lerp(blocks, mean, share), heavier, version + 1)


def _with(total: Tensor, u: Tensor) -> Tensor:
    """total (b, w, w) + Σ u uᵀ over the rows of u (R, b·w), block by block."""
    halved = u.dtype in (torch.bfloat16, torch.float16)
    exact = u.is_cuda and halved and total.dtype == torch.float32
    u = u if exact else u.to(total.dtype)
    u = u.unflatten(1, total.shape[:2]).permute(1, 2, 0)
    return total + torch.bmm(u, u.mT, out_dtype=torch.float32) if exact else torch.baddbmm(total, u, u.mT)
