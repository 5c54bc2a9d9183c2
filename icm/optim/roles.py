"""What a module says of its parameters: the role each plays, and how its matrices are stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from icm.optim.layout import Layout

Role = Literal[
    "matrices",
    "convolutions",
    "experts",
    "fused",
    "embeddings",
    "heads",
    "norms",
    "biases",
    "vectors",
    "others",
]
ROLES: tuple[Role, ...] = get_args(Role)

_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)
_LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
_FUSED = re.compile(r"qkv|query_key_value|c_attn|gate_up|up_gate|(^|_)kv(_|$)")
_GATES = {"LSTM": 4, "GRU": 3}


class Verdict(NamedTuple):
    """One parameter's role, how its matrices are stored (None: it has none and goes to AdamW), and why."""

    role: Role
    layout: Layout | None
    reason: str


def by_module(module: nn.Module, key: str, shape: Sequence[int]) -> Verdict | None:
    """The role of `module.key`, a parameter of this shape: first by the module's type, then by what its attributes and
    names say, which the reason calls inferred; None where it has three or more dimensions and the module is unknown."""
    return _known(module, key, tuple(shape)) or _inferred(module, key, tuple(shape))


def is_linear(module: nn.Module) -> bool:
    return (isinstance(module, nn.Linear) and _weighted(module)) or is_conv1d(module)


def is_lookup(module: nn.Module) -> bool:
    return isinstance(module, _LOOKUPS) and _weighted(module)


def is_conv1d(module: nn.Module) -> bool:
    """Hugging Face's Conv1D: a linear layer stored inputs × outputs, told by its name, its nf and its weight."""
    shape = getattr(getattr(module, "weight", None), "shape", ())
    return type(module).__name__ == "Conv1D" and len(shape) == 2 and getattr(module, "nf", None) == shape[1]


def _weighted(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor)


def weight(module: nn.Module) -> Tensor:
    """A layer's weight: a parameter, or what a parametrization makes of some."""
    found = module.weight
    assert isinstance(found, Tensor)
    return found


def sizes(module: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer."""
    shape = weight(module).shape
    return (shape[1], shape[0]) if is_conv1d(module) else (shape[0], shape[1])


def _known(module: nn.Module, key: str, shape: tuple[int, ...]) -> Verdict | None:
    name = type(module).__name__
    if isinstance(module, nn.Linear) and type(module).__module__.startswith("torch."):
        name = "Linear"  # torch's own subclasses differ in how they are quantized only
    if isinstance(module, _NORMS):
        return Verdict("norms", None, name)
    if isinstance(module, _LOOKUPS):
        return Verdict("embeddings", None, name)
    if isinstance(module, nn.MultiheadAttention):
        return _attention(module, key)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        gates = next((count for kind, count in _GATES.items() if kind in name.upper()), 1)
        if "bias" in key:
            return Verdict("biases", None, name)
        if gates == 1 or key.startswith("weight_hr"):
            return Verdict("matrices", Layout(), name)
        return Verdict("fused", Layout(parts=(shape[0] // gates,) * gates), f"{name}: {gates} gates")
    linear, convolution = is_linear(module), isinstance(module, nn.modules.conv._ConvNd)
    if (linear or convolution or isinstance(module, nn.Bilinear)) and key == "bias":
        return Verdict("biases", None, name)
    if key != "weight":
        return None
    if linear and len(shape) == 2:
        return Verdict("matrices", Layout("transposed" if is_conv1d(module) else "matrix"), name)
    if isinstance(module, nn.modules.conv._ConvNd):
        kind = "transposed-convolution" if module.transposed else "convolution"
        return Verdict("convolutions", Layout(kind, groups=module.groups), name)
    if isinstance(module, nn.Bilinear):
        return Verdict("others", None, "Bilinear: linear in two inputs, so no matrix of one")
    return None


def _attention(module: nn.MultiheadAttention, key: str) -> Verdict | None:
    if key == "in_proj_weight":
        layout = Layout(parts=(module.embed_dim,) * 3)
        return Verdict("fused", layout, "MultiheadAttention: query, key, value")
    if key in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return Verdict("matrices", Layout(), "MultiheadAttention")
    return Verdict("biases", None, "MultiheadAttention") if "bias" in key else None


def _inferred(module: nn.Module, key: str, shape: tuple[int, ...]) -> Verdict | None:
    name = type(module).__name__
    outputs, inputs = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if key == "weight" and len(shape) == 2 and outputs is not None and shape in ((outputs, inputs), (inputs, outputs)):
        stored = "out_features, in_features" if shape == (outputs, inputs) else "in_features, out_features"
        layout = Layout("matrix" if shape == (outputs, inputs) else "transposed")
        return Verdict("matrices", layout, f"inferred: shape is ({stored}) of {name}")
    while shape and shape[0] == 1:  # (1, T, d) is a table of T rows that broadcasts over the batch
        shape = shape[1:]
    wide = sum(size > 1 for size in shape)
    if wide <= 1:
        if "norm" in name.lower():
            return Verdict("norms", None, f"inferred: class {name}")
        return Verdict("biases" if "bias" in key else "vectors", None, "one dimension" if wide else "one number")
    if len(shape) == 2:
        return Verdict("others", None, f"inferred: a free table in {name}, no known layer's weight")
    return None


def thin(layout: Layout, shape: Sequence[int]) -> tuple[int, int] | None:
    """(m, n) if every matrix of such a parameter is a single row or column: a vector has no spectrum to shape."""
    stacks = layout.shapes(shape)
    return stacks[0][1:] if all(min(m, n) == 1 for _, m, n in stacks) else None


def looks_fused(path: str, m: int, n: int) -> bool:
    """Whether a layer's own name says that it is several joined along the m outputs; in_proj only where m = 3n."""
    own = path.rsplit(".", 1)[-1].lower()
    return bool(_FUSED.search(own)) or ("in_proj" in own and m == 3 * n)
