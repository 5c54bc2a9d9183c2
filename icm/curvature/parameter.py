"""Numbers of a curvature that carry a gradient: floats to everyone, tensors to the derivative of a solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd import forward_ad

from icm.errors import InputError

if TYPE_CHECKING:
    from icm.curvature.shape import Curvature

    Number = Any  # a field takes a tensor and gives back a float, which no annotation says
else:
    Number = float | Tensor


class Parameter(float):
    """A float whose `tensor`, 0-d and float64, is part of an autograd graph.

    Sums, products, quotients and powers of it with numbers are parameters again, whose tensors continue the graph;
    comparisons, text and every other function see the float. Copies are the same object, since it cannot change;
    pickling leaves the float.
    """

    tensor: Tensor

    def __new__(cls, tensor: Tensor) -> Parameter:
        tensor = tensor.reshape(()).double()
        self = super().__new__(cls, tensor.detach().item())
        self.tensor = tensor
        return self

    def __add__(self, other: Any) -> Any:
        return _combined(float.__add__, Tensor.__add__, self, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return _combined(float.__mul__, Tensor.__mul__, self, other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return _combined(float.__sub__, Tensor.__sub__, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _combined(float.__rsub__, Tensor.__rsub__, self, other)

    def __truediv__(self, other: Any) -> Any:
        return _combined(float.__truediv__, Tensor.__truediv__, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _combined(float.__rtruediv__, Tensor.__rtruediv__, self, other)

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        return _combined(float.__pow__, Tensor.__pow__, self, other)

    def __rpow__(self, other: Any, modulus: None = None) -> Any:
        return _combined(float.__rpow__, Tensor.__rpow__, self, other)

    def __neg__(self) -> Parameter:
        return Parameter(-self.tensor)

    def __copy__(self) -> Parameter:
        return self

    def __deepcopy__(self, memo: Any) -> Parameter:
        return self

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


def _combined(of_floats: Callable[..., Any], of_tensors: Callable[..., Tensor], x: Parameter, y: Any) -> Any:
    """x ∘ y with its tensor; only the float where float64 has no such number, as a check then says."""
    if not isinstance(y, (int, float)):
        return NotImplemented
    value = of_floats(x, float(y))
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    found = Parameter(of_tensors(x.tensor, y.tensor if isinstance(y, Parameter) else float(y)))
    return found if found == value else _rounded(found, value)


def _rounded(parameter: Parameter, value: float) -> Parameter:
    """The parameter with the digits that float arithmetic gives: torch rounds powers by its own routine."""
    same = float.__new__(Parameter, value)
    same.tensor = parameter.tensor
    return same


def number_of(x: Any) -> float:
    """`x` as a float: a Parameter for a tensor of one entry that requires grad. Raises as `float`, and
    InputError for a forward-mode tangent."""
    if isinstance(x, Parameter):
        return x
    if isinstance(x, Tensor) and x.numel() == 1:
        refuse_tangent(x, "a number of H")
        return Parameter(x) if x.requires_grad and x.is_floating_point() else float(x.detach())
    return float(x)


def refuse_tangent(x: Tensor, name: str) -> None:
    """Raise InputError if `x` carries a tangent of forward-mode differentiation, which a solve would lose."""
    if forward_ad.unpack_dual(x).tangent is not None:
        raise InputError(f"{name} carries a forward-mode tangent: solves are differentiable in reverse mode only")


def same(x: float, y: float) -> bool:
    """Whether x and y are one number for good: equal, and not moved apart by a step along their gradients."""
    if isinstance(x, Parameter) or isinstance(y, Parameter):
        return isinstance(x, Parameter) and isinstance(y, Parameter) and x.tensor is y.tensor
    return x == y


def parameters(H: Curvature) -> Iterator[tuple[Curvature, str, Parameter]]:
    """(summand, field name, Parameter) for every number of H that carries a gradient."""
    for part in H.parts:
        for entry in _numbers(part):
            value = getattr(part, entry.name)
            if isinstance(value, Parameter):
                yield part, entry.name, value


def plain(H: Curvature) -> Curvature:
    """H with floats for its Parameters; H itself if it has none."""
    if not any(True for _ in parameters(H)):
        return H
    whole: Any = H
    return _plain(H) if H.parts == (H,) else replace(whole, summands=tuple(map(_plain, H.parts)))


def _plain(part: Any) -> Any:
    changed: dict[str, Any] = {}
    for entry in _numbers(part):
        value = getattr(part, entry.name)
        if isinstance(value, Parameter):
            changed[entry.name] = float(value)
        elif isinstance(value, tuple) and any(isinstance(x, Parameter) for x in value):
            changed[entry.name] = tuple(map(float, value))
    return replace(part, **changed) if changed else part


def _numbers(part: Any) -> tuple[Field[Any], ...]:
    return tuple(entry for entry in fields(part) if entry.init)
