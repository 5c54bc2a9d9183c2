"""`search` for a counterexample to a claim, and `replay` of one that was found."""

from __future__ import annotations

import json
from pathlib import Path

from icm.errors import FileError, InputError
from icm.rigour import Rigour
from icm.theory.claim import Claim
from icm.theory.evidence import Evidence, Result, Witness
from icm.theory.verify import Progress, verify


def search(
    claim: str | Claim,
    instances: int = 2000,
    seed: int = 0,
    *,
    budget: float | None = 60.0,
    progress: Progress | None = None,
) -> Result:
    """Look for an instance that meets the claim's hypotheses and violates it: the smallest one found is the result's
    `witness`, None if there is none among `instances` instances, or within `budget` seconds."""
    report = verify([claim], instances, seed, proofs=False, budget=budget, progress=progress)
    return report.results[0]


def replay(witness: Witness | str | Path, claim: Claim | None = None) -> Evidence:
    """The claim on its witness again, a Witness or the file of one; `claim` is needed if it is one's own.

    Raises FileError for a file that holds no witness, InputError for a claim that is not known here.
    """
    if not isinstance(witness, Witness):
        path = Path(witness)
        try:
            witness = Witness.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{path} holds no witness ({error}): pass a file that icm verify has written") from error
    if claim is None:
        from icm.theory.claims import CLAIMS

        if witness.claim not in CLAIMS:
            raise InputError(
                f"claim {witness.claim!r} is not among those of icm: in Python, icm.theory.replay(path, claim) takes it"
            )
        claim = CLAIMS[witness.claim]
    if claim.name != witness.claim:
        raise InputError(f"the witness is one against {witness.claim!r}, and the claim is {claim.name!r}")
    return claim.here(witness.instance, witness.rigour is Rigour.ENCLOSED)
