"""Tensors as stacks: what torch's own convolutions make of the matrices, and that updates come back to their places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icm.optim.stacks import Column, KernelPositions, positions
from tests.optim.steps import normal


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_the_sum_of_its_kernel_positions_matrices(groups: int) -> None:
    conv = nn.Conv2d(4, 6, (2, 3), groups=groups, bias=False).double()
    (stack,) = KernelPositions("convolution", groups=groups).gather(conv.weight)
    assert stack.shape == (6 * groups, 6 // groups, 4 // groups)
    assert positions(conv.weight.shape) == 6
    x = normal(1, 1, 4, 2, 3)  # one output pixel
    by_group = x.reshape(groups, 4 // groups, 6).permute(2, 0, 1)  # position, group, channels
    wanted = conv(x).detach().flatten()
    W = stack.view(6, groups, 6 // groups, 4 // groups)
    assert torch.allclose((W @ by_group[..., None]).sum(0).flatten(), wanted, rtol=1e-12)


def test_a_transposed_convolution_writes_each_position_by_its_matrix() -> None:
    conv = nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False).double()
    (stack,) = KernelPositions("transposed-convolution", groups=2).gather(conv.weight)
    x = normal(1, 1, 4, 1, 1)
    out = conv(x).detach().reshape(2, 3, 4).permute(2, 0, 1)  # position, group, channels
    W = stack.view(4, 2, 3, 2)
    assert torch.allclose((W @ x.reshape(1, 2, 2, 1)).squeeze(-1), out, rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (5,), (2, 1, 3), (4, 3)])
def test_any_tensor_is_a_column(shape: tuple[int, ...]) -> None:
    x = normal(1, *shape)
    (stack,) = Column().gather(x)
    assert stack.shape == (1, x.numel(), 1)
    assert torch.equal(stack.flatten(), x.flatten())
    assert Column().shapes(shape) == [(1, x.numel(), 1)]


def test_updates_reach_tensors_that_are_not_contiguous() -> None:
    x = normal(1, 5, 3, 2, 4).mT
    for layout in (Column(), KernelPositions("convolution")):
        y, update = x.clone(memory_format=torch.preserve_format), normal(2, *x.shape)
        layout.add(y, layout.gather(update), alpha=-2.0)
        assert torch.equal(y, x - 2.0 * update)
        layout.scatter(y, layout.gather(update))
        assert torch.equal(y, update)


def test_stacks_are_told_apart_from_plain_layouts() -> None:
    from icm.optim.layout import Layout

    assert Column() != Layout()
    assert KernelPositions("convolution") == KernelPositions("convolution") != Layout("convolution")
    assert len({Column(), Column(), Layout()}) == 2
