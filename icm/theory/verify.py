"""`verify`: claims tried on instances, in rounds, until each has met enough of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from time import perf_counter

from icm.errors import InputError
from icm.rigour import Rigour
from icm.theory.claim import Claim
from icm.theory.evidence import SKIPPED, Evidence, Result, Witness
from icm.theory.proofs import Proven, prove
from icm.theory.report import Report
from icm.theory.shrink import shrink
from icm.theory.tally import Tally, Task, badness, batch_size, tally
from icm.theory.workers import Workers, one_thread

Progress = Callable[[int, int, str], None]

ENCLOSED = 20  # instances per claim that a rigorous run encloses
_MOST = 4  # times the instances asked for are drawn at most, to meet the hypotheses that often
_ROUNDS = 10
_RIGOROUS_BATCHES = 16


def verify(
    claims: Sequence[str | Claim] | str | Claim | None = None,
    instances: int = 1000,
    seed: int = 0,
    *,
    rigorous: bool = False,
    proofs: bool = True,
    budget: float | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Every claim (all of `icm.theory.CLAIMS` by default, or some by name, or one's own) against `instances` instances
    that meet its hypotheses, drawn from `seed`; with `rigorous`, 20 more each in ball arithmetic, and with `proofs`
    the proof, checked step by step, where there is one. A claim about training runs takes a share of them, one that
    needs a package which is not installed none: its result says `skipped`.

    After `budget` seconds no batch is begun, but those that processes already hold are finished. `workers` > 1 are
    processes, for claims of the library only (call it under `if __name__ == "__main__":`); with torch.distributed
    initialised the work is shared by all ranks. The report is the same on every rank and for any number of them, the
    seconds in it and a budget's effect apart. progress(done, total, what) is told of each step.

    Raises InputError for an unknown claim or a count that cannot be.
    """
    selected = chosen(claims)
    for name, count, least in (("instances", instances, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise InputError(f"{name}={count!r}: give an integer of at least {least}")
    if budget is not None and not budget > 0:
        raise InputError(f"budget={budget!r}: give a number of seconds > 0, or None for no limit")
    registered = all(_registry().get(claim.name) is claim for claim in selected)
    team = Workers(workers if registered else 1)
    run = _Run(selected, instances, seed, math.inf if budget is None else perf_counter() + budget, team, progress)
    try:
        run.rounds()
        if rigorous:
            run.rigorous_rounds()
        proven = run.proofs() if proofs else {}
        results = tuple(
            _skipped(claim) if claim.missing else _result(claim, run, proven.get(claim.name)) for claim in selected
        )
    finally:
        team.close()
    return Report(results, {c.name: c for c in selected}, seed, instances, rigorous)


def _registry() -> dict[str, Claim]:
    from icm.theory.claims import CLAIMS

    return CLAIMS


def chosen(claims: Sequence[str | Claim] | str | Claim | None) -> list[Claim]:
    """The claims of these names, or all. Raises InputError for a name that none has, with those nearest to it."""
    registry = _registry()
    if claims is None:
        return list(registry.values())
    listed = [claims] if isinstance(claims, str | Claim) else list(claims)
    for claim in listed:
        if isinstance(claim, str) and claim not in registry:
            near = difflib.get_close_matches(claim, registry, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose among {', '.join(registry)}"
            raise InputError(f"no claim is named {claim!r}: {hint}")
    found = [registry[claim] if isinstance(claim, str) else claim for claim in listed]
    names = [claim.name for claim in found]
    if len(set(names)) < len(names):
        raise InputError(f"a claim is named twice among {', '.join(names)}: give each a name of its own")
    return found


class _Run:
    """One run: the tallies so far, by claim, and what is left to do."""

    def __init__(
        self, claims: list[Claim], instances: int, seed: int, deadline: float, team: Workers, progress: Progress | None
    ):
        self.claims = {claim.name: claim for claim in claims if not claim.missing}
        self.instances, self.seed, self.deadline, self.team = instances, seed, deadline, team
        self.progress = progress or (lambda done, total, what: None)
        self.tallies: dict[str, list[Tally]] = {name: [] for name in self.claims}
        self.enclosed: dict[str, list[Tally]] = {name: [] for name in self.claims}

    def rounds(self) -> None:
        """Batches until every claim is decided on enough instances that meet its hypotheses, or tried too often."""
        begun = dict.fromkeys(self.claims, 0)
        for _ in range(_ROUNDS):
            tasks = []
            for name, claim in self.claims.items():
                tried = sum(t.tried for t in self.tallies[name])
                met = sum(t.met - t.open for t in self.tallies[name])
                wanted = claim.share(self.instances)
                left = min(wanted - met, _MOST * wanted - tried)
                if left > 0:
                    size = batch_size(claim, wanted)
                    count = math.ceil(1.1 * left * (tried / met if met else 1.0) / size)
                    count = min(count, max(1, (_MOST * wanted - tried) // size))
                    tasks += [Task(name, begun[name] + i, self.seed, size) for i in range(count)]
                    begun[name] += count
            if not self._carry_out(tasks, self.tallies):
                return

    def rigorous_rounds(self) -> None:
        """A few instances of each claim in ball arithmetic."""
        names = [name for name, claim in self.claims.items() if claim.enclosable]
        for start in range(0, 4 * _RIGOROUS_BATCHES, _RIGOROUS_BATCHES):
            behind = [n for n in names if sum(t.met - t.open for t in self.enclosed[n]) < ENCLOSED]
            tasks = [
                Task(name, start + i, self.seed, batch_size(self.claims[name], self.instances), rigorous=True)
                for name in behind
                for i in range(_RIGOROUS_BATCHES)
            ]
            if not self._carry_out(tasks, self.enclosed):
                return

    def proofs(self) -> dict[str, Proven]:
        """The proofs of the claims that have one, checked."""
        names = [claim.proof for claim in self.claims.values() if claim.proof is not None]
        found = self.team.run(prove, names, self.deadline, lambda p, i, n: self.progress(i, n, f"proof: {p.name}"))
        by_name = {proven.name: proven for proven in self.team.gather(found)}
        return {c.name: by_name[c.proof] for c in self.claims.values() if c.proof is not None and c.proof in by_name}

    def _carry_out(self, tasks: list[Task], into: dict[str, list[Tally]]) -> bool:
        """The tasks, first batches first, so that a budget serves all claims alike; False once it is spent."""
        if not tasks:
            return False
        tasks.sort(key=lambda task: task.number)
        function = _one if self.team.pool is not None else lambda task: tally(self.claims[task.claim], task)
        done = self.team.run(function, tasks, self.deadline, lambda t, i, n: self.progress(i, n, t.task.claim))
        everything = self.team.gather(done)
        for found in sorted(everything, key=lambda t: t.task.number):
            into[found.task.claim].append(found)
        return len(everything) == len(tasks)


def _one(task: Task) -> Tally:
    """A task of a registered claim, in a process of its own."""
    return tally(_registry()[task.claim], task)


def _skipped(claim: Claim) -> Result:
    """The result of a claim that cannot be tried here."""
    why = Evidence(Rigour.INCONCLUSIVE, SKIPPED, note=claim.missing)
    return Result(claim.name, Rigour.INCONCLUSIVE, claim.expected, (why,), met=0, tried=0, open=0)


def _result(claim: Claim, run: _Run, proven: Proven | None) -> Result:
    """What the tallies of a claim and its proof add up to."""
    tallies, enclosed = run.tallies[claim.name], [t for t in run.enclosed[claim.name] if t.tried]
    witness = _witness(claim, [*tallies, *enclosed], run)
    tried = _summary(claim, tallies, "", witness)
    evidence = [tried, *([_summary(claim, enclosed, "in ball arithmetic", witness)] if enclosed else [])]
    if proven is not None:
        evidence.insert(0, proven.evidence())
    if witness is not None:
        found = Evidence(Rigour.REFUTED, "this instance", 1, witness.margin, witness.error, note=str(witness))
        evidence.insert(0, found)
    told = {e.rigour for e in evidence}
    grade = next((rigour for rigour in (Rigour.REFUTED, Rigour.PROVED) if rigour in told), tried.rigour)
    if not any(t.met for t in tallies):  # a proof of what no instance is about
        grade = Rigour.INCONCLUSIVE
    missed: dict[str, int] = {}
    for found in tallies:
        for name, count in found.missed.items():
            missed[name] = missed.get(name, 0) + count
    return Result(
        claim=claim.name,
        grade=grade,
        expected=claim.expected,
        evidence=tuple(evidence),
        met=sum(t.met for t in tallies),
        tried=sum(t.tried for t in tallies),
        open=sum(t.open for t in tallies),
        missed=missed,
        witness=witness,
        seconds=sum(t.seconds for t in [*tallies, *enclosed]) + (0.0 if proven is None else proven.seconds),
    )


def _summary(claim: Claim, tallies: list[Tally], note: str, witness: Witness | None) -> Evidence:
    """One piece of evidence out of many batches."""
    decided = [t for t in tallies if t.met > t.open]
    count = sum(t.met - t.open for t in decided)
    if not count:
        tried, met = sum(t.tried for t in tallies), sum(t.met for t in tallies)
        why = "no instance was tried" if not tried else f"none of {tried} instances meets the hypotheses"
        why = f"no margin of {met} instances is known well enough" if met else why
        return Evidence(Rigour.INCONCLUSIVE, "no instance", note=why)
    worst = max(decided, key=lambda t: badness(claim, t))
    lost = sum(t.open for t in tallies)
    rigour = min(t.rigour for t in decided)
    if lost > count:
        rigour, note = Rigour.INCONCLUSIVE, f"only {count} of {count + lost} margins are known well enough"
    if against := sum(t.violation is not None for t in decided):
        rigour = Rigour.INCONCLUSIVE if witness is None else Rigour.REFUTED
        note = f"{against} of {len(decided)} batches violate it{', ' + note if note else ''}"
        note += ", none of them by an instance alone" if witness is None else ""
    scope = f"these {count} instances" if count > 1 else "this instance"
    ties = sum(t.ties for t in decided)
    return Evidence(rigour, scope, count, worst.margin, worst.error, ties, note)


def _witness(claim: Claim, tallies: list[Tally], run: _Run) -> Witness | None:
    """The worst violation, made smaller."""
    found = [t.violation for t in tallies if t.violation is not None]
    if not found:
        return None
    with one_thread():
        return shrink(claim, found, run.seed, run.deadline)
