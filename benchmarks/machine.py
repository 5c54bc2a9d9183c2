"""The machine that figures were taken on: its description, and what it reaches at best, measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import clock, synchronise

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "architecture": platform.machine(),
        "cpu": _processor(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@dataclass(frozen=True)
class Limits:
    """The best of several tries: operations per second of a square product by precision, and bytes per second that a
    copy reads and writes."""

    flops: dict[str, float]
    bandwidth: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def limits(device: str = "cpu", quick: bool = False) -> Limits:
    """Measured on `device`, in seconds: the products of 2048² on a CPU and 8192² on a GPU, a copy of 256 MB or 2 GB.

    fp16 is measured on a GPU only: CPUs emulate it, slower by orders of magnitude.
    """
    gpu = device.startswith("cuda")
    n = 512 if quick else 8192 if gpu else 2048
    flops = {}
    for precision, dtype in DTYPES.items():
        if gpu or precision != "fp16":
            A = torch.randn(n, n, device=device).to(dtype)
            out = torch.empty_like(A)
            flops[precision] = 2 * n**3 / _best(lambda A=A, out=out: torch.mm(A, A, out=out), device)
    source = torch.ones((8 if quick else 512 if gpu else 64) << 20, device=device)
    target = torch.empty_like(source)
    return Limits(flops, 2 * source.numel() * source.element_size() / _best(lambda: target.copy_(source), device))


def _best(run: Callable[[], Any], device: str, seconds: float = 0.5) -> float:
    """The shortest time of a call among those that fit into `seconds`, three at least."""
    run()
    now = clock(device)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        synchronise(device)
        start = now()
        run()
        synchronise(device)
        times.append(now() - start)
    return min(times)


def _processor() -> str:
    """The processor's name for itself, as far as the system tells."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
