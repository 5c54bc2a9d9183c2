"""Instances that claims are tried on: gradients of one shape with one curvature, and how corners are reached.

`draw` makes a generator of batches. Spectra come from a list of kinds that theorems fail at first: equal, zero, tiny,
huge, nearly equal singular values and all of them on very different scales; shapes have m <, =, > n, and m or n = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from icm.curvature import Curvature, parse
from icm.errors import CurvatureError, InputError

Shape = Literal["any", "tall", "square", "wide"]
Draw = Callable[[Generator, int], "Instances"]

_SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "tall": ((2, 1), (5, 1), (3, 2), (4, 3), (6, 4), (9, 5), (12, 8)),
    "square": ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (8, 8), (12, 12)),
    "wide": ((1, 2), (1, 6), (2, 3), (3, 4), (4, 6), (3, 9), (8, 12)),
}
_MOST_SHOWN = 4  # singular values in a description


@dataclass(frozen=True, eq=False)
class Instances:
    """A batch of programs: gradients G (B, m, n), float64, one curvature H for all, and what else a claim looks at,
    by name, each (B, …). `origin` (B texts) says what kind of corner each is."""

    G: Float[Tensor, "b m n"]
    H: Curvature
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    origin: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.G)

    @property
    def m(self) -> int:
        return self.G.shape[1]

    @property
    def n(self) -> int:
        return self.G.shape[2]

    @property
    def k(self) -> int:
        return min(self.m, self.n)

    def __getitem__(self, rows: list[int]) -> Instances:
        """The batch of these elements."""
        extra = {name: value[rows] for name, value in self.extra.items()}
        return Instances(self.G[rows], self.H, extra, tuple(self.origin[i] for i in rows) if self.origin else ())

    def to_dict(self) -> dict[str, Any]:
        """One instance as numbers, texts and lists; `from_dict` gives back the same floats.

        Raises InputError for a batch of several and for an H without a text, such as Custom.
        """
        if len(self) != 1:
            raise InputError(f"a batch of {len(self)} instances is not one: pick it first, as in instances[[0]]")
        text = str(self.H)
        try:
            parse(text)
        except CurvatureError as error:
            raise InputError(f"H = {text} has no text that gives it back, so the instance cannot be saved") from error
        extra = {
            name: {"dtype": str(value.dtype).removeprefix("torch."), "value": _written(value[0].tolist())}
            for name, value in self.extra.items()
        }
        origin = self.origin[0] if self.origin else ""
        return {"H": text, "m": self.m, "n": self.n, "G": self.G[0].tolist(), "extra": extra, "origin": origin}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Instances:
        """The instance that `to_dict` wrote, a batch of one."""
        extra = {
            name: torch.tensor([_read(held["value"])], dtype=getattr(torch, held["dtype"]))
            for name, held in record["extra"].items()
        }
        G = torch.tensor([record["G"]], dtype=torch.float64)
        return cls(G, parse(record["H"]), extra, (record["origin"],))

    def describe(self) -> str:
        """One instance in a line: its shape, H, the singular values of G, and what else there is."""
        g = torch.linalg.svdvals(self.G[0]).tolist()
        shown = ", ".join(f"{x:.4g}" for x in g[:_MOST_SHOWN]) + (", …" if len(g) > _MOST_SHOWN else "")
        parts = [f"{self.m}×{self.n}", f"H = {self.H}", f"g = ({shown})"]
        for name, value in self.extra.items():
            small = value[0].numel() == 1
            parts.append(f"{name} = {float(value):.6g}" if small else f"{name} {'×'.join(map(str, value.shape[1:]))}")
        return ", ".join(parts)


def _written(value: Any) -> Any:
    """Numbers as JSON holds them: infinities and NaN as words."""
    if isinstance(value, list):
        return [_written(x) for x in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    """What `_written` wrote."""
    if isinstance(value, list):
        return [_read(x) for x in value]
    return float(value) if isinstance(value, str) else value


def draw(
    curvature: Callable[[Generator], Curvature] | Curvature | str,
    *,
    shapes: Shape | tuple[tuple[int, int], ...] = "any",
    kinds: tuple[str, ...] | None = None,
    rotated: bool = False,
    decades: float = 2.0,
    extra: Callable[[Generator, Instances], Mapping[str, Tensor]] | None = None,
) -> Draw:
    """A generator (rng, size) → Instances: a shape and a curvature per batch, a spectrum of some kind per element.

    `curvature` is an H, its text, or a function of the generator, which is NumPy's; `shapes` "any", "tall" (m > n),
    "square" or "wide", or a tuple of (m, n). G is diagonal, or rotated by random orthogonal factors. It is scaled so
    that a typical update has the length scale of H, times 10^±decades. `kinds` picks from `KINDS`; extra(rng,
    instances) adds what else the claim looks at, tensors (size, …) by name.

    Raises InputError for a shape or kind that is not known.
    """
    if isinstance(curvature, str):
        curvature = parse(curvature)
    if isinstance(shapes, str) and shapes not in (*_SHAPES, "any"):
        raise InputError(f"shapes={shapes!r}: choose among any, {', '.join(_SHAPES)}, or give a tuple of (m, n)")
    for kind in kinds or ():
        if kind not in KINDS:
            raise InputError(f"no kind of spectrum is named {kind!r}: choose among {', '.join(KINDS)}")

    def generate(rng: Generator, size: int) -> Instances:
        if isinstance(shapes, str):
            pool = tuple(s for name in _SHAPES for s in _SHAPES[name]) if shapes == "any" else _SHAPES[shapes]
        else:
            pool = shapes
        m, n = pool[rng.integers(len(pool))]
        H = curvature if isinstance(curvature, Curvature) else curvature(rng)
        g, names = spectra(rng, size, min(m, n), kinds)
        unit = float(H.slope(H.length_scale, side="left")) / min(m, n)
        unit = unit if 0 < unit < np.inf else 1.0
        g = g * unit * torch.from_numpy(10 ** rng.uniform(-decades, decades, (size, 1)))
        G = rotate(rng, g, m, n) if rotated else diagonal(g, m, n)
        made = Instances(G, H, {}, tuple(names))
        return made if extra is None else Instances(G, H, dict(extra(rng, made)), tuple(names))

    return generate


def diagonal(g: Float[Tensor, "b k"], m: int, n: int) -> Float[Tensor, "b m n"]:
    """The m × n matrices with g on the diagonal."""
    G = torch.zeros(len(g), m, n, dtype=torch.float64)
    G.diagonal(dim1=1, dim2=2)[:] = g
    return G


def rotate(rng: Generator, g: Float[Tensor, "b k"], m: int, n: int) -> Float[Tensor, "b m n"]:
    """U diag(g) Vᵀ with U and V uniform among orthonormal columns."""
    return (orthonormal(rng, len(g), m, g.shape[1]) * g[:, None, :]) @ orthonormal(rng, len(g), n, g.shape[1]).mT


def orthonormal(rng: Generator, size: int, rows: int, columns: int) -> Float[Tensor, "b rows columns"]:
    """Uniform matrices with orthonormal columns."""
    Q, R = torch.linalg.qr(torch.from_numpy(rng.standard_normal((size, rows, columns))))
    return Q * R.diagonal(dim1=1, dim2=2).sign()[:, None, :]


def spectra(
    rng: Generator, size: int, k: int, kinds: tuple[str, ...] | None = None
) -> tuple[Float[Tensor, "b k"], list[str]]:
    """`size` spectra of length k in descending order with largest value near 1, and the kind of each."""
    pool = tuple(KINDS) if kinds is None else kinds
    names = [pool[i] for i in rng.integers(len(pool), size=size)]
    rows = np.stack([np.sort(KINDS[name](rng, k))[::-1] for name in names])
    return torch.from_numpy(rows.copy()), names


def _spike(rng: Generator, k: int) -> np.ndarray:
    return np.where(np.arange(k) == 0, 1.0, 10 ** rng.uniform(-6, -1) * rng.uniform(0.1, 1, k))


def _zeros(rng: Generator, k: int) -> np.ndarray:
    g = rng.uniform(0.1, 1, k)
    g[rng.permutation(k)[: rng.integers(0, k)]] = 0.0
    return g


def _tiny(rng: Generator, k: int) -> np.ndarray:
    g = rng.uniform(0.1, 1, k)
    if k > 1:
        g[rng.integers(k)] *= 10 ** rng.uniform(-12, -3)
    return g


def _nearly_equal(rng: Generator, k: int) -> np.ndarray:
    return 1 + 10 ** rng.uniform(-9, -2) * rng.uniform(-1, 1, k)


def _clusters(rng: Generator, k: int) -> np.ndarray:
    return np.where(np.arange(k) < rng.integers(1, k + 1), 1.0, rng.uniform(0.02, 0.9))


KINDS: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "uniform": lambda rng, k: rng.uniform(0, 1, k),
    "moderate": lambda rng, k: rng.uniform(0.5, 1, k),
    "equal": lambda rng, k: np.ones(k),
    "nearly equal": _nearly_equal,
    "clusters": _clusters,
    "zeros": _zeros,
    "tiny": _tiny,
    "spike": _spike,
    "decades": lambda rng, k: 10 ** rng.uniform(-5, 0, k),
    "geometric": lambda rng, k: rng.uniform(0.1, 0.95) ** np.arange(k),
}
POSITIVE = tuple(name for name in KINDS if name != "zeros")
