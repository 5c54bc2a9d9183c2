"""Fits kept on disk, named by their content: what a fit depends on is hashed, and the hash names its file."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icm.errors import InputError
from icm.maps.composition import Composition

FORMAT = 1  # to be raised whenever the same request may give another fit
_STALE = 3600.0  # seconds after which an unfinished file was left by a writer that died


def folder(cache: bool | str | Path | None = True) -> Path | None:
    """Where fits are kept: the folder given, for True $ICM_CACHE or the platform's own, None for no cache.

    The platform's: ~/Library/Caches/icm/maps on macOS, %LOCALAPPDATA%\\icm\\maps on Windows, and elsewhere
    $XDG_CACHE_HOME/icm/maps or ~/.cache/icm/maps.

    Raises InputError for anything but a path, a bool or None.
    """
    if cache is None or cache is False:
        return None
    if cache is not True:
        if not isinstance(cache, str | Path):
            raise InputError(f"cache={cache!r}: give a folder, True for the usual one, or None for no cache")
        return Path(cache)
    if named := os.environ.get("ICM_CACHE"):
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # no home directory is known
        return None
    if sys.platform == "darwin":
        root = home / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return root / "icm" / "maps"


def key_of(
    phi: Callable[[Any], Any],
    points: Iterable[NDArray[np.float64]],
    lower: float,
    degrees: Sequence[int],
    monotone: bool,
) -> str:
    """sha256 of all that a fit depends on: φ at every point it looks at, lower, degrees, monotone and the format."""
    digest = hashlib.sha256(f"icm map {FORMAT} {float(lower).hex()} {tuple(degrees)} {bool(monotone)}".encode())
    for x in points:
        y = np.asarray(phi(torch.from_numpy(x)), dtype=np.float64)
        for array in (x, y):
            digest.update(len(array).to_bytes(8, "little") + np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def load(where: Path | None, key: str, degrees: Sequence[int]) -> Composition | None:
    """The composition kept under `key`, or None: no file, or one that is truncated, corrupt or not ours."""
    if where is None:
        return None
    try:
        return decode((where / f"{key}.json").read_text(encoding="utf-8"), key, degrees)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def store(where: Path | None, key: str, composition: Composition) -> None:
    """Keep `composition` under `key`: written to a new file in the same folder, which then takes the name at once, so
    that readers see all of it or nothing, whoever else writes or dies. A folder that cannot be written warns once."""
    if where is None:
        return
    try:
        where.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(suffix=".part", prefix=f".{key[:16]}.", dir=where)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(encode(composition, key))
            os.replace(part, where / f"{key}.json")
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        _sweep(where)
    except OSError as error:
        warnings.warn(
            f"maps are not kept on disk: {where} cannot be written ({error.strerror or error}); set ICM_CACHE to a "
            "folder that can, or pass cache=None",
            RuntimeWarning,
            stacklevel=2,
        )


def encode(composition: Composition, key: str) -> str:
    """JSON of the coefficients as hexadecimal floats, which lose no bit, with a checksum of them."""
    factors = [[c.hex() for c in factor] for factor in composition.factors]
    return json.dumps({"icm map": FORMAT, "key": key, "factors": factors, "sum": _checksum(factors)}, indent=1)


def decode(text: str, key: str, degrees: Sequence[int] | None = None) -> Composition:
    """The composition that `encode` wrote.

    Raises ValueError, TypeError or KeyError for text that is not that: another format, key, shape or checksum.
    """
    content = json.loads(text)
    factors = content["factors"]
    if content["icm map"] != FORMAT or content["key"] != key or content["sum"] != _checksum(factors):
        raise ValueError("another format, key or checksum")
    composition = Composition(tuple(tuple(float.fromhex(c) for c in factor) for factor in factors))
    if degrees is not None and composition.degrees != tuple(degrees):
        raise ValueError(f"degrees {composition.degrees}, not {tuple(degrees)}")
    return composition


def _checksum(factors: Any) -> str:
    return hashlib.sha256(json.dumps(factors).encode()).hexdigest()


def _sweep(where: Path) -> None:
    """Remove what writers that died left behind."""
    for part in where.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > _STALE:
                part.unlink(missing_ok=True)
        except OSError:
            continue
