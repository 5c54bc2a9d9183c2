"""What every norm must satisfy: `check_norm` and, where a projection is known, `check_projection`; and cvxpy's answers.

Exact identities, in float64 to 1e-12; every check takes the norm as it is, so that meta-tests can pass a false one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy
import numpy as np
import torch
from torch import Tensor

from icm.norms import Norm

Expression = Callable[[cvxpy.Variable], Any]

EXACT = 1e-12
SOLVED = 2e-6  # of cvxpy's answers, whose solvers stop at 1e-8
GRADED = (3, 10)  # of `matrices`, those with a part 1e-9 of the rest or less
SHAPES = ((1, 1), (1, 5), (5, 1), (4, 4), (3, 6), (7, 3))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(seed: int, m: int, n: int) -> list[Tensor]:
    """Random and adversarial ones of a shape, none of them 0."""
    k = min(m, n)
    W = normal(seed, m, n)
    U, V = torch.linalg.qr(normal(seed + 1, m, k)).Q, torch.linalg.qr(normal(seed + 2, n, k)).Q
    holes = W.clone()
    holes[0], holes[:, -1] = 0, 0
    holes[-1, 0] = 1.0  # so that something is left
    tied = torch.ones(k, dtype=torch.float64)
    tied[k // 2 :] = 0.5
    return [
        W,
        U @ V.mT,  # equal singular values
        (U * tied) @ V.mT,  # equal largest ones
        (U * torch.logspace(0, -9, k, dtype=torch.float64)) @ V.mT,
        U[:, :1] @ V[:, :1].mT,  # rank 1
        holes,
        torch.ones(m, n, dtype=torch.float64),
        torch.eye(m, n, dtype=torch.float64),
        W.sign(),
        W.round() + torch.eye(m, n, dtype=torch.float64) * 5,
        W * torch.logspace(0, -40, n, dtype=torch.float64),  # columns of very different size
    ]


def inner(A: Tensor, B: Tensor) -> Tensor:
    return (A * B).sum((-2, -1))


def near(found: Any, wanted: Any, tolerance: float = EXACT) -> None:
    """Equal relatively: values each to itself, matrices each to its largest entry."""
    found, wanted = torch.as_tensor(found).double(), torch.as_tensor(wanted).double()
    assert found.shape == wanted.shape
    error, size = (found - wanted).abs(), wanted.abs()
    if wanted.ndim >= 2:
        error, size = error.amax((-2, -1)), size.amax((-2, -1))
    assert bool((error <= tolerance * size).all())


def check_norm(norm: Norm, shapes: tuple[tuple[int, int], ...] = SHAPES) -> None:
    """Duality, the axioms, sizes, dtypes and doors, on matrices of those shapes."""
    for seed, (m, n) in enumerate(shapes):
        cases = torch.stack(matrices(10 * seed, m, n))
        check_duality(norm, cases)
        check_axioms(norm, cases)
        check_sizes(norm, cases)
    check_doors(norm, matrices(99, *shapes[-1]))


def check_duality(norm: Norm, G: Tensor) -> None:
    dual, T = norm.dual(G), norm.dualize(G)
    near(inner(G, T), dual)
    near(norm.norm(T), torch.ones_like(dual))
    # Hölder, at random and as near to equality as can be had
    peak = G.abs().amax((-2, -1), keepdim=True)
    close = torch.cat([norm.dualize(G + 10.0**-d * peak * normal(d, *G.shape)) for d in range(0, 9, 2)])
    W = torch.cat([G, T, close])
    products = torch.einsum("gij,wij->gw", G, W).abs()
    assert bool((products <= dual[:, None] * norm.norm(W) * (1 + EXACT)).all())
    for sharpness in (1.0, 3.0):
        D = norm.steepest(G, sharpness)
        least = -(dual**2) / (2 * sharpness)
        near(inner(G, D) + sharpness / 2 * norm.norm(D) ** 2, least, 1e-11)
        for other in (*close.split(len(G)), 1.01 * T):
            step = (-dual / sharpness)[:, None, None] * other
            assert bool((inner(G, step) + sharpness / 2 * norm.norm(step) ** 2 >= least * (1 + 1e-11)).all())
    zero = torch.zeros_like(G[0])
    for answer in (norm.norm, norm.dual, norm.dualize, norm.steepest, norm.normalize):
        assert bool((answer(zero) == 0).all())


def check_axioms(norm: Norm, W: Tensor) -> None:
    for length in (norm.norm, norm.dual):
        lengths = length(W)
        assert bool((lengths > 0).all())
        near(length(-3.0 * W), 3 * lengths)
        sums = length(W[:, None] + W)
        assert bool((sums <= (lengths[:, None] + lengths) * (1 + EXACT)).all())
    near(norm.norm(norm.normalize(W, 2.5)), torch.full_like(lengths, 2.5))


def check_sizes(norm: Norm, W: Tensor) -> None:
    """A power of two changes no digit; 1e±30 none but for its own rounding; in float32 too."""
    for dtype, powers, tolerance in ((torch.float64, (1000, -900), EXACT), (torch.float32, (100, -80), 1e-5)):
        X = W.to(dtype)
        value, dual, T = norm.norm(X), norm.dual(X), norm.dualize(X)
        assert value.dtype == dual.dtype == T.dtype == dtype
        near(value, norm.norm(W), 1e-5 if dtype == torch.float32 else 0.0)
        for power in powers:
            c = 2.0**power
            whole = (X * c / c == X).all(-1).all(-1)  # others lose digits before the norm sees them
            assert torch.equal(norm.norm(X * c)[whole], value[whole] * c)
            assert torch.equal(norm.dual(X * c)[whole], dual[whole] * c)
            assert torch.equal(norm.dualize(X * c)[whole], T[whole])
        for c in (1e30, 1e-30):
            near(norm.norm(X * c).double() / c, value, tolerance)
            near(norm.dual(X * c).double() / c, dual, tolerance)
            near(inner(X, norm.dualize(X * c)), dual, tolerance)


def check_doors(norm: Norm, cases: list[Tensor]) -> None:
    """Batches are their elements, 16-bit matrices are computed in float32, lists are matrices, autograd is left out."""
    W = cases[0]
    batch = torch.stack([*cases[:5], torch.zeros_like(W)]).reshape(2, 3, *W.shape)
    for answer in (norm.norm, norm.dual, norm.dualize, norm.steepest, norm.normalize):
        together = answer(batch)
        for i in range(6):
            near(together[i // 3, i % 3], answer(batch[i // 3, i % 3]))
        assert torch.equal(answer(batch, check=False), together)
        learned = answer(batch.clone().requires_grad_())
        assert torch.equal(learned, together)
        assert not learned.requires_grad
        for given in (W.tolist(), W.numpy()):
            assert torch.equal(answer(given), answer(W))
        for dtype in (torch.bfloat16, torch.float16):
            found, wanted = answer(W.to(dtype)), answer(W.to(dtype).float())
            assert found.dtype == (dtype if wanted.ndim else torch.float32)
            assert torch.equal(found, wanted.to(found.dtype))


def check_projection(norm: Norm, shapes: tuple[tuple[int, int], ...] = SHAPES) -> None:
    """Feasible, idempotent, and optimal: ⟨W − P, Z⟩ ≤ ⟨W − P, P⟩ for all ‖Z‖ ≤ r: r dual(W − P) ≤ ⟨W − P, P⟩."""
    for seed, (m, n) in enumerate(shapes):
        W = torch.stack(matrices(10 * seed + 5, m, n))
        W = W / norm.norm(W)[:, None, None]
        for r in (0.1, 0.7, 0.999):
            P = norm.project(W, r)
            assert bool((norm.norm(P) <= r * (1 + EXACT)).all())
            near(norm.project(P, r), P, 10 * EXACT)
            left = W - P
            assert bool((r * norm.dual(left) - inner(left, P) <= EXACT * r * norm.dual(W)).all())
            near(norm.project(W.float(), r), P, 1e-5)
        assert torch.equal(norm.project(W, 1.5), W)
        # t·W for a large t comes to the maximiser of least Frobenius norm (exactly, where the ball has no curve)
        plain = W[[i for i in range(len(W)) if i not in GRADED]]
        near(norm.project(1e8 * plain), norm.dualize(plain), 1e-2)
    batch = torch.stack(matrices(7, *shapes[-1])[:4]).reshape(2, 2, *shapes[-1])
    for i in range(4):
        near(norm.project(batch, 0.8)[i // 2, i % 2], norm.project(batch[i // 2, i % 2], 0.8))
    zero = torch.zeros(shapes[0], dtype=torch.float64)
    assert torch.equal(norm.project(zero, 1e-9), zero)


def check_cvxpy(norm: Norm, expression: Expression, projects: bool = True, shape: tuple[int, int] = (3, 4)) -> None:
    """Value, dual as a maximum over the unit ball, and projection as least squares over it, as cvxpy finds them."""
    cases = matrices(3, *shape)
    for W in [cases[i] for i in (0, 2, 5)]:
        X = cvxpy.Variable(shape)
        ball = expression(X) <= 1
        X.value = W.numpy()
        near(norm.norm(W), torch.tensor(float(expression(X).value), dtype=torch.float64), 1e-9)
        near(norm.dual(W), solved(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(W.numpy(), X))), ball), SOLVED)
        if projects:
            far = W * (2.5 / norm.norm(W))
            solved(cvxpy.Minimize(cvxpy.sum_squares(X - far.numpy())), ball)
            near(norm.project(far), torch.from_numpy(np.asarray(X.value)), 1e-4)  # the squares to 1e-8


def solved(objective: Any, ball: Any) -> Tensor:
    problem = cvxpy.Problem(objective, [ball])
    problem.solve(solver=cvxpy.CLARABEL)
    assert problem.status == "optimal"
    return torch.tensor(float(np.asarray(problem.value)), dtype=torch.float64)
