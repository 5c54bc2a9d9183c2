"""Norms of whole models: the largest, the sum or the root of the sum of squares of the norms of named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icm.arrays import to_tensor
from icm.errors import InputError
from icm.norms.norm import Norm

Combine = Literal["max", "sum", "rss"]

_TIE = 16  # ε within which the dual norms of two layers count as equal


@dataclass(frozen=True)
class Modular:
    """A norm of named tensors W = {name: W_l}, from a norm ‖·‖_l and a weight s_l > 0 (1 by default) for each:

        "max"   N(W) = max_l s_l‖W_l‖_l               N†(G) = Σ_l d_l
        "sum"   N(W) = Σ_l s_l‖W_l‖_l                 N†(G) = max_l d_l           with d_l = ‖G_l‖_l†/s_l
        "rss"   N(W) = (Σ_l s_l²‖W_l‖_l²)^{1/2}       N†(G) = (Σ_l d_l²)^{1/2}

    With T_l = the l-th norm's dualize(G_l), a maximiser of ⟨G, T⟩ over N(T) ≤ 1 has the layers (u_l/s_l) T_l, where

        "max"   u_l = 1
        "sum"   Σ u_l = 1, u_l = 0 but for the largest d_l
        "rss"   u_l = d_l/N†

    (⟨G, T⟩ = Σ u_l d_l is to be maximised over the unit ball of max, Σ or ‖·‖₂ of u.) So steepest descent with the
    sharpness λ moves by −η_l T_l with the step sizes η_l = (N†/λ) u_l/s_l: for "max" η/s_l, η = (1/λ) Σ_k ‖G_k‖_k†/s_k
    (Bernstein & Newhouse, arXiv 2409.20325, propositions 3, 5 and 7). Under "sum" only layers of the largest d_l move;
    where several are largest (to 16 ε), the maximiser of least Frobenius norm is taken, u_l ∝ (s_l/‖T_l‖_F)².

    A tensor is a matrix, outputs × inputs. One of a single dimension (a bias, a gain) is a column d × 1, a number
    1 × 1; one of more dimensions is a batch of the matrices of its last two, each a layer of its own with the tensor's
    weight. In place of a norm another Modular may stand, for a mapping of tensors in place of a tensor. Values are in
    the widest dtype of the layers' own values, updates in those of the gradients.

    Raises InputError for no norms, weights that are not finite and positive or belong to no norm, an unknown `combine`,
    tensors whose names are not those of the norms; and what the norms raise.
    """

    norms: Mapping[str, Norm | Modular]
    weights: Mapping[str, float] | None = None
    combine: Combine = "max"

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise InputError(f"combine={self.combine!r}: choose one of {', '.join(map(repr, get_args(Combine)))}")
        norms = dict(self.norms)
        if not norms:
            raise InputError("norms is empty; give a norm for each name, e.g. {'layer.weight': icm.norms.Spectral()}")
        for name, norm in norms.items():
            if not isinstance(norm, (Norm, Modular)):
                raise InputError(f"norms[{name!r}] = {norm!r} is a {type(norm).__name__}; give a Norm or a Modular")
        given = dict(self.weights or {})
        if unknown := given.keys() - norms.keys():
            raise InputError(f"weights for {sorted(unknown)}, which have no norm; the norms are {sorted(norms)}")
        weights = {name: float(given.get(name, 1.0)) for name in norms}
        for name, s in weights.items():
            if not (math.isfinite(s) and s > 0):
                raise InputError(f"weights[{name!r}] = {s}: a weight is finite and above 0, for N to be a norm")
        object.__setattr__(self, "norms", norms)
        object.__setattr__(self, "weights", weights)

    def norm(self, tensors: Mapping[str, Any], *, check: bool = True) -> Tensor:
        """N(W), a single number."""
        lengths = self._evaluate("norm", tensors, check)
        values = _joined([self._weight(name) * value for name, value in lengths.items()])
        return {"max": values.amax, "sum": values.sum, "rss": lambda: _root_sum_square(values)}[self.combine]()

    def dual(self, gradients: Mapping[str, Any], *, check: bool = True) -> Tensor:
        """N†(G) = max ⟨G, T⟩ over N(T) ≤ 1, a single number."""
        return self._combined(_joined(list(self._shares(gradients, check).values())))

    def dualize(self, gradients: Mapping[str, Any], *, check: bool = True) -> dict[str, Any]:
        """T with N(T) = 1 and ⟨G, T⟩ = N†(G), by name, shaped as the gradients; all 0 for G = 0."""
        T = self._evaluate("dualize", gradients, check)
        _, u = self._along(gradients, T, check)
        return {name: _times(T[name], u[name] / self._weight(name)) for name in T}

    def steepest(self, gradients: Mapping[str, Any], sharpness: float = 1.0, *, check: bool = True) -> dict[str, Any]:
        """argmin ⟨G, D⟩ + (λ/2) N(D)² = −(N†/λ) dualize(G), by name, λ the `sharpness`, in loss per squared length.

        Raises InputError for a sharpness that is not finite and positive.
        """
        _require_sharpness(sharpness)
        T = self._evaluate("dualize", gradients, check)
        dual, u = self._along(gradients, T, check)
        return {name: _times(T[name], u[name] * (-dual / (sharpness * self._weight(name)))) for name in T}

    def step_sizes(self, gradients: Mapping[str, Any], sharpness: float = 1.0, *, check: bool = True) -> dict[str, Any]:
        """η_l = (N†/λ) u_l/s_l, by name: `steepest` moves W_l by −η_l times its own norm's dualize(G_l).

        One number for a matrix or a vector, (*b) for a batch of matrices, a dictionary for a Modular, by its own names.
        Raises as `steepest`.
        """
        _require_sharpness(sharpness)
        T = self._evaluate("dualize", gradients, check) if self.combine == "sum" else None
        dual, u = self._along(gradients, T, check)
        return self._sizes(gradients, {name: u[name] * (dual / (sharpness * self._weight(name))) for name in u}, check)

    def _sizes(self, gradients: Mapping[str, Any], steps: dict[str, Tensor], check: bool) -> dict[str, Any]:
        """η of every layer where this norm's own maximisers are taken `steps` times."""
        found: dict[str, Any] = {}
        for name, norm in self.norms.items():
            if isinstance(norm, Modular):
                G = gradients[name]
                T = norm._evaluate("dualize", G, check) if norm.combine == "sum" else None
                _, u = norm._along(G, T, check)
                inner = {key: u[key] * (steps[name] / norm._weight(key)) for key in u}
                found[name] = norm._sizes(G, inner, check)
            else:
                found[name] = steps[name]
        return found

    def _shares(self, gradients: Mapping[str, Any], check: bool) -> dict[str, Tensor]:
        """d_l by name, (*b) for batches."""
        return {name: d / self._weight(name) for name, d in self._evaluate("dual", gradients, check).items()}

    def _combined(self, d: Tensor) -> Tensor:
        """N† from all d_l."""
        return {"max": d.sum, "sum": d.amax, "rss": lambda: _root_sum_square(d)}[self.combine]()

    def _along(
        self, gradients: Mapping[str, Any], T: dict[str, Any] | None, check: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """N†, and u_l by name, (*b) for batches; T holds the layers' own maximisers, which "sum" asks for."""
        d = self._shares(gradients, check)
        dual = self._combined(_joined(list(d.values())))
        if self.combine == "max":
            return dual, {name: torch.ones_like(x) for name, x in d.items()}
        if self.combine == "rss":
            safe = dual.where(dual > 0, 1.0)
            return dual, {name: (x.to(safe) / safe).to(x) for name, x in d.items()}
        assert T is not None
        u: dict[str, Tensor] = {}
        for name, x in d.items():
            tie = x >= dual.to(x) * (1 - _TIE * torch.finfo(x.dtype).eps)
            short = _lengths(T[name], x).double() / self._weight(name)  # of the layer's part of T at u = 1
            u[name] = torch.where(tie & (short > 0), short.where(short > 0, 1.0) ** -2, 0.0)
        total = _joined(list(u.values())).sum()
        total = total.where(total > 0, 1.0)
        return dual, {name: (x / total.to(x)).to(d[name]) for name, x in u.items()}

    def _weight(self, name: str) -> float:
        assert self.weights is not None
        return self.weights[name]

    def _evaluate(self, what: str, tensors: Mapping[str, Any], check: bool) -> dict[str, Any]:
        """Each layer's own `what` of its tensor, by name; matrices of one norm, shape and kind are taken together."""
        self._require_names(tensors)
        found: dict[str, Any] = {}
        stacks: dict[Any, list[tuple[str, Tensor, tuple[int, ...]]]] = {}
        for name, norm in self.norms.items():
            if isinstance(norm, Modular):
                found[name] = getattr(norm, what)(tensors[name], check=check)
                continue
            x = to_tensor(tensors[name], name)
            shape = tuple(x.shape)
            x = x.reshape(-1, 1) if x.ndim < 2 else x
            stacks.setdefault((norm, tuple(x.shape), x.dtype, x.device), []).append((name, x, shape))
        for (norm, _, _, _), members in stacks.items():
            stacked = torch.stack([x for _, x, _ in members]) if len(members) > 1 else members[0][1][None]
            for (name, _, shape), value in zip(members, getattr(norm, what)(stacked, check=check), strict=True):
                found[name] = value.reshape(shape) if what == "dualize" else value
        return {name: found[name] for name in self.norms}

    def _require_names(self, tensors: Mapping[str, Any]) -> None:
        if not isinstance(tensors, Mapping):
            raise InputError(f"{type(tensors).__name__} given for the tensors of {list(self.norms)}; give a mapping")
        if tensors.keys() != self.norms.keys():
            missing, extra = self.norms.keys() - tensors.keys(), tensors.keys() - self.norms.keys()
            raise InputError(
                f"tensors lack {sorted(missing)} and hold {sorted(extra)} beyond the norms' names; give one tensor for "
                "each norm, zeros for what has no gradient"
            )

    def __str__(self) -> str:
        """A table: name, weight and norm, a line each, those of an inner Modular indented below it."""
        sign = {"max": "max s‖W‖", "sum": "Σ s‖W‖", "rss": "(Σ s²‖W‖²)^½"}[self.combine]
        rows = list(self._rows())
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        lines = [f"{name:<{widths[0]}}  {weight:>{widths[1]}}  {norm}".rstrip() for name, weight, norm in rows]
        return "\n".join([f"{sign} over {len(self.norms)} tensors", *lines])

    def _rows(self, indent: str = "") -> Iterator[tuple[str, str, str]]:
        for name, norm in self.norms.items():
            inner = isinstance(norm, Modular)
            yield f"{indent}{name}", f"{self._weight(name):g}", norm.combine if isinstance(norm, Modular) else str(norm)
            if inner:
                yield from norm._rows(indent + "  ")

    __repr__ = __str__


def _times(T: Any, factor: Tensor) -> Any:
    """T times a factor; for a batch (*b, m, n) one of (*b), for a mapping or a vector one number."""
    if isinstance(T, Mapping):
        return {name: _times(t, factor) for name, t in T.items()}
    return T * factor.to(T)[(..., *([None] * (T.ndim - factor.ndim)))]


def _lengths(T: Any, like: Tensor) -> Tensor:
    """The Frobenius norms of T's matrices, shaped as `like`; of a mapping as a whole."""
    if isinstance(T, Mapping):
        parts = [_lengths(t, like.new_zeros(())).to(like) for t in T.values()]
        return torch.stack(parts).square().sum().sqrt()
    return T.double().reshape(*like.shape, -1).norm(dim=-1)


def _joined(values: list[Tensor]) -> Tensor:
    """All numbers in one vector, in their widest dtype, on the first one's device."""
    dtype = values[0].dtype
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return torch.cat([value.to(values[0].device, dtype).flatten() for value in values])


def _root_sum_square(x: Tensor) -> Tensor:
    """‖x‖₂ without squares that leave the number type."""
    size = x.abs().amax()
    return size * (x / size.where(size > 0, 1.0)).norm()


def _require_sharpness(sharpness: float) -> None:
    if not 0 < sharpness < float("inf"):
        raise InputError(f"sharpness={sharpness!r} must be finite and above 0: it divides the step")
