"""Norms as those of operators, the nearest semi-orthogonal matrix, and the loss that the spectral norm bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from icm.ball import Ball
from icm.theory.case import Case
from icm.theory.claim import Claim
from icm.theory.claims.lengths import beside, columns, conjugate, nonzero, others, rows, vector
from icm.theory.claims.steepest_descent import REACHED, gradients, least
from icm.theory.instances import Instances, diagonal, draw, orthonormal, rotate, spectra

_ANTHOLOGY = "Bernstein & Newhouse, arXiv 2409.20325"
_P = (1.0, 1.2, 1.5, 2.0, 3.0, 4.5, 12.0, math.inf)


def vectors(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """An exponent p for the batch, and x (B, n): any vector, or nearly a basis vector."""
    size, n = len(made), made.n
    x = torch.from_numpy(rng.standard_normal((size, n)) * 10 ** rng.uniform(-8, 1, (size, 1)))
    x = x + torch.nn.functional.one_hot(torch.from_numpy(rng.integers(n, size=size)), n)
    p = _P[int(rng.integers(len(_P)))]
    return {"x": x, "p": torch.full((size,), p, dtype=torch.float64)}


def applied(W: Tensor, x: Tensor) -> Ball:
    """|Wx| (B, m)."""
    return (Ball.of(W) * x[:, None, :]).sum().abs()


def by_columns(case: Case) -> Ball:
    """The least of 1 − ‖Mx‖_p/(max_j‖col_j‖_p ‖x‖₁), and ‖Me_j‖_p/max_j‖col_j‖_p − 1 + 10⁻¹² at the best e_j."""
    p = float(case["p"][0])
    norm_here, x = columns(case.G, p).amax(), case["x"]
    best = columns(case.G, p).middle.argmax(-1)
    e = torch.nn.functional.one_hot(best, case.n).double()
    bound = 1.0 - vector(applied(case.G, x), p) / (norm_here * Ball.of(x.abs()).sum())
    return least([bound, vector(applied(case.G, e), p) / norm_here - (1.0 - REACHED)])


def by_rows(case: Case, dual: Callable[[float], float] = conjugate) -> Ball:
    """The least of 1 − ‖Mx‖_∞/(max_i‖row_i‖_q ‖x‖_p) and ‖Mx*‖_∞/(max_i‖row_i‖_q ‖x*‖_p) − 1 + 10⁻¹² for
    x* = sign(r)|r|^{q−1}, r the longest row; x beside it."""
    p = float(case["p"][0])
    q = dual(p)
    lengths = rows(case.G, q)
    norm_here, i = lengths.amax(), lengths.middle.argmax(-1)
    r = case.G[torch.arange(len(case)), i]
    size = r.abs().amax(-1, keepdim=True)
    if math.isinf(q):
        star = torch.nn.functional.one_hot(r.abs().argmax(-1), case.n).double()
    else:
        star = r.sign() * (r.abs() / size.where(size > 0, 1.0)) ** (q - 1)

    def share(x: Tensor) -> Ball:
        return applied(case.G, x).amax() / (norm_here * vector(Ball.of(x.abs()), p))

    return least([1.0 - share(star + case["mix"][:, None] * case["x"]), share(star) - (1.0 - REACHED)])


def by_entries(case: Case) -> Ball:
    """The least of 1 − ‖Mx‖_∞/(max|M| ‖x‖₁), of ‖Me_j‖_∞/max|M| − 1 + 10⁻¹² at the best e_j, and for sign(G) of what
    makes it steepest descent: competitors that go no lower."""
    G, x, sharpness = case.G, case["x"], case["sharpness"]
    entries = Ball.of(G.flatten(1).abs())
    top, total = entries.amax(), entries.sum()
    e = torch.nn.functional.one_hot(G.abs().amax(1).argmax(-1), case.n).double()

    def share(D: Tensor) -> Ball:
        size = Ball.of(D.flatten(1).abs()).amax() * sharpness / total
        return 2.0 * case.inner(G, D) * sharpness / total / total + size * size

    own = -(total.middle / sharpness)[:, None, None] * G.sign()
    V = case["stretch"][:, None, None] * beside(own, case["W"], case["mix"])
    operator = 1.0 - applied(G, x).amax() / (top * Ball.of(x.abs()).sum())
    reached = applied(G, e).amax() / top - (1.0 - REACHED)
    return least([operator, reached, 1.0 + share(V), -share(own) - (1.0 - REACHED)])


max_entry_operator = Claim(
    name="max-entry-operator",
    statement="The largest entry is the ℓ1 → ℓ∞ operator norm, max ‖Mx‖_∞/‖x‖₁, and steepest descent in it is "
    "−(Σ|G|/λ) sign(G).",
    latex=r"\|M\|_{\ell_1\to\ell_\infty} = \max_{ij} |M_{ij}|, \qquad "
    r"D^* = -\frac{\sum_{ij}|G_{ij}|}{\lambda}\, \operatorname{sign} G",
    source=f"{_ANTHOLOGY}, Proposition 2",
    hypotheses={"G ≠ 0": nonzero},
    margin=by_entries,
    draw=gradients(vectors, others),
    proof="max-entry-operator",
)
columns_operator = Claim(
    name="columns-operator",
    statement="‖M‖_{1→p} = max ‖Mx‖_p/‖x‖₁ is the largest ‖col_j‖_p, 1 ≤ p ≤ ∞.",
    latex=r"\|M\|_{\ell_1\to\ell_p} = \max_j \|\operatorname{col}_j M\|_p",
    source=f"{_ANTHOLOGY}, Proposition 8",
    hypotheses={"M ≠ 0": nonzero},
    margin=by_columns,
    draw=gradients(vectors),
    proof="columns-operator",
)
rows_operator = Claim(
    name="rows-operator",
    statement="‖M‖_{p→∞} = max ‖Mx‖_∞/‖x‖_p is the largest ‖row_i‖_q, 1/p + 1/q = 1.",
    latex=r"\|M\|_{\ell_p\to\ell_\infty} = \max_i \|\operatorname{row}_i M\|_{p/(p-1)}",
    source=f"{_ANTHOLOGY}, Proposition 8",
    hypotheses={"M ≠ 0": nonzero},
    margin=by_rows,
    draw=gradients(vectors, others),
    proof="rows-operator",
)


def semi_orthogonal(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """O (B, m, n) with k singular values 1: any, or UVᵀ of the diagonal G turned a little or with signs flipped."""
    size, m, n, k = len(made), made.m, made.n, made.k
    free = orthonormal(rng, size, m, k) @ orthonormal(rng, size, n, k).mT
    step = torch.from_numpy(rng.standard_normal((size, m, m)) * 10 ** rng.uniform(-9, 0, (size, 1, 1)))
    polar = diagonal(torch.ones(size, k, dtype=torch.float64), m, n)
    turned = torch.linalg.matrix_exp(step - step.mT) @ polar
    flipped = diagonal(torch.from_numpy(rng.choice([-1.0, 1.0], (size, k))), m, n)
    pick = torch.from_numpy(rng.integers(3, size=size))[:, None, None]
    return {"O": free.where(pick == 0, turned.where(pick == 1, flipped))}


def _lost(case: Case) -> tuple[Ball, Ball, Ball]:
    """(Σ g − ⟨G, O⟩)/Σg, what it may be off for an O that is not quite semi-orthogonal, and g/Σg."""
    other, g = case["O"], case.G.diagonal(dim1=1, dim2=2)
    total = Ball.of(g).sum()
    off = (case.spectrum(other) - 1.0).abs().amax()
    found = (total - case.inner(case.G, other)) / total
    return Ball(found.middle, found.radius + off.upper, min(found.rigour, off.rigour)), off, Ball.of(g) / total[:, None]


def nearer(case: Case, which: int = -1) -> Ball:
    """(‖G − O‖² − ‖G − UVᵀ‖² − g_k‖O − UVᵀ‖²)/2Σg, where ‖O‖² = ‖UVᵀ‖² = k: O − UVᵀ is 2k − 2⟨UVᵀ, O⟩ long."""
    lost, off, share = _lost(case)
    k = float(case.k)
    apart = k - Ball.of(case["O"].diagonal(dim1=1, dim2=2)).sum()
    apart = Ball(apart.middle, apart.radius + k * off.upper, min(apart.rigour, off.rigour))
    return lost - share[:, which] * apart


polar_nearest = Claim(
    name="polar-nearest",
    statement="UVᵀ is the semi-orthogonal matrix nearest to G in the Frobenius norm, and unique if G has full rank: "
    "‖G − O‖_F² − ‖G − UVᵀ‖_F² ≥ g_k‖O − UVᵀ‖_F².",
    latex=r"\|G - O\|_F^2 - \|G - UV^\top\|_F^2 \ge g_k\, \|O - UV^\top\|_F^2",
    source=f"{_ANTHOLOGY}, Proposition 4; the bound: this project",
    hypotheses={"G ≠ 0": nonzero},
    margin=nearer,
    draw=draw("r^2", extra=semi_orthogonal),
    proof="polar-nearest",
)


def tie(case: Case, largest: float = 0.0) -> Ball:
    """(‖G − O‖² − ‖G − P‖²)/2Σg for P = diag(1, …, 1) and O with the signs flipped where g ≤ largest · g_1, which is
    where g is 0."""
    g = case.G.diagonal(dim1=1, dim2=2)
    P = diagonal(torch.ones_like(g), case.m, case.n)
    turned = diagonal(torch.where(g <= largest * g[:, :1], -1.0, 1.0), case.m, case.n)
    return (case.inner(case.G, P) - case.inner(case.G, turned)) / Ball.of(g).sum()


polar_ties = Claim(
    name="polar-ties",
    statement="A G below full rank has several nearest semi-orthogonal matrices: with the sign of a pair u_i, v_i with "
    "g_i = 0 turned in UVᵀ the distance stays the same.",
    latex=r"g_k = 0 \implies \|G - O\|_F = \|G - UV^\top\|_F \text{ for some } O \ne UV^\top",
    source=f"{_ANTHOLOGY}, Proposition 4",
    equality=True,
    hypotheses={"rank below k": lambda case: (case.G.diagonal(dim1=1, dim2=2) == 0).any(-1), "G ≠ 0": nonzero},
    margin=tie,
    draw=draw("r^2", kinds=("zeros",)),
    proof="polar-ties",
)


def samples(rng: Generator, made: Instances) -> dict[str, Tensor]:
    """W, inputs X (B, N, n) of length √n, some of them along the top right singular vector of ΔW = G, and targets."""
    size, m, n, count = len(made), made.m, made.n, int(rng.integers(1, 9))
    X = torch.from_numpy(rng.standard_normal((size, count, n)))
    top = torch.linalg.svd(made.G).Vh[:, :1, :]
    X = torch.where(torch.from_numpy(rng.random((size, 1, 1)) < 0.5), top.expand(-1, count, -1), X)
    X = X * (n**0.5 / X.norm(dim=-1, keepdim=True))
    W = rotate(rng, spectra(rng, size, made.k)[0], m, n) * torch.linalg.matrix_norm(made.G)[:, None, None]
    y = torch.from_numpy(rng.standard_normal((size, count, m))) * torch.linalg.matrix_norm(W)[:, None, None]
    return {"W": W, "X": X, "y": y}


def below_quadratic(case: Case, scale: float = 1.0) -> Ball:
    """1 − (L(W + Δ) − L(W) − ⟨∇L(W), Δ⟩)/(½ (n/m) ‖Δ‖₂²) for Δ = G and L = (1/2N) Σ ‖y − Wx‖²/m. The inputs' lengths,
    √n to within rounding, are counted: the bound is taken times max ‖x‖²/n."""
    X, W, y, G = case["X"], case["W"], case["y"], case.G
    count = X.shape[1]

    def image(A: Tensor) -> Ball:
        return (Ball.of(A)[:, None] * X[:, :, None, :]).sum()  # (B, N, m)

    def square(x: Ball) -> Ball:
        return (x * x).sum().sum() / (2.0 * count * case.m)

    rest, change = image(W) - y, image(G)
    slope = (rest * change).sum().sum() / (1.0 * count * case.m)
    excess = square(rest + change) - square(rest) - slope
    longest = (Ball.of(X) * X).sum().amax() / float(case.n)
    top = case.spectrum(G)[:, 0]
    return 1.0 - excess / (0.5 * scale * case.n / Ball.of(float(case.m)) * top * top * longest)


square_loss = Claim(
    name="square-loss-bound",
    statement="The square loss L of a linear layer, inputs of length √n, is at most its linearisation plus "
    "½ (n/m) ‖ΔW‖₂², n inputs and m outputs.",
    latex=r"L(W + \Delta W) \le L(W) + \langle \nabla L, \Delta W\rangle + \tfrac12\, \frac{n}{m}\, \|\Delta W\|_2^2",
    source=f"{_ANTHOLOGY}, Proposition 6",
    hypotheses={"ΔW ≠ 0": nonzero},
    margin=below_quadratic,
    draw=draw("r^2", rotated=True, extra=samples),
    proof="square-loss-bound",
)

CLAIMS = (max_entry_operator, columns_operator, rows_operator, polar_nearest, polar_ties, square_loss)
