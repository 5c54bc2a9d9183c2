"""Solving: against decompositions, and by products against five Newton–Schulz steps in the same precision.

exact      solve(G, H), method auto, float64, over svd and over eigh of the Gram matrix              no bar here
products   solve(G, H, method="products") once, over one application of five steps                   no bar
schedule   ten calls of a running Schedule(H, refresh=10) on a slowly drifting G, statistics, solve and compilation of
           one refresh among them, over ten applications
           bf16, to 2e-2 of ‖Q‖ (fp16: 1e-2): at most 1.3        fp32, to 1e-5 of ‖Q‖: at most 3
gpu        exact(sign, G) of 64 matrices of 1024² over batched eigh of their Gram matrices: at most 1.1, on a GPU only

Errors are ‖Q − Q*‖_F / ‖Q*‖_F, Q* from the exact path in float64 on the same G. `error`, which a bar is conditional on,
is that where φ is fresh, `drifted` that of the tenth call, nine steps of 1 % later. √n ‖G‖_F = 3, so that the kink at 1
and both powers have a say. G is Gaussian, or has singular values ∝ 1/i, few large and most small: the harder case.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

import icm
from benchmarks.machine import DTYPES
from benchmarks.peers import newton_schulz
from benchmarks.timing import Timing, interleaved
from benchmarks.work import newton_schulz_flops

CURVATURES = {"kink": "0.5*r^2 + 10*kink(1)", "steep kink": "0.5*r^2 + 100*kink(1)", "quartic": "r^2 + r^4"}
CALLS = 10
DRIFT = 0.01  # of ‖G‖_F per call, in a fixed direction
BARS = {"bf16": 1.3, "fp16": 1.3, "fp32": 3.0}
TOLERANCES = {"bf16": 2e-2, "fp16": 1e-2, "fp32": 1e-5}
_SIZES = ((256, 256, 1), (256, 1024, 8), (1024, 1024, 1), (1024, 4096, 1))
_SIZES_GPU = (*_SIZES, (4096, 4096, 1), (1024, 1024, 64))

Row = dict[str, Any]


def run(
    quick: bool = False, device: str = "cpu", budget: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """{"rows", "bars", "missing"}; `quick`: 256 × 256 alone, few rounds."""
    gpu = device.startswith("cuda")
    rounds = 3 if quick else 9
    sizes = _SIZES[:1] if quick else _SIZES_GPU if gpu else _SIZES
    sizes = [size for size in sizes if most is None or newton_schulz_flops(*size) <= most]
    precisions = ("bf16", "fp16", "fp32") if gpu else ("bf16", "fp32")
    rows: list[Row] = []
    missing: dict[str, None] = {}
    for n in track((256,) if quick else (256, 1024), description="exact     "):
        rows += exact(n, rounds, device)
    cases = [(size, precision, name, False) for size in sizes for precision in precisions for name in CURVATURES]
    if not quick:
        cases += [((1024, 1024, 1), precision, name, True) for precision in precisions for name in CURVATURES]
    for (m, n, batch), precision, name, steep in track(cases, description="products  "):
        new, why = by_products(m, n, batch, precision, name, rounds, device, budget or (0.5 if quick else 6.0), steep)
        rows += new
        missing |= dict.fromkeys(why)
    if gpu:
        try:
            rows += batched_exact(rounds, device)
        except (ImportError, AttributeError) as error:
            missing[f"maps.exact: {error}"] = None
    return {"rows": rows, "bars": bars(rows), "missing": list(missing), "device": device}


def exact(n: int, rounds: int, device: str = "cpu") -> Iterator[Row]:
    """solve(G, H) / svd(G) and / eigh(GᵀG), n × n, float64."""
    G = gaussian(n, n, 1, device).double()
    runs: dict[str, Callable[[], Any]] = {
        "svd": lambda: torch.linalg.svd(G, full_matrices=False),
        "eigh": lambda: torch.linalg.eigh(G.mT @ G),
    }
    solves = ("r^3", *CURVATURES.values())
    runs |= {H: lambda H=H: icm.solve(G, H) for H in solves}
    times = interleaved(runs, rounds, device)
    for H in solves:
        for other in ("svd", "eigh"):
            yield row(f"solve / {other}", n, n, 1, "fp64", H, times[H], times[other])


def by_products(
    m: int,
    n: int,
    batch: int,
    precision: str,
    name: str,
    rounds: int,
    device: str = "cpu",
    budget: float = 6.0,
    steep: bool = False,
) -> tuple[list[Row], list[str]]:
    """solve(method="products") and Schedule against five Newton–Schulz steps, and who could not be run and why."""
    dtype, tol, H = DTYPES[precision], TOLERANCES[precision], CURVATURES[name]
    first, path = (gaussian(m, n, batch, device, seed) for seed in (0, 1))
    if steep:
        first, path = decaying(first), decaying(path)
        H_text = f"{H}, g ∝ 1/i"
    else:
        H_text = H
    stream = [(first + DRIFT * t * path).to(dtype) for t in range(CALLS)]

    def steps() -> list[Tensor]:
        return [newton_schulz(G, dtype) for G in stream]

    def once() -> Any:
        return icm.solve(stream[0], H, method="products", tol=tol, on_failure="return")  # pyright: ignore

    schedule = icm.maps.Schedule(H, refresh=CALLS, tol=tol, on_failure="return")

    def scheduled() -> list[Tensor]:
        return [schedule(G) for G in stream]

    runs: dict[str, Callable[[], Any]] = {"steps": steps}
    steps()
    errors: dict[str, tuple[float, float | None]] = {}
    missing = []
    with torch.no_grad():
        exact = icm.solve(stream[0].double(), H).Q
        last = icm.solve(stream[-1].double(), H).Q
        for what, run in (("products", once), ("schedule", scheduled)):
            try:
                found: Any = run()
            except (ImportError, AttributeError, TypeError, icm.errors.InputError, icm.errors.SolveError) as error:
                missing.append(f"{what}, {precision}, H = {H}: {str(error).splitlines()[0]}")
                continue
            runs[what] = run
            if what == "schedule":
                errors[what] = distance(found[0], exact), distance(found[-1], last)
            else:
                errors[what] = distance(found.Q, exact), None
        times = interleaved(runs, rounds, device, budget, lambda name, run: None)  # all have run by now
    single = Timing(tuple(t / CALLS for t in times["steps"].values))
    rows = []
    for what in errors:
        other = times["steps"] if what == "schedule" else single
        label = f"{what} / five steps"
        found = row(label, m, n, batch, precision, H_text, times[what], other, *errors[what], tol)
        rows.append(found | verdict(found, BARS[precision]) if what == "schedule" else found)
    return rows, missing


def batched_exact(rounds: int, device: str) -> Iterator[Row]:
    """exact(sign, G) / eigh(G Gᵀ), 64 × 1024 × 1024."""
    maps = importlib.import_module("icm.maps.decomposition")
    sign = importlib.import_module("icm.maps.scalar").sign()
    for precision in ("fp32", "fp64"):
        G = gaussian(1024, 1024, 64, device).to(DTYPES[precision])
        gram = G @ G.mT
        runs: dict[str, Callable[[], Any]] = {
            "eigh": lambda gram=gram: torch.linalg.eigh(gram),
            "exact": lambda G=G: maps.exact(sign, G),
        }
        times = interleaved(runs, rounds, device, budget=20.0)
        found = row("exact / batched eigh", 1024, 1024, 64, precision, "sign", times["exact"], times["eigh"])
        yield found | verdict(found, 1.1)


def row(
    what: str, m: int, n: int, batch: int, precision: str, H: str, mine: Timing, other: Timing,
    error: float | None = None, drifted: float | None = None, tol: float | None = None,
) -> Row:  # fmt: skip
    """The ratio mine / other, round by round, with its quartiles."""
    ratio = mine.over(other)
    return {
        **{"what": what, "m": m, "n": n, "batch": batch, "precision": precision, "H": H},
        **{"seconds": mine.median, "other": other.median, "ratio": ratio.median, "ratio_quartiles": ratio.quartiles},
        **{"rounds": len(ratio.values), "error": error, "drifted": drifted, "tol": tol},
    }


def verdict(found: Row, bar: float) -> Row:
    """{"bar", "ok"}: as fast as the bar, and as accurate as was asked for."""
    accurate = found["tol"] is None or found["error"] <= found["tol"]
    return {"bar": bar, "ok": found["ratio"] <= bar and accurate}


def bars(rows: list[Row]) -> list[Row]:
    """The rows with a bar, in few words."""
    return [
        {
            "what": f"{r['what']}, {r['batch']} × {r['m']} × {r['n']}, {r['precision']}, H = {r['H']}",
            "figure": r["ratio"],
            **{key: r[key] for key in ("bar", "ok", "error", "tol")},
        }
        for r in rows
        if "bar" in r
    ]


def gaussian(m: int, n: int, batch: int, device: str, seed: int = 0) -> Tensor:
    """float32, with √n ‖G‖_F = 3 for each matrix."""
    shape = (m, n) if batch == 1 else (batch, m, n)
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)
    return G * (3 / n**0.5 / torch.linalg.matrix_norm(G, keepdim=True))


def decaying(G: Tensor) -> Tensor:
    """U diag(c/i) Vᵀ of the same norm, with random U and V drawn from G."""
    m, n = G.shape[-2:]
    k = min(m, n)
    U, V = torch.linalg.qr(G[..., :k])[0], torch.linalg.qr(G.mT[..., :k])[0]
    made = (U / torch.arange(1, k + 1, device=G.device)) @ V.mT
    return made * (torch.linalg.matrix_norm(G, keepdim=True) / torch.linalg.matrix_norm(made, keepdim=True))


def distance(Q: Tensor, exact: Tensor) -> float:
    """The largest ‖Q − Q*‖_F / ‖Q*‖_F of a batch."""
    return float((torch.linalg.matrix_norm(Q.double() - exact) / torch.linalg.matrix_norm(exact)).max())
