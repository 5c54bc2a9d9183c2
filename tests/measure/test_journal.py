"""A measurement that was killed goes on to the same bits; another one's file is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from icm.errors import FileError, InputError
from icm.measure import Measurement, curvature
from icm.measure.journal import Journal
from tests.measure.planted import GPT, next_token, tokens

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("c_proj", "mlp.0")


def data(count: int = 4) -> list[dict[str, torch.Tensor]]:
    return [tokens(2, seed=seed) for seed in range(count)]


def measured(batches: Iterable[Any], resume: Path | None = None, **options: Any) -> dict[str, Measurement]:
    settings: dict[str, Any] = {"model": GPT(), "layers": LAYERS, "radii": (0.1, 1.0), "directions": 3} | options
    return curvature(
        settings.pop("model"), settings.pop("loss", next_token), batches, settings.pop("layers"),
        settings.pop("radii"), resume=resume, progress=False, **settings,
    )  # fmt: skip


def same(a: dict[str, Measurement], b: dict[str, Measurement]) -> bool:
    return list(a) == list(b) and all(
        torch.equal(getattr(a[x].tally, name), getattr(b[x].tally, name)) for x in a for name in vars(a[x].tally)
    )


def partly() -> GPT:
    model = GPT()
    model.mlp.eval()
    return model


class Stop(Exception):
    pass


def stopped_after(batches: list[Any], count: int) -> Iterable[Any]:
    yield from batches[:count]
    raise Stop


CHILD = """
import os, signal, sys
import icm.measure.journal as journal
from pathlib import Path
from tests.measure.test_journal import data, measured
import torch
torch.set_num_threads(1)
journal._EVERY = 0.0
add, left = journal.Journal.add, [int(sys.argv[2])]
def dying(self, *args):
    add(self, *args)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.add = dying
measured(data(), Path(sys.argv[1]))
"""


def test_killed_and_resumed_is_uninterrupted_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    died = subprocess.run([sys.executable, "-c", CHILD, str(path), "3"], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert [x.name for x in tmp_path.iterdir()] == ["state.json"]
    assert json.loads(path.read_text())["done"] == {"c_proj": 2, "mlp.0": 1}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert same(measured(data(), path), measured(data()))
    finally:
        torch.set_num_threads(threads)


def test_an_exception_loses_what_was_not_yet_written_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icm.measure.journal._EVERY", 0.0)
    path = tmp_path / "state.json"
    with pytest.raises(Stop):
        measured(stopped_after(data(), 2), path)
    assert same(measured(data(), path), measured(data()))


def test_what_is_done_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = measured(data(), path)
    passes = []

    def counting(model: Any, batch: Any) -> torch.Tensor:
        passes.append(1)
        return next_token(model, batch)

    assert same(measured(data(), path, loss=counting), first)
    assert len(passes) == len(data()) * len(LAYERS)
    assert same(measured(data(6), path), measured(data(6)))  # more data go on from there


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"radii": (0.1, 2.0)}, r"is of another measurement, with radii=\[0.1, 1.0\] \(here \[0.1, 2.0\]\); name"),
        ({"directions": 4}, r"with directions=3 \(here 4\); name another file"),
        ({"positions": "all"}, r"with positions=one \(here all\);"),
        ({"tokens": None, "seed": 1}, r"with tokens=8 \(here None\), seed=0 \(here 1\);"),
        ({"layers": "mlp.0"}, r"with layers=\[\['c_proj', 0, 8, 8\], "),
        ({"dtype": torch.float64}, r"with dtype=None \(here torch.float64\);"),
        ({"random_seed": 1}, r"with random_seed=None \(here 1\);"),
        ({"model": GPT(seed=1)}, "with weights="),
        ({"model": GPT().eval()}, r"with mode=training \(here evaluation\); name another file"),
        ({"model": partly()}, r"with mode=training \(here training of GPT, "),
    ],
)
def test_other_settings_and_other_weights_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = tmp_path / "state.json"
    measured(data(), path)
    with pytest.raises(InputError, match=said):
        measured(data(), path, **changed)


def smoothed(model: Any, batch: Any) -> torch.Tensor:
    logits = model(batch["ids"][:, :-1]).transpose(1, 2)
    return cross_entropy(logits, batch["ids"][:, 1:], reduction="none", label_smoothing=0.02)


def test_another_loss_is_refused_with_both_its_values(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    measured(data(2), path)
    kept = path.read_bytes()
    model = GPT()
    before, now = (float(loss(model, data(1)[0]).detach().double().sum()) for loss in (next_token, smoothed))
    said = f"another loss or model: the loss terms of batch 0 summed to {before:.3f}"[:-1] + f".*to {now:.3f}"[:-1]
    with pytest.raises(InputError, match=said):
        measured(data(2), path, loss=smoothed)
    assert path.read_bytes() == kept
    same_loss = measured(data(2), path, loss=lambda model, batch: next_token(model, batch) + 1e-7)  # within rounding
    assert same(same_loss, measured(data(2)))


def test_other_parts_of_the_same_names_and_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    measured(data(), path, layers="c_attn", parts={"c_attn": ("a", "b", "c")})
    with pytest.raises(InputError, match="with layers="):
        measured(data(), path, layers=["c_attn.b", "c_attn.a", "c_attn.c"], parts={"c_attn": ("b", "a", "c")})


@pytest.mark.parametrize("other", ["first", "last", "shorter"])
def test_other_data_are_refused(tmp_path: Path, other: str) -> None:
    path = tmp_path / "state.json"
    measured(data(), path)
    kept = path.read_bytes()
    given = data()
    if other == "shorter":
        given, said = given[:2], "it has 4 batches, and these are 2; give the same data"
    else:
        at = {"first": 0, "last": 3}[other]
        given[at], said = tokens(2, seed=9), f"batch {at} differs; give the same data, or name another file"
    with pytest.raises(InputError, match=said):
        measured(given, path)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "icm measurement in progress 2"}', "\x00"])
def test_files_of_other_things_are_refused_and_stay(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"state.json' holds no measurement in progress; name another file"):
        measured(data(), path)
    assert path.read_text() == content


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no folder"):
        measured(data(), tmp_path / "none" / "state.json")
    with pytest.raises(FileError, match=r"name it \.json"):
        measured(data(), tmp_path / "state.pt")


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured(data())
    assert os.listdir(tmp_path) == []
    assert Journal.open(None, {"layers": [["a", 0, 1, 1]]}, 2, GPT()).path is None
