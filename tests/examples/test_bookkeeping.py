"""The folder of a run: a checkpoint is there as a whole or not at all, and a log takes up where the run does."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from examples import bookkeeping


def test_a_second_signal_ends_it_at_once() -> None:
    with bookkeeping.stop_signals() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert stopped() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    content = {"step": 1, "configuration": {}, "weights": torch.arange(1000)}
    bookkeeping.save(path, content)

    def full(content: Any, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space"):
            bookkeeping.save(path, content | {"step": 2})
    assert step(path) == 1
    bookkeeping.save(path, content | {"step": 3})  # what was left behind is in nobody's way
    assert step(path) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", [1, 2], {"step": 1}])
def test_a_file_that_is_no_checkpoint_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"no checkpoint of this program: move it away"):
        bookkeeping.load(path)


def step(path: Path) -> int:
    """Of the checkpoint, whose tensors are whole."""
    content = bookkeeping.load(path)
    assert content is not None
    assert torch.equal(content["weights"], torch.arange(1000))
    return content["step"]


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert bookkeeping.load(tmp_path / "checkpoint.pt") is None


def test_a_log_drops_what_is_after_the_checkpoint_and_what_was_cut_off(tmp_path: Path) -> None:
    log = bookkeeping.Log(tmp_path, tensorboard=False)
    for number in range(1, 6):
        log.write(number, 1 / number, 0.1 if number == 3 else None, 1e-3, 0.5)
    log.close()
    path = tmp_path / "log.csv"
    lines = path.read_text().splitlines(keepends=True)
    assert lines[:2] == ["step,loss,validation,lr,seconds\n", "1,1.0,,0.001,0.500\n"]
    assert lines[3] == "3,0.3333333333333333,0.1,0.001,0.500\n"
    for kept, torn in ((4, "6,0.1"), (4, "4"), (2, "6,0.1,,0.001,0.5")):
        path.write_text("".join(lines) + torn)
        bookkeeping.Log(tmp_path, after=kept, tensorboard=False).close()
        assert path.read_text() == "".join(lines[: kept + 1])
