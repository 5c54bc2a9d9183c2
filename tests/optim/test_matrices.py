"""One step of many parameters: together as one by one, in every layout, shape and number type, with decay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icm.optim import ICM, Layout
from tests.optim.steps import drifting, far, normal, parameter, polar, take, zeros

KINKED = "0.1*r^2 + 5*kink(1)"


def run(params: list[nn.Parameter], optimizer: ICM, seed: int = 0, steps: int = 4) -> None:
    for t in range(steps):
        take(optimizer, params, [normal(seed + 100 * t + i, *p.shape) for i, p in enumerate(params)])


@pytest.mark.parametrize(
    ("H", "backend"), [("wall(1)", "products"), (KINKED, "products"), ("wall(1)", "exact"), ("r^4", "exact")]
)
@pytest.mark.parametrize("cautious", [False, True])
def test_matrices_of_one_shape_move_together_as_one_by_one(H: str, backend: str, cautious: bool) -> None:
    shapes = [(12, 8), (8, 12), (12, 8), (8, 8), (12, 8), (8, 12)]
    options: dict[str, Any] = {"curvature": H, "backend": backend, "cautious": cautious, "precision": "fp32"}
    mine, theirs = ([parameter(i, *shape) for i, shape in enumerate(shapes)] for _ in range(2))
    together, apart = ICM(mine, 0.05, **options), [ICM([p], 0.05, **options) for p in theirs]
    for t in range(4):
        gradients = [normal(10 * t + i, *shape) for i, shape in enumerate(shapes)]
        take(together, mine, gradients)
        for p, optimizer, gradient in zip(theirs, apart, gradients, strict=True):
            take(optimizer, [p], [gradient])
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5 if backend == "products" else 1e-10)


LAYOUTS: list[tuple[Layout, tuple[int, ...], Any]] = [
    (Layout("transposed"), (8, 12), lambda x: [x.T]),
    (Layout(parts=(6, 6, 6)), (18, 8), lambda x: [x[:6], x[6:12], x[12:]]),
    (Layout(parts=(12, 4, 4)), (20, 8), lambda x: [x[:12], x[12:16], x[16:]]),
    (Layout(parts=(6, 6), heads=(2, 3)), (12, 8), lambda x: [x[:3], x[3:6], x[6:8], x[8:10], x[10:]]),
    (Layout(parts=(6, 6), blocks=2), (12, 8), lambda x: [x[[0, 1, 2, 6, 7, 8]], x[[3, 4, 5, 9, 10, 11]]]),
    (Layout("convolution"), (6, 3, 2, 2), lambda x: [x.reshape(6, 12)]),
    (Layout("convolution", groups=2), (6, 3, 2), lambda x: [x[:3].reshape(3, 6), x[3:].reshape(3, 6)]),
    (Layout("experts"), (3, 5, 8), list),
    (Layout("experts-transposed"), (3, 8, 5), lambda x: [one.T for one in x]),
]


@pytest.mark.parametrize(("layout", "shape", "cut"), LAYOUTS, ids=lambda x: str(x) if isinstance(x, Layout) else "")
@pytest.mark.parametrize("H", ["wall(1)", KINKED])
@pytest.mark.parametrize("cautious", [False, True])
def test_a_step_is_that_of_the_matrices_stored_apart(
    layout: Layout, shape: tuple[int, ...], cut: Any, H: str, cautious: bool
) -> None:
    """Fused layers, heads, convolutions, experts: cut by hand, stepped as matrices, and put together again."""
    options: dict[str, Any] = {"curvature": H, "cautious": cautious, "precision": "fp32", "weight_decay": 0.5}
    whole = parameter(1, *shape)
    pieces = [nn.Parameter(piece.clone()) for piece in cut(whole.detach())]
    joined, apart = ICM([{"params": [whole], "layout": layout}], 0.05, **options), ICM(pieces, 0.05, **options)
    for gradient in drifting(2, 4, *shape):
        take(joined, [whole], [gradient])
        take(apart, pieces, cut(gradient))
    for found, wanted in zip(cut(whole.detach()), pieces, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("H", ["wall(1)", KINKED])
def test_parameters_of_16_bits_have_momentum_in_float32(dtype: torch.dtype, H: str) -> None:
    """The momentum is that of a float32 copy to the last bit, and the step its step, rounded once."""
    p = parameter(1, 16, 24, dtype=dtype)
    copy = nn.Parameter(p.detach().float())
    mine, theirs = ICM([p], 0.02, H), ICM([copy], 0.02, H)
    for gradient in drifting(3, 6, 16, 24, dtype=dtype):
        with torch.no_grad():
            copy.copy_(p)
        take(mine, [p], [gradient])
        take(theirs, [copy], [gradient])
        buffer = mine.state[p]["momentum_buffer"]
        assert buffer.dtype == torch.float32
        assert torch.equal(buffer, theirs.state[copy]["momentum_buffer"])
        # Decay and step are each rounded to the number type: half a unit of the last place for either.
        unit = torch.finfo(dtype).eps
        assert float((p.float() - copy).abs().max()) <= 1.01 * unit * float(copy.abs().max())


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("H", ["wall(1)", KINKED, "r^4"])
@pytest.mark.parametrize("backend", ["products", "exact"])
def test_matrices_of_one_row_or_column(shape: tuple[int, int], H: str, backend: str) -> None:
    """k = 1: every H gives the normalised gradient."""
    p = zeros(*shape)
    gradient = normal(4, *shape)
    take(ICM([p], 1.0, H, weight_decay=0.0, scaling="original", backend=backend), [p], [gradient])
    if min(shape) == 1:
        wanted = -(max(1, shape[0] / shape[1]) ** 0.5) * gradient / gradient.norm()
        assert far(p.detach(), wanted) < (2e-2 if backend == "products" else 1e-8)
    assert bool(p.isfinite().all())


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("H", ["wall(1)", KINKED])
@pytest.mark.parametrize("scaling", ["match-rms-adamw", "spectral", "original", "none"])
def test_parameters_without_entries_are_passed_over(shape: tuple[int, int], H: str, scaling: Any) -> None:
    empty, other, alone = zeros(*shape), parameter(1, 5, 4), parameter(1, 5, 4)
    for backend in ("products", "exact"):
        both = ICM([empty, other], 0.1, H, scaling=scaling, backend=backend)
        single = ICM([alone], 0.1, H, scaling=scaling, backend=backend)
        take(both, [empty, other], [torch.zeros(shape), normal(2, 5, 4)])
        take(single, [alone], [normal(2, 5, 4)])
    assert torch.equal(other, alone)


def test_cautious_decay_spares_the_weights_that_the_step_lets_grow() -> None:
    """By hand, in NumPy: w ← w − lr·λ·w where w and the update have one sign, then w ← w − update."""
    p = parameter(5, 9, 6)
    optimizer = ICM([p], 0.1, momentum=0.5, nesterov=False, weight_decay=0.7, cautious=True, scaling="original",
                    backend="exact")  # fmt: skip
    W, B = p.detach().numpy().copy(), np.zeros((9, 6))
    for t in range(5):
        gradient = normal(10 + t, 9, 6)
        take(optimizer, [p], [gradient])
        B = 0.5 * B + 0.5 * gradient.numpy()
        update = 0.1 * np.sqrt(9 / 6) * polar(torch.from_numpy(B)).numpy()
        W = W - 0.1 * 0.7 * W * (np.sign(update) == np.sign(W)) - update
        np.testing.assert_allclose(p.detach().numpy(), W, rtol=0, atol=1e-12)


def test_a_gradient_and_a_weight_stored_the_other_way_round_take_the_same_step() -> None:
    """Strides of weights, gradients and momenta do not matter."""
    steps = []
    for turn in (False, True):
        W: Tensor = normal(6, 10, 7)
        p = nn.Parameter(W.T.contiguous().T if turn else W)
        optimizer = ICM([p], 0.1, KINKED, precision="fp32")
        for t in range(3):
            G = normal(20 + t, 10, 7)
            p.grad = G.T.contiguous().T if turn == (t % 2 == 0) else G
            optimizer.step()
        steps.append(p.detach())
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=1e-6)
