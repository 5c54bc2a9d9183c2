"""Von Neumann's trace inequality: what alignment rests on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball, norm
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.curvatures import smooth
from icm.theory.instances import Instances, draw, orthonormal, spectra


def partners(rng: Generator, made: Instances) -> Mapping[str, Tensor]:
    """A Q for every G: any matrix, or G's singular vectors permuted, with signs flipped, or nearly aligned."""
    size, m, n, k = len(made), made.m, made.n, made.k
    U, _, Vh = torch.linalg.svd(made.G, full_matrices=False)
    x = spectra(rng, size, k)[0] * torch.from_numpy(10 ** rng.uniform(-3, 3, (size, 1)))
    kind = torch.from_numpy(rng.integers(4, size=size))[:, None, None]
    order = torch.from_numpy(rng.permuted(torch.arange(k).expand(size, k).numpy(), axis=1))
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], (size, k)))
    shuffled = (U * x.gather(1, order)[:, None, :]) @ Vh
    flipped = (U * (signs * x)[:, None, :]) @ Vh
    noise = torch.from_numpy(rng.standard_normal((size, m, n)) * 10 ** rng.uniform(-16, 0, (size, 1, 1)))
    near = (U * x[:, None, :]) @ Vh + noise * x.amax(-1)[:, None, None]
    free = (orthonormal(rng, size, m, k) * x[:, None, :]) @ orthonormal(rng, size, n, k).mT
    Q = free.where(kind == 0, shuffled.where(kind == 1, flipped.where(kind == 2, near)))
    return {"Q": Q}


def loss(case: Case, Q: Tensor) -> Ball:
    """Σ σ_i(Q) g_i − Tr(QGᵀ) (B,)."""
    return (case.spectrum(Q) * case.spectrum(case.G)).sum() - case.inner(Q, case.G)


def margin(case: Case) -> Ball:
    """The loss over ‖Q‖_F ‖G‖_F."""
    size = norm(case.spectrum(case["Q"])).middle * norm(case.spectrum(case.G)).middle
    return loss(case, case["Q"]) / size


von_neumann = Claim(
    name="von-neumann",
    statement="Tr(QGᵀ) ≤ Σ σ_i(Q) g_i for all m × n matrices Q and G.",
    latex=r"\operatorname{Tr}(QG^\top) \le \sum_i \sigma_i(Q)\,\sigma_i(G)",
    source="Su, arXiv 2511.00674, Lemma 4.1",
    margin=margin,
    draw=draw(smooth, rotated=True, extra=partners),
    proof="von-neumann",
)

CLAIMS = (von_neumann,)
