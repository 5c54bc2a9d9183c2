"""Singular values of a matrix of floats, enclosed: a float64 decomposition, refined once, then proved.

For any U (m × k), d₁ ≥ … ≥ d_k ≥ 0 and V (n × k) with ‖UᵀU − I‖₂ ≤ α < 1 and ‖VᵀV − I‖₂ ≤ β < 1, the i-th singular
value of U diag(d) Vᵀ is in d_i [√((1−α)(1−β)), √((1+α)(1+β))] (Ostrowski: by min–max, a factor changes singular
values by no more than its own extreme ones), and that of G is within ‖G − U diag(d) Vᵀ‖_F of it (Weyl).

The refinement is one Newton step on UᵀGV = D with UᵀU = VᵀV = I (Ogita & Aishima, J. Comput. Appl. Math. 369 (2020));
where values lie too close together for it, they keep the accuracy of float64. It is not part of the proof.
"""

from __future__ import annotations

import numpy as np
from flint import arb, arb_mat

from icm.solvers.enclosure.quadrature import norm_bound

_CLOSE = 1e-10  # of the largest: values with gaps below are not separated


def singular_values(G: np.ndarray, exact: arb_mat | None = None) -> list[arb]:
    """Balls around the singular values of G (m, n) float64, taken exactly, or of `exact` near it; min(m, n) of them in
    descending order of the approximations at their middles."""
    size = float(np.abs(G).max())
    k = min(G.shape)
    if size == 0:
        return [arb(0) if exact is None else arb(0).union(frobenius(exact))] * k
    exact = matrix(G) if exact is None else exact
    exponent = int(np.frexp(size)[1])
    tall = np.ldexp(G if G.shape[0] >= G.shape[1] else G.T, -exponent)
    left, d, right = np.linalg.svd(tall, full_matrices=False)
    exact = exact if G.shape[0] >= G.shape[1] else exact.transpose()
    exact = exact * (arb(2) ** -exponent)
    U, V = matrix(left), matrix(right.T)
    U, values, V = _refined(exact, U, [arb(float(x)) for x in d], V)
    alpha, beta = _off_orthonormal(U), _off_orthonormal(V)
    residual = frobenius(exact - _columns(U, values) * V.transpose())
    below = ((1 - alpha).max(arb(0)) * (1 - beta).max(arb(0))).sqrt()
    above = ((1 + alpha) * (1 + beta)).sqrt()
    unit = arb(2) ** exponent
    return [unit * (x * below - residual).max(arb(0)).union(x * above + residual) for x in values]


def matrix(A: np.ndarray) -> arb_mat:
    """A (m, n) float64 as an exact matrix of balls."""
    return arb_mat(A.shape[0], A.shape[1], [arb(x) for x in A.ravel().tolist()])


def frobenius(A: arb_mat) -> arb:
    """An upper bound of ‖A‖_F."""
    return norm_bound(A.entries())


def _refined(G: arb_mat, U: arb_mat, d: list[arb], V: arb_mat) -> tuple[arb_mat, list[arb], arb_mat]:
    """(U, d, V) after one step, all exact, d descending and ≥ 0; G is tall."""
    k = len(d)
    GV = G * V
    T = U.transpose() * GV
    gram = _minus_identity(U.transpose() * U)
    R, S, t = gram.tolist(), _minus_identity(V.transpose() * V).tolist(), T.tolist()
    d = [(t[i][i] / (1 + (R[i][i] + S[i][i]) / 2)).mid() for i in range(k)]
    close = _CLOSE * float(d[0].mid())
    approximate = [float(x.mid()) for x in d]
    left, right = ([[-X[i][j] / 2 for j in range(k)] for i in range(k)] for X in (R, S))
    for i in range(k):
        for j in range(k):
            if abs(approximate[i] - approximate[j]) > close:
                a, b = t[i][j] - d[j] * R[i][j], t[j][i] - d[j] * S[i][j]
                quotient = 1 / (d[j] * d[j] - d[i] * d[i])
                left[i][j] = (a * d[j] + b * d[i]) * quotient
                right[i][j] = (a * d[i] + b * d[j]) * quotient
    # What GV has beyond the range of U, where (UᵀU)^{−1} is I − gram to first order.
    outside = _columns(GV - U * (T - gram * T), [1 / x if float(x.mid()) > close else arb(0) for x in d])
    U = (U + U * arb_mat(left) + outside).mid()
    V = (V + V * arb_mat(right)).mid()
    order = sorted(range(k), key=lambda i: -float(d[i].mid()))
    U, V = (arb_mat([[row[i] for i in order] for row in X.tolist()]) for X in (U, V))
    return U, _descending([d[i].max(arb(0)) for i in order]), V


def _descending(d: list[arb]) -> list[arb]:
    """d with rounding in its order undone: each at most the one before."""
    for i in range(1, len(d)):
        d[i] = d[i].min(d[i - 1])
    return d


def _columns(A: arb_mat, factors: list[arb]) -> arb_mat:
    """A diag(factors)."""
    return arb_mat([[x * factor for x, factor in zip(row, factors, strict=True)] for row in A.tolist()])


def _minus_identity(A: arb_mat) -> arb_mat:
    return A - arb_mat([[arb(int(i == j)) for j in range(A.ncols())] for i in range(A.nrows())])


def _off_orthonormal(X: arb_mat) -> arb:
    """An upper bound of ‖XᵀX − I‖₂."""
    return frobenius(_minus_identity(X.transpose() * X))
