"""The layers that a monitor watches: which they are, how large in the norm of their role, and what they put out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from icm.errors import InputError
from icm.networks import named_modules, nearest, unwrapped
from icm.norms import Norm, OneToRMS, RMSToRMS
from icm.optim.layout import Layout
from icm.optim.roles import by_module, is_lookup
from icm.optim.stacks import KernelPositions, positions

_BLOCK, _ROUNDS, _SETTLED = 4, 50, 1e-4  # of the power iteration


@dataclass(eq=False)
class Watched:
    """module.key, a weight p: `layout` cuts it into the matrices (B, m, n) of which factor · max ‖·‖ is its norm,
    `whole` into those that an optimizer which knows no parts would shape.

    `inputs` holds what the layer last read, a small sample; `vectors` where the next power iteration begins.
    """

    name: str
    module: nn.Module
    key: str
    parameter: Tensor
    norm: Norm
    layout: Layout
    whole: Layout | None
    factor: float = 1.0
    inputs: Tensor | None = None
    vectors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def bias(self) -> Tensor | None:
        found = getattr(self.module, "bias", None)
        return found if self.key == "weight" and isinstance(found, Tensor) else None

    def size(self, W: Tensor, what: str, largest: int) -> tuple[float, bool]:
        """The norm of a weight or an update, and whether by all singular values where it needs them; else, where the
        smaller side exceeds `largest`, from below by a power iteration on a block of 4 vectors that begins where that
        of the last `what` ended, and ends where it gains less than 1e-4."""
        if not bool(W.isfinite().all()):
            return float("nan"), True
        stacks = self.layout.gather(_wide(W))
        if isinstance(self.norm, RMSToRMS) and any(min(x.shape[1:]) > largest for x in stacks):
            tops = []
            for i, X in enumerate(stacks):
                kept = f"{what} {i}"
                top, self.vectors[kept] = _power(X, self.vectors.get(kept))
                tops.append(top * self.norm.factor(*X.shape[1:]))
            return self.factor * max(tops), False
        return self.factor * max(float(self.norm.norm(x, check=False).amax()) for x in stacks), True

    def keep(self, x: Any, samples: int) -> None:
        """Keep a sample of what the layer reads: evenly spaced tokens, or for convolutions `samples`/16 examples."""
        if self.inputs is not None or not isinstance(x, Tensor) or not x.numel() or self.key != "weight":
            return
        x = x.detach()
        if isinstance(self.module, nn.modules.conv._ConvNd):
            x = x if x.ndim == self.parameter.ndim else x[None]
            samples = max(1, samples // 16)
        elif is_lookup(self.module):
            x = x.reshape(-1)
        else:
            inputs = self.parameter.shape[0 if self.layout.kind == "transposed" else 1]
            if x.shape[-1] != inputs:
                return
            x = x.reshape(-1, inputs)
        at = torch.linspace(0, len(x) - 1, min(len(x), samples), device=x.device).round().long()
        self.inputs = x.index_select(0, at)

    def outputs(self, W: Tensor, b: Tensor | None) -> Tensor | None:
        """W x + b on the kept inputs, None where there are none; all in float32 at least."""
        x, module = self.inputs, self.module
        if x is None:
            return None
        W, b = _wide(W), None if b is None else _wide(b)
        if is_lookup(module):
            return W[x.long()]
        x = x.to(W)
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            convolve = getattr(functional, f"conv_transpose{W.ndim - 2}d")
            place = module.stride, module.padding, module.output_padding, module.groups, module.dilation
            return convolve(x, W, b, *place)
        if isinstance(module, nn.modules.conv._ConvNd):
            return module._conv_forward(x, W, b)  # type: ignore[operator]
        return functional.linear(x, W.mT if self.layout.kind == "transposed" else W, b)


def find(model: nn.Module, layers: str | Sequence[str] | None) -> list[Watched]:
    """Every linear layer, convolution, embedding and recurrent layer's matrix that `layers` name, in the model's order;
    tied ones wherever they are used. A weight that a parametrization makes is none.

    Raises InputError for patterns that match nothing, models without such layers, and parameters not yet initialised.
    """
    every: dict[str, Watched] = {}
    seen: set[tuple[int, str]] = set()
    for path, module in named_modules(unwrapped(model)).items():
        for key, p in module._parameters.items():
            if p is None or (id(module), key) in seen:
                continue
            seen.add((id(module), key))
            if is_lazy(p):
                raise InputError(f"{path}.{key} is not initialised yet; run the model once before watching it")
            full = f"{path}.{key}" if path else key
            name = path if key == "weight" and path else full
            found = _watched(name, module, key, p)
            if found is not None:
                every[name] = found
    if not every:
        raise InputError(f"{type(model).__name__} has no linear layer, convolution or embedding to watch")
    if layers is None:
        return list(every.values())
    return [every[name] for name in _chosen(every, [layers] if isinstance(layers, str) else list(layers))]


def _chosen(names: Mapping[str, Any], patterns: Sequence[str]) -> Iterator[str]:
    chosen: set[str] = set() if any(not x.startswith("!") for x in patterns) else set(names)
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        found = {name for name in names if fnmatchcase(name, bare)}
        if not found:
            near = ", ".join(nearest(bare, names))
            raise InputError(f"layers: {pattern!r} matches none of the layers to watch; the nearest are {near}")
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    if not chosen:
        raise InputError(f"layers={list(patterns)!r} leaves no layer to watch")
    return (name for name in names if name in chosen)


def _watched(name: str, module: nn.Module, key: str, p: nn.Parameter) -> Watched | None:
    if not p.is_floating_point() or not p.numel():
        return None
    verdict = by_module(module, key, p.shape)
    if verdict is None:
        return None
    if verdict.role == "embeddings":
        return Watched(name, module, key, p, OneToRMS(), Layout("transposed"), None)
    if verdict.role == "convolutions" and verdict.layout is not None:
        layout = KernelPositions(verdict.layout.kind, groups=verdict.layout.groups)
        return Watched(name, module, key, p, RMSToRMS(), layout, verdict.layout, positions(p.shape))
    if verdict.role in ("matrices", "fused") and verdict.layout is not None:
        whole = Layout(verdict.layout.kind)
        return Watched(name, module, key, p, RMSToRMS(), verdict.layout, whole)
    return None


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _power(X: Tensor, start: Tensor | None) -> tuple[float, Tensor]:
    """The largest ‖·‖₂ of X (B, m, n), from below: the largest singular value of X on a block of vectors (B, n, 4)."""
    shape = len(X), X.shape[2], min(_BLOCK, *X.shape[1:])
    if start is None or start.shape != shape:
        generator = torch.Generator().manual_seed(0)  # its own, so that training draws the same numbers
        start = torch.randn(shape, generator=generator)
    Q, top = torch.linalg.qr(start.to(X)).Q, 0.0
    for _ in range(_ROUNDS):
        Y = X @ Q
        before, top = top, float(torch.linalg.matrix_norm(Y, 2).amax())
        if top <= before * (1 + _SETTLED):
            break
        Q = torch.linalg.qr(X.mT @ Y).Q
    return top, Q
