"""Torch models by the names of their parts: without wrappers, by pattern, and what is nearest to a name that is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from torch import nn

_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(\.|$)")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's and data-parallel wrappers."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def plain(name: str) -> str:
    """A module's name, or a parameter's, without what wrappers put in between."""
    return _WRAPPERS.sub("", name).rstrip(".")


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by every name it has, without the names of wrappers; under one name the innermost."""
    return {plain(name): module for name, module in model.named_modules(remove_duplicate=False)}


def nearest(pattern: str, names: Iterable[str], shown: int = 3) -> list[str]:
    """The names most like the pattern, by any tail of them; of names that differ by numbers only, the first."""
    wanted = pattern.replace("*", "").strip(".")

    def likeness(name: str) -> float:
        parts = name.split(".")
        tails = (".".join(parts[start:]) for start in range(len(parts)))
        return max(SequenceMatcher(None, wanted, tail).ratio() for tail in tails)

    best: dict[str, str] = {}
    for name in sorted(names):
        best.setdefault(re.sub(r"\d+", "#", name), name)
    return sorted(best.values(), key=likeness, reverse=True)[:shown]
