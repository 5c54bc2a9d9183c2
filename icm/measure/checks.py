"""What cannot be measured, found before time goes into it: options of a wrong kind, layers that a pass does not call
once on every example, losses of one example that depend on its batch."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, get_args

import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.measure.displacement import Base, Network
from icm.measure.layers import Layer
from icm.measure.row_passes import only
from icm.measure.sweep import Positions

_DTYPES = {str(x).removeprefix("torch."): x for x in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
ROUNDINGS = 256.0  # that one example's loss terms may lose between its batch and itself alone
_PART = 0.02  # of them, likewise: what no rounding does


def check_options(
    model: Any,
    loss: Any,
    data: Any,
    directions: Any,
    positions: Any,
    tokens: Any,
    seed: Any,
    dtype: Any,
    random_seed: Any,
) -> torch.dtype | None:
    """Raise InputError for what `curvature` cannot be called with, and return the dtype."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if not callable(loss):
        raise InputError(f"loss={loss!r} cannot be called; give a function loss(model, batch) that returns loss terms")
    if isinstance(data, Mapping | str | bytes | Tensor):
        raise InputError(f"data is one {type(data).__name__}; give an iterable of batches, [batch] for a single one")
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise InputError(f"data={data!r} holds no batches; give an iterable of what loss(model, batch) takes")
    for name, value, least in (
        ("directions", directions, 1),
        ("tokens", 1 if tokens is None else tokens, 1),
        ("seed", seed, None),
        ("random_seed", 0 if random_seed is None else random_seed, None),
    ):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or (least is not None and value < least):
            least_ = "" if least is None else f", at least {least}"
            or_none = {"tokens": ", or None for all", "random_seed": ", or None"}.get(name, "")
            raise InputError(f"{name}={value!r} must be a whole number{least_}{or_none}")
    if positions not in get_args(Positions):
        raise InputError(f"positions={positions!r} must be 'one' or 'all'")
    if dtype is None:
        return None
    found = _DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise InputError(f"dtype={dtype!r} is no precision to compute in; give one of {', '.join(_DTYPES)}")
    return found


def check_calls(network: Network, chosen: Sequence[Layer], batch: Any, layers: str | Sequence[str]) -> None:
    """Raise InputError for layers that a pass does not call once, or not on rows of every example, with the remedy."""
    rows: dict[nn.Module, list[int]] = {layer.module: [] for layer in chosen}

    def note(module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
        rows[module].append(math.prod(y.shape[:-1]))
        return y

    with torch.no_grad(), ExitStack() as stack:
        for layer in {layer.module: layer for layer in chosen}.values():
            stack.enter_context(network.through(layer, note))
        terms = network.terms(batch)
    B = len(terms) if terms.ndim > 1 else 1
    bad: dict[str, str] = {}
    for layer in chosen:
        calls = rows[layer.module]
        if len(calls) != 1:
            times = f"{len(calls)} times in a forward pass" if calls else "in no forward pass of the loss"
            bad[layer.name] = f"is called {times}, and one output is displaced"
        elif B and calls[0] % B:
            bad[layer.name] = (
                f"has {calls[0]} rows of outputs for {B} examples: where each sees a number of tokens of its own, as "
                "experts do, rows belong to no example"
            )
    if bad:
        name, why = next(iter(bad.items()))
        more = f" (and so for {len(bad) - 1} more)" if len(bad) > 1 else ""
        wanted = [*([layers] if isinstance(layers, str) else layers), *(f"!{x}" for x in bad)]
        remedy = f"leave it out: layers={wanted}" if len(bad) < len(chosen) else "name layers that see every token once"
        raise InputError(f"layers: {name} {why}{more}; {remedy}")


def check_alone(network: Network, layer: Layer, batch: Any, base: Base) -> None:
    """Raise InputError where an example by itself has other loss terms than in its batch, as with a mean over what the
    batch has of labels. Nothing is known where the model takes no batch of one, or draws at random."""
    B, L = base.terms.shape
    if B < 2 or network.seed is not None:
        return
    wanted = base.terms.double()
    b = int(wanted.norm(dim=-1).argmax())
    wanted, rows = wanted[b], []

    def note(module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
        rows.append(math.prod(y.shape[:-1]))
        return y

    try:
        with torch.no_grad(), network.through(layer, note):
            alone = network.terms(only(batch, b, B)).double().flatten()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a model or a loss makes of one example
        return
    if rows != [base.y.shape[1]]:  # the batch is not cut into examples
        return
    eps = max(base.eps, 2.0**-11 if base.y.is_cuda else 0.0)  # of TF32
    if len(alone) == L:
        factor = float(alone @ wanted / wanted.square().sum().clamp(min=1e-300))
        off, size = float((alone - wanted).norm()), float(wanted.norm())
        scaled = (
            L > 3 and abs(factor - 1) > 0.2 and float((alone - factor * wanted).norm()) < 0.05 * float(alone.norm())
        )
        if off <= _PART * size + ROUNDINGS * eps and not scaled:
            return
        said = f"its terms are {factor:.3g} times as large" if scaled else f"its terms are off by {off:.3g}"
    else:
        said = f"it has {len(alone)} terms, and {L} in its batch"
    raise InputError(
        f"the loss of an example depends on the batch that it is in: by itself {said}. Return the terms of every "
        "example and token as they are (reduction='none'), neither divided by what the batch holds nor without those "
        f"that are ignored. Tensors in the batch whose first axis is {B} are taken for one row per example"
    )
