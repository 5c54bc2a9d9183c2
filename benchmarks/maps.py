"""Polar factors: time, accuracy, and work against the machine's limits, all in one process and in turns.

Every row is one way to UVᵀ for one shape, batch and precision of the arithmetic; G is Gaussian, in float32.

error    ‖Q − UVᵀ‖_F / ‖UVᵀ‖_F, UVᵀ from the float64 SVD (of the first matrix of a batch)
map      for "icm, PE": ‖Q − U p(g/‖G‖_F) Vᵀ‖_F / ‖UVᵀ‖_F, p the polynomial in float64: what the arithmetic adds
ratio    time over that of the fastest peer, round by round: median and quartiles

A peer is another's five quintic steps that reach the accuracy which five of Muon's steps or five of Polar Express have
without rounding, within 5 %: without such a line the fastest would be one that loses all digits in bf16.

Bars, each at an error at most 5 % above that of five Polar Express steps, exact or by another in this precision
single   time over that of the fastest peer, single matrices: at most 1.05
batch    time over that of torch.optim.Muon's loop, 64 matrices, bf16: at 256 × 1024 at most 0.7,
         at 256 × 256 at most 1.0 (GPU 0.5)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.machine import Limits, limits
from benchmarks.peers import FIVE, LOOP, OURS, field, muon, polar_express
from benchmarks.timing import interleaved
from benchmarks.work import Work, newton_schulz_flops

SHAPES = ((256, 256), (256, 1024), (1024, 1024), (1024, 4096), (4096, 4096))
BATCHES = (1, 8, 64)
SINGLE = 1.05
BATCHED = {(256, 1024): {"cpu": 0.7, "cuda": 0.7}, (256, 256): {"cpu": 1.0, "cuda": 0.5}}


class Case(NamedTuple):
    m: int
    n: int
    batch: int
    precision: str


def cases(device: str = "cpu", quick: bool = False, most: float | None = None) -> list[Case]:
    """All whose five steps take at most `most` operations: 2.1e12 on a CPU, seconds; `quick`: single matrices and 8 of
    256²."""
    most = most or (2e10 if quick else 1e15 if device.startswith("cuda") else 2.1e12)
    precisions = ("bf16", "fp16", "fp32") if device.startswith("cuda") else ("bf16", "fp32")
    return [
        Case(m, n, batch, precision)
        for m, n in (SHAPES[:1] if quick else SHAPES)
        for batch in BATCHES
        for precision in precisions
        if newton_schulz_flops(m, n, batch) <= most
    ]


def run(
    quick: bool = False, device: str = "cpu", budget: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """{"limits", "rows", "bars", "missing"}: see above. `quick`: 256 × 256 alone, seconds."""
    found = limits(device, quick)
    rows: list[dict[str, Any]] = []
    missing: dict[str, None] = {}
    references: dict[tuple[int, int], Reference] = {}
    for case in track(cases(device, quick, most), description="maps      "):
        if case[:2] not in references:
            references = {case[:2]: Reference(gaussian(Case(case.m, case.n, 1, "fp32"), device))}
        new, why = measure(case, references[case[:2]], found, device, quick, budget)
        rows += new
        missing |= dict.fromkeys(why)
    new = {"limits": found.as_dict(), "rows": rows, "bars": list(bars(rows, device)), "missing": list(missing)}
    return new | {"device": device}


def measure(
    case: Case, reference: Reference, machine: Limits, device: str, quick: bool, budget: float | None = None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows of one case, and who is missing."""
    work = newton_schulz_flops(case.m, case.n, case.batch)
    compiled = not quick and (device.startswith("cuda") or (case.batch == 1 and work <= 1e10))
    there = field(case.precision, device, compiled)
    peers = {peer.name: peer for peer in there.peers if peer.products or affordable(case)}
    G = gaussian(case, device)
    results: dict[str, Tensor] = {}
    works: dict[str, Work] = {}

    def first(name: str, run: Callable[[], Any]) -> None:
        if peers[name].compiled:  # counting would keep it from being compiled
            Q = run()
        else:
            with Work() as works[name]:
                Q = run()
        results[name] = Q if case.batch == 1 else Q[0].clone()

    runs: dict[str, Callable[[], Any]] = {name: lambda peer=peer: peer.run(G) for name, peer in peers.items()}
    with torch.no_grad():
        for name in [name for name, peer in peers.items() if peer.compiled]:
            runs[name]()
        budget = budget or (0.5 if quick else 3.0 if work < 2e11 else 10.0)
        times = interleaved(runs, 7 if quick else 51, device, budget, first)
    errors = {name: reference.errors(Q, name == FIVE) for name, Q in results.items()}
    enough = 1.05 * reference.loosest
    others = [
        name for name, p in peers.items() if p.products and name not in (OURS, FIVE) and errors[name][0] <= enough
    ]
    fastest = min(others, key=lambda name: times[name].median) if others else None
    rows = []
    for name, peer in peers.items():
        seconds, done = times[name], works.get(name)
        ratio = seconds.over(times[fastest]) if fastest else None
        loop = seconds.over(times[LOOP]) if LOOP in times else None
        flops = done.flops if done and peer.products else None
        rows.append(
            {
                **case._asdict(),
                "what": name,
                "seconds": seconds.median,
                "quartiles": seconds.quartiles,
                "rounds": len(seconds.values),
                "products": peer.products,
                "polar_express": peer.polar_express,
                "fastest": fastest,
                "ratio": ratio and ratio.median,
                "ratio_quartiles": ratio and ratio.quartiles,
                "loop": loop and loop.median,
                "loop_quartiles": loop and loop.quartiles,
                "flops": flops,
                "of_peak": flops and flops / seconds.median / machine.flops[case.precision],
                "bytes": done and done.bytes,
                "of_bandwidth": done and done.bytes / seconds.median / machine.bandwidth,
                "error": errors[name][0],
                "map": errors[name][1],
                "polynomial": reference.polynomial,
            }
        )
    return rows, there.missing


def affordable(case: Case) -> bool:
    """Decompositions, 22 k²l operations at a fraction of a product's speed, are left out beyond a minute or so."""
    k, l = sorted((case.m, case.n))  # noqa: E741
    return 22.0 * case.batch * k * k * l < 1.6e12


def gaussian(case: Case, device: str) -> Tensor:
    """The first matrix of a batch is the same for all batches of a shape."""
    draws = [
        torch.randn(case.m, case.n, generator=torch.Generator().manual_seed(seed)).to(device)
        for seed in range(case.batch)
    ]
    return draws[0] if case.batch == 1 else torch.stack(draws)


class Reference:
    """UVᵀ and U p(g/‖G‖_F) Vᵀ of one matrix by the float64 SVD, p five steps of Polar Express.

    `polynomial` is the error of p itself; `loosest` is that of p or of five of Muon's steps, whichever is larger.
    """

    def __init__(self, G: Tensor) -> None:
        self.U, g, self.Vh = torch.linalg.svd(G.double(), full_matrices=False)
        self.Q = self.U @ self.Vh
        g = g / torch.linalg.vector_norm(g)
        self.values, self.polynomial, self.loosest = None, None, _short(muon(g))
        with contextlib.suppress(ImportError, AttributeError):
            self.values = polar_express()(g)
            self.polynomial = _short(self.values)
            self.loosest = max(self.loosest, self.polynomial)

    def errors(self, Q: Tensor, five: bool) -> tuple[float, float | None]:
        norm = torch.linalg.matrix_norm(self.Q)
        error = float(torch.linalg.matrix_norm(Q.double() - self.Q) / norm)
        if not five or self.values is None:
            return error, None
        exact = (self.U * self.values) @ self.Vh
        return error, float(torch.linalg.matrix_norm(Q.double() - exact) / norm)


def _short(values: Tensor) -> float:
    """‖Q − UVᵀ‖_F / ‖UVᵀ‖_F for Q with these singular values."""
    return float(torch.linalg.vector_norm(values - 1)) / math.sqrt(len(values))


def bars(rows: list[dict[str, Any]], device: str) -> Iterator[dict[str, Any]]:
    """A row for each bar that could be measured."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    for row in rows:
        if row["what"] != OURS or row["polynomial"] is None:
            continue
        same = [r["error"] for r in rows if r["polar_express"] and r["what"] != FIVE and _case(r) == _case(row)]
        steps = max([row["polynomial"], min(same, default=0.0)])
        accurate = row["error"] <= 1.05 * steps
        where = f"{row['m']} × {row['n']}, {row['precision']}"
        facts = {"error": row["error"], "five steps of Polar Express": steps}
        if row["batch"] == 1 and row["ratio"] is not None:
            what, ok = f"polar factor / {row['fastest']}, {where}", accurate and row["ratio"] <= SINGLE
            yield {"what": what, "figure": row["ratio"], "bar": SINGLE, "ok": ok, **facts}
        bar = BATCHED.get((row["m"], row["n"]), {}).get(kind)
        if row["batch"] == 64 and row["loop"] is not None and bar is not None:
            what, ok = f"64 polar factors / {LOOP}, {where}", accurate and row["loop"] <= bar
            yield {"what": what, "figure": row["loop"], "bar": bar, "ok": ok, **facts}


def _case(row: dict[str, Any]) -> Case:
    return Case(*(row[key] for key in Case._fields))
