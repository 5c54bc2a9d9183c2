"""The model's honesty: what steps solved with a measured H promise, and what the network gives when they are taken."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from icm.curvature import Curvature
from icm.errors import CurvatureError, InputError
from icm.measure.checks import check_options
from icm.measure.displacement import Loss, Network, random_layers
from icm.measure.fit import Kind
from icm.measure.layers import Parts, find_layers
from icm.measure.measurement import Measurement
from icm.measure.memory import budget
from icm.measure.trial import MOST, Trial, best_lengths
from icm.networks import unwrapped
from icm.solvers import solve
from icm.sphere import mean, slopes

Progress = Callable[[int, int, str], None]

_TOL = 1e-6  # of solves, far below what is uncertain of H
_RIDGE = 1e-3  # of the mean eigenvalue, as InputMoments adds: inputs may span less than R^n
_AT_WALL = 1e-3  # this near to it, relative


@dataclass(frozen=True, eq=False)
class Step:
    """A step W − Q of one layer, all decreases in the loss per displaced position, as H is.

    `name`: "solved", under the measured H and isotropic inputs; "solved, input moments", with the second moment of the
    layer's inputs; "gradient" and "polar", G and its polar factor UVᵀ at the length that the model likes best. cosines
    are between Q and G, and Q and UVᵀ. `linear` = ⟨G, Q⟩. `predicted` = ⟨G, Q⟩ − E H(‖Qζ‖) is promised and `obtained` =
    L(W) − L(W − Q) given (−inf where the loss is not finite any more); `best` is the most that a multiple of Q gives,
    at `best_factor` times its length: 0 and 0 where none from 2⁻¹⁶ on gives any. `at_wall`: Q displaces some output by
    the last radius measured, and would by more if H were known there. `at_bound`: `best_factor` is 2²⁰, the longest
    tried, and longer ones may give more. `gap` bounds how far a solve is from its optimum, relative; 0 for the others.
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
    at_wall: bool
    at_bound: bool


class Taken(dict[str, list[Step]]):
    """The steps of each layer; `skipped`: for layers of which there are none, why."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}


def steps(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    measurements: Mapping[str, Measurement] | Iterable[Measurement],
    kind: Kind | str = "tabulated",
    *,
    held_out: Iterable[Any] | None = None,
    parts: Mapping[str, Parts] | None = None,
    dtype: torch.dtype | str | None = None,
    memory: int | str | None = None,
    random_seed: int | None = None,
    progress: Progress | None = None,
) -> Taken:
    """For each measured layer, the updates that its measured H asks for, beside G and its polar factor: promised and
    obtained decreases of the loss on `data`, one layer moved at a time. The model stays as it is.

    G = Σ g_t u_tᵀ/N over the N positions that the loss depends on, g_t the gradient of an example's summed loss in the
    layer's output and u_t its input, and C likewise. H is `measurement.to_curvature(kind, unit_inputs=True,
    within=True)`, so that no step displaces an output by more than was measured. `obtained` and `best` are those on
    `held_out` if that is given: on the data that G and C come from, a step of many inputs can be right by heart.
    `model`, `loss`, `data`, `parts`, `dtype`, `memory` and `random_seed` as in `curvature`; the batches are kept, and
    run through a few times for each layer. progress: called with (done, total, what), layers.

    The result is a dictionary with the steps of each layer; its `skipped` says why a layer has none: no H can be made
    of what was measured, or its gradient is 0 on these data.

    Raises InputError as `curvature` does, for an unknown kind, and for measurements of layers that the model does not
    have.
    """
    every = list(measurements.values() if isinstance(measurements, Mapping) else measurements)
    if not every:
        raise InputError("measurements is empty; measure a layer first, with icm.measure.curvature")
    if kind not in get_args(Kind):
        raise InputError(f"kind={kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
    for given in (data, data if held_out is None else held_out):
        dtype = check_options(model, loss, given, 1, "one", None, 0, dtype, random_seed)
    budget(memory, torch.device("cpu"))
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
    batches = list(data)
    others = batches if held_out is None else list(held_out)
    if not batches or not others:
        raise InputError("data or held_out holds no batch; give at least one, and no iterator that is used up")
    network, tell, found = Network(model, loss, dtype, random_seed, False), progress or _silent, Taken()
    with torch.inference_mode(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # of vmap, in single operations
        for i, one in enumerate(every):
            tell(i, len(every), f"steps of {one.layer}")
            try:
                H = one.to_curvature(kind, unit_inputs=True, within=True)
            except (InputError, CurvatureError) as error:
                found.skipped[one.layer] = f"{one.layer}: {str(error).removeprefix(f'{one.layer}: ')}"
                continue
            trial = Trial(network, layers[one.layer], batches, others, memory)
            if not bool(trial.G.any()):
                found.skipped[one.layer] = (
                    f"{one.layer}: its gradient is 0 on these data, so that there is no direction to move in; give "
                    "data whose loss depends on it"
                )
                continue
            found[one.layer] = _of_layer(trial, H)
    tell(len(every), len(every), f"steps of {every[-1].layer}")
    return found


def _silent(done: int, total: int, what: str) -> None:
    """Nobody listens."""


def _of_layer(trial: Trial, H: Curvature) -> list[Step]:
    G, n = trial.G, trial.layer.n
    U, g, Vh = torch.linalg.svd(G, full_matrices=False)
    kept = g > 1e-12 * g[0]
    polar = U[:, kept] @ Vh[kept]
    moment = trial.C * (n / trial.C.trace()) + _RIDGE * torch.eye(n, dtype=torch.float64)
    moment = moment / (1 + _RIDGE)  # of trace n, as the program has it
    made: list[tuple[str, Tensor, float, float, float]] = []  # name, Q, predicted, gap, its longest displacement
    for name, C in (("solved", None), ("solved, input moments", moment)):
        solution = solve(G, H, input_moment=C, tol=_TOL, on_failure="return")
        Q = solution.Q
        reach = _longest(Q) if C is None else math.sqrt(max(0.0, _longest(Q @ C @ Q.T)))
        made.append((name, Q, -float(solution.value), float(solution.relative_gap), reach))
    for name, D in (("gradient", G), ("polar", polar)):
        length, predicted = _best_length(H, D, G, n)
        made.append((name, length * D, predicted, 0.0, length * _longest(D)))
    tried = best_lengths(trial, [Q for _, Q, *_ in made])
    return [
        Step(
            trial.layer.name, name, float(Q.norm()), _cosine(Q, G), _cosine(Q, polar), float((Q * G).sum()), predicted,
            obtained, best, factor, gap, reach >= (1 - _AT_WALL) * H.wall, factor == MOST,
        )
        for (name, Q, predicted, gap, reach), (obtained, best, factor) in zip(made, tried, strict=True)
    ]  # fmt: skip


def _longest(D: Tensor) -> float:
    return float(torch.linalg.matrix_norm(D, 2))


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


def _cosine(A: Tensor, B: Tensor) -> float:
    length = float(A.norm() * B.norm())
    return float((A * B).sum()) / length if length else math.nan
