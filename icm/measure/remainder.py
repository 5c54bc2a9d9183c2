"""H(r) measured in a network: displace the output of one layer at random by r, and average what the loss does beyond
its linear term."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icm.arrays import to_tensor
from icm.errors import InputError
from icm.measure.checks import ROUNDINGS, check_alone, check_calls, check_options
from icm.measure.displacement import Loss, Network, random_layers, widened
from icm.measure.journal import Journal
from icm.measure.layers import Parts, find_layers
from icm.measure.measurement import Measurement
from icm.measure.memory import budget
from icm.measure.sweep import Positions, Sweep
from icm.networks import unwrapped

Progress = Callable[[int, int, str], None]

RADII = tuple(10 ** (i / 4) for i in range(-4, 9))  # 0.1 to 100

_TICKS = 100  # of progress, for one layer on one batch


def curvature(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    layers: str | Sequence[str],
    radii: Any = RADII,
    *,
    directions: int = 100,
    positions: Positions | str = "one",
    tokens: int | None = 8,
    seed: int = 0,
    parts: Mapping[str, Parts] | None = None,
    dtype: torch.dtype | str | None = None,
    memory: int | str | None = None,
    resume: str | Path | None = None,
    random_seed: int | None = None,
    progress: Progress | bool | None = None,
) -> dict[str, Measurement]:
    """Measure H(r) of layers: the mean remainder of the loss when a layer's output is displaced by r in a random
    direction (Su, arXiv 2511.00674, section 2 and figure 1):

        H(r) = mean of L(y + δ) − L(y) − ⟨∇L(y), δ⟩,     ‖δ_t‖ = r,

    y (…, m) the layer's output W u + b and L the sum of the example's loss terms. Directions are δW u_t/‖δW u_t‖ for a
    δW (m, n) with normal entries: uniform on the sphere for one position.

    loss(model, batch) gives loss terms, examples along the first axis, and calls the `model` that it is handed, which
    is `model` in all but this: no forward pass changes it. data: batches, read once. layers: names with * ? [ ]; !name
    takes away. parts: {"*.c_attn": ("query", "key", "value")} measures these equal parts of a fused layer apart.

    positions: "one" displaces one token per pass, `tokens` of each example (None: all), each in that many directions;
    "all" displaces every token at once, and its remainders are divided by their number: cheaper by that much, but it
    mixes what tokens do to each other into H. Positions with no gradient, such as padding, are left out, and so are,
    with a warning, examples without a loss, whose terms and gradient are all 0.

    dtype: torch.float64 (or "float64") computes in it, the model itself unchanged; the default is the model's own
    precision, and the result says where rounding drowns H, TF32's rounding not counted. memory: the most that the
    tensors of displaced passes may hold, in bytes or as "2GiB"; 128 MiB on a CPU and a quarter of what is free on a GPU
    by default. Many displacements pass at once, by torch.func.vmap; up to the layer they share one pass. What vmap
    cannot run passes one by one, with a warning. Of one token's displacements only the rows that they change are
    computed, in a causal model those from it on, where this gives what whole passes do, which is tried out first, and
    pays.

    The same seed gives the same draws, whatever the batches, the memory and the device: an example's depend on its
    number, the layer's name and the seed. resume: a file in which the state is kept; a measurement that was killed goes
    on from it. random_seed: of dropout, for a model in training mode, alike in every pass, but not in other batches.
    progress: called with (done, total, what), total 0 until the end for data without a length; None draws a bar where
    the error stream is a terminal, False none.

    Intervals are of each radius by itself, not of the curve. H of an untrained network may be negative.

    Raises InputError for options of a wrong kind, radii that are not positive and increasing, a pattern that matches no
    linear layer (it names the nearest), tied weights, layers that no pass calls, a loss that is not per example or not
    finite, examples whose losses depend on each other, fewer than two examples, dropout without random_seed, a budget
    below one displacement, and a `resume` file of another measurement, loss or mode of the model.
    """
    r, dtype = _radii(radii), check_options(model, loss, data, directions, positions, tokens, seed, dtype, random_seed)
    budget(memory, torch.device("cpu"))
    model = unwrapped(model)
    chosen = find_layers(model, layers, parts)
    if random_seed is None and (drawing := random_layers(model)):
        raise InputError(
            f"the model is in training mode and {drawing[0]} draws at random in every pass: call model.eval(), or give "
            "random_seed to draw the same each time"
        )
    network = Network(model, loss, dtype, random_seed, False)
    sweep = Sweep(r, directions, positions, tokens, seed, memory)
    journal = Journal.open(resume, sweep.settings(chosen, dtype, random_seed), len(r), model)
    number, first, known = -1, 0, len(data) if hasattr(data, "__len__") else 0  # type: ignore[arg-type]
    ticks = len(chosen) * _TICKS  # of a batch
    eps: dict[str, float] = {}
    with _bar(progress) as tell, torch.inference_mode(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # of vmap, in single operations
        with journal.kept():
            for number, batch in enumerate(data):
                batch = widened(batch, dtype)
                journal.check(number, batch)
                if number == 0 and not all(journal.has(0, layer.name) for layer in chosen):
                    check_calls(network, chosen, batch, layers)
                count = 0
                for i, layer in enumerate(chosen):
                    at = _ticker(tell, number * ticks + i * _TICKS, known * ticks, layer.name)
                    at(0.0)
                    had = journal.has(number, layer.name)
                    base = network.base(layer, batch, alone=not had)
                    count, total = len(base.terms), float(base.terms.double().sum())
                    eps[layer.name] = max(base.eps, eps.get(layer.name, 0.0))
                    if had:
                        size = 1 + float(base.terms.double().abs().sum())
                        journal.check_loss(number, layer.name, total, ROUNDINGS * base.eps * size)
                        continue
                    if i == 0:
                        check_alone(network, layer, batch, base)
                    measured = sweep.measure(network, layer, batch, base, first, at)
                    journal.add(number, layer.name, measured, total)
                first += count
        journal.end(number + 1)
        if eps:
            tell((number + 1) * ticks, (number + 1) * ticks, chosen[-1].name)
    if not eps:
        raise InputError("data holds no batch; give an iterable with at least one, and not one that is used up")
    found = {}
    for layer in chosen:
        tally = journal.tallies[layer.name]
        missing = int(tally.left_out)
        if tally.examples < 2:
            raise InputError(
                f"data too short: {int(tally.examples)} example with remainders; intervals are between examples and "
                "need two at least"
                + (f"; {missing} without a loss are left out: their terms and gradients at {layer.name} are all 0, as "
                   "where every label is ignored (at a minimum with loss 0, add a constant to the terms)"
                   if missing else "")
            )  # fmt: skip
        if missing:
            warnings.warn(
                f"{layer.name}: {missing} of {first} examples are left out, without a loss: their terms and gradients "
                "are all 0",
                stacklevel=2,
            )
        found[layer.name] = Measurement(
            layer.name, layer.m, layer.n, r, tally, positions, directions, tokens if positions == "one" else None, seed,
            eps[layer.name],
        )  # fmt: skip
    return found


def _ticker(tell: Progress, start: int, total: int, what: str) -> Callable[[float], None]:
    """Called with the share that is done of one layer on one batch, it tells of whole ticks, each once."""
    told = [-1]

    def at(share: float) -> None:
        tick = min(int(share * _TICKS), _TICKS - 1)
        if tick > told[0]:
            told[0] = tick
            tell(start + tick, total, what)

    return at


def _radii(radii: Any) -> Tensor:
    r = to_tensor(radii, "radii").double().cpu()
    if r.ndim != 1 or not len(r):
        raise InputError(f"radii of shape {tuple(r.shape)} are no list; give one radius or more")
    if not bool((torch.isfinite(r) & (r > 0)).all()):
        raise InputError(f"radii hold {float(r[~(torch.isfinite(r) & (r > 0))][0])}; they are lengths, finite and > 0")
    if not bool((r.diff() > 0).all()):
        i = int((r.diff() <= 0).nonzero()[0])
        raise InputError(f"radii are not increasing: {float(r[i]):g} before {float(r[i + 1]):g}; sort them")
    return r


@contextmanager
def _bar(progress: Progress | bool | None) -> Iterator[Progress]:
    if callable(progress):
        yield progress
        return
    shown = sys.stderr.isatty() if progress is None else progress
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield lambda done, total, what: None
        return
    columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total or None, description=what)
