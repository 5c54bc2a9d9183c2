"""The loss as a function of one layer's output: its value and gradient, and its remainders at displaced outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import one_hot, pad

from icm.errors import InputError
from icm.measure.layers import Layer
from icm.measure.nest import with_tensors
from icm.measure.surroundings import enough_memory, first_line, is_no_memory, plain_attention, random_state, seeded
from icm.networks import plain

Loss = Callable[[Any, Any], Tensor]


class _Whole(nn.Module):
    """The loss and its model as one module, all of whose tensors torch.func can replace, however the loss reaches them:
    through the model's forward, a module inside it, or from elsewhere."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Any:
        return self.loss(self.model, batch)


def _wider(x: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return x.dtype if dtype is None or not x.is_floating_point() else dtype


@dataclass(frozen=True, eq=False)
class Base:
    """One batch at a layer, not displaced: outputs y (B, T, m) in the model's dtype, inputs u (B, T, n), the gradient g
    (B, T, m) of each example's summed loss, float64, the loss terms (B, L), and eps of the coarsest precision that the
    model computes in."""

    y: Tensor
    u: Tensor
    g: Tensor
    terms: Tensor
    eps: float

    @property
    def wide(self) -> torch.dtype:
        """The dtype of displacements: the outputs' own, float32 at least."""
        return torch.promote_types(self.y.dtype, torch.float32)


class Network:
    """A model and its loss, prepared for displacements. `seed`: of all random layers, the same in every pass.

    No pass changes the model: its parameters without gradients, in another dtype if asked, and copies of its buffers
    are in their places meanwhile.
    """

    def __init__(self, model: nn.Module, loss: Loss, dtype: torch.dtype | None, seed: int | None, looped: bool):
        self.model, self.dtype, self.seed, self.looped = model, dtype, seed, looped
        self._whole = _Whole(model, loss)
        with torch.inference_mode(False):
            self._parameters = {
                name: p.detach().to(_wider(p, dtype), copy=p.is_inference())
                for name, p in self._whole.named_parameters()
            }

    def base(self, layer: Layer, batch: Any, alone: bool = False) -> Base:
        """The batch at a layer. `alone`: make sure that no example's loss depends on another's output, and that nothing
        random is drawn without a seed.

        Raises InputError for a layer that is not called exactly once, and for losses that are not per term, not finite,
        no function of the layer's output or without a finite gradient in it; OutOfMemory.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        kinds: set[torch.dtype] = set()

        def watch(module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
            u = args[0] if args else next(iter(kwargs.values()))
            leaf = y.detach().requires_grad_()
            seen.append((leaf, u.detach().clone()))  # what follows may be in place
            if self.dtype is None and torch.is_autocast_enabled(y.device.type):
                kinds.add(torch.get_autocast_dtype(y.device.type))
            return leaf.clone()

        with torch.inference_mode(False), torch.enable_grad(), self.through(layer, watch), enough_memory("a pass"):
            terms = self.terms(batch, still=alone)
            if len(seen) != 1:
                raise InputError(
                    f"{layer.name} is called {len(seen)} times in a forward pass, and a displacement is of one output: "
                    + ("its model takes another way to the loss" if not seen else "leave it out")
                )
            y, u = seen[0]
            if self.dtype is not None and y.dtype != self.dtype:
                raise InputError(
                    f"dtype={self.dtype}: {layer.name} still computes in {y.dtype}; the loss must call it outside "
                    "autocast, and nothing in the model may cast"
                )
            flat = _by_example(layer, terms, y)
            if not bool(torch.isfinite(flat).all()):
                raise InputError(
                    f"the loss has {int((~torch.isfinite(flat)).sum())} terms that are not finite before anything is "
                    "displaced; mend the model or leave those data out"
                )
            try:
                (g,) = torch.autograd.grad(flat.double().sum(), y, retain_graph=alone)
            except RuntimeError as error:
                if is_no_memory(error):
                    raise
                raise InputError(
                    f"the loss is no differentiable function of the output of {layer.name} ({error}); "
                    "switch off gradient checkpointing and what overwrites values in place that a gradient needs, and "
                    "return the loss terms with their graph"
                ) from error
            if not bool(torch.isfinite(g).all()):
                raise InputError(
                    f"the gradient of the loss in the output of {layer.name} has {int((~torch.isfinite(g)).sum())} "
                    "entries that are not finite; mend the model or leave those data out"
                )
            if alone:
                _check_alone(layer, flat, y)
        B = len(flat)
        part = slice(layer.start, layer.start + layer.m)
        y3, g3 = (x.detach().reshape(B, -1, y.shape[-1])[..., part] for x in (y, g))
        kinds |= {y.dtype} if self.dtype else {y.dtype, terms.dtype, *(p.dtype for p in self.model.parameters())}
        eps = max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point)
        return Base(y3, u.reshape(B, -1, u.shape[-1]), g3.double(), flat.detach(), eps)

    @torch.no_grad()
    def remainders(
        self, layer: Layer, batch: Any, base: Base, delta: Tensor, where: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(K, B) remainders L(y + δ) − L(y) − ⟨∇L(y), δ⟩ and linear terms ⟨∇L(y), δ⟩, float64: L of each example the
        sum of its terms, differences taken term by term.

        δ (K, B, m) displaces the positions `where` (B,), none where that is negative, or δ (K, B, T, m) all. Both use
        what arrives of it in floating point, (y + δ) − y. Raises OutOfMemory.
        """
        T, m = base.y.shape[1:]
        moved: list[Tensor] = [delta]
        place = None if where is None else one_hot(where.clamp(min=0), T).to(delta) * (where >= 0)[:, None]

        def displace(module: nn.Module, args: tuple, kwargs: dict, y: Tensor) -> Tensor:
            change = moved[0] if place is None else moved[0][:, None] * place[..., None]
            rest = y.shape[-1] - layer.start - m
            change = pad(change, (layer.start, rest)) if m < y.shape[-1] else change
            return y + change.reshape(y.shape).to(y.dtype)

        def lane(one: Tensor) -> Tensor:
            moved[0] = one
            return self.terms(batch).reshape(base.terms.shape)

        with self.through(layer, displace), enough_memory(f"{len(delta)} displacements of {layer.name} at once"):
            terms = self._lanes(lane, delta)
        change = (terms.double() - base.terms.double()).sum(-1)
        y, g = base.y, base.g
        if where is not None:
            rows = torch.arange(len(y), device=y.device)
            y, g = y[rows, where], g[rows, where] * (where >= 0)[:, None]
        linear = torch.stack([(((y + one.to(y.dtype)).double() - y.double()) * g).flatten(1).sum(-1) for one in delta])
        return change - linear, linear

    def _lanes(self, lane: Callable[[Tensor], Tensor], delta: Tensor) -> Tensor:
        if not self.looped:
            try:
                return vmap(lane, randomness="same")(delta)
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
                if is_no_memory(error):
                    raise
                self.looped = True
                reason = first_line(error)
                warnings.warn(
                    f"displacements pass one by one, which is slow: torch.func.vmap cannot run this model ({reason})",
                    stacklevel=2,
                )
        return torch.stack([lane(one) for one in delta])

    def terms(self, batch: Any, still: bool = False) -> Tensor:
        """The loss terms. `still`: refuse random draws that no seed repeats, which leave no trace."""
        buffers = {name: b.to(_wider(b, self.dtype), copy=True) for name, b in self._whole.named_buffers()}
        with plain_attention(), seeded(self.seed) if self.seed is not None or still else nullcontext():
            before = random_state() if still and self.seed is None else []
            terms = functional_call(self._whole, (self._parameters, buffers), (batch,))
            if any(not torch.equal(x, y) for x, y in zip(before, random_state() if before else [], strict=True)):
                raise InputError(
                    "the model draws at random in every pass, so the loss would change without a displacement: call "
                    "model.eval(), or give random_seed to draw the same each time"
                )
        if not isinstance(terms, Tensor):
            raise InputError(f"loss returned a {type(terms).__name__}, not a tensor of loss terms")
        if terms.ndim == 0:
            raise InputError(
                "loss returned one number for the batch; return its terms, one per example or token "
                "(reduction='none'), so that every example has its own"
            )
        return terms

    @contextmanager
    def through(self, layer: Layer, hook: Callable[..., Tensor]) -> Iterator[None]:
        """While the layer's output goes through `hook`, which no exception leaves behind."""
        handle = layer.module.register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _check_alone(layer: Layer, flat: Tensor, y: Tensor) -> None:
    """No example's loss may depend on another's output. Any two examples are on different sides in one of log₂ B
    halvings: no half's loss may depend on the other's outputs."""
    B = len(flat)
    example = torch.arange(B, device=flat.device)
    losses = flat.double().sum(1) * (1 + example / B)  # apart in size, for dependences that would cancel
    for bit in range((B - 1).bit_length()):
        one = (example >> bit) % 2 == 1
        for half in (one, ~one):
            (g,) = torch.autograd.grad(losses[half].sum(), y, retain_graph=True)
            if bool((g.reshape(B, -1)[~half] != 0).any()):
                raise InputError(
                    f"the loss of one example depends on outputs of {layer.name} that belong to others, so their "
                    "displacements would mix; the first axis of loss terms and outputs must be examples, and examples "
                    "must not meet (batch normalisation in training mode, sequences along the first axis)"
                )


def _by_example(layer: Layer, terms: Tensor, y: Tensor) -> Tensor:
    """Loss terms (B, L): the examples are the first axis of the terms, or of the layer's outputs where the terms are a
    plain list."""
    rows = math.prod(y.shape[:-1])
    B = y.shape[0] if terms.ndim == 1 and y.ndim > 2 else terms.shape[0]
    if B < 1 or terms.numel() % B or rows % B or terms.numel() == 0:
        raise InputError(
            f"loss terms of shape {tuple(terms.shape)} and outputs of shape {tuple(y.shape)} of {layer.name} do not "
            "share a first axis of examples; return one row of terms per example"
        )
    return terms.reshape(B, -1)


def random_layers(model: nn.Module) -> list[str]:
    """The names of the layers that draw at random in training mode: dropout with p > 0, and attention that has it."""
    found = []
    for name, module in model.named_modules():
        if not module.training:
            continue
        p = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "dropout", 0.0)
        if isinstance(p, float) and p > 0:
            found.append(plain(name) or type(module).__name__)
    return found


def widened(batch: Any, dtype: torch.dtype | None) -> Any:
    """The batch with its floating tensors in dtype, if one is given, and copies of what inference mode made, which no
    gradient goes through."""
    return with_tensors(batch, lambda x: x.to(_wider(x, dtype), copy=x.is_inference()))
