"""Singular values of G C^{−1/2} and Q C^{1/2} for a second moment C of floats, enclosed.

For any S let N = C^{1/2} Sᵀ, so that NᵀN = S C Sᵀ. If ‖S C Sᵀ − I‖_F ≤ δ < 1, the singular values of N are in
[√(1 − δ), √(1 + δ)], and as G Sᵀ = G C^{−1/2} N and Q C Sᵀ = Q C^{1/2} N, those of G C^{−1/2} and Q C^{1/2} are those
of G Sᵀ and Q C Sᵀ times something in [1/√(1 + δ), 1/√(1 − δ)] (Ostrowski, as in `svd`).
"""

from __future__ import annotations

import numpy as np
from flint import arb, arb_mat

from icm.errors import InputError
from icm.solvers.enclosure.svd import frobenius, matrix, singular_values


def whitened_values(G: np.ndarray, Q: np.ndarray, C: np.ndarray, S: np.ndarray) -> tuple[list[arb], list[arb]]:
    """Balls around the singular values of G C^{−1/2} and of Q C^{1/2}, for G, Q (m, n), C, S (n, n) float64, taken
    exactly.

    Raises InputError where S is so far from an inverse square root of C that nothing follows.
    """
    gradient, update, moment, back = (matrix(x) for x in (G, Q, C, S.T))
    n = len(C)
    identity = arb_mat([[arb(int(i == j)) for j in range(n)] for i in range(n)])
    delta = frobenius(back.transpose() * moment * back - identity)
    if not delta < 1:
        raise InputError(
            "input_moment is too close to singular for its inverse square root to be enclosed: add a ridge"
        )
    stretch = (1 / (1 + delta).sqrt()).union(1 / (1 - delta).sqrt())
    g, own = singular_values(G @ S.T, gradient * back), singular_values(Q @ (C @ S.T), update * moment * back)
    return [x * stretch for x in g], [x * stretch for x in own]
