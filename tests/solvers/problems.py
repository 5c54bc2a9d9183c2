"""What the tests of `solve` share: curvatures, shapes, random matrices and a distance."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from icm import Exponential, Power
from icm.curvature import Curvature

SMOOTH: dict[str, Curvature] = {
    "r^1.3": Power(1.3),
    "r^2": Power(2.0, scale=0.7),
    "r^2.39": Power(2.39),
    "r^4": Power(4.0, scale=3.0),
    "r^7": Power(7.0),
    "exp(2)": Exponential(2.0),
    "r^2 + 0.5 r^4": Power(2.0) + 0.5 * Power(4.0),
    "r^1.5 + exp(1)": Power(1.5) + Exponential(1.0),
}
SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1)]
few = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))
curvatures = st.sampled_from(sorted(SMOOTH)).map(SMOOTH.__getitem__)


def matrix(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, n: int) -> Tensor:
    return torch.linalg.qr(matrix(seed, n, n)).Q


def distance(found: Tensor, exact: Tensor) -> float:
    """‖found − exact‖_F / ‖exact‖_F."""
    return float(torch.linalg.norm(found.double() - exact.double()) / torch.linalg.norm(exact.double()))
