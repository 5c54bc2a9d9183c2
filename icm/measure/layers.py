"""The layers whose outputs are displaced: found by name, whole or in declared parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import UninitializedParameter

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
    (inputs, outputs).

    patterns: names as of model.named_modules(), with * ? [ ]; one that begins with ! takes away. parts: for a pattern
    of fused layers, how their outputs divide: into so many equal parts, called 0, 1, …; into equal parts of these
    names; or into parts of these names and sizes. Parts are matched by "layer.part" as well as by their layer's name.

    Raises InputError for a pattern that matches no linear layer, with the nearest names, for parts that do not add up,
    and for layers whose weight is used elsewhere too: displacing one use says nothing of moving the weight.
    """
    modules = named_modules(model)
    linear = {name: shape for name, module in modules.items() if (shape := _shape(name, module)) is not None}
    if not linear:
        raise InputError(f"{type(model).__name__} has no linear layer (nn.Linear or Conv1D) whose outputs to displace")
    cut = _cut(linear, parts or {})
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
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
    _refuse_tied(model, picked)
    seen: set[tuple[int, int]] = set()  # a module with two names is measured once
    return [x for x in picked if not ((key := (id(x.module), x.start)) in seen or seen.add(key))]


def _shape(name: str, module: nn.Module) -> tuple[int, int] | None:
    """(m, n) of a linear layer, None for other modules."""
    weight = module._parameters.get("weight")
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


def _refuse_tied(model: nn.Module, layers: Sequence[Layer]) -> None:
    owners: dict[int, list[str]] = {}
    held: set[tuple[int, int]] = set()
    for name, module in named_modules(model).items():
        for key, parameter in module._parameters.items():
            if parameter is not None and (id(module), id(parameter)) not in held:
                held.add((id(module), id(parameter)))
                owners.setdefault(id(parameter), []).append(f"{name}.{key}")
    for layer in layers:
        named = owners[id(layer.module._parameters["weight"])]
        if len(named) > 1:
            raise InputError(
                f"layers: the weight of {layer.name} is tied ({', '.join(named)}): it acts in {len(named)} places, and "
                f"displacing one output says nothing of moving it; leave it out with '!{layer.name}'"
            )
