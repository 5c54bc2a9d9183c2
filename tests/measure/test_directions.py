"""The law of the displacements, against draws of whole weight matrices, and where they go."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from icm.measure.directions import (
    BLOCK,
    all_positions,
    displaced,
    eligible,
    example_seeds,
    one_position,
    positions_of,
)
from icm.measure.displacement import Base
from icm.measure.memory import peak


def base(u: Tensor, m: int = 4, g: Tensor | None = None) -> Base:
    B, T, _ = u.shape
    g = torch.ones(B, T, m, dtype=torch.float64) if g is None else g
    return Base(torch.zeros(B, T, m, dtype=torch.float64), u, g, torch.zeros(B, T), 1e-16)


def inputs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(delta: Tensor) -> Tensor:
    """Of δ (D, T, m) at all pairs of positions, one row per draw: ⟨δ_s, δ_t⟩, its square, δ_s1 δ_t1, (δ_s1 δ_t2)²."""
    inner = torch.einsum("dsi,dti->dst", delta, delta)
    first = torch.einsum("ds,dt->dst", delta[..., 0], delta[..., 0])
    mixed = torch.einsum("ds,dt->dst", delta[..., 0], delta[..., 1]).square()
    return torch.stack([inner, inner**2, first, mixed], 1).flatten(1)


def test_all_positions_move_as_one_gaussian_matrix_moves_them():
    """δ_t = δW u_t/‖δW u_t‖, fewer inputs than tokens and more, repeated, opposite and dependent tokens."""
    D, m = 4000, 4
    for n in (3, 9):
        u = inputs(1, 5, n)
        u[0, 1] = -2 * u[0, 0]
        u[0, 2] = u[0, 3] + 0.3 * u[0, 0]
        drawn = torch.cat([x.delta[:, 0] for x in all_positions(base(u), D, [7], 512)])
        assert drawn.shape == (D, 5, m)
        explicit = torch.einsum("dmn,tn->dtm", inputs(D, m, n, seed=1), u[0])
        explicit = explicit / explicit.norm(dim=-1, keepdim=True)
        a, b = moments(drawn), moments(explicit)
        error = ((a.var(0) + b.var(0)) / D).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * error + 1e-12).all()
        torch.testing.assert_close(drawn[:, 1], -drawn[:, 0], atol=1e-12, rtol=0)
        torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(D, 5, dtype=torch.float64))


def test_all_positions_leave_alone_what_has_no_input_or_no_gradient():
    u, g = inputs(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.float64)
    u[0, 1] = 0
    g[1, 2] = 0
    (draw,) = all_positions(base(u, g=g), 2, [1, 2], 8)
    assert (draw.delta.norm(dim=-1) == 0).nonzero().tolist() == [[0, 0, 1], [0, 1, 2], [1, 0, 1], [1, 1, 2]]
    assert eligible(g).tolist() == [[True, True, True], [True, True, False]]
    assert eligible(torch.zeros(1, 2, 3)).all()


def test_examples_without_a_loss_are_not_displaced():
    """Terms and gradient all 0; without a gradient in the whole batch, but with terms, every position is."""
    g, u = torch.zeros(3, 2, 4, dtype=torch.float64), inputs(3, 2, 4)
    terms = torch.zeros(3, 2)
    terms[2, 0] = 1.0
    for some, wanted in ((False, [[False] * 2, [False] * 2, [True] * 2]), (True, [[True, False], *[[False] * 2] * 2])):
        if some:
            g[0, 0, 1] = 1.0
        made = Base(torch.zeros(3, 2, 4).double(), u, g, terms, 1e-16)
        assert displaced(made).tolist() == wanted
        assert (positions_of(made, None, [1, 2, 3]) >= 0).any(-1).tolist() == [any(row) for row in wanted]
        (draw,) = all_positions(made, 2, [1, 2, 3], 2)
        assert (draw.delta.norm(dim=-1) > 0).all(0).tolist() == wanted


def test_one_position_moves_uniformly_on_the_sphere():
    """Squared coordinates of a uniform δ in R^m are Beta(1/2, (m − 1)/2), and signs are even."""
    for m in (1, 2, 7):
        (draw,) = one_position(base(inputs(2, 1, 3), m), torch.zeros(2, 1, dtype=torch.long), 2000, [3, 4], 2000)
        delta = draw.delta
        assert delta.shape == (2000, 2, m)
        torch.testing.assert_close(delta.norm(dim=-1), torch.ones(2000, 2, dtype=torch.float64))
        assert abs(float(delta.sign().mean())) < 0.07
        if m > 1:
            squares = delta[..., 0].square().flatten().numpy()
            assert stats.kstest(squares, stats.beta(0.5, (m - 1) / 2).cdf).pvalue > 1e-3
        assert (delta[:, 0] != delta[:, 1]).any()  # examples have directions of their own


def test_directions_do_not_depend_on_how_many_pass_at_once_or_on_the_batch():
    chosen = torch.tensor([[0, 2], [1, -1]])
    u = inputs(2, 3, 4)
    whole = list(one_position(base(u), chosen, 6, [1, 2], 6))
    split = list(one_position(base(u), chosen, 6, [1, 2], 4))
    assert [x.token for x in split] == [0, 0, 1, 1]
    assert torch.equal(torch.cat([x.delta for x in whole]), torch.cat([x.delta for x in split]))
    alone = list(one_position(base(u[1:]), chosen[1:], 6, [2], 6))
    assert torch.equal(torch.cat([x.delta for x in alone])[:, 0], torch.cat([x.delta for x in whole])[:, 1])
    together, apart = ([*all_positions(base(u), 6, [1, 2], k)] for k in (6, 4))
    assert torch.equal(torch.cat([x.delta for x in together]), torch.cat([x.delta for x in apart]))


@pytest.mark.parametrize("at_once", [1, 7, BLOCK, 3 * BLOCK, 1000])
def test_many_directions_are_the_same_at_any_number_at_once_and_begin_as_fewer_do(at_once: int) -> None:
    made, chosen, many = base(inputs(2, 3, 4)), torch.tensor([[0, 2], [1, -1]]), 2 * BLOCK + 9
    every = [*one_position(made, chosen, many, [1, 2], at_once)]
    reference = [*one_position(made, chosen, many, [1, 2], 5)]
    for token in (0, 1):
        mine, wanted = (torch.cat([x.delta for x in each if x.token == token]) for each in (every, reference))
        assert torch.equal(mine, wanted)
        fewer = [x.delta for x in one_position(made, chosen, 3, [1, 2], 9) if x.token == token]
        assert torch.equal(torch.cat(fewer), wanted[:3])
        assert len(wanted.flatten(0, 1).unique(dim=0)) == 2 * many
    assert max(len(x.delta) for x in every) <= at_once
    alone = [*one_position(base(inputs(2, 3, 4)[1:]), chosen[1:], many, [2], at_once)]
    assert torch.equal(torch.cat([x.delta for x in alone])[:, 0], torch.cat([x.delta for x in every])[:, 1])


def test_memory_does_not_grow_with_the_number_of_directions():
    def held(directions: int) -> int:
        made, chosen = base(inputs(8, 1, 4), 64), torch.zeros(8, 1, dtype=torch.long)
        return peak(lambda: [None for _ in one_position(made, chosen, directions, list(range(8)), 16)])

    assert held(40 * BLOCK) <= 1.01 * held(2 * BLOCK)


def test_draws_of_all_positions_do_not_depend_on_the_signs_that_a_factorization_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of R in u = Q R are free, and other devices choose others."""
    made, qr = base(inputs(2, 5, 3)), torch.linalg.qr
    wanted = [x.delta for x in all_positions(made, 3, [1, 2], 3)]

    def other(x: Tensor) -> tuple[Tensor, Tensor]:
        Q, R = qr(x)
        flip = torch.tensor([1.0, -1.0, -1.0]).double()
        return Q * flip, R * flip[:, None]

    monkeypatch.setattr(torch.linalg, "qr", other)
    assert torch.equal(torch.cat([x.delta for x in all_positions(made, 3, [1, 2], 3)]), torch.cat(wanted))


def test_positions_are_drawn_evenly_without_replacement_among_those_with_a_gradient():
    g = torch.ones(1, 6, 4, dtype=torch.float64)
    g[0, 2] = 0
    made = base(inputs(1, 6, 3), g=g)
    seeds = [example_seeds(s, "layer", 0, 1) for s in range(600)]
    drawn = torch.cat([positions_of(made, 2, each) for each in seeds])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    counts = drawn.flatten().bincount(minlength=6)
    assert counts[2] == 0
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    assert sorted(positions_of(made, None, [1])[0].tolist()) == [0, 1, 3, 4, 5]
    g = torch.ones(2, 3, 4, dtype=torch.float64)
    g[1, 1:] = 0
    assert (positions_of(base(inputs(2, 3, 3), g=g), 2, [1, 2]) >= 0).tolist() == [[True, True], [True, False]]


def test_every_example_layer_and_seed_has_its_own_draws():
    assert example_seeds(0, "a", 3, 2) == example_seeds(0, "a", 0, 5)[3:]
    every = {s for seed in (0, 1) for layer in "ab" for s in example_seeds(seed, layer, 0, 50)}
    assert len(every) == 200
    assert all(0 <= s < 2**63 for s in every)
