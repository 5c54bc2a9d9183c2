"""The door: what users hand in (tensors, NumPy arrays, nested lists, numbers) becomes a checked real tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icm.errors import DtypeError, InputError


def to_tensor(x: Any, name: str) -> Tensor:
    """`x` as a real floating tensor: float tensors as they are, integers, numbers and lists as float64; detached from
    any autograd graph.

    Raises DtypeError for complex, boolean or non-numeric input, InputError for ragged lists.
    """
    if not isinstance(x, Tensor):
        try:
            array = np.asarray(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} is not a rectangular array of numbers: {error}") from error
        if array.dtype.kind not in "fiubc":
            raise DtypeError(f"{name} must hold real numbers, not {array.dtype} entries")
        known = array.dtype in (np.float16, np.float32, np.float64) or array.dtype.kind in "bc"
        # A copy: torch knows no other byte orders, strides or widths, and warns about read-only memory.
        x = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=") if known else np.float64, order="C"))
    x = x.detach()
    if x.layout != torch.strided:
        raise DtypeError(f"{name} is a {x.layout} tensor; pass {name}.to_dense()")
    if x.device.type == "meta":
        raise InputError(f"{name} is a meta tensor, a shape without numbers; move it to a device that holds them")
    if x.is_complex():
        raise DtypeError(f"{name} is complex ({x.dtype}); the model is real: pass its real part if that is meant")
    if x.dtype == torch.bool:
        raise DtypeError(f"{name} is boolean; convert it to numbers first if that is meant")
    if not x.is_floating_point():
        return x.to(torch.float64)
    return x.float() if x.itemsize == 1 else x  # 8-bit floats store, they do not compute


def require_finite(x: Tensor, name: str) -> None:
    """Raise InputError naming the first non-finite entry of `x` and how many there are."""
    low, high = torch.aminmax(x)  # NaN propagates, and no mask of x's size is built for good input
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = ~torch.isfinite(x)
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"{name} has {int(bad.sum())} non-finite entries, the first {float(x[where])} at index {where}; "
            "mask or clip them before solving"
        )


def require_nonempty(x: Tensor, name: str) -> None:
    """Raise InputError if `x` has no entries."""
    if x.numel() == 0:
        raise InputError(f"{name} has shape {tuple(x.shape)} and so no entries; every dimension must be at least 1")


def nest(items: Iterator[Any], shape: tuple[int, ...]) -> Any:
    """The next item, or nested tuples of the next ones in that shape."""
    if not shape:
        return next(items)
    return tuple(nest(items, shape[1:]) for _ in range(shape[0]))
