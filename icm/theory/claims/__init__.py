"""The claims, one file per theorem, in the order of the theory."""

from icm.theory.claim import Claim
from icm.theory.claims import certificate, homogenisation

CLAIMS: dict[str, Claim] = {claim.name: claim for room in (homogenisation, certificate) for claim in room.CLAIMS}
