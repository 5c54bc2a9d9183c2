"""What functions of torch do to rows (icm.measure.rows): pointwise, along other axes, and by shape."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from icm.measure.rows import Rows, Rule, aligned, axis_after, bases

_OWNERS = torch, Tensor, functional, torch.special, torch.linalg

METADATA = ("size dim ndimension nelement numel is_floating_point is_complex get_device element_size is_contiguous "
            "stride __len__ new_zeros new_ones new_full new_empty zeros_like ones_like empty_like full_like "
            "is_tensor is_conj is_neg is_inference result_type")  # fmt: skip
PROPERTIES = "shape ndim dtype device layout is_cuda is_cpu is_mps is_xpu is_sparse is_nested is_quantized is_meta requires_grad is_leaf"  # noqa: E501
POINTWISE = (
    "add sub mul div true_divide subtract multiply divide rsub floor_divide remainder fmod pow float_power neg "
    "negative positive abs absolute exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square sin cos tan sinh "
    "cosh tanh asin acos atan atan2 asinh acosh atanh erf erfc erfinv sigmoid logit expit ndtr log_ndtr sinc xlogy "
    "logaddexp hypot sign sgn round floor ceil trunc frac isfinite isnan isinf nan_to_num eq ne lt le gt ge less "
    "less_equal greater greater_equal not_equal logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
    "bitwise_not bitwise_xor minimum maximum fmin fmax clamp clip clamp_min clamp_max where masked_fill lerp addcmul "
    "addcdiv relu relu6 gelu silu mish selu celu elu leaky_relu softplus softsign hardtanh hardswish hardsigmoid "
    "hardshrink softshrink tanhshrink logsigmoid threshold type float double half bfloat16 long int bool "
    "clone contiguous detach copysign __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ "
    "__div__ __rdiv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ __neg__ __pos__ __abs__ __eq__ "
    "__ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __xor__ __invert__ __rand__ __ror__ __rxor__"
)
LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy_with_logits binary_cross_entropy"
DROPOUT = "dropout alpha_dropout feature_alpha_dropout"
SHAPES = "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"
PERMUTES = "transpose permute movedim moveaxis swapaxes swapdims t"
# Of functions along axes, where these are among the arguments.
ALONG = {1: "sum mean var std var_mean std_mean amax amin logsumexp all any prod argmax argmin max min median softmax "
            "log_softmax softmin cumsum cumprod logcumsumexp cummax cummin glu select narrow index_select unbind flip "
            "sort argsort count_nonzero nansum nanmean",
         2: "norm linalg_norm linalg_vector_norm vector_norm normalize chunk split tensor_split roll topk "
            "repeat_interleave"}  # fmt: skip
DIM = {"glu": -1, "chunk": 0, "split": 0, "tensor_split": 0, "unbind": 0, "normalize": 1, "sort": -1, "argsort": -1,
       "topk": -1}  # fmt: skip


def pointwise(func: Any, args: tuple, kwargs: dict[str, Any], spread: bool = False) -> Any:
    """Functions entry by entry, with broadcasting. `spread`: of tensors that must have one shape."""
    given = (*args, *kwargs.values())
    rows = [x for x in given if isinstance(x, Rows)]
    place = aligned(rows)
    if place is None:
        return NotImplemented
    lo, _, right = place
    base = func(*bases(args), **bases(kwargs))
    if not isinstance(base, Tensor) or base.ndim < -right or base.shape[right] != rows[0].length:
        return NotImplemented
    if any(isinstance(x, Tensor) and x.ndim > base.ndim for x in given):
        return NotImplemented

    lanes = rows[0].lanes if spread else None
    cut = [_cut(x, base, place, lanes) for x in args]
    values = func(*cut, **{key: _cut(x, base, place, lanes) for key, x in kwargs.items()})
    return Rows(base, values, lo, base.ndim + right)


def _cut(x: Any, base: Tensor, place: tuple[int, int, int], lanes: int | None) -> Any:
    """The changed rows of an argument, as broadcasting with `base` wants them; in all `lanes` where those are given."""
    lo, hi, right = place
    if isinstance(x, Rows):
        values = x.between(lo, hi)
        return values.reshape(len(values), *[1] * (base.ndim - x.base.ndim), *values.shape[1:])
    if isinstance(x, Tensor) and x.ndim >= -right and x.shape[right] != 1:
        part = x.narrow(right, lo, hi - lo)
        return part.expand(lanes, *part.shape) if lanes is not None and x.shape == base.shape else part
    return x


def losses(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Losses entry by entry, unless reduced."""
    old = kwargs.get("size_average") is not None or kwargs.get("reduce") is not None
    if old or len(args) > 2 or kwargs.get("reduction", "mean") != "none":
        return NotImplemented
    return pointwise(func, args, kwargs, spread=True)


def dropout(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Nothing, in eval mode."""
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5) > 0:
        raise NotImplementedError("dropout draws in every lane")
    return args[0] if args else NotImplemented


def metadata(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What no values decide."""
    return func(*bases(args), **bases(kwargs))


def casts(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Another dtype or device, perhaps that of another tensor."""
    rule = pointwise if args and isinstance(args[0], Rows) else metadata
    return rule(func, args[:1] + bases(args[1:]), bases(kwargs))


def shapes(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Another shape that keeps the token axis."""
    x = args[0]
    if not isinstance(x, Rows) or x.axis is None:
        return NotImplemented
    base = func(*bases(args), **bases(kwargs))
    axis = axis_after(x.base, x.axis, base.shape)
    if axis is None or base.dtype != x.base.dtype or base.numel() != x.base.numel():
        return NotImplemented
    shape = [x.hi - x.lo if i == axis else n for i, n in enumerate(base.shape)]
    return Rows(base, x.changed.reshape(x.lanes, *shape), x.lo, axis)


def expands(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Axes of size 1 repeated."""
    x = args[0]
    if not isinstance(x, Rows) or x.axis is None:
        return NotImplemented
    base = func(*bases(args), **bases(kwargs))
    new = base.ndim - x.base.ndim
    axis = x.axis + new
    if base.shape[axis] != x.length:
        return NotImplemented
    shape = [x.hi - x.lo if i == axis else n for i, n in enumerate(base.shape)]
    values = x.changed.reshape(x.lanes, *[1] * new, *x.changed.shape[1:]).expand(x.lanes, *shape)
    return Rows(base, values, x.lo, axis)


def permutes(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Axes in another order: strides as labels tell which."""
    x = args[0]
    if x.axis is None:
        return NotImplemented
    labels = torch.empty_strided(x.base.shape, tuple(range(x.base.ndim)), device="meta")
    order = func(labels, *args[1:], **kwargs).stride()
    base = func(x.base, *args[1:], **kwargs)
    return Rows(base, x.changed.permute(0, *(i + 1 for i in order)), x.lo, order.index(x.axis))


def along(position: int, name: str) -> Rule:
    """Functions along one axis or more, none of them the tokens'."""
    key = "dims" if name in ("flip", "roll") else "dim"

    def rule(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        x, kwargs = args[0], _dims(kwargs, key)
        dim = kwargs.get(key, args[position] if len(args) > position else DIM.get(name))
        many = (dim,) if isinstance(dim, int) else dim
        if not isinstance(many, tuple | list) or isinstance(dim, bool) or not many:
            return (
                pointwise(func, args, kwargs) if isinstance(dim, Tensor) and name in ("max", "min") else NotImplemented
            )
        if not isinstance(x, Rows) or x.axis is None or any(isinstance(y, Rows) for y in (*args[1:], *kwargs.values())):
            return NotImplemented
        if not all(isinstance(d, int) for d in many) or (name == "flip" and len(args) > 2):
            return NotImplemented
        ndim = x.base.ndim
        many = [d % ndim for d in many]
        if x.axis in many:
            return NotImplemented
        base = func(x.base, *args[1:], **kwargs)
        from_right = [d - ndim for d in many]
        new: Any = from_right[0] if isinstance(dim, int) else from_right
        if len(args) > position:
            args = *args[:position], new, *args[position + 1 :]
        else:
            kwargs = {**kwargs, key: new}
        values = func(x.changed, *args[1:], **kwargs)
        axis, fewer = x.axis, x.axis - sum(d < x.axis for d in many)
        single = isinstance(base, Tensor)
        pairs = [(base, values)] if single else zip(base, values, strict=True)
        made = [Rows(b, v, x.lo, axis if b.ndim == ndim else fewer) for b, v in pairs]
        return made[0] if single else tuple_like(base, made)

    return rule


def _dims(kwargs: dict[str, Any], key: str = "dim") -> dict[str, Any]:
    """With torch's own name for what NumPy calls axis."""
    return {key if name == "axis" else name: x for name, x in kwargs.items()}


def tuple_like(like: Any, values: list[Any]) -> Any:
    """Also of torch's return types."""
    return type(like)(values) if isinstance(like, tuple) else tuple(values)


def iterates(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """for row in x."""
    return iter(torch.unbind(args[0], 0))


def taken(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """x[index] of whole numbers, slices, None and …; outside the changed rows all lanes are one plain tensor."""
    x, index = args
    if not isinstance(x, Rows) or x.axis is None:
        return NotImplemented
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(i is None or i is ... or isinstance(i, slice) or type(i) is int for i in items):
        return NotImplemented
    used = sum(i is not None and i is not ... for i in items)
    if ... not in items:
        items.append(...)
    at = items.index(...)
    items[at : at + 1] = [slice(None)] * (x.base.ndim - used)
    old = [i for i, item in enumerate(items) if item is not None]
    place = old[x.axis]
    item = items[place]
    base = x.base[tuple(items)]
    if type(item) is int:
        t = item % x.length
        if not x.lo <= t < x.hi:
            return base
        items[place] = t - x.lo
        return Rows(base, x.changed[(slice(None), *items)])
    start, stop, step = item.indices(x.length)
    if step != 1:
        return NotImplemented
    lo, hi = max(x.lo, start), min(x.hi, stop)
    if lo >= hi:
        return base
    items[place] = slice(lo - x.lo, hi - x.lo)
    axis = sum(type(i) is not int for i in items[:place])
    return Rows(base, x.changed[(slice(None), *items)], lo - start, axis)


def joins(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """torch.cat and torch.stack along another axis."""
    tensors = args[0] if args else kwargs.get("tensors")
    dim = _dims(kwargs).get("dim", args[1] if len(args) > 1 else 0)
    if not isinstance(dim, int) or not isinstance(tensors, tuple | list):
        return NotImplemented
    rows = [x for x in tensors if isinstance(x, Rows)]
    place, ndims = aligned(rows), {x.dim() for x in tensors}
    if place is None or len(ndims) > 1:
        return NotImplemented
    lo, hi, right = place
    ndim = ndims.pop()
    base = func(bases(list(tensors)), dim)
    dim %= base.ndim
    axis = ndim + right
    after = axis + (base.ndim > ndim and dim <= axis)
    if base.ndim == ndim and dim == axis:
        return NotImplemented
    lanes = rows[0].lanes
    plain = (None if isinstance(x, Rows) else x.narrow(axis, lo, hi - lo) for x in tensors)
    cut = [
        x.between(lo, hi) if part is None else part.expand(lanes, *part.shape)
        for x, part in zip(tensors, plain, strict=True)
    ]
    return Rows(base, func(cut, dim - base.ndim), lo, after)


def named(names: str, rule: Rule) -> Iterator[tuple[Any, Rule]]:
    """The rule with each of torch's functions and methods of these names."""
    for name in names.split():
        for owner in _OWNERS:
            if callable(func := getattr(owner, name, None)) and not isinstance(func, type | types.ModuleType):
                yield func, rule


def _getters(names: str, rule: Rule) -> Iterator[tuple[Any, Rule]]:
    return ((getattr(Tensor, name).__get__, rule) for name in names.split() if hasattr(Tensor, name))


RULES: Mapping[Any, Rule] = types.MappingProxyType(
    dict(
        chain(
            named(METADATA, metadata),
            _getters(PROPERTIES, metadata),
            _getters("T mT", permutes),
            named(POINTWISE, pointwise),
            named("to type_as", casts),
            named(LOSSES, losses),
            named(DROPOUT, dropout),
            named(SHAPES, shapes),
            named("expand expand_as broadcast_to", expands),
            named(PERMUTES, permutes),
            *(named(name, along(at, name)) for at, names in ALONG.items() for name in names.split()),
            named("__iter__", iterates),
            named("__getitem__", taken),
            named("cat concat concatenate stack", joins),
        )
    )
)
