"""Tensors of which K displaced passes share most: one token's rows differ, and whatever those have touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

Rule = Callable[[Any, tuple, dict[str, Any]], Any]  # (func, args, kwargs) to its value, or NotImplemented


class Pass:
    """What all rows of a pass share: the rules that functions of torch go by, and how much was computed: entries for a
    lane, and those that the tensors have."""

    def __init__(self, rules: Mapping[Any, Rule]):
        self.rules, self.computed, self.full = rules, 0.0, 0.0

    @property
    def share(self) -> float:
        return self.computed / max(1.0, self.full)

    def note(self, found: Any) -> None:
        """Take in what a function gave."""
        for x in (found,) if isinstance(found, Rows) else tree_leaves(found):
            if isinstance(x, Rows):
                x.of = self
                self.computed += x.changed.numel() / x.lanes
                self.full += x.base.numel()


class Rows(Tensor):
    """K lanes of a tensor, all equal to `base` but for the rows lo to hi of the token axis, which `changed` holds, (K,
    *base.shape with hi − lo rows). axis None: lanes that have nothing in common, changed (K, *base.shape).

    Functions of torch go by the rule that their pass has for them. Any other is applied to every lane in full, by
    torch.func.vmap, after which the token axis is unknown. What neither can do raises: a value is right or refused.
    """

    base: Tensor
    changed: Tensor
    lo: int
    axis: int | None
    of: Pass | None  # None: not yet known to one

    @staticmethod
    def __new__(
        cls, base: Tensor, values: Tensor, lo: int = 0, axis: int | None = None, of: Pass | None = None
    ) -> Rows:
        wanted = list(base.shape)
        if axis is not None:
            wanted[axis] = values.shape[axis + 1]
            if axis < 0 or lo < 0 or lo + wanted[axis] > base.shape[axis]:
                raise ValueError(f"rows {lo} to {lo + wanted[axis]} of axis {axis} are not in {tuple(base.shape)}")
        if list(values.shape[1:]) != wanted or values.dtype != base.dtype or values.device != base.device:
            raise ValueError(
                f"{tuple(values.shape)} {values.dtype} are no lanes of {tuple(base.shape)} {base.dtype} at {axis}"
            )
        made = Tensor._make_wrapper_subclass(cls, base.shape, dtype=base.dtype, device=base.device)  # type: ignore[attr-defined]
        made.base, made.changed, made.lo, made.axis, made.of = base, values, lo, axis, of
        return made

    @property
    def lanes(self) -> int:
        return len(self.changed)

    @property
    def hi(self) -> int:
        assert self.axis is not None
        return self.lo + self.changed.shape[self.axis + 1]

    @property
    def length(self) -> int:
        assert self.axis is not None
        return self.base.shape[self.axis]

    def between(self, lo: int, hi: int) -> Tensor:
        """(K, …) the rows lo to hi, which contain all that differ."""
        assert self.axis is not None
        if (lo, hi) == (self.lo, self.hi):
            return self.changed
        before, after = (
            self.base.narrow(self.axis, a, b - a).expand(self.lanes, *self._with(b - a))
            for a, b in ((lo, self.lo), (self.hi, hi))
        )
        return torch.cat([before, self.changed, after], self.axis + 1)

    def whole(self) -> Tensor:
        """(K, *base.shape)."""
        return self.changed if self.axis is None else self.between(0, self.length)

    def _with(self, rows: int) -> list[int]:
        return [rows if i == self.axis else n for i, n in enumerate(self.base.shape)]

    @classmethod
    def __torch_function__(cls, func: Any, types: Sequence[type], args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        refuse_changes(func, kwargs)
        given = args[:1] if args and isinstance(args[0], Rows) else tree_leaves((args, kwargs))
        of = next(x.of for x in given if isinstance(x, Rows))
        rule = None if of is None else of.rules.get(func)
        found = NotImplemented if rule is None else rule(func, args, kwargs)
        if found is NotImplemented:
            found = lane_by_lane(func, args, kwargs)
        if of is not None and isinstance(found, Rows | tuple | list | dict):
            of.note(found)
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(f"{func} reached a tensor of which only some rows are kept")


def bases(tree: Any) -> Any:
    """The undisplaced values of all in a nest of arguments."""
    return tree_map(lambda x: x.base if isinstance(x, Rows) else x, tree)


def refuse_changes(func: Any, kwargs: dict[str, Any]) -> None:
    """Raise NotImplementedError for what writes into a tensor: others that share its rows would not follow."""
    name = getattr(func, "__name__", "")
    dunder = name.startswith("__") and name.endswith("__")
    writes = name in _WRITES if dunder else name.endswith("_")
    if writes or kwargs.get("inplace") or kwargs.get("out") is not None:
        raise NotImplementedError(f"{name} in place")


_WRITES = {"__setitem__", "__set__", "__delitem__", "__delete__", "__iadd__", "__isub__", "__imul__", "__itruediv__",
           "__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
           "__idiv__", "__imatmul__", "__setstate__"}  # fmt: skip


def lane_by_lane(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """func of all rows of every lane. Raises what torch.func.vmap raises for functions that it cannot run."""
    leaves, shape = tree_flatten((args, kwargs))
    places = [i for i, x in enumerate(leaves) if isinstance(x, Rows)]

    kinds: list[Any] = []

    def call(*given: Tensor) -> list[Tensor]:
        put = dict(zip(places, given, strict=True))
        a, k = tree_unflatten([put.get(i, x) for i, x in enumerate(leaves)], shape)
        found, kind = tree_flatten(func(*a, **k))
        if not all(x is None or isinstance(x, Tensor) for x in found):
            raise NotImplementedError(f"{getattr(func, '__name__', func)} gives no tensors")
        kinds.append((kind, [x is None for x in found]))
        return [x for x in found if x is not None]

    values = iter(vmap(call)(*(leaves[i].whole() for i in places)))
    found = iter(call(*(leaves[i].base for i in places)))
    if kinds[0] != kinds[1]:
        raise NotImplementedError(f"{getattr(func, '__name__', func)} gives now this, now that")
    kind, missing = kinds[0]
    return tree_unflatten([None if no else Rows(next(found), next(values)) for no in missing], kind)


def aligned(rows: Sequence[Rows]) -> tuple[int, int, int] | None:
    """(lo, hi, axis from the right) that contain the rows of all, if these have one token axis from the right."""
    if any(x.axis is None for x in rows):
        return None
    places = {(x.axis - x.base.ndim, x.length) for x in rows}  # type: ignore[operator]
    if len(places) > 1:
        return None
    return min(x.lo for x in rows), max(x.hi for x in rows), next(iter(places))[0]


def axis_after(base: Tensor, axis: int, shape: Sequence[int]) -> int | None:
    """Where an axis of base is once it has this shape, row-major."""
    before, length = math.prod(base.shape[:axis]), base.shape[axis]
    found = (i for i, n in enumerate(shape) if n == length and math.prod(shape[:i]) == before)
    return next(found, None)
