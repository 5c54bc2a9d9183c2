"""One step for the matrices of a parameter group: momentum, inputs made isotropic, Q, its length, decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from icm.maps.polynomial import Precision
from icm.measure import InputMoments
from icm.optim.direction import Memory, Wish, by_maps, exact, frobenius, is_polar, polar
from icm.optim.layout import Layout
from icm.optim.options import curvature_at
from icm.optim.scaling import length
from icm.optim.whitening import colour, root, whiten

_CHUNK = {"cpu": 2**19, "cuda": 2**28}  # entries treated at once
_LARGE = {"cpu": 2**22, "cuda": 2**28}  # the same where maps are solved anew, many cheaper than a few

State = MutableMapping[Tensor, Any]


def step(params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> None:
    """The step of those of a group's parameters that have gradients, with what `state` keeps of each: the momentum, a
    memory of the last solve for every matrix, and `root`, S with S C Sᵀ = I, where the input moment C is known."""
    H = curvature_at(group["curvature"], group["step"])
    wish = Wish(H, group["units"], group["tol"], group["products"], group["precision"], group["refresh"])
    gradients, momenta = _momenta(params, state, group["momentum"])
    if not group["cautious"] and group["weight_decay"]:
        torch._foreach_mul_(list(params), 1 - group["lr"] * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
    alike: dict[Any, list[int]] = {}
    for i, p in enumerate(params):
        alike.setdefault((p.shape, p.dtype, p.device), []).append(i)
    for (shape, _, device), members in alike.items():
        limits = _LARGE if _due([state[params[i]] for i in members], wish, group) else _CHUNK
        count = max(1, limits.get(device.type, limits["cuda"]) // max(1, shape.numel()))
        for first in range(0, len(members), count):
            chunk = members[first : first + count]
            updates = [
                gradients[i].lerp(momenta[i], group["momentum"]) if group["nesterov"] else momenta[i] for i in chunk
            ]
            mine = [params[i] for i in chunk]
            _update(mine, [state[p] for p in mine], updates, wish, group)


def renew_roots(params: Sequence[Tensor], state: State, moments: InputMoments, refresh: int, made: dict) -> None:
    """S with S C Sᵀ = I for the input moments, every `refresh` steps; `made` holds those of this step, by the moments'
    keys, so that parameters which share a moment share it."""
    for p in params:
        if not moments.measures(p):
            continue
        mine = state[p]
        if "root" in mine and mine["root_age"] < refresh:
            mine["root_age"] += 1
            continue
        C = moments.moment(p)
        if C is not None:
            key = moments.key(p)
            made[key] = made[key] if key in made else root(C)
            mine["root"], mine["root_age"] = made[key], 1


def _momenta(params: Sequence[Tensor], state: State, momentum: float) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients and momenta, these already moved on, in float32 at least."""
    gradients, momenta = [], []
    for p in params:
        kind = torch.promote_types(p.dtype, torch.float32)
        mine, gradient = state[p], p.grad
        assert gradient is not None
        if "momentum_buffer" not in mine:
            mine["momentum_buffer"] = torch.zeros_like(p, dtype=kind, memory_format=torch.preserve_format)
        gradients.append(gradient.to(kind))
        momenta.append(mine["momentum_buffer"])
    torch._foreach_lerp_(momenta, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    return gradients, momenta


def _due(states: Sequence[Mapping[str, Any]], wish: Wish, group: Mapping[str, Any]) -> bool:
    """Whether maps are to be solved anew for some."""
    if group["backend"] == "exact" or is_polar(wish.H):
        return False
    memories = [one for mine in states for part in mine.get("memory", [[None]]) for one in part]
    return any(one is None or one.due(wish) for one in memories)


def _update(
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    updates: Sequence[Tensor],
    wish: Wish,
    group: Mapping[str, Any],
) -> None:
    """The step of parameters of one shape, given what takes the gradient's place."""
    layout: Layout = group["layout"]
    pieces = [layout.gather(update) for update in updates]
    roots = [mine.get("root") for mine in states]
    remembers = group["backend"] != "exact" and not is_polar(wish.H)
    for mine in states if remembers else ():
        mine.setdefault("memory", [[None] * len(piece) for piece in pieces[0]])
    steps: list[list[tuple[Tensor, Tensor]]] = [[] for _ in params]
    for j, piece in enumerate(pieces[0]):
        rows, (m, n) = len(piece), piece.shape[-2:]
        X = torch.cat([mine[j] for mine in pieces]) if len(params) > 1 else piece
        X = _each(whiten, X, roots, rows, group["precision"])
        if remembers:
            memories: list[Memory | None] = [one for mine in states for one in mine["memory"][j]]
            Q, found = by_maps(X, wish, memories)
            for i, mine in enumerate(states):
                mine["memory"][j] = found[i * rows : (i + 1) * rows]
        elif group["backend"] == "exact":
            Q = exact(X, wish.H, wish.units)
        else:
            Q = polar(X, wish.precision)
        Q = _each(colour, Q, roots, rows, group["precision"])
        factor = _factor(Q, m, n, wish, group)
        for i, mine in enumerate(steps):
            own = slice(i * rows, (i + 1) * rows)
            mine.append((Q[own], factor[own]))
    for p, mine in zip(params, steps, strict=True):
        _apply(p, mine, layout, group)


def _factor(Q: Tensor, m: int, n: int, wish: Wish, group: Mapping[str, Any]) -> Tensor:
    """What Q (b, m, n) is multiplied by in a step, (b,)."""
    sizes = frobenius(Q)
    if group["scaling"] == "none":
        # The maps of a wall alone are those of radius 1.
        radius = wish.H.wall if is_polar(wish.H) and group["backend"] == "products" else 1.0
        return torch.full_like(sizes, radius) * group["lr"]
    return (length(group["scaling"], m, n) / sizes).where(sizes > 0, 0.0) * group["lr"]


def _each(
    function: Callable[..., Tensor], X: Tensor, roots: Sequence[Tensor | None], rows: int, precision: Precision
) -> Tensor:
    """X with the `rows` matrices of each parameter multiplied by its root, where there is one."""
    if all(S is None for S in roots):
        return X
    parts = X.split(rows)
    return torch.cat([x if S is None else function(x, S, precision) for x, S in zip(parts, roots, strict=True)])


def _apply(p: Tensor, step: list[tuple[Tensor, Tensor]], layout: Layout, group: Mapping[str, Any]) -> None:
    """p −= factor · Q, put together from its pieces; where weights decay cautiously, with their decay."""
    if not group["cautious"] and len(step) == 1 and layout == Layout() and p.device.type == "cpu":
        Q, factor = step[0]
        p.add_(Q[0].to(p.dtype) if Q.dtype == torch.float64 else Q[0], alpha=-float(factor))
        return
    wide = torch.promote_types(p.dtype, torch.float32)
    pieces = [Q.to(wide) * factor.to(wide)[:, None, None] for Q, factor in step]
    if not group["cautious"]:
        layout.add(p, pieces, alpha=-1.0)
        return
    update = torch.empty_like(p, dtype=wide)
    layout.scatter(update, pieces)
    p.mul_(1 - group["lr"] * group["weight_decay"] * (update * p > 0).to(wide))
    p.sub_(update)
