"""What a step looks at before it changes anything."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from icm.errors import DtypeError, InputError

Nonfinite = Literal["skip", "raise", "ignore"]

_CALLER = 5  # stack frames from `report` to the line that called `step`, torch's two wrappers between them


def refuse(parameter: Tensor, gradient: Tensor) -> None:
    """Raise DtypeError for complex numbers, InputError for a sparse gradient."""
    shape = tuple(parameter.shape)
    if parameter.is_complex() or gradient.is_complex():
        raise DtypeError(f"a parameter of shape {shape} is complex; split it into real and imaginary parts")
    if gradient.layout != torch.strided:
        raise InputError(
            f"the gradient of a parameter of shape {shape} is sparse: build its layer with sparse=False, or give it to "
            "torch.optim.SparseAdam"
        )


def finite(gradients: Sequence[Tensor]) -> bool:
    """Whether no entry of any of them is NaN or infinite. Waits for a GPU."""
    sums: dict[torch.device, list[Tensor]] = {}
    for one in gradients:
        sums.setdefault(one.device, []).append(one.sum(dtype=torch.promote_types(one.dtype, torch.float32)))
    if all(bool(torch.isfinite(torch.stack([x.double() for x in each])).all()) for each in sums.values()):
        return True
    return all(bool(torch.isfinite(one).all()) for one in gradients)  # a sum may overflow where no entry does


def report(what: Nonfinite) -> None:
    """Say that a step was left out because of NaN or infinite gradients."""
    message = "a gradient has NaN or infinite entries"
    if what == "raise":
        raise InputError(f"{message}: nothing was changed; nonfinite='skip' leaves such steps out with a warning")
    warnings.warn(f"{message}: this step is left out, parameters and state stay as they were", RuntimeWarning, _CALLER)
