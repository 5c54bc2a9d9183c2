"""Factors one by one with coefficients that go into α alone, against U p(g) Vᵀ from the SVD."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from icm.maps import apply
from icm.maps.composition import Composition
from icm.maps.iteration import carried, settled
from icm.maps.symmetric import Products

MAPS = {
    "cubic": ((1.5, -0.5),),
    "quintic": ((1.9, -2.1, 0.9),),
    "mixed": ((2.1, -1.9), (1.3, -1.2, 0.7)),
    "signs": ((-1.9, 2.1, -0.9), (0.3, 0.9, -0.1)),
    "muon": ((3.4445, -4.775, 2.0315),) * 5,
}


@dataclass(frozen=True)
class Watched(Products):
    """Products that note every β."""

    betas: list[float] = field(default_factory=list)

    def __call__(self, A: Tensor, B: Tensor, C: Tensor | None = None, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
        self.betas.append(beta if C is not None else 0.0)
        return super().__call__(A, B, C, beta, alpha)


def by_svd(factors: tuple, G: Tensor) -> Tensor:
    U, g, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return U @ (Composition(factors)(g)[..., None] * Vh)


def away(Q: Tensor, wanted: Tensor) -> float:
    return float((Q.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("shape", [(5, 5), (6, 11), (3, 7, 9)])
@pytest.mark.parametrize("name", MAPS)
def test_it_is_the_composition_to_rounding(name: str, shape: tuple[int, ...], rng: torch.Generator) -> None:
    G = torch.randn(*shape, generator=rng, dtype=torch.float64)
    G = G / torch.linalg.matrix_norm(G, 2).max()
    share = settled(MAPS[name])
    assert share is not None
    assert math.isclose(share, math.prod(c[0] for c in MAPS[name]))
    assert away(carried(share * G, MAPS[name], share, Products()), by_svd(MAPS[name], G)) < 1e-12


@pytest.mark.parametrize("name", MAPS)
def test_every_beta_is_one_of_three(name: str, rng: torch.Generator) -> None:
    watched, share = Watched(), settled(MAPS[name])
    assert share is not None
    carried(share * torch.randn(4, 6, generator=rng), MAPS[name], share, watched)
    assert set(watched.betas) <= {-1.0, 0.0, 1.0}
    # of a quintic the Gram matrix, its polynomial and the product with X; of a cubic two of these
    assert len(watched.betas) == sum(len(c) for c in MAPS[name])


@pytest.mark.parametrize("shape", [(64, 64), (40, 150), (150, 40), (5, 32, 32)])
@pytest.mark.parametrize("name", MAPS)
def test_in_bfloat16_roundings_are_no_larger_than_by_plain_products(
    name: str, shape: tuple[int, ...], rng: torch.Generator
) -> None:
    G = torch.randn(*shape, generator=rng) * 1e-7
    size = torch.linalg.matrix_norm(G, 2).double()
    wanted = by_svd(MAPS[name], G / size[..., None, None])
    found = apply(Composition(MAPS[name]), G, size, "bf16", "direct")
    assert away(found, wanted) < 1.15 * away(plain(MAPS[name], G / size[..., None, None]), wanted) + 1e-4


def plain(factors: tuple, X: Tensor) -> Tensor:
    """The same in float32 with each result rounded to bfloat16."""
    tall = X.shape[-2] > X.shape[-1]
    X = (X.mT if tall else X).bfloat16()
    for first, second, *third in factors:
        R = (X.float() @ X.float().mT).bfloat16().float()
        S = (second * R + sum(c * (R @ R) for c in third)).bfloat16().float()
        X = (first * X.float() + S @ X.float()).bfloat16()
    return X.mT if tall else X


@pytest.mark.parametrize(
    "factors",
    [
        ((0.0, 1.0),),
        ((1.0, 0.0, 1.0),),
        ((1.0, -0.5), (1e-9, 1.0)),
        ((2.0, 1.0, 1.0, 1.0),),
        ((3.0,),),
        ((1e5, 1.0), (1e5, 1.0)),
    ],
)
def test_what_would_be_divided_by_nearly_nothing_is_left_to_others(factors: tuple) -> None:
    assert settled(factors) is None
    assert settled([(None, torch.ones(())), (torch.ones(()),)]) is None
