"""Train the shared small transformer on any local text with ICM, Muon or AdamW; a run that was killed goes on.

It reads bytes, so any text will do; without ``--text`` it reads the Python standard library's own sources. The out
folder gets log.csv, checkpoint.pt and, where tensorboard is installed, its logs. The same command again goes on from
the checkpoint, on a CPU in float32 bitwise as if nothing had happened. Made to be copied, with the two modules beside
it, and changed.

    python examples/train_lm.py --steps 400
    python examples/train_lm.py --steps 400 --curvature "0.1*r^2 + 5*kink(1)" --no-input-moments --out runs/kink
    python examples/train_lm.py --steps 400 --optimizer muon
    python examples/train_lm.py --text notes/ --width 512 --layers 8 --dtype bf16 --compile --device cuda
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from icm.optim import ICM, groups, table

try:
    import bookkeeping
    import small_lm as lm
except ModuleNotFoundError:  # run as examples.train_lm, from the folder above
    from examples import bookkeeping
    from examples import small_lm as lm

# What may differ when a run goes on; everything else, the text's bytes too, decides its numbers.
FREE = ("text", "out", "save", "resume", "device", "compile", "tensorboard", "json")
VALIDATION = 16, 16  # batches of so many windows, always the same ones


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def number(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    """An argument's type: a finite number, at least ``least``."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number ≥ {least:g}{', whole' * (kind is int)}")
        return value

    return read


def parser() -> Parser:
    flags = Parser(prog="train_lm.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    switch, count, size, rate = argparse.BooleanOptionalAction, number(int, 1), number(int, 0), number(float, 0)
    run = flags.add_argument_group("the run")
    run.add_argument("--text", type=Path, help="a file, or a folder with text files; without it, Python's sources")
    run.add_argument("--out", type=Path, help="folder for log and checkpoint (default: runs/OPTIMIZER)")
    run.add_argument("--steps", type=count, default=400, help="may grow later if the schedule is constant")
    run.add_argument("--seed", type=size, default=0, help="of the weights and of the batches")
    run.add_argument("--eval-every", type=count, default=100, help="steps between validations; the last step has one")
    run.add_argument("--save", type=count, default=100, help="steps between checkpoints")
    run.add_argument("--resume", action="store_true", help="insist on a checkpoint; one is used without this too")
    run.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    run.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast, weights in float32")
    run.add_argument("--compile", action="store_true", help="torch.compile the model")
    run.add_argument("--tensorboard", action=switch, default=True)
    run.add_argument("--json", action="store_true", help="print the result as JSON, all else to the error stream")
    network = flags.add_argument_group("the network")
    network.add_argument("--layers", type=count, default=3)
    network.add_argument("--width", type=count, default=128)
    network.add_argument("--heads", type=count, default=4)
    network.add_argument("--context", type=count, default=128)
    steps = flags.add_argument_group("the steps")
    steps.add_argument("--batch", type=count, default=16, help="windows per forward pass")
    steps.add_argument("--accumulate", type=count, default=1, help="forward passes per step")
    steps.add_argument("--clip", type=rate, default=1.0, help="largest gradient norm, 0 for any")
    steps.add_argument("--optimizer", choices=("icm", "muon", "adamw"), default="icm")
    steps.add_argument("--lr", type=rate, default=3e-3, help="of the matrices, with icm and muon")
    steps.add_argument("--adamw-lr", type=rate, default=3e-3, help="of what is no matrix, with adamw of all")
    steps.add_argument("--weight-decay", type=rate, default=0.1)
    steps.add_argument("--schedule", choices=("cosine", "constant"), default="cosine", help="cosine: to a tenth of lr")
    steps.add_argument("--warmup", type=size, default=20, help="steps of a line up to lr")
    icm = flags.add_argument_group("icm (muon has --scaling too)")
    icm.add_argument("--curvature", default="wall(1)", help="H, such as '0.1*r^2 + 5*kink(1)'")
    icm.add_argument("--units", choices=("relative", "loss"), default="relative")
    icm.add_argument(
        "--scaling", choices=("match-rms-adamw", "spectral", "original", "none"), default="match-rms-adamw"
    )
    icm.add_argument("--backend", choices=("products", "exact"), default="products")
    icm.add_argument("--refresh", type=count, default=10, help="steps between solves")
    icm.add_argument("--input-moments", action=switch, default=True)
    return flags


def read_text(path: Path | None) -> tuple[Tensor, Tensor]:
    """Bytes for training and for validation, each uint8 (bytes,): of a folder every tenth file, of a file its end."""
    if path is None:
        return lm.corpus(), lm.corpus(validation=True)
    if not path.exists():
        raise FileNotFoundError(f"--text {path}: there is no such file or folder")
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    shown = [each for each in files if not any(part.startswith(".") for part in each.relative_to(path).parts)]
    texts = [text for each in shown if (text := each.read_bytes()) and b"\0" not in text]  # a zero byte: no text
    if len(texts) >= 10:
        parts = [b"".join(text for i, text in enumerate(texts) if (i % 10 == 0) == held) for held in (False, True)]
    else:
        whole = b"".join(texts)
        cut = len(whole) - len(whole) // 10
        parts = [whole[:cut], whole[cut:]]
    if not parts[1]:
        raise ValueError(f"--text {path} holds {len(parts[0])} bytes of text, too few to train on")
    train, held_out = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return train, held_out


def build_optimizers(model: lm.SmallLM, options: argparse.Namespace) -> tuple[list[torch.optim.Optimizer], str]:
    """ICM for everything; or Muon for the matrices that ICM would take and AdamW for the rest; or AdamW. And the table
    of which parameter gets what."""
    lr, rest, decay = options.lr, options.adamw_lr, options.weight_decay
    if options.optimizer == "icm":
        names = ("curvature", "units", "scaling", "backend", "refresh", "input_moments")
        chosen = {name: getattr(options, name) for name in names}
        optimizer = ICM.for_model(model, lr, adamw_lr=rest, weight_decay=decay, **chosen)
        return [optimizer], repr(optimizer)
    if options.optimizer == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), lr=rest, betas=(0.9, 0.95), weight_decay=decay)
        return [optimizer], repr(optimizer)
    adjust = {"match-rms-adamw": "match_rms_adamw", "original": "original"}.get(options.scaling)
    if adjust is None:
        raise ValueError(f"--scaling {options.scaling}: torch.optim.Muon has match-rms-adamw and original")
    found = groups(model, lr=lr, adamw_lr=rest)
    found = [group | {"algorithm": "muon" if group["algorithm"] == "icm" else "adamw"} for group in found]
    matrices, others = (
        [{"params": group["params"]} for group in found if group["algorithm"] == name] for name in ("muon", "adamw")
    )
    muon = torch.optim.Muon(matrices, lr, momentum=0.95, nesterov=True, weight_decay=decay, adjust_lr_fn=adjust)
    return [muon, torch.optim.AdamW(others, lr=rest, betas=(0.9, 0.95), weight_decay=decay)], table(found)


def factor(options: argparse.Namespace) -> Callable[[int], float]:
    """What lr is multiplied by in each step, from 0: a line up, then a cosine down to a tenth, or 1."""

    def at(step: int) -> float:
        if step < options.warmup:
            return (step + 1) / options.warmup
        if options.schedule == "constant":
            return 1.0
        share = (step - options.warmup) / max(1, options.steps - options.warmup)
        return 0.55 + 0.45 * math.cos(math.pi * min(share, 1.0))

    return at


class Training:
    """A model, its optimizers and where they are in the data: what a checkpoint holds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        shape = lm.Config(options.layers, options.width, options.heads, options.context)
        self.data, self.held_out = read_text(options.text)
        lm.draw(self.data, shape, 1, torch.Generator())  # raises now if there is too little text
        lm.draw(self.held_out, shape, 1, torch.Generator())
        self.model = lm.SmallLM(shape, seed=options.seed).to(self.device)
        self.optimizers, self.table = build_optimizers(self.model, options)
        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(each, factor(options)) for each in self.optimizers]
        self.network = torch.compile(self.model) if options.compile else self.model
        self.generator = torch.Generator().manual_seed(options.seed)  # its state is the place in the data
        self.taken, self.seconds = 0, 0.0

    def configuration(self) -> dict[str, Any]:
        """The options that decide the run's numbers, and a fingerprint of its text."""
        chosen = {name: value for name, value in vars(self.options).items() if name not in FREE}
        if self.options.schedule == "constant":
            del chosen["steps"]
        checksum = zlib.crc32(self.held_out.numpy().tobytes(), zlib.crc32(self.data.numpy().tobytes()))
        return chosen | {"text": f"{len(self.data) + len(self.held_out)} bytes ({checksum:08x})"}

    def state_dict(self) -> dict[str, Any]:
        return {
            "configuration": self.configuration(),
            "step": self.taken,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "schedulers": [each.state_dict() for each in self.schedulers],
            "data": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken; its configuration is to be compared before."""
        self.taken, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        for name, owners in (("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            for owner, kept in zip(owners, state[name], strict=True):
                owner.load_state_dict(kept)
        self.generator.set_state(state["data"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the next byte in nats."""
        inputs, targets = (each.to(self.device) for each in batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.dtype == "bf16"):
            logits = self.network(inputs)
        return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def validate(self) -> float:
        """Bits per byte of the held-out text; in eval mode, where no input moments are collected."""
        self.model.eval()
        count, batch = VALIDATION
        drawn = islice(lm.batches(self.held_out, self.model.config, batch), count)
        return sum(self.loss(each).item() for each in drawn) / count / math.log(2)

    def step(self) -> tuple[float, float, float]:
        """One step: the loss before it, the lr it was taken with, and the milliseconds of the optimizer alone."""
        self.model.train()
        total = torch.zeros((), device=self.device)
        for _ in range(self.options.accumulate):
            batch = lm.draw(self.data, self.model.config, self.options.batch, self.generator)
            part = self.loss(batch) / self.options.accumulate
            part.backward()
            total += part.detach()
        if self.options.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        lr = float(self.optimizers[0].param_groups[0]["lr"])
        begun = self._clock()
        for optimizer in self.optimizers:
            optimizer.step()
        spent = self._clock() - begun
        for owner in self.schedulers:
            owner.step()
        self.model.zero_grad()
        self.taken += 1
        return total.item(), lr, 1e3 * spent

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def run(training: Training, out: Path, log: bookkeeping.Log, display: bookkeeping.Display) -> dict[str, Any]:
    """Train to the last step or a signal, then save: what came of it, with the signal's number or 0."""
    options = training.options
    earlier, begun, saved = training.seconds, time.perf_counter(), training.taken
    loss = validation = None

    def save() -> None:
        log.sync()
        bookkeeping.save(out / "checkpoint.pt", training.state_dict())

    with bookkeeping.stop_signals() as stopped, display.bar:
        while training.taken < options.steps and not stopped():
            started = time.perf_counter()
            loss, lr, optimizer_ms = training.step()
            seconds = time.perf_counter() - started
            due = training.taken % options.eval_every == 0 or training.taken == options.steps
            validation = training.validate() if due else None
            training.seconds = earlier + time.perf_counter() - begun
            log.write(training.taken, loss, validation, lr, training.seconds)
            display.show(training.taken, loss, validation, seconds, optimizer_ms)
            if training.taken % options.save == 0:
                save()
                saved = training.taken
        if training.taken > saved:
            save()
        number = stopped()
    return {
        "step": training.taken,
        "loss": loss,
        "bits_per_byte": training.validate() if validation is None else validation,
        **display.speed(),
        "seconds": training.seconds,
        "parameters": sum(each.numel() for each in training.model.parameters()),
        "signal": number,
        "out": str(out),
    }


def begin(options: argparse.Namespace) -> tuple[Training, Path]:
    """The training, from its checkpoint if there is one, and its folder; ValueError and OSError for what cannot be."""
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"--device {options.device}: {problem}") from problem
    training = Training(options)
    out = options.out or Path("runs", options.optimizer)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    kept = bookkeeping.load(checkpoint)
    if kept is not None:
        bookkeeping.check_same(kept["configuration"], training.configuration(), checkpoint)
        training.load_state_dict(kept)
    elif options.resume:
        raise FileNotFoundError(f"--resume: there is no {checkpoint}; leave it out to begin")
    return training, out


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; 0, 2 for options that cannot be used, and 128 + the signal's number after a signal."""
    flags = parser()
    options = flags.parse_args(arguments)
    try:
        training, out = begin(options)
    except (ValueError, OSError) as problem:
        flags.error(str(problem))
    log = bookkeeping.Log(out, training.taken, options.tensorboard)
    tokens = options.batch * options.accumulate * options.context
    display = bookkeeping.Display(Console(stderr=options.json), options.steps, training.taken, tokens)
    display.say(training.table)
    display.say(log.note or f"logs and checkpoint: {out}")
    if training.taken:
        display.say(f"going on after step {training.taken}")
    result = run(training, out, log, display)
    log.close()
    if options.json:
        print(json.dumps(result))
    elif result["signal"]:
        display.say(f"stopped and saved after step {result['step']}; the same command goes on from there")
    else:
        display.say(f"{result['bits_per_byte']:.4f} bits per byte after {result['step']} steps: {out}")
    return 128 + result["signal"] if result["signal"] else 0


if __name__ == "__main__":
    sys.exit(main())
