"""How exact `icm.sphere` is: E‖Qζ‖^p and its slopes against the 50-digit reference, sizes 1 to 4096.

    python -m benchmarks.exactness [--quick] [--refresh] [--out FILE]

The reference values (benchmarks/reference.py) are kept in benchmarks/reference_cache, 25 digits each, under a
hash of the singular values and the dimension. `--refresh` computes them again, which takes a minute or two.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.spectra import Values, spectra

DIMENSIONS = (1, 2, 3, 8, 64, 1024, 4096)
EXPONENTS = (1.0, 1.5, 2.0, 2.001, 2.39, 2.5, 3.0, math.e, 3.9, 3.999, 4.0, 6.0, 10.5)
CACHE = Path(__file__).parent / "reference_cache"
OUTPUT = Path(__file__).parent / "output" / "exactness.json"


@dataclass(frozen=True)
class Record:
    """The largest relative error of one quantity and its singular value's index; None if there is none."""

    n: int
    spectrum: str
    p: float
    quantity: str
    error: float | None
    index: int | None
    computed: float | None
    exact: str
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the error exceeds the bar of its size, or could not be had."""
        return self.error is None or self.error > bar(self.n)


def bar(n: int) -> float:
    """The relative error allowed in dimension n."""
    return 1e-12 if n < 4096 else 5e-12


def chosen_indices(sigma: Values) -> list[int]:
    """Positions of positive singular values: all up to 64, else first, middle, last and eight more."""
    count = int(np.count_nonzero(sigma))
    if count <= 64:
        return list(range(count))
    golden = (math.sqrt(5) - 1) / 2
    return sorted({0, count // 2, count - 1, *(int(count * (j * golden % 1)) for j in range(1, 9))})


def reference_rows(
    sigma: Values, dim: int, exponents: Sequence[float], refresh: bool = False, cache: Path = CACHE
) -> dict[float, list[Decimal]]:
    """For each p the exact [E‖Qζ‖^p, ∂/∂σ_i E‖Qζ‖^p for the chosen indices], cached."""
    path = cache / f"{cache_key(sigma, dim)}.json"
    indices = chosen_indices(sigma)
    stored = json.loads(path.read_text()) if path.exists() and not refresh else {}
    values: dict[str, list[str]] = stored.get("values", {}) if stored.get("indices") == indices else {}
    missing = [p for p in exponents if repr(p) not in values]
    if missing:
        from benchmarks.reference import power_table

        rows = power_table(sigma, dim, missing, indices=indices)
        values |= {repr(p): [v.str(25, radius=False) for v in row] for p, row in zip(missing, rows, strict=True)}
        ordered = {key: values[key] for key in sorted(values, key=float)}
        write_json(path, {"dim": dim, "count": len(sigma), "indices": indices, "values": ordered})
    return {p: [Decimal(text) for text in values[repr(p)]] for p in exponents}


def cache_key(sigma: Values, dim: int) -> str:
    """A hash of n and the bytes of σ."""
    content = f"sphere powers, n = {dim}\n".encode() + np.asarray(sigma, dtype="<f8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def write_json(path: Path, content: object) -> None:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def relative_error(computed: float, exact: Decimal) -> float:
    """|computed − exact|/exact, inf where computed is not finite."""
    if not math.isfinite(computed):
        return math.inf
    with localcontext() as context:
        context.prec = 60
        return float(abs(Decimal(computed) - exact) / exact)


def record(
    case: tuple[int, str, float],
    quantity: str,
    compute: Callable[[], list[float]],
    exact: list[Decimal],
    indices: Sequence[int | None],
) -> Record:
    """The worst of the values that `compute` returns, among those whose exact value is a normal float64."""
    n, spectrum, p = case
    try:
        computed = compute()
    except Exception as error:  # one case that fails must not hide the others
        return Record(n, spectrum, p, quantity, None, None, None, "", f"{type(error).__name__}: {error}")
    normal = (Decimal(sys.float_info.min), Decimal(sys.float_info.max))
    errors = [
        (relative_error(x, y), i, x, y)
        for x, y, i in zip(computed, exact, indices, strict=True)
        if normal[0] <= y <= normal[1]
    ]
    if not errors:
        return Record(n, spectrum, p, quantity, 0.0, None, None, "", "no exact value fits float64")
    error, index, x, y = max(errors, key=lambda item: item[0])
    if not math.isfinite(error):
        return Record(n, spectrum, p, quantity, None, index, None, str(y), f"computed {x}")
    return Record(n, spectrum, p, quantity, error, index, x, str(y))


def records(n: int, refresh: bool = False) -> Iterator[Record]:
    """Every exponent and spectrum in dimension n, the mean and the slopes of each."""
    import torch

    import icm

    for name, sigma in spectra(n).items():
        indices = chosen_indices(sigma)
        values = torch.tensor(sigma, dtype=torch.float64)
        for p, exact in reference_rows(sigma, n, EXPONENTS, refresh).items():
            H = icm.Power(p)

            def mean(H=H, values=values) -> list[float]:
                return [float(icm.sphere.mean(H, values, n))]

            def slopes(H=H, values=values, indices=indices) -> list[float]:
                return icm.sphere.slopes(H, values, n)[indices].tolist()

            yield record((n, name, p), "mean", mean, exact[:1], [None])
            yield record((n, name, p), "slopes", slopes, exact[1:], indices)


def table(n: int, found: list[Record]) -> Table:
    """One line per spectrum: the worst mean and the worst slope, and where."""
    result = Table("spectrum", "mean", "at p", "slopes", "at p", "at i", title=f"n = {n}: worst relative error")
    for name in dict.fromkeys(r.spectrum for r in found):
        cells = [name]
        for quantity in ("mean", "slopes"):
            worst = max((r for r in found if (r.spectrum, r.quantity) == (name, quantity)), key=severity)
            text = worst.note if worst.error is None else f"{worst.error:.1e}"
            cells += [f"[red]{text}[/red]" if worst.missed else text, f"{worst.p:.5g}"]
        result.add_row(*cells, "" if worst.index is None else str(worst.index))
    return result


def severity(found: Record) -> float:
    """The error, inf where there is none."""
    return math.inf if found.error is None else found.error


def main(out: Path, quick: bool, refresh: bool = False) -> int:
    """Compare, print, write every record to the JSON file `out`; 1 if some error exceeds its bar, else 0.

    `quick` stops at n = 64.
    """
    console = Console()
    everything: list[Record] = []
    for n in DIMENSIONS:
        if n > 64 and quick:
            break
        found = list(records(n, refresh))
        console.print(table(n, found))
        everything += found
    write_json(out, [asdict(r) for r in everything])
    missed = [r for r in everything if r.missed]
    if missed:
        worst = max(missed, key=severity)
        where = f"n = {worst.n}, {worst.spectrum}, p = {worst.p:.5g}, {worst.quantity}"
        console.print(f"[red]{len(missed)} of {len(everything)} exceed the bar, worst at {where}[/red]")
        return 1
    console.print(f"all {len(everything)} within 1e-12 relative (5e-12 at n = 4096)")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="icm.sphere against the 50-digit reference")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--quick", action="store_true", help="n up to 64")
    parser.add_argument("--refresh", action="store_true", help="compute the reference again")
    options = parser.parse_args()
    sys.exit(main(options.out, options.quick, options.refresh))
