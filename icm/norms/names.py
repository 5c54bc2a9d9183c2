"""Text ↔ norm: `schatten(3)`, `ky-fan(2)`, `rms-to-rms(products, steps=4)`; `str(norm)` writes what `parse` reads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from icm.errors import InputError
from icm.norms.columns import ColumnNorm, OneToRMS, RowNorm
from icm.norms.entries import RMS, EntrySum, Frobenius, MaxEntry
from icm.norms.from_curvature import FromCurvature
from icm.norms.induced import Induced
from icm.norms.ky_fan import KyFan
from icm.norms.norm import Norm
from icm.norms.schatten import Nuclear, RMSToRMS, Schatten, Spectral

_TEXT = re.compile(r"\s*([a-z0-9-]+)\s*(?:\((.*)\))?\s*", re.IGNORECASE | re.DOTALL)
_NAMES: dict[str, tuple[Callable[..., Norm], str]] = {
    "frobenius": (Frobenius, ""),
    "rms": (RMS, ""),
    "max-entry": (MaxEntry, ""),
    "entry-sum": (EntrySum, ""),
    "spectral": (Spectral, "products"),
    "rms-to-rms": (RMSToRMS, "products"),
    "nuclear": (Nuclear, ""),
    "schatten": (Schatten, "p"),
    "ky-fan": (KyFan, "k"),
    "column": (ColumnNorm, "p"),
    "row": (RowNorm, "p"),
    "one-to-rms": (OneToRMS, ""),
    "induced": (Induced, "alpha, beta"),
    "luxemburg": (FromCurvature, "H"),
}
HELP = "norms: " + ", ".join(
    f"{name}({given})" if given not in ("", "products") else name for name, (_, given) in _NAMES.items()
)


def parse(text: str) -> Norm:
    """The norm that `text` names, as `parse("schatten(3)")`; `parse(str(norm))` equals the norm. p and k are as in the
    classes, inf for ∞; spectral and rms-to-rms take (products), with steps=4 and precision=bf16 where wanted;
    `luxemburg(r^3)` is FromCurvature("r^3").

    Raises InputError for other texts, GrammarError for an H that is none.
    """
    match = _TEXT.fullmatch(text)
    name = match.group(1).lower() if match else ""
    if match is None or name not in _NAMES:
        raise InputError(f"{text!r} names no norm; {HELP}")
    make, given = _NAMES[name]
    if given == "H":
        return make(match.group(2) or "")
    said = [part.strip() for part in match.group(2).split(",")] if match.group(2) else []
    if given == "products":
        return make(**_options(text, said))
    wanted = len(given.split(",")) if given else 0
    if len(said) != wanted:
        takes = f"takes {wanted}, ({given})" if wanted else "takes none"
        raise InputError(f"{text!r} has {len(said)} arguments; {name} {takes}")
    return make(*(_number(text, part, whole=given == "k") for part in said))


def as_norm(norm: Norm | str) -> Norm:
    """`norm` itself, or the one its text names: wherever a norm is taken, such a string is too."""
    return parse(norm) if isinstance(norm, str) else norm


def _number(text: str, part: str, whole: bool) -> Any:
    try:
        number = math.inf if part == "∞" else float(part)
    except ValueError:
        raise InputError(f"{text!r}: {part!r} is no number") from None
    if not whole:
        return number
    if not number.is_integer():
        raise InputError(f"{text!r}: {part!r} is no whole number")
    return int(number)


def _options(text: str, said: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in said:
        key, _, value = (x.strip() for x in part.partition("="))
        if part in ("products", "exact"):
            options["method"] = part
        elif key == "steps" and value.isdigit():
            options["steps"] = int(value)
        elif key == "precision" and value in ("bf16", "fp16", "tf32", "fp32", "fp64"):
            options["precision"] = value
        else:
            raise InputError(f"{text!r}: {part!r} is none of products, steps=4, precision=bf16 and their like")
    return options
