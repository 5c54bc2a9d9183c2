"""Norms of named tensors: duality, cvxpy's answers for every way to combine, the published step sizes, and torch's own
optimizers."""

from __future__ import annotations

import math
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor

from icm.errors import InputError
from icm.norms.from_curvature import FromCurvature
from icm.norms.modular import Combine, Modular

COMBINES: list[Combine] = ["max", "sum", "rss"]
SPECTRAL, FROBENIUS, QUARTIC = FromCurvature("wall(1)"), FromCurvature("r^2"), FromCurvature("r^4")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(combine: Combine) -> tuple[Modular, dict[str, Tensor]]:
    norms = {"in": SPECTRAL, "hidden": SPECTRAL, "gain": FROBENIUS, "experts": QUARTIC}
    G = {"in": normal(0, 4, 3), "hidden": normal(1, 4, 3), "gain": normal(2, 5), "experts": normal(3, 2, 3, 4)}
    return Modular(norms, {"in": 2.0, "gain": 0.5}, combine), G


def dot(A: dict[str, Any], B: dict[str, Any]) -> float:
    return sum(
        dot(A[name], B[name]) if isinstance(A[name], dict) else float((A[name].double() * B[name].double()).sum())
        for name in A
    )


def scaled(A: dict[str, Any], factor: float) -> dict[str, Any]:
    return {name: a * factor for name, a in A.items()}


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_dualizer_reaches_the_dual_on_the_unit_sphere_and_hoelder_holds(combine: Combine, size: float) -> None:
    N, G = model(combine)
    G = scaled(G, size)
    T, dual = N.dualize(G), float(N.dual(G))
    assert {name: t.shape for name, t in T.items()} == {name: g.shape for name, g in G.items()}
    assert dot(G, T) == pytest.approx(dual, rel=1e-12)
    assert float(N.norm(T)) == pytest.approx(1, rel=1e-12)
    for seed in range(5):
        W = {name: normal(50 * seed + i, *g.shape) for i, (name, g) in enumerate(G.items())}
        assert dot(G, W) <= float(N.norm(W)) * dual * (1 + 1e-12)
    narrow = N.dualize({name: g.float() for name, g in G.items()})
    assert narrow["gain"].dtype == torch.float32
    assert float(N.norm(narrow)) == pytest.approx(1, rel=1e-6)


def by_cvxpy(G: dict[str, Tensor], s: dict[str, float], combine: Combine, sharpness: float | None) -> Any:
    """max ⟨G, T⟩ over N(T) ≤ 1 for the Frobenius norm of "a" (as FromCurvature's, over √n) and the spectral one of "b",
    or argmin ⟨G, D⟩ + (λ/2)N(D)²."""
    X = {name: cvxpy.Variable(tuple(g.shape)) for name, g in G.items()}
    lengths = [s["a"] / math.sqrt(G["a"].shape[1]) * cvxpy.norm(X["a"], "fro"), s["b"] * cvxpy.sigma_max(X["b"])]
    whole = {
        "max": lambda: cvxpy.maximum(*lengths),
        "sum": lambda: lengths[0] + lengths[1],
        "rss": lambda: cvxpy.norm(cvxpy.hstack(lengths)),
    }[combine]()
    along = sum(cvxpy.sum(cvxpy.multiply(g.numpy(), X[name])) for name, g in G.items())
    if sharpness is None:
        return cvxpy.Problem(cvxpy.Maximize(along), [whole <= 1]).solve(solver=cvxpy.CLARABEL)
    cvxpy.Problem(cvxpy.Minimize(along + sharpness / 2 * cvxpy.square(whole))).solve(solver=cvxpy.CLARABEL)
    return {name: x.value for name, x in X.items()}


@pytest.mark.parametrize("combine", COMBINES)
def test_duals_and_steps_against_cvxpy(combine: Combine) -> None:
    G, s = {"a": normal(7, 2, 3), "b": normal(8, 3, 2)}, {"a": 0.7, "b": 1.9}
    N = Modular({"a": FROBENIUS, "b": SPECTRAL}, s, combine)
    assert float(N.dual(G)) == pytest.approx(by_cvxpy(G, s, combine, None), rel=1e-6)
    wanted, found = by_cvxpy(G, s, combine, 3.0), N.steepest(G, 3.0)
    for name in G:
        np.testing.assert_allclose(found[name].numpy(), wanted[name], atol=2e-4)


def test_the_step_sizes_of_proposition_7() -> None:
    """η/s_l, η = (1/λ) Σ_k ‖G_k‖†/s_k, the dual of the spectral norm by torch's nuclear norm; ΔW = −(η/s_l) UVᵀ."""
    G, s = {"a": normal(1, 4, 3), "b": normal(2, 3, 5)}, {"a": 0.5, "b": 4.0}
    N = Modular({"a": SPECTRAL, "b": SPECTRAL}, s)
    eta = sum(float(torch.linalg.matrix_norm(G[name], "nuc")) / s[name] for name in G) / 2.5
    sizes, step = N.step_sizes(G, 2.5), N.steepest(G, 2.5)
    for name in G:
        U, _, Vh = torch.linalg.svd(G[name], full_matrices=False)
        assert float(sizes[name]) == pytest.approx(eta / s[name], rel=1e-13)
        torch.testing.assert_close(step[name], -eta / s[name] * (U @ Vh), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("combine", COMBINES)
def test_step_sizes_times_the_layers_own_maximisers_are_the_step(combine: Combine) -> None:
    N, G = model(combine)
    sizes, step = N.step_sizes(G, 0.7), N.steepest(G, 0.7)
    assert sizes["experts"].shape == (2,)
    assert sizes["gain"].shape == ()
    for name, norm in N.norms.items():
        g = G[name][:, None] if G[name].ndim == 1 else G[name]
        assert not isinstance(norm, Modular)
        wanted = -norm.dualize(g) * sizes[name][..., None, None]
        torch.testing.assert_close(step[name], wanted.reshape(G[name].shape), rtol=1e-13, atol=0)
    assert dot(G, step) == pytest.approx(-0.7 * float(N.norm(step)) ** 2, rel=1e-11)  # −(dual)²/λ = −λ N(step)²


def test_root_sum_square_of_frobenius_norms_is_gradient_descent() -> None:
    """With s² = n each ‖W_l‖_F counts alike, and a step is torch.optim.SGD's with lr = 1/λ."""
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    params = dict(layers.named_parameters())
    layers(normal(0, 7, 3)).square().sum().backward()
    G = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
    weights = {name: math.sqrt(g.shape[1] if g.ndim > 1 else 1) for name, g in G.items()}
    step = Modular(dict.fromkeys(G, FROBENIUS), weights, "rss").steepest(G, 20.0)
    before = {name: p.detach().clone() for name, p in params.items()}
    torch.optim.SGD(params.values(), lr=1 / 20.0).step()
    for name, p in params.items():
        torch.testing.assert_close(before[name] + step[name], p.detach(), rtol=1e-13, atol=1e-15)


def test_under_a_sum_only_the_layers_of_the_largest_dual_move() -> None:
    """Among maximisers on a tie the shortest: moving on in the tied layers' plane makes T longer."""
    G = normal(3, 3, 3)
    N = Modular({"a": SPECTRAL, "b": SPECTRAL, "c": SPECTRAL}, {"b": 2.0}, "sum")
    T = N.dualize({"a": G, "b": G, "c": G})
    assert float(T["b"].abs().max()) == 0
    U, _, Vh = torch.linalg.svd(G)
    for name in "ac":
        torch.testing.assert_close(T[name], U @ Vh / 2, rtol=1e-13, atol=1e-14)
    # tied: duals 6 and 12/2, of maximisers with Frobenius norms √3 and √2/2: shares 1 to 6
    diagonal = {"a": torch.diag(torch.tensor([2.0, 2.0, 2.0])), "b": torch.diag(torch.tensor([6.0, 6.0, 0.0]))}
    T = Modular({"a": SPECTRAL, "b": SPECTRAL}, {"b": 2.0}, "sum").dualize(diagonal)
    torch.testing.assert_close(T["a"], torch.eye(3) / 7)
    torch.testing.assert_close(T["b"], torch.diag(torch.tensor([3.0, 3.0, 0.0])) / 7)


@pytest.mark.parametrize("outer", COMBINES)
@pytest.mark.parametrize("inner", COMBINES)
def test_nested_norms_are_dual_too(outer: Combine, inner: Combine) -> None:
    block = Modular({"q": SPECTRAL, "gain": FROBENIUS}, {"q": 3.0}, inner)
    N = Modular({"block": block, "head": QUARTIC}, {"block": 0.2}, outer)
    G = {"block": {"q": normal(0, 3, 3), "gain": normal(1, 4)}, "head": 3 * normal(2, 5, 3)}
    T, step, sizes = N.dualize(G), N.steepest(G, 2.0), N.step_sizes(G, 2.0)
    assert dot(G, T) == pytest.approx(float(N.dual(G)), rel=1e-12)
    assert float(N.norm(T)) == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(step["block"]["q"], -sizes["block"]["q"] * SPECTRAL.dualize(G["block"]["q"]))
    if outer == inner:  # and then one flat norm says the same
        flat = Modular({"q": SPECTRAL, "gain": FROBENIUS, "head": QUARTIC}, {"q": 0.6, "gain": 0.2}, outer)
        assert float(flat.dual({**G["block"], "head": G["head"]})) == pytest.approx(float(N.dual(G)), rel=1e-13)


def test_zero_gradients_do_not_move() -> None:
    for combine in COMBINES:
        N, G = model(combine)
        zero = {name: torch.zeros_like(g) for name, g in G.items()}
        assert float(N.dual(zero)) == 0
        assert all(float(t.abs().max()) == 0 for t in N.dualize(zero).values())
        assert all(float(t.abs().max()) == 0 for t in N.steepest(zero).values())
        partly = {**G, "hidden": zero["hidden"]}
        assert float(N.dualize(partly)["hidden"].abs().max()) == 0
        assert float(N.norm(N.dualize(partly))) == pytest.approx(1, rel=1e-12)


def test_the_table_names_every_tensor_with_weight_and_norm() -> None:
    N = Modular({"block": Modular({"q": SPECTRAL}), "gain": FROBENIUS}, {"gain": 0.5}, "sum")
    lines = str(N).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["block", "1", "max"],
        ["q", "1", str(SPECTRAL)],
        ["gain", "0.5", str(FROBENIUS)],
    ]


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        Modular({})
    with pytest.raises(InputError, match=r"weights\['a'\] = 0"):
        Modular({"a": SPECTRAL}, {"a": 0.0})
    with pytest.raises(InputError, match="have no norm"):
        Modular({"a": SPECTRAL}, {"b": 1.0})
    N = Modular({"a": SPECTRAL, "b": SPECTRAL})
    with pytest.raises(InputError, match=r"lack \['b'\] and hold \['c'\]"):
        N.norm({"a": torch.eye(2), "c": torch.eye(2)})
    with pytest.raises(InputError, match="sharpness"):
        N.steepest({"a": torch.eye(2), "b": torch.eye(2)}, 0.0)
    with pytest.raises(InputError, match="non-finite"):
        N.dual({"a": torch.full((2, 2), math.nan), "b": torch.eye(2)})
