"""The layers whose outputs are displaced: found by name, whole or in declared parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from icm.errors import InputError
from icm.measure.inputs import WITHOUT_CALLS, is_conv1d
from icm.networks import named_modules, nearest

Parts = int | Sequence[str] | Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear map u → W u + b inside a model, W (m, n): the outputs start to start + m of `module`."""

    name: str
    module: nn.Module
    start: int
    m: int
    n: int


def find_layers(
    model: nn.Module, patterns: str | Sequence[str], parts: Mapping[str, Parts] | None = None
) -> list[Layer]:
    """The linear layers that a pattern matches, in the model's order: nn.Linear and classes named Conv1D that store
    (inputs, outputs), their weights plain or parametrized (torch.nn.utils.parametrizations).

    patterns: names as of model.named_modules(), with * ? [ ]; one that begins with ! takes away. parts: for a pattern
    of fused layers, how their outputs divide: into so many equal parts, called 0, 1, …; into equal parts of these
    names; or into parts of these names and sizes. Parts are matched by "layer.part" as well as by their layer's name.

    Raises InputError for a pattern that matches no linear layer, with the nearest names, for no pattern, for parts that
    do not add up, and for layers whose weight is used elsewhere too: displacing one use says nothing of moving the
    weight.
    """
    wanted = _patterns(patterns)
    modules = named_modules(model)
    linear = {name: shape for name, module in modules.items() if (shape := _shape(name, module)) is not None}
    if not linear:
        hooked = [why for module in modules.values() if (why := _hooked(module))]
        raise InputError(
            f"{type(model).__name__} has no linear layer (nn.Linear or Conv1D) whose outputs to displace"
            + (f": {hooked[0]}" if hooked else "")
        )
    cut = _cut(linear, parts or {})
    layers: dict[str, Layer] = {}
    for name, (m, n) in linear.items():
        start = 0
        for part, size in cut.get(name, {"": m}).items():
            full = f"{name}.{part}" if part else name
            layers[full] = Layer(full, modules[name], start, size, n)
            start += size
    chosen: set[str] = set()
    for pattern in wanted:
        bare = pattern.removeprefix("!")
        found = {
            full
            for full, layer in layers.items()
            if fnmatchcase(full, bare) or (full not in linear and fnmatchcase(full.rpartition(".")[0], bare))
        }
        if not found:
            raise InputError(_unmatched(bare, modules, layers))
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    if not chosen:
        raise InputError(f"layers={patterns!r} takes away every layer that it names; name one to measure")
    picked = [layer for full, layer in layers.items() if full in chosen]
    _refuse_tied(modules, picked, wanted)
    seen: set[tuple[int, int]] = set()  # a module with two names is measured once
    return [x for x in picked if not ((key := (id(x.module), x.start)) in seen or seen.add(key))]


def _patterns(patterns: Any) -> list[str]:
    wanted = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(wanted, Sequence | set | frozenset) or not all(isinstance(x, str) for x in wanted):
        raise InputError(
            f"layers={patterns!r} must be a name or pattern of layers, such as '*.mlp.*', or a list of them"
        )
    if not wanted:
        raise InputError(f"layers={patterns!r} names no layer to measure; give a name or a pattern, '*' for all")
    return list(wanted)


def _shape(name: str, module: nn.Module) -> tuple[int, int] | None:
    """(m, n) of a linear layer, None for other modules."""
    weight: Any = module._parameters.get("weight")
    if weight is None and is_parametrized(module, "weight"):
        with torch.no_grad():
            weight = module.weight
    if weight is None or isinstance(weight, UninitializedParameter) or weight.ndim != 2:
        return None
    if isinstance(module, WITHOUT_CALLS):
        return None
    if isinstance(module, nn.Linear):
        return weight.shape[0], weight.shape[1]
    return (weight.shape[1], weight.shape[0]) if is_conv1d(module) else None


def _cut(linear: Mapping[str, tuple[int, int]], parts: Mapping[str, Parts]) -> dict[str, dict[str, int]]:
    """For each layer that has parts, their names and sizes in order."""
    found: dict[str, dict[str, int]] = {}
    for pattern, given in parts.items():
        names = [name for name in linear if fnmatchcase(name, pattern)]
        if not names:
            raise InputError(
                f"parts: {pattern!r} matches no linear layer; the nearest are {', '.join(nearest(pattern, linear))}"
            )
        for name in names:
            m = linear[name][0]
            if isinstance(given, Mapping):
                sizes = {str(part): int(size) for part, size in given.items()}
            else:
                labels = [str(i) for i in range(given)] if isinstance(given, int) else [str(x) for x in given]
                if not labels or m % len(labels):
                    raise InputError(
                        f"parts: the {m} outputs of {name} do not divide into {len(labels)} equal parts; "
                        "give {name: size, …}"
                    )
                sizes = dict.fromkeys(labels, m // len(labels))
            if sum(sizes.values()) != m or min(sizes.values(), default=0) < 1 or not all(sizes):
                raise InputError(f"parts: {sizes} are no parts of the {m} outputs of {name}; their sizes must add up")
            found[name] = sizes
    return found


def _unmatched(pattern: str, modules: Mapping[str, nn.Module], layers: Mapping[str, Layer]) -> str:
    if pattern in modules:
        what = modules[pattern]
        kind = type(what).__name__
        if why := _hooked(what):
            return f"layers: {pattern!r} cannot be measured: {why}"
        within = [name for name in layers if name.startswith(f"{pattern}.")]
        if within:
            return f"layers: {pattern!r} is a {kind}, no linear layer; those in it are matched by {pattern + '.*'!r}"
        why = (
            "its weights are used without calling a module, so its outputs cannot be displaced"
            if isinstance(what, (nn.MultiheadAttention, *WITHOUT_CALLS))
            else "only nn.Linear and Conv1D are measured"
        )
        return f"layers: {pattern!r} is a {kind}: {why}; the nearest layers are {', '.join(nearest(pattern, layers))}"
    return f"layers: {pattern!r} matches no linear layer; the nearest are {', '.join(nearest(pattern, layers))}"


def _hooked(module: nn.Module) -> str:
    """Why a linear layer whose weight is written before each call is none, or nothing."""
    if not isinstance(module, nn.Linear) or "weight" in module._parameters or is_parametrized(module, "weight"):
        return ""
    if not isinstance(getattr(module, "weight", None), Tensor):
        return ""
    return (
        "its weight is written anew in every pass, as torch.nn.utils.weight_norm and spectral_norm do; use those of "
        "torch.nn.utils.parametrizations, or take it off a copy of the model (torch.nn.utils.remove_weight_norm)"
    )


def _own(module: nn.Module) -> list[nn.Parameter]:
    """What the weight is made of: itself, or the parameters of its parametrization."""
    weight = module._parameters.get("weight")
    return [weight] if weight is not None else list(module.parametrizations.weight.parameters())  # type: ignore[union-attr, operator]


def _refuse_tied(modules: Mapping[str, nn.Module], layers: Sequence[Layer], wanted: Sequence[str]) -> None:
    owners: dict[int, list[str]] = {}
    held: set[tuple[int, int]] = set()
    for name, module in modules.items():
        for key, parameter in module._parameters.items():
            if parameter is not None and (id(module), id(parameter)) not in held:
                held.add((id(module), id(parameter)))
                owners.setdefault(id(parameter), []).append(f"{name}.{key}")
    places = {layer.name: max((owners[id(p)] for p in _own(layer.module)), key=len) for layer in layers}
    tied = [layer for layer in layers if len(places[layer.name]) > 1]
    if not tied:
        return
    first, named = tied[0], places[tied[0].name]
    if len(tied) < len(layers):
        remedy = f"leave it out: layers={[*wanted, *(f'!{layer.name}' for layer in tied)]}"
    else:
        module = next(name for name, module in modules.items() if module is first.module)
        remedy = (
            "name other layers, or measure a copy of the model that holds it twice: "
            f"copy.get_submodule({module!r}).weight = torch.nn.Parameter(copy.get_submodule({module!r}).weight.clone())"
        )
    raise InputError(
        f"layers: the weight of {first.name} is tied ({', '.join(named)}): it acts in {len(named)} places, and "
        f"displacing one output says nothing of moving it; {remedy}"
    )
