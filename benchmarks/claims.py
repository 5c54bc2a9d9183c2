"""The verifier over a hundred seeds, 50 instances each: nothing true is refuted at any, every false claim at every one,
with an instance that refutes it again when read back. And the default run of `icm verify`, timed."""

from __future__ import annotations

import math
import os
from time import perf_counter
from typing import Any

from icm.theory import CLAIMS, Expected, Instances, Rigour, verify
from icm.theory.tally import Task, batch_size, tally
from icm.theory.verify import ENCLOSED
from icm.theory.workers import Workers
from tests.theory.mutants import MUTANTS

SEEDS, INSTANCES = 100, 50
SECONDS = 120.0  # for the default run on two cores


def seed_rows(seeds: int, workers: int) -> list[dict[str, Any]]:
    """One row per claim: at how many seeds it was refuted, and at how many it should have been."""
    every = {**CLAIMS, **MUTANTS}
    team = Workers(workers)
    try:
        jobs = [(name, seed) for seed in range(seeds) for name in every]
        found = dict(zip(jobs, team.run(one, jobs, math.inf), strict=True))
    finally:
        team.close()
    rows = []
    for name, claim in every.items():
        outcomes = [found[name, seed] for seed in range(seeds)]
        refuted, again = (sum(column) for column in zip(*outcomes, strict=True))
        should = 0 if claim.expected is Expected.HOLDS else seeds
        row = {"what": name, "expected": str(claim.expected), "seeds": seeds, "refuted": refuted, "again": again}
        rows.append({**row, "ok": refuted == again == should})
    return rows


def one(job: tuple[str, int], instances: int = INSTANCES) -> tuple[bool, bool]:
    """Whether a claim is refuted at a seed, and whether what refuted it does so again, read back from its text."""
    name, seed = job
    claim = CLAIMS.get(name) or MUTANTS[name]
    instances = claim.share(instances)
    size = batch_size(claim, instances)
    tallies = (tally(claim, Task(name, number, seed, size)) for number in range(-(-instances // size)))
    found = next((t.violation for t in tallies if t.violation is not None), None)
    if found is None:
        return False, False
    return True, claim.here(Instances.from_dict(found.instance.to_dict())).rigour is Rigour.REFUTED


def default_rows(workers: int) -> list[dict[str, Any]]:
    """The default run: a thousand instances of every claim in two minutes, and twenty enclosed with --rigorous."""
    start = perf_counter()
    plain = verify(workers=workers)
    seconds = perf_counter() - start
    tried = [r for r in plain.results if not r.skipped]
    fewest = min((r.met - r.open) * CLAIMS[r.claim].cost for r in tried)
    rigorous = verify(instances=INSTANCES, rigorous=True, proofs=False, workers=workers)
    enclosed = {
        r.claim: sum(e.instances for e in r.evidence if "in ball arithmetic" in e.note)
        for r in rigorous.results
        if CLAIMS[r.claim].enclosable
    }
    least = min(enclosed, key=lambda name: enclosed[name])
    return [
        {"what": "seconds of the default run", "figure": seconds, "ok": seconds <= SECONDS},
        {"what": "fewest instances decided of a claim, by what they cost", "figure": fewest, "ok": fewest >= 1000},
        {"what": "as expected", "figure": int(plain.as_expected and rigorous.as_expected), "ok": plain.as_expected},
        {"what": f"fewest enclosed ({least})", "figure": enclosed[least], "ok": enclosed[least] >= ENCLOSED},
    ]


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures worth keeping."""
    rows = found["seeds"]
    true, false = ([r for r in rows if (r["expected"] == "holds") is side] for side in (True, False))
    counts = {
        "seeds": rows[0]["seeds"],
        "true claims": len(true),
        "of them refuted at some seed": sum(r["refuted"] > 0 for r in true),
        "false claims": len(false),
        "of them not refuted at some seed": sum(r["again"] < r["seeds"] for r in false),
    }
    return {**counts, **{row["what"]: row["figure"] for row in found.get("verify", [])}}


def run(quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Both parts; `quick` takes three seeds and leaves the default run out."""
    workers = os.cpu_count() or 1
    seeds = seed_rows(3 if quick else SEEDS, workers)
    return {"seeds": seeds} if quick else {"seeds": seeds, "verify": default_rows(workers)}
