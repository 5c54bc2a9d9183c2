"""How fast remainders are measured, beside a plain loop and beside the bare forward passes, and within which memory.

The small language model, layer by layer, `positions="one"`: examples of `length` bytes, one token displaced in a pass.

loop     one forward pass of one example per direction and radius, a hook that adds δ, and a subtraction
bare     forward passes with the loss, no displacement, of as many examples at once as are measured at once
speed    remainders per second over the loop's; bar over all layers together: 5
cost     seconds per remainder over those of the bare passes; bar: 1.5

Times are processor time on one thread of a CPU. `icm.measure.curvature` is timed whole: the gradient, the draws, the
pass for the noise floor and the statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks.timing import synchronise
from icm.demo import load_example
from icm.measure import curvature

RADII = tuple(10 ** (i / 4) for i in range(-4, 9))
EXAMPLES, TOKENS, DIRECTIONS = 4, 8, 16
LOOPED = 60  # passes of the loop that are timed
SPEED, COST = 5.0, 1.5


def run(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """{"rows", "bars"}: see above. `quick`: one layer, short examples."""
    example = load_example()
    rows = []
    for length in (32,) if quick else (32, 128):
        model = example.SmallLM(example.Config(context=length)).to(device).eval()
        data = example.corpus(200_000).to(device)
        batch = example.draw(data, model.config, EXAMPLES, torch.Generator().manual_seed(0))
        names = [*example.matrices(model), "head"]
        for name in track(names[-1:] if quick else names, description=f"remainders, length {length}"):
            rows.append(row(model, example.loss, batch, name, length, 1 if quick else 3, device))
    return {"rows": rows, "bars": [bar for length in sorted({r["length"] for r in rows}) for bar in bars(rows, length)]}


def row(
    model: nn.Module, loss: Any, batch: tuple[Tensor, Tensor], name: str, length: int, rounds: int, device: str
) -> dict[str, Any]:
    """One layer: milliseconds per remainder by each way, medians over rounds in turns."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def timed(work: Callable[[], int]) -> float:
        synchronise(device)
        start = clock()
        count = work()
        synchronise(device)
        return 1e3 * (clock() - start) / count

    def measured() -> int:
        options: dict[str, Any] = {"directions": DIRECTIONS, "tokens": TOKENS, "progress": False}
        found = curvature(model, loss, [batch], name, RADII, **options)[name]
        return found.count * len(RADII)

    def bare() -> int:
        lanes = 4
        many = tuple(x.repeat(lanes, 1) for x in batch)
        with torch.no_grad():
            for _ in range(3):
                loss(model, many)
        return 3 * lanes * EXAMPLES

    ways = {"icm": measured, "loop": lambda: looped(model, loss, batch, name), "bare": bare}
    for way in ways.values():
        way()
    times = [{key: timed(way) for key, way in ways.items()} for _ in range(rounds)]
    found = {key: median(t[key] for t in times) for key in ways}
    speed, cost = (median(t[a] / t[b] for t in times) for a, b in (("loop", "icm"), ("icm", "bare")))
    return {"length": length, "layer": name, "ms": found, "speed": speed, "cost": cost}


@torch.no_grad()
def looped(model: nn.Module, loss: Any, batch: tuple[Tensor, Tensor], name: str) -> int:
    """Remainders one by one, as a script would have them; the gradient and L(y) are known."""
    layer: Any = model.get_submodule(name)
    moved = torch.zeros(())
    one = tuple(x[:1] for x in batch)
    m = int(layer.weight.shape[0])
    g = torch.randn(m, device=batch[0].device)
    base = loss(model, one).sum()
    handle = layer.register_forward_hook(lambda module, inputs, y: y + moved)
    try:
        for i in range(LOOPED):
            direction = torch.randn(m, device=batch[0].device)
            direction = RADII[i % len(RADII)] * direction / direction.norm()
            moved = torch.zeros(1, batch[0].shape[1], m, device=batch[0].device)
            moved[0, i % batch[0].shape[1]] = direction
            float(loss(model, one).sum() - base - g @ direction)
    finally:
        handle.remove()
    return LOOPED


def bars(rows: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """Over all layers together: the time of the loop over ours, and ours over that of bare passes."""
    chosen = [r for r in rows if r["length"] == length]
    total = {key: sum(r["ms"][key] for r in chosen) for key in ("icm", "loop", "bare")}
    speed, cost = total["loop"] / total["icm"], total["icm"] / total["bare"]
    return [
        {"what": f"remainders per second over the loop's, at least, {length} tokens", "figure": speed, "bar": SPEED,
         "ok": speed >= SPEED},
        {"what": f"seconds per remainder over bare passes, {length} tokens", "figure": cost, "bar": COST,
         "ok": cost <= COST},
    ]  # fmt: skip
