"""`python -m proofs_check [NAME ...] [--json] [--list]`: exit 0 if all pass, 1 if one fails, 2 for unknown names."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from proofs_check import PROOFS, ProofOutcome, check


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the proofs named, or all, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m proofs_check", description="Check the proofs of icm's theorems.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="proofs to check; all if none is named")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--list", action="store_true", help="name the proofs and check nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in PROOFS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}\nknown: {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    names = list(dict.fromkeys(options.names)) or list(PROOFS)
    if options.list:
        _list(names, options.json)
        return 0
    results = _print_json(names) if options.json else _print_trees(names)
    return 1 if any(result.failed for result in results) else 0


def _list(names: Sequence[str], as_json: bool) -> None:
    from proofs_check.report import console, listing

    if as_json:
        print(json.dumps([{"name": name, "statement": PROOFS[name].statement} for name in names], ensure_ascii=False))
    else:
        console().print(listing([PROOFS[name] for name in names]))


def _print_json(names: Sequence[str]) -> list[ProofOutcome]:
    known: dict[str, ProofOutcome] = {}
    results = [check(name, known) for name in names]
    print(json.dumps([result.to_dict() for result in results], ensure_ascii=False, indent=1))
    return results


def _print_trees(names: Sequence[str]) -> list[ProofOutcome]:
    from proofs_check.report import console, summary, tree

    screen, results = console(), []
    known: dict[str, ProofOutcome] = {}
    for name in names:
        results.append(check(name, known))
        screen.print(tree(results[-1]))
    screen.print(summary(results), markup=False)
    return results


if __name__ == "__main__":
    raise SystemExit(main())
