"""What a computation asks of the machine: floating-point operations of its products, and bytes of its operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Work(TorchDispatchMode):
    """Counts, while it is entered, over all operations of torch that are executed:

    flops   2·m·k·n for each product of m×k by k×n, as torch's own counter has it; decompositions count nothing
    bytes   of every operand read and every result written, each once per operation; views count nothing

    No cache is assumed between operations and none missed within them, so the bytes are what separate operations
    exchange with memory if nothing stays in a cache, and less than a product moves whose operands do not fit one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        if not func.is_view:
            operands = (args, {name: value for name, value in kwargs.items() if name != "out"})
            read = [leaf for leaf in tree_leaves(operands) if isinstance(leaf, torch.Tensor)]
            written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*read, *written))
        return out


def newton_schulz_flops(m: int, n: int, batch: int = 1, steps: int = 5) -> int:
    """Of so many quintic steps on the smaller side k of k×l: XXᵀ, its square, and a product with X."""
    k, l = sorted((m, n))  # noqa: E741
    return batch * steps * (4 * k * k * l + 2 * k**3)
