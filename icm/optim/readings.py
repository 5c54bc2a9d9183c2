"""What a monitor measured: one layer at one step, and many of them as text, tables and files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from icm.errors import InputError
from icm.networks import nearest
from icm.paths import check_output, write_bytes

MEASURED = ("weight", "update", "features", "feature_update")
_UPDATES = ("update", "feature_update")


@dataclass(frozen=True)
class Reading:
    """One layer at one step of its optimizer (0 the first since the monitor began), in units of its weights and
    features; None where something could not be measured, NaN or infinite where the run is.

    - norm: that of `weight`, ‖W‖ before the step, and `update`, ‖ΔW‖; `exact` unless they are from below.
    - features: root mean square of the layer's outputs W x + b on the kept inputs, before the step; feature_update:
      that of ΔW x + Δb on the same, Δb what the same step did to the bias.
    - exponent, low, high, cosine: what `icm.norms.best_schatten` says of ΔW, p = 1 + 1/exponent, given `source`:
      "momentum" or "gradient"; None for embeddings, for updates of 0 and for matrices above the monitor's `largest`.
    - above, below: of weight, update, features and feature_update those beyond the constants set for them.
    """

    step: int
    layer: str
    norm: str
    lr: float
    weight: float
    update: float
    features: float | None = None
    feature_update: float | None = None
    exponent: float | None = None
    low: float | None = None
    high: float | None = None
    cosine: float | None = None
    source: str | None = None
    exact: bool = True
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    @property
    def p(self) -> float | None:
        """1 + 1/exponent, ∞ from 0 down."""
        a = self.exponent
        return a if a is None or math.isnan(a) else math.inf if a <= 0 else 1 + 1 / a


def constants(given: float | Mapping[str, float] | None, name: str) -> dict[str, float]:
    """The constants of a monitor's `stable` or `learning`: a number is for all four or for the two updates.

    Raises InputError for unknown names and constants that are not finite and above 0.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = dict.fromkeys(MEASURED if name == "stable" else _UPDATES, given)
    for key, value in given.items():
        if key not in MEASURED:
            like = nearest(key, MEASURED, 1)[0]
            raise InputError(f"{name}: {key!r} is not measured, perhaps {like!r}; there are {', '.join(MEASURED)}")
        if not 0 < value < math.inf:
            raise InputError(f"{name}: {key}={value!r} must be finite and above 0, to be compared with norms")
    return {key: float(value) for key, value in given.items()}


def beyond(
    values: Sequence[float | None], stable: Mapping[str, float], learning: Mapping[str, float]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of the four values are above `stable` or not finite, and which below `learning`."""
    known = {name: value for name, value in zip(MEASURED, values, strict=True) if value is not None}
    above = tuple(n for n, x in known.items() if not math.isfinite(x) or x > stable.get(n, math.inf))
    return above, tuple(n for n, x in known.items() if x < learning.get(n, 0.0))


def text_table(readings: Sequence[Reading]) -> str:
    """One row per layer, with what its columns mean below."""
    head = ("layer", "‖W‖", "‖ΔW‖", "features", "Δfeatures", "exponent", "p", "cosine", "beyond")
    rows = [head, *(_cells(one) for one in readings)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i in (0, 8) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if readings:
        lines.append(f"step {max(one.step for one in readings)}")
    if any(not one.exact for one in readings):
        lines.append("≥: from below, by a power iteration")
    return "\n".join(lines)


def _cells(one: Reading) -> tuple[str, ...]:
    mark = "" if one.exact else "≥ "
    flags = [f"{name} ↑" for name in one.above] + [f"{name} ↓" for name in one.below]
    sizes = (mark + _figure(one.weight), mark + _figure(one.update), _figure(one.features), _figure(one.feature_update))
    exponent = "–" if one.exponent is None else f"{one.exponent:.2f}".replace("inf", "∞").replace("nan", "?")
    p = _figure(one.p).replace("nan", "?")
    return (one.layer, *sizes, exponent, p, "–" if one.cosine is None else f"{one.cosine:.3f}", ", ".join(flags))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("inf", "∞")


def write_csv(readings: Iterable[Reading], path: str | Path) -> Path:
    """One line per reading; nothing where a value is None, flags joined by spaces.

    Raises FileError for a path that cannot be written.
    """
    target = check_output(path, (".csv",))
    buffer = io.StringIO()
    names = [one.name for one in fields(Reading)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for one in readings:
        row = asdict(one)
        writer.writerow(" ".join(row[name]) if isinstance(row[name], tuple) else row[name] for name in names)
    write_bytes(target, buffer.getvalue().encode())
    return target


def write_json(readings: Iterable[Reading], path: str | Path) -> Path:
    """{"readings": [{"step": …, "layer": …, …}, …]}; what JSON has no numbers for is the text "inf", "-inf", "nan".

    Raises FileError for a path that cannot be written.
    """
    target = check_output(path, (".json",))
    rows = [json.dumps(dict(_plain(one)), ensure_ascii=False, allow_nan=False) for one in readings]
    write_bytes(target, ('{"readings": [\n' + ",\n".join(rows) + "\n]}\n").encode())
    return target


def _plain(one: Reading) -> Iterator[tuple[str, Any]]:
    for name, value in asdict(one).items():
        yield name, str(value) if isinstance(value, float) and not math.isfinite(value) else value
