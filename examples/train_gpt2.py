"""Train a small GPT-2, transformers' own classes, on local text, and keep checkpoints on the way: something to measure.

It reads bytes (256 tokens), so no tokenizer is downloaded; without ``--text`` it reads the Python standard library's
sources. Every checkpoint is a Hugging Face folder, OUT/step-N, in float32. Needs transformers.

    python examples/train_gpt2.py --out runs/gpt2
    icm measure runs/gpt2/step-* --layers "*.c_fc" --layers "*.mlp.c_proj" --out runs/gpt2/measured
"""

from __future__ import annotations

import argparse
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import cross_entropy

try:
    import small_lm as lm
except ModuleNotFoundError:  # run as examples.train_gpt2, from the folder above
    from examples import small_lm as lm


def build(layers: int, width: int, heads: int, context: int, seed: int) -> Any:
    """GPT-2 with bytes for tokens and no dropout, its weights drawn from ``seed``."""
    transformers: Any = import_module("transformers")
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=context, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.GPT2LMHeadModel(config)


def loss(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the next byte in nats."""
    inputs, targets = batch
    return cross_entropy(model(inputs, use_cache=False).logits.flatten(0, 1), targets.flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--text", type=Path, help="a file of text; without it, Python's sources")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--keep", type=int, nargs="*", default=[0, 100, 300, 600], help="steps to keep; the last is")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    data = torch.frombuffer(bytearray(options.text.read_bytes()), dtype=torch.uint8) if options.text else lm.corpus()
    shape = lm.Config(options.layers, options.width, options.heads, options.context)
    model = build(options.layers, options.width, options.heads, options.context, options.seed).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = max(1, options.steps // 20)  # a line up, then a cosine to a tenth
    share = warmup / options.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, options.steps, pct_start=share, final_div_factor=4.0, cycle_momentum=False
    )
    kept = {*options.keep, options.steps}
    with Progress(transient=True) as bar:
        task = bar.add_task("training", total=options.steps)
        stream = islice(lm.batches(data, shape, options.batch, options.seed), options.steps + 1)
        for step, batch in enumerate(stream):
            if step in kept:
                model.save_pretrained(options.out / f"step-{step}")
            if step == options.steps:
                break
            value = loss(model, tuple(x.to(options.device) for x in batch))  # type: ignore[arg-type]
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.update(task, completed=step + 1, description=f"loss {value.item():.3f}")
    print(f"kept {', '.join(str(options.out / f'step-{step}') for step in sorted(kept))}")


if __name__ == "__main__":
    main()
