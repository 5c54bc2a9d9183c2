"""What surrounds a pass: the random state it draws from, the kernels it may use, and what is said where memory ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from icm.errors import InputError

_NO_MEMORY = re.compile(r"out of memory|allocate memory|not enough memory|unable to allocate|alloc_failed", re.I)


class OutOfMemory(InputError, torch.OutOfMemoryError):
    """Passes that there is no memory for, on any device."""


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused kernels of torch's transformer layers in eval mode, which torch.func cannot run, and which
    compute padding otherwise than passes with a gradient do."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Raise OutOfMemory for what any device says where there is none left."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not is_no_memory(error):
            raise
        raise OutOfMemory(
            f"no memory is left for {what} ({first_line(error)}); give a smaller memory=, or smaller batches"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, at most 200 letters of it; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_no_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: torch has a class for it on a GPU, and only words on a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY.search(str(error)) is not None


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """With this state of torch's generators, which get theirs back."""
    with torch.random.fork_rng(_gpus()):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _gpus() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(i) for i in _gpus())]
