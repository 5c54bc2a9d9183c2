"""Which linear layer of a model is its output head, where nobody has said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import nn

from icm.optim.roles import is_linear, is_lookup, sizes, weight

_LAYERS = (nn.MultiheadAttention, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)


def find_heads(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Output heads among the modules, by name, and why each is one.

    Linear layers with as many outputs as an embedding has rows, if no name in their path is a number; where there are
    none, the very last layer if that is linear. Never one in an nn.ModuleList, nor one with a twin of equal shape in
    a name that differs by numbers only (repeated blocks), nor a part of nn.MultiheadAttention, nor the only layer.
    Where a linear layer is tied to an embedding, that is the head: an embedding, and no other is looked for.
    """
    tables = {name: weight(module) for name, module in modules.items() if is_lookup(module)}
    parts = {
        child for module in modules.values() if isinstance(module, nn.MultiheadAttention) for child in module.children()
    }
    layers = {
        name: module
        for name, module in modules.items()
        if module not in parts and (is_linear(module) or isinstance(module, _LAYERS))
    }
    linear = {name: module for name, module in layers.items() if is_linear(module)}
    tied = any(weight(module) is table for module in linear.values() for table in tables.values())
    if tied or len(layers) + len(tables) < 2:
        return {}
    twins = Counter((_skeleton(name), sizes(module)) for name, module in linear.items())
    free = {
        name: sizes(module)[0]
        for name, module in linear.items()
        if twins[_skeleton(name), sizes(module)] == 1 and not _listed(name, modules)
    }
    found = {}
    for name, outputs in free.items():
        table = next((table for table, rows in tables.items() if rows.shape[0] == outputs), None)
        if table is not None and _skeleton(name) == name:
            found[name] = f"inferred: outputs = {outputs} = rows of {table}.weight"
    last = next(reversed(layers), "")
    if not found and last in free:
        found[last] = "inferred: the last layer"
    return found


def _skeleton(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _listed(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module lies in an nn.ModuleList, at any depth."""
    parts = name.split(".")
    return any(isinstance(modules.get(".".join(parts[:depth])), nn.ModuleList) for depth in range(len(parts)))
