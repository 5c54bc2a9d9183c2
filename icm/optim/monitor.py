"""`Monitor`: sizes of weights, updates and features while a model trains, and the norm each update is a step in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from icm.errors import InputError
from icm.norms.describe import Described, best_schatten
from icm.optim import readings
from icm.optim.readings import Reading
from icm.optim.watched import Watched, find

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOMENTA = ("momentum_buffer", "exp_avg")


class Monitor:
    """What the steps of any torch optimizer do to the layers of `model`, measured at its first step and at every
    `every`-th from there: a `Reading` per layer in `log`.

        with icm.optim.Monitor(model, optimizer, every=50, stable=10.0, learning=1e-5) as monitor:
            train()
        print(monitor.table()); monitor.plot("sizes.png")

    Sizes are those of the spectral condition (Yang, Simon & Bernstein, arXiv 2310.17813), by which features learn alike
    at every width: the RMS of a layer's outputs and of their change by a step stay Θ(1) if ‖W‖ and ‖ΔW‖ do, for linear
    layers in RMS→RMS = √(n/m)‖·‖₂ (heads too), for embeddings in ℓ1→RMS, for convolutions K times the largest RMS→RMS
    of their K kernel positions, of layers joined in one tensor the largest. ΔW holds the learning rate, and weight
    decay.

    - optimizer: one, or several that train parts of the model; steps are counted for each.
    - layers: names or patterns of them as in model.named_modules(), such as "*.mlp.*"; one that begins with ! takes
      away. None: all linear layers, convolutions, embeddings, and matrices of recurrent layers and attention, that
      an optimizer holds. Frozen ones are left out while they are.
    - stable: above it, a value is flagged; one number for all four, or {"weight": 10.0, "features": 5.0}, of weight,
      update, features and feature_update. learning: below it; one number is for the two updates. Values that are not
      finite are above.
    - samples: how many tokens of a layer's first training pass before the step are kept to measure features on (of
      convolutions samples/16 examples), until it is measured. Features are None for layers that were not called as a
      module of their own with gradients on, as inside nn.MultiheadAttention and under torch.compile.
    - exponents: whether to find the Schatten p that best describes each update. It is compared with the momentum after
      the step ("momentum_buffer" or "exp_avg" in the optimizer's state; with `nesterov` the mean of it and the gradient
      that torch.optim.SGD and Muon take), else with the gradient. Where the group has a weight decay, ΔW + lr ·
      weight_decay · W is tried as well and the better described of both is taken. Of a tensor that is several matrices
      the one of median cosine is told.
    - largest: matrices whose smaller side is above it have no exponent, and their norms from below, by a power
      iteration on 4 vectors which starts where it last ended, to about 1e-4; others by their singular values.

    Training goes on bitwise as without: nothing is changed, no random number drawn. Between measured steps a hook per
    layer and step returns at once. At a measured step the watched weights and gradients are copied, and there is an SVD
    per layer for the exponent, which a GPU is waited for. `close`, or leaving a with-statement, takes the hooks away;
    the log stays.

    Raises InputError for a model without layers to watch, patterns that match none, an optimizer that trains none of
    them, and numbers that cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        every: int = 100,
        layers: str | Sequence[str] | None = None,
        *,
        stable: float | Mapping[str, float] | None = None,
        learning: float | Mapping[str, float] | None = None,
        samples: int = 64,
        exponents: bool = True,
        largest: int = 1024,
    ):
        for name, value in (("every", every), ("samples", samples), ("largest", largest)):
            if value < 1:
                raise InputError(f"{name}={value!r} must be at least 1")
        self.every, self.samples, self.exponents, self.largest = every, samples, exponents, largest
        self.stable, self.learning = (readings.constants(stable, "stable"), readings.constants(learning, "learning"))
        self.log: list[Reading] = []
        optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        watched = find(model, layers)
        self._watches = [watch for one in optimizers if (watch := _Watch(one, watched, self)).layers]
        if not self._watches:
            raise InputError(f"the optimizer holds no weight of the {len(watched)} layers to watch: pass its own model")
        self._handles: list[Any] = []
        for watch in self._watches:
            self._handles += watch.listen()

    def close(self) -> None:
        """Take the hooks away; `log` stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for watch in self._watches:
            watch.forget()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last(self) -> list[Reading]:
        """The latest reading of each layer, in the model's order."""
        return list({one.layer: one for one in self.log}.values())

    def table(self) -> str:
        """The latest readings as plain text, those beyond the constants marked: ↑ above, ↓ below."""
        return readings.text_table(self.last)

    def scalars(self) -> dict[str, float]:
        """The latest readings by tag, {"weight/blocks.0.mlp.up": 1.3, …}, for SummaryWriter.add_scalar and the like."""
        found = {}
        for name in (*readings.MEASURED, "exponent", "cosine"):
            found |= {f"{name}/{one.layer}": x for one in self.last if (x := getattr(one, name)) is not None}
        return found

    def to_csv(self, path: str | Path) -> Path:
        """Write the log, a line per reading. Raises FileError for a path that cannot be written."""
        return readings.write_csv(self.log, path)

    def to_json(self, path: str | Path) -> Path:
        """Write the log as {"readings": […]}; numbers that JSON lacks are the texts "inf", "-inf" and "nan".

        Raises FileError for a path that cannot be written."""
        return readings.write_json(self.log, path)

    def plot(self, path: str | Path | None = None) -> Figure:
        """The four sizes over the steps: `icm.plots.plot_monitor`."""
        from icm.plots.norms import plot_monitor

        return plot_monitor(self, path)

    def plot_exponents(self, path: str | Path | None = None) -> Figure:
        """The exponents over the steps: `icm.plots.plot_exponents`."""
        from icm.plots.norms import plot_exponents

        return plot_exponents(self, path)


class _Watch:
    """One optimizer's part of a monitor."""

    def __init__(self, optimizer: torch.optim.Optimizer, watched: Sequence[Watched], monitor: Monitor):
        self.optimizer, self.monitor = optimizer, monitor
        held = {p for group in optimizer.param_groups for p in group["params"]}
        self.layers = [one for one in watched if one.parameter in held]
        self.steps = 0
        self.before: dict[Watched, _Before] = {}

    @property
    def due(self) -> bool:
        return self.steps % self.monitor.every == 0

    def listen(self) -> list[Any]:
        handles = [layer.module.register_forward_pre_hook(_Ear(self, layer), with_kwargs=True) for layer in self.layers]
        handles.append(self.optimizer.register_step_pre_hook(_Ear(self, "pre")))
        return [*handles, self.optimizer.register_step_post_hook(_Ear(self, "post"))]

    def forget(self) -> None:
        self.before.clear()
        for layer in self.layers:
            layer.inputs = None

    def heard(self, layer: Watched, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A layer is called."""
        if not self.due or layer.inputs is not None or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        layer.keep(args[0] if args else kwargs.get("input", kwargs.get("x")), self.monitor.samples)

    @torch.no_grad()
    def start(self, closure: bool) -> None:
        """A step begins, of an optimizer that computes the gradient itself if there is a `closure`."""
        self.before.clear()
        if self.due:
            groups = {p: group for group in self.optimizer.param_groups for p in group["params"]}
            for layer in self.layers:
                if layer.parameter.requires_grad and layer.parameter in groups:
                    self.before[layer] = _Before(layer, groups[layer.parameter], closure)

    @torch.no_grad()
    def stop(self) -> None:
        """A step has ended."""
        if self.due:
            for layer, before in self.before.items():
                with torch.autocast(layer.parameter.device.type, enabled=False):
                    self.monitor.log.append(self.reading(layer, before))
            self.forget()
        self.steps += 1

    def reading(self, layer: Watched, before: _Before) -> Reading:
        change = layer.parameter.detach().to(before.W.dtype) - before.W
        size, exact = layer.size(before.W, "weight", self.monitor.largest)
        step, exactly = layer.size(change, "update", self.monitor.largest)
        shift = None if before.b is None or layer.bias is None else layer.bias.to(before.b.dtype) - before.b
        features, moved = (_rms(layer.outputs(*each)) for each in ((before.W, before.b), (change, shift)))
        above, below = readings.beyond((size, step, features, moved), self.monitor.stable, self.monitor.learning)
        return Reading(
            self.steps, layer.name, str(layer.norm), before.lr, size, step, features, moved,
            exact=exact and exactly, above=above, below=below, **self.told(layer, before, change),
        )  # fmt: skip

    def told(self, layer: Watched, before: _Before, change: Tensor) -> dict[str, Any]:
        """What is to be said of the update's Schatten norm."""
        found = self.driver(layer.parameter, before)
        if not self.monitor.exponents or layer.whole is None or found is None:
            return {}
        G, source = found
        if not bool(change.any() & change.isfinite().all() & G.isfinite().all()):
            return {}
        given = before.group.get("layout")
        layout = given if given is not None and before.group.get("algorithm") != "adamw" else layer.whole
        if any(min(m, n) > self.monitor.largest for _, m, n in layout.shapes(G.shape)):
            return {}
        change = -change if before.group.get("maximize") else change
        tried = [change, change + before.decay * before.W] if before.decay else [change]
        pieces = zip(*(layout.gather(update) for update in tried), strict=True)
        found = [best_schatten(torch.stack(A), g) for A, g in zip(pieces, layout.gather(G), strict=True)]
        return max((_median(found, i) for i in range(len(tried))), key=lambda one: one["cosine"]) | {"source": source}

    def driver(self, p: Tensor, before: _Before) -> tuple[Tensor, str] | None:
        """What the optimizer made its step of."""
        gradient = p.grad if before.gradient is None else before.gradient
        gradient = gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient
        state, group = self.optimizer.state.get(p, {}), before.group
        momentum = next((m for key in _MOMENTA if isinstance(m := state.get(key), Tensor) and m.shape == p.shape), None)
        if momentum is None:
            return None if gradient is None else (gradient.detach(), "gradient")
        momentum = momentum.to(torch.promote_types(momentum.dtype, torch.float32))
        if group.get("nesterov") and gradient is not None:
            mu, gradient = float(group["momentum"]), gradient.to(momentum)
            if isinstance(self.optimizer, torch.optim.SGD):
                return gradient + mu * momentum, "momentum"  # without the decay, which `told` takes off
            return gradient.lerp(momentum, mu), "momentum"
        return momentum, "momentum"


class _Before:
    """A layer when a step begins."""

    def __init__(self, layer: Watched, group: dict[str, Any], closure: bool):
        p = layer.parameter
        self.group = group
        self.W = p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
        self.b = (
            None if (b := layer.bias) is None else b.detach().to(torch.promote_types(b.dtype, torch.float32), copy=True)
        )
        # A copy, as some optimizers write into it.
        self.gradient = None if closure or p.grad is None else p.grad.detach().clone()
        self.lr = float(group.get("lr", float("nan")))
        self.decay = self.lr * float(group.get("weight_decay") or 0.0)


class _Ear:
    """A hook that keeps the monitor out of copies and pickles of the model: theirs hears nothing."""

    def __init__(self, watch: _Watch | None = None, what: Watched | str | None = None):
        self.watch, self.what = watch, what

    def __call__(self, source: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.watch is None:
            return
        if isinstance(self.what, Watched):
            self.watch.heard(self.what, args, kwargs)
        elif self.what == "pre":
            self.watch.start((args[1] if len(args) > 1 else kwargs.get("closure")) is not None)
        else:
            self.watch.stop()

    def __reduce__(self) -> tuple[Callable[[], _Ear], tuple[()]]:
        return _Ear, ()


def _rms(x: Tensor | None) -> float | None:
    return None if x is None else float(x.square().mean().sqrt())


def _median(described: Sequence[Described], tried: int) -> dict[str, float]:
    """The figures of the matrix of median cosine, without those that did not move."""
    names = ("cosine", "exponent", "low", "high")
    rows = torch.stack([torch.cat([getattr(one, name)[tried] for one in described]) for name in names], -1)
    rows = rows[~rows[:, 0].isnan()]
    row = rows[rows[:, 0].argsort()[(len(rows) - 1) // 2]]
    return dict(zip(names, row.tolist(), strict=True))
