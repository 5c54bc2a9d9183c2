"""The door: what users hand in (tensors, NumPy arrays, nested lists, numbers) becomes a checked real tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from icm.errors import DtypeError, InputError


def to_tensor(x: Any, name: str) -> Tensor:
    """`x` as a real floating tensor: float tensors as they are, integers, numbers and lists as float64.

    Raises DtypeError for complex, boolean or non-numeric input, InputError for ragged lists.
    """
    if not isinstance(x, Tensor):
        try:
            # Python numbers and lists carry no dtype of their own; NumPy arrays keep theirs.
            x = torch.as_tensor(x) if hasattr(x, "dtype") else torch.as_tensor(x, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, TypeError):
                raise DtypeError(f"{name} must hold real numbers: {error}") from error
            raise InputError(f"{name} is not a rectangular array of numbers: {error}") from error
    if x.is_complex():
        raise DtypeError(f"{name} is complex ({x.dtype}); the model is real: pass its real part if that is meant")
    if x.dtype == torch.bool:
        raise DtypeError(f"{name} is boolean; convert it to numbers first if that is meant")
    return x if x.is_floating_point() else x.to(torch.float64)


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
