"""The options of a parameter group, checked once, when it is added."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import Tensor

from icm.curvature import Curvature, as_curvature
from icm.errors import InputError
from icm.maps.polynomial import Precision
from icm.optim import scaling
from icm.optim.direction import Units
from icm.optim.layout import Layout

BACKENDS = ("products", "exact")
OWN = ("role", "layout", "reasons")  # of a group, set by `icm.optim.groups`; not part of a state dict

Choice = Curvature | str | Callable[[int], Curvature | str]


def check_group(group: Mapping[str, Any], names: list[str]) -> None:
    """Raise InputError for a group that cannot be trained, by naming the option or the parameter and the remedy."""
    for name, least, below in (
        ("weight_decay", 0.0, math.inf),
        ("momentum", 0.0, 1.0),
        ("eps", 0.0, math.inf),
        ("tol", 0.0, math.inf),
    ):
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
            raise InputError(f"{name}={value!r}: a number ≥ {least:g}{f' and < {below:g}' if below < math.inf else ''}")
    if group["tol"] == 0:
        raise InputError("tol=0: the error asked for at a refresh is a number > 0, such as 5e-2")
    rate = group["lr"]
    if isinstance(rate, Tensor) and rate.numel() != 1:
        raise InputError(f"lr is a tensor of {rate.numel()} numbers: it holds one")
    if not isinstance(rate, Tensor) and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
        raise InputError(f"lr={rate!r}: a number ≥ 0, or a tensor that holds one")
    if group["algorithm"] == "adamw":
        betas = group["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas={betas!r}: two numbers ≥ 0 and < 1, AdamW's decays")
        return
    if group["algorithm"] != "icm":
        raise InputError(f"algorithm={group['algorithm']!r}: a group is trained by 'icm' or by 'adamw'")
    scaling.check(group["scaling"])
    for name, choices in (("units", get_args(Units)), ("backend", BACKENDS), ("precision", get_args(Precision))):
        if group[name] not in choices:
            raise InputError(f"{name}={group[name]!r}: choose one of {', '.join(map(repr, choices))}")
    for name in ("refresh", "products"):
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise InputError(f"{name}={value!r}: an integer ≥ 1")
    if group["products"] < 9:
        raise InputError(f"products={group['products']}: allow 9 matrix products or more, three quintics")
    curvature_at(group["curvature"], 0)
    layout = group["layout"]
    if not isinstance(layout, Layout):
        raise InputError(f"layout={layout!r}: an icm.optim.Layout says how parameters are cut into matrices")
    for name, parameter in zip(names, group["params"], strict=True):
        if layout == Layout() and parameter.ndim != 2:
            raise InputError(
                f"{name} has shape {tuple(parameter.shape)} and is no matrix: sort the model with "
                "icm.optim.groups(model), or put it into a group with 'algorithm': 'adamw'"
            )
        layout.check(name, parameter.shape)


def curvature_at(choice: Choice, step: int) -> Curvature:
    """H of a group at a step (from 0): itself, its text, or what the function of the step gives."""
    given = choice(step) if callable(choice) and not isinstance(choice, Curvature) else choice
    return as_curvature(given)
