"""What an optimizer remembers, as plain numbers and tensors for a state dict, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.errors import InputError
from icm.maps.compiled import Compiled
from icm.maps.composition import Composition
from icm.maps.error import Error
from icm.maps.scalar import Curve, Level, ScalarMap
from icm.optim.direction import Memories, Memory
from icm.optim.options import OWN, curvature_at
from icm.optim.table import WIDTH

_MUON = {None: "original", "original": "original", "match_rms_adamw": "match-rms-adamw"}
_FOREIGN = ("ns_coefficients", "ns_steps", "adjust_lr_fn", "eps")  # of torch.optim.Muon


def written(memory: Memory | None) -> dict[str, Any] | None:
    """A memory as numbers, text and tensors, for `torch.load(weights_only=True)`; H as its text."""
    if memory is None:
        return None
    text = str(memory.H) if _has_text(memory.H) else None
    kept: dict[str, Any] = {
        "H": text,
        "size": memory.size,
        "length": memory.length,
        "age": memory.age,
        "probe": memory.probe,
    }
    map = memory.map
    if map is None:
        return kept
    phi, function = map.phi, map.phi.function
    if isinstance(function, Level):
        curve: Any = function.radius
    elif isinstance(function, Curve):
        curve = torch.stack([function.x, function.y])
    else:
        raise InputError(f"{phi!r} is no φ of a solve, which a state dict could hold")
    kept["map"] = {
        "factors": [list(factor) for factor in map.composition.factors],
        "phi": curve,
        "top": phi.top,
        "domain": map.domain,
        "length": map.length,
        "precision": map.precision,
        "error": [map.error.fit, map.error.spectrum, map.error.rounding],
        "route": map.route,
    }
    return kept


def read(kept: dict[str, Any] | None, H: Curvature) -> Memory | None:
    """The memory that `written` wrote; H is what it was solved for where that has no text."""
    if kept is None:
        return None
    H = H if kept.get("H") is None else curvature_at(kept["H"], 0)
    map, made = kept.get("map"), None
    if map is not None:
        curve = map["phi"]
        if isinstance(curve, Tensor):
            phi = ScalarMap(Curve(*curve.cpu().unbind()), map["top"], "absolute", "φ of a solution")
        else:
            phi = ScalarMap(Level(curve), map["top"], "absolute", f"{curve:.6g}·sign", jumps=True)
        composition = Composition(tuple(tuple(factor) for factor in map["factors"]))
        error = Error(*map["error"])
        made = Compiled(composition, phi, map["domain"], map["length"], map["precision"], error, map["route"])
    return Memory(H, made, kept["size"], kept["length"], kept["age"], kept["probe"])


def plain_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group without what the model decides, its curvature as text, or left out where it has none."""
    kept = {name: value for name, value in group.items() if name not in OWN}
    choice = kept.get("curvature")
    if isinstance(choice, Curvature) and not _has_text(choice):
        choice = None
    if isinstance(choice, (Curvature, str)):
        kept["curvature"] = str(choice)
    else:
        kept.pop("curvature", None)
    return kept


def filled(given: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """A loaded group, perhaps of torch.optim.Muon, with what it lacks, such as its layout, from the optimizer's own."""
    group = dict(given)
    if "ns_coefficients" in group:
        group["scaling"] = _MUON.get(group["adjust_lr_fn"], mine["scaling"])
        for name in _FOREIGN:
            group.pop(name, None)
    return {name: value for name, value in mine.items() if name not in ("params", *group)} | group


def check(entry: Mapping[str, Any], p: Tensor) -> None:
    """Raise InputError for the state of a parameter of another shape."""
    for name in ("momentum_buffer", "exp_avg"):
        if name in entry and entry[name].shape != p.shape:
            raise InputError(
                f"the state's {name} has shape {tuple(entry[name].shape)}, the parameter in its place "
                f"{tuple(p.shape)}: load the state of the same parameters in the same order"
            )


def placed(entry: Mapping[str, Any], p: Tensor, group: Mapping[str, Any], shared: dict[int, Tensor]) -> dict[str, Any]:
    """The state of one parameter on its device, in the number types it was kept in. `shared`: roots placed so far, by
    their address, which parameters with one moment share. A memory of another layout is left out: it is solved anew."""
    state: dict[str, Any] = {}
    for name, value in entry.items():
        if name == "memory":
            H = curvature_at(group["curvature"], max(group["step"] - 1, 0))
            counts = [count for count, _, _ in group["layout"].shapes(p.shape)]
            if [len(part) for part in value] == counts:
                state[name] = Memories([[read(one, H) for one in part] for part in value])
        elif name == "root":
            address = value.data_ptr()
            if address not in shared:
                shared[address] = value.detach().to(p.device, copy=True)
            state[name] = shared[address]
        elif isinstance(value, Tensor) and name != "step":
            state[name] = value.detach().to(p.device, copy=True)
        else:
            state[name] = value.clone() if isinstance(value, Tensor) else value
    if "momentum_buffer" in state:
        state["momentum_buffer"] = state["momentum_buffer"].to(torch.promote_types(p.dtype, torch.float32))
    return state


def settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each way in which groups are solved, in lines of the table's width."""
    names = (
        "curvature",
        "units",
        "scaling",
        "backend",
        "momentum",
        "nesterov",
        "weight_decay",
        "cautious",
        "refresh",
        "tol",
        "products",
        "precision",
    )
    lines: dict[str, list[str]] = {}
    for i, group in enumerate(groups):
        if group["algorithm"] == "icm":
            text = ", ".join(f"{name}={group[name]}" for name in names)
        else:
            text = f"AdamW, betas={group['betas']}, eps={group['eps']:g}, weight_decay={group['weight_decay']:g}"
        lines.setdefault(text, []).append(str(group.get("role", i)))
    said = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in lines.items()]
    return [line for one in said for line in wrap(one, WIDTH, subsequent_indent="    ", break_on_hyphens=False)]


def _has_text(H: Curvature) -> bool:
    try:
        return curvature_at(str(H), 0) == H
    except ValueError:
        return False
