"""A first comparison in training: the small language model, 3 layers of width 128, 400 steps, one seed.

Every contender trains the attention and MLP matrices at each of three learning rates; all else is AdamW's at 3e−3. The
rate rises over 20 steps, and falls linearly from step 200 to a tenth. loss: cross entropy in nats per byte, on the same
24 held-out batches. One seed says nothing of the spread: this is a first look, not a study.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from icm.demo import load_example
from icm.optim import ICM

RATES = (0.005, 0.01, 0.02)
STEPS, WARM = 400, 20
REST = 3e-3  # lr of AdamW for embeddings, head and norms
BETAS, DECAY = (0.9, 0.95), 0.1

Make = Callable[[nn.Module, set[int], float], list[torch.optim.Optimizer]]


def muon(model: nn.Module, matrices: set[int], lr: float) -> list[torch.optim.Optimizer]:
    mine = [p for p in model.parameters() if id(p) in matrices]
    rest = [p for p in model.parameters() if id(p) not in matrices]
    adamw = torch.optim.AdamW(rest, lr=REST, betas=BETAS, weight_decay=DECAY)
    return [torch.optim.Muon(mine, lr=lr, adjust_lr_fn="match_rms_adamw"), adamw]


def solved(curvature: str, input_moments: bool = False) -> Make:
    def make(model: nn.Module, matrices: set[int], lr: float) -> list[torch.optim.Optimizer]:
        options: dict[str, Any] = {"curvature": curvature, "input_moments": input_moments, "adamw_lr": REST}
        return [ICM.for_model(model, lr, **options)]

    return make


CONTENDERS: dict[str, Make] = {
    "torch.optim.Muon": muon,
    "wall(1)": solved("wall(1)"),
    "wall(1), input moments": solved("wall(1)", input_moments=True),
    "0.01*r^2 + wall(1)": solved("0.01*r^2 + wall(1)"),
    "0.25*r^2 + 10*kink(1)": solved("0.25*r^2 + 10*kink(1)"),
}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """{"what", "lr", "loss"} for each; `quick`: one rate, 20 steps."""
    example = load_example()
    data, held_out = example.corpus(2_000_000), example.corpus(200_000, validation=True)
    rates, steps = (RATES[1:2], 20) if quick else (RATES, STEPS)
    rows = []
    for name, lr in track([(name, lr) for lr in rates for name in CONTENDERS], description="training  "):
        model = example.SmallLM(example.Config(layers=3, width=128, heads=4, context=128), seed=0)
        matrices = {id(p) for p in example.matrices(model).values()}
        train(model, CONTENDERS[name](model, matrices, lr), data, steps)
        rows.append({"what": name, "lr": lr, "loss": evaluate(model, held_out)})
    return rows


def train(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    data: Tensor,
    steps: int,
    seed: int = 100,
    count: int = 16,
    context: int = 128,
) -> None:
    """The rate rises over 20 steps, and falls linearly from half of `steps` on to a tenth."""
    flat = steps // 2

    def rate(t: int) -> float:
        return min(1.0, (t + 1) / WARM) * max(0.1, 1 - 0.9 * max(0, t - flat) / (steps - flat))

    schedulers = [LambdaLR(optimizer, rate) for optimizer in optimizers]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = draw(data, generator, count, context)
        model.zero_grad()
        cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@torch.no_grad()
def evaluate(model: nn.Module, data: Tensor, batches: int = 24, count: int = 16, context: int = 128) -> float:
    generator = torch.Generator().manual_seed(7)
    model.eval()
    pairs = (draw(data, generator, count, context) for _ in range(batches))
    return sum(float(cross_entropy(model(x).flatten(0, 1), y.flatten())) for x, y in pairs) / batches


def draw(data: Tensor, generator: torch.Generator, count: int = 16, context: int = 128) -> tuple[Tensor, Tensor]:
    at = torch.randint(0, len(data) - context - 1, (count,), generator=generator).tolist()
    x, y = (torch.stack([data[i + shift : i + shift + context] for i in at]).long() for shift in (0, 1))
    return x, y
