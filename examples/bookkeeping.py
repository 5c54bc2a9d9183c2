"""The bookkeeping of a training run: what it shows, and a folder whose log and checkpoint outlive a kill at any moment.

log.csv         one row per step, written as it happens
checkpoint.pt   everything the run needs to go on, replaced as a whole or not at all
tensorboard/    the log's numbers, where the tensorboard package is installed
"""

from __future__ import annotations

import csv
import os
import signal
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = ("step", "loss", "validation", "lr", "seconds")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path`` and move it there in one go: at ``path`` is the old or the new one."""
    beside = path.with_name(path.name + ".part")
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the checkpoint at ``path``; a crash on the way, or a full disk, leaves the one before."""
    replace(path, lambda beside: torch.save(dict(content), beside))


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint at ``path``, its tensors on the CPU, or None without one; ValueError for a file that is none."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if {"step", "configuration"} <= content.keys():
            return content
        reason: Exception | None = None
    except Exception as problem:  # torch.load raises what it pleases for a file it cannot read
        reason = problem
    raise ValueError(f"{path} is no checkpoint of this program: move it away, or name another --out") from reason


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError naming the options by which a run would not be the one that its checkpoint began."""
    names = [name for name in {**kept, **given} if kept.get(name) != given.get(name)]
    if names:
        found = ", ".join(f"--{name.replace('_', '-')} was {kept.get(name)}, is {given.get(name)}" for name in names)
        raise ValueError(f"{path} is of another run: {found}; give what it was, or name another --out")


class Log:
    """log.csv and TensorBoard's files: what a step gave, as soon as it gave it.

    Opening it keeps the rows up to step ``after`` and drops the others, of steps that a killed run is to take again.
    """

    def __init__(self, folder: Path, after: int = 0, tensorboard: bool = True) -> None:
        path = folder / "log.csv"
        rows = [row for row in _rows(path) if int(row[0]) <= after]
        replace(path, lambda beside: beside.write_text(_lines([COLUMNS, *rows]), encoding="utf-8"))
        self._file = path.open("a", encoding="utf-8", newline="")
        self._board = _board(folder / "tensorboard", after) if tensorboard else None
        self.note = "no TensorBoard logs: tensorboard is not installed" if tensorboard and not self._board else ""

    def write(self, step: int, loss: float, validation: float | None, lr: float, seconds: float) -> None:
        """One row; numbers as exact as they are, nothing where there was no validation."""
        shown = "" if validation is None else repr(validation)
        self._file.write(_lines([(step, repr(loss), shown, repr(lr), f"{seconds:.3f}")]))
        self._file.flush()
        if self._board is not None:
            for name, value in (("loss", loss), ("bits per byte", validation), ("lr", lr)):
                if value is not None:
                    self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Wait until the rows are on the disk: before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _rows(path: Path) -> list[list[str]]:
    """The whole rows of a log, less the header and a last line that was cut off."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    return [row for row in csv.reader(lines) if len(row) == len(COLUMNS)]


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _board(path: Path, after: int) -> Any:
    """A TensorBoard writer that goes on after step ``after``, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=after + 1)


class Display:
    """A bar in a terminal and a line for every validation, with the speed of ``tokens`` per step."""

    def __init__(self, console: Console, steps: int, taken: int, tokens: int) -> None:
        self._console, self._tokens = console, tokens
        self._seconds: list[float] = []
        self._optimizer_ms: list[float] = []
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.bar.add_task("", total=steps, completed=taken)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, step: int, loss: float, validation: float | None, seconds: float, optimizer_ms: float) -> None:
        """A step and how long it took, of which so many milliseconds in the optimizer."""
        self._seconds.append(seconds)
        self._optimizer_ms.append(optimizer_ms)
        self.bar.update(self._task, completed=step, description=f"loss {loss:.3f}")
        if validation is not None:
            tokens, spent = self.speed().values()
            held_out = f"{validation:.4f} bits per byte on held-out text"
            self.say(f"step {step}: loss {loss:.4f}, {held_out}, {tokens:,.0f} tokens/s, optimizer {spent:.2f} ms/step")

    def speed(self) -> dict[str, float | None]:
        """Medians over the steps shown so far."""
        if not self._seconds:
            return {"tokens_per_second": None, "optimizer_ms": None}
        return {
            "tokens_per_second": self._tokens / statistics.median(self._seconds),
            "optimizer_ms": statistics.median(self._optimizer_ms),
        }


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """The number of the signal that asked for an end, Ctrl-C or SIGTERM, else 0; a second one ends at once.

    So that a step is never left half taken, and the checkpoint is of a whole one.
    """
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in numbers]
    seen = [0]

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, note)
    try:
        yield lambda: seen[-1]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
