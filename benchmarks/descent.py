"""Steepest descent in the norms of roles beside torch.optim.Muon with AdamW, and how its best rate moves with width.

Tuned: the small language model, 3 layers of width 128, 400 steps, as in the part `training`. Muon trains the attention
and MLP matrices and AdamW the rest, each with its own rate from a grid; `SteepestDescent.for_model` trains everything
at one rate. The best setting of each by seed 0 is then run with two seeds more, of the model and of the batches.

Widths: 2 layers, 100 steps of 32 × 64 bytes, at widths 64 to 512, one grid of rates for all; the best rate is that of
the parabola through the best three losses over log lr. Every run is kept in a file by its settings, so that what was
interrupted goes on.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

from benchmarks import training
from icm.demo import load_example
from icm.optim import SteepestDescent

SEEDS = (0, 1, 2)
RATES = {"norms of roles": (0.02, 0.03, 0.045, 0.06), "torch.optim.Muon, AdamW": (0.007, 0.01, 0.014, 0.02)}
RESTS = (6e-3, 1.2e-2, 2.4e-2)  # of AdamW beside Muon
MOMENTA = (0.9, 0.95)
WIDTHS, GRID = (64, 128, 256, 512), tuple(0.01 * 2**i for i in range(5))
BAR = 2.0  # the best rate moves by less


def run(quick: bool = False, out: Path = Path("benchmarks/output")) -> dict[str, Any]:
    """{"tuned": rows, "widths": rows, "bars": rows}; `quick`: two runs of ten steps of each."""
    kept = _Kept(out / ("descent-quick.json" if quick else "descent-runs.json"))
    steps, short = (10, 10) if quick else (400, 100)
    tuned = [
        {"what": what, "lr": lr, "rest": rest, "momentum": momentum, "seed": 0, "steps": steps}
        for what, rates in RATES.items()
        for momentum in MOMENTA[: 1 if quick else None]
        for lr in rates[: 1 if quick else None]
        for rest in ((None,) if what == "norms of roles" else RESTS[: 1 if quick else None])
    ]  # fmt: skip
    for one in track(tuned, description="tuning    "):
        kept.loss(one)
    finals = []
    for what in RATES:
        best = min((one for one in tuned if one["what"] == what), key=kept.loss)
        runs = [best | {"seed": seed} for seed in SEEDS[: 1 if quick else None]]
        losses = [kept.loss(one) for one in track(runs, description="seeds     ")]
        finals.append({**best, "seed": len(losses), "loss": sum(losses) / len(losses), "losses": losses})
    widths = [
        {"what": "norms of roles", "width": width, "lr": lr, "momentum": 0.9, "seed": 0, "steps": short}
        for width in WIDTHS[: 2 if quick else None]
        for lr in GRID[: 3 if quick else None]
    ]
    for one in track(widths, description="widths    "):
        kept.loss(one)
    return {
        "tuned": [one | {"loss": kept.loss(one)} for one in tuned],
        "finals": finals,
        "widths": [one | {"loss": kept.loss(one)} for one in widths],
        "bars": bars(finals, [one | {"loss": kept.loss(one)} for one in widths]),
    }


def bars(finals: list[dict[str, Any]], widths: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours, muon = (one["loss"] for one in finals)
    best = [
        best_rate([one for one in widths if one["width"] == width]) for width in sorted({w["width"] for w in widths})
    ]
    moved = max(best) / min(best)
    over, widest = (
        "loss of the norms of roles over Muon's, both tuned",
        "largest best rate over smallest, of all widths",
    )
    return [
        {"what": over, "figure": ours / muon, "bar": 1.0, "ok": ours <= muon},
        {"what": widest, "figure": moved, "bar": BAR, "ok": moved < BAR},
    ]


def best_rate(rows: list[dict[str, Any]]) -> float:
    """Where the parabola through the least loss and its neighbours over log lr has its least; the grid's end where the
    least loss is there."""
    rows = sorted(rows, key=lambda one: one["lr"])
    i = min(range(len(rows)), key=lambda j: rows[j]["loss"])
    if i in (0, len(rows) - 1):
        return rows[i]["lr"]
    a, b, c = (rows[j]["loss"] for j in (i - 1, i, i + 1))
    step = math.log(rows[i + 1]["lr"] / rows[i]["lr"])
    return rows[i]["lr"] * math.exp(step * (a - c) / (2 * (a - 2 * b + c)))


class _Kept:
    """Losses by settings, written after each run."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def loss(self, one: dict[str, Any]) -> float:
        key = json.dumps(one, sort_keys=True)
        if key not in self.known:
            self.known[key] = trained(one)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.known, indent=1))
        return self.known[key]


def trained(one: dict[str, Any]) -> float:
    """The loss on held-out text in nats per byte after a run with these settings; infinite where it is not a number."""
    example = load_example()
    data, held_out = example.corpus(2_000_000), example.corpus(200_000, validation=True)
    wide = "width" in one
    context, batch = (64, 32) if wide else (128, 16)
    config = example.Config(layers=2 if wide else 3, width=one.get("width", 128), heads=4, context=context)
    model = example.SmallLM(config, seed=one["seed"])
    optimizers = made(model, {id(p) for p in example.matrices(model).values()}, one)
    training.train(model, optimizers, data, one["steps"], seed=100 + one["seed"], count=batch, context=context)
    loss = training.evaluate(model, held_out, count=batch, context=context)
    return loss if math.isfinite(loss) else math.inf


def made(model: nn.Module, matrices: set[int], one: dict[str, Any]) -> list[torch.optim.Optimizer]:
    if one["what"] == "norms of roles":
        return [SteepestDescent.for_model(model, one["lr"], momentum=one["momentum"])]
    mine = [p for p in model.parameters() if id(p) in matrices]
    others = [p for p in model.parameters() if id(p) not in matrices]
    adamw = torch.optim.AdamW(others, lr=one["rest"], betas=training.BETAS, weight_decay=training.DECAY)
    muon = torch.optim.Muon(mine, lr=one["lr"], momentum=one["momentum"], adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]
