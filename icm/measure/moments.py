"""Second moments of the inputs of linear layers, C = E[u uᵀ], collected while a network trains."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from icm.errors import InputError
from icm.measure.collecting import Average, Collector, Hook, Sum, Weight, fold
from icm.measure.inputs import Feed, survey


class InputMoments:
    """C = E[u uᵀ] of the inputs u of linear layers and convolutions, averaged over training.

    The update ΔW of a weight W (m, n) changes its outputs by ΔW u, and E‖ΔW u‖² = Tr(ΔW C ΔWᵀ): C belongs on the right
    of the gradient G (m, n). Forward pre-hooks see every u; `step`, called once per optimizer step, folds the mean
    P_t = Σ u uᵀ / rows of the calls since the last one into

        C = Σ_t decay^(T−t) P_t / Σ_t decay^(T−t),        t = 1 … T the steps that collected and saw the weight.

    - Measured: the weights of nn.Linear, of nn.Conv1d/2d/3d without groups (u the unfolded patches, all of them), of
      classes named Conv1D that store (inputs, outputs), and in nn.MultiheadAttention in_proj_weight (the rows of query,
      key and value together) or q_, k_ and v_proj_weight. Not its out_proj, whose module is never called; never
      embeddings, norms and biases; a weight tied to one of those neither. By default all others of `model`; a weight
      whose module is bypassed keeps the moment None. Padding rows count like others.
    - Counted: each forward in training mode, under no_grad too, once: activations that a checkpoint recomputes during
      the backward pass are not. Several forwards between two steps weigh by their rows, several calls of one module
      and modules that share a weight add up. Not counted: weights with requires_grad=False, and calls whose sums are
      not finite (NaN, inf, or entries beyond about 1e18 in float32), on the device and without waiting for it.
    - Shared: weights fed the very same tensor (q, k and v; gate and up) have one product and one buffer, until
      their inputs first differ.
    - Precision: sums and averages in `dtype`. Inputs of 16 bits are converted first on a CPU, where a product in
      bfloat16 would be off by 2e-3; on a GPU they are multiplied as they are, exactly, and summed in float32. Autocast
      is off: u is what the module was handed, before any cast of its own.
    - Blocks: n inputs up to `widest` have one moment (1, n, n). Beyond, the diagonal blocks of the fewest equal parts
      that are no wider, so that n = 6000 has 3 of 2000. An n with no such divisor has narrow ones, a prime n 1 × 1.
    - Cost: one product of 2·rows·n² flops per distinct input, in every `every`-th step only; in the others a hook
      returns at once. While a step collects, memory holds its sums beside the averages.
    - torch.compile: steps that do not collect are traced whole. In those that do, the graph breaks at each measured
      module, so fullgraph=True fails there.
    - Copies of the model, deep or pickled, carry hooks that do nothing: measure the copy by moments of its own.
    - Each process measures its own data: under data parallelism the moments differ between ranks.

    decay in [0, 1), every ≥ 1, ridge ≥ 0 relative to the mean eigenvalue, widest ≥ 1, dtype float32 or float64.
    Raises InputError for values outside, for parameters that are not the model's or have no rule, and if none is left.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Iterable[Tensor] | None = None,
        *,
        decay: float = 0.95,
        every: int = 1,
        ridge: float = 1e-3,
        widest: int = 2048,
        dtype: torch.dtype = torch.float32,
    ):
        if not 0 <= decay < 1:
            raise InputError(f"decay={decay} must be in [0, 1): 0 keeps the last step alone, 1 would never forget")
        if every < 1:
            raise InputError(f"every={every} must be at least 1, to collect in every step")
        if not (ridge >= 0 and math.isfinite(ridge)):
            raise InputError(f"ridge={ridge} must be at least 0 and finite: it is added to eigenvalues of mean 1")
        if widest < 1:
            raise InputError(f"widest={widest} must be at least 1, the widest block of inputs kept whole")
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype={dtype} cannot hold sums of squares; choose torch.float32 or torch.float64")
        self.decay, self.every, self.ridge = float(decay), int(every), float(ridge)
        self._steps = 0
        self._collector = Collector(dtype)
        while isinstance(model, DistributedDataParallel):
            model = model.module
        places = survey(model)
        self._others = {id(p.parameter): (weakref.ref(p.parameter), p.reason) for p in places if p.reason}
        found = {id(place.parameter): place for place in places if not place.reason}
        if parameters is not None:
            chosen = list(parameters)
            for parameter in chosen:
                if id(parameter) not in found:
                    raise InputError(self._why(parameter))
            found = {key: place for key, place in found.items() if any(id(p) == key for p in chosen)}
        if not found:
            raise InputError(
                f"{type(model).__name__} has no weights whose inputs can be measured, such as those of nn.Linear"
                if parameters is None
                else "parameters is empty; name the weights to measure, or leave it out to measure all"
            )
        self._weights: dict[int, Weight] = {}
        hooks: dict[nn.Module, list[tuple[Weight, tuple[Feed, ...]]]] = {}
        for key, place in found.items():
            n = place.uses[0][1][0].read.n
            count = next(b for b in range(1, n + 1) if n % b == 0 and n // b <= widest)
            shape = (count, n // count, n // count)
            weight = self._weights[key] = Weight(place.name, weakref.ref(place.parameter), shape)
            for module, inputs in place.uses:
                hooks.setdefault(module, []).append((weight, inputs))
        collect: Any = torch.compiler.disable(self._collector.collect)
        handles = [
            module.register_forward_pre_hook(Hook(self._collector, collect, tuple(entries)), with_kwargs=True)
            for module, entries in hooks.items()
        ]
        self._remover = weakref.finalize(self, _remove, handles)
        self._remover.atexit = False

    @torch.no_grad()
    def step(self) -> None:
        """Fold what was seen since the last call into the averages, and decide whether the next step collects."""
        groups: dict[tuple[Average | None, Sum], list[Weight]] = {}
        for weight in self._weights.values():
            if weight.pending is not None:
                groups.setdefault((weight.average, weight.pending), []).append(weight)
                weight.pending = None
        self._collector.recent.clear()
        while groups:
            (average, seen), weights = groups.popitem()
            folded = fold(average, seen, self.decay)
            for weight in weights:
                weight.average = folded
        self._steps += 1
        self._collector.collecting = self._steps % self.every == 0

    def discard(self) -> None:
        """Forget what was seen since the last `step`, such as the inputs of a step that was left out."""
        for weight in self._weights.values():
            weight.pending = None
        self._collector.recent.clear()

    @torch.no_grad()
    def moment(self, parameter: Tensor) -> Float[Tensor, "blocks width width"] | None:
        """The diagonal blocks (b, n/b, n/b) of C, with ridge · mean eigenvalue added and then normalised to trace n.

        None before anything was seen. All inputs zero, or none of them finite: the identity. In `dtype`, where the
        inputs were; computed at each call. Raises InputError for a parameter that is not measured.
        """
        weight = self._weight(parameter)
        if weight.average is None:
            return None
        C = weight.average.blocks
        C = (C + C.mT) / 2
        mean = C.diagonal(dim1=-2, dim2=-1).mean()
        eye = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
        C = torch.where(mean > 0, C / mean.where(mean > 0, 1.0), eye)
        return (C + self.ridge * eye) / (1 + self.ridge)

    def measures(self, parameter: Tensor) -> bool:
        """Whether `parameter` is one of those whose inputs are measured."""
        weight = self._weights.get(id(parameter))
        return weight is not None and weight.parameter() is parameter

    @staticmethod
    def measurable(model: nn.Module, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Those of `parameters` whose inputs can be measured in `model`."""
        while isinstance(model, DistributedDataParallel):
            model = model.module
        found = {id(place.parameter) for place in survey(model) if not place.reason}
        return [p for p in parameters if id(p) in found]

    def version(self, parameter: Tensor) -> int:
        """How often the moment of `parameter` was updated: 0 before anything was seen. With `key`, it says whether a
        moment is the one last looked at, within one run; a loaded state brings its own versions."""
        average = self._weight(parameter).average
        return 0 if average is None else average.version

    def key(self, parameter: Tensor) -> str:
        """The name of the first weight that shares the moment of `parameter`: equal keys, equal moments."""
        weight = self._weight(parameter)
        if weight.average is None:
            return weight.name
        return next(other.name for other in self._weights.values() if other.average is weight.average)

    def shares(self) -> dict[str, tuple[str, ...]]:
        """Each key and the names of the weights that share its moment."""
        groups: dict[Average | str, list[str]] = {}
        for weight in self._weights.values():
            groups.setdefault(weight.average or weight.name, []).append(weight.name)
        return {names[0]: tuple(names) for names in groups.values()}

    def remove(self) -> None:
        """Remove every hook; the averages stay. Done too when this object is no longer referred to."""
        self._remover()

    def state_dict(self) -> dict[str, Any]:
        """Averages, weights of the averages, versions, sharing and the count of steps; to be called after `step`."""
        averages: dict[Average, list[str]] = {}
        for weight in self._weights.values():
            if weight.average is not None:
                averages.setdefault(weight.average, []).append(weight.name)
        moments = [
            {"weights": names, "blocks": a.blocks.clone(), "mass": a.mass.clone(), "version": a.version}
            for a, names in averages.items()
        ]
        return {"steps": self._steps, "moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, bitwise; weights are found by their names in the model, without wrappers.

        Weights that the state does not know begin anew. Raises InputError, and changes nothing, for a state with
        weights that are not measured here or with moments of another shape.
        """
        named = {weight.name: weight for weight in self._weights.values()}
        loaded: dict[str, Average] = {}
        for entry in state["moments"]:
            blocks = entry["blocks"]
            for name in entry["weights"]:
                if name not in named:
                    raise InputError(
                        f"the state has a moment of {name!r}, which is not measured here; build the same model"
                    )
                wanted = named[name].shape
                if tuple(blocks.shape) != wanted:
                    raise InputError(
                        f"the state's moment of {name!r} has shape {tuple(blocks.shape)}, here it is {wanted}; "
                        "build the same model, with the same widest"
                    )
            parameter = named[entry["weights"][0]].parameter()
            device = blocks.device if parameter is None else parameter.device
            blocks, mass = (entry[x].detach().to(device, self._collector.dtype, copy=True) for x in ("blocks", "mass"))
            loaded |= dict.fromkeys(entry["weights"], Average(blocks, mass, int(entry["version"])))
        for name, weight in named.items():
            weight.average, weight.pending = loaded.get(name), None
        self._collector.recent.clear()
        self._steps = int(state["steps"])
        self._collector.collecting = self._steps % self.every == 0

    @property
    def bytes(self) -> int:
        """Memory held by averages and by sums not yet folded in."""
        held = {w.average.blocks for w in self._weights.values() if w.average is not None}
        held |= {w.pending.total for w in self._weights.values() if w.pending is not None}
        return sum(x.numel() * x.itemsize for x in held)

    def __repr__(self) -> str:
        weights = {weight.name: weight for weight in self._weights.values()}
        tally: dict[tuple[int, int, int], tuple[int, int]] = {}
        for key, names in self.shares().items():
            moments, sharers = tally.get(weights[key].shape, (0, 0))
            tally[weights[key].shape] = moments + 1, sharers + len(names)
        lines = [f"InputMoments(decay={self.decay:g}, every={self.every}, ridge={self.ridge:g}): {_size(self.bytes)}"]
        for shape, (moments, sharers) in tally.items():
            each = math.prod(shape) * self._collector.dtype.itemsize
            lines.append(f"  {moments} × {shape} for {sharers} weights: {_size(moments * each)}")
        return "\n".join(lines)

    def __getstate__(self) -> None:
        raise InputError(
            "InputMoments is tied to its model by hooks and cannot be copied or pickled; keep its state_dict(), and "
            "load it into InputMoments(copy of the model)"
        )

    def _weight(self, parameter: Tensor) -> Weight:
        weight = self._weights.get(id(parameter))
        if weight is None or weight.parameter() is not parameter:
            raise InputError(self._why(parameter))
        return weight

    def _why(self, parameter: Tensor) -> str:
        known, reason = self._others.get(id(parameter), (None, ""))
        if known is not None and known() is parameter:
            return f"no moment of {reason}; leave it out"
        return (
            f"a parameter of shape {tuple(parameter.shape)} has no moment here; pass parameters of the model itself, "
            "among those that were to be measured"
        )


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _size(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{count / 2**10:.3g} KiB"
