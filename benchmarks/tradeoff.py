"""What monotonicity costs: lower end, degree, steps, products and error of the best polar compositions, certified.

    python -m benchmarks.tradeoff [--quick] [--out FOLDER]

Every row is a composition of factors of one degree, the best for [lower, 1], increasing or not, with its certificate.
Products: per factor of degree 3, 5, 7 and 9 applied directly 2, 3, 4 and 4 (A = XXᵀ, its powers, and one by X).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from icm.maps.certificate import Certificate, certify
from icm.maps.greedy import best_error, best_polar, steps_needed
from icm.maps.increasing import gain_at_zero, reach
from icm.maps.iterations import NAMES, known
from icm.maps.scalar import sign
from icm.tables import console, finite, plain_table, progress_bar

PRODUCTS = {3: 2, 5: 3, 7: 4, 9: 4}
LOWERS = (1e-1, 1.2e-2, 1e-2, 1e-3, 1e-4)
ERRORS = (0.2, 0.05, 1e-2, 1e-3)
GOAL = 0.05  # of the figures in the bars
OUTPUT = Path(__file__).parent / "output"

Row = dict[str, Any]
Progress = Callable[[int, int, str], None]


def curve(quick: bool, progress: Progress = lambda done, total, what: None) -> list[Row]:
    """For every lower end, degree and error the fewest factors that reach it, increasing or not, with certificates."""
    lowers, errors = ((1e-2, 1e-3), (GOAL,)) if quick else (LOWERS, ERRORS)
    wanted = [(low, d, e, m) for low in lowers for e in errors for d in PRODUCTS for m in (True, False)]
    rows = []
    for done, (lower, degree, error, monotone) in enumerate(wanted):
        progress(done, len(wanted), f"degree {degree} from {lower:g} to {error:g}")
        rows.append(best_row(lower, degree, error, monotone))
    return rows


def best_row(lower: float, degree: int, error: float, monotone: bool) -> Row:
    """The composition with the fewest factors, certified."""
    steps = steps_needed(lower, error, degree, monotone)
    best = best_error(lower, (degree,) * steps, monotone)
    certificate = certify(best_polar(lower, (degree,) * steps, monotone, margin=0), sign(), lower)
    safe = certify(best_polar(lower, (degree,) * steps, monotone), sign(), lower)
    row = {"lower": lower, "wanted": error, "degree": degree, "increasing": monotone, "steps": steps}
    row |= {"products": steps * PRODUCTS[degree], "best": best, **figures(certificate)}
    row |= {"error with margin": safe.error[1], "largest up to 1.01 with margin": safe.range_beyond[1]}
    holds = certificate.error[0] * (1 - 1e-9) <= best <= certificate.error[1]
    # The optimum itself may be too wild at 1 for a bound, with errors of 1e-9; that with a margin proves the same then.
    proved = min(certificate.error[1], safe.error[1]) <= error * (1 + 1e-3)
    return {**row, "ok": holds and proved and certificate.increasing is safe.increasing is monotone}


def figures(certificate: Certificate) -> Row:
    """What of a certificate is worth a column; proved."""
    return {
        "error": certificate.error[1],
        "error at least": certificate.error[0],
        "increases": certificate.increasing,
        "smallest slope": certificate.smallest_slope[0],
        "largest fall": certificate.largest_fall[1],
        "falls in all": certificate.total_descent[1],
        "slope at 0": certificate.slope_at_zero[0],
        "short below": certificate.short_below,
    }


def published() -> list[Row]:
    """The known iterations under the same certificate, from 1e−3 and from 1e−2."""
    rows = []
    for name in NAMES:
        p = known(name)
        products = sum(PRODUCTS[d] for d in p.degrees)
        for lower in (1e-2, 1e-3):
            certificate = certify(p, sign(), lower)
            rows.append({"name": name, "lower": lower, "steps": len(p), "products": products, **figures(certificate)})
    return rows


def bars() -> list[Row]:
    """The statements of the project's plan."""
    lowers = torch.logspace(-9, 0, 181, dtype=torch.float64).tolist()
    gain = max(reach(lower, 5) / lower for lower in lowers)
    steps = steps_needed(1e-3, GOAL, 5, True)
    eight = best_error(1e-3, (5,) * 8, True)
    low = lowest(6)
    rows = [
        ("largest gain of an increasing quintic at any lower end", gain, 2.25, gain <= 2.25 * (1 + 1e-12)),
        ("its limit at 0", gain_at_zero(5), 2.25, abs(gain_at_zero(5) - 2.25) < 1e-12),
        ("increasing quintics from 1e-3 to .05", steps, 9, steps == 9),
        ("error of 8 of them at least", eight, GOAL, eight > GOAL),
        ("lower end that 6 of them reach to .05", low, 1.2e-2, 1.05e-2 <= low <= 1.25e-2),
        ("any quintics from 1e-3 to .05", (any_ := steps_needed(1e-3, GOAL, 5, False)), 6, any_ == 6),
    ]
    return [{"what": what, "figure": figure, "stated": stated, "ok": bool(ok)} for what, figure, stated, ok in rows]


def lowest(steps: int, monotone: bool = True, error: float = GOAL, degree: int = 5) -> float:
    """The smallest lower end from which so many factors come within the error, by bisection."""
    low, high = 1e-9, 0.99
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if best_error(middle, (degree,) * steps, monotone) <= error else (middle, high)
    return high


def cheapest(rows: list[Row]) -> list[Row]:
    """For every lower end and error the degree with the fewest products, increasing and not, the price of it, and what
    factors of different degrees could do."""
    found = []
    for lower, wanted in dict.fromkeys((r["lower"], r["wanted"]) for r in rows):
        of = [r for r in rows if (r["lower"], r["wanted"]) == (lower, wanted)]
        up, free = (min((r for r in of if r["increasing"] is m), key=lambda r: r["products"]) for m in (True, False))
        found.append(
            {
                "lower": lower,
                "wanted": wanted,
                "increasing: degree": up["degree"],
                "increasing: products": up["products"],
                "any: degree": free["degree"],
                "any: products": free["products"],
                "price": up["products"] / max(free["products"], 1),
            }
        )
        for name, monotone in (("increasing", True), ("any", False)):
            products, degrees = mixed(lower, wanted, monotone)
            found[-1][f"{name}, mixed: products"] = products
            found[-1][f"{name}, mixed: degrees"] = " ".join(map(str, degrees))
    return found


def mixed(lower: float, error: float, monotone: bool, most: int = 60) -> tuple[int, tuple[int, ...]]:
    """(products, degrees): the fewest products with factors of any degrees, in any order, that come within the error.

    Exact: what a factor leaves depends only on the ratio of the ends of its range, and more is never worse, so the best
    for each number of products goes on from the best for fewer.
    """
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (lower, ())}  # products: low/high, and how
    for products in range(1, most + 1):
        found = []
        for degree, price in PRODUCTS.items():
            if (before := best.get(products - price)) is not None:
                left = best_error(before[0], (degree,), monotone)
                found.append(((1 - left) / (1 + left), (*before[1], degree)))
        if found:
            best[products] = max(found)
            left = best[products][0]
            if (1 - left) / (1 + left) <= error:
                return products, best[products][1]
    raise ValueError(f"{error} is not reached from {lower} by {most} products")


def run(quick: bool) -> dict[str, list[Row]]:
    """All rows of the study: the curve, the cheapest of it, the published iterations, and the bars."""
    with progress_bar() as progress:
        rows = curve(quick, progress)
    return {"curve": rows, "cheapest": cheapest(rows), "published": published(), "bars": bars()}


def markdown(found: dict[str, list[Row]]) -> str:
    """The tables of a run."""
    titles = {
        "bars": "Statements checked",
        "cheapest": "Fewest products",
        "curve": "Best compositions, certified",
        "published": "Published iterations, certified",
    }
    parts = []
    for part, title in titles.items():
        names = [name for name in found[part][0] if name != "ok" or part == "bars"]
        lines = [f"## {title}", "", "| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        lines += ["| " + " | ".join(text(row[name]) for name in names) + " |" for row in found[part]]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def text(value: Any) -> str:
    """A cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(folder: Path, quick: bool) -> int:
    """Runs the study, writes tradeoff.json and tradeoff.md, prints what matters; 1 if a bar is missed."""
    found = run(quick)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {part: [finite(row) for row in rows] for part, rows in found.items()}
    (folder / "tradeoff.json").write_text(json.dumps(plain, indent=1) + "\n")
    (folder / "tradeoff.md").write_text(markdown(found))
    missed = [row for part in ("curve", "bars") for row in found[part] if not row["ok"]]
    screen = console()
    for part in ("bars", "cheapest"):
        table = plain_table(part, "")
        for name in found[part][0]:
            table.add_column(name, justify="right")
        for row in found[part]:
            table.add_row(*(text(v) for v in row.values()))
        screen.print(table)
    screen.print(f"{len(found['curve'])} compositions certified, {len(missed)} rows miss their bar; {folder}")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two lower ends and one error")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder for tradeoff.json and tradeoff.md")
    options = parser.parse_args()
    sys.exit(main(options.out, options.quick))
