"""The state of a measurement on disk: what is done is kept, so that one which was killed goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from icm.errors import InputError
from icm.measure.tally import Tally
from icm.paths import check_output, write_json

_FORMAT = "icm measurement in progress 2"
_EVERY = 5.0  # seconds between writes


class Journal:
    """The tallies so far, layer by layer, and which batches are in them; in memory alone without a path."""

    def __init__(self, path: Path | None, settings: dict[str, Any], radii: int):
        self.path, self.settings = path, settings
        names = [name for name, *_ in settings["layers"]]
        self.tallies = {name: Tally.empty(radii) for name in names}
        self._done: dict[str, int] = dict.fromkeys(names, 0)  # batches from the first on
        self._losses: dict[str, list[float]] = {name: [] for name in names}  # sums of terms, by layer and batch
        self._batches: list[str] = []
        self._written = time.monotonic()

    @classmethod
    def open(cls, path: str | Path | None, settings: dict[str, Any], radii: int, model: nn.Module) -> Journal:
        """The journal at `path`, where there is one, or a new one.

        Raises InputError for a file that is no journal, one of a measurement with other settings, which it names, and
        one of a model with other weights or in another mode.
        """
        if path is None:
            return cls(None, settings, radii)
        target = check_output(path, (".json",))
        settings = settings | {"weights": _fingerprint(list(model.state_dict().values())), "mode": _mode(model)}
        journal = cls(target, settings, radii)
        if not target.exists():
            return journal
        try:
            kept = json.loads(target.read_text(encoding="utf-8"))
            if kept["format"] != _FORMAT:
                raise KeyError("format")
            other = [name for name in settings if kept["settings"][name] != settings[name]]
            tallies = {name: Tally.from_dict(one) for name, one in kept["tallies"].items()}
            losses = kept["losses"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"resume={str(path)!r} holds no measurement in progress; name another file") from error
        if other:
            said = ", ".join(f"{name}={kept['settings'][name]} (here {settings[name]})" for name in other)
            raise InputError(f"resume={str(path)!r} is of another measurement, with {said}; name another file")
        journal.tallies, journal._losses = tallies, losses
        journal._done, journal._batches = kept["done"], kept["batches"]
        return journal

    def check(self, number: int, batch: Any) -> None:
        """Note a batch, or make sure it is the one that had this number before."""
        print_ = _fingerprint(batch) if self.path is not None else ""
        if number < len(self._batches):
            if self._batches[number] != print_:
                raise InputError(
                    f"resume={str(self.path)!r} was measured on other data: batch {number} differs; give the same "
                    "data, or name another file"
                )
        else:
            self._batches.append(print_)

    def end(self, batches: int) -> None:
        """The data held so many batches: write the last state. Raises InputError where there were more before."""
        if batches < len(self._batches):
            raise InputError(
                f"resume={str(self.path)!r} was measured on other data: it has {len(self._batches)} batches, and these "
                f"are {batches}; give the same data, or name another file"
            )
        self.write()

    def has(self, number: int, layer: str) -> bool:
        return self._done[layer] > number

    def check_loss(self, number: int, layer: str, loss: float, tolerance: float) -> None:
        """Make sure that a batch in the tallies has the summed loss that it had. Raises InputError naming both."""
        before = self._losses[layer][number]
        if not abs(loss - before) <= tolerance:
            raise InputError(
                f"resume={str(self.path)!r} was measured with another loss or model: the loss terms of batch {number} "
                f"summed to {before:.9g}, and these to {loss:.9g}; give the same loss, or name another file"
            )

    def add(self, number: int, layer: str, tally: Tally, loss: float) -> None:
        """What was measured of a layer on a batch, and the sum of the batch's loss terms."""
        self.tallies[layer] = self.tallies[layer] + tally
        self._done[layer] = number + 1
        self._losses[layer].append(loss)
        if time.monotonic() - self._written > _EVERY:
            self.write()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Written where an exception or Ctrl-C leaves."""
        try:
            yield
        except BaseException:
            if any(self._done.values()):
                self.write()
            raise

    def write(self) -> None:
        """Onto the disk, whole or not at all."""
        if self.path is not None:
            tallies = {name: tally.to_dict() for name, tally in self.tallies.items()}
            kept = {"format": _FORMAT, "settings": self.settings, "done": self._done, "batches": self._batches}
            write_json(self.path, kept | {"losses": self._losses, "tallies": tallies})
            self._written = time.monotonic()


def _mode(model: nn.Module) -> str:
    """Training, evaluation, or which modules are in training mode among others that are not."""
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    every = len(training) == sum(1 for _ in model.modules())
    return "training" if every else f"training of {', '.join(training)}" if training else "evaluation"


def _fingerprint(batch: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for x in tree_leaves(batch):
        if isinstance(x, Tensor):
            digest.update(repr((tuple(x.shape), x.dtype)).encode())
            flat: Any = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(flat)
        else:
            digest.update(repr(x).encode())
    return digest.hexdigest()
