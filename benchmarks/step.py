"""What one optimizer step costs beside torch.optim.Muon's, on the gradients of a transformer that trains.

The small language model with 12 layers, of width 256 on a CPU and 768 on a GPU, trains with torch.optim.Muon; every
optimizer of the table steps its own copy of the weights with the same gradients, in turns, and is timed alone. The
first `SKIPPED` steps, in which states are made and gradients change most, do not count; refreshes after them do. Input
moments are collected in forward passes, which are not timed, of a copy of the model.

ratio    mean time of a step over that of torch.optim.Muon's steps
error    of the update at the last refresh, the worst of all matrices (maps only)
state    bytes beside the parameters over those of one momentum buffer per matrix, in float32

Bars     a wall: 0.7; a kinked H: 1.0; a wall with ellipsoidal inputs: 1.15; state: 1.05, without input moments
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.timing import synchronise
from benchmarks.training import draw
from icm.demo import load_example
from icm.optim import ICM

STEPS, SKIPPED = 61, 21
KINKED, QUARTIC = "0.25*r^2 + 10*kink(1)", "r^4"
MUON = "torch.optim.Muon"
BARS = {"wall": 0.7, KINKED: 1.0, "wall, ellipsoidal inputs": 1.15}
STATE = 1.05


def run(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    """{"rows", "bars"}: see above. `quick`: 2 layers, 12 steps."""
    example = load_example()
    width, layers, steps, skipped = (128, 2, 12, 2) if quick else (256, 12, STEPS, SKIPPED)
    width = 768 if device.startswith("cuda") and not quick else width
    config = example.Config(layers=layers, width=width, heads=4, context=128)
    model = example.SmallLM(config, seed=0).to(device)
    data = example.corpus(2_000_000).to(device)
    matrices = {id(p) for p in example.matrices(model).values()}
    names = {name for name, p in model.named_parameters() if id(p) in matrices}
    runs = {name: make(copy.deepcopy(model), names) for name, make in contenders().items()}
    trainer = Trainer(model, names)
    times: dict[str, list[float]] = {name: [] for name in runs}
    generator = torch.Generator().manual_seed(0)
    # On one thread of a CPU the processor's own time, to which other processes add nothing.
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for _ in track(range(steps), description="step      "):
        batch = [t.to(device) for t in draw(data, generator, 8)]
        gradients = trainer.gradients(*batch)
        for name, (own, optimizer) in runs.items():
            if getattr(optimizer, "input_moments", None) is not None:
                with torch.no_grad():
                    own(batch[0])  # the hooks see the inputs
            for label, p in own.named_parameters():
                p.grad = gradients[label] if label in names else None
            synchronise(device)
            start = clock()
            optimizer.step()
            synchronise(device)
            times[name].append(clock() - start)
        trainer.step()
    means = {name: sum(spent[skipped:]) / len(spent[skipped:]) for name, spent in times.items()}
    rows = [row(name, optimizer, means, times[name][skipped:]) for name, (_, optimizer) in runs.items()]
    return {"rows": rows, "bars": list(bars(rows)), "device": device, "width": width, "layers": layers}


class Trainer:
    """Whose gradients they are: torch.optim.Muon for the matrices, AdamW for the rest."""

    def __init__(self, model: nn.Module, names: set[str]):
        self.model = model
        matrices = [p for name, p in model.named_parameters() if name in names]
        rest = [p for name, p in model.named_parameters() if name not in names]
        self.optimizers = (
            torch.optim.Muon(matrices, lr=2e-3, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=1e-3),
        )

    def gradients(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.model.zero_grad()
        cross_entropy(self.model(x).flatten(0, 1), y.flatten()).backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def contenders() -> dict[str, Callable[[nn.Module, set[str]], tuple[nn.Module, torch.optim.Optimizer]]]:
    def muon(model: nn.Module, names: set[str]) -> tuple[nn.Module, torch.optim.Optimizer]:
        matrices = [p for name, p in model.named_parameters() if name in names]
        return model, torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")

    def solved(**options: Any) -> Callable[[nn.Module, set[str]], tuple[nn.Module, torch.optim.Optimizer]]:
        def make(model: nn.Module, names: set[str]) -> tuple[nn.Module, torch.optim.Optimizer]:
            options.setdefault("input_moments", False)
            return model, ICM.for_model(model, 1e-3, **options)

        return make

    return {
        MUON: muon,
        "wall": solved(),
        "wall, 15 products": solved(products=15),
        KINKED: solved(curvature=KINKED),
        QUARTIC: solved(curvature=QUARTIC),
        "wall, ellipsoidal inputs": solved(input_moments=True),
    }


def row(name: str, optimizer: torch.optim.Optimizer, means: dict[str, float], spent: list[float]) -> dict[str, Any]:
    ours = isinstance(optimizer, ICM)
    errors = optimizer.errors() if ours else {}
    buffers = [s["momentum_buffer"] for s in optimizer.state.values() if "momentum_buffer" in s]
    momentum = sum(b.numel() * b.itemsize for b in buffers)
    roots = {s["root"].data_ptr(): s["root"] for s in optimizer.state.values() if "root" in s}
    held = sum(
        t.numel() * t.itemsize for t in {t.data_ptr(): t for t in tensors(list(optimizer.state.values()))}.values()
    )
    held -= sum(S.numel() * S.itemsize for S in roots.values())
    return {
        "what": name,
        "seconds": means[name],
        "largest": max(spent),
        "ratio": means[name] / means[MUON],
        "error": max(errors.values()) if errors else None,
        "state": held / momentum,
        "moments": optimizer.input_moments.bytes if ours and optimizer.input_moments is not None else 0,
    }


def tensors(held: Any) -> Iterator[Tensor]:
    """Every tensor inside states: dicts, lists and the values that maps are made of."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from tensors(value)
    elif isinstance(held, (list, tuple)):
        for value in held:
            yield from tensors(value)
    elif hasattr(held, "__dict__"):
        yield from tensors(vars(held))


def bars(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in rows:
        if (bar := BARS.get(each["what"])) is not None:
            what = f"step / {MUON}, {each['what']}"
            yield {
                "what": what,
                "figure": each["ratio"],
                "bar": bar,
                "ok": each["ratio"] <= bar,
                "error": each["error"],
            }
        if each["what"] == KINKED:
            figure = each["state"]
            yield {"what": f"state, {KINKED}", "figure": figure, "bar": STATE, "ok": figure <= STATE, "error": None}
