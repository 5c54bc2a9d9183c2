"""The model's honesty: what steps solved with a measured H promise, and what the network gives when they are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from icm.curvature import Curvature
from icm.errors import InputError
from icm.measure.directions import eligible
from icm.measure.displacement import Base, Loss, Network, random_layers
from icm.measure.fit import Kind
from icm.measure.layers import Layer, Parts, find_layers
from icm.measure.measurement import Measurement
from icm.networks import unwrapped
from icm.solvers import solve
from icm.sphere import mean, slopes

Progress = Callable[[int, int, str], None]

_LENGTHS = tuple(2.0**i for i in range(-16, 4))  # tried, times the length that the model likes best
_FINER = 9  # between the neighbours of the best of those
_TOL = 1e-6  # of solves, far below what is uncertain of H
_RIDGE = 1e-3  # of the mean eigenvalue, as InputMoments adds: inputs may span less than R^n
_TOKENS = 2**14  # positions that pass at once


@dataclass(frozen=True, eq=False)
class Step:
    """A step W − Q of one layer, all decreases in the loss per displaced position, as H is.

    `name`: "solved", under the measured H and isotropic inputs; "solved, input moments", with the second moment of the
    layer's inputs; "gradient" and "polar", G and its polar factor UVᵀ at the length that the model likes best. cosines
    are between Q and G, and Q and UVᵀ. `linear` = ⟨G, Q⟩. `predicted` = ⟨G, Q⟩ − E H(‖Qζ‖) is promised and `obtained` =
    L(W) − L(W − Q) given; `best` is the most that a multiple of Q gives, at `best_factor` times its length.
    `gap` bounds how far a solve is from its optimum, relative; 0 for the others.
    """

    layer: str
    name: str
    length: float
    cosine_gradient: float
    cosine_polar: float
    linear: float
    predicted: float
    obtained: float
    best: float
    best_factor: float
    gap: float


def steps(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    measurements: Mapping[str, Measurement] | Iterable[Measurement],
    kind: Kind = "tabulated",
    *,
    held_out: Iterable[Any] | None = None,
    parts: Mapping[str, Parts] | None = None,
    random_seed: int | None = None,
    progress: Progress | None = None,
) -> dict[str, list[Step]]:
    """For each measured layer, the updates that its measured H asks for, beside G and its polar factor: promised and
    obtained decreases of the loss on `data`, one layer moved at a time. The model stays as it is.

    G = Σ g_t u_tᵀ/N over the N positions that the loss depends on, g_t the gradient of an example's summed loss in the
    layer's output and u_t its input, and C likewise. H is `measurement.to_curvature(kind, unit_inputs=True,
    within=True)`, so that no step displaces an output by more than was measured. `obtained` and `best` are those on
    `held_out` if that is given: on the data that G and C come from, a step of many inputs can be right by heart.
    `model`, `loss`, `data`, `parts` and `random_seed` as in `curvature`.

    Raises InputError as `curvature` does, and for measurements of layers that the model does not have.
    """
    every = list(measurements.values() if isinstance(measurements, Mapping) else measurements)
    if not every:
        raise InputError("measurements is empty; measure a layer first, with icm.measure.curvature")
    model = unwrapped(model)
    if random_seed is None and (drawing := random_layers(model)):
        raise InputError(
            f"the model is in training mode and {drawing[0]} draws at random: call model.eval(), or give random_seed"
        )
    layers = {layer.name: layer for layer in find_layers(model, [one.layer for one in every], parts)}
    for one in every:
        if (layer := layers.get(one.layer)) is None or (layer.m, layer.n) != (one.m, one.n):
            raise InputError(
                f"{one.layer} was measured as {one.m} × {one.n}, and the model has no such layer; "
                "give its own measurements, and the `parts` they were measured with"
            )
    network = Network(model, loss, None, random_seed, False)
    batches = list(data)
    others = batches if held_out is None else list(held_out)
    if not batches or not others:
        raise InputError("data or held_out holds no batch; give at least one, and no iterator that is used up")
    found = {}
    for i, one in enumerate(every):
        if progress is not None:
            progress(i, len(every), f"steps of {one.layer}")
        H = one.to_curvature(kind, unit_inputs=True, within=True)
        found[one.layer] = _of_layer(Trial(network, layers[one.layer], batches, others), H)
    return found


class Trial:
    """A layer: its gradient and the second moment of its inputs on some batches, and what moving its weight does on
    others."""

    def __init__(self, network: Network, layer: Layer, batches: Sequence[Any], others: Sequence[Any]):
        self.network, self.layer, self.batches = network, layer, others
        G, C = torch.zeros(layer.m, layer.n, dtype=torch.float64), torch.zeros(layer.n, layer.n, dtype=torch.float64)
        count, bases = 0, []
        for i, batch in enumerate(batches):
            base = network.base(layer, batch, alone=i == 0)
            fit = eligible(base.g)
            g, u = base.g[fit], base.u[fit].double()
            G += (g.T @ u).cpu()
            C += (u.T @ u).cpu()
            count += len(g)
            bases.append(base)
        self.G, self.C = G / count, C / count
        self._bases = bases if others is batches else [network.base(layer, batch) for batch in others]
        self._count = sum(int(eligible(base.g).sum()) for base in self._bases)

    def decreases(self, Q: Float[Tensor, "m n"], factors: Sequence[float]) -> Float[Tensor, " k"]:
        """L(W) − L(W − c Q) per position for each factor c."""
        total = torch.zeros(len(factors), dtype=torch.float64)
        for base, batch in zip(self._bases, self.batches, strict=True):
            moved = -(base.u.double() @ Q.T.to(base.u.device))
            at_once = max(1, _TOKENS // math.prod(moved.shape[:2]))
            for first in range(0, len(factors), at_once):
                part = slice(first, first + at_once)
                c = torch.tensor(factors[part], dtype=torch.float64, device=moved.device)
                total[part] -= self._changes(batch, base, (c[:, None, None, None] * moved).to(base.wide))
        return total / self._count

    def _changes(self, batch: Any, base: Base, delta: Tensor) -> Tensor:
        beyond, linear = self.network.remainders(self.layer, batch, base, delta)
        return (beyond + linear).sum(-1).cpu()


def _of_layer(trial: Trial, H: Curvature) -> list[Step]:
    G, n = trial.G, trial.layer.n
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    kept = g > 1e-12 * g[0]
    polar = U[:, kept] @ Vh[kept]
    ridge = _RIDGE * float(trial.C.trace()) / n * torch.eye(n, dtype=torch.float64)
    found = []
    for name, moment in (("solved", None), ("solved, input moments", trial.C + ridge)):
        solution = solve(G, H, input_moment=moment, tol=_TOL, on_failure="return")
        found.append(_tried(trial, name, solution.Q, -float(solution.value), polar, float(solution.relative_gap)))
    for name, D in (("gradient", G), ("polar", polar)):
        length, predicted = _best_length(H, D, G, n)
        found.append(_tried(trial, name, length * D, predicted, polar))
    return found


def _best_length(H: Curvature, D: Tensor, G: Tensor, n: int) -> tuple[float, float]:
    """The t in (0, wall/‖D‖₂] that maximises t⟨D, G⟩ − E H(t‖Dζ‖), which is concave, and the maximum."""
    from scipy.optimize import brentq

    sigma, slope = torch.linalg.svdvals(D), float((D * G).sum())
    end = H.wall / float(sigma[0])

    def rise(exponent: float) -> float:
        return slope - float(slopes(H, end * 10**exponent * sigma, n) @ sigma)

    low, high = -12.0, -1e-12
    if rise(high) >= 0:
        t = end * 10**high
    else:
        t = end * 10 ** (brentq(rise, low, high, xtol=1e-15) if rise(low) > 0 else low)  # type: ignore[operator]
    return t, t * slope - float(mean(H, t * sigma, n))


def _tried(trial: Trial, name: str, Q: Tensor, predicted: float, polar: Tensor, gap: float = 0.0) -> Step:
    factors = [1.0, *_LENGTHS]
    gains = trial.decreases(Q, factors)
    i = int(gains[1:].argmax())
    around = [_LENGTHS[max(0, i - 1)], _LENGTHS[min(len(_LENGTHS) - 1, i + 1)]]
    low, high = (math.log10(x) for x in around)
    finer = torch.logspace(low, high, _FINER, dtype=torch.float64).tolist()
    gains, factors = torch.cat([gains, trial.decreases(Q, finer)]), [*factors, *finer]
    best = int(gains.argmax())
    return Step(
        trial.layer.name, name, float(Q.norm()), _cosine(Q, trial.G), _cosine(Q, polar), float((Q * trial.G).sum()),
        predicted, float(gains[0]), float(gains[best]), factors[best], gap,
    )  # fmt: skip


def _cosine(A: Tensor, B: Tensor) -> float:
    length = float(A.norm() * B.norm())
    return float((A * B).sum()) / length if length else math.nan
