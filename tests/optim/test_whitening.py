"""Steps under inputs with a second moment C, against inverse square roots by torch.linalg.eigh."""

from __future__ import annotations

import gc
import math
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icm.demo import load_example
from icm.errors import InputError
from icm.measure import InputMoments
from icm.optim import ICM
from icm.optim.whitening import colour, root, whiten
from tests.optim.steps import far, normal, polar

OPTIONS: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "scaling": "original"}


def moment(seed: int, *shape: int) -> Tensor:
    X = normal(seed, *shape[:-1], 3 * shape[-1], shape[-1]) * torch.logspace(0, -1, shape[-1], dtype=torch.float64)
    return X.mT @ X / X.shape[-2]


def inverse_root(C: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(C.double())
    return (vectors * values.rsqrt()) @ vectors.mT


def test_root_whiten_and_colour_of_diagonal_blocks() -> None:
    C = moment(1, 3, 4)
    S = root(C)
    torch.testing.assert_close(S[0] @ C @ S[0].mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    X, whole = normal(2, 5, 12), torch.block_diag(*S[0])
    plain, white, shared = whiten([X, X, 2 * X], [None, S, S])
    assert plain is X
    torch.testing.assert_close(white, X @ whole.T)
    torch.testing.assert_close(shared, 2 * X @ whole.T)
    plain, back, shared = colour([X, X, 2 * X], [None, S, S], "fp64")
    assert plain is X
    torch.testing.assert_close(back, X @ whole)
    torch.testing.assert_close(shared, 2 * X @ whole)
    with pytest.raises(InputError, match=r"not positive definite.*raise the ridge"):
        root(-C)


def correlated(seed: int, m: int, n: int, condition: float, flat: bool) -> tuple[Tensor, Tensor]:
    """G = δᵀ U (m, n) for inputs U drawn from C, and C of trace n with eigenvalues in geometric progression (`flat`:
    falling like a power, most of them small)."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    values = condition ** (-(1 + t * (n - 1)).log() / math.log(n) if flat else -t)
    V = torch.linalg.qr(normal(seed, n, n)).Q
    U = normal(seed + 1, 4 * n, n) * values.sqrt() @ V.mT
    delta = normal(seed + 2, 4 * n, m) * torch.logspace(0, -1, m, dtype=torch.float64)
    return delta.mT @ U, (V * values) @ V.mT * (n / values.sum())


CASES = [(m, n, condition, flat) for m, n in ((128, 96), (96, 300), (64, 520)) for condition in (1e4, 1e6)
         for flat in (False, True)]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "condition", "flat"), CASES)
def test_products_in_16_bits_of_pieces_lose_no_more_than_one_rounding(
    m: int, n: int, condition: float, flat: bool
) -> None:
    G, C = correlated(1, m, n, condition, flat)
    S = root(C[None], "bf16")
    whole = S.double().sum((0, 1))
    assert (whole @ C @ whole.mT - torch.eye(n)).norm() < (5e-2 if len(S) == 1 else 1e-2) * n**0.5
    (white,) = whiten([G.float()], [S])
    assert white.dtype == torch.bfloat16
    assert far(white, G @ whole.mT) < 2**-8
    (back,) = colour([white], [S], "bf16")
    assert far(back, white.double() @ S[0, 0].double()) < 2**-8


def wall_step(G: Tensor, S: Tensor) -> Tensor:
    """The step of a wall by products in bfloat16, with this root."""
    p = nn.Parameter(torch.zeros(G.shape))
    optimizer = ICM([p], 1.0, **OPTIONS)
    optimizer.state[p]["root"] = S
    p.grad = G.float()
    optimizer.step()
    return unit(p.detach().double())


def assert_as_good_as_a_root_in_float32(G: Tensor, C: Tensor) -> None:
    R = inverse_root(C)
    wanted = -unit(polar(G.double() @ R) @ R)
    whole = far(wall_step(G, root(C.float()[None])), wanted)
    assert far(wall_step(G, root(C.float()[None], "bf16")), wanted) < whole + 1e-2


@pytest.mark.parametrize(("m", "n", "condition", "flat"), CASES)
def test_steps_in_16_bits_are_as_near_to_an_svd_as_with_roots_in_float32(
    m: int, n: int, condition: float, flat: bool
) -> None:
    assert_as_good_as_a_root_in_float32(*correlated(2, m, n, condition, flat))


def test_steps_under_the_moments_of_a_language_model_are_so_too() -> None:
    example = load_example()
    model = example.SmallLM(example.Config(layers=2, width=64, heads=4, context=64), seed=0)
    data = example.corpus(200_000)
    moments = InputMoments(model, list(example.matrices(model).values()), every=5)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for batch in islice(example.batches(data, model.config, 8), 40):
        optimizer.zero_grad()
        example.loss(model, batch).mean().backward()
        optimizer.step()
        moments.step()
    for p in example.matrices(model).values():
        C = moments.moment(p)
        assert C is not None
        assert_as_good_as_a_root_in_float32(p.grad, C[0])


def net(n: int = 10) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(n, 8, bias=False), nn.Tanh(), nn.Linear(8, 12, bias=False), nn.Tanh(),
                         nn.Linear(12, 2)).double()  # fmt: skip


def first_step(H: str, **moments: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(ΔW, G, C) of the two solved layers, C from the inputs recorded here, without the optimizer's help."""
    model: Any = net()
    X = normal(4, 30, 10) * torch.linspace(0.2, 2, 10, dtype=torch.float64)
    optimizer = ICM.for_model(
        model, 1.0, curvature=H, backend="exact", precision="fp64", adamw_lr=0.0,
        input_moments={"ridge": 1e-2, "dtype": torch.float64} | moments, **OPTIONS
    )  # fmt: skip
    model(X).square().sum().backward()
    inputs = [X, model[1](X @ model[0].weight.T).detach()]
    weights = [model[i].weight for i in (0, 2)]
    before = [p.detach().clone() for p in weights]
    optimizer.step()
    moved = [p.detach() - b for p, b in zip(weights, before, strict=True)]
    Cs = []
    for u in inputs:
        C = u.T @ u / len(u)
        C = C / C.diagonal().mean()
        Cs.append((C + 1e-2 * torch.eye(len(C))) / 1.01)
    return moved, [p.grad for p in weights], Cs  # pyright: ignore[reportReturnType]


def unit(X: Tensor) -> Tensor:
    return X / X.norm()


def test_a_wall_is_the_polar_factor_in_whitened_inputs() -> None:
    """msgn(G C^{-1/2}) C^{-1/2}, which is not Newton–Muon's msgn(G C^{-1})."""
    for step, G, C in zip(*first_step("wall(1)"), strict=True):
        R, (m, n) = inverse_root(C), G.shape
        length = max(1, m / n) ** 0.5 * min(m, n) ** 0.5
        assert far(step, -length * unit(polar(G @ R) @ R)) < 1e-6
        assert far(step, -length * unit(polar(G @ R @ R))) > 0.1


def test_quadratic_curvature_gives_the_gradient_times_the_inverse() -> None:
    for step, G, C in zip(*first_step("r^2"), strict=True):
        length = max(1, G.shape[0] / G.shape[1]) ** 0.5 * min(G.shape) ** 0.5
        assert far(step, -length * unit(torch.linalg.solve(C, G, left=False))) < 1e-6


def test_wide_inputs_have_moments_in_diagonal_blocks() -> None:
    """widest=5 cuts ten inputs into two blocks, and eight into two of four."""
    for step, G, C in zip(*first_step("r^2", widest=5), strict=True):
        w = len(C) // 2
        blocks = torch.block_diag(C[:w, :w], C[w:, w:])
        length = max(1, G.shape[0] / G.shape[1]) ** 0.5 * min(G.shape) ** 0.5
        assert far(step, -length * unit(torch.linalg.solve(blocks, G, left=False))) < 1e-6


def test_hooks_do_nothing_in_eval_mode_and_go_with_the_optimizer() -> None:
    model = net()
    optimizer = ICM.for_model(model, 1e-2)
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == 2
    model.eval()
    model(normal(5, 6, 10))
    assert optimizer.input_moments is not None
    assert optimizer.input_moments.bytes == 0
    del optimizer
    gc.collect()
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == 0


def test_roots_are_kept_for_refresh_steps_and_shared_where_inputs_are() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 8)
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(self.left(x) + self.right(x))

    model = Two()
    optimizer, roots = ICM.for_model(model, 1e-2, refresh=3), []
    for t in range(4):
        optimizer.zero_grad()
        model(normal(t, 9, 6, dtype=torch.float32)).square().sum().backward()
        optimizer.step()
        mine = [optimizer.state[layer.weight]["root"] for layer in (model.left, model.right)]
        assert mine[0] is mine[1]
        roots.append(mine[0])
    assert [a is b for a, b in pairwise(roots)] == [True, True, False]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_products_in_whitened_inputs_reach_what_an_svd_does(precision: str) -> None:
    """Inputs of condition 1e4, whose large directions the gradient shares: 16 bits do not drown the small ones."""
    C = normal(1, 200, 48) * torch.logspace(0, -2, 48, dtype=torch.float64)
    C = C.T @ C / 200
    G = normal(2, 32, 48) @ C
    steps = []
    ways: list[dict[str, Any]] = [{"backend": "exact"}, {"precision": precision, "tol": 1e-2}]
    for options in ways:
        p = nn.Parameter(torch.zeros(32, 48, dtype=torch.float64))
        optimizer = ICM([p], 1.0, curvature="r^2", **OPTIONS, **options)
        optimizer.state[p]["root"] = root(C[None], "fp64" if "backend" in options else options["precision"])
        p.grad = G
        optimizer.step()
        steps.append(p.detach())
    assert far(steps[1], steps[0]) < 0.02
    assert far(steps[0], -unit(G @ torch.linalg.inv(C)) * 32**0.5) < 1e-6


def test_what_a_step_that_is_left_out_saw_is_forgotten() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))
    optimizer = ICM.for_model(model, 0.1, adamw_lr=0.0, input_moments={"every": 1, "ridge": 0.0})
    model(1e3 * torch.ones(5, 4)).sum().backward()
    model[0].weight.grad[0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match="left out"):
        optimizer.step()
    optimizer.zero_grad()
    model(torch.eye(4)).square().sum().backward()
    optimizer.step()
    assert optimizer.input_moments is not None
    torch.testing.assert_close(optimizer.input_moments.moment(model[0].weight), torch.eye(4)[None])
