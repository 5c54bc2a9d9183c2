"""The parts of a step of steepest descent: momenta, the norm's maximisers, their shares of a step, and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError
from icm.norms import Norm
from icm.norms.modular import Combine
from icm.norms.names import as_norm
from icm.optim.layout import Layout
from icm.optim.tuned import Tuned

Choice = Norm | str | Tuned | Callable[[int], Norm | str]
State = MutableMapping[Tensor, Any]

_TIE = 16  # ε within which the dual norms of two matrices count as equal
_SMALL, _CACHED = 2**17, 2**18  # entries of a parameter that others join on a CPU, and of all of them
_LARGE = 2**28  # on an accelerator


@dataclass(frozen=True, eq=False)
class Part:
    """Parameters of one shape and group, cut into stacks of matrices: of each, G the momenta, T the maximisers of
    ⟨G, T⟩ over the unit ball, both (b, m, n), those of the first parameter first."""

    params: Sequence[Tensor]
    group: Mapping[str, Any]
    norm: Norm | Tuned
    G: list[Tensor]
    T: list[Tensor]

    def duals(self) -> list[Float[Tensor, " b"]]:
        """d = ‖G‖†/s, s the group's weight: ‖G‖† is ⟨G, T⟩."""
        return [(g * t).sum((-2, -1)) / self.group["weight"] for g, t in zip(self.G, self.T, strict=True)]

    def lengths(self) -> list[Float[Tensor, " b"]]:
        """‖T‖_F/s."""
        return [torch.linalg.matrix_norm(t) / self.group["weight"] for t in self.T]

    def against(self, starts: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Σ ⟨G, W₀ − W⟩, float64, for weights that began at `starts`."""
        total = torch.zeros((), dtype=torch.float64, device=self.params[0].device)
        for i, (p, start) in enumerate(zip(self.params, starts, strict=True)):
            moved = self.group["layout"].gather(start.to(self.G[0].dtype) - p.to(self.G[0].dtype))
            for piece, G in zip(moved, self.G, strict=True):
                total += (G[i * len(piece) : (i + 1) * len(piece)] * piece).sum(dtype=torch.float64)
        return total

    def apply(self, rate: float | Tensor, shares: Sequence[Tensor] | None = None) -> None:
        """W ← (1 − lr · weight_decay) W − rate · u/s · T, or in constrained mode (1 − lr) W − rate · radius · u/s · T;
        u the matrices' `shares`, None for 1."""
        group, layout = self.group, self.group["layout"]
        constrained = group["mode"] == "constrained"
        rate = rate * ((group["radius"] if constrained else 1.0) / group["weight"])
        T = self.T if shares is None else [t * u[:, None, None] for t, u in zip(self.T, shares, strict=True)]
        decay = group["lr"] * (1.0 if constrained else group["weight_decay"])
        if not group["cautious"] and (constrained or group["weight_decay"]):
            kept = 1 - decay
            kept = kept.reshape(()) if isinstance(kept, Tensor) else kept
            torch._foreach_mul_(list(self.params), kept)  # pyright: ignore[reportPrivateImportUsage]
        if isinstance(rate, Tensor):  # a number would have to be waited for
            T, rate = [t * rate.to(t) for t in T], 1.0
        for i, p in enumerate(self.params):
            mine = [t[i * (len(t) // len(self.params)) :][: len(t) // len(self.params)] for t in T]
            if group["cautious"]:
                update = torch.empty_like(p, dtype=mine[0].dtype)
                layout.scatter(update, mine)
                p.mul_(1 - decay * (update * p > 0).to(update.dtype))
            layout.add(p, mine, alpha=-rate)
            if group["normalize"] and isinstance(self.norm, Norm):
                radius = group["radius"] / group["weight"]
                layout.scatter(p, [self.norm.normalize(W, radius, check=False) for W in layout.gather(p)])


def parts(params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> Iterator[Part]:
    """A group's parameters, those of one shape together as far as they gain from it, after their momenta moved on."""
    norm = norm_at(group["norm"], group["step"])
    alike: dict[Any, list[Tensor]] = {}
    for p in params:
        alike.setdefault((p.shape, p.dtype, p.device), []).append(p)
    layout: Layout = group["layout"]
    for (shape, _, device), members in alike.items():
        count = _together(device, shape.numel())
        for first in range(0, len(members), count):
            chunk = members[first : first + count]
            states = [state[p] for p in chunk]
            if isinstance(norm, Tuned):
                norm.learn(_cut([_wide(p.grad, p) for p in chunk if p.grad is not None], layout), states)
            G = _cut(renewed(chunk, states, group), layout)
            T = norm.take(G, states) if isinstance(norm, Tuned) else [_dualized(norm, g) for g in G]
            yield Part(chunk, group, norm, G, T)


def renewed(
    params: Sequence[Tensor], states: Sequence[dict[str, Any]], group: Mapping[str, Any]
) -> list[Float[Tensor, "..."]]:
    """What takes the gradients' place, in float32 at least: the momenta B ← momentum · B + (1 − momentum) · gradient
    or, with `nesterov`, momentum · B + (1 − momentum) · gradient once more."""
    gradients = [_wide(p.grad, p) for p in params if p.grad is not None]
    momentum = group["momentum"]
    if momentum == 0:
        return gradients
    for p, mine in zip(params, states, strict=True):
        if "momentum_buffer" not in mine:
            kind = torch.promote_types(p.dtype, torch.float32)
            mine["momentum_buffer"] = torch.zeros_like(p, dtype=kind, memory_format=torch.preserve_format)
    momenta = [mine["momentum_buffer"] for mine in states]
    torch._foreach_lerp_(momenta, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    if not group["nesterov"]:
        return momenta
    return list(torch._foreach_lerp(gradients, momenta, momentum))  # pyright: ignore[reportPrivateImportUsage]


def shares(
    duals: Float[Tensor, " b"], lengths: Float[Tensor, " b"] | None, combine: Combine
) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
    """N† and u of `icm.norms.Modular`, from d and, for "sum", ‖T‖_F/s of all matrices: a maximiser of ⟨G, T⟩ over the
    ball of N is u/s times each matrix's own."""
    if combine == "max":
        return duals.sum(), torch.ones_like(duals)
    if combine == "rss":
        dual = torch.linalg.vector_norm(duals)
        return dual, duals / dual.where(dual > 0, 1.0)
    assert lengths is not None
    dual = duals.amax()
    tie = (duals >= dual * (1 - _TIE * torch.finfo(duals.dtype).eps)) & (lengths > 0)
    u = torch.where(tie, lengths.where(tie, 1.0) ** -2, 0.0)
    total = u.sum()
    return dual, u / total.where(total > 0, 1.0)


def norm_at(choice: Any, step: int) -> Norm | Tuned:
    """The norm of a group's `Choice` at a step (from 0): itself, the one its text names, or what the function gives.

    Raises InputError for anything else.
    """
    given = choice(step) if callable(choice) and not isinstance(choice, Norm) else choice
    if isinstance(given, Norm | Tuned):
        return given
    if not isinstance(given, str):
        raise InputError(f"norm={choice!r}: an icm.norms.Norm, its text, a function of the step to one, or Tuned")
    return as_norm(given)


def _dualized(norm: Norm, G: Tensor) -> Tensor:
    """T of a stack; a single matrix goes alone, for which products on a CPU are faster."""
    return norm.dualize(G[0], check=False)[None] if len(G) == 1 else norm.dualize(G, check=False)


def _wide(gradient: Tensor, p: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(p.dtype, torch.float32))


def _cut(tensors: Sequence[Tensor], layout: Layout) -> list[Tensor]:
    """Stacks of matrices, the j-th of all tensors joined."""
    pieces = zip(*(layout.gather(each) for each in tensors), strict=True)
    return [each[0] if len(each) == 1 else torch.cat(each) for each in pieces]


def _together(device: torch.device, entries: int) -> int:
    """How many parameters of so many entries are treated at once: on a CPU as many as stay in its caches."""
    if device.type != "cpu":
        return max(1, _LARGE // max(1, entries))
    return max(1, _CACHED // max(1, entries)) if entries <= _SMALL else 1


def named(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, Tensor]]:
    """Every parameter with its name, or its place where groups have no names."""
    count, found = 0, []
    for group in groups:
        names = group.get("param_names") or [f"parameter {count + i}" for i in range(len(group["params"]))]
        found += zip(names, group["params"], strict=True)
        count += len(group["params"])
    return found
