"""Speed and memory as ratios, each measured in one run on one machine.

svd      solve(G) against torch.linalg.svd(G), n = 1024, H = r^3, float64                   bar: at most 1.3
kinks    the same with one kink: near G, at and beyond the range of the law, flat             bar: at most 2
proofs   seconds of enclose: a power at n = 64, a kink at n = 8                               bars: 30 and 60
cvxpy    method="reference" (32 x 32, 1000 samples) against solve                           bar: at least 1000
batch    a loop of 64 solves against one batch, 256 x 256, both beyond their SVDs           bar: at least 4
memory   peak memory of solve against that of the SVD alone, n = 4096, a process each       bar: at most 1.5
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.progress import track

import icm
from benchmarks.timing import medians
from icm.solvers import solve_program


def _gaussian(*shape: int, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def against_svd(n: int = 1024, repeats: int = 7, device: str = "cpu") -> dict[str, Any]:
    """solve(G) / svd(G)."""
    G = _gaussian(n, n, device=device)
    t = medians({"svd": lambda: torch.linalg.svd(G), "solve": lambda: icm.solve(G, "r^3")}, repeats, device)
    ratio = t["solve"] / t["svd"]
    return {"what": f"solve / svd, n = {n}", "ratio": ratio, "bar": 1.3, "ok": ratio <= 1.3, **t}


def kinks_against_svd(n: int = 1024, repeats: int = 5, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """solve(G) / svd(G) for one kink, at jumps b where it is below the law of ‖Q*ζ‖, inside it, or holds it back."""
    G = _gaussian(n, n, device=device)
    near = torch.linalg.qr(G)[0] * 30 + G / 1000  # nearly orthogonal: a jump of 1e6 holds it at the kink exactly
    runs: dict[str, Callable[[], Any]] = {"svd": lambda: torch.linalg.svd(G)}
    for b in (1e1, 2e4, 1e5, 1e8):
        runs[f"b = {b:g}"] = lambda b=b: icm.solve(G, icm.parse(f"0.5*r^2 + {b}*kink(1)"))
    runs["flat"] = lambda: icm.solve(near, "0.5*r^2 + 1e6*kink(1)")
    t = medians(runs, repeats, device)
    for name in list(runs)[1:]:
        ratio = t[name] / t["svd"]
        what = f"solve / svd, n = {n}, one kink, {name}"
        yield {"what": what, "ratio": ratio, "bar": 2.0, "ok": ratio <= 2, "svd": t["svd"], "solve": t[name]}


def proofs() -> Iterator[dict[str, Any]]:
    """Seconds of enclose(solution), which the bars of these two rows are in."""
    for n, H, bar in ((64, "r^2.39", 30.0), (8, "0.5*r^2 + 60*kink(1)", 60.0)):
        solution = icm.solve(_gaussian(n, n), H)
        start = time.perf_counter()
        enclosure = icm.enclose(solution)
        seconds = time.perf_counter() - start
        width = (enclosure.optimum.upper - enclosure.optimum.lower) / abs(enclosure.optimum.lower)
        what = f"seconds of enclose, {H}, n = {n}"
        yield {"what": what, "ratio": seconds, "bar": bar, "ok": seconds <= bar and width < 1e-9, "width": width}


def against_cvxpy(repeats: int = 1) -> dict[str, Any]:
    """method="reference" / solve at 32 x 32 with 1000 samples."""
    G = _gaussian(32, 32)
    fast = medians({"solve": lambda: icm.solve(G, "r^3")}, 20)
    start = time.perf_counter()
    for _ in range(repeats):
        icm.solve(G, "r^3", method="reference", samples=1000)
    slow = (time.perf_counter() - start) / repeats
    ratio = slow / fast["solve"]
    what = "reference / solve, 32 x 32, 1000 samples"
    return {"what": what, "ratio": ratio, "bar": 1000.0, "ok": ratio >= 1000, "reference": slow, **fast}


def batched(count: int = 64, n: int = 256, repeats: int = 9, device: str = "cpu") -> dict[str, Any]:
    """Loop of solves / batched solve, decompositions given: a difference of totals would measure the SVD's noise."""
    G = _gaussian(count, n, n, device=device)
    batch = icm.Program(G, "r^3")
    singles = [icm.Program(g, "r^3") for g in G]
    reduced, reductions = batch.reduce(), [program.reduce() for program in singles]
    t = medians(
        {
            "svd_batch": lambda: torch.linalg.svd(G, full_matrices=False),
            "loop": lambda: [solve_program(p, reduced=r) for p, r in zip(singles, reductions, strict=True)],
            "batch": lambda: solve_program(batch, reduced=reduced),
        },
        repeats,
        device,
    )
    ratio = t["loop"] / t["batch"]
    what = f"loop / batch of solves beyond the SVD, {count} x {n} x {n}"
    return {"what": what, "ratio": ratio, "bar": 4.0, "ok": ratio >= 4, **t}


def _peak(program: str) -> float:
    """Peak resident memory in bytes of a fresh process that runs `program`."""
    text = "import resource, torch, icm\n" + program + "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def memory(n: int = 4096) -> dict[str, Any]:
    """Peak memory of solve(G) / svd(G), n x n, G included in both."""
    make = f"G = torch.randn({n}, {n}, dtype=torch.float64, generator=torch.Generator().manual_seed(0))\n"
    svd = _peak(make + "torch.linalg.svd(G)")
    solve = _peak(make + "icm.solve(G, 'r^3')")
    ratio = solve / svd
    return {
        "what": f"peak memory solve / svd, n = {n}",
        "ratio": ratio,
        "bar": 1.5,
        "ok": ratio <= 1.5,
        "svd": svd,
        "solve": solve,
    }


def run(quick: bool = False) -> list[dict[str, Any]]:
    """All rows; `quick` leaves out memory, whose two decompositions of 4096 x 4096 take minutes."""
    parts: list[Callable[[], dict[str, Any]]] = [against_svd, batched, against_cvxpy]
    if not quick:
        parts.append(memory)
    rows = [part() for part in track(parts, description="speed     ")]
    rows += [*track(kinks_against_svd(), description="kinks     "), *track(proofs(), description="proofs    ")]
    if torch.cuda.is_available():
        rows += [against_svd(device="cuda") | {"device": "cuda"}, batched(device="cuda") | {"device": "cuda"}]
    return rows
