"""Tensors that are no plain matrix as stacks of matrices for norms: biases, and convolutions position by position."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from icm.optim.layout import Layout


class Column(Layout):
    """A whole tensor, of any shape, as one column d × 1."""

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Every tensor is a column."""

    def __str__(self) -> str:
        return "column"

    def _views(self, tensor: Tensor) -> list[tuple[Tensor, int, int]]:
        return [(tensor.detach()[None, ..., None], 1, tensor.ndim)]


class KernelPositions(Layout):
    """A convolution as one matrix outputs × inputs for each position of its kernel, and each of its groups.

    Position by position it adds W_k x of an input moved by k, so that its RMS→RMS norm is at most Σ_k ‖W_k‖, which is
    at most K times the largest of them, K the number of positions.
    """

    def _views(self, tensor: Tensor) -> list[tuple[Tensor, int, int]]:
        x = tensor.detach().unflatten(0, (self.groups, -1))
        x = x.transpose(1, 2) if self.kind == "transposed-convolution" else x
        x = x.movedim((0, 1, 2), (-3, -2, -1))
        return [(x, x.ndim - 2, 1)]


def positions(shape: Sequence[int]) -> int:
    """K of a convolution stored in this shape."""
    return prod(shape[2:])
