"""How many bytes of tensors a computation holds at its peak, on any device, and budgets for them."""

from __future__ import annotations

import numbers
import re
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from icm.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_ON_CPU = 2**27  # there more lanes only leave the caches
_SHARE = 0.25  # of a GPU's free memory


def budget(memory: Any, device: torch.device) -> int:
    """Bytes: a number, a text such as "500MB" or "2GiB"; None: 128 MiB on a CPU, a quarter of what is free on a GPU.

    Raises InputError for anything else.
    """
    if memory is None:
        return int(_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else _ON_CPU
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", memory.lower())
        if match is None:
            raise InputError(f"memory={memory!r} is no amount; write bytes, or '500MB' or '2GiB'")
        memory = int(float(match[1]) * _UNITS[match[2] or ""])
    if isinstance(memory, bool) or not isinstance(memory, numbers.Integral):
        raise InputError(f"memory={memory!r} is no amount; give whole bytes, or a text such as '500MB' or '2GiB'")
    if memory < 1:
        raise InputError(f"memory={memory} must be at least 1 byte, the most that displaced passes may hold")
    return int(memory)


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that tensors made in `run` held at one time. What kernels allocate inside is not seen."""
    with _Live() as live:
        run()
    return live.most


def _counts(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided


class _Live(TorchDispatchMode):
    """Counts each new storage until the last tensor on it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._users: dict[int, list[int]] = {}  # by address: tensors and bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if _counts(x)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            # A view of what was there before, such as a transposed weight, is nothing new.
            if _counts(x) and ((key := x.untyped_storage().data_ptr()) in self._users or key not in given):
                self._count(x)
        return out

    def _count(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not size:
            return
        users = self._users.setdefault(key, [0, size])
        if not users[0]:
            self._now += size
            self.most = max(self.most, self._now)
        users[0] += 1
        weakref.finalize(x, self._gone, key)

    def _gone(self, key: int) -> None:
        users = self._users.get(key)
        if users is None:
            return
        users[0] -= 1
        if not users[0]:
            self._now -= users[1]
            del self._users[key]
