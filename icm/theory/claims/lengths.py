"""Norms of matrices and their duals in balls, from entries and singular values, beside the classes of icm.norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from icm import norms
from icm.ball import Ball, norm, stack
from icm.theory.case import Case
from icm.theory.instances import Instances, rotate, spectra

_EXPONENT = (
    1e-14  # relative, with room: what rounding q = p/(p − 1) does to ‖x‖_q, whose logarithm has slope ≤ log k/q²
)


def vector(x: Ball, p: float) -> Ball:
    """‖x‖_p over the last dimension, x ≥ 0."""
    if p == 1:
        return x.sum()
    if math.isinf(p):
        return x.amax()
    if p == 2:
        return norm(x)
    size = x.upper.amax(-1, keepdim=True)
    size = torch.exp2(size.where(size > 0, 1.0).log2().floor())  # a power of two: dividing rounds nothing
    found = ((x / size) ** p).sum().root(p) * size[..., 0]
    return Ball(found.middle, found.radius + _EXPONENT * found.middle, found.rigour)


def conjugate(p: float) -> float:
    """q with 1/p + 1/q = 1."""
    return math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)


def entries(W: Tensor) -> Ball:
    return Ball.of(W.flatten(1).abs())


def rows(W: Tensor, p: float) -> Ball:
    """‖row_i‖_p (B, m)."""
    return vector(Ball.of(W.abs()), p)


def columns(W: Tensor, p: float) -> Ball:
    """‖col_j‖_p (B, n)."""
    return rows(W.mT, p)


def _root(x: float) -> Ball:
    return Ball.of(x).sqrt()


def largest(g: Ball, k: int) -> Ball:
    """Ky Fan's dual, max(g_1, Σg/k)."""
    return stack([g[:, 0], g.sum() / float(k)]).amax()


Value = Callable[[Case, Tensor, float], Ball]


@dataclass(frozen=True)
class Length:
    """A norm: its class in icm.norms for a p, and its value and dual in balls. `choices` are p's to draw."""

    make: Callable[[float], norms.Norm]
    value: Value
    dual: Value
    choices: tuple[float, ...] = (2.0,)


_P = (1.0, 1.2, 1.5, 2.0, 3.0, 4.5, 12.0, math.inf)

LENGTHS: tuple[Length, ...] = (
    Length(lambda p: norms.Frobenius(), lambda c, W, p: norm(entries(W)), lambda c, G, p: norm(entries(G))),
    Length(lambda p: norms.MaxEntry(), lambda c, W, p: entries(W).amax(), lambda c, G, p: entries(G).sum()),
    Length(lambda p: norms.EntrySum(), lambda c, W, p: entries(W).sum(), lambda c, G, p: entries(G).amax()),
    Length(
        norms.Schatten,
        lambda c, W, p: vector(c.spectrum(W), p),
        lambda c, G, p: vector(c.spectrum(G), conjugate(p)),
        _P,
    ),
    Length(
        norms.ColumnNorm,
        lambda c, W, p: columns(W, p).amax(),
        lambda c, G, p: columns(G, conjugate(p)).sum(),
        _P,
    ),
    Length(
        norms.RowNorm,
        lambda c, W, p: rows(W, conjugate(p)).amax(),
        lambda c, G, p: rows(G, p).sum(),
        _P,
    ),
    Length(
        lambda p: norms.RMSToRMS(),
        lambda c, W, p: c.spectrum(W)[:, 0] * _root(W.shape[2] / 1.0) / _root(W.shape[1] / 1.0),
        lambda c, G, p: c.spectrum(G).sum() * _root(G.shape[1] / 1.0) / _root(G.shape[2] / 1.0),
    ),
    Length(
        lambda p: norms.OneToRMS(),
        lambda c, W, p: columns(W, 2.0).amax() / _root(float(W.shape[1])),
        lambda c, G, p: columns(G, 2.0).sum() * _root(float(G.shape[1])),
    ),
    Length(
        lambda p: norms.KyFan(int(p)),
        lambda c, W, p: c.spectrum(W)[:, : int(p)].sum(),
        lambda c, G, p: largest(c.spectrum(G), int(p)),
        (1.0, 2.0, 3.0),
    ),
)
MAX_ENTRY, SPECTRAL = LENGTHS[1], LENGTHS[3]


def kinds(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """A norm of the list and its p, one for the whole batch."""
    kind = int(rng.integers(len(LENGTHS)))
    choices = LENGTHS[kind].choices
    p = choices[int(rng.integers(len(choices)))]
    size = len(made)
    return {"kind": torch.full((size,), kind), "p": torch.full((size,), p, dtype=torch.float64)}


def kind(case: Case) -> tuple[Length, float]:
    """The norm of a batch, and its p."""
    return LENGTHS[int(case["kind"][0])], float(case["p"][0])


def others(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """Any matrix of the shape, how much of it is mixed in, a length to scale by, and a sharpness."""
    size = len(made)
    W = rotate(rng, spectra(rng, size, made.k)[0], made.m, made.n)
    sparse = torch.from_numpy((rng.random((size, made.m, made.n)) < 0.3) * rng.standard_normal((size, made.m, made.n)))
    W = torch.where(torch.from_numpy(rng.random((size, 1, 1)) < 0.3), sparse, W)
    near = rng.random(size) < 0.3
    stretch = torch.from_numpy(near * 1.0 + ~near * 10 ** rng.uniform(-1, 1, size))
    mix = torch.from_numpy(10 ** rng.uniform(-9, 1, size))
    return {"W": W, "mix": mix, "stretch": stretch, "sharpness": torch.from_numpy(10 ** rng.uniform(-2, 2, size))}


def beside(T: Tensor, W: Tensor, mix: Tensor) -> Tensor:
    """T + mix W, W at the Frobenius norm of T."""
    size = torch.linalg.matrix_norm(T) / torch.linalg.matrix_norm(W).clamp(min=1e-300)
    return T + (mix * size)[:, None, None] * W


def exact_inner(A: Tensor, B: Tensor) -> Ball:
    """⟨A, B⟩ (B,) for tensors (B, …)."""
    return (Ball.of(A.flatten(1)) * B.flatten(1)).sum()


def nonzero(case: Case) -> Tensor:
    """G ≠ 0."""
    return case.G.abs().amax((1, 2)) > 0
