"""What a weight multiplies: which argument of its module's forward it is, and how to read rows u from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import UninitializedParameter

from icm.networks import plain

CHUNK = 2**24  # entries of unfolded patches held at a time: 64 MiB in float32

# Linear layers that their owner, nn.MultiheadAttention, multiplies by without calling them.
WITHOUT_CALLS = (NonDynamicallyQuantizableLinear,)
_SPATIAL = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


@dataclass(frozen=True)
class Rows:
    """The vectors along the last axis of x (…, n); nothing for an x of another width, which its module refuses."""

    n: int

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        if x.ndim and x.shape[-1] == self.n:
            yield x.reshape(-1, self.n)


@dataclass(frozen=True)
class Patches:
    """The patches of x ([batch,] channels, …) that a convolution meets, flattened as its weight (out, channels·k…) is.

    `padding` is as torch.nn.functional.pad takes it, the last axis first.
    """

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    mode: str

    @property
    def n(self) -> int:
        return self.channels * math.prod(self.kernel)

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        axes = len(self.kernel)
        x = x[None] if x.ndim == axes + 1 else x
        if x.ndim != axes + 2 or x.shape[1] != self.channels or not x.shape[0]:
            return
        outputs = 1
        for i, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
            padded = x.shape[i + 2] + sum(self.padding[2 * (axes - 1 - i) :][:2])
            outputs *= max(0, (padded - d * (k - 1) - 1) // s + 1)
        if not outputs:
            return
        for part in x.split(max(1, CHUNK // (outputs * self.n))):
            u = nn.functional.pad(part, self.padding, mode=self.mode)
            for i, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
                u = u.unfold(i + 2, d * (k - 1) + 1, s)[..., ::d]
            yield u.movedim(1, axes + 1).reshape(-1, self.n)  # (batch, outputs…, channels, k…)


Reader = Rows | Patches  # equal readers read equal rows from one tensor


@dataclass(frozen=True)
class Feed:
    """One argument of a forward, by place and by name, and its reader."""

    place: int
    name: str
    read: Reader


@dataclass(frozen=True, eq=False)
class Place:
    """A parameter, the modules that own it with the inputs it multiplies there, or the reason why it has none."""

    name: str
    parameter: nn.Parameter
    uses: tuple[tuple[nn.Module, tuple[Feed, ...]], ...]
    reason: str


def survey(model: nn.Module) -> list[Place]:
    """Every parameter of `model`, under its first name; a tied one has a rule only where all its owners have one."""
    uses: dict[nn.Parameter, list[tuple[nn.Module, tuple[Feed, ...]]]] = {}
    names: dict[nn.Parameter, str] = {}
    reasons: dict[nn.Parameter, str] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            full = plain(f"{path}.{name}" if path else name)
            names.setdefault(parameter, full)
            rule = feeds(module, name)
            if isinstance(rule, str):
                reasons.setdefault(parameter, f"{full}: {rule}")
            else:
                uses.setdefault(parameter, []).append((module, rule))
                if rule[0].read.n != uses[parameter][0][1][0].read.n:
                    reasons.setdefault(parameter, f"{full}: it is tied to a weight with another number of inputs")
    return [Place(name, p, tuple(uses.get(p, ())), reasons.get(p, "")) for p, name in names.items()]


def feeds(module: nn.Module, name: str) -> tuple[Feed, ...] | str:
    """The inputs that the parameter `name` of `module` multiplies, or, as a text, why they cannot be had.

    nn.Linear, nn.Conv1d/2d/3d without groups, classes named Conv1D that store (inputs, outputs), and the projections
    of nn.MultiheadAttention, whose in_proj_weight multiplies query, key and value.
    """
    weight = module._parameters[name]
    assert weight is not None
    kind = type(module).__name__
    if isinstance(weight, UninitializedParameter):
        return "it has no shape yet; run one forward pass first"
    if not weight.numel():
        return "it has no entries"
    if weight.is_complex():
        return f"it is {weight.dtype}, and only real inputs are measured"
    if isinstance(module, WITHOUT_CALLS):
        return "nn.MultiheadAttention multiplies by it without calling its module, so its inputs cannot be seen"
    if isinstance(module, nn.MultiheadAttention):
        order = ("query", "key", "value")
        meets = {f"{x[0]}_proj_weight": (x,) for x in order} | {"in_proj_weight": order}
        if name in meets:
            return tuple(Feed(order.index(x), x, Rows(weight.shape[1])) for x in meets[name])
    elif name != "weight" or weight.ndim < 2:
        return f"it is no weight that multiplies the inputs of its {kind}"
    elif isinstance(module, nn.Linear) and weight.ndim == 2:
        return (Feed(0, "input", Rows(weight.shape[1])),)
    elif is_conv1d(module) and weight.ndim == 2:
        return (Feed(0, "x", Rows(weight.shape[0])),)
    for parent, axes in _SPATIAL.items():
        if isinstance(module, parent):
            if module.groups != 1:
                return f"its convolution has {module.groups} groups, and so as many moments; only groups=1 is measured"
            return (Feed(0, "input", _patches(module, axes)),)
    return f"there is no rule for the inputs of {kind}.{name}"


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is Hugging Face's linear layer, whose weight is stored inputs × outputs."""
    return any(parent.__name__ == "Conv1D" for parent in type(module).__mro__)


def _patches(module: Any, axes: int) -> Patches:
    padding: list[int] = []
    for i in reversed(range(axes)):
        if module.padding == "same":  # an odd one goes to the end
            total = module.dilation[i] * (module.kernel_size[i] - 1)
            padding += [total // 2, total - total // 2]
        else:
            side = 0 if isinstance(module.padding, str) else int(module.padding[i])
            padding += [side, side]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    return Patches(module.in_channels, kernel, stride, dilation, tuple(padding), mode)
