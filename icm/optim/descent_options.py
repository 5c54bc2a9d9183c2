"""The options of a group that is trained in a norm: checked once, kept in state dicts, and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, get_args

from torch import Tensor

from icm.errors import InputError
from icm.norms import Norm
from icm.norms.modular import Combine
from icm.norms.names import parse
from icm.optim.descent import Choice, norm_at
from icm.optim.escalator import Escalator
from icm.optim.options import OWN
from icm.optim.table import WIDTH
from icm.optim.tuned import Tuned

_NUMBERS = (
    ("weight_decay", 0.0, math.inf),
    ("momentum", 0.0, 1.0),
    ("eps", 0.0, math.inf),
    ("weight", math.ulp(0.0), math.inf),
    ("radius", math.ulp(0.0), math.inf),
)


def check(group: Mapping[str, Any], names: Sequence[str], combine: Combine, escalator: Escalator | None) -> None:
    """Raise InputError for a group that cannot be trained, by naming the option or the parameter and the remedy."""
    if combine not in get_args(Combine):
        raise InputError(f"combine={combine!r}: choose one of {', '.join(map(repr, get_args(Combine)))}")
    for name, least, below in _NUMBERS:
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
            bounds = f"{'≥ 0' if least == 0 else '> 0'}{f' and < {below:g}' if below < math.inf else ''}"
            raise InputError(f"{name}={value!r}: a number {bounds}")
    rate = group["lr"]
    if isinstance(rate, Tensor) and rate.numel() != 1:
        raise InputError(f"lr is a tensor of {rate.numel()} numbers: it holds one")
    if not isinstance(rate, Tensor) and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
        raise InputError(f"lr={rate!r}: a number ≥ 0, or a tensor that holds one")
    for name, choices in (
        ("algorithm", ("norm", "adamw")),
        ("mode", ("unconstrained", "constrained")),
        ("length", ("unit", "dual")),
    ):
        if group[name] not in choices:
            raise InputError(f"{name}={group[name]!r}: choose {' or '.join(map(repr, choices))}")
    if group["algorithm"] == "adamw":
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise InputError(f"betas={group['betas']!r}: two numbers ≥ 0 and < 1, AdamW's decays")
        return
    constrained, dual = group["mode"] == "constrained", group["length"] == "dual"
    if constrained and (group["weight_decay"] or group["cautious"] or group["normalize"] or dual):
        raise InputError(
            "mode='constrained' shrinks by lr and steps by lr · radius, which is what keeps weights in the ball: "
            "leave weight_decay at 0, cautious and normalize False, and length='unit'"
        )
    if constrained and not isinstance(rate, Tensor) and rate > 1:
        raise InputError(f"lr={rate!r}: a constrained step goes the share lr of the way to its end, at most 1")
    if group["normalize"] and group["weight_decay"]:
        raise InputError(
            f"weight_decay={group['weight_decay']!r}: with normalize the sizes of weights are fixed: leave it at 0"
        )
    norm = norm_at(group["norm"], 0)
    if isinstance(norm, Tuned) and (
        constrained or dual or group["normalize"] or combine != "max" or escalator is not None
    ):
        raise InputError(
            "Tuned steps have a length of their own: take mode='unconstrained', length='unit', combine='max', and "
            "neither normalize nor an escalator"
        )
    for name, parameter in zip(names, group["params"], strict=True):
        group["layout"].check(name, parameter.shape)


def plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group without what the model decides, its norm as text, or left out where it has none."""
    kept = {name: value for name, value in group.items() if name not in OWN}
    text = _text(kept.pop("norm"))
    return kept if text is None else kept | {"norm": text}


def described(group: Mapping[str, Any]) -> dict[str, Any]:
    """The group as `icm.optim.table` shows it, its norm with its weight before the reasons."""
    if group["algorithm"] == "adamw":
        return dict(group)
    reasons = group.get("reasons") or [""] * len(group["params"])
    weight = "" if group["weight"] == 1 else f"{group['weight']:g} · "
    how = f"{weight}{_shown(group['norm'])}"
    return dict(group) | {"reasons": tuple(f"{how}: {reason}" if reason else how for reason in reasons)}


def settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each way in which groups step, in lines of the table's width."""
    lines: dict[str, list[str]] = {}
    for i, group in enumerate(groups):
        names = ["mode", "length", "momentum", "nesterov", "weight_decay", "cautious", "normalize"]
        if group["mode"] == "constrained" or group["normalize"]:
            names.append("radius")
        text = ", ".join(f"{name}={group[name]}" for name in names)
        if group["algorithm"] == "adamw":
            text = f"AdamW, betas={group['betas']}, eps={group['eps']:g}, weight_decay={group['weight_decay']:g}"
        lines.setdefault(text, []).append(str(group.get("role", i)))
    said = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in lines.items()]
    return [line for one in said for line in wrap(one, WIDTH, subsequent_indent="    ", break_on_hyphens=False)]


def _shown(choice: Choice) -> str:
    if isinstance(choice, Norm | Tuned | str):
        return str(choice)
    return getattr(choice, "__name__", "a function of the step")


def _text(choice: Choice) -> str | None:
    """What `icm.norms.parse` makes this norm of."""
    if isinstance(choice, str):
        return choice
    try:
        return str(choice) if isinstance(choice, Norm) and parse(str(choice)) == choice else None
    except InputError:
        return None
