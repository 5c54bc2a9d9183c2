"""φ: the odd increasing function that a solution applies to the singular values of G."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icm.arrays import to_tensor
from icm.errors import InputError
from icm.solvers import Solution

Scaling = Literal["absolute", "equivariant", "invariant"]

_NODES = 1025  # of an interpolated φ at most


@dataclass(frozen=True, eq=False)
class ScalarMap:
    """An odd, nondecreasing φ on [−top, top] with φ(0) = 0, for singular values of G.

    `jumps`: whether φ(0+) > 0, as for the sign. `function` takes and returns float64 tensors of numbers in [0, top].
    `scaling` says what a map does to a G of any size s ≥ ‖G‖₂: "absolute" U φ(g) Vᵀ, which needs ‖G‖₂ ≤ top;
    "equivariant" (s/top) U φ(g·top/s) Vᵀ, so that cG goes to c times as much; "invariant" U φ(g·top/s) Vᵀ, free of
    scale.

    Raises InputError for a top that is not a finite positive number, or a φ that decreases, is negative or not finite
    at one of 1025 points of [0, top].
    """

    function: Callable[[Tensor], Tensor]
    top: float = 1.0
    scaling: Scaling = "equivariant"
    name: str = "φ"
    jumps: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.top, (int, float)) and math.isfinite(self.top) and self.top > 0):
            raise InputError(f"top={self.top!r}: φ is given on [0, top]; top is a finite number > 0")
        if self.scaling not in ("absolute", "equivariant", "invariant"):
            raise InputError(f"scaling={self.scaling!r}: choose 'absolute', 'equivariant' or 'invariant'")
        if isinstance(self.function, Curve):
            return  # which increases by construction
        x = self.top * torch.cat([torch.logspace(-12, -1, 512, dtype=torch.float64), torch.linspace(0.1, 1, 513)])
        y = self(x)
        if not bool(torch.isfinite(y).all() & (y >= 0).all()):
            at = float(x[~(torch.isfinite(y) & (y >= 0))][0])
            raise InputError(
                f"{self.name}({at:.6g}) = {float(self(torch.tensor([at]))):.6g}: φ is finite and ≥ 0 there"
            )
        falls = y.diff() < -1e-12 * y.amax()
        if bool(falls.any()):
            i = int(falls.nonzero()[0, 0])
            raise InputError(
                f"{self.name} falls from {float(y[i]):.9g} at {float(x[i]):.6g} to {float(y[i + 1]):.9g} at "
                f"{float(x[i + 1]):.6g}: a solution keeps the order of the singular values, so φ increases"
            )

    def __call__(self, x: Any) -> Float[Tensor, "*shape"]:
        """φ(x), elementwise, odd, float64; φ(0) = 0."""
        x = to_tensor(x, "x").double()
        return x.sign() * self.function(x.abs()).where(x != 0, 0.0)

    @classmethod
    def from_solution(cls, solution: Solution) -> ScalarMap:
        """φ with φ(g_i) = σ*_i, for a single solution: log σ as a monotone cubic in log g between them, φ linear below
        the smallest (constant where Q is a multiple of the polar factor) and a power beyond the largest.

        Raises InputError for a batch, an unbounded program, or Q = 0 for G ≠ 0 (no product is needed for φ = 0).
        """
        if solution.value.ndim:
            shape = tuple(solution.value.shape)
            raise InputError(f"the solution holds a batch of shape {shape}; φ is that of one element")
        return from_spectrum(solution.g, solution.sigma.double(), flat=bool(solution.orthogonal))

    def __repr__(self) -> str:
        return f"ScalarMap({self.name} on [0, {self.top:.6g}], {self.scaling})"


def sign() -> ScalarMap:
    """φ = sign: the polar factor UVᵀ."""
    return ScalarMap(torch.ones_like, scaling="invariant", name="sign", jumps=True)


def from_spectrum(g: Float[Tensor, " k"], sigma: Float[Tensor, " k"], flat: bool = False) -> ScalarMap:
    """φ with φ(g_i) = σ_i for g descending and σ ordered like it, as in `ScalarMap.from_solution`; `flat`:
    a multiple of the sign.

    Raises InputError where σ is not finite or zero throughout.
    """
    g, sigma = g.detach().double().cpu(), sigma.detach().double().cpu()
    live = (g > 1e-12 * g.amax()) & (sigma > 0)
    if not bool(torch.isfinite(sigma).all()) or not bool(live.any()):
        raise InputError(
            f"sigma runs from {float(sigma.min()):.6g} to {float(sigma.max()):.6g}: there is no increasing φ with "
            "these values (the program is unbounded, or Q = 0)"
        )
    x, y = g[live].flip(0), sigma[live].flip(0).cummax(0).values
    top = float(x[-1])
    if flat:
        radius = float(y.mean())
        return ScalarMap(Level(radius), top, "absolute", f"{radius:.6g}·sign", jumps=True)
    return ScalarMap(Curve(*_thinned(x, y)), top, "absolute", "φ of a solution")


@dataclass(frozen=True)
class Level:
    """t ↦ radius."""

    radius: float

    def __call__(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.radius)


@dataclass(frozen=True, eq=False)
class Curve:
    """A monotone cubic in log–log through (x, y), float64, ascending; linear below, a power beyond.

    Raises InputError for x that do not ascend or y that fall, or are not finite and positive.
    """

    x: Float[Tensor, " count"]
    y: Float[Tensor, " count"]

    def __post_init__(self) -> None:
        x, y = self.x.cpu().numpy(), self.y.cpu().numpy()
        rises = x[0] > 0 and y[0] > 0 and x[-1] < math.inf and y[-1] < math.inf
        if not (rises and (x[1:] > x[:-1]).all() and (y[1:] >= y[:-1]).all()):
            raise InputError(
                f"a curve through {len(x)} points from ({x[0]:.6g}, {y[0]:.6g}) to ({x[-1]:.6g}, {y[-1]:.6g}): x "
                "ascends and y does not fall, both positive and finite, since φ increases"
            )

    def __call__(self, t: Tensor) -> Tensor:
        first, top = float(self.x[0]), float(self.x[-1])
        ratio, last = float(self.y[0]) / first, float(self.y[-1])
        if self._between is None:
            return ratio * t
        inner = t.clamp(first, top).log().cpu().numpy()
        value = torch.from_numpy(np.asarray(self._between(inner))).to(t).exp()
        above = t > top
        if bool(above.any()):
            value = torch.where(above, last * (t / top) ** self._end, value)
        return torch.where(t < first, ratio * t, value)

    def thinned(self, count: int) -> Curve:
        """Through so many of the points at most, spread over their index."""
        if len(self.x) <= count:
            return self
        index = torch.linspace(0, len(self.x) - 1, count).round().long()
        return Curve(self.x[index], self.y[index])

    @cached_property
    def _between(self) -> Callable[..., Any] | None:
        return monotone_cubic(self.x.log().numpy(), self.y.log().numpy()) if len(self.x) > 1 else None

    @cached_property
    def _end(self) -> float:
        return (
            1.0 if self._between is None else min(max(float(self._between(math.log(float(self.x[-1])), 1)), 0.0), 1.0)
        )


def monotone_cubic(x: np.ndarray, y: np.ndarray) -> Callable[..., Any]:
    """The piecewise cubic through (x, y), x ascending, y not falling, that does not fall either.

    Its slopes are weighted harmonic means of the secants beside them (Fritsch & Butland, SIAM J. Sci. Stat. Comput. 5,
    1984), at the ends those of a parabola where they are positive: `scipy.interpolate.PchipInterpolator`, whose checks
    cost more than the rest.
    """
    from scipy.interpolate import PPoly

    h = np.diff(x)
    secant = np.diff(y) / h
    slope = np.empty_like(y)
    left, right = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope[1:-1] = (left + right) / (left / secant[:-1] + right / secant[1:])
    slope[1:-1][(secant[:-1] == 0) | (secant[1:] == 0)] = 0.0
    for end, inner in ((0, 1), (-1, -2)) if len(h) > 1 else ():
        parabola = ((2 * h[end] + h[inner]) * secant[end] - h[end] * secant[inner]) / (h[end] + h[inner])
        slope[end] = max(parabola, 0.0)
    if len(h) == 1:
        slope[:] = secant[0]
    bend = (slope[:-1] + slope[1:] - 2 * secant) / h
    return PPoly.construct_fast(np.stack([bend / h, (secant - slope[:-1]) / h - bend, slope[:-1], y[:-1]]), x)


def _thinned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct nodes, increasing, at most `_NODES` of them, spread over their index and over log x alike."""
    keep = torch.cat([torch.ones(1, dtype=torch.bool), x.diff() > 1e-9 * x[1:]])
    x, y = x[keep], y[keep]
    if len(x) <= _NODES:
        return x, y
    spread = torch.linspace(0, len(x) - 1, _NODES // 2).round().long()
    wanted = torch.linspace(float(x[0].log()), float(x[-1].log()), _NODES - len(spread), dtype=x.dtype).exp()
    index = torch.cat([spread, torch.searchsorted(x, wanted).clamp(max=len(x) - 1)]).unique()
    return x[index], y[index]
