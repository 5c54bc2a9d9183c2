"""How a parameter's tensor is seen as stacks of matrices, outputs × inputs, and how an update goes back into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from icm.errors import InputError

Kind = Literal["matrix", "transposed", "convolution", "transposed-convolution", "experts", "experts-transposed"]

_STORED = {
    "matrix": "(outputs, inputs)",
    "transposed": "(inputs, outputs)",
    "convolution": "(outputs, inputs/groups, *kernel)",
    "transposed-convolution": "(inputs, outputs/groups, *kernel)",
    "experts": "(*experts, outputs, inputs)",
    "experts-transposed": "(*experts, inputs, outputs)",
}


@dataclass(frozen=True)
class Layout:
    """How a tensor is cut into stacks (B, m, n), m outputs × n inputs. `kind` says how it is stored:

    - "matrix" (m, n), as nn.Linear; "transposed" (n, m), as Hugging Face's Conv1D;
    - "convolution" (out, in/groups, *kernel): B = groups matrices out/groups × (in/groups · kernel), what one output
      pixel reads;
    - "transposed-convolution" (in, out/groups, *kernel): B = groups matrices (out/groups · kernel) × in/groups, what
      one input pixel writes, so the transpose of the convolution it is the adjoint of;
    - "experts" (*experts, m, n); "experts-transposed" (*experts, n, m).

    Along the outputs, each kind but the transposed convolution may hold several layers:

    - `parts`: their rows, one stack each; (768, 256, 256) is a fused query, key and value with fewer key heads. Empty:
      one layer.
    - `heads`: per part, into how many matrices of consecutive rows it is cut, (12, 4, 4) for a matrix per attention
      head. Empty: none is cut.
    - `blocks`: rows come in so many blocks, each with its share of every part in turn; GPT-NeoX and BLOOM store
      (heads, 3, head size), so blocks = heads. 1: part after part.

    Raises InputError for counts below 1, heads that are not one per part or no multiple of the blocks, and parts that
    the blocks or heads do not divide.
    """

    kind: Kind = "matrix"
    parts: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    blocks: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _STORED:
            raise InputError(f"layout kind {self.kind!r} is unknown; choose from {', '.join(_STORED)}")
        if min(*self.parts, *self.heads, self.blocks, self.groups) < 1:
            raise InputError(f"{self!r}: every count is at least 1; leave out what the tensor does not have")
        if self.groups > 1 and "convolution" not in self.kind:
            raise InputError(f"groups={self.groups} belongs to convolutions; for {self.kind!r} use parts or heads")
        if self.divided and (self.kind == "transposed-convolution" or self.groups > 1):
            raise InputError(
                f"{self!r}: a grouped or transposed convolution is not cut further; leave out parts, heads"
            )
        if self.blocks > 1 and not self.parts:
            raise InputError(f"blocks={self.blocks} says how parts alternate; give the rows of the parts too")
        if self.heads and len(self.heads) != (len(self.parts) or 1):
            raise InputError(f"heads={self.heads} must name one count for each of {len(self.parts) or 1} parts")
        for index, rows in enumerate(self.parts):
            heads = self.heads[index] if self.heads else 1
            if rows % self.blocks or rows % heads or (heads > 1 and heads % self.blocks):
                raise InputError(
                    f"part {index} has {rows} rows, {heads} heads and {self.blocks} blocks: blocks and heads must "
                    "divide the rows, and blocks the heads"
                )

    @property
    def divided(self) -> bool:
        return bool(self.parts or self.heads)

    def gather(self, tensor: Float[Tensor, "..."]) -> list[Float[Tensor, "_ _ _"]]:
        """The stacks (B, m, n), one per part, detached.

        Views where torch can, so that in-place changes reach `tensor`: for a contiguous one always, but for parts in
        `blocks` of several rows that are not one matrix per block. Else copies, for `scatter` or `add` to bring back.
        """
        return [_stack(*each) for each in self._views(tensor)]

    def scatter(self, tensor: Float[Tensor, "..."], pieces: Sequence[Float[Tensor, "_ _ _"]]) -> None:
        """Write into `tensor` that of which `gather` gives these pieces, whether or not gather had to copy."""
        for (view, _, _), piece in zip(self._views(tensor), pieces, strict=True):
            view.copy_(piece.reshape(view.shape))

    def add(self, tensor: Float[Tensor, "..."], pieces: Sequence[Float[Tensor, "_ _ _"]], alpha: float = 1.0) -> None:
        """tensor += alpha · (that of which `gather` gives these pieces), in place and without a copy of `tensor`."""
        for (view, _, _), piece in zip(self._views(tensor), pieces, strict=True):
            view.add_(piece.reshape(view.shape), alpha=alpha)

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """(B, m, n) of each stack that `gather` gives for a tensor of this shape."""
        cut = self._views(torch.empty(tuple(shape), device="meta"))
        return [_sizes(*each) for each in cut]

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Raise InputError naming the parameter if a tensor of this shape is not stored so."""
        shape = tuple(shape)
        fits = len(shape) == 2 if self.kind in ("matrix", "transposed") else len(shape) >= 3
        if not fits:
            raise InputError(f"{name} has shape {shape}, but layout {self.kind!r} is {_STORED[self.kind]}")
        if shape[0] % self.groups:
            raise InputError(f"{name} has shape {shape}; {self.groups} groups do not divide its first dimension")
        if not self.divided:
            return
        rows = shape[{"transposed": 1, "experts": -2, "experts-transposed": -1}.get(self.kind, 0)]
        if self.parts and sum(self.parts) != rows:
            raise InputError(
                f"{name} has shape {shape}, {_STORED[self.kind]}: its {rows} outputs are not the sum of the declared "
                f"parts {self.parts}, {sum(self.parts)}"
            )
        if not self.parts and rows % self.heads[0]:
            raise InputError(f"{name} has {rows} outputs, which {self.heads[0]} heads do not divide")

    def __str__(self) -> str:
        words: list[str] = [] if self.kind == "matrix" and self.divided else [self.kind]
        if self.groups > 1:
            words.append(f"{self.groups} groups")
        if self.parts:
            words.append("parts " + "+".join(map(str, self.parts)))
        if self.blocks > 1:
            words.append(f"in {self.blocks} blocks")
        if self.heads:
            words.append("heads " + "+".join(map(str, self.heads)))
        return ", ".join(words)

    def _views(self, tensor: Tensor) -> list[tuple[Tensor, int, int]]:
        """Per part a view (*B, *m, *n) of `tensor`, whatever its strides, and how many dimensions B and m have."""
        x = tensor.detach()
        if self.kind == "transposed-convolution":
            return [(x.unflatten(0, (self.groups, -1)).movedim(1, -1), 1, x.ndim - 1)]
        if self.kind == "convolution":
            x, b = x.unflatten(0, (self.groups, -1)), 1
        else:
            x = x.mT if "transposed" in self.kind else x
            x, b = (x, x.ndim - 2) if "experts" in self.kind else (x[None], 1)
        if not self.divided:
            return [(x, b, 1)]
        parts = self.parts or (x.shape[b],)
        pieces = x.unflatten(b, (self.blocks, -1)).split([rows // self.blocks for rows in parts], b + 1)
        heads = self.heads or (1,) * len(parts)
        return [
            (piece, b, 2) if count == 1 else (piece.unflatten(b + 1, (count // self.blocks, -1)), b + 2, 1)
            for piece, count in zip(pieces, heads, strict=True)
        ]


def _sizes(view: Tensor, b: int, m: int) -> tuple[int, int, int]:
    return prod(view.shape[:b]), prod(view.shape[b : b + m]), prod(view.shape[b + m :])


def _stack(view: Tensor, b: int, m: int) -> Tensor:
    return view.reshape(_sizes(view, b, m))
