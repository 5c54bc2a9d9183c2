"""A batch, whatever it is nested in, with other tensors."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from icm.errors import InputError


def with_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with change(x) in place of every tensor x in its mappings, dataclasses, lists and tuples: the batch
    itself where that changes none, else copies of the containers that hold it, of their types and with their
    attributes. Nothing is written into the batch.

    Raises InputError for a container of which no such copy can be made.
    """
    if isinstance(batch, Tensor):
        return change(batch)
    old = _items(batch)
    new = {key: with_tensors(x, change) for key, x in old.items()}
    other = {key: x for key, x in new.items() if x is not old[key]}
    if not other:
        return batch
    try:
        return _copied(batch, old, other)
    except Exception as error:  # whatever a container makes of being copied
        raise InputError(
            f"a batch holds a {type(batch).__name__} that cannot be copied with other tensors ({error}); give a dict, "
            "a list, a tuple or a dataclass"
        ) from error


def _items(batch: Any) -> dict[Any, Any]:
    if isinstance(batch, Mapping):
        return {key: batch[key] for key in batch}
    if isinstance(batch, list | tuple):
        return dict(enumerate(batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {x.name: getattr(batch, x.name) for x in fields(batch) if hasattr(batch, x.name)}
    return {}


def _copied(batch: Any, old: Mapping[Any, Any], other: Mapping[Any, Any]) -> Any:
    if isinstance(batch, tuple):
        items = [other.get(i, x) for i, x in old.items()]
        return batch._make(items) if hasattr(batch, "_make") else type(batch)(items)  # type: ignore[attr-defined]
    if isinstance(batch, Mapping) and not hasattr(batch, "__setitem__"):
        return type(batch)({**old, **other})  # type: ignore[call-arg]
    copied = copy.copy(batch)
    put: Any = operator.setitem if isinstance(batch, Mapping | list) else object.__setattr__  # into frozen ones too
    for key, x in other.items():
        put(copied, key, x)
    if isinstance(batch, Mapping) and any(batch[key] is x for key, x in other.items()):
        for key in other:
            put(copied, key, old[key])
        raise TypeError("its copy shares its items")
    return copied
