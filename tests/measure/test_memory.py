"""Budgets as they are written, and the memory of tensors as a separate count and the system see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import vmap

from icm.errors import InputError
from icm.measure.memory import budget, peak

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [(5, 5), ("5", 5), ("2kB", 2000), ("2 KiB", 2048), ("1.5MB", 1_500_000), ("1GiB", 2**30), (None, 2**27)],
)
def test_budgets(given: int | str | None, bytes_: int) -> None:
    assert budget(given, CPU) == bytes_


@pytest.mark.parametrize("given", ["", "much", "1TB", "-1", "1e6", "2 G i B"])
def test_texts_that_are_no_amount(given: str) -> None:
    with pytest.raises(InputError, match=r"is no amount; write bytes, or '500MB' or '2GiB'"):
        budget(given, CPU)


@pytest.mark.parametrize("given", [[1], 1e9, True, {"a": 1}])
def test_things_that_are_no_amount(given: Any) -> None:
    with pytest.raises(InputError, match=r"memory=.* is no amount; give whole bytes, or a text such as '500MB'"):
        budget(given, CPU)


@pytest.mark.parametrize("given", [0, -5, "0"])
def test_nothing_is_no_budget(given: int | str) -> None:
    with pytest.raises(InputError, match="must be at least 1 byte"):
        budget(given, CPU)


def test_what_lives_at_the_same_time_is_counted_once():
    x = torch.ones(1000)  # 4000 bytes each

    def run() -> None:
        y = x + 1
        z = y * 2
        del y
        w = z.exp()
        w.mul_(2).view(10, 100).t()
        w[:5].add_(1)

    assert peak(run) == 8000
    assert peak(lambda: x.view(10, 100).t()) == 0
    assert peak(lambda: [x.clone() for _ in range(7)]) == 28000
    assert peak(lambda: [x.clone().sum().item() for _ in range(7)]) == 4004


def test_every_lane_of_vmap_counts():
    x = torch.ones(50, 1000)

    def run() -> None:
        vmap(lambda y: (y + 1).exp().sum())(x)

    assert 2 * 200_000 <= peak(run) <= 2 * 200_000 + 1000


def test_garbage_of_earlier_runs_is_forgotten():
    kept = []
    assert peak(lambda: kept.append(torch.ones(1000))) == 4000
    kept.clear()
    assert peak(lambda: torch.ones(1000)) == 4000


RESIDENT = """
import resource, sys, torch
from icm.measure import curvature
from tests.measure.planted import Planted, batch, radial
torch.set_num_threads(1)
made = batch(64, 32)
def run(memory, directions):
    model = Planted(m=256)
    made["g"] = torch.ones(64, 32, 256, dtype=torch.float64)
    loss = radial(lambda r: r**2)
    curvature(model, loss, [made], "layer", [0.5, 1.0], directions=directions, tokens=1, memory=memory)
run("64MiB", 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(sys.argv[1], 160)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="resident sizes in KiB")
def test_the_resident_set_grows_by_the_budget_at_most():
    """480 displacements of 64 × 32 × 256 float64 hold 4 MiB each and more; a third on top for the allocator."""
    for mebibytes in (128, 512):
        done = subprocess.run(
            [sys.executable, "-c", RESIDENT, f"{mebibytes}MiB"], capture_output=True, text=True, check=True, cwd=ROOT
        )
        grown = float(done.stdout)
        assert grown < 1.33 * mebibytes + 32
        assert grown > 0.2 * mebibytes - 64  # and the budget is used
