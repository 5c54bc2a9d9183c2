"""A model's parameters with every module that holds them, and the patterns by which users declare things of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy

from icm.errors import DtypeError, InputError
from icm.networks import nearest, plain

Patterns = str | Sequence[str]


class Holder(NamedTuple):
    """module.key is the parameter, `path` the module's name in the model."""

    path: str
    module: nn.Module
    key: str

    @property
    def name(self) -> str:
        return f"{self.path}.{self.key}" if self.path else self.key


@dataclass(frozen=True, eq=False)
class Owned:
    """A parameter and who holds it, more than one where it is tied; the first gives it its name."""

    parameter: nn.Parameter
    holders: tuple[Holder, ...]

    @property
    def name(self) -> str:
        return self.holders[0].name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape)

    @property
    def vector(self) -> bool:
        return sum(size > 1 for size in self.shape) <= 1

    def matches(self, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for holder in self.holders for name in (holder.name, holder.path))


def owned(model: nn.Module) -> list[Owned]:
    """Every parameter once, in the order of model.parameters().

    Raises InputError for lazy parameters and a model without any, DtypeError for complex ones.
    """
    holders: dict[int, list[Holder]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            holder = Holder(plain(path), module, key)
            if is_lazy(parameter):
                raise InputError(f"{holder.name} has no shape yet; run one batch through the model before sorting it")
            if parameter.is_complex():
                raise DtypeError(
                    f"{holder.name} is complex ({parameter.dtype}); the updates are real: hold it as two real ones"
                )
            parameters[id(parameter)] = parameter
            holders.setdefault(id(parameter), []).append(holder)
    if not parameters:
        raise InputError(f"{type(model).__name__} has no parameters, so there is nothing to train")
    return [Owned(parameter, tuple(holders[key])) for key, parameter in parameters.items()]


def declared(
    option: str, given: Patterns | Mapping[str, Any] | None, parameters: Sequence[Owned], vectors: bool = False
) -> dict[Owned, tuple[str, Any]]:
    """Which parameters an option's patterns match: pattern and value (None without a mapping) of each.

    Without `vectors`, parameters of at most one dimension above 1 are passed over. Raises InputError for a pattern that
    matches nothing and for two that declare different things of one parameter.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = (given,)
    values = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given)
    eligible = [each for each in parameters if vectors or not each.vector]
    found: dict[Owned, tuple[str, Any]] = {}
    for pattern, value in values.items():
        matched = [each for each in eligible if each.matches(pattern)]
        if not matched:
            names = {
                name for each in eligible for holder in each.holders for name in (holder.name, holder.path) if name
            }
            kind = "" if vectors else " of two or more dimensions"
            raise InputError(
                f"{option}: {pattern!r} matches no parameter{kind}, by its name or its module's; "
                f"the nearest are {', '.join(nearest(pattern, names)) or 'none'}"
            )
        for each in matched:
            if each in found and found[each][1] != value:
                other, said = found[each]
                raise InputError(
                    f"{option}: {each.name} is matched by {other!r}, {said}, and by {pattern!r}, {value}; "
                    "make one narrower"
                )
            found.setdefault(each, (pattern, value))
    return found
