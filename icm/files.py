"""Matrices in and out of files: .npy, .npz, .pt, .pth and .safetensors, without ever running code from a file."""

from __future__ import annotations

import difflib
import pickle
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icm.errors import FileError
from icm.paths import check_output, write_bytes

READABLE = (".npy", ".npz", ".pt", ".pth", ".safetensors")
WRITABLE = (".npy", ".pt", ".safetensors")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_matrix(path: str | Path, key: str | None = None) -> Tensor:
    """The matrix (m, n) in a file, on the CPU: floats of 16 bits and more as stored, 8-bit floats as float32,
    integers as float64.

    `key` names one of several arrays: an entry of .npz or .safetensors, or in .pt the path into nested dicts and
    lists joined by dots (``model.blocks.0.weight``). A file that holds a single array needs none.

    Raises FileError for a file that is missing, a folder, of unknown kind, damaged, or would need unpickling; for a
    key that is missing, unknown or no array; and for anything but a real, dense, two-dimensional, non-empty array.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; name a file inside it")
    if path.suffix.lower() not in READABLE:
        raise FileError(f"{path}: unknown kind of file {path.suffix!r}; give one of {', '.join(READABLE)}")
    if not path.exists():
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        raise FileError(f"{path}: no such file; {f'did you mean {near[0]}?' if near else 'check the path'}")
    try:
        arrays = _READERS[path.suffix.lower()](path)
        array = _choose(path, arrays, key)
        return _matrix(f"{path}[{key}]" if key else str(path), array)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}; check it and its permissions") from error


def _siblings(path: Path) -> list[str]:
    try:
        return [p.name for p in path.parent.iterdir()]
    except OSError:
        return []


def _damaged(path: Path, wrote: str, error: Exception) -> FileError:
    line = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
    return FileError(f"{path} is damaged or not what its name says ({line}); write it again with {wrote}")


def _read_npy(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _numpy(np.lib.format.read_array(file, allow_pickle=False), str(path))
    except (ValueError, EOFError, MemoryError) as error:  # a damaged header can ask for any amount of memory
        if isinstance(error, FileError):
            raise
        if "Object arrays" in str(error):
            raise FileError(
                f"{path} holds Python objects, which only run by unpickling; save numbers instead"
            ) from error
        raise _damaged(path, "numpy.save", error) from error


def _read_npz(path: Path) -> Any:
    """A lazy mapping: an entry is read when it is chosen."""
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "numpy.savez", ValueError("it is no zip archive"))

    def read(name: str) -> Tensor:
        try:
            with np.load(path, allow_pickle=False) as file:
                array = file[name]
        except Exception as error:  # zip, zlib, header and size errors share no base
            if "Object arrays" in str(error):
                raise FileError(f"{path}[{name}] holds Python objects; save numbers instead") from error
            raise _damaged(path, "numpy.savez", error) from error
        if isinstance(array, bytes):
            raise FileError(f"{path}[{name}] is no array; write the archive with numpy.savez")
        return _numpy(array, f"{path}[{name}]")

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: (lambda name=name: read(name)) for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, "numpy.savez", error) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is an error anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # on damaged files the unpickler raises nearly anything
        if not isinstance(error, pickle.UnpicklingError):
            raise _damaged(path, "torch.save", error) from error
        if not zipfile.is_zipfile(path):
            raise _damaged(path, "torch.save", ValueError("nothing that torch.save writes")) from error
        raise FileError(
            f"{path} holds objects other than tensors, and loading those would run code from the file; "
            "save the matrix alone with torch.save(G.detach(), path), or state_dict() instead of the model"
        ) from error


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    try:
        with safe_open(path, framework="pt") as file:
            return {name: (lambda name=name: read(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, "safetensors.torch.save_file", error) from error


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
}


def _numpy(array: np.ndarray, name: str) -> Tensor:
    """NumPy → torch, whatever the byte order; float128 and what torch has no kind for is refused by name."""
    if array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.float64))
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:
        raise FileError(f"{name} holds {array.dtype}, not real numbers; convert it to float64 first") from error


def _flatten(value: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Leaves by dotted path."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or depth > 50:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        leaves |= _flatten(inner, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    return leaves


def _choose(path: Path, content: Any, key: str | None) -> Any:
    """The array that `key` names, or the only one there is."""
    if isinstance(content, Tensor):
        if key is not None:
            raise FileError(f"{path} holds one array without a name, so key {key!r} names nothing; leave the key out")
        return content
    leaves = _flatten(content)
    arrays = [name for name, leaf in leaves.items() if isinstance(leaf, Tensor) or callable(leaf)]
    if not arrays:
        raise FileError(f"{path} holds no array, only a value of type {type(content).__name__}; save a matrix in it")
    if key is None:
        if len(arrays) > 1:
            raise FileError(f"{path} holds {len(arrays)} arrays; name one with a key: {_listed(arrays)}")
        key = arrays[0]
    if key not in leaves:
        below = [name for name in arrays if name.startswith(f"{key}.")]
        if below:
            raise FileError(f"{path}: {key!r} is a group of arrays; name one of them: {_listed(below)}")
        near = difflib.get_close_matches(key, arrays, n=12, cutoff=0.5)
        raise FileError(f"{path} has no array {key!r}; it has {_listed(near + [a for a in arrays if a not in near])}")
    if key not in arrays:
        kind = type(leaves[key]).__name__
        raise FileError(f"{path}: {key!r} is no array but of type {kind}; the arrays are {_listed(arrays)}")
    leaf = leaves[key]
    return leaf if isinstance(leaf, Tensor) else leaf()


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" … and {len(names) - most} more" if len(names) > most else "")


def _matrix(name: str, array: Tensor) -> Tensor:
    """`array` as a dense real matrix, or a FileError that says what it is instead."""
    if array.layout != torch.strided or array.is_quantized:
        kind = "quantized" if array.is_quantized else str(array.layout).removeprefix("torch.")
        raise FileError(f"{name} is {kind}; save it dense, with .dequantize() or .to_dense()")
    if array.is_complex():
        raise FileError(f"{name} is complex ({array.dtype}); the model is real: save the real part if that is meant")
    if array.dtype == torch.bool:
        raise FileError(f"{name} is boolean; save it as numbers if that is meant")
    shape = "×".join(map(str, array.shape)) or "scalar"
    if array.ndim != 2:
        what = "save one matrix of the batch" if array.ndim > 2 else "reshape it to (1, n) or (m, 1)"
        raise FileError(f"{name} has {array.ndim} dimensions ({shape}) and a matrix has two, outputs × inputs; {what}")
    if array.numel() == 0:
        raise FileError(f"{name} has no entries ({shape}); each side must be at least 1")
    array = array.detach().resolve_conj().resolve_neg().contiguous()
    if not array.is_floating_point():
        return array.to(torch.float64)
    return array if array.dtype in _FLOATS else array.to(torch.float32)


def write_array(path: str | Path, tensor: Tensor) -> None:
    """Write a tensor as .npy, .pt or .safetensors (under the name "Q"), whole or not at all.

    A file already there is replaced at once. NumPy has no bfloat16: .npy gets those numbers as float32.
    Raises FileError as `check_output`, and OSError if the disk refuses.
    """
    path = check_output(path, WRITABLE)
    tensor = tensor.detach().cpu().contiguous()
    buffer = BytesIO()
    if path.suffix.lower() == ".npy":
        np.save(buffer, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), allow_pickle=False)
    elif path.suffix.lower() == ".pt":
        torch.save(tensor.clone(), buffer)  # a view would carry its whole storage along
    else:
        from safetensors.torch import save

        buffer.write(save({"Q": tensor}))
    write_bytes(path, buffer.getvalue())
