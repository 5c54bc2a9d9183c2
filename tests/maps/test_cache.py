"""Fits on disk: named by content, written whole or not at all, and never trusted blindly."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from icm.maps import cache
from icm.maps.composition import Composition

KEY = "0" * 64
P = Composition(((1.5, -0.5), (0.1 + 0.2, 1 / 3)))


def test_every_bit_comes_back(tmp_path: Path) -> None:
    """Coefficients that decimals would round, subnormal and huge ones."""
    odd = Composition(((1 / 3, 5e-324, -1.7976931348623157e308), (-0.0, 0.1)))
    cache.store(tmp_path, KEY, odd)
    back = cache.load(tmp_path, KEY, odd.degrees)
    assert back == odd
    assert back is not None
    assert [c.hex() for f in back.factors for c in f] == [c.hex() for f in odd.factors for c in f]
    assert cache.load(tmp_path, "1" * 64, odd.degrees) is None
    assert cache.load(None, KEY, odd.degrees) is None


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a changed digit": lambda text: text.replace("0x1.8", "0x1.9"),
    "not finite": lambda text: text.replace("0x1.8000000000000p+0", "inf"),
    "another format": lambda text: text.replace('"icm map": 1', '"icm map": 0'),
    "another key": lambda text: text.replace(KEY, "2" * 64),
    "a list": lambda text: "[1, 2]",
    "other JSON": lambda text: '{"factors": [[1.0]]}',
    "no text": lambda text: "\x00\xff",
    "numbers for texts": lambda text: json.dumps({**json.loads(text), "factors": [[1.5, -0.5]]}),
    "deep nesting": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_and_rewritten(damage: str, tmp_path: Path) -> None:
    """Truncated, corrupt and foreign files are as good as none."""
    cache.store(tmp_path, KEY, P)
    path = tmp_path / f"{KEY}.json"
    text = path.read_text()
    path.write_text(DAMAGE[damage](text), encoding="latin-1")
    assert cache.load(tmp_path, KEY, P.degrees) is None
    cache.store(tmp_path, KEY, P)
    assert path.read_text() == text
    assert cache.load(tmp_path, KEY, (5, 5)) is None  # the degrees that were asked for


def test_coefficients_that_hash_well_but_are_not_finite(tmp_path: Path) -> None:
    """A checksum does not make an infinite coefficient right."""
    factors = [["inf", "0x1p+0"]]
    content = {"icm map": cache.FORMAT, "key": KEY, "factors": factors, "sum": cache._checksum(factors)}
    (tmp_path / f"{KEY}.json").write_text(json.dumps(content))
    assert cache.load(tmp_path, KEY, (3,)) is None


def keys(phi, **changed) -> str:
    asked = {"lower": 1e-3, "degrees": (5, 5), "monotone": True} | changed
    return cache.key_of(phi, [np.linspace(0, 1, 501)], **asked)


def test_what_differs_has_another_key() -> None:
    """φ that differ in the last bit of one value, lower, degrees, monotone; the same twice has the same."""

    def bumped(x: torch.Tensor) -> torch.Tensor:
        y = x.sqrt()
        y[250] = torch.nextafter(y[250], torch.ones_like(y[250]))
        return y

    found = [keys(torch.sqrt), keys(bumped), keys(lambda x: x)]
    found += [keys(torch.sqrt, lower=2e-3), keys(torch.sqrt, degrees=(5, 7)), keys(torch.sqrt, degrees=(5, 5, 5))]
    found += [keys(torch.sqrt, monotone=False)]
    found += [cache.key_of(torch.sqrt, [np.linspace(0, 1, 251)] * 2, 1e-3, (5, 5), True)]
    assert len(set(found)) == len(found)
    assert keys(lambda x: x**0.5) == keys(torch.sqrt)


def test_where_fits_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$ICM_CACHE first, then the platform's own; a folder that is given; none."""
    monkeypatch.setenv("ICM_CACHE", str(tmp_path / "mine"))
    assert cache.folder(True) == tmp_path / "mine"
    monkeypatch.delenv("ICM_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for platform, place in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache.folder(True) == tmp_path / place / "icm" / "maps"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder(True) == tmp_path / "xdg" / "icm" / "maps"
    assert cache.folder(None) is None
    assert cache.folder(False) is None
    assert cache.folder(str(tmp_path)) == tmp_path


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("ICM_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache.folder(True) is None


def test_a_folder_that_cannot_be_written_warns_and_no_more(tmp_path: Path) -> None:
    """A file stands where the folder should be (which stops root too): one warning, no error, nothing read."""
    (tmp_path / "taken").write_text("")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            cache.store(tmp_path / "taken" / "maps", KEY, P)
    assert len(caught) == 1
    assert "ICM_CACHE" in str(caught[0].message)
    assert cache.load(tmp_path / "taken" / "maps", KEY, P.degrees) is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_warns(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        cache.store(tmp_path, KEY, P)
    tmp_path.chmod(0o700)


def _write(where: Path, worker: int, rounds: int) -> None:
    for k in range(rounds):
        cache.store(where, KEY, Composition(((float(worker), float(k)),) * 200))


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    """Four processes write one name 100 times each; every reading meanwhile is one of theirs, whole."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = [context.Process(target=_write, args=(tmp_path, w, 100)) for w in range(1, 5)]
    for worker in workers:
        worker.start()
    seen = 0
    while any(worker.is_alive() for worker in workers):
        if (tmp_path / f"{KEY}.json").exists():
            found = cache.load(tmp_path, KEY, (3,) * 200)
            assert found is not None
            assert len(set(found.factors)) == 1
            seen += 1
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert seen > 10
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.json"]


DYING = """
import os, sys, pathlib
from icm.maps import cache
from icm.maps.composition import Composition
real = os.replace
def stop(a, b):
    print("written", flush=True)
    sys.stdin.read()
os.replace = stop
cache.store(pathlib.Path(sys.argv[1]), sys.argv[2], Composition(((2.0, 1.0),)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_writer_killed_midway_leaves_the_old_file(tmp_path: Path) -> None:
    """SIGKILL after the writing, before the renaming: what was there stays; the leftover goes an hour later."""
    cache.store(tmp_path, KEY, P)
    root = Path(cache.__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", DYING, str(tmp_path), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    (left,) = tmp_path.glob(".*.part")
    assert cache.load(tmp_path, KEY, P.degrees) == P
    cache.store(tmp_path, KEY, P)
    assert left.exists()  # it might be someone's who is writing now
    os.utime(left, (time.time() - 7200, time.time() - 7200))
    cache.store(tmp_path, KEY, P)
    assert not left.exists()
