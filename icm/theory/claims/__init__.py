"""The claims, one file per theorem, in the order of the theory."""

from icm.theory.claim import Claim
from icm.theory.claims import (
    alignment,
    cap,
    certificate,
    certificate_matrix,
    concentration,
    converse,
    convexity,
    homogenisation,
    kink_needed,
    newton_schulz,
    norms,
    one_function,
    orthogonalisation,
    quadratic,
    quartic,
    threshold,
    von_neumann,
    wall,
    wide,
)

_ROOMS = (
    convexity,
    von_neumann,
    alignment,
    one_function,
    homogenisation,
    converse,
    quadratic,
    quartic,
    cap,
    concentration,
    newton_schulz,
    orthogonalisation,
    threshold,
    kink_needed,
    wide,
    wall,
    norms,
    certificate,
    certificate_matrix,
)

CLAIMS: dict[str, Claim] = {claim.name: claim for room in _ROOMS for claim in room.CLAIMS}
