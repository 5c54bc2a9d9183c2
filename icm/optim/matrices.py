"""One step for the matrices of a parameter group: momentum, inputs made isotropic, Q, its length, decay."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from icm.maps.polynomial import Precision
from icm.measure import InputMoments
from icm.optim.direction import Memories, Wish, by_maps, exact, frobenius, is_polar, polar
from icm.optim.layout import Layout
from icm.optim.options import curvature_at
from icm.optim.scaling import length
from icm.optim.whitening import colour, root, whiten

_STALE = 5  # updates of an input moment that wait for the next root
_SMALL, _CACHED = 2**17, 2**18  # entries of a parameter that others join on a CPU, and of all of them
_SOLVED = 2**22  # entries treated at once on a CPU where maps are solved anew
_LARGE = 2**28  # on an accelerator

State = MutableMapping[Tensor, Any]


def step(params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> None:
    """The step of those of a group's parameters that have gradients, with what `state` keeps of each: the momentum, a
    memory of the last solve for every matrix, and `root`, S with S C Sᵀ = I, where the input moment C is known."""
    H = curvature_at(group["curvature"], group["step"])
    wish = Wish(H, group["units"], group["tol"], group["products"], group["precision"], group["refresh"])
    alike: dict[Any, list[Tensor]] = {}
    for p in params:
        alike.setdefault((p.shape, p.dtype, p.device), []).append(p)
    for (shape, _, device), members in alike.items():
        count = _together(device, shape.numel(), _due([state[p] for p in members], wish, group), is_polar(H))
        room: list[Tensor] = []
        for first in range(0, len(members), count):
            chunk = members[first : first + count]
            _update(chunk, [state[p] for p in chunk], wish, group, room)


def renew_roots(
    params: Sequence[Tensor], state: State, moments: InputMoments, group: Mapping[str, Any], made: dict[str, Tensor]
) -> None:
    """S with S C Sᵀ = I for the input moments, where they are new, every `refresh` steps of the group at most, kept for
    products in its precision; `made` holds those of this step, so that parameters which share a moment share it."""
    refresh, precision = group["refresh"], precise(group)
    for p in params:
        if not moments.measures(p):
            continue
        mine = state[p]
        # The moment is an average: while it is young each one counts, later a few more change little.
        new = moments.version(p) - mine.get("root_version", 0)
        if "root" in mine and (mine["root_age"] < refresh or new < min(_STALE, mine["root_version"])):
            mine["root_age"] += 1
            continue
        C = moments.moment(p)
        if C is not None:
            key = f"{moments.key(p)} {precision}"
            made[key] = made[key] if key in made else root(C, precision)
            mine["root"], mine["root_age"], mine["root_version"] = made[key], 1, moments.version(p)


def precise(group: Mapping[str, Any]) -> Precision:
    """What a group's products with roots are in."""
    return "fp64" if group["backend"] == "exact" else group["precision"]


def _together(device: torch.device, entries: int, due: bool, polar: bool) -> int:
    """How many parameters of so many entries are treated at once: on a CPU as many as stay in its caches, many where
    maps are solved anew, which costs less together, and one at a time where each has a map of its own."""
    if device.type != "cpu":
        return max(1, _LARGE // max(1, entries))
    if due:
        return max(1, _SOLVED // max(1, entries))
    return max(1, _CACHED // max(1, entries)) if polar and entries <= _SMALL else 1


def _moved(
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    group: Mapping[str, Any],
    low: bool,
    room: list[Tensor],
) -> list[list[Tensor]]:
    """What takes the gradients' place, cut into stacks of matrices, after momenta, in float32 at least, have moved on.
    `low`: it is only to be orthogonalised; where that is done in 16 bits it is rounded at once, and little is kept.
    `room`: tensors for it, which the next parameters of this shape use again: new memory costs a CPU more than it."""
    kinds = [torch.promote_types(p.dtype, torch.float32) for p in params]
    gradients = [p.grad.to(kind) for p, kind in zip(params, kinds, strict=True) if p.grad is not None]
    for p, kind, mine in zip(params, kinds, states, strict=True):
        if "momentum_buffer" not in mine:
            mine["momentum_buffer"] = torch.zeros_like(p, dtype=kind, memory_format=torch.preserve_format)
    momenta, momentum = [mine["momentum_buffer"] for mine in states], group["momentum"]
    torch._foreach_lerp_(momenta, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    low = low and group["precision"] == "bf16"
    pieces = []
    again = params[0].device.type == "cpu" and not torch.compiler.is_compiling()
    for i, (gradient, buffer) in enumerate(zip(gradients, momenta, strict=True)):
        if again and group["nesterov"] and i == len(room):
            room.append(torch.empty_like(buffer))
        update = torch.lerp(gradient, buffer, momentum, out=room[i] if again else None) if group["nesterov"] else buffer
        found = group["layout"].gather(update)
        pieces.append([piece.bfloat16() for piece in found] if low else found)
    return pieces


def _due(states: Sequence[Mapping[str, Any]], wish: Wish, group: Mapping[str, Any]) -> bool:
    """Whether maps are to be solved anew for some."""
    if group["backend"] == "exact" or is_polar(wish.H):
        return False
    memories = [one for mine in states for one in mine.get("memory", [None])]
    return any(one is None or one.due(wish) for one in memories)


def _update(
    params: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    wish: Wish,
    group: Mapping[str, Any],
    room: list[Tensor],
) -> None:
    """The step of parameters of one shape."""
    layout: Layout = group["layout"]
    rough = group["backend"] != "exact" and is_polar(wish.H)
    pieces = _moved(params, states, group, rough and not any("root" in mine for mine in states), room)
    if not group["cautious"] and group["weight_decay"]:
        kept = 1 - group["lr"] * group["weight_decay"]
        kept = kept.reshape(()) if isinstance(kept, Tensor) else kept
        torch._foreach_mul_(list(params), kept)  # pyright: ignore[reportPrivateImportUsage]
    in_place = not group["cautious"] and layout == Layout() and params[0].device.type == "cpu"
    in_place = in_place and not torch.compiler.is_compiling()  # there a number would have to be waited for
    steps: list[list[Tensor]] = [[] for _ in params]
    for j, piece in enumerate(pieces[0]):
        rows = len(piece)
        Q, sizes = _directions(pieces, j, states, wish, group)
        factor = _factor(Q, sizes, wish, group)
        for i, p in enumerate(params):
            own = slice(i * rows, (i + 1) * rows)
            if in_place:
                p.add_(Q[i].to(p.dtype) if Q[i].dtype == torch.float64 else Q[i], alpha=-float(factor[i]))
                continue
            wide = torch.promote_types(p.dtype, torch.float32)
            steps[i].append(torch.stack(Q[own]).to(wide) * factor[own].to(wide)[:, None, None])
    for p, mine in zip(params if not in_place else (), steps, strict=False):
        _apply(p, mine, layout, group)


def _directions(
    pieces: Sequence[list[Tensor]], j: int, states: Sequence[dict[str, Any]], wish: Wish, group: Mapping[str, Any]
) -> tuple[list[Tensor], Tensor | None]:
    """Q of the j-th piece of each parameter, matrix by matrix, and where they are known ‖Q‖_F; what the solves leave
    goes into the states."""
    rows, sizes = len(pieces[0][j]), None
    roots = [mine.get("root") for mine in states for _ in range(rows)]
    X = whiten([x for mine in pieces for x in mine[j]], roots)
    if group["backend"] == "exact":
        Q = exact(X, wish.H, wish.units)
    elif is_polar(wish.H):
        Q = polar(X, wish.precision, wish.products)
    else:
        for mine in states:
            mine.setdefault("memory", Memories([[None] * len(piece) for piece in pieces[0]]))
        Q, sizes, found = by_maps(X, wish, [one for mine in states for one in mine["memory"].parts[j]])
        for i, mine in enumerate(states):
            mine["memory"].parts[j] = found[i * rows : (i + 1) * rows]
    back = any(S is not None for S in roots)
    return colour(Q, roots, precise(group)), None if back else sizes


def _factor(Q: Sequence[Tensor], sizes: Tensor | None, wish: Wish, group: Mapping[str, Any]) -> Tensor:
    """What each Q is multiplied by in a step, (b,)."""
    sizes = frobenius(Q) if sizes is None else sizes
    if group["scaling"] == "none":
        # The maps of a wall alone are those of radius 1.
        radius = wish.H.wall if is_polar(wish.H) and group["backend"] == "products" else 1.0
        return torch.full_like(sizes, radius) * group["lr"]
    return (length(group["scaling"], *Q[0].shape) / sizes).where(sizes > 0, 0.0) * group["lr"]


def _apply(p: Tensor, pieces: list[Tensor], layout: Layout, group: Mapping[str, Any]) -> None:
    """p −= what the pieces make; where weights decay cautiously, with their decay."""
    if not group["cautious"]:
        layout.add(p, pieces, alpha=-1.0)
        return
    update = torch.empty_like(p, dtype=pieces[0].dtype)
    layout.scatter(update, pieces)
    p.mul_(1 - group["lr"] * group["weight_decay"] * (update * p > 0).to(update.dtype))
    p.sub_(update)
