"""Polar factors by this project and by others, under one signature: G (…, m, n) in float32 ↦ Q close to UVᵀ.

Each runs in the precision it is listed under, and hands its result back in the dtype it chooses itself. Packages that
are not installed (`pip install -e '.[bench]'`) are named in `Field.missing` instead. PE: the coefficients of Polar
Express; Gram: the iteration on the Gram matrix; eigh: of the Gram matrix.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import DTYPES

MUON = (3.4445, -4.7750, 2.0315)  # K. Jordan et al., Muon (2024), five times
EPS = 1e-7


@dataclass(frozen=True)
class Peer:
    """A way to the polar factor. `products`: by five quintic steps; `polar_express`: with those of Polar Express.

    For a batch `run` returns a tensor or, where it goes through them one by one, a list of matrices.
    """

    name: str
    run: Callable[[Tensor], Any]
    products: bool = True
    polar_express: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Field:
    """Who runs in one precision, and why others do not."""

    peers: tuple[Peer, ...]
    missing: tuple[str, ...]


OURS, FIVE = "icm", "icm, PE"
LOOP = "torch.optim.Muon, a loop"


def field(precision: str, device: str = "cpu", compiled: bool = False) -> Field:
    """This project and all that are installed, for "bf16", "fp16" or "fp32"; `compiled`: also what its authors compile.

    torch.optim.Muon and HeavyBall have a path in bf16 only. The Gram iteration of pytorch_optimizer is left out of fp16
    on a CPU, which emulates it in minutes.
    """
    peers: list[Peer] = []
    missing: list[str] = []
    for group in (_ours, _torch, _heavyball, _pytorch_optimizer, _decompositions):
        try:
            peers += [peer for peer in group(precision, device) if compiled or not peer.compiled]
        except (ImportError, AttributeError) as error:
            missing.append(f"{group.__name__.removeprefix('_').replace('ours', 'icm')}: {error}")
    return Field(tuple(peers), tuple(missing))


def polar_express(steps: int = 5) -> Any:
    """The composition that this project applies: Polar Express under its name."""
    return importlib.import_module("icm.maps.iterations").known("polar-express", steps)


def newton_schulz(G: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """The plain quintic iteration with Muon's coefficients on the smaller side: the yardstick of `benchmarks.solve`."""
    a, b, c = MUON
    X = G.mT if G.shape[-2] > G.shape[-1] else G
    X = (X / torch.linalg.matrix_norm(X, keepdim=True)).to(dtype)
    times = torch.addmm if X.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        A = X @ X.mT
        X = times(X, times(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.mT if G.shape[-2] > G.shape[-1] else X


def muon(x: Tensor, steps: int = 5) -> Tensor:
    """What so many of Muon's steps make of singular values x, elementwise."""
    a, b, c = MUON
    for _ in range(steps):
        x = x * (a + b * x**2 + c * x**4)
    return x


def _ours(precision: str, device: str) -> Iterator[Peer]:
    """Four quintics or five, as the first product tells, and the five of Polar Express from ‖G‖_F. What is in 16 bits
    stays so, as with torch.optim.Muon."""
    maps, composition = importlib.import_module("icm.maps"), polar_express()
    dtype = DTYPES[precision] if precision != "fp32" else None
    yield Peer(OURS, lambda G: maps.orthogonalize(G, precision, dtype=dtype))
    yield Peer(FIVE, lambda G: maps.apply(composition, G, precision=precision, dtype=dtype), polar_express=True)


def _torch(precision: str, device: str) -> Iterator[Peer]:
    """torch.optim.Muon's function takes one matrix at a time."""
    step = importlib.import_module("torch.optim._muon")._zeropower_via_newtonschulz
    if precision == "bf16":

        def loop(G: Tensor) -> Any:
            return step(G, MUON, 5, EPS) if G.ndim == 2 else [step(single, MUON, 5, EPS) for single in G]

        yield Peer(LOOP, loop)


def _heavyball(precision: str, device: str) -> Iterator[Peer]:
    """Its functions compile themselves at their first call unless its global switch is off."""
    utils = importlib.import_module("heavyball.utils")
    mode = utils.compile_mode
    if precision == "bf16":
        for name, run, express in (
            ("HeavyBall", utils.zeropower_via_newtonschulz5, False),
            ("HeavyBall, PE", lambda G: utils.msign(G, 5), True),
        ):
            yield Peer(name, _switched(utils, None, run), polar_express=express)
        run = utils.zeropower_via_newtonschulz5
        yield Peer("HeavyBall, compiled", _switched(utils, mode, run), compiled=True)


def _switched(utils: Any, mode: str | None, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def switched(G: Tensor) -> Tensor:
        with _compile_mode(utils, mode):
            return run(G)

    return switched


@contextlib.contextmanager
def _compile_mode(utils: Any, mode: str | None) -> Iterator[None]:
    before, utils.compile_mode = utils.compile_mode, mode
    try:
        yield
    finally:
        utils.compile_mode = before


def _pytorch_optimizer(precision: str, device: str) -> Iterator[Peer]:
    matrix = importlib.import_module("pytorch_optimizer.optimizer.utils.matrix")
    dtype, plain = DTYPES[precision], matrix.zero_power_via_newton_schulz_5
    gram, express = matrix.zero_power_via_gram_newton_schulz, "polar_express"
    if precision == "fp16" and device == "cpu":
        return
    yield Peer("pytorch_optimizer", lambda G: plain(G, dtype=dtype))
    yield Peer("pytorch_optimizer, PE", lambda G: plain(G, dtype=dtype, weights=express), polar_express=True)
    yield Peer(
        "pytorch_optimizer, PE, Gram",
        lambda G: gram(G, dtype=dtype, weights=express),
        polar_express=True,
    )


def _decompositions(precision: str, device: str) -> Iterator[Peer]:
    """UVᵀ from the SVD; G (GᵀG)^{−1/2} on the smaller side from eigh, in single and in double precision."""
    if precision == "fp32":
        yield Peer("svd", _svd, products=False)
        yield Peer("eigh", lambda G: _eigh(G, torch.float32), products=False)
        yield Peer("eigh, fp64", lambda G: _eigh(G, torch.float64), products=False)


def _svd(G: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return U @ Vh


def _eigh(G: Tensor, dtype: torch.dtype) -> Tensor:
    X = (G.mT if G.shape[-2] > G.shape[-1] else G).to(dtype)
    values, U = torch.linalg.eigh(X @ X.mT)
    floor = values[..., -1:] * torch.finfo(dtype).eps
    Q = ((U * values.clamp(min=floor).rsqrt().unsqueeze(-2)) @ U.mT @ X).to(G.dtype)
    return Q.mT if G.shape[-2] > G.shape[-1] else Q
