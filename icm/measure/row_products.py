"""What products, normalisations, attention and losses over classes do to rows (icm.measure.rows)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from icm.measure import row_rules
from icm.measure.rows import Rows, Rule, bases

FEW = 8  # a part of the keys so small, or less, is attended to apart from those that lanes share


def linear(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """x Wᵀ + b, one product for all lanes."""
    x = args[0]
    others = (*args[1:], *kwargs.values())
    if not isinstance(x, Rows) or x.axis in (None, x.base.ndim - 1) or any(isinstance(y, Rows) for y in others):
        return NotImplemented
    return Rows(func(x.base, *args[1:], **kwargs), func(x.changed, *args[1:], **kwargs), x.lo, x.axis)


def addmm(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """b + x W of tokens x (T, n)."""
    b, x, W = args if len(args) == 3 else (None, None, None)
    if not isinstance(x, Rows) or isinstance(b, Rows) or isinstance(W, Rows) or x.axis != 0 or b is None:
        return NotImplemented
    if b.ndim > 1 and b.shape[0] != 1:
        return NotImplemented
    values = func(b, x.changed.flatten(0, 1), W, **kwargs)
    return Rows(func(b, x.base, W, **kwargs), values.unflatten(0, x.changed.shape[:2]), x.lo, 0)


def matmul(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Products that do not sum over tokens of one factor with rows, or of two such as attention has."""
    x, y = args if len(args) == 2 else (None, None)
    if func is Tensor.__rmatmul__:
        x, y = y, x
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or min(x.dim(), y.dim()) < 2:
        return NotImplemented
    if isinstance(x, Rows) and isinstance(y, Rows):
        return _both(x, y)
    rows, other, own, summed = (x, y, -2, -1) if isinstance(x, Rows) else (y, x, -1, -2)
    assert isinstance(rows, Rows)
    if rows.axis is None:
        return NotImplemented
    right = rows.axis - rows.base.ndim
    if right == summed or other.ndim > rows.base.ndim:
        return NotImplemented
    if right != own and other.ndim >= -right and other.shape[right] != 1:  # a product for every token
        other = other.narrow(right, rows.lo, rows.hi - rows.lo)
    values = torch.matmul(rows.changed, other) if rows is x else torch.matmul(other, rows.changed)
    return Rows(torch.matmul(*bases((x, y))), values, rows.lo, rows.axis)


def _both(x: Rows, y: Rows) -> Any:
    """Two factors with rows: every query meets changed keys, so all rows of x's token axis change."""
    if x.axis is None or y.axis is None or x.base.ndim != y.base.ndim or x.axis != x.base.ndim - 2:
        return NotImplemented
    if y.axis < y.base.ndim - 2:
        return NotImplemented
    return Rows(torch.matmul(x.base, y.base), torch.matmul(x.whole(), y.whole()), 0, x.axis)


def normalises(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """layer_norm and rms_norm over axes after the tokens'."""
    x = args[0]
    shape = args[1] if len(args) > 1 else kwargs.get("normalized_shape", ())
    others = (*args[1:], *kwargs.values())
    if not isinstance(x, Rows) or x.axis is None or any(isinstance(y, Rows) for y in others):
        return NotImplemented
    if x.axis >= x.base.ndim - len(shape):
        return NotImplemented
    return Rows(func(x.base, *args[1:], **kwargs), func(x.changed, *args[1:], **kwargs), x.lo, x.axis)


def attention(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """softmax(q kᵀ) v. With changed keys or values the queries that see them change: all after them, if causal."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    causal = bool(given.get("is_causal", False))
    if given.get("dropout_p", 0.0) or (causal and mask is not None):
        return NotImplemented
    rows = [x for x in (q, k, v) if isinstance(x, Rows)]
    ndim = q.dim()
    if isinstance(mask, Rows) or ndim not in (3, 4) or any(x.dim() != ndim or x.shape[0] != 1 for x in (q, k, v)):
        return NotImplemented
    if any(x.axis != ndim - 2 for x in rows):
        return NotImplemented
    L, S = q.shape[-2], k.shape[-2]
    lo, hi = (q.lo, q.hi) if isinstance(q, Rows) else (L, 0)
    moved = [x for x in (k, v) if isinstance(x, Rows)]
    if moved:
        first, last = _who_sees(min(x.lo for x in moved), max(x.hi for x in moved), L, S, mask, causal)
        lo, hi = min(lo, first), max(hi, last)
    options = {key: given[key] for key in ("scale", "enable_gqa") if key in given}
    base = func(*bases((q, k, v)), attn_mask=mask, is_causal=causal, **options)
    if lo >= hi:  # nobody looks at what has changed
        return base
    seen = min(S, hi) if causal else S
    if mask is not None:
        mask = mask if mask.ndim < 2 or mask.shape[-2] == 1 else mask[..., lo:hi, :]
    elif causal and (lo > 0 or hi != seen):
        mask = torch.arange(lo, hi, device=base.device)[:, None] >= torch.arange(seen, device=base.device)
        causal = False
    if moved and given.get("attn_mask") is None and not given.get("enable_gqa") and q.shape[0] == 1:
        near = min(x.lo for x in moved), max(x.hi for x in moved)
        if FEW * (near[1] - near[0]) <= S and base.dtype in (torch.float32, torch.float64):
            return Rows(
                base, merged(q, k, v, (lo, hi), near, bool(given.get("is_causal")), given.get("scale")), lo, ndim - 2
            )
    queries = q.between(lo, hi) if isinstance(q, Rows) else q[..., lo:hi, :]
    keys, values = (_upto(x, seen) for x in (k, v))
    lanes = rows[0].lanes
    if not moved and not causal:
        return Rows(base, _shared(func, queries, keys, values, mask, options), lo, ndim - 2)
    parts = [x.expand(lanes, *x.shape) if x.ndim == ndim else x for x in (queries, keys, values)]
    found = func(*(x.flatten(0, 1) for x in parts), attn_mask=mask, is_causal=causal, **options)
    return Rows(base, found.unflatten(0, (lanes, 1)), lo, ndim - 2)


def merged(
    q: Any, k: Any, v: Any, rows: tuple[int, int], near: tuple[int, int], causal: bool, scale: float | None
) -> Tensor:
    """(K, …, w, d) attention of the queries in `rows` where only the keys and values `near` differ between lanes.

    The keys of all lanes are attended to once, by queries that lanes share once for all, and what the others give,
    out₂ with its sum of exponentials e^s₂, is joined: out₁ e^s₁ + out₂ e^s₂ over e^s₁ + e^s₂.
    """
    (lo, hi), (a, b) = rows, near
    lanes = next(len(x.changed) for x in (q, k, v) if isinstance(x, Rows))
    k0, v0 = (x[..., : hi if causal else None, :] for x in bases((k, v)))
    k1, v1 = ((x.between(a, b) if isinstance(x, Rows) else x[..., a:b, :]) for x in (k, v))
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    keys = torch.arange(k0.shape[-2], device=k0.device)

    def attend(q: Tensor, first: int, out: Tensor) -> None:
        """Queries (…, w, d), or (K, …, w, d), of which the first is the row `first` of all."""
        at = torch.arange(first, first + q.shape[-2], device=q.device)[:, None]
        hidden = ((keys >= a) & (keys < b)) | (causal & (keys > at))
        s0 = (_shared_product(q, k0.mT) * factor).masked_fill_(hidden, -torch.inf)
        s1 = q @ k1.mT * factor
        if causal:
            s1 = s1.masked_fill_(torch.arange(a, b, device=q.device) > at, -torch.inf)
        share = torch.sigmoid(s0.logsumexp(-1, keepdim=True) - s1.logsumexp(-1, keepdim=True))
        far = _shared_product(s0.softmax(-1).nan_to_num_(0.0), v0)
        close = v1 if b - a == 1 else s1.softmax(-1).nan_to_num_(0.0) @ v1
        torch.lerp(close, far, share, out=out)

    out = q.new_empty(lanes, *q.shape[:-2], hi - lo, v.shape[-1])
    own = (q.lo, q.hi) if isinstance(q, Rows) else (lo, lo)
    for first, last in ((lo, own[0]), own, (own[1], hi)):
        if first < last:
            changed = isinstance(q, Rows) and (first, last) == own
            part = q.changed if changed else bases(q)[..., first:last, :]
            attend(part, first, out[..., first - lo : last - lo, :])
    return out


def _shared_product(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, where all lanes of x meet one y: their rows in one product."""
    if x.ndim == y.ndim:
        return x @ y
    return (x.movedim(0, -3).flatten(-3, -2) @ y).unflatten(-2, (len(x), x.shape[-2])).movedim(-3, 0)


def _upto(x: Any, seen: int) -> Tensor:
    """The first keys or values, of every lane where lanes differ."""
    if not isinstance(x, Rows):
        return x[..., :seen, :]
    return x.between(0, seen) if seen >= x.hi else x.whole()[..., :seen, :]


def _shared(func: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor:
    """Attention of the lanes' queries (K, …, w, d) to the same keys: queries of all lanes in one row of them."""
    K, w = len(q), q.shape[-2]
    flat = q.movedim(0, -3).flatten(-3, -2)
    if mask is not None and mask.ndim > 1 and mask.shape[-2] != 1:
        mask = mask.unsqueeze(-3).expand(*mask.shape[:-2], K, *mask.shape[-2:]).flatten(-3, -2)
    found = func(flat, k, v, attn_mask=mask, **options)
    return found.unflatten(-2, (K, w)).movedim(-3, 0)


def _who_sees(lo: int, hi: int, L: int, S: int, mask: Tensor | None, causal: bool) -> tuple[int, int]:
    """First and last + 1 of the queries that attend to any of the keys lo to hi."""
    if causal:
        return min(lo, L), L
    if mask is None or mask.ndim < 2 or mask.shape[-2] != L or mask.shape[-1] != S:
        return 0, L
    allowed = mask if mask.dtype == torch.bool else mask != -torch.inf
    # A query that sees no key at all may still spread over all of them.
    some = allowed[..., lo:hi].any(-1) | ~allowed.any(-1)
    which = some.reshape(-1, L).any(0).nonzero()
    return (int(which[0]), int(which[-1]) + 1) if len(which) else (L, 0)


def class_losses(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """cross_entropy and nll_loss of targets that are classes, term by term."""
    names = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, target = given.pop("input"), given.pop("target")
    if given.get("reduction") != "none" or given.get("size_average") is not None or given.get("reduce") is not None:
        return NotImplemented
    if not isinstance(x, Rows) or isinstance(target, Rows) or x.axis in (None, 1) or x.base.ndim < 2:
        return NotImplemented
    if target.is_floating_point() or target.ndim != x.base.ndim - 1:
        return NotImplemented
    axis = x.axis if x.axis == 0 else x.axis - 1
    part = target.narrow(axis, x.lo, x.hi - x.lo)
    part = part.expand(x.lanes, *part.shape).flatten(0, 1)
    values = func(x.changed.flatten(0, 1), part, **given)
    return Rows(func(x.base, target, **given), values.unflatten(0, x.changed.shape[:2]), x.lo, axis)


RULES: Mapping[Any, Rule] = MappingProxyType(  # of everything
    {
        **row_rules.RULES,
        **dict(
            chain(
                row_rules.named("linear", linear),
                row_rules.named("addmm", addmm),
                row_rules.named("matmul mm bmm __matmul__ __rmatmul__", matmul),
                row_rules.named("layer_norm rms_norm", normalises),
                row_rules.named("scaled_dot_product_attention", attention),
                row_rules.named("cross_entropy nll_loss", class_losses),
            )
        ),
    }
)
