"""The training example: whatever kills it, it goes on as if nothing had happened; its log says what it did."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from examples import small_lm, train_lm

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "examples" / "small_lm.py"
SHAPE = "--layers 1 --width 32 --heads 2 --context 32 --batch 4"
TINY = f"{SHAPE} --steps 30 --save 10 --eval-every 10 --warmup 5 --device cpu --no-tensorboard --text {TEXT}"
KINK = ["--curvature", "0.1*r^2 + 5*kink(1)", "--refresh", "7"]

# Dies by SIGKILL where it is told to, after half of what it was writing: a row of the log, or a checkpoint.
VICTIM = """
import os, signal, sys
import torch
from examples import bookkeeping, train_lm

place, count, *arguments = sys.argv[1:]
if place == "row":
    write = bookkeeping.Log.write
    def half_a_row(log, step, *values):
        if step == int(count):
            log._file.write(f"{step},0.1")
            log._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(log, step, *values)
    bookkeeping.Log.write = half_a_row
else:
    save = torch.save
    def half_a_file(content, path):
        save(content, path)
        if content["step"] == int(count):
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    torch.save = half_a_file
train_lm.main(arguments)
"""


def options(out: Path, *more: str) -> list[str]:
    return [*TINY.split(), "--out", str(out), *more]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(out: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(out)]


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def equal(a: Any, b: Any) -> bool:
    """Bitwise, through lists and mappings."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def assert_same_run(one: Path, other: Path) -> None:
    assert untimed(one) == untimed(other)
    mine, theirs = checkpoint(one), checkpoint(other)
    del mine["seconds"], theirs["seconds"]
    assert [key for key in mine if not equal(mine[key], theirs[key])] == []


def environment() -> dict[str, str]:
    """For a child: as many threads as here, since sums in another order are other sums."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.parametrize(
    ("place", "count", "chosen"),
    [
        ("row", 15, []),
        ("checkpoint", 20, [*KINK, "--no-input-moments", "--accumulate", "2"]),
        ("row", 15, ["--optimizer", "muon"]),
        ("row", 15, ["--optimizer", "adamw"]),
    ],
    ids=["wall with input moments", "kink, while saving", "muon", "adamw"],
)
def test_a_killed_run_goes_on_bitwise(place: str, count: int, chosen: list[str], tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", VICTIM, place, str(count), *options(killed, *chosen)]
    assert subprocess.run(command, env=environment(), capture_output=True).returncode == -signal.SIGKILL
    assert checkpoint(killed)["step"] == 10
    assert train_lm.main(options(killed, "--resume", *chosen)) == 0
    assert train_lm.main(options(whole, *chosen)) == 0
    assert [row["step"] for row in rows(killed)] == [str(step) for step in range(1, 31)]
    assert_same_run(killed, whole)
    assert float(rows(whole)[-1]["loss"]) < float(rows(whole)[0]["loss"]) - 1.0


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    more = ["--save", "1", "--steps", "200"]
    command = [sys.executable, str(ROOT / "examples" / "train_lm.py"), *options(killed, *more)]
    moments = random.Random(0)
    deaths = 0
    while deaths < 8:
        before = len(rows(killed)) if (killed / "log.csv").exists() else 0
        child = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        while child.poll() is None and not ((killed / "log.csv").exists() and len(rows(killed)) >= before + 5):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        child.kill()
        if child.wait() == 0:
            break
        deaths += 1
    assert deaths >= 3
    assert train_lm.main(options(killed, *more)) == 0
    assert train_lm.main(options(whole, *more)) == 0
    assert_same_run(killed, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_a_whole_step(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    step = torch.optim.AdamW.step

    def interrupted(self: torch.optim.AdamW, *rest: Any) -> Any:
        if len(rows(tmp_path / "stopped")) == 6:
            signal.raise_signal(number)
        return step(self, *rest)

    chosen = ["--optimizer", "adamw"]
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", interrupted)
        assert train_lm.main(options(tmp_path / "stopped", *chosen)) == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoint(tmp_path / "stopped")["step"] == 7
    assert train_lm.main(options(tmp_path / "stopped", *chosen)) == 0
    assert train_lm.main(options(tmp_path / "whole", *chosen)) == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_the_log_holds_every_step(tmp_path: Path) -> None:
    assert train_lm.main(options(tmp_path, "--optimizer", "muon", "--lr", "0.01")) == 0
    found = rows(tmp_path)
    assert list(found[0]) == ["step", "loss", "validation", "lr", "seconds"]
    assert [int(row["step"]) for row in found] == list(range(1, 31))
    assert [int(row["step"]) for row in found if row["validation"]] == [10, 20, 30]
    seconds = [float(row["seconds"]) for row in found]
    assert seconds == sorted(seconds)
    assert [float(row["lr"]) for row in found] == pytest.approx(schedule(0.01, steps=30, warmup=5), rel=1e-12)


def schedule(lr: float, steps: int, warmup: int) -> list[float]:
    """torch's own schedulers, one after the other."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    line = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, eta_min=lr / 10)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [line, cosine], [warmup])
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    return found


@pytest.mark.parametrize(
    "chosen",
    [
        [],
        ["--no-input-moments", "--dtype", "bf16"],
        ["--no-input-moments", "--backend", "exact"],
        ["--curvature", "0.5*r^2", "--units", "loss", "--scaling", "spectral", "--lr", "0.1"],
        ["--optimizer", "muon", "--scaling", "original", "--lr", "0.02"],
        ["--optimizer", "adamw"],
    ],
    ids=" ".join,
)
def test_every_optimizer_learns(chosen: list[str], tmp_path: Path) -> None:
    assert train_lm.main(options(tmp_path, "--schedule", "constant", *chosen)) == 0
    found = rows(tmp_path)
    losses = [float(row["loss"]) for row in found]
    assert sum(losses[-5:]) / 5 < losses[0] - 1.0
    assert float(found[-1]["validation"]) < float(found[9]["validation"])


def test_the_validation_is_that_of_the_shared_network(tmp_path: Path) -> None:
    """An independent reading: the checkpoint's weights in a model of one's own, measured by small_lm."""
    assert train_lm.main(options(tmp_path)) == 0
    model = small_lm.SmallLM(small_lm.Config(1, 32, 2, 32))
    model.load_state_dict(checkpoint(tmp_path)["model"])
    text = TEXT.read_bytes()
    held_out = torch.frombuffer(bytearray(text[len(text) - len(text) // 10 :]), dtype=torch.uint8)
    assert float(rows(tmp_path)[-1]["validation"]) == pytest.approx(small_lm.bits_per_byte(model, held_out), rel=1e-5)


def test_accumulated_steps_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    chosen = "--optimizer", "adamw", "--steps", "8"
    assert train_lm.main(options(tmp_path / "whole", *chosen)) == 0
    assert train_lm.main(options(tmp_path / "parts", *chosen, "--batch", "2", "--accumulate", "2")) == 0
    losses = [[float(row["loss"]) for row in rows(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_constant_schedule_may_be_made_longer(tmp_path: Path) -> None:
    chosen = "--optimizer", "muon", "--schedule", "constant"
    assert train_lm.main(options(tmp_path / "longer", *chosen, "--steps", "20")) == 0
    assert train_lm.main(options(tmp_path / "longer", *chosen)) == 0
    assert train_lm.main(options(tmp_path / "whole", *chosen)) == 0
    assert_same_run(tmp_path / "longer", tmp_path / "whole")


def test_the_result_as_json_and_the_table_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_lm.main(options(tmp_path, "--json")) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["step"] == 30
    assert result["tokens_per_second"] > 0
    assert result["optimizer_ms"] > 0
    assert result["bits_per_byte"] == float(rows(tmp_path)[-1]["validation"])
    assert result["parameters"] == sum(weight.numel() for weight in checkpoint(tmp_path)["model"].values())
    assert said.err.count("taken as") == 1
    assert "matrices    icm" in said.err
    assert train_lm.main(options(tmp_path, "--json")) == 0  # nothing is left to do
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] == result["bits_per_byte"]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that cannot be says, in one line."""
    with pytest.raises(SystemExit) as stopped:
        train_lm.main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("train_lm.py: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["--steps", "0"], "--steps: '0' is not a number ≥ 1, whole"),
        (["--lr", "inf"], "--lr: 'inf' is not a number"),
        (["--width", "30", "--heads", "4"], "width 30 is not a multiple of heads 4"),
        (["--curvature", "wal(1)"], "wal"),
        (["--optimizer", "muon", "--scaling", "spectral"], "torch.optim.Muon has match-rms-adamw and original"),
        (["--text", "/no/such/text"], "--text /no/such/text: there is no such file or folder"),
        (["--context", "100000"], "hold no window of 100001"),
        (["--device", "abacus"], "--device abacus"),
        (["--resume"], "--resume: there is no"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_options_are_refused_in_one_line(
    chosen: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(options(tmp_path, *chosen), capsys)
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = "--optimizer", "adamw"
    assert train_lm.main(options(tmp_path, *chosen)) == 0
    before = (tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "log.csv").read_bytes()
    capsys.readouterr()
    said = refusal(options(tmp_path, *chosen, "--adamw-lr", "0.01"), capsys)
    assert "of another run: --adamw-lr was 0.003, is 0.01;" in said
    assert "--steps was 30, is 31;" in refusal(options(tmp_path, *chosen, "--steps", "31"), capsys)
    other = tmp_path / "other.txt"
    other.write_text("to be or not to be\n" * 1000)
    assert "--text was " in refusal(options(tmp_path, *chosen, "--text", str(other)), capsys)
    assert before == ((tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "log.csv").read_bytes())


def test_a_folder_holds_out_every_tenth_of_its_text_files(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index:02}.txt").write_bytes(bytes([65 + index]))
    (tmp_path / ".hidden").write_bytes(b"!")
    (tmp_path / "image").write_bytes(b"\x00!")
    data, held_out = train_lm.read_text(tmp_path)
    assert bytes(held_out.tolist()) == b"AK"
    assert bytes(data.tolist()) == b"BCDEFGHIJLMNOPQRST"
    for name in [*tmp_path.glob("1*.txt"), tmp_path / "00.txt"]:
        name.unlink()
    (tmp_path / "01.txt").write_bytes(b"0123456789")
    data, held_out = train_lm.read_text(tmp_path)
    assert (bytes(data.tolist()), bytes(held_out.tolist())) == (b"0123456789CDEFGHI", b"J")


def test_without_tensorboard_there_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train_lm.main(options(tmp_path, "--tensorboard", "--optimizer", "adamw", "--steps", "2")) == 0
    assert "tensorboard is not installed" in capsys.readouterr().out


def test_tensorboard_holds_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-not-found]

    assert train_lm.main(options(tmp_path, "--tensorboard", "--optimizer", "adamw")) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(
        [float(r["loss"]) for r in rows(tmp_path)]
    )
    assert [event.step for event in events.Scalars("bits per byte")] == [10, 20, 30]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_network_gives_the_same_losses(tmp_path: Path) -> None:
    assert train_lm.main(options(tmp_path / "eager", "--steps", "12")) == 0
    assert train_lm.main(options(tmp_path / "compiled", "--steps", "12", "--compile")) == 0
    losses = [[float(row["loss"]) for row in rows(tmp_path / name)] for name in ("eager", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.gpu
def test_it_trains_compiled_in_bf16_on_a_gpu(tmp_path: Path) -> None:
    chosen = "--device", "cuda", "--dtype", "bf16", "--compile", "--schedule", "constant"
    assert train_lm.main(options(tmp_path, *chosen)) == 0
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert sum(losses[-5:]) / 5 < losses[0] - 1.0
