"""One look at a batch of matrices: their spectra, σ* of each, and φ compiled, so that products are all that is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icm.curvature import Curvature, as_curvature
from icm.errors import InputError
from icm.maps.compiled import Compiled, Demand, compile_map, precisions_for, unit_roundoff
from icm.maps.error import spread
from icm.maps.polynomial import Precision, apply_coefficients
from icm.maps.routes import Name
from icm.maps.scalar import from_spectrum
from icm.maps.statistics import Method, Spectrum, spectrum
from icm.maps.warm import Near, solve_near
from icm.solvers.solution import Status
from icm.solvers.spectrum import solve_spectrum

_SOLVE_TOL = 1e-10  # of the reduced program, which costs little next to the products
_CORNERED_TOL = 1e-9
_FINE = 5e-3  # errors asked for below this need the statistics in float64


@dataclass(frozen=True, eq=False)
class Answers:
    """σ* (B, k) of spectra and of the others (B, k) next to them, float64; moved (B,), what may be missing of σ*,
    relative; status, iterations (B,), whether σ is one number by decision, flat (B,), and the margin of boundedness
    (B,), NaN where it was not needed."""

    sigma: Tensor
    other: Tensor
    moved: Tensor
    status: list[Status]
    iterations: Tensor
    flat: Tensor
    margin: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """What one look at a batch of matrices (B, m, n) tells: their spectra, σ* of each, and φ compiled; None where Q = 0
    or where there is no answer."""

    spectrum: Spectrum
    answers: Answers
    compiled: tuple[Compiled | None, ...]

    @property
    def domain(self) -> Tensor:
        """The ‖G‖₂ (B,) up to which the maps hold, float64; a quarter beyond that of G where Q = 0."""
        domains = [
            1.25 * float(top) if map is None else map.domain for map, top in zip(self.compiled, self.top, strict=True)
        ]
        return torch.tensor(domains, dtype=torch.float64)

    @property
    def top(self) -> Tensor:
        """‖G‖₂ (B,) when it was made, or a little more, float64."""
        return self.spectrum.top

    @property
    def length(self) -> Tensor:
        """‖σ‖₂ (B,), which is ‖Q‖_F for that G, float64."""
        return self.answers.sigma.norm(dim=-1)

    @property
    def errors(self) -> Tensor:
        """The bounds (B,) of ‖Q − Q*‖_F/‖Q*‖_F, float64; 0 where Q = 0."""
        return torch.tensor([0.0 if map is None else map.error.total for map in self.compiled], dtype=torch.float64)

    def __call__(self, G: Tensor) -> Tensor:
        """Q (B, m, n) for G (B, m, n) with singular values near those planned for.

        On a CPU one by one; elsewhere all matrices whose maps have the same degrees, precision and route at once, each
        with its own coefficients.
        """
        Q = torch.zeros_like(G)
        if G.device.type == "cpu":
            for i, map in enumerate(self.compiled):
                if map is not None:
                    Q[i] = map(G[i])
            return Q
        for rows, coefficients, scale, precision, route in stacks(self.compiled, G.device):
            Q[rows] = apply_coefficients(coefficients, G[rows], scale, precision, route)
        return Q


def stacks(
    compiled: Sequence[Compiled | None], device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor, Precision, Name]]:
    """Rows, coefficients (b, T, q + 1) with the lengths in them, scales (b,), precision and route of the maps that can
    be applied at once: those of the same degrees, precision and route."""
    found: dict[tuple, list[int]] = {}
    for i, map in enumerate(compiled):
        if map is not None:
            found.setdefault((map.composition.degrees, map.precision, map.route), []).append(i)
    made = []
    for (degrees, precision, route), rows in found.items():
        table = torch.zeros(len(rows), len(degrees), (max(degrees) + 1) // 2, dtype=torch.float64)
        maps = [map for i in rows if (map := compiled[i]) is not None]
        for j, map in enumerate(maps):
            for t, factor in enumerate(map.composition.rescaled(outside=map.length).factors):
                table[j, t, : len(factor)] = torch.tensor(factor, dtype=torch.float64)
        scale = torch.tensor([map.domain for map in maps], dtype=torch.float64)
        made.append((torch.tensor(rows).to(device), table.to(device), scale.to(device), precision, route))
    return made


def plan(
    G: Tensor,
    H: Curvature | str,
    tol: float,
    *,
    statistics: Method = "auto",
    precisions: tuple[Precision, ...] | None = None,
    margin: float = 1.0,
    previous: Sequence[Compiled | None] | None = None,
    most: int | None = None,
) -> Plan:
    """The plan for G (B, m, n) whose Q has an error within tol where that can be had.

    Statistics are in float32 first where tol allows it, and in float64 where that is not enough. `margin` ≥ 1 widens
    the domain of the maps beyond ‖G‖₂; `previous`, maps of matrices like these, are begun from; `most` bounds the
    products of a map, whose error may then exceed tol. Raises InputError for a G of other dimensions, GrammarError for
    a text that is no H.
    """
    if G.ndim != 3:
        raise InputError(f"G has shape {tuple(G.shape)}: a plan is for a stack (B, m, n); use G[None] for one matrix")
    H, (m, n) = as_curvature(H), G.shape[-2:]
    allowed = precisions or precisions_for(G.dtype, G.device)
    demand = Demand(tol, allowed, margin, most, unit_roundoff(G.dtype), max(m, n) / min(m, n))
    largest = torch.finfo(G.dtype).max
    if tol >= _FINE and G.dtype != torch.float64:
        made = plan_spectrum(spectrum(G, statistics, dtype=torch.float32), m, n, H, demand, previous, largest)
        if most is not None or bool((made.errors <= tol).all()):
            return made
    return plan_spectrum(spectrum(G, statistics, dtype=torch.float64), m, n, H, demand, previous, largest)


def plan_spectrum(
    known: Spectrum,
    outputs: int,
    inputs: int,
    H: Curvature,
    demand: Demand,
    previous: Sequence[Compiled | None] | None = None,
    largest: float = torch.finfo(torch.float64).max,
) -> Plan:
    """`plan` for a batch of spectra, of matrices outputs × inputs whose number type reaches to `largest`."""
    starts = previous or [None] * len(known.g)
    neighbours = [None if map is None else map.phi for map in starts]
    near = solve_near(known.g, known.other, inputs, H, demand.tol, neighbours)
    answers = _answers(known, near, outputs, inputs, H, largest)
    return Plan(known, answers, tuple(_compile(known[i], answers, i, demand, map) for i, map in enumerate(starts)))


def _answers(known: Spectrum, near: Near, outputs: int, dim: int, H: Curvature, largest: float) -> Answers:
    """From the neighbours where that was enough, and solved from nothing elsewhere."""
    count = len(known.g)
    answers = Answers(
        near.sigma,
        near.other,
        near.moved,
        [Status.OPTIMAL] * count,
        torch.ones(count, dtype=torch.long),
        torch.zeros(count, dtype=torch.bool),
        torch.full_like(near.moved, math.nan),
    )
    cold = (~near.found).nonzero()[:, 0]
    if not len(cold):
        return answers
    tol = _CORNERED_TOL if H.hinges or math.isfinite(H.wall) else _SOLVE_TOL
    g = torch.cat([known.g[cold], known.other[cold]])
    found = solve_spectrum(g, dim, H, tol=tol, outputs=outputs, largest=largest)
    half = len(cold)
    answers.sigma[cold], answers.other[cold] = found.sigma[:half], found.sigma[half:]
    answers.moved[cold], answers.iterations[cold] = 0.0, found.iterations[:half]
    if found.flat is not None:
        answers.flat[cold] = found.flat.held[:half]
    if found.margin is not None:
        answers.margin[cold] = found.margin[:half]
    for i, status in zip(cold.tolist(), found.status[:half], strict=True):
        answers.status[i] = status
    return answers


def _compile(one: Spectrum, answers: Answers, i: int, demand: Demand, start: Compiled | None) -> Compiled | None:
    sigma, other, flat = answers.sigma[i], answers.other[i], bool(answers.flat[i])
    if not bool(torch.isfinite(sigma).all()) or not bool((sigma > 0).any()):
        return None
    phi = from_spectrum(one.g, sigma, flat)
    # What φ owes to the spectrum it was solved for: how far that of another, at the edge of what is known, is from it.
    unsure = spread(sigma, from_spectrum(one.other, other, flat), one.g) if bool((other > 0).any()) else 1.0
    return compile_map(phi, one, demand, start, flat, unsure + float(answers.moved[i]))
