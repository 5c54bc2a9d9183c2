"""Parameter groups as a plain-text table: what `print(optimizer)` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any, NamedTuple

from torch import Tensor

from icm.optim.layout import Layout

WIDTH = 120
_HEADER = ("role", "by", "count", "stored", "taken as", "lr", "why")
_CAPS = (20, 5, 6, 22, 34, 9)  # widest cells; longer ones go on below, and "why" takes what is left
_GAP = "  "


class _Line(NamedTuple):
    name: str
    parameter: Tensor
    reason: str


def table(groups: Sequence[Mapping[str, Any]], names: bool = False) -> str:
    """One row per group and shape: role, algorithm, how many parameters, their shape as stored, the matrices (outputs ×
    inputs) each is taken as, lr, and why they are there; then sums. At most 120 columns, but for longer names.

    `groups` are those of icm.optim.groups or an optimizer's param_groups, which may lack all but "params". With `names`
    every parameter follows its row, frozen ones marked, with its own reason.
    """
    rows: list[tuple[str, ...]] = [_HEADER]
    below: list[list[str]] = [[]]
    for group in groups:
        for lines in _by_shape(group):
            reasons = list(dict.fromkeys(line.reason for line in lines if line.reason))
            more = [f"and {len(reasons) - 3} reasons more"] if len(reasons) > 3 else []
            rows.append((*_cells(group, lines), "; ".join(reasons[:3] + more)))
            below.append([_named(line) for line in lines] if names else [])
    head = [[_fold(cell, cap) for cell, cap in zip(row, _CAPS, strict=False)] for row in rows]
    widths = [max(len(line) for row in head for line in row[column]) for column in range(len(_CAPS))]
    left = WIDTH - sum(widths) - len(_GAP) * len(widths)
    text = []
    for row, cells, listed in zip(rows, head, below, strict=True):
        for parts in zip_longest(*cells, _fold(row[-1], left), fillvalue=""):
            aligned = [
                part.rjust(width) if column == 2 else part.ljust(width)
                for column, (part, width) in enumerate(zip(parts, widths, strict=False))
            ]
            text.append(_GAP.join([*aligned, parts[-1]]).rstrip())
        text += listed
    return "\n".join([*text, *_fold(_sums(groups), WIDTH)])


def _cells(group: Mapping[str, Any], lines: Sequence[_Line]) -> tuple[str, ...]:
    shape, layout, lr = tuple(lines[0].parameter.shape), group.get("layout"), group.get("lr")
    return (
        str(group.get("role", "–")),
        str(group.get("algorithm", "–")),
        str(len(lines)),
        "×".join(map(str, shape)) or "scalar",
        _stacks(layout, shape) if isinstance(layout, Layout) else "–",
        "–" if lr is None else f"{float(lr):.4g}",
    )


def _stacks(layout: Layout, shape: tuple[int, ...]) -> str:
    """The matrices of one parameter, as in 768×768 + 8 × 64×768, and how they are cut out where that is not plain."""
    counts: Counter[tuple[int, int]] = Counter()
    for count, m, n in layout.shapes(shape):
        counts[m, n] += count
    stacks = " + ".join(f"{count} × {m}×{n}" if count > 1 else f"{m}×{n}" for (m, n), count in counts.items())
    notes = ["transposed"] if layout.kind in ("transposed", "experts-transposed") else []
    notes += [f"{layout.blocks} blocks"] if layout.blocks > 1 else []
    return f"{stacks} ({', '.join(notes)})" if notes else stacks


def _by_shape(group: Mapping[str, Any]) -> Iterator[list[_Line]]:
    """The parameters of a group, those of equal shape together, in order."""
    shapes: dict[tuple[int, ...], list[_Line]] = {}
    reasons = group.get("reasons") or ()
    given = group.get("param_names") or ()
    for index, each in enumerate(group["params"]):
        name, parameter = each if isinstance(each, tuple) else (given[index] if given else f"parameter {index}", each)
        line = _Line(name, parameter, reasons[index] if index < len(reasons) else "")
        shapes.setdefault(tuple(parameter.shape), []).append(line)
    yield from shapes.values()


def _named(line: _Line) -> str:
    notes = [*([] if line.parameter.requires_grad else ["frozen"]), *([line.reason] if line.reason else [])]
    return f"    {line.name}" + (f": {', '.join(notes)}" if notes else "")


def _sums(groups: Sequence[Mapping[str, Any]]) -> str:
    count: Counter[str] = Counter()
    entries: Counter[str] = Counter()
    frozen = 0
    for group in groups:
        algorithm = str(group.get("algorithm", "–"))
        for lines in _by_shape(group):
            count[algorithm] += len(lines)
            entries[algorithm] += sum(line.parameter.numel() for line in lines)
            frozen += sum(not line.parameter.requires_grad for line in lines)
    parts = [f"{algorithm} {count[algorithm]} parameters, {entries[algorithm]:,} numbers" for algorithm in count]
    return "; ".join([*parts, *([f"{frozen} frozen"] if frozen else [])])


def _fold(cell: str, width: int) -> list[str]:
    return wrap(cell, max(width, 1), break_on_hyphens=False) or [""]
