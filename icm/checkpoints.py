"""Language models on disk, with their loss and batches of text: a Hugging Face folder, or what examples/train_lm.py
writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from icm.demo import load_example
from icm.errors import FileError, InputError, MissingPackageError
from icm.measure.surroundings import first_line

_MINE = "checkpoint.pt"
_BYTES = 256


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model in eval mode, loss(model, tokens) with the terms (B, T − 1) of tokens (B, T), and encode(text) → ids.
    `step`: of its training, where that is known: a Hugging Face folder's is the number that its name ends in, as
    checkpoint-500 does; `context`: the longest sequence it reads."""

    name: str
    model: nn.Module
    loss: Callable[[Any, Tensor], Tensor]
    encode: Callable[[bytes], Tensor]
    step: int | None
    context: int | None


def read_checkpoint(path: Path, device: str = "cpu") -> Checkpoint:
    """The model in a folder with a config.json (Hugging Face's; read with transformers, never from a network), or in a
    checkpoint of examples/train_lm.py, the file or its run's folder.

    Raises FileError for anything else, MissingPackageError where a Hugging Face folder finds no transformers.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: there is no such file or folder")
    if path.is_dir() and (path / "config.json").is_file():
        return _hugging_face(path, device)
    file = path / _MINE if path.is_dir() else path
    if not file.is_file():
        raise FileError(
            f"{path}: a model's folder has a config.json (Hugging Face) or a {_MINE} (examples/train_lm.py)"
        )
    return _example(file, device)


def draw(
    checkpoint: Checkpoint, files: Sequence[Path], examples: int, length: int, batch: int, first: int = 0
) -> list[Tensor]:
    """Batches (batch, length) of the text's first `examples` windows after the `first` ones, one after another.

    Raises FileError for files that cannot be read, InputError for a text that is too short and a length beyond the
    model's context.
    """
    if checkpoint.context is not None and length > checkpoint.context:
        raise InputError(f"--length {length}: {checkpoint.name} reads {checkpoint.context} tokens at most")
    if min(examples, batch) < 1 or length < 2:
        raise InputError(f"--examples {examples} --length {length} --batch {batch}: 1, 2 and 1 at least")
    text = bytearray()
    for file in files:
        try:
            text += file.read_bytes()
        except OSError as error:
            raise FileError(f"{file} cannot be read: {error.strerror}") from error
    ids = (
        checkpoint.encode(bytes(text)) if files else checkpoint.encode(bytes(load_example().corpus(2_000_000).tolist()))
    )
    wanted = (first + examples) * length
    if len(ids) < wanted:
        raise InputError(
            f"the text has {len(ids)} tokens, and {first + examples} examples of {length} take {wanted}; "
            "give more --text, or fewer or shorter examples"
        )
    windows = ids[first * length : wanted].view(examples, length)
    return [part.clone() for part in windows.split(batch)]


@torch.no_grad()
def mean_loss(checkpoint: Checkpoint, data: Sequence[Tensor]) -> float:
    """Nats per token on those batches."""
    terms = [checkpoint.loss(checkpoint.model, tokens).double() for tokens in data]
    return float(sum(x.sum() for x in terms)) / sum(x.numel() for x in terms)


def _example(file: Path, device: str) -> Checkpoint:
    example = load_example()
    try:
        kept = torch.load(file, map_location="cpu", weights_only=True)
        chosen = kept["configuration"]
        config = example.Config(**{name: chosen[name] for name in ("layers", "width", "heads", "context")})
        model = example.SmallLM(config)
        model.load_state_dict(kept["model"])
        step = int(kept["step"])
    except Exception as error:  # whatever a file of another kind makes of torch.load
        raise FileError(
            f"{file} is no checkpoint of examples/train_lm.py ({type(error).__name__}: {first_line(error)})"
        ) from error

    def loss(model: Any, tokens: Tensor) -> Tensor:
        return _next(model(tokens[:, :-1]), tokens)

    def encode(text: bytes) -> Tensor:
        return _ids(text).to(device)

    name = file.resolve().parent.name if file.name == _MINE else file.stem
    return Checkpoint(name, model.to(device).eval(), loss, encode, step, config.context + 1)


def _hugging_face(path: Path, device: str) -> Checkpoint:
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise MissingPackageError(
            f"{path} is a Hugging Face model, and transformers cannot be imported: pip install transformers"
        ) from error
    try:
        with _without_bars():
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except Exception as error:  # whatever a folder of another kind makes of it
        raise FileError(
            f"{path} holds no causal language model ({type(error).__name__}: {first_line(error)})"
        ) from error

    def loss(model: Any, tokens: Tensor) -> Tensor:
        return _next(model(tokens, use_cache=False).logits[:, :-1], tokens)

    context = settings.get("n_positions", settings.get("max_position_embeddings"))
    name = path.resolve().name
    found = re.search(r"(?:^|[-_.])(\d+)$", name)  # gpt2 is no step
    step = int(found[1]) if found else None
    return Checkpoint(name, model.to(device).eval(), loss, _tokenizer(path, settings, device), step, context)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without transformers' own progress bars on stderr."""
    logging: Any = import_module("transformers.utils.logging")
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _tokenizer(path: Path, settings: dict[str, Any], device: str) -> Callable[[bytes], Tensor]:
    """The folder's tokenizer; bytes as they are where it has none and the model knows 256 tokens."""
    if not any((path / name).exists() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        if settings.get("vocab_size") == _BYTES:
            return lambda text: _ids(text).to(device)
        raise FileError(
            f"{path} has no tokenizer, and its {settings.get('vocab_size')} tokens are no bytes; save one there"
        )
    tokenizer: Any = import_module("transformers").AutoTokenizer.from_pretrained(path, local_files_only=True)

    def encode(text: bytes) -> Tensor:
        ids = tokenizer(text.decode("utf-8", errors="replace"), verbose=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.long, device=device)

    return encode


def _ids(text: bytes) -> Tensor:
    """Bytes as numbers; frombuffer takes none of no bytes."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long() if text else torch.zeros(0, dtype=torch.long)


def _next(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of each next token in nats, (B, T − 1)."""
    targets = tokens[:, 1:]
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
