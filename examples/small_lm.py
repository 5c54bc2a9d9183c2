"""A small byte-level transformer, the one network that the demo, the benchmarks and the measurements share.

It reads the Python standard library's own sources, so it needs no download, and trains to a useful state in
seconds on a laptop. Every matrix is a bias-free ``nn.Linear`` with a readable name (``blocks.0.mlp.down``),
stored as outputs × inputs. Torch's global random state is neither read nor moved: same seeds, same numbers.

    python examples/small_lm.py --steps 300
"""

from __future__ import annotations

import argparse
import os
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import cos, log, pi
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# Folders of the standard library that are not its own code, or hardly code: tests, tables, generated text.
SKIPPED = {"site-packages", "test", "tests", "idle_test", "lib2to3", "encodings", "pydoc_data"}


@dataclass(frozen=True)
class Config:
    """The shape of the network; ``context`` is the longest sequence it reads, in bytes."""

    layers: int = 3
    width: int = 128
    heads: int = 4
    context: int = 128
    vocab: int = 256
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; make it one")


class Attention(nn.Module):
    """Causal self-attention over ``heads`` slices of the width, (batch, time, width) to the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        layers = self.query, self.key, self.value  # each gives (batch, heads, time, width / heads)
        query, key, value = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """down · gelu(up · x), position by position, (batch, time, width) to the same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_ratio * config.width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    """Attention, then MLP, each reading a normalised stream and adding to the raw one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class SmallLM(nn.Module):
    """A pre-norm decoder with learned positions and an untied head, initialised from ``seed`` alone."""

    def __init__(self, config: Config | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or Config()
        with torch.device("meta"):  # shapes only: nn.Linear would draw from the global generator
            self.embedding = nn.Embedding(config.vocab, config.width)
            self.positions = nn.Embedding(config.context, config.width)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
            self.norm = nn.RMSNorm(config.width)
            self.head = nn.Linear(config.width, config.vocab, bias=False)
        self.to_empty(device="cpu")
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Gains are 1; the rest normal, of variance 1/n for n inputs, 1/(2·layers·n) where a block writes."""
        for name, weight in self.named_parameters():
            writers = 2 * self.config.layers if name.endswith(("output.weight", "down.weight")) else 1
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                weight.normal_(std=(writers * weight.shape[1]) ** -0.5, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of each next byte: int64 (batch, time ≤ context) to (batch, time, vocab)."""
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def corpus(max_bytes: int | None = None, validation: bool = False, folder: Path | None = None) -> Tensor:
    """The first ``max_bytes`` of the standard library's .py sources in path order, uint8 (bytes,).

    Every tenth file is for validation, the others for training; ``folder`` reads other sources instead.
    """
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    names = []
    for root, folders, files in os.walk(folder):
        folders[:] = set(folders) - SKIPPED
        names += [Path(root, file).relative_to(folder).as_posix() for file in files if file.endswith(".py")]
    names = sorted(name for name in names if not name.startswith("_sysconfigdata"))  # holds a machine's paths
    text = bytearray()
    for index, name in enumerate(names):
        if max_bytes is not None and len(text) >= max_bytes:
            break
        if (index % 10 == 0) == validation:
            text += (folder / name).read_bytes()
    if not text:
        raise FileNotFoundError(f"too few .py files in {folder}; install Python's sources or name another")
    return torch.frombuffer(text, dtype=torch.uint8)[:max_bytes].clone()


def draw(data: Tensor, config: Config, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of uint8 ``data``: inputs and the bytes after them, each int64 (batch, context)."""
    if len(data) <= config.context:
        raise ValueError(f"{len(data)} bytes hold no window of {config.context + 1}; pass more data")
    starts = torch.randint(len(data) - config.context, (batch, 1), generator=generator, device="cpu")
    windows = data[(starts + torch.arange(config.context + 1, device="cpu")).to(data.device)].long()
    return windows[:, :-1], windows[:, 1:]


def batches(data: Tensor, config: Config, batch: int = 16, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (inputs, targets), each int64 (batch, context), on data's device."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield draw(data, config, batch, generator)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of each next byte in nats, (batch, context)."""
    inputs, targets = batch
    terms = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
    return terms.view(targets.shape)


@torch.no_grad()
def bits_per_byte(model: SmallLM, data: Tensor, count: int = 16, batch: int = 16, seed: int = 0) -> float:
    """Mean loss over ``count`` batches of ``data``, in bits; 8 is what knowing nothing costs."""
    drawn = islice(batches(data, model.config, batch, seed), count)
    return sum(loss(model, each).mean().item() for each in drawn) / count / log(2)


def train(
    model: SmallLM,
    data: Tensor,
    steps: int = 300,
    batch: int = 16,
    lr: float = 3e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place with AdamW; the mean loss before each step, in nats, as ``progress`` hears it."""
    warmup = max(1, steps // 10)  # a line up, under a cosine that ends at a tenth of lr
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.55 + 0.45 * cos(pi * step / (steps or 1)))
    )
    losses = []
    for step, each in enumerate(islice(batches(data, model.config, batch, seed), steps)):
        mean = loss(model, each).mean()
        optimizer.zero_grad()
        mean.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(mean.item())
        if progress is not None:
            progress(step, losses[-1])
    return losses


def matrices(model: SmallLM) -> dict[str, nn.Parameter]:
    """The attention and MLP weights by module name (``blocks.0.mlp.up``), each outputs × inputs."""
    weights = model.blocks.named_parameters(prefix="blocks")
    return {name.removesuffix(".weight"): weight for name, weight in weights if weight.ndim == 2}


def gradients(model: SmallLM, data: Tensor, batches: int = 8, seed: int = 0, batch: int = 16) -> dict[str, Tensor]:
    """The loss's gradient in each of ``matrices(model)``, mean over so many batches; .grad is untouched."""
    weights, generator = matrices(model), torch.Generator().manual_seed(seed)
    means = (loss(model, draw(data, model.config, batch, generator)).mean() for _ in range(batches))
    drawn = [torch.autograd.grad(mean, list(weights.values())) for mean in means]
    return {name: torch.stack(each).mean(0) for name, *each in zip(weights, *drawn, strict=True)}


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[int, float], None] | None]:
    """A ``progress`` for ``train`` that draws a bar, or None where rich is not installed."""
    try:
        from rich.progress import Progress
    except ImportError:
        yield None
    else:
        with Progress(transient=True) as bar:
            task = bar.add_task("training", total=steps)
            yield lambda step, value: bar.update(task, completed=step + 1, description=f"loss {value:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small byte-level transformer on Python's sources.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="read the .py files of this folder instead")
    options = parser.parse_args()
    model = SmallLM(seed=options.seed)
    data, validation = corpus(folder=options.folder), corpus(validation=True, folder=options.folder)
    before = bits_per_byte(model, validation)
    with progress_bar(options.steps) as progress:
        train(model, data, options.steps, seed=options.seed, progress=progress)
    after = bits_per_byte(model, validation)
    print(f"validation: {before:.3f} bits per byte before, {after:.3f} after {options.steps} steps")


if __name__ == "__main__":
    main()
