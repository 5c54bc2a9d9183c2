"""One gradient, several curvatures: what each update looks like beside G itself and its polar factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icm.curvature import Curvature
from icm.errors import InputError
from icm.program import Program
from icm.solvers.solution import Solution
from icm.solvers.solve import solve_program


@dataclass(frozen=True)
class Summary:
    """Scale-free figures of a spectrum σ beside the gradient's g, both of one matrix with n inputs.

    condition: σ₁/σ_r over the rank r of G; cosine_gradient = ⟨σ, g⟩/(‖σ‖‖g‖); cosine_polar = Σ_{i≤r} σ_i/(√r ‖σ‖);
    effective_rank = (Σσ²)²/Σσ⁴; stable_rank = Σσ²/σ₁²; spread = sd(s)/E s of s = ‖Qζ‖², from
    Var s/(E s)² = 2/(n+2) · (n/effective_rank − 1): where it is small, a smooth H sees only one length.
    """

    condition: float
    cosine_gradient: float
    cosine_polar: float
    effective_rank: float
    stable_rank: float
    spread: float


def summarise(sigma: Tensor, g: Tensor, dim: int, eps: float = torch.finfo(torch.float64).eps) -> Summary:
    """The Summary of sigma (k,) for a gradient with singular values g (k,), descending; entries of g below
    eps · dim · g₁ count as zero."""
    sigma, g = sigma.double(), g.double()
    rank = int((g > eps * dim * g[0]).sum())
    if rank == 0 or not float(sigma.amax()) > 0:
        nan = float("nan")
        return Summary(nan, nan, nan, nan, nan, nan)
    s, t = sigma / sigma.amax(), g / g.amax()
    energy = s.square().sum()
    effective = float(energy.square() / s.pow(4).sum())
    return Summary(
        condition=float(s[:rank].amax() / s[:rank].amin()),
        cosine_gradient=float((s * t).sum() / (energy.sqrt() * t.norm())),
        cosine_polar=float(s[:rank].sum() / (rank**0.5 * energy.sqrt())),
        effective_rank=effective,
        stable_rank=float(energy),
        spread=(max(0.0, 2 / (dim + 2) * (dim / effective - 1))) ** 0.5,
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Solutions of one G (m, n) under several H, in the order given. `summaries` holds their figures, `gradient` and
    `polar` those of G and of its polar factor."""

    solutions: tuple[Solution, ...]
    summaries: tuple[Summary, ...]
    gradient: Summary
    polar: Summary

    def plot(self, path: str | Path | None = None) -> Any:
        """The spectra of all updates against that of G, each over its largest; saved if `path` is given."""
        from icm.plots import plot_spectra

        return plot_spectra(list(self.solutions), path=path)


def compare(G: Any, curvatures: Sequence[Curvature | str], *, input_moment: Any = None, **options: Any) -> Comparison:
    """Solve one matrix G (m, n) for every H in `curvatures`; `input_moment` and `options` as in `solve`. With an input
    moment C the figures are those of Q C^{1/2} beside G C^{−1/2} and its polar factor.

    Raises InputError for an empty list or a batched G, and whatever `solve` raises.
    """
    if isinstance(curvatures, (str, Curvature)) or not len(curvatures):
        raise InputError(f"curvatures={curvatures!r}: give a list of at least one, e.g. ['r^2', icm.Power(3.0)]")
    first = Program(G, curvatures[0], input_moment)
    programs = [first, *(Program(G, H, first.ellipsoid) for H in curvatures[1:])]
    if programs[0].G.ndim != 2:
        raise InputError(f"compare takes one matrix, not a batch of shape {tuple(programs[0].G.shape)}; index it first")
    reduced = programs[0].reduce()
    with torch.no_grad():
        solutions = tuple(solve_program(p, reduced=replace(reduced, H=p.H), **options) for p in programs)
    g, dim = reduced.g, reduced.dim
    eps = torch.finfo(solutions[0].Q.dtype).eps
    summaries = tuple(summarise(s.sigma.nan_to_num(0.0), g, dim, eps) for s in solutions)
    polar = summarise((g > eps * dim * g[0]).double(), g, dim, eps)
    return Comparison(solutions, summaries, summarise(g, g, dim, eps), polar)
