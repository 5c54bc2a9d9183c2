"""Places to write to, checked before the work begins, and what is written there, whole or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from icm.errors import FileError


def check_output(path: str | Path, kinds: tuple[str, ...]) -> Path:
    """`path`, if a file of one of these kinds can be written there.

    Raises FileError for another suffix, a folder of that name, a missing parent folder, or one that is read-only.
    """
    path = Path(path)
    if path.suffix.lower() not in kinds:
        raise FileError(f"{path}: cannot write a file of kind {path.suffix!r}; name it {' or '.join(kinds)}")
    if path.is_dir():
        raise FileError(f"{path} is a folder; name a file inside it")
    if not path.parent.is_dir():
        raise FileError(f"{path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"{path}: the folder {path.parent} is read-only; write somewhere else")
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: into a neighbour first, which then takes its name."""
    path = path.resolve()  # through a link, as open() would
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def json_text(value: dict[str, Any]) -> str:
    """Indented JSON with lists of numbers on one line each."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text)


def write_json(path: Path, value: dict[str, Any]) -> Path:
    """Write a dictionary as JSON, whole or not at all."""
    write_bytes(path, (json_text(value) + "\n").encode())
    return path
