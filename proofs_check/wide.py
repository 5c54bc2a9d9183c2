"""Fewer outputs than inputs: no finite curvature gives an orthogonal update unless all g_i are equal.

For σ = c(1, …, 1), k < n, s/c² = Σ_{i≤k} ζ_i² ~ Beta(k/2, (n−k)/2), which has a density: s meets a kink with
probability 0, f is differentiable at σ, and g_i = σ_iR(σ_i²) has the same right-hand side for every i.
Source: docs/theory.md, section 10.
"""

from __future__ import annotations

from proofs_check.algebra import positives, zero
from proofs_check.convexity import DIFFERENTIATION
from proofs_check.proof import Proof
from proofs_check.sphere import GAUSS, LAW
from proofs_check.stationarity import FERMAT, gradient
from proofs_check.step import cited, symbolic


def beta_law(jacobian: int = 1) -> str:
    """X ~ χ²_k and Y ~ χ²_{n−k}: at X = Rb, Y = R(1−b), dX dY = R dR db, the density splits into one of R and one of b.

    The second is b^{k/2−1}(1−b)^{(n−k)/2−1}, a function of b without atoms.
    """
    import sympy as sp

    square, b, p, q = positives("R b p q")
    rest = positives("rest")[0]
    x, y = square * b, square * rest
    joint = x ** (p / 2 - 1) * y ** (q / 2 - 1) * sp.exp(-(x + y) / 2) * square**jacobian
    split = square ** ((p + q) / 2 - 1) * sp.exp(-square / 2) * b ** (p / 2 - 1) * rest ** (q / 2 - 1)
    logs = (sp.expand_log(sp.log(part), force=True).subs(rest, 1 - b) for part in (joint, split))
    first, second = logs
    return zero(sp.expand(first - second), "the logarithms of both densities, symbols k, n − k, R, b")


def volume(power: int = 1) -> str:
    """|∂(X, Y)/∂(R, b)| = R."""
    import sympy as sp

    square, b = positives("R b")
    jacobian = sp.Matrix([square * b, square * (1 - b)]).jacobian(sp.Matrix([square, b]))
    return zero(jacobian.det() ** 2 - square ** (2 * power), "the determinant is ±R")


def equal_slopes(shift: int = 0) -> str:
    """g_i = 2cw_i and w_i = E[ψ(s)ζ_i²] with s = c²Σ_{i≤k}ζ_i², which an exchange of ζ_i and ζ_j leaves as it is."""
    import sympy as sp

    psi = sp.Function("psi")
    c, x, y, rest = positives("c x y rest")
    term = psi(c**2 * (x + (1 + shift) * y + rest)) * x
    other = psi(c**2 * (x + (1 + shift) * y + rest)) * y
    return zero(term.subs({x: y, y: x}, simultaneous=True) - other, "ψ(s)ζ_i² becomes ψ(s)ζ_j²")


WIDE = Proof(
    "wide-never-orthogonal",
    "k < n, H finite: if cUVᵀ with c > 0 (k singular values c) is optimal, then g_1 = … = g_k = 2cw_1.",
    "docs/theory.md, section 10",
    (
        LAW,
        GAUSS,
        symbolic("volume", "dX dY = R dR db for X = Rb, Y = R(1−b).", volume),
        symbolic("beta", "Σ_{i≤k}ζ_i² = X/(X+Y) has a density, Beta(k/2, (n−k)/2).", beta_law),
        cited(
            "atom",
            "A law with a density has no atom; a convex H has countably many kinks at most: P(√s is at one) = 0.",
            "Rockafellar, Convex Analysis, Theorem 25.3",
        ),
        *DIFFERENTIATION,
        symbolic("gradient-off-kinks", "∂h(s)/∂σ_i = 2σ_iψ(s)ζ_i² off the kinks: f is differentiable at σ.", gradient),
        *FERMAT,
        symbolic("equal-weights", "w_i = w_j by an exchange of ζ_i and ζ_j, so g_i = g_j.", equal_slopes),
    ),
    needs=("alignment",),
)
PROOFS = (WIDE,)
