"""How exact `icm.sphere` is at kinks: tails P(r > c), E(r − c)₊ and its derivatives against 25 digits, n = 2 to 4096.

    python -m benchmarks.kinks [--quick] [--refresh] [--out FILE]

The radii c lie below, at, inside and above the range of r, on a singular value and beside one. The reference values
(benchmarks/hinge_reference.py) are kept in benchmarks/kink_cache, 20 digits each, under a hash of the singular values
and the dimension. `--refresh` computes them again, which takes a few minutes.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.exactness import bar, cache_key, write_json
from benchmarks.spectra import Values, rounded, spectra

DIMENSIONS = (2, 3, 4, 5, 8, 64, 1024, 4096)
DEVIATIONS = (-9.3, -3.0, -1.0, 0.0, 1.0, 3.0, 9.3)
QUANTITIES = ("tail", "value", "weights", "sum", "bend")
BEND = 1e-5  # w'(λ_i) steers Newton's steps and enters no certificate
CACHE = Path(__file__).parent / "kink_cache"
OUTPUT = Path(__file__).parent / "output" / "kinks.json"


@dataclass(frozen=True)
class KinkRecord:
    """The largest error of one quantity and its singular value's index; None if there is none."""

    n: int
    spectrum: str
    position: str
    radius: float
    quantity: str
    error: float | None
    index: int | None = None
    computed: float | None = None
    exact: str = ""
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the error exceeds the bar of its size, or could not be had."""
        return self.error is None or self.error > (BEND if self.quantity == "bend" else bar(self.n))


def positions(sigma: Values, dim: int) -> dict[str, float]:
    """The radii, by name, each once. A deviation w is where Chernoff's bound of its tail is e^{−w²/2}."""
    padded = np.concatenate([sigma, np.zeros(dim - len(sigma))])
    low, high = float(padded.min()), float(padded.max())
    inner = np.unique(padded[(padded > low) & (padded < high)])
    found = {"below": low / 2, "bottom −1e-9": low * (1 - 1e-9), "bottom +1e-9": low * (1 + 1e-9)}
    if low < high:
        inside = {f"deviation {w:+g}": float(rounded(np.array(deviation(padded, w)), 12)) for w in DEVIATIONS}
        found |= {name: c for name, c in inside.items() if low < c < high}
    if len(inner):
        value = float(inner[len(inner) // 2])
        found |= {"value −1e-8": value * (1 - 1e-8), "value": value, "value +1e-8": value * (1 + 1e-8)}
    found |= {"top −1e-9": high * (1 - 1e-9), "top +1e-9": high * (1 + 1e-9), "above": 1.5 * high}
    each = {c: name for name, c in reversed(found.items()) if c > 0}
    return {name: c for name, c in found.items() if each.get(c) == name}


def deviation(sigma: Values, w: float) -> float:
    """√u where I(u) = w²/2, above the mean of s for w > 0, below it for w < 0; σ holds all n values.

    With κ beyond the spectrum and g = 1/|λ − κ|: u = Σλg/Σg, I = ½ Σ log|λ−κ| + (n/2) log(Σg/n), which falls to 0 as
    κ moves away.
    """
    if w == 0:
        return float(np.sqrt((sigma**2).mean()))
    size = sigma.max()
    x, edge = sigma / size, float(sigma.max() if w > 0 else sigma.min()) / size
    away = np.abs((x - edge) * (x + edge))
    low, high = -700.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        distance = away + math.exp(middle)
        bound = np.log(distance).sum() / 2 + len(x) / 2 * math.log((1 / distance).mean())
        low, high = (middle, high) if bound > w * w / 2 else (low, middle)
    g = 1 / (away + math.exp(low))
    return float(size * np.sqrt(edge**2 - math.copysign(float(away @ g / g.sum()), w)))


def chosen_indices(sigma: Values) -> list[int]:
    """Up to eight positions: first, middle, last positive and last of all among them."""
    k, positive = len(sigma), int(np.count_nonzero(sigma))
    if k <= 8:
        return list(range(k))
    return sorted({0, 1, positive // 4, positive // 2, positive * 3 // 4, positive - 1, k - 1})


Exact = dict[str, list[Decimal]]


def reference(sigma: Values, dim: int, refresh: bool = False, folder: Path = CACHE) -> dict[str, tuple[float, Exact]]:
    """For each position the radius, and the exact tail, value, weights w_i, their sum Σ 2λ_i w_i, and bend w'(λ_i).

    weights and bend at `chosen_indices`; the sum, over all i, is E[r 1{r>c}] = value + c·tail.
    """
    path = folder / f"{cache_key(sigma, dim)}.json"
    indices, radii = chosen_indices(sigma), positions(sigma, dim)
    stored = json.loads(path.read_text()) if path.exists() and not refresh else {}
    known = stored.get("values", {}) if stored.get("indices") == indices else {}
    rows = {name: known[repr(c)] if repr(c) in known else computed(sigma, dim, c, indices) for name, c in radii.items()}
    values = {repr(c): rows[name] for name, c in radii.items()}
    if values != known:
        write_json(path, {"dim": dim, "count": len(sigma), "indices": indices, "values": values})
    k = len(indices)
    result = {}
    for name, c in radii.items():
        tail, value, *rest = [Decimal(text) for text in rows[name].split()]
        with localcontext(prec=40):
            total = value + Decimal(c) * tail
        exact = {"tail": [tail], "value": [value], "weights": rest[:k], "sum": [total], "bend": rest[k:]}
        result[name] = c, exact
    return result


def computed(sigma: Values, dim: int, radius: float, indices: list[int]) -> str:
    """Tail, value, weights and bend to 20 digits, in one line."""
    from benchmarks.hinge_reference import hinge_balls

    balls = hinge_balls(sigma, dim, radius, indices)
    numbers = [balls.tail, balls.value, *balls.weights, *balls.bend]
    return " ".join(v.str(20, radius=False) for v in numbers)


def compare(
    case: tuple[int, str, str, float],
    quantity: str,
    compute: Callable[[], list[float]],
    exact: list[Decimal],
    scales: list[Decimal],
    indices: list[int],
) -> KinkRecord:
    """The worst |computed − exact|/scale, among those whose scale is a normal float64 and whose exact value exists.

    Where the scale is 0 the computed value must be 0.
    """
    try:
        values = compute()
    except Exception as error:  # one case that fails must not hide the others
        return KinkRecord(*case, quantity, None, note=f"{type(error).__name__}: {error}")
    worst = KinkRecord(*case, quantity, 0.0, note="no exact value fits float64")
    for x, y, scale, i in zip(values, exact, scales, indices, strict=True):
        if y.is_nan() or 0 < scale < Decimal(sys.float_info.min) or scale > Decimal(sys.float_info.max):
            continue
        with localcontext(prec=40):
            if not math.isfinite(x) or (scale == 0 and x != 0):
                return KinkRecord(*case, quantity, None, i, None, str(y), f"computed {x}")
            error = float(abs(Decimal(x) - y) / scale) if scale else 0.0
        if worst.note or error > (worst.error or 0.0):
            worst = KinkRecord(*case, quantity, error, i, x, str(y))
    return worst


def records(n: int, refresh: bool = False) -> Iterator[KinkRecord]:
    """Every spectrum and radius in dimension n.

    Errors are relative; that of w'(λ_i) is relative to |w'| + w_i/λ_i, as it acts through w_i + 2λ_i w'.
    """
    import torch

    import icm
    from icm.curvature import Kink

    for name, sigma in spectra(n).items():
        indices, values, size = chosen_indices(sigma), torch.tensor(sigma, dtype=torch.float64), float(sigma.max())
        squares = [Decimal(float(x)) ** 2 for x in sigma[indices]]
        for position, (radius, exact) in reference(sigma, n, refresh).items():
            H = Kink(radius, 1.0)
            whole = [abs(v) for v in exact["weights"]]
            relative = [w / x if x else Decimal("inf") for w, x in zip(whole, squares, strict=True)]
            scales = exact | {"bend": [abs(b) + r for b, r in zip(exact["bend"], relative, strict=True)]}

            @cache
            def expectation(H=H, values=values) -> "icm.sphere.Expectation":
                return icm.sphere.expect(H, values, n)

            def tail(values=values, radius=radius) -> list[float]:
                return [float(icm.sphere.tail(values, n, radius))]

            ways: dict[str, Callable[[], list[float]]] = {
                "tail": tail,
                "value": lambda e=expectation: [float(e().value)],
                "weights": lambda e=expectation, s=size, i=indices: (e().weight[i] / s).tolist(),
                "sum": lambda e=expectation, v=values: [float(e().slopes @ v)],
                "bend": lambda e=expectation, s=size, i=indices: (e().bend[i] / s / s / s).tolist(),
            }
            for quantity in QUANTITIES:
                places = indices if quantity in ("weights", "bend") else [-1]
                case = (n, name, position, radius)
                yield compare(case, quantity, ways[quantity], exact[quantity], scales[quantity], places)


def table(n: int, found: list[KinkRecord]) -> Table:
    """One line per position: the worst error of each quantity, and the spectrum of the worst of all."""
    result = Table("radius", *QUANTITIES, "spectrum", title=f"n = {n}: worst relative error at kinks")
    for position in dict.fromkeys(r.position for r in found):
        here = [r for r in found if r.position == position]
        cells = [position]
        for quantity in QUANTITIES:
            worst = max((r for r in here if r.quantity == quantity), key=_severity)
            text = "failed" if worst.error is None else f"{worst.error:.1e}"
            cells.append(f"[red]{text}[/red]" if worst.missed else text)
        result.add_row(*cells, max(here, key=_severity).spectrum)
    return result


def _severity(found: KinkRecord) -> float:
    """The error, inf where there is none."""
    return math.inf if found.error is None else found.error


def main(out: Path, quick: bool, refresh: bool = False) -> int:
    """Compare, print, write every record to the JSON file `out`; 1 if some error exceeds its bar, else 0.

    `quick` stops at n = 64.
    """
    console = Console()
    everything: list[KinkRecord] = []
    for n in DIMENSIONS:
        if n > 64 and quick:
            break
        found = list(records(n, refresh))
        console.print(table(n, found))
        everything += found
    write_json(out, [asdict(r) for r in everything])
    missed = [r for r in everything if r.missed]
    if missed:
        worst = max(missed, key=_severity)
        where = f"n = {worst.n}, {worst.spectrum}, radius {worst.radius!r} ({worst.position}), {worst.quantity}"
        console.print(f"[red]{len(missed)} of {len(everything)} exceed the bar, worst at {where}[/red] {worst.note}")
        return 1
    console.print(f"all {len(everything)} within 1e-12 relative (5e-12 at n = 4096)")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="icm.sphere at kinks against the 25-digit reference")
    parser.add_argument("--out", type=Path, default=OUTPUT)
    parser.add_argument("--quick", action="store_true", help="n up to 64")
    parser.add_argument("--refresh", action="store_true", help="compute the reference again")
    options = parser.parse_args()
    sys.exit(main(options.out, options.quick, options.refresh))
