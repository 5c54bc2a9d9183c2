"""Timing in turns: every run once per round, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

_SAMPLE = 5e-3  # seconds that one sample takes at least; a faster run is repeated within it


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, one number per round, in the order of the rounds (or ratios of such seconds)."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile; of a single value that value twice."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def over(self, other: Timing) -> Timing:
        """The ratios self / other, round by round: a slow round is slow for both."""
        return Timing(tuple(a / b for a, b in zip(self.values, other.values, strict=False)))


def synchronise(device: str) -> None:
    """Wait for what `device` still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: str = "cpu",
    budget: float = math.inf,
    first: Callable[[str, Callable[[], Any]], Any] = lambda name, run: run(),
) -> dict[str, Timing]:
    """The seconds of each run over `repeats` rounds.

    Before the first round `first(name, run)` is called for each, and may look at what the run returns; it does not
    count, unless it alone takes more than `budget` seconds: then it is all there is of that run. A run whose rounds
    would take more than `budget` takes part only in the first ones.
    """
    calls: dict[str, int] = {}
    values: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        spent = _seconds(lambda name=name, run=run: first(name, run), 1, device)
        if spent > budget:
            calls[name], values[name] = 1, [spent]
    for name, run in runs.items():
        if values[name]:
            continue
        once = _seconds(run, 1, device)
        if once < 10 * _SAMPLE:  # something else may have held it up
            once = min(once, _seconds(run, 1, device))
        calls[name] = max(1, math.ceil(_SAMPLE / once))
        values[name].append(once if calls[name] == 1 else _seconds(run, calls[name], device) / calls[name])
    for _ in range(repeats - 1):
        for name, run in runs.items():
            if (sum(values[name]) + values[name][-1]) * calls[name] <= budget:
                values[name].append(_seconds(run, calls[name], device) / calls[name])
    return {name: Timing(tuple(taken)) for name, taken in values.items()}


def medians(runs: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, float]:
    """The median seconds of each run, taken in turns."""
    return {name: timing.median for name, timing in interleaved(runs, repeats, device).items()}


def clock(device: str) -> Callable[[], float]:
    """The wall clock; for a CPU and a single thread the time that this process had the processor, which is the same on
    an idle machine and leaves out what other processes take on a busy one."""
    alone = not device.startswith("cuda") and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _seconds(run: Callable[[], Any], calls: int, device: str) -> float:
    """Seconds of so many calls, the device's work included."""
    now = clock(device)
    synchronise(device)
    start = now()
    for _ in range(calls):
        run()
    synchronise(device)
    return max(now() - start, 1e-9)
