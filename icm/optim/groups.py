"""Which parameter gets what: every parameter of a model, sorted into torch parameter groups."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from icm.errors import InputError
from icm.networks import named_modules, nearest, unwrapped
from icm.optim.declared import Owned, Patterns, declared, owned
from icm.optim.heads import find_heads
from icm.optim.layout import Layout
from icm.optim.roles import ROLES, Role, Verdict, by_module, looks_fused, thin

_OURS = ("params", "param_names", "role", "algorithm", "layout", "reasons")
_STORED = {"outputs x inputs": Layout("experts"), "inputs x outputs": Layout("experts-transposed")}

# What an option matched: for each parameter its pattern and the value declared.
Matches = Mapping[str, Mapping[Owned, tuple[str, Any]]]


def groups(
    model: nn.Module,
    *,
    fused: Mapping[str, int | Sequence[int] | Layout] | None = None,
    per_head: Mapping[str, int | Sequence[int]] | None = None,
    experts: Mapping[str, str | Layout] | None = None,
    matrices: Patterns | Mapping[str, Layout] | None = None,
    heads: Patterns | None = None,
    embeddings: Patterns | None = None,
    adamw: Patterns | None = None,
    lr: float | Tensor | Mapping[str, float | Tensor] | None = None,
    adamw_lr: float | Tensor | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Every parameter of `model`, frozen ones too, in exactly one group of the form torch.optim takes:

        {"params": [(name, parameter), …], "role": …, "algorithm": "icm" | "adamw", "layout": Layout | None,
         "reasons": (why each parameter is here, …)}

    - "icm": matrices (nn.Linear, Hugging Face's Conv1D, what has such in_features and out_features), convolutions,
      experts (declared), fused (nn.MultiheadAttention's in_proj, gates of nn.LSTM and nn.GRU, and what is declared).
    - "adamw": embeddings, heads, norms (with their biases), biases, vectors (at most one dimension above 1; layers all
      of whose matrices are 1 × n or m × 1, as in depthwise convolutions), others (free tables such as positions).

    A role's parameters of different layouts are groups of their own. What a module's type does not settle is inferred,
    and its reason says so. The output head, its bias with it, is a linear layer outside repeated blocks with as many
    outputs as an nn.Embedding has rows, else the last layer of all; a linear layer tied to an embedding is one
    parameter, an embedding. A tied parameter bears its first name.

    Declarations match patterns (shell style, case counts, * crosses dots) with a parameter's name or its module's:

    - fused={"*.qkv": 3, "*.kv": (256, 64)}: how many equal layers are joined along the outputs, or the rows of each; or
      the whole Layout, e.g. Layout(parts=(d, d, d), blocks=h) for GPT-NeoX.
    - per_head={"*.qkv": 12, "*.query": 12}: each head is a matrix of its own; (12, 4, 4) gives one count per part.
    - experts={"*.w1": "outputs x inputs", "*.w2": "inputs x outputs"}: how the last two dimensions are stored.
    - matrices=("*.qkv", "mixer"): one matrix each, whatever is inferred; a mapping {pattern: Layout} says how.
    - heads, embeddings, adamw: what goes there. heads replaces the inference; heads=() says that there is none.

    lr is for the "icm" groups, or a mapping from role to lr; adamw_lr is for the "adamw" groups that the mapping leaves
    out. A group without one has no "lr" and takes the optimizer's default. options={"norms": {"weight_decay": 0.0}}
    adds to the groups of a role.

    Warns (UserWarning) of layers whose names say that they are fused and of which nothing is declared: one matrix each.
    Raises InputError for parameters of three or more dimensions in unknown modules, patterns that match nothing,
    declarations that contradict each other or a shape, unknown roles, uninitialised (lazy) parameters, and models
    without parameters; DtypeError for complex parameters.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"groups sorts the parameters of a model, an nn.Module, not {type(model).__name__}")
    model = unwrapped(model)
    parameters = owned(model)
    matrix_options = {"fused": fused, "per_head": per_head, "experts": experts, "matrices": matrices}
    adamw_options = {"heads": heads, "embeddings": embeddings, "adamw": adamw}
    matches = {option: declared(option, given, parameters) for option, given in matrix_options.items()}
    matches |= {option: declared(option, given, parameters, vectors=True) for option, given in adamw_options.items()}
    found = find_heads(named_modules(model)) if heads is None else {}
    taken = {holder.path for option in matrix_options for each in matches[option] for holder in each.holders}
    inferred = {path: why for path, why in found.items() if path not in taken}

    members: dict[tuple[Role, Layout | None], list[tuple[Owned, str]]] = {}
    unknown: list[Owned] = []
    suspects: list[tuple[str, int, int]] = []
    for each in parameters:
        verdict = _verdict(each, matches, inferred)
        if verdict is None:
            unknown.append(each)
            continue
        members.setdefault((verdict.role, verdict.layout), []).append((each, verdict.reason))
        if each not in matches["matrices"]:
            suspects += _suspects(each, verdict)
    if unknown:
        lines = "\n".join(f"  {u.name} {u.shape} in {type(u.holders[0].module).__name__}" for u in unknown)
        raise InputError(
            f"nothing says which dimensions of these are outputs and inputs:\n{lines}\n"
            'declare experts={"pattern": "outputs x inputs"} (or "inputs x outputs") for stacks of matrices, '
            'matrices={"pattern": Layout(…)} for other ones, or adamw=("pattern",) for what is none'
        )
    if suspects:
        warnings.warn(_suspicion(suspects), UserWarning, stacklevel=2)
    settings = _settings(lr, adamw_lr, options)
    return [
        {
            "params": [(each.name, each.parameter) for each, _ in members[role, layout]],
            "role": role,
            "algorithm": "adamw" if layout is None else "icm",
            "layout": layout,
            "reasons": tuple(reason for _, reason in members[role, layout]),
            **settings(role, layout is not None),
        }
        for role, layout in sorted(members, key=lambda key: ROLES.index(key[0]))
    ]


def _verdict(each: Owned, matches: Matches, inferred: Mapping[str, str]) -> Verdict | None:
    """Declarations first, then what is inferred of heads, then the modules' own account; None where nobody knows."""
    said = {option: found[each] for option, found in matches.items() if each in found}
    _require_consistent(each, said)
    layout_given = isinstance(said.get("matrices", ("", None))[1], Layout)
    natural = _natural(each, settled=layout_given or bool(said.keys() & {"heads", "embeddings", "adamw", "experts"}))
    for role in ("heads", "embeddings", "adamw"):
        if role in said:
            reason = f"declared: {role}={said[role][0]!r}"
            if role != "adamw":
                return Verdict(role, None, reason)
            return Verdict("others" if natural is None or natural.layout else natural.role, None, reason)
    if any(option in said for option in ("fused", "per_head", "experts", "matrices")):
        return _cut(each, said, natural)
    if not each.parameter.is_floating_point():
        return Verdict("others", None, f"{each.parameter.dtype}: never trained")
    for holder in each.holders:
        if holder.path in inferred and natural is not None and natural.role != "embeddings":
            return Verdict("heads", None, inferred[holder.path])
    if natural is None or natural.layout is None:
        return natural
    natural.layout.check(each.name, each.shape)
    if (vector := thin(natural.layout, each.shape)) is not None:
        return Verdict("vectors", None, f"{natural.reason}: {vector[0]} × {vector[1]}, a vector")
    return natural


def _natural(each: Owned, settled: bool) -> Verdict | None:
    """What the modules that hold it say: an embedding if one of them is one, else what all of them say; InputError
    where they differ, unless it is `settled` by a declaration."""
    if not each.parameter.numel():
        return Verdict("vectors", None, "no entries")
    verdicts = [by_module(holder.module, holder.key, each.shape) for holder in each.holders]
    if len(verdicts) == 1:
        return verdicts[0]
    for holder, verdict in zip(each.holders, verdicts, strict=True):
        if verdict is not None and verdict.role == "embeddings":
            others = ", ".join(dict.fromkeys(other.name for other in each.holders if other is not holder))
            return Verdict("embeddings", None, f"{verdict.reason}, tied to {others}")
    first = verdicts[0]
    for holder, verdict in zip(each.holders, verdicts, strict=True):
        if not settled and (first is None or verdict is None or verdict.layout != first.layout):
            raise InputError(
                f"{each.name} and {holder.name} are one parameter that their modules store differently; say which is "
                f'meant by matrices={{"{each.name}": Layout(…)}} or adamw=("{each.name}",)'
            )
    return first and first._replace(reason=f"{first.reason}, tied to {each.holders[1].name}")


def _require_consistent(each: Owned, said: Mapping[str, tuple[str, Any]]) -> None:
    for options in (("matrices", "heads", "embeddings", "adamw"), ("matrices", "fused"), ("matrices", "experts")):
        both = [option for option in options if option in said]
        if len(both) > 1:
            one, other = (f"{option}={said[option][0]!r}" for option in both[:2])
            raise InputError(f"{each.name} is declared twice, by {one} and by {other}; make one of them narrower")


def _cut(each: Owned, said: Mapping[str, tuple[str, Any]], natural: Verdict | None) -> Verdict:
    """The layout that `experts`, `matrices`, `fused` and `per_head` declare, in this order, over the module's own."""
    layout = natural.layout if natural is not None else None
    for option in ("experts", "matrices"):
        value = said.get(option, ("", None))[1]
        if isinstance(value, str):
            if (key := value.replace("×", "x")) not in _STORED:
                raise InputError(f"experts: {each.name} as {value!r}; write one of {', '.join(map(repr, _STORED))}")
            layout = _STORED[key]
        elif value is not None:
            layout = value
    if layout is None and len(each.shape) != 2 and not isinstance(said.get("fused", ("", None))[1], Layout):
        raise InputError(
            f"{each.name} has shape {each.shape}, and nothing says which dimensions are outputs and inputs; declare "
            f'experts={{"{each.name}": "outputs x inputs"}} or matrices={{"{each.name}": Layout(…)}}'
        )
    layout = layout or Layout()
    if "fused" in said:
        layout = _joined(each, layout, said["fused"][1])
    if "per_head" in said:
        layout = _by_head(each, layout, said["per_head"][1])
    layout.check(each.name, each.shape)
    role: Role = "matrices"
    if "experts" in layout.kind:
        role = "experts"
    elif len(layout.parts) > 1:
        role = "fused"
    elif "convolution" in layout.kind:
        role = "convolutions"
    return Verdict(
        role, layout, "declared: " + ", ".join(f"{option}={pattern!r}" for option, (pattern, _) in said.items())
    )


def _joined(each: Owned, layout: Layout, value: int | Sequence[int] | Layout) -> Layout:
    if isinstance(value, Layout):
        return value
    if not isinstance(value, int):
        return replace(layout, parts=tuple(value), heads=())
    rows = _rows(each, layout)
    if value < 1 or rows % value:
        raise InputError(f"fused: the {rows} outputs of {each.name} are not {value} equal parts; give the rows of each")
    return replace(layout, parts=(rows // value,) * value, heads=())


def _by_head(each: Owned, layout: Layout, value: int | Sequence[int]) -> Layout:
    if not isinstance(value, int):
        return replace(layout, heads=tuple(value))
    if len(set(layout.parts)) > 1:
        raise InputError(
            f"per_head: {value} for {each.name}, whose parts {layout.parts} differ; give one count of heads for each"
        )
    return replace(layout, heads=(value,) * (len(layout.parts) or 1))


def _rows(each: Owned, layout: Layout) -> int:
    whole = Layout(layout.kind, groups=layout.groups)
    whole.check(each.name, each.shape)
    return whole.shapes(each.shape)[0][1]


def _suspects(each: Owned, verdict: Verdict) -> list[tuple[str, int, int]]:
    """(layer, outputs, inputs) if it is one matrix though its name says that it is several."""
    path, layout = each.holders[0].path, verdict.layout
    if layout is None or layout.divided or verdict.role not in ("matrices", "convolutions"):
        return []
    _, m, n = layout.shapes(each.shape)[0]
    return [(path, m, n)] if looks_fused(path, m, n) else []


def _suspicion(suspects: Sequence[tuple[str, int, int]]) -> str:
    kinds: dict[tuple[str, int, int], int] = {}
    for path, m, n in suspects:
        pattern = "*." + path.rsplit(".", 1)[1] if "." in path else path
        kinds[pattern, m, n] = kinds.get((pattern, m, n), 0) + 1
    what = ", ".join(f"{count} of {pattern!r} ({n} → {m})" for (pattern, m, n), count in kinds.items())
    first, m, n = next(iter(kinds))
    count = 3 if m == 3 * n else 2 if re.search(r"gate|kv", first) and "qkv" not in first else "(rows of each)"
    return (
        f"layers whose names say that they are several in one are taken as one matrix each: {what}. Declare "
        f'fused={{"{first}": {count}}} to split them part after part, with a Layout(parts=…, blocks=heads) where the '
        f'parts alternate by head, or matrices=("{first}",) to keep them whole'
    )


def _settings(lr: Any, adamw_lr: Any, options: Mapping[str, Mapping[str, Any]] | None) -> Any:
    """(role, whether it is solved) → the lr and the other options of such a group."""
    by_role = lr if isinstance(lr, Mapping) else {}
    for option, given in (("lr", by_role), ("options", options or {})):
        for role in given:
            if role not in ROLES:
                like = nearest(role, ROLES, 1)[0]
                raise InputError(f"{option}: {role!r} is no role, perhaps {like!r}; the roles are {', '.join(ROLES)}")
    for role, extra in (options or {}).items():
        if ours := [key for key in extra if key in _OURS]:
            raise InputError(f"options: {ours[0]!r} of {role!r} is set by the sorting itself; declare it by a pattern")

    def settings(role: Role, solved: bool) -> dict[str, Any]:
        rate = by_role.get(role, adamw_lr if not solved else None if isinstance(lr, Mapping) else lr)
        return {**({} if rate is None else {"lr": rate}), **dict((options or {}).get(role, {}))}

    return settings
